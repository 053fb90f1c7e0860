//! The life of a region node: config, start, serve, drain.

use crate::{
    cache::RowCache,
    config::RegionNodeConfig,
    executor::{reentry::ReentrantTypes, threads::HandlerThreads},
    metrics,
    node_file::NodeFile,
    region::Surroundings,
    regions::{self, CatalogHeard, Regions},
    scatter::Scatters,
    service::RegionService,
};
use afdg_agent::host::{AgentHost, TypeDescription};
use afdg_catalog_client::{
    CatalogClient, InvalidAddresses, MethodInfo, NodeReport, Registration, ReplicaReport, TypeInfo,
};
use afdg_proto::{
    pb::internal::region_node_server::RegionNodeServer as RegionNodeEndpoint, peer_auth::DemandToken,
};
use afdg_region_client::RegionClients;
use afdg_replication::{HostConfig, Identity, IdentityError, ReplicaHost, StartError};
use afdg_router::Router;
use afdg_runtime::{FolderLock, Listener, OnEnd, Tasks, World};
use afdg_types::{GridError, NodeId, RegionId, Term, TypeLimits, limits::FRAME_BYTES_MAX};
use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{
    service::{Routes, interceptor::InterceptedService},
    transport::{Server, server::Router as Services},
};

/// How long a start waits for the catalog.
const REGISTER_WITHIN: Duration = Duration::from_secs(60);
/// A heartbeat is sent this often, and given up after this.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// Names that health checks ask for: of the server as a whole, whether it should be left to live, and
/// whether it may be counted on.
const HEALTH_SERVICES: [&str; 3] = ["", "liveness", "readiness"];
/// How long a stop may take to hand over leads.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// How long tasks may take to end after that.
const TASKS_LIMIT: Duration = Duration::from_secs(5);

/// Why a region node can't start.
#[derive(Debug, thiserror::Error)]
pub enum RegionNodeError {
    #[error("can't listen on {address}: {error}")]
    Listen { address: String, error: io::Error },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the data folder: {0}")]
    Folder(io::Error),
    #[error(transparent)]
    Catalog(#[from] InvalidAddresses),
    #[error("the catalog does not take this node: {0}")]
    Register(GridError),
    #[error(transparent)]
    Replication(#[from] StartError),
}

/// A region node that runs.
pub struct RunningRegionNode {
    pub node: NodeId,
    pub local_address: SocketAddr,
    pub health_address: Option<SocketAddr>,
    regions: Regions,
    replicas: ReplicaHost,
    tasks: Tasks,
    _folder: Arc<dyn FolderLock>,
}

impl RunningRegionNode {
    /// Resolves with the reason if the node can't go on.
    pub async fn failed(&self) -> String {
        self.tasks.failed().await
    }

    /// Regions that this node leads at the moment.
    pub fn leads(&self) -> Vec<RegionId> {
        let all = self.regions.all();
        all.into_iter().filter(|(_, handle)| handle.status().lead.is_mine).map(|(region, _)| region).collect()
    }

    /// Hands over the leads and stops. Membership does not change: a restart is not a leave.
    pub async fn drain(self) {
        regions::give_up_leads(&self.regions, Instant::now() + HAND_OVER_LIMIT).await;
        self.stop().await;
    }

    /// Stops at once, without handing over.
    pub async fn stop(self) {
        for (_, handle) in self.regions.all() {
            handle.replica.shutdown().await;
        }
        if !self.tasks.drain(TASKS_LIMIT).await {
            tracing::warn!("some tasks did not end in time");
        }
        self.regions.clear();
        self.replicas.close().await;
    }
}

/// Starts region nodes.
pub struct RegionNodeServer;

impl RegionNodeServer {
    /// Starts a node that hosts `host`'s agents; returns once the catalog has taken it.
    pub async fn start(
        config: RegionNodeConfig,
        world: World,
        host: Arc<dyn AgentHost>,
    ) -> Result<RunningRegionNode, RegionNodeError> {
        let tasks = Tasks::new();
        let started = start(config, world, host, &tasks).await;
        if started.is_err() {
            tasks.drain(TASKS_LIMIT).await;
        }
        started
    }
}

async fn start(
    config: RegionNodeConfig,
    world: World,
    host: Arc<dyn AgentHost>,
    tasks: &Tasks,
) -> Result<RunningRegionNode, RegionNodeError> {
    let disk = Arc::clone(&world.disk);
    let mut identity = Identity::open(disk.as_ref(), &config.folder, "region-node", &config.name).await?;
    let opened = NodeFile::open(disk.as_ref(), world.entropy.as_ref(), &config.folder).await;
    let mut node_file = opened.map_err(RegionNodeError::Folder)?;
    let listen_error = |address: &str| {
        let address = address.to_owned();
        move |error| RegionNodeError::Listen { address, error }
    };
    let listener = world.net.bind(&config.listen).await.map_err(listen_error(&config.listen))?;
    let local_address = listener.local_address().map_err(listen_error(&config.listen))?;
    let address = config.advertise.clone().unwrap_or_else(|| local_address.to_string());

    let catalog =
        CatalogClient::new(Arc::clone(&world.net), config.catalog.clone(), config.peer_token.clone())?;
    let types = host.types();
    let registration = Registration {
        name: config.name.clone(),
        incarnation: node_file.incarnation().to_owned(),
        address,
        zone: config.zone.clone(),
        types: types.iter().map(type_info).collect(),
        known_as: node_file.known_as(),
    };
    let registered = register(&catalog, registration, node_file.known_as()).await?;
    identity.join_cluster(disk.as_ref(), &registered.cluster).await?;
    node_file.registered(disk.as_ref(), &registered).await.map_err(RegionNodeError::Folder)?;

    let replicas = ReplicaHost::open(&world, tasks, host_config(&config, registered.node)).await?;
    let routes = catalog.watch_routes(tasks, &config.name);
    let clients = RegionClients::new(Arc::clone(&world.net), config.peer_token.clone(), tasks.clone());
    let here = Surroundings {
        node: registered.node,
        router: Arc::new(Router::new(routes.clone(), clients, &world)),
        world: world.clone(),
        host,
        methods: Arc::new(types.iter().map(methods_of).collect()),
        reentrant: Arc::new(ReentrantTypes::of(&types)),
        send_retry: Arc::new(types.iter().map(|known| (known.name.clone(), known.send_retry)).collect()),
        routes,
        cache: Arc::new(RowCache::new(config.cache_bytes)),
        load: Arc::default(),
        fail_points: config.fail_points,
        handler_threads: HandlerThreads::new(
            Arc::clone(&world.serving),
            types.iter().map(|known| known.name.as_str()),
        ),
        tasks: tasks.clone(),
    };
    let (regions, heard) = (Regions::default(), CatalogHeard::default());
    tasks.spawn(
        "reconcile-regions",
        OnEnd::StopServer,
        regions::reconcile(regions.clone(), replicas.clone(), here.clone(), heard.clone()),
    );
    tasks.spawn(
        "heartbeat",
        OnEnd::StopServer,
        heartbeat(catalog, regions.clone(), replicas.clone(), registered.node, heard),
    );

    let endpoint = RegionNodeEndpoint::new(RegionService {
        regions: regions.clone(),
        here,
        scatters: Scatters::default(),
    })
    .max_decoding_message_size(FRAME_BYTES_MAX)
    .max_encoding_message_size(FRAME_BYTES_MAX);
    let endpoint = InterceptedService::new(endpoint, DemandToken(config.peer_token.clone()));
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in HEALTH_SERVICES {
        reporter.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }
    let health_address = match &config.health_listen {
        None => None,
        Some(address) => {
            let listener = world.net.bind(address).await.map_err(listen_error(address))?;
            let bound = listener.local_address().map_err(listen_error(address))?;
            // What scrapes metrics speaks HTTP/1.1.
            let page = metrics::page(regions.clone());
            let routes = Routes::from(Routes::new(health.clone()).into_axum_router().merge(page));
            serve(tasks, "serve-health", server_builder().accept_http1(true).add_routes(routes), listener);
            Some(bound)
        }
    };
    let router =
        server_builder().add_service(endpoint).add_service(replicas.peer_endpoint()).add_service(health);
    serve(tasks, "serve", router, listener);
    if config.fail_points.any() {
        tracing::warn!(fail_points = ?config.fail_points, "this node ends at fail points, for a test");
    }
    tracing::info!(name = config.name, node = %registered.node, address = %local_address, "the region node runs");
    Ok(RunningRegionNode {
        node: registered.node,
        local_address,
        health_address,
        regions,
        replicas,
        tasks: tasks.clone(),
        _folder: identity.lock(),
    })
}

/// A node that the catalog knows already starts without it: its replicas are needed to elect leaders
/// even while the catalog is down.
async fn register(
    catalog: &CatalogClient,
    registration: Registration,
    known_as: Option<afdg_catalog_client::Registered>,
) -> Result<afdg_catalog_client::Registered, RegionNodeError> {
    const KNOWN_REGISTER_WITHIN: Duration = Duration::from_secs(5);
    let within = if known_as.is_some() { KNOWN_REGISTER_WITHIN } else { REGISTER_WITHIN };
    match (catalog.register(registration, within).await, known_as) {
        (Ok(registered), _) => Ok(registered),
        (Err(error), Some(known)) if error.retry() != afdg_types::Retry::Never => {
            tracing::warn!(%error, "the catalog can't be reached: starting as the node that the data folder says");
            Ok(known)
        }
        (Err(error), _) => Err(RegionNodeError::Register(error)),
    }
}

fn host_config(config: &RegionNodeConfig, node: NodeId) -> HostConfig {
    HostConfig {
        folder: config.folder.clone(),
        server_id: node.0,
        peer_token: config.peer_token.clone(),
        timing: config.timing,
        checkpoints: config.checkpoints,
        substitutes: config.substitutes.clone(),
    }
}

/// Bounds on what a peer's connection may ask for.
fn server_builder() -> Server {
    Server::builder()
        .initial_stream_window_size(8 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .max_concurrent_streams(1_024)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 * 1024)
}

fn serve(tasks: &Tasks, name: &'static str, router: Services, listener: Box<dyn Listener>) {
    let serving = afdg_runtime::serve(router, listener, tasks.draining());
    let failing = tasks.clone();
    tasks.spawn_until_done(name, OnEnd::StopServer, async move {
        if let Err(why) = serving.await {
            failing.fail(format!("serving ended: {why}"));
        }
    });
}

fn type_info(description: &TypeDescription) -> TypeInfo {
    let methods = description.methods.iter().map(|method| {
        let info = MethodInfo {
            read_only: method.read_only,
            key_field: method.key_field,
            request: method.request.clone(),
            response: method.response.clone(),
        };
        (method.name.clone(), info)
    });
    TypeInfo {
        name: description.name.clone(),
        descriptors: description.descriptors.clone(),
        methods: methods.collect(),
        limits: TypeLimits::default(),
    }
}

fn methods_of(description: &TypeDescription) -> (String, BTreeMap<String, bool>) {
    let methods = description.methods.iter().map(|method| (method.name.clone(), method.read_only));
    (description.name.clone(), methods.collect())
}

async fn heartbeat(
    catalog: CatalogClient,
    regions: Regions,
    replicas: ReplicaHost,
    node: NodeId,
    heard: CatalogHeard,
) {
    let mut due = tokio::time::interval(HEARTBEAT_EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let reports = regions.all().into_iter().map(|(region, handle)| {
            let status = handle.status();
            ReplicaReport {
                region,
                term: Term(status.lead.term),
                leads: status.lead.is_mine,
                applied_index: handle.replica.applied().index,
                agents_active: status.agents_active,
            }
        });
        let report = NodeReport { node, replicas: reports.collect(), wal_bytes: replicas.wal_bytes() };
        match catalog.heartbeat(report, HEARTBEAT_EVERY * 2).await {
            Ok(_) => heard.note(),
            Err(error) => tracing::debug!(%error, "a heartbeat did not get through"),
        }
    }
}
