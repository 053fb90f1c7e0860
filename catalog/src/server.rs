//! The life of a catalog server: start, run, drain.

use crate::{
    config::{CatalogConfig, ConfigError},
    hints::HintTable,
    initialize::initialize,
    log::CatalogLog,
    reconcile::{Patience, Reconciler},
    relay::Relay,
    services::{ClusterService, Core, NodesService},
    shared_machine::{NoObserver, SharedMachine},
    soft::Soft,
    table::{Published, publish},
};
use afdg_catalog_machine::CatalogState;
use afdg_proto::{
    pb::{admin::cluster_server::ClusterServer, internal::catalog_server},
    peer_auth::DemandToken,
};
use afdg_replication::{
    CheckpointPolicy, HostConfig, Identity, IdentityError, Replica, ReplicaHost, StartError,
};
use afdg_runtime::{FolderLock, Listener, OnEnd, Tasks, World, serve};
use afdg_types::limits::FRAME_BYTES_MAX;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};
use tonic::{service::interceptor::InterceptedService, transport::Server};

const ROLE: &str = "catalog";
/// The catalog's Raft group; regions count from 1.
const GROUP: u64 = 0;
/// Handing on the lead before a stop.
const HAND_ON_LIMIT: Duration = Duration::from_secs(2);
/// Stopping the replica.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Why a catalog server can't start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the data folder: {0}")]
    Identity(#[from] IdentityError),
    #[error("can't listen on {address}: {error}")]
    Listen { address: String, error: std::io::Error },
    #[error("replication: {0}")]
    Replication(#[from] StartError),
}

/// A catalog server that is not running.
pub struct CatalogServer;

/// A catalog server that runs. Dropped without a drain, its tasks run on.
pub struct Running {
    pub local_address: SocketAddr,
    tasks: Tasks,
    replica: Replica<SharedMachine>,
    host: ReplicaHost,
    drain_limit: Duration,
    _folder: Arc<dyn FolderLock>,
}

impl CatalogServer {
    /// Starts a server on `config.listen`.
    pub async fn start(config: CatalogConfig, world: World) -> Result<Running, HostError> {
        config.check()?;
        let listener = world
            .net
            .bind(&config.listen)
            .await
            .map_err(|error| HostError::Listen { address: config.listen.clone(), error })?;
        Self::start_on(config, world, listener).await
    }

    /// Starts a server on a socket that listens already, so that a test can tell all servers where the
    /// others listen before the first one starts.
    pub async fn start_on(
        config: CatalogConfig,
        world: World,
        listener: Box<dyn Listener>,
    ) -> Result<Running, HostError> {
        config.check()?;
        let local_address = listener
            .local_address()
            .map_err(|error| HostError::Listen { address: config.listen.clone(), error })?;
        let mut identity = Identity::open(&*world.disk, &config.folder, ROLE, &config.id.to_string()).await?;

        let tasks = Tasks::new();
        let started = Self::replicate(&config, &world, &tasks, &mut identity).await;
        let (host, replica, state) = match started {
            Ok(parts) => parts,
            Err(error) => {
                // What has started already must not go on without its server.
                tasks.drain(SHUTDOWN_LIMIT).await;
                return Err(error);
            }
        };
        let folder = identity.lock();
        let server = Assembly { config, world, tasks, replica, state };
        server.spawn(host.clone(), identity, listener);
        let Assembly { config, tasks, replica, .. } = server;
        tracing::info!(id = config.id, address = %local_address, "the catalog server runs");
        let drain_limit = Duration::from_millis(config.drain_ms_max);
        Ok(Running { local_address, tasks, replica, host, drain_limit, _folder: folder })
    }

    async fn replicate(
        config: &CatalogConfig,
        world: &World,
        tasks: &Tasks,
        identity: &mut Identity,
    ) -> Result<(ReplicaHost, Replica<SharedMachine>, watch::Receiver<Arc<CatalogState>>), HostError> {
        let host_config = HostConfig {
            folder: config.folder.clone(),
            server_id: config.id,
            peer_token: config.peer_token.clone(),
            timing: config.timing,
            checkpoints: CheckpointPolicy::default(),
            substitutes: config.substitutes.clone(),
        };
        let host = ReplicaHost::open(world, tasks, host_config).await?;
        let (machine, state) = SharedMachine::new();
        let mut peers = config.servers.clone();
        peers.remove(&config.id);
        if !peers.is_empty() && host.lacks_rows(GROUP)? {
            host.fetch_rows(GROUP, || peers.clone()).await?;
        }
        let replica = Replica::start(&host, GROUP, machine, Box::new(NoObserver)).await?;
        let cluster = state.borrow().cluster.as_ref().map(|cluster| cluster.id.clone());
        if let Some(cluster) = cluster {
            identity.join_cluster(&*world.disk, &cluster).await?;
        }
        Ok((host, replica, state))
    }
}

/// The parts of a server on their way to becoming tasks.
struct Assembly {
    config: CatalogConfig,
    world: World,
    tasks: Tasks,
    replica: Replica<SharedMachine>,
    state: watch::Receiver<Arc<CatalogState>>,
}

impl Assembly {
    fn spawn(&self, host: ReplicaHost, identity: Identity, listener: Box<dyn Listener>) {
        let Self { config, world, tasks, replica, state } = self;
        let log: Arc<dyn CatalogLog> = Arc::new(replica.clone());
        let (soft, hints) = (Arc::new(Soft::default()), Arc::new(HintTable::new()));
        let core = Arc::new(Core {
            log: Arc::clone(&log),
            state: state.clone(),
            soft: Arc::clone(&soft),
            hints: Arc::clone(&hints),
            id: config.id,
            servers: config.servers.clone(),
            world: world.clone(),
            peer_token: config.peer_token.clone(),
            lease: Duration::from_millis(config.lease_ms),
        });
        let (published, receiver) = watch::channel(Arc::new(Published::default()));
        tasks.spawn(
            "publish routes",
            OnEnd::StopServer,
            publish(state.clone(), Arc::clone(&hints), published),
        );
        self.spawn_serving(core, receiver, &host, listener);

        let reconciler = Reconciler {
            log: Arc::clone(&log),
            state: state.clone(),
            soft,
            world: world.clone(),
            bootstrap: config.bootstrap,
            patience: Patience {
                lease: Duration::from_millis(config.lease_ms),
                dead_after: Duration::from_millis(config.dead_after_ms),
            },
        };
        tasks.spawn("reconcile", OnEnd::StopServer, reconciler.run());
        let relay = Relay {
            log,
            servers: config.servers.clone(),
            net: Arc::clone(&world.net),
            token: config.peer_token.clone(),
            hints,
            name: format!("catalog {}", config.id),
        };
        tasks.spawn("relay hints", OnEnd::StopServer, relay.run());
        let joining = note_cluster(identity, state.clone(), world.clone(), tasks.clone());
        tasks.spawn("note cluster", OnEnd::Finish, joining);
        let first_start = initialize(replica.clone(), config.clone(), world.clone(), tasks.clone());
        tasks.spawn("initialize", OnEnd::Finish, first_start);
    }

    fn spawn_serving(
        &self,
        core: Arc<Core>,
        published: watch::Receiver<Arc<Published>>,
        host: &ReplicaHost,
        listener: Box<dyn Listener>,
    ) {
        let demand = DemandToken(self.config.peer_token.clone());
        let draining = self.tasks.draining();
        let nodes = NodesService::new(Arc::clone(&core), published, draining.clone());
        let nodes = catalog_server::CatalogServer::new(nodes)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        let cluster = ClusterServer::new(ClusterService::new(core))
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        let router = Server::builder()
            .add_service(host.peer_endpoint())
            .add_service(InterceptedService::new(nodes, demand.clone()))
            .add_service(InterceptedService::new(cluster, demand));
        let tasks = self.tasks.clone();
        self.tasks.spawn_until_done("serve", OnEnd::StopServer, async move {
            if let Err(why) = serve(router, listener, draining).await {
                tasks.fail(format!("the catalog can't serve: {why}"));
            }
        });
    }
}

/// Writes the cluster's id into the data folder once it is known.
async fn note_cluster(
    mut identity: Identity,
    mut state: watch::Receiver<Arc<CatalogState>>,
    world: World,
    tasks: Tasks,
) {
    let Ok(formed) = state.wait_for(|state| state.cluster.is_some()).await.map(|state| Arc::clone(&state))
    else {
        return;
    };
    let Some(cluster) = &formed.cluster else { return };
    if let Err(error) = identity.join_cluster(&*world.disk, &cluster.id).await {
        tasks.fail(format!("the data folder: {error}"));
    }
}

impl Running {
    /// Resolves with the reason once the server can't go on.
    pub async fn failed(&self) -> String {
        self.tasks.failed().await
    }

    /// Hands on the lead, stops, and returns whether everything ended in time. Membership stays as it is:
    /// a restart is no leave.
    pub async fn drain(self) -> bool {
        if timeout(HAND_ON_LIMIT, self.hand_on_lead()).await.is_err() {
            tracing::debug!("the catalog's lead was not handed on in time");
        }
        if timeout(SHUTDOWN_LIMIT, self.replica.shutdown()).await.is_err() {
            tracing::warn!("the catalog's replica did not stop in time");
        }
        let ended = self.tasks.drain(self.drain_limit).await;
        // Before the folder is free for another: a log that is left open writes its last marks later.
        self.host.close().await;
        ended
    }

    async fn hand_on_lead(&self) {
        let mut lead = self.replica.lead();
        if !lead.borrow_and_update().is_mine {
            return;
        }
        let Some(to) = self.replica.followers_in_step().into_iter().next() else { return };
        if let Err(error) = self.replica.transfer_leader(to).await {
            return tracing::debug!(%error, "the catalog's lead was not handed on");
        }
        // An error means that the replica has stopped, which is as well.
        let _ = lead.wait_for(|lead| !lead.is_mine).await;
    }
}
