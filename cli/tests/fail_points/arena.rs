//! A grid of processes in which one region node, always the same, ends at fail points.

use crate::{AFDG, clients::Clients, node};
use afdg_dev_grid::{PortClaims, free_addresses};
use afdg_process::environment::FAIL_POINTS;
use afdg_proto::pb::admin::{InspectAgentRequest, Region, TransferLeaderRequest};
use afdg_proto::pb::admin::{agents_client::AgentsClient, cluster_client::ClusterClient};
use afdg_region_node::fail_points::FailPoint;
use afdg_runtime::World;
use afdg_tests::{
    client::Client,
    cluster::Cluster,
    load::keys_in,
    processes::{Options, Place, Processes},
};
use afdg_types::AgentRef;
use anyhow::{Context, Result, bail, ensure};
use std::{ffi::OsString, os::unix::process::ExitStatusExt, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The node that ends.
const VICTIM: &str = "node-1";
/// How long it may take until the victim leads a region, its start included.
const LEAD_LIMIT: Duration = Duration::from_secs(40);
/// How long after what leads to a fail point the process may still run.
const END_LIMIT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);
/// How SIGABRT counts among signals.
const ABORTED: i32 = 6;

/// Regions by who leads them as a rule.
#[derive(Clone, Copy, Debug)]
pub enum Ground {
    /// The victim.
    Here,
    /// Another node, which never ends.
    There,
    /// The victim; in some cases under a clock that is a day ahead.
    Aside,
}

pub struct Arena {
    pub grid: Processes,
    pub clients: Arc<Clients>,
    pub leads: Leads,
    here: Region,
    there: Region,
    aside: Region,
    _ports: PortClaims,
}

impl Arena {
    pub async fn open() -> Result<Self> {
        let options = Options { catalogs: 1, extensions: 1, ..Options::default() };
        let folder = tempfile::Builder::new().prefix("afdg-fail-points-").tempdir()?;
        let (world, servers) = (World::real(), options.servers());
        let (addresses, ports) = free_addresses(servers.len(), &*world.net, &*world.entropy).await?;
        let this = std::env::current_exe()?;
        let place = |(server, listen): (&afdg_tests::processes::Server, String)| {
            let command: Vec<OsString> = match server.role {
                "region-node" => vec![this.clone().into()],
                role => vec![AFDG.into(), "server".into(), role.into()],
            };
            (server.name.clone(), Place { listen, command, environment: Vec::new() })
        };
        let places = servers.iter().zip(addresses).map(place).collect();
        let mut grid = Processes::new(AFDG.into(), options, folder, &places)?;
        grid.start_all()?;
        grid.until_well().await?;
        let endpoints = grid.endpoints();
        let endpoint = endpoints.first().context("there is no extension")?;
        let cluster = Cluster::new(endpoint)?;
        let victim = cluster.node(VICTIM).await?.id;
        let regions = cluster.regions().await?;
        // The first replica is the one to which leads go back by themselves.
        let (own, others): (Vec<_>, Vec<_>) =
            regions.into_iter().partition(|region| region.replicas.first() == Some(&victim));
        let [here, aside] = &own[..] else { bail!("the victim is to lead two regions, not {own:?}") };
        let (here, aside) = (here.clone(), aside.clone());
        let there = others.into_iter().next().context("the victim is to lead all regions")?;
        let clients = Arc::new(Clients::new(&endpoints)?);
        let leads = Leads { operator: Client::lazy(endpoint)?, victim };
        Ok(Self { grid, clients, leads, here, there, aside, _ports: ports })
    }

    pub fn region(&self, ground: Ground) -> &Region {
        match ground {
            Ground::Here => &self.here,
            Ground::There => &self.there,
            Ground::Aside => &self.aside,
        }
    }

    /// An agent of a region, and no other's.
    pub fn agent(&self, ground: Ground, agent_type: &str, name: &str) -> Result<AgentRef> {
        let key = keys_in(self.region(ground), agent_type, name).next().context("the keys have an end")?;
        Ok(AgentRef::new(agent_type, &key)?)
    }

    /// Starts the victim anew; with fail points if any are given.
    pub fn start(&mut self, fail_points: &str, more: &[(&str, &str)]) -> Result<()> {
        let mut environment = vec![(FAIL_POINTS.to_owned(), fail_points.into())];
        environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.into())));
        self.grid.set_environment(VICTIM, environment)?;
        if self.grid.names_that_run().iter().any(|name| name == VICTIM) {
            self.grid.kill(VICTIM)?;
        }
        self.grid.restart(VICTIM)
    }

    pub async fn lead(&self, ground: Ground, agent: &AgentRef) -> Result<()> {
        self.leads.take(self.region(ground).id, agent).await
    }

    /// Waits until the victim has ended at the point, and says whether it has.
    pub async fn ended(&mut self, point: FailPoint, agent: &AgentRef) -> Result<bool> {
        let Ok(status) = self.grid.ended(VICTIM, END_LIMIT).await else { return Ok(false) };
        let log = self.grid.log(VICTIM);
        let last = log.lines().last().unwrap_or_default();
        let (point, agent) = (format!("point={point}"), format!("agent={agent}"));
        let is_told =
            last.contains("the process ends here") && last.contains(&point) && last.contains(&agent);
        if status.signal() != Some(ABORTED) || !is_told {
            bail!("{VICTIM} has ended otherwise than at {point} of {agent}: {status}; it said last: {last}");
        }
        Ok(true)
    }

    /// Kills all nodes at once and starts them again, so that what stands is what the disks hold.
    pub async fn start_over(&mut self) -> Result<()> {
        for name in self.grid.names_of("node") {
            // Whoever leads is to say what guests have.
            self.grid.set_environment(&name, vec![(node::HOSTS_GUESTS.to_owned(), "1".into())])?;
        }
        let running = self.grid.names_that_run();
        let nodes: Vec<String> = running.into_iter().filter(|name| name.starts_with("node-")).collect();
        self.grid.kill_together(&nodes)?;
        self.grid.start_all()?;
        self.grid.until_well().await
    }
}

/// Moves leads to the victim.
#[derive(Clone)]
pub struct Leads {
    operator: Client,
    victim: u64,
}

impl Leads {
    /// Has the victim lead the agent's region. Who leads it is what the leader itself says, not the catalog, which
    /// hears of it later.
    pub async fn take(&self, region: u64, agent: &AgentRef) -> Result<()> {
        let give_up = Instant::now() + LEAD_LIMIT;
        loop {
            let request = InspectAgentRequest { agent: agent.to_string(), items_max: 1 };
            let looked = AgentsClient::new(self.operator.channel()).inspect_agent(request).await;
            let why = match looked {
                Ok(found) if found.get_ref().leader == self.victim => return Ok(()),
                Ok(found) => format!("node {} does", found.get_ref().leader),
                Err(status) => status.to_string(),
            };
            ensure!(Instant::now() < give_up, "{VICTIM} does not lead {agent}'s region in time: {why}");
            let request = TransferLeaderRequest {
                region,
                to_node: self.victim,
                actor: "a test".to_owned(),
                reason: "it is to end there".to_owned(),
            };
            // Refused while its replica is behind, which the next look shows.
            let _ = ClusterClient::new(self.operator.channel()).transfer_leader(request).await;
            tokio::time::sleep(PAUSE).await;
        }
    }
}
