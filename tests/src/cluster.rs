//! What the grid says of itself, and moves of leads, as an operator asks for them.

use afdg_proto::pb::admin::{
    ListNodesRequest, ListRegionsRequest, Node, Region, TransferLeaderRequest, cluster_client::ClusterClient,
};
use anyhow::{Context, bail};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// How long all leads may take to move.
const MOVE_LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

pub struct Cluster {
    cluster: ClusterClient<Channel>,
}

impl Cluster {
    pub fn new(endpoint: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?.timeout(Duration::from_secs(10));
        Ok(Self { cluster: ClusterClient::new(endpoint.connect_lazy()) })
    }

    pub async fn regions(&self) -> anyhow::Result<Vec<Region>> {
        let listed = self.cluster.clone().list_regions(ListRegionsRequest {}).await;
        Ok(listed.context("the regions")?.into_inner().regions)
    }

    pub async fn node(&self, name: &str) -> anyhow::Result<Node> {
        let listed = self.cluster.clone().list_nodes(ListNodesRequest {}).await;
        let nodes = listed.context("the nodes")?.into_inner().nodes;
        nodes.into_iter().find(|node| node.name == name).with_context(|| format!("no node '{name}' is known"))
    }

    pub async fn name_of(&self, node: u64) -> anyhow::Result<String> {
        let listed = self.cluster.clone().list_nodes(ListNodesRequest {}).await;
        let nodes = listed.context("the nodes")?.into_inner().nodes;
        let found = nodes.into_iter().find(|known| known.id == node);
        Ok(found.with_context(|| format!("no node {node} is known"))?.name)
    }

    /// The region node that leads most regions, and how many.
    pub async fn busiest(&self, names: &[String]) -> anyhow::Result<(String, u32)> {
        let mut leads = Vec::new();
        for name in names {
            leads.push((name.clone(), self.node(name).await?.leaders));
        }
        leads.into_iter().max_by_key(|(_, leads)| *leads).context("no node is named")
    }

    /// Has a node lead every region. A replica that lags can't be elected, so a node that leads has all
    /// that was acknowledged.
    pub async fn let_lead_all(&self, name: &str) -> anyhow::Result<()> {
        let give_up = Instant::now() + MOVE_LIMIT;
        loop {
            let why = match self.ask_to_lead(name).await {
                Ok(0) => return Ok(()),
                Ok(left) => format!("{left} regions are led by others"),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > give_up {
                bail!("{name} does not lead all regions within {MOVE_LIMIT:?}: {why}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks for the leads that the node lacks, and returns how many those are.
    async fn ask_to_lead(&self, name: &str) -> anyhow::Result<usize> {
        let node = self.node(name).await?.id;
        let regions = self.regions().await?;
        let others: Vec<_> = regions.iter().filter(|region| region.leader != node).collect();
        for region in &others {
            let request = TransferLeaderRequest {
                region: region.id,
                to_node: node,
                actor: "a test".to_owned(),
                reason: "to see that the node has all data".to_owned(),
            };
            // It may have moved meanwhile, which the next look shows.
            let _ = self.cluster.clone().transfer_leader(request).await;
        }
        Ok(others.len())
    }
}
