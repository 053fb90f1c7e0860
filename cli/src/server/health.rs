//! Health of a catalog server on a port of its own, in plain text: the kubelet's probe speaks no TLS.
//! Region nodes and extensions tell theirs themselves.

use afdg_process::ProcessError;
use afdg_runtime::{Incoming, World};
use tonic_health::ServingStatus;

/// The whole server; that it runs; that it is of use.
const SERVICES: [&str; 3] = ["", "liveness", "readiness"];

/// Tells that the server is well, until it is dropped.
pub struct Health(tokio::task::JoinHandle<()>);

impl Health {
    pub async fn serve(address: &str, world: &World) -> Result<Self, ProcessError> {
        let listener = world.net.bind(address).await;
        let listener = listener
            .map_err(|error| ProcessError::Server(format!("health can't be told on {address}: {error}")))?;
        let (reporter, service) = tonic_health::server::health_reporter();
        for name in SERVICES {
            reporter.set_service_status(name, ServingStatus::Serving).await;
        }
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(Incoming::new(listener));
        Ok(Self(tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "health is no longer told");
            }
        })))
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.0.abort();
    }
}
