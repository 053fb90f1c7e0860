//! Calls agents as any gRPC client does.

use prost::Message;
use std::time::Duration;
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

/// A connection to an extension.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    pub async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?
            .connect_timeout(Duration::from_secs(5))
            .connect()
            .await?;
        Ok(Self { channel })
    }

    /// Connects when it is first used, and again after a failure.
    pub fn lazy(endpoint: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?;
        Ok(Self { channel: endpoint.connect_timeout(Duration::from_secs(5)).connect_lazy() })
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Calls `/service/method`.
    pub async fn call<Q, A>(&self, path: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.request(path, Request::new(request)).await
    }

    /// Calls with an idempotency key.
    pub async fn call_once<Q, A>(&self, path: &str, request: Q, key: &str) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.request(path, with_key(request, key)?).await
    }

    pub async fn request<Q, A>(&self, path: &str, request: Request<Q>) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path: PathAndQuery = path.parse().map_err(|_| Status::invalid_argument("the path is wrong"))?;
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        grpc.unary(request, path, codec).await.map(tonic::Response::into_inner)
    }
}

/// A request that takes effect once, however often it is made.
pub fn with_key<Q>(request: Q, key: &str) -> Result<Request<Q>, Status> {
    let mut request = Request::new(request);
    let key = key.parse().map_err(|_| Status::invalid_argument("the key is no metadata value"))?;
    request.metadata_mut().insert("afdg-idempotency-key", key);
    Ok(request)
}
