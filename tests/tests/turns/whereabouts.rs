//! Where agents live, and who leads there.

use afdg_agent::AgentRef;
use afdg_dev_grid::DevGrid;
use afdg_proto::pb::admin::{ListNodesRequest, ListRegionsRequest, cluster_client::ClusterClient};
use afdg_tests::{PATIENCE, client::Client};
use afdg_types::Slot;
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(50);

/// A region, and the name of the node that it goes back to whenever that is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    pub region: u64,
    pub preferred: String,
}

pub async fn home_of(client: &Client, agent: &AgentRef) -> Result<Home> {
    let mut cluster = ClusterClient::new(client.channel());
    let nodes = cluster.list_nodes(ListNodesRequest {}).await?.into_inner().nodes;
    let regions = cluster.list_regions(ListRegionsRequest {}).await?.into_inner().regions;
    let slot = u32::from(Slot::of(agent).0);
    let mut here = regions
        .into_iter()
        .filter(|region| region.slots.iter().any(|range| (range.first..=range.last).contains(&slot)));
    let region = here.next().with_context(|| format!("nobody owns the slot of {agent}"))?;
    let preferred = nodes.into_iter().find(|node| region.replicas.first() == Some(&node.id));
    let preferred = preferred.with_context(|| format!("region {} has no replica", region.id))?.name;
    Ok(Home { region: region.id, preferred })
}

/// Waits until the region's preferred node leads: from then on the lead moves only if that node stops.
pub async fn until_settled(grid: &DevGrid, home: &Home) -> Result<()> {
    eventually(&format!("{} leads region {}", home.preferred, home.region), async || {
        Ok(grid.leader_of(home.region).as_deref() == Some(&*home.preferred))
    })
    .await
}

/// Waits for a condition.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while !holds().await? {
        ensure!(Instant::now() < give_up, "waited in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
