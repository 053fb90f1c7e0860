//! Sockets.

use async_trait::async_trait;
use futures::Stream;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint, server::Connected};

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connected socket of any kind.
pub struct BoxIo(pub Box<dyn Io>);

#[async_trait]
pub trait Net: Send + Sync + 'static {
    /// Listens on `address` (`host:port`; port 0 picks one).
    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>>;
    async fn connect(&self, address: &str) -> io::Result<BoxIo>;
}

#[async_trait]
pub trait Listener: Send + 'static {
    fn local_address(&self) -> io::Result<SocketAddr>;
    async fn accept(&mut self) -> io::Result<BoxIo>;
}

/// TCP of the operating system.
#[derive(Debug)]
pub struct TcpNet;

#[async_trait]
impl Net for TcpNet {
    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(tokio::net::TcpListener::bind(address).await?))
    }

    async fn connect(&self, address: &str) -> io::Result<BoxIo> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(BoxIo(Box::new(stream)))
    }
}

#[async_trait]
impl Listener for tokio::net::TcpListener {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    async fn accept(&mut self) -> io::Result<BoxIo> {
        let (stream, _) = tokio::net::TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok(BoxIo(Box::new(stream)))
    }
}

impl Connected for BoxIo {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for BoxIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for BoxIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Accepted connections as the stream that tonic serves from. A failed accept (such as no free file
/// descriptor) is logged and tried again after a pause; it ends nothing.
pub struct Incoming {
    connections: Pin<Box<dyn Stream<Item = io::Result<BoxIo>> + Send>>,
}

impl Incoming {
    pub fn new(listener: Box<dyn Listener>) -> Self {
        let connections = futures::stream::unfold(listener, |mut listener| async move {
            loop {
                match listener.accept().await {
                    Ok(connection) => return Some((Ok(connection), listener)),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
        Self { connections: Box::pin(connections) }
    }
}

impl Stream for Incoming {
    type Item = io::Result<BoxIo>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.as_mut().poll_next(cx)
    }
}

/// A gRPC channel to `address` (`host:port`) over `net` that connects when first used and again after
/// a failure. `connect_timeout` bounds one attempt.
pub fn channel_to(
    net: &Arc<dyn Net>,
    address: &str,
    connect_timeout: Duration,
) -> Result<Channel, InvalidAddress> {
    let invalid = |_| InvalidAddress { address: address.escape_debug().to_string() };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| invalid(()))?
        .connect_timeout(connect_timeout)
        .initial_stream_window_size(8 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(4))
        .keep_alive_while_idle(true);
    if endpoint.uri().port().is_none() || endpoint.uri().host().is_none_or(str::is_empty) {
        return Err(invalid(()));
    }
    let net = Arc::clone(net);
    let target = address.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let net = Arc::clone(&net);
        let target = target.clone();
        async move { net.connect(&target).await.map(hyper_util::rt::TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// A text that is no `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAddress {
    pub address: String,
}

impl std::fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "'{}' is no address; write host:port, such as 127.0.0.1:7000", self.address)
    }
}

impl std::error::Error for InvalidAddress {}
