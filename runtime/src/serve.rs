//! Serving until the drain, and then to an end.
//!
//! A graceful stop lets every request finish, but streams between servers never do by themselves. So
//! after a short grace every connection is cut: the other side sees it closed and looks elsewhere.

use crate::{BoxIo, Incoming, Listener};
use async_trait::async_trait;
use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Router;

/// Time for requests under way once the drain has begun.
const GRACE: Duration = Duration::from_millis(500);

/// Serves `router` on `listener` until `draining`. Returns what went wrong, if anything did.
pub async fn serve(
    router: Router,
    listener: Box<dyn Listener>,
    draining: CancellationToken,
) -> Result<(), String> {
    let cut = CancellationToken::new();
    let incoming = Incoming::new(Box::new(CutListener { listener, cut: cut.clone() }));
    let serving = router.serve_with_incoming_shutdown(incoming, draining.clone().cancelled_owned());
    tokio::pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result,
        () = async {
            draining.cancelled().await;
            tokio::time::sleep(GRACE).await;
        } => {
            cut.cancel();
            serving.await
        }
    };
    result.map_err(|error| error.to_string())
}

struct CutListener {
    listener: Box<dyn Listener>,
    cut: CancellationToken,
}

#[async_trait]
impl Listener for CutListener {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_address()
    }

    async fn accept(&mut self) -> io::Result<BoxIo> {
        let io = self.listener.accept().await?;
        Ok(BoxIo(Box::new(CutIo { io, cut: Box::pin(self.cut.clone().cancelled_owned()) })))
    }
}

/// A connection that reads as closed once it is cut.
struct CutIo {
    io: BoxIo,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for CutIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for CutIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
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
