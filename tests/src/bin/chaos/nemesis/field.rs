//! The grid and the means by which it is disturbed, as far as there are rights and programs for them.

use super::{Fault, Kind, LeaderDeath, Servers};
use crate::{network::Network, rights, shim::Shim, small_disk::SmallDisk};
use afdg_dev_grid::{PortClaims, free_addresses};
use afdg_proto::pb::admin::{GetStatusRequest, cluster_client::ClusterClient};
use afdg_runtime::{World, process::EXIT_SERVER_FAILED};
use afdg_tests::{
    client::Client,
    cluster::Cluster,
    processes::{Options, Place, Processes, Server},
    register::v1::{WriteRequest, WriteResponse},
};
use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};
use tonic::transport::Endpoint;

/// How often rows go from memory to disk: small, so that short runs see checkpoints and snapshots.
const REGION_DIRTY_BYTES: u64 = 128 * 1024;
/// How long it may take until it notices.
const END_LIMIT: Duration = Duration::from_secs(30);
/// What fills up what the log has reserved on a full disk.
const BALLAST_BYTES: usize = 256 * 1024;
/// Registers that hold it.
const BALLAST: usize = 64;
const BALLAST_PAUSE: Duration = Duration::from_millis(50);
const ASK_LIMIT: Duration = Duration::from_secs(3);

pub struct Field {
    pub grid: Processes,
    pub servers: Servers,
    network: Option<Network>,
    shim: Option<Shim>,
    /// Of the region node with this name.
    small_disk: Option<(String, SmallDisk)>,
    /// What can't be done here, and why.
    pub missing: BTreeMap<Kind, String>,
    _ports: PortClaims,
}

/// What a grid is made from.
pub struct Ground<'a> {
    pub afdg: &'a Path,
    /// For the grid's files.
    pub folder: &'a Path,
    pub run: Duration,
    /// None in namespaces of its own; otherwise why there are none.
    pub unenclosed: Option<&'a str>,
}

impl Field {
    /// Sets everything up; starts nothing.
    pub async fn build(ground: Ground<'_>) -> anyhow::Result<Self> {
        let options = Options { region_dirty_bytes: Some(REGION_DIRTY_BYTES), ..Options::default() };
        let all = options.servers();
        let mut missing = BTreeMap::new();
        let mut lack = |kinds: &[Kind], why: &str| {
            missing.extend(kinds.iter().map(|kind| (*kind, why.to_owned())));
        };
        let names: Vec<String> = all.iter().map(|server| server.name.clone()).collect();
        let network = match ground.unenclosed {
            Some(why) => Err(why.to_owned()),
            None => Network::build(&names).map_err(|error| format!("{error:#}")),
        };
        match &network {
            Err(why) => lack(&[Kind::Partition, Kind::OneWay, Kind::Loss, Kind::Delay], why),
            Ok(network) => {
                if !network.has_loss() {
                    lack(&[Kind::Loss], "no iptables with the statistic match");
                }
                if !network.has_delay() {
                    lack(&[Kind::Delay], "the kernel has no netem, or there is no tc");
                }
            }
        }
        let network = network.ok();
        let folder = tempfile::Builder::new().prefix(GRID).tempdir_in(ground.folder)?;
        let shim = rights::find("cc").context("there is no C compiler 'cc'");
        let shim = shim.and_then(|compiler| Shim::build(folder.path(), &compiler));
        if let Err(why) = &shim {
            lack(&[Kind::Clock, Kind::SlowFsync, Kind::FsyncError], &format!("{why:#}"));
        }
        let shim = shim.ok();
        let small_disk = match ground.unenclosed {
            Some(why) => Err(why.to_owned()),
            None => {
                small_disk(folder.path(), ground.folder, ground.run).map_err(|error| format!("{error:#}"))
            }
        };
        if let Err(why) = &small_disk {
            lack(&[Kind::FullDisk], why);
        }
        let world = World::real();
        let (loopback, ports) = free_addresses(all.len(), &*world.net, &*world.entropy).await?;
        let places = places(&all, ground.afdg, loopback, network.as_ref(), shim.as_ref())?;
        let grid = Processes::new(ground.afdg.to_owned(), options, folder, &places)?;
        let servers =
            Servers { all: grid.names(), nodes: grid.names_of("node"), catalogs: grid.names_of("catalog") };
        Ok(Self { grid, servers, network, shim, small_disk: small_disk.ok(), missing, _ports: ports })
    }

    pub fn possible(&self) -> Vec<Kind> {
        Kind::value_variants().iter().filter(|kind| !self.missing.contains_key(kind)).copied().collect()
    }

    /// Begins a fault. Returns which regions lost their leader with a process, if that is known.
    pub async fn begin(
        &mut self,
        fault: &mut Fault,
        now: impl Fn() -> u64,
    ) -> anyhow::Result<Option<LeaderDeath>> {
        match fault {
            Fault::KillLeader(place) => {
                let (node, regions) = self.leader(*place).await?;
                self.grid.kill(&node)?;
                *fault = Fault::Kill(vec![node]);
                return Ok(Some(LeaderDeath { at: now(), regions }));
            }
            Fault::KillCatalogLeader => {
                let leader = self.catalog_leader().await?;
                self.grid.kill(&leader)?;
                *fault = Fault::Kill(vec![leader]);
            }
            Fault::Kill(names) => self.grid.kill_together(names)?,
            Fault::Freeze(name) => self.grid.freeze(name)?,
            Fault::Cut(cuts) => {
                let network = self.network()?;
                cuts.iter().try_for_each(|(from, to)| network.cut(from, to))?;
            }
            Fault::Loss { servers, percent } => {
                servers.iter().try_for_each(|server| self.network()?.lose(server, *percent))?;
            }
            Fault::Delay(servers) => {
                servers.iter().try_for_each(|server| self.network()?.delay(server))?;
            }
            Fault::Clock { server, ms } => self.shim()?.move_clock(server, *ms)?,
            Fault::SlowFsync { servers, by } => {
                servers.iter().try_for_each(|server| self.shim()?.slow_fsync(server, *by))?;
            }
            Fault::FsyncError(name) => {
                self.shim()?.fail_fsync(name, true)?;
                self.ends_by_itself(&name.clone()).await?;
            }
            Fault::FullDisk => {
                let (node, disk) = self.small_disk.as_ref().context("no small disk")?;
                disk.fill()?;
                self.ends_by_itself(&node.clone()).await?;
            }
        }
        Ok(None)
    }

    /// Ends a fault; what was killed or has ended runs again.
    pub fn end(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(_) | Fault::KillLeader(_) | Fault::KillCatalogLeader => {}
            Fault::Freeze(name) => self.grid.thaw(name)?,
            Fault::Cut(_) => self.network()?.heal()?,
            Fault::Loss { servers, .. } => {
                servers.iter().try_for_each(|server| self.network()?.lose_nothing(server))?;
            }
            Fault::Delay(servers) => {
                servers.iter().try_for_each(|server| self.network()?.delay_nothing(server))?;
            }
            Fault::Clock { server, .. } => self.shim()?.move_clock(server, 0)?,
            Fault::SlowFsync { servers, .. } => {
                servers.iter().try_for_each(|server| self.shim()?.slow_fsync(server, Duration::ZERO))?;
            }
            Fault::FsyncError(name) => self.shim()?.fail_fsync(name, false)?,
            Fault::FullDisk => self.small_disk.as_ref().context("no small disk")?.1.free()?,
        }
        self.grid.check_all_run()?;
        self.grid.start_all()
    }

    /// A leader and all regions that it leads.
    async fn leader(&self, place: usize) -> anyhow::Result<(String, Vec<u64>)> {
        let cluster = Cluster::new(&self.grid.endpoint()?)?;
        let regions = cluster.regions().await?;
        let of = regions.get(place % regions.len().max(1)).context("there are no regions")?.leader;
        let led = regions.iter().filter(|region| region.leader == of).map(|region| region.id).collect();
        Ok((cluster.name_of(of).await?, led))
    }

    async fn catalog_leader(&self) -> anyhow::Result<String> {
        let endpoint = Endpoint::from_shared(self.grid.endpoint()?)?.timeout(ASK_LIMIT);
        let status = ClusterClient::new(endpoint.connect_lazy()).get_status(GetStatusRequest {}).await?;
        let leader = status.into_inner().catalog.into_iter().find(|server| server.leader);
        Ok(format!("catalog-{}", leader.context("the catalog has no leader")?.id))
    }

    /// Waits for the end of a server whose disk fails, and has it write meanwhile.
    async fn ends_by_itself(&mut self, name: &str) -> anyhow::Result<()> {
        let ballast = write_ballast(Client::lazy(&self.grid.endpoint()?)?);
        let status = tokio::select! {
            status = self.grid.ended(name, END_LIMIT) => status,
            never = ballast => match never {},
        };
        let status = status.with_context(|| format!("{name}, its disk failing"))?;
        ensure!(
            status.code() == Some(EXIT_SERVER_FAILED.into()),
            "{name} has ended with {status} on a failing disk"
        );
        Ok(())
    }

    fn network(&self) -> anyhow::Result<&Network> {
        self.network.as_ref().context("no network of its own")
    }

    fn shim(&self) -> anyhow::Result<&Shim> {
        self.shim.as_ref().context("no shim")
    }
}

/// Uses up what a server's log has reserved before the disk was full, which small calls alone do slowly.
async fn write_ballast(client: Client) -> Infallible {
    for number in (0..BALLAST).cycle() {
        let register = format!("ballast-{number}");
        let write = WriteRequest { register, value: "x".repeat(BALLAST_BYTES) };
        let written = client.call::<_, WriteResponse>("/register.v1.Register/Write", write);
        // Whether it is answered says nothing here.
        let _ = tokio::time::timeout(ASK_LIMIT, written).await;
        tokio::time::sleep(BALLAST_PAUSE).await;
    }
    std::future::pending().await
}

/// Begins the names of folders of grids.
const GRID: &str = "grid-";

/// Removes what runs have left that were killed. Nobody else may run in `folder`.
pub fn forget_earlier_runs(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() && name.to_string_lossy().starts_with(GRID) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Mounts a small disk and lets a region node's data lie there.
fn small_disk(grid: &Path, folder: &Path, run: Duration) -> anyhow::Result<(String, SmallDisk)> {
    const NODE: &str = "node-3";
    let disk = SmallDisk::mount(folder.join("small-disk"), run)?;
    let data = disk.folder().join(NODE);
    std::fs::create_dir(&data)?;
    std::os::unix::fs::symlink(&data, grid.join(NODE))?;
    Ok((NODE.to_owned(), disk))
}

/// Where there is no network of the grid's own, the servers listen on `loopback`.
fn places(
    servers: &[Server],
    afdg: &Path,
    loopback: Vec<String>,
    network: Option<&Network>,
    shim: Option<&Shim>,
) -> anyhow::Result<BTreeMap<String, Place>> {
    let this: PathBuf = std::env::current_exe()?;
    let mut places = BTreeMap::new();
    for (server, loopback) in servers.iter().zip(loopback) {
        let mut command = network.map(|network| network.enter(&server.name)).unwrap_or_default();
        let program: Vec<OsString> = match server.role {
            // It hosts a register beside the examples.
            "region-node" => vec![this.clone().into()],
            role => vec![afdg.into(), "server".into(), role.into()],
        };
        command.extend(program);
        let listen = match network {
            Some(network) => network.listen(&server.name)?,
            None => loopback,
        };
        let environment = match shim {
            Some(shim) => shim.environment(&server.name)?,
            None => Vec::new(),
        };
        let place = Place { listen, command, environment };
        if places.insert(server.name.clone(), place).is_some() {
            bail!("there are two servers '{}'", server.name);
        }
    }
    Ok(places)
}
