//! The servers of a grid, and their life.

use crate::{
    DevGridError, DevGridOptions, Layout, PortClaims,
    readiness::{Wanted, until_well},
};
use afdg_agent::host::AgentHost;
use afdg_catalog::{Bootstrap, CatalogConfig, CatalogServer};
use afdg_extension::{ExtensionConfig, ExtensionServer};
use afdg_proto::peer_auth::PeerToken;
use afdg_region_node::{CACHE_BYTES_DEFAULT, RegionNodeConfig, RegionNodeServer, RunningRegionNode};
use afdg_runtime::{Disk, FolderLock, World};
use futures::future::{BoxFuture, join_all, select_all, try_join_all};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// How long calls may take to succeed after the servers run.
const READY_MS_MAX: u64 = 60_000;
/// How long a node that was stopped may take to start again.
const START_AGAIN_MS_MAX: u64 = 20_000;
const START_AGAIN_PAUSE_MS: u64 = 200;
/// Replicas of a region, where there are nodes enough.
const REPLICAS: u8 = 3;

/// A grid that runs. Dropped without [`DevGrid::stop`], its servers run on.
pub struct DevGrid {
    options: DevGridOptions,
    folder: Folder,
    layout: Layout,
    world: World,
    token: PeerToken,
    /// By number; without those that are stopped.
    catalogs: BTreeMap<u64, afdg_catalog::Running>,
    /// By name; without those that are stopped.
    nodes: BTreeMap<String, RunningRegionNode>,
    extension: afdg_extension::Running,
    _ports: PortClaims,
    _lock: Arc<dyn FolderLock>,
}

enum Folder {
    Given(PathBuf),
    /// Removed with the grid.
    Temporary(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Given(path) | Self::Temporary(path) => path,
        }
    }
}

/// Servers that were not stopped, since the grid's start was given up, may write a little longer: so it is
/// tried more than once.
impl Drop for Folder {
    fn drop(&mut self) {
        const TRIES: u32 = 20;
        let Self::Temporary(path) = self else { return };
        for _ in 0..TRIES {
            match std::fs::remove_dir_all(&*path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(Duration::from_millis(25));
                }
                Ok(()) | Err(_) => return,
            }
        }
        tracing::warn!(folder = %path.display(), "the grid's folder can't be removed");
    }
}

/// Keeps other grids out of the folder, which is made if there is none.
async fn lock(folder: &Path, disk: &dyn Disk) -> Result<Arc<dyn FolderLock>, DevGridError> {
    let failed = |error: io::Error| {
        DevGridError::Folder(io::Error::new(error.kind(), format!("{}: {error}", folder.display())))
    };
    disk.create_folder(folder).await.map_err(failed)?;
    disk.lock_folder(folder).await.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => DevGridError::InUse(folder.to_owned()),
        _ => failed(error),
    })
}

impl DevGrid {
    /// Starts all servers; returns once calls succeed in every region.
    pub async fn start(options: DevGridOptions) -> Result<Self, DevGridError> {
        let world = World::real();
        let folder = match &options.data {
            Some(path) => Folder::Given(path.clone()),
            None => {
                let made = tempfile::Builder::new().prefix("afdg-dev-").tempdir();
                Folder::Temporary(made.map_err(DevGridError::Folder)?.keep())
            }
        };
        let lock = lock(folder.path(), &*world.disk).await?;
        let (layout, ports) = Layout::open(folder.path(), options.size, &*world.net, &*world.entropy).await?;
        let token = PeerToken::new(&world.entropy.random_name()).map_err(failed("the peer token"))?;
        // First, since it is the one whose port a person has chosen: if that is taken, nothing has begun.
        let config = ExtensionConfig {
            name: "extension-1".to_owned(),
            listen: options.listen.clone(),
            health_listen: None,
            catalog_addresses: layout.catalogs.clone(),
            peer_token: token.clone(),
        };
        let extension = ExtensionServer::start(config, world.clone()).await;
        let extension = extension.map_err(failed("extension 1"))?;
        let (catalogs, nodes) = (BTreeMap::new(), BTreeMap::new());
        let mut grid = Self {
            options,
            folder,
            layout,
            world,
            token,
            catalogs,
            nodes,
            extension,
            _ports: ports,
            _lock: lock,
        };
        grid.start_all().await?;
        grid.until_well(Duration::from_millis(READY_MS_MAX)).await?;
        Ok(grid)
    }

    async fn start_all(&mut self) -> Result<(), DevGridError> {
        // Those of a kind side by side: catalog servers wait for one another.
        let ids = 1..=self.layout.catalogs.len() as u64;
        let configs: Vec<_> = ids.map(|id| self.catalog_config(id)).collect::<Result<_, _>>()?;
        let ids: Vec<_> = configs.iter().map(|config| config.id).collect();
        let started = configs.into_iter().map(|config| start_catalog(config, self.world.clone()));
        self.catalogs = ids.into_iter().zip(try_join_all(started).await?).collect();

        // One after the other, so that in a new grid the first node has the first id.
        for name in self.node_names() {
            let config = self.node_config(&name)?;
            let started = self.start_one_node(config, self.options.agents.clone()).await?;
            self.nodes.insert(name, started);
        }
        Ok(())
    }

    /// Waits until an agent in each region has answered, and the grid says of itself that it is well.
    pub async fn until_well(&self, limit: Duration) -> Result<(), DevGridError> {
        let wanted = Wanted { nodes: self.layout.nodes.len(), regions: usize::from(self.layout.regions) };
        until_well(&self.endpoint(), wanted, self.options.probe, limit).await
    }

    /// Where clients call: `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.extension.local_address())
    }

    /// Where the nodes that run tell health and metrics, by name.
    pub fn health_addresses(&self) -> BTreeMap<String, SocketAddr> {
        let address =
            |(name, node): (&String, &RunningRegionNode)| Some((name.clone(), node.health_address?));
        self.nodes.iter().filter_map(address).collect()
    }

    /// Where the data is, and whether it outlasts the grid.
    pub fn data(&self) -> (&Path, bool) {
        (self.folder.path(), matches!(self.folder, Folder::Given(_)))
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// In words: `3 region nodes, 3 catalog servers, 3 regions`.
    pub fn size(&self) -> String {
        let Layout { catalogs, nodes, regions, .. } = &self.layout;
        let count =
            |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
        [
            count(nodes.len(), "region node"),
            count(catalogs.len(), "catalog server"),
            count(usize::from(*regions), "region"),
        ]
        .join(", ")
    }

    /// Of all region nodes, also those that are stopped.
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.layout.nodes.len()).map(node_name).collect()
    }

    /// The running node that leads most regions, and how many.
    pub fn busiest_node(&self) -> Option<(String, usize)> {
        let leads = self.nodes.iter().map(|(name, node)| (name.clone(), node.leads().len()));
        leads.max_by_key(|(_, leads)| *leads)
    }

    /// The running node that leads a region, by its own word.
    pub fn leader_of(&self, region: u64) -> Option<String> {
        let mut nodes = self.nodes.iter();
        let leads = |node: &RunningRegionNode| node.leads().iter().any(|led| led.0 == region);
        nodes.find(|(_, node)| leads(node)).map(|(name, _)| name.clone())
    }

    /// Stops a region node at once, as if it had failed: it hands nothing over.
    pub async fn stop_node(&mut self, name: &str) -> Result<(), DevGridError> {
        self.take_node(name)?.stop().await;
        Ok(())
    }

    /// Stops a region node as SIGTERM does: what it leads is handed over first.
    pub async fn drain_node(&mut self, name: &str) -> Result<(), DevGridError> {
        self.take_node(name)?.drain().await;
        Ok(())
    }

    fn take_node(&mut self, name: &str) -> Result<RunningRegionNode, DevGridError> {
        let unknown = || DevGridError::Unknown(format!("running region node '{name}'"));
        self.nodes.remove(name).ok_or_else(unknown)
    }

    /// Starts a region node again on its data.
    pub async fn start_node(&mut self, name: &str) -> Result<(), DevGridError> {
        self.start_node_with(name, self.options.agents.clone()).await
    }

    /// Starts a region node again on its data, with another program: one that hosts other agents.
    pub async fn start_node_with(
        &mut self,
        name: &str,
        agents: Arc<dyn AgentHost>,
    ) -> Result<(), DevGridError> {
        let config = self.node_config(name)?;
        if self.nodes.contains_key(name) {
            return Ok(());
        }
        // What was stopped may hold its files a little longer.
        let give_up = Instant::now() + Duration::from_millis(START_AGAIN_MS_MAX);
        loop {
            match self.start_one_node(config.clone(), agents.clone()).await {
                Ok(node) => {
                    self.nodes.insert(name.to_owned(), node);
                    return Ok(());
                }
                Err(error) if Instant::now() > give_up => return Err(error),
                Err(error) => tracing::debug!(%error, "the node can't be started again yet"),
            }
            tokio::time::sleep(Duration::from_millis(START_AGAIN_PAUSE_MS)).await;
        }
    }

    /// Stops a catalog server; it hands on its lead.
    pub async fn stop_catalog(&mut self, id: u64) -> Result<(), DevGridError> {
        let unknown = || DevGridError::Unknown(format!("running catalog server {id}"));
        self.catalogs.remove(&id).ok_or_else(unknown)?.drain().await;
        Ok(())
    }

    /// Starts a catalog server again on its data.
    pub async fn start_catalog(&mut self, id: u64) -> Result<(), DevGridError> {
        if !self.catalogs.contains_key(&id) {
            let running = start_catalog(self.catalog_config(id)?, self.world.clone()).await?;
            self.catalogs.insert(id, running);
        }
        Ok(())
    }

    /// Resolves with the reason once a server can't go on.
    pub async fn failed(&self) -> String {
        let mut all: Vec<BoxFuture<'_, String>> = vec![Box::pin(self.extension.failed())];
        all.extend(self.catalogs.values().map(|catalog| Box::pin(catalog.failed()) as _));
        all.extend(self.nodes.values().map(|node| Box::pin(node.failed()) as _));
        select_all(all).await.0
    }

    /// Ends all servers in good order, the extension first so that what is in flight is finished, and
    /// removes the data if it was to be.
    pub async fn stop(self) {
        self.extension.drain().await;
        // All at once, and without handing over: there is nobody left to hand over to.
        join_all(self.nodes.into_values().map(RunningRegionNode::stop)).await;
        join_all(self.catalogs.into_values().map(afdg_catalog::Running::drain)).await;
    }

    async fn start_one_node(
        &self,
        config: RegionNodeConfig,
        agents: Arc<dyn AgentHost>,
    ) -> Result<RunningRegionNode, DevGridError> {
        let what = format!("region node {}", config.name);
        RegionNodeServer::start(config, self.world.clone(), agents).await.map_err(failed(what))
    }

    fn catalog_config(&self, id: u64) -> Result<CatalogConfig, DevGridError> {
        let servers: BTreeMap<u64, String> = (1..).zip(self.layout.catalogs.iter().cloned()).collect();
        let listen = servers.get(&id).cloned();
        let nodes = self.layout.nodes.len();
        Ok(CatalogConfig {
            id,
            folder: self.folder.path().join(format!("catalog-{id}")),
            listen: listen.ok_or_else(|| DevGridError::Unknown(format!("catalog server {id}")))?,
            servers,
            peer_token: self.token.clone(),
            bootstrap: Bootstrap {
                regions: self.layout.regions,
                replicas: if nodes >= usize::from(REPLICAS) { REPLICAS } else { 1 },
                nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
            },
            lease_ms: CatalogConfig::LEASE_MS_DEFAULT,
            dead_after_ms: CatalogConfig::DEAD_AFTER_MS_DEFAULT,
            timing: self.options.timing,
            drain_ms_max: CatalogConfig::DRAIN_MS_MAX_DEFAULT,
            substitutes: Default::default(),
        })
    }

    fn node_config(&self, name: &str) -> Result<RegionNodeConfig, DevGridError> {
        let unknown = || DevGridError::Unknown(format!("region node '{name}'"));
        let mut places = (1..).zip(&self.layout.nodes);
        let (number, listen) = places.find(|(number, _)| node_name(*number) == name).ok_or_else(unknown)?;
        Ok(RegionNodeConfig {
            folder: self.folder.path().join(name),
            name: name.to_owned(),
            listen: listen.clone(),
            // For health checks and metrics: whichever port is free.
            health_listen: Some("127.0.0.1:0".to_owned()),
            advertise: None,
            zone: format!("zone-{number}"),
            catalog: self.layout.catalogs.clone(),
            peer_token: self.token.clone(),
            cache_bytes: CACHE_BYTES_DEFAULT,
            timing: self.options.timing,
            checkpoints: self.options.checkpoints,
            substitutes: Default::default(),
            fail_points: Default::default(),
        })
    }
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}

async fn start_catalog(config: CatalogConfig, world: World) -> Result<afdg_catalog::Running, DevGridError> {
    let what = format!("catalog server {}", config.id);
    CatalogServer::start(config, world).await.map_err(failed(what))
}

fn failed<E: std::fmt::Display>(server: impl Into<String>) -> impl FnOnce(E) -> DevGridError {
    let server = server.into();
    move |error| DevGridError::Server { server, why: error.to_string() }
}
