//! Who leads what, by the leaders' own word, and who has died of them.

use super::look::Look;
use afdg_proto::pb::admin::Region;
use afdg_tests::{cluster::Cluster, load::keys_in};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

pub struct Leaders {
    look: Look,
    /// Of every region, by its id: an agent that lies in it.
    agents: BTreeMap<u64, String>,
    names: BTreeMap<u64, String>,
    /// Of every region: leaders that were killed while they led it.
    pub lost: BTreeMap<u64, u32>,
}

impl Leaders {
    pub async fn new(look: Look, cluster: &Cluster, nodes: &[String]) -> Result<Self> {
        let regions = cluster.regions().await?;
        let agent_in = |region: &Region| {
            let key = keys_in(region, "order.v1.Product", "nothing").next();
            Some((region.id, format!("order.v1.Product/{}", key?)))
        };
        let agents: BTreeMap<_, _> = regions.iter().filter_map(agent_in).collect();
        let mut names = BTreeMap::new();
        for name in nodes {
            names.insert(cluster.node(name).await?.id, name.clone());
        }
        let lost = agents.keys().map(|region| (*region, 0)).collect();
        Ok(Self { look, agents, names, lost })
    }

    /// Deaths that regions still lack: each of so many.
    pub fn lacking(&self, wanted: u32) -> u32 {
        self.lost.values().map(|lost| wanted.saturating_sub(*lost)).sum()
    }

    /// The node that leads most of the regions that lack deaths, and all regions that it leads. Each was
    /// named by a node that leads it when it is asked, not by the catalog, which hears of it later.
    pub async fn to_kill(&self, wanted: u32) -> Result<(String, Vec<u64>)> {
        let mut led: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (region, agent) in &self.agents {
            led.entry(self.look.inspect(agent).await?.leader).or_default().push(*region);
        }
        let lack = |regions: &[u64]| regions.iter().filter(|region| self.lost[*region] < wanted).count();
        let (node, regions) =
            led.into_iter().max_by_key(|(_, regions)| lack(regions)).context("no leader")?;
        Ok((self.names.get(&node).context("a leader has no name")?.clone(), regions))
    }

    pub fn died(&mut self, regions: &[u64]) {
        for region in regions {
            *self.lost.entry(*region).or_default() += 1;
        }
    }
}
