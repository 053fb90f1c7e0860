//! The life of an extension: start, serve, drain.

use crate::{
    budget::Budget,
    caller::Caller,
    cluster_admin::ClusterAdmin,
    config::{DRAIN_QUIET_TIME, DRAIN_TIME_MAX, ExtensionConfig, RECEIVING_BYTES_MAX},
    connections::Connections,
    gateway::Gateway,
    grid::Grid,
    health::Health,
};
use afdg_catalog_client::{CatalogClient, InvalidAddresses};
use afdg_region_client::RegionClients;
use afdg_router::Router;
use afdg_runtime::{Listener, OnEnd, Tasks, World};
use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often the drain looks whether calls are in flight.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(20);

/// An extension before it runs.
pub struct ExtensionServer;

/// An extension that serves. Its tasks go on when this is dropped.
pub struct Running {
    local_address: SocketAddr,
    health_address: Option<SocketAddr>,
    router: Router,
    health: Health,
    connections: Connections,
    /// What serves clients; drained first.
    serving: Tasks,
    /// What the calls in flight still need: links to nodes, fresh routes.
    tasks: Tasks,
}

/// Why an extension could not start.
#[derive(Debug)]
pub enum StartError {
    Catalog(InvalidAddresses),
    Listen { address: String, error: io::Error },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalog(error) => error.fmt(f),
            Self::Listen { address, error } => {
                write!(f, "can't listen on '{}': {error}", address.escape_debug())
            }
        }
    }
}

impl std::error::Error for StartError {}

impl ExtensionServer {
    /// Listens and serves. Does not wait for the catalog: until the first routing table comes, calls
    /// wait for it within their deadlines.
    pub async fn start(config: ExtensionConfig, world: World) -> Result<Running, StartError> {
        let tasks = Tasks::new();
        let token = config.peer_token.clone();
        let catalog =
            CatalogClient::new(Arc::clone(&world.net), config.catalog_addresses.clone(), token.clone())
                .map_err(StartError::Catalog)?;
        let (listener, local_address) = bind(&world, &config.listen).await?;
        let health_listener = match &config.health_listen {
            Some(address) => Some(bind(&world, address).await?),
            None => None,
        };
        let routes = catalog.watch_routes(&tasks, &config.name);
        let clients = RegionClients::new(Arc::clone(&world.net), token, tasks.clone());
        let router = Router::new(routes, clients, &world);
        let running = Running {
            local_address,
            health_address: health_listener.as_ref().map(|(_, address)| *address),
            router,
            health: Health::new().await,
            connections: Connections::new(),
            serving: Tasks::new(),
            tasks,
        };
        running.serve(listener, health_listener.map(|(listener, _)| listener), catalog);
        tracing::info!(name = config.name, address = %local_address, "the extension serves");
        Ok(running)
    }
}

async fn bind(world: &World, address: &str) -> Result<(Box<dyn Listener>, SocketAddr), StartError> {
    let failed = |error| StartError::Listen { address: address.to_owned(), error };
    let listener = world.net.bind(address).await.map_err(failed)?;
    let local = listener.local_address().map_err(failed)?;
    Ok((listener, local))
}

impl Running {
    /// Where clients are served.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Where health alone is served, if so configured.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health_address
    }

    /// Waits until calls can succeed, until `until` at most.
    pub async fn ready(&self, until: Instant) -> bool {
        self.router.ready(until).await
    }

    /// Resolves with the reason once the server can't go on.
    pub async fn failed(&self) -> String {
        tokio::select! {
            why = self.serving.failed() => why,
            why = self.tasks.failed() => why,
        }
    }

    /// Takes no more calls, finishes those in flight up to a bound, and ends. True if all were finished.
    pub async fn drain(self) -> bool {
        let end = Instant::now() + DRAIN_TIME_MAX;
        self.health.stopping().await;
        let accepting_ended = self.serving.drain(DRAIN_TIME_MAX);
        // Streams that only watch (health, reflection) would keep their connections open for ever.
        let finished = tokio::select! {
            (_, ()) = async { tokio::join!(accepting_ended, self.connections.ended()) } => true,
            () = self.quiet() => true,
            () = tokio::time::sleep_until(end) => self.router.messages_in_flight() == 0,
        };
        self.connections.cut();
        let cut = tokio::time::timeout(DRAIN_QUIET_TIME, self.connections.ended()).await;
        let ended = self.tasks.drain(DRAIN_QUIET_TIME).await;
        finished && cut.is_ok() && ended
    }

    /// Resolves when no call has been in flight for a while.
    async fn quiet(&self) {
        let mut last_busy = Instant::now();
        while last_busy.elapsed() < DRAIN_QUIET_TIME {
            tokio::time::sleep(DRAIN_LOOK_EVERY).await;
            if self.router.messages_in_flight() > 0 {
                last_busy = Instant::now();
            }
        }
    }

    fn serve(
        &self,
        listener: Box<dyn Listener>,
        health_listener: Option<Box<dyn Listener>>,
        catalog: CatalogClient,
    ) {
        let receiving = Budget::new(RECEIVING_BYTES_MAX);
        let caller = Caller { router: self.router.clone() };
        let grid = Grid::new(caller.clone(), self.serving.clone());
        let cluster = ClusterAdmin { catalog, router: self.router.clone() };
        let gateway = Gateway::new(caller, grid, cluster, self.health.service(), receiving.clone());
        let serve = |listener, gateway| {
            let connections = self.connections.clone();
            let task = connections.serve(listener, gateway, self.serving.draining());
            self.serving.spawn_until_done("accept", OnEnd::StopServer, task);
        };
        serve(listener, gateway);
        if let Some(listener) = health_listener {
            serve(listener, Gateway::health_only(self.health.service(), receiving));
        }
        let follow = self.health.clone().follow(self.router.clone());
        self.serving.spawn("health", OnEnd::Finish, follow);
    }
}
