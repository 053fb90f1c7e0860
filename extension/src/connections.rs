//! Connections of clients: accepted, bounded, ended.
//!
//! hyper is used directly instead of tonic's server for three things that matter at the edge: a bound on
//! the number of connections, a bound on the time until a client's greeting, and a drain that ends.

use crate::config::{
    CONNECTION_STREAMS_MAX, CONNECTION_WINDOW_BYTES, CONNECTIONS_MAX, GREETING_TIME_MAX,
    HEADER_LIST_BYTES_MAX, HTTP2_FRAME_BYTES_MAX, KEEPALIVE_EVERY, KEEPALIVE_TIME_MAX, STREAM_WINDOW_BYTES,
};
use crate::gateway::Gateway;
use afdg_runtime::{BoxIo, Incoming, Listener};
use futures::StreamExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// HTTP/2's connection preface. HTTP/1 has its own bound on the time for headers.
const GREETING_BYTES: usize = 24;

/// The connections of one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections {
    tracker: TaskTracker,
    /// Ends connections whatever is in flight on them.
    cut: CancellationToken,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self { tracker: TaskTracker::new(), cut: CancellationToken::new() }
    }

    /// Accepts until the drain begins; then connections take no more requests and end with the last one.
    pub(crate) async fn serve(
        self,
        listener: Box<dyn Listener>,
        gateway: Gateway,
        draining: CancellationToken,
    ) {
        let mut incoming = Incoming::new(listener);
        loop {
            let accepted = tokio::select! {
                () = draining.cancelled() => return,
                accepted = incoming.next() => accepted,
            };
            match accepted {
                None => return,
                Some(Err(error)) => tracing::debug!(%error, "a connection could not be accepted"),
                Some(Ok(_)) if self.tracker.len() >= CONNECTIONS_MAX => {
                    tracing::debug!(CONNECTIONS_MAX, "a connection was closed: there are as many as allowed");
                }
                Some(Ok(connection)) => {
                    let task = serve_one(connection, gateway.clone(), draining.clone(), self.cut.clone());
                    self.tracker.spawn(task);
                }
            }
        }
    }

    /// Resolves once all connections have ended.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIME_MAX);
    // HTTP/1 gets one answer that says what is spoken here.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(GREETING_TIME_MAX).keep_alive(false);
    builder
}

async fn serve_one(connection: BoxIo, gateway: Gateway, draining: CancellationToken, cut: CancellationToken) {
    let received = Arc::new(AtomicUsize::new(0));
    let io = TokioIo::new(Counted { io: connection, received: Arc::clone(&received) });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(io, TowerToHyperService::new(gateway)));
    let mut greeting = pin!(tokio::time::sleep(GREETING_TIME_MAX));
    let (mut greeted, mut stopping) = (false, false);
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(error, "a connection ended");
                }
                return;
            }
            () = cut.cancelled() => return,
            () = draining.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut greeting, if !greeted => {
                greeted = true;
                if received.load(Relaxed) < GREETING_BYTES {
                    tracing::debug!("a connection was closed: it has not said what it wants");
                    return;
                }
            }
        }
    }
}

/// Counts what was received, up to the greeting.
struct Counted {
    io: BoxIo,
    received: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if self.received.load(Relaxed) < GREETING_BYTES {
            self.received.fetch_add(buffer.filled().len().saturating_sub(before), Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
