//! The servers of a development grid, and their life.

use super::{
    layout::{Layout, Wanted},
    probe,
    ready::{Ready, Server},
};
use crate::{client::Client, failure::ServerFailed, server::agents};
use afdg_catalog::{Bootstrap, CatalogConfig, CatalogServer};
use afdg_extension::{ExtensionConfig, ExtensionServer};
use afdg_proto::peer_auth::PeerToken;
use afdg_region_node::{CACHE_BYTES_DEFAULT, RegionNodeConfig, RegionNodeServer, RunningRegionNode};
use afdg_replication::{CheckpointPolicy, Timing};
use afdg_runtime::World;
use anyhow::{Context, anyhow};
use futures::future::{join_all, select_all, try_join_all};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long calls may take to succeed after the servers run.
const READY_MS_MAX: u64 = 60_000;
/// How long a node that was stopped may take to start again.
const START_AGAIN_MS_MAX: u64 = 20_000;
const START_AGAIN_PAUSE_MS: u64 = 200;
/// Replicas of a region, where there are nodes enough.
const REPLICAS: u8 = 3;

#[derive(Clone, Debug)]
pub struct DevOptions {
    /// Where clients call; port 0 picks one.
    pub listen: String,
    pub wanted: Wanted,
    /// None: a folder that is removed at the end.
    pub data: Option<PathBuf>,
}

pub struct DevGrid {
    folder: Folder,
    layout: Layout,
    world: World,
    token: PeerToken,
    catalogs: Vec<afdg_catalog::Running>,
    /// By name; without those that are stopped.
    nodes: BTreeMap<String, RunningRegionNode>,
    extension: afdg_extension::Running,
}

enum Folder {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

impl DevGrid {
    /// Starts all servers; returns once calls succeed in every region.
    pub async fn start(options: DevOptions) -> anyhow::Result<Self> {
        let world = World::real();
        let folder = match options.data {
            Some(path) => Folder::Given(path),
            None => Folder::Temporary(tempfile::Builder::new().prefix("afdg-dev-").tempdir()?),
        };
        let layout = Layout::open(folder.path(), options.wanted, &*world.net, &*world.entropy).await?;
        let token = PeerToken::new(&world.entropy.random_name())?;
        // First, since it is the one whose port a person has chosen: if that is taken, nothing has begun.
        let config = ExtensionConfig {
            name: "extension-1".to_owned(),
            listen: options.listen,
            health_listen: None,
            catalog_addresses: layout.catalogs.clone(),
            peer_token: token.clone(),
        };
        let extension = ExtensionServer::start(config, world.clone()).await;
        let extension = extension.map_err(failed("extension", 1))?;
        let catalogs = try_join_all((1..).zip(&layout.catalogs).map(|(id, address)| {
            let config = catalog_config(id, address, &layout, folder.path(), &token);
            let world = world.clone();
            async move { CatalogServer::start(config, world).await.map_err(failed("catalog server", id)) }
        }))
        .await?;
        let nodes = try_join_all((1..=layout.nodes.len()).map(|number| {
            let config = node_config(number, &layout, folder.path(), &token);
            start_node(config, world.clone())
        }))
        .await?;
        let names = (1..=layout.nodes.len()).map(node_name);
        let nodes = names.zip(nodes).collect();
        let grid = Self { folder, layout, world, token, catalogs, nodes, extension };
        let client = Client::connect_to(&grid.endpoint()).await?;
        let limit = Duration::from_millis(READY_MS_MAX);
        probe::all_well(&client, usize::from(grid.layout.regions), limit).await?;
        Ok(grid)
    }

    /// Where clients call.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.extension.local_address())
    }

    /// Where the data is, and whether it outlasts the grid.
    pub fn data(&self) -> (&Path, bool) {
        (self.folder.path(), matches!(self.folder, Folder::Given(_)))
    }

    /// In words: `3 region nodes, 3 catalog servers, 6 regions`.
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

    pub fn ready(&self) -> Ready {
        let named = |name: &str, addresses: &[String]| {
            (1..)
                .zip(addresses)
                .map(|(number, address)| Server {
                    name: format!("{name}-{number}"),
                    address: address.clone(),
                })
                .collect()
        };
        Ready {
            endpoint: self.endpoint(),
            pid: std::process::id(),
            catalogs: named("catalog", &self.layout.catalogs),
            nodes: named("node", &self.layout.nodes),
        }
    }

    /// Stops a region node at once, as if it had failed: it hands nothing over.
    pub async fn stop_node(&mut self, name: &str) -> anyhow::Result<()> {
        let node = self.nodes.remove(name).ok_or_else(|| anyhow!("no region node '{name}' runs"))?;
        node.stop().await;
        Ok(())
    }

    /// Starts a region node again on its data.
    pub async fn start_node(&mut self, name: &str) -> anyhow::Result<()> {
        let number = (1..=self.layout.nodes.len()).find(|number| node_name(*number) == name);
        let number = number.with_context(|| format!("there is no region node '{name}'"))?;
        if self.nodes.contains_key(name) {
            return Ok(());
        }
        let config = node_config(number, &self.layout, self.folder.path(), &self.token);
        // What was stopped may hold its files a little longer.
        let give_up = Instant::now() + Duration::from_millis(START_AGAIN_MS_MAX);
        loop {
            match start_node(config.clone(), self.world.clone()).await {
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

    /// Resolves with the reason once a server can't go on.
    pub async fn failed(&self) -> String {
        let mut all: Vec<futures::future::BoxFuture<'_, String>> = vec![Box::pin(self.extension.failed())];
        all.extend(self.catalogs.iter().map(|catalog| Box::pin(catalog.failed()) as _));
        all.extend(self.nodes.values().map(|node| Box::pin(node.failed()) as _));
        select_all(all).await.0
    }

    /// Ends all servers in good order, and removes the data if it was to be.
    pub async fn stop(self) {
        self.extension.drain().await;
        // All at once, and without handing over: there is nobody left to hand over to.
        join_all(self.nodes.into_values().map(RunningRegionNode::stop)).await;
        join_all(self.catalogs.into_iter().map(afdg_catalog::Running::drain)).await;
    }
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}

async fn start_node(config: RegionNodeConfig, world: World) -> anyhow::Result<RunningRegionNode> {
    let name = config.name.clone();
    let started = RegionNodeServer::start(config, world, agents::examples()).await;
    started.map_err(|error| ServerFailed(format!("region node {name}: {error}")).into())
}

fn failed<E: std::fmt::Display>(what: &'static str, number: u64) -> impl FnOnce(E) -> anyhow::Error {
    move |error| ServerFailed(format!("{what} {number}: {error}")).into()
}

fn catalog_config(
    id: u64,
    address: &str,
    layout: &Layout,
    folder: &Path,
    token: &PeerToken,
) -> CatalogConfig {
    let nodes = layout.nodes.len();
    CatalogConfig {
        id,
        folder: folder.join(format!("catalog-{id}")),
        listen: address.to_owned(),
        servers: (1..).zip(layout.catalogs.iter().cloned()).collect(),
        peer_token: token.clone(),
        bootstrap: Bootstrap {
            regions: layout.regions,
            replicas: if nodes >= usize::from(REPLICAS) { REPLICAS } else { 1 },
            nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
        },
        lease_ms: CatalogConfig::LEASE_MS_DEFAULT,
        dead_after_ms: CatalogConfig::DEAD_AFTER_MS_DEFAULT,
        timing: Timing::default(),
        drain_ms_max: CatalogConfig::DRAIN_MS_MAX_DEFAULT,
    }
}

fn node_config(number: usize, layout: &Layout, folder: &Path, token: &PeerToken) -> RegionNodeConfig {
    let name = node_name(number);
    RegionNodeConfig {
        folder: folder.join(&name),
        name,
        listen: layout.nodes[number - 1].clone(),
        health_listen: None,
        advertise: None,
        zone: format!("zone-{number}"),
        catalog: layout.catalogs.clone(),
        peer_token: token.clone(),
        cache_bytes: CACHE_BYTES_DEFAULT,
        timing: Timing::default(),
        checkpoints: CheckpointPolicy::default(),
    }
}
