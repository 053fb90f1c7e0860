//! A whole grid in one process, over real sockets on loopback and real files: the same servers that run
//! as processes of their own in a deployment. For development, demonstrations and tests.

mod places;

use afdg_agent::host::AgentHost;
use afdg_catalog::{Bootstrap, CatalogConfig, CatalogServer};
use afdg_catalog_client::{CatalogClient, Routes};
use afdg_extension::{ExtensionConfig, ExtensionServer};
use afdg_proto::peer_auth::PeerToken;
use afdg_region_node::{CACHE_BYTES_DEFAULT, RegionNodeConfig, RegionNodeServer, RunningRegionNode};
use afdg_replication::{CheckpointPolicy, Timing};
use afdg_runtime::{Tasks, World};
use afdg_types::{NodeId, RegionId};
use places::Places;
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::watch;

/// What grid to start.
#[derive(Clone)]
pub struct DevGridOptions {
    /// Holds everything; a grid that was here before comes up again on its data.
    pub folder: PathBuf,
    /// Where clients reach the extension.
    pub listen: String,
    /// 1, 3 or 5.
    pub catalogs: u16,
    pub nodes: u16,
    pub regions: u16,
    pub timing: Timing,
    pub checkpoints: CheckpointPolicy,
}

impl DevGridOptions {
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            listen: "127.0.0.1:0".to_owned(),
            catalogs: 3,
            nodes: 3,
            regions: 6,
            timing: Timing::default(),
            checkpoints: CheckpointPolicy::default(),
        }
    }
}

/// Why a grid can't start.
#[derive(Debug, thiserror::Error)]
pub enum DevGridError {
    #[error("the grid's folder: {0}")]
    Folder(std::io::Error),
    #[error("catalog server {id}: {why}")]
    Catalog { id: u64, why: String },
    #[error("region node {name}: {why}")]
    Node { name: String, why: String },
    #[error("the extension: {0}")]
    Extension(String),
    #[error("calls did not succeed within {0:?}: the grid is not ready")]
    NotReady(Duration),
    #[error("there is no {what} '{name}'")]
    Unknown { what: &'static str, name: String },
}

/// A grid that runs.
pub struct DevGrid {
    options: DevGridOptions,
    places: Places,
    world: World,
    host: Arc<dyn AgentHost>,
    catalogs: BTreeMap<u64, afdg_catalog::Running>,
    nodes: BTreeMap<String, RunningRegionNode>,
    extension: Option<afdg_extension::Running>,
    address: SocketAddr,
    routes: watch::Receiver<Arc<Routes>>,
    watching: Tasks,
}

impl DevGrid {
    /// Starts all servers and returns once they are up; calls succeed after [`DevGrid::ready`].
    pub async fn start(options: DevGridOptions, host: Arc<dyn AgentHost>) -> Result<Self, DevGridError> {
        let world = World::real();
        let places = Places::open(&world, &options).await.map_err(DevGridError::Folder)?;
        let watching = Tasks::new();
        let mut grid = Self {
            catalogs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            extension: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            routes: watch::channel(Arc::new(Routes::default())).1,
            watching,
            options,
            places,
            world,
            host,
        };
        for id in grid.places.catalogs.keys().copied().collect::<Vec<_>>() {
            grid.start_catalog(id).await?;
        }
        let token = grid.token()?;
        let catalog = CatalogClient::new(Arc::clone(&grid.world.net), grid.catalog_addresses(), token);
        let catalog = catalog.map_err(|error| DevGridError::Extension(error.to_string()))?;
        grid.routes = catalog.watch_routes(&grid.watching, "dev-grid");
        // Nodes wait for a catalog that is formed: they start side by side.
        let starting = grid
            .places
            .nodes
            .keys()
            .cloned()
            .map(|name| grid.node_starter(&name))
            .collect::<Result<Vec<_>, _>>()?;
        let starting: Vec<_> = starting.into_iter().map(tokio::spawn).collect();
        for started in starting {
            let (name, node) =
                started.await.map_err(|error| DevGridError::Extension(error.to_string()))??;
            grid.nodes.insert(name, node);
        }
        grid.start_extension().await?;
        Ok(grid)
    }

    fn token(&self) -> Result<PeerToken, DevGridError> {
        PeerToken::new(&self.places.peer_token).map_err(|error| DevGridError::Extension(error.to_string()))
    }

    fn catalog_addresses(&self) -> Vec<String> {
        self.places.catalogs.values().cloned().collect()
    }

    pub async fn start_catalog(&mut self, id: u64) -> Result<(), DevGridError> {
        let failed = |why: String| DevGridError::Catalog { id, why };
        let Some(listen) = self.places.catalogs.get(&id).cloned() else {
            return Err(DevGridError::Unknown { what: "catalog server", name: id.to_string() });
        };
        let nodes = self.options.nodes;
        let replicas: u8 = match nodes {
            0..=2 => 1,
            _ => 3,
        };
        let config = CatalogConfig {
            id,
            folder: self.options.folder.join(format!("catalog-{id}")),
            listen,
            servers: self.places.catalogs.clone(),
            peer_token: self.token()?,
            bootstrap: Bootstrap { regions: self.options.regions, replicas, nodes: u32::from(nodes) },
            lease_ms: CatalogConfig::LEASE_MS_DEFAULT,
            dead_after_ms: CatalogConfig::DEAD_AFTER_MS_DEFAULT,
            timing: self.options.timing,
            drain_ms_max: CatalogConfig::DRAIN_MS_MAX_DEFAULT,
        };
        let running = CatalogServer::start(config, self.world.clone())
            .await
            .map_err(|error| failed(error.to_string()))?;
        self.catalogs.insert(id, running);
        Ok(())
    }

    fn node_starter(
        &self,
        name: &str,
    ) -> Result<
        impl Future<Output = Result<(String, RunningRegionNode), DevGridError>> + Send + use<>,
        DevGridError,
    > {
        let Some(listen) = self.places.nodes.get(name).cloned() else {
            return Err(DevGridError::Unknown { what: "region node", name: name.to_owned() });
        };
        let name = name.to_owned();
        let config = RegionNodeConfig {
            name: name.clone(),
            folder: self.options.folder.join(&name),
            listen,
            health_listen: None,
            advertise: None,
            zone: String::new(),
            catalog: self.catalog_addresses(),
            peer_token: self.token()?,
            cache_bytes: CACHE_BYTES_DEFAULT,
            timing: self.options.timing,
            checkpoints: self.options.checkpoints,
        };
        let (world, host) = (self.world.clone(), Arc::clone(&self.host));
        Ok(async move {
            let started = RegionNodeServer::start(config, world, host).await;
            let node =
                started.map_err(|error| DevGridError::Node { name: name.clone(), why: error.to_string() })?;
            Ok((name, node))
        })
    }

    async fn start_extension(&mut self) -> Result<(), DevGridError> {
        let config = ExtensionConfig {
            name: "extension".to_owned(),
            listen: self.options.listen.clone(),
            health_listen: None,
            catalog_addresses: self.catalog_addresses(),
            peer_token: self.token()?,
        };
        let started = ExtensionServer::start(config, self.world.clone()).await;
        let extension = started.map_err(|error| DevGridError::Extension(error.to_string()))?;
        self.address = extension.local_address();
        self.extension = Some(extension);
        Ok(())
    }

    /// Waits until every region has a leader that its extension knows.
    pub async fn ready(&self, limit: Duration) -> Result<(), DevGridError> {
        let mut routes = self.routes.clone();
        let all_led = |routes: &Arc<Routes>| {
            routes.ready
                && !routes.regions.is_empty()
                && routes.regions.values().all(|region| region.leader.is_some())
        };
        let waited = tokio::time::timeout(limit, routes.wait_for(all_led)).await;
        if matches!(waited, Ok(Ok(_))) { Ok(()) } else { Err(DevGridError::NotReady(limit)) }
    }

    /// Where clients call, `host:port`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn node_names(&self) -> Vec<String> {
        self.places.nodes.keys().cloned().collect()
    }

    /// Addresses of the catalog's servers and of the region nodes, for tests that knock on them.
    pub fn internal_addresses(&self) -> (Vec<String>, Vec<String>) {
        (self.catalog_addresses(), self.places.nodes.values().cloned().collect())
    }

    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.borrow())
    }

    /// The running node that leads most regions, and how many.
    pub fn busiest_node(&self) -> Option<(String, usize)> {
        let leads = self.nodes.iter().map(|(name, node)| (name.clone(), node.leads().len()));
        leads.max_by_key(|(_, leads)| *leads)
    }

    /// Regions that a running node leads.
    pub fn leads(&self, name: &str) -> Vec<RegionId> {
        self.nodes.get(name).map(RunningRegionNode::leads).unwrap_or_default()
    }

    pub fn node_id(&self, name: &str) -> Option<NodeId> {
        self.nodes.get(name).map(|node| node.node)
    }

    /// Stops a node at once, without handing over what it leads.
    pub async fn stop_node(&mut self, name: &str) -> Result<(), DevGridError> {
        let unknown = || DevGridError::Unknown { what: "running region node", name: name.to_owned() };
        self.nodes.remove(name).ok_or_else(unknown)?.stop().await;
        Ok(())
    }

    /// Stops a node as SIGTERM does: what it leads is handed over first.
    pub async fn drain_node(&mut self, name: &str) -> Result<(), DevGridError> {
        let unknown = || DevGridError::Unknown { what: "running region node", name: name.to_owned() };
        self.nodes.remove(name).ok_or_else(unknown)?.drain().await;
        Ok(())
    }

    /// Starts a node again on its data.
    pub async fn start_node(&mut self, name: &str) -> Result<(), DevGridError> {
        let (name, node) = self.node_starter(name)?.await?;
        self.nodes.insert(name, node);
        Ok(())
    }

    pub async fn stop_catalog(&mut self, id: u64) -> Result<(), DevGridError> {
        let unknown = || DevGridError::Unknown { what: "running catalog server", name: id.to_string() };
        self.catalogs.remove(&id).ok_or_else(unknown)?.drain().await;
        Ok(())
    }

    /// Resolves with the reason once one of the servers can't go on.
    pub async fn failed(&self) -> String {
        let nodes = self.nodes.iter().map(|(name, node)| {
            Box::pin(async move { format!("region node {name}: {}", node.failed().await) })
        });
        let nodes: Vec<_> = nodes.collect();
        if nodes.is_empty() {
            return std::future::pending().await;
        }
        futures_first(nodes).await
    }

    /// Stops everything: the extension first, so that what is in flight is finished.
    pub async fn drain(mut self) {
        if let Some(extension) = self.extension.take() {
            extension.drain().await;
        }
        let nodes = std::mem::take(&mut self.nodes);
        let draining: Vec<_> = nodes.into_values().map(|node| tokio::spawn(node.stop())).collect();
        for node in draining {
            let _ = node.await;
        }
        for (_, catalog) in std::mem::take(&mut self.catalogs) {
            catalog.drain().await;
        }
        self.watching.drain(Duration::from_secs(1)).await;
    }
}

/// The first of several futures to end.
async fn futures_first<T>(mut futures: Vec<std::pin::Pin<Box<impl Future<Output = T>>>>) -> T {
    std::future::poll_fn(|cx| {
        for future in &mut futures {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(cx) {
                return std::task::Poll::Ready(value);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
