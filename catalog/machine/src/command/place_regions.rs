//! Gives the regions of a new cluster their places, once.

use crate::{CatalogState, Refusal, Region, RegionPhase, Reply, place};
use afdg_types::{NodeId, RegionId, SlotRange};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRegions {
    /// Live nodes to wait for.
    pub nodes_min: u32,
    pub at_ms: u64,
}

impl PlaceRegions {
    /// Decided here and not by the proposer, so that it fits the nodes as they are in this entry.
    pub(crate) fn apply(self, state: &mut CatalogState) -> Result<Reply, Refusal> {
        let cluster = state.formed()?.clone();
        if state.is_placed() {
            return Err(Refusal::AlreadyPlaced);
        }
        let nodes: Vec<(NodeId, &str)> = state
            .nodes
            .iter()
            .filter(|(_, node)| node.state.takes_replicas())
            .map(|(id, node)| (*id, node.zone.as_str()))
            .collect();
        let wanted = usize::try_from(self.nodes_min).unwrap_or(usize::MAX).max(1);
        if nodes.len() < wanted {
            return Err(Refusal::NodesMissing { live: nodes.len(), wanted });
        }
        let places = place(cluster.regions_wanted, cluster.replicas_wanted, &nodes);
        let ranges = SlotRange::split_all(cluster.regions_wanted);
        let replicas = places.first().map_or(0, Vec::len) as u8;
        state.regions = (1..)
            .map(RegionId)
            .zip(places.into_iter().zip(ranges))
            .map(|(id, (replicas, range))| {
                (id, Region { slots: vec![range], replicas, phase: RegionPhase::Creating })
            })
            .collect();
        Ok(Reply::Placed { regions: cluster.regions_wanted, replicas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, command::assert_frozen};

    #[test]
    fn stored_bytes_never_change() {
        assert_frozen(
            Command::PlaceRegions(PlaceRegions { nodes_min: 3, at_ms: 1_700_000_000_000 }),
            "01030380d095ffbc31",
        );
    }
}
