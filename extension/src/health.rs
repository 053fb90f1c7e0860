//! `grpc.health.v1`: serving once calls can succeed, and no longer when the server stops.

use afdg_router::Router;
use futures::future::BoxFuture;
use std::{convert::Infallible, time::Duration};
use tokio::time::Instant;
use tonic::body::Body;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService as Service},
};

/// The whole server, the service that stands for calls, and what probes of readiness ask for.
const NAMES: [&str; 3] = ["", "afdg.v1.Grid", "readiness"];
/// What probes of liveness ask for: served from the start until the process ends.
const LIVENESS: &str = "liveness";
const CHECK_EVERY: Duration = Duration::from_secs(3_600);

#[derive(Clone)]
pub(crate) struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Not serving until told otherwise.
    pub(crate) async fn new() -> Self {
        let health = Self { reporter: HealthReporter::new() };
        health.set(ServingStatus::NotServing).await;
        health.reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
        health
    }

    pub(crate) fn service(&self) -> HealthService {
        HealthService(HealthServer::new(Service::from_health_reporter(self.reporter.clone())))
    }

    /// Says so once the routing table is ready. It stays so when the catalog goes away, since calls on
    /// known routes go on.
    pub(crate) async fn follow(self, router: Router) {
        while !router.ready(Instant::now() + CHECK_EVERY).await {}
        self.set(ServingStatus::Serving).await;
    }

    pub(crate) async fn stopping(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for name in NAMES {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

/// The gRPC service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HealthService(HealthServer<Service>);

impl HealthService {
    pub(crate) fn call(
        &mut self,
        request: http::Request<Body>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, Infallible>> {
        tower::Service::call(&mut self.0, request)
    }
}
