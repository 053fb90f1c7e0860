//! Which nodes hold which regions.

use crate::NodeState;
use afdg_types::NodeId;
use std::collections::BTreeMap;

/// A node as placement sees it.
#[derive(Clone, Debug, Default)]
struct Load {
    replicas: usize,
    leads: usize,
}

/// Places `regions` regions on `nodes` (id and zone): each on `replicas` different nodes, fewer only if
/// there are fewer. The first of a region's nodes is its preferred leader.
///
/// Greedy, one region after the other: the leader goes to the node that leads least; every further
/// replica goes to the zone that holds least of this region, and there to the node that holds least.
/// So no node leads more than one region more than another, and a region lies in as many zones as it
/// can; where zones are of one size, no node holds more than two replicas more than another (leads are
/// evened out first: they cost more). The order of `nodes` has no influence.
pub fn place(regions: u16, replicas: u8, nodes: &[(NodeId, &str)]) -> Vec<Vec<NodeId>> {
    let zones: BTreeMap<NodeId, &str> = nodes.iter().copied().collect();
    let mut loads: BTreeMap<NodeId, Load> = zones.keys().map(|id| (*id, Load::default())).collect();
    let wanted = usize::from(replicas).min(zones.len());
    (0..regions).map(|_| place_one(wanted, &zones, &mut loads)).collect()
}

fn place_one(
    wanted: usize,
    zones: &BTreeMap<NodeId, &str>,
    loads: &mut BTreeMap<NodeId, Load>,
) -> Vec<NodeId> {
    let mut chosen: Vec<NodeId> = Vec::with_capacity(wanted);
    while chosen.len() < wanted {
        let in_zone_of =
            |id: &NodeId| chosen.iter().filter(|other| zones.get(*other) == zones.get(id)).count();
        let best = if chosen.is_empty() {
            loads.iter().min_by_key(|(id, load)| (load.leads, load.replicas, **id))
        } else {
            loads
                .iter()
                .filter(|(id, _)| !chosen.contains(id))
                .min_by_key(|(id, load)| (in_zone_of(id), load.replicas, load.leads, **id))
        };
        let Some(id) = best.map(|(id, _)| *id) else { break };
        if let Some(load) = loads.get_mut(&id) {
            load.replicas += 1;
            load.leads += usize::from(chosen.is_empty());
        }
        chosen.push(id);
    }
    chosen
}

impl NodeState {
    /// New replicas go to such nodes only.
    pub fn takes_replicas(self) -> bool {
        match self {
            NodeState::Live => true,
            NodeState::Suspect | NodeState::Dead => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    struct Spread {
        least: usize,
        most: usize,
    }

    fn spread(counts: impl Iterator<Item = usize> + Clone) -> Spread {
        Spread { least: counts.clone().min().unwrap(), most: counts.max().unwrap() }
    }

    fn check(regions: u16, replicas: u8, nodes: &[(NodeId, &str)]) {
        let zone_of: BTreeMap<NodeId, &str> = nodes.iter().copied().collect();
        let zones = zone_of.values().collect::<BTreeSet<_>>().len();
        let placed = place(regions, replicas, nodes);
        let what = format!("{regions} regions, {replicas} replicas, {nodes:?}: {placed:?}");
        assert_eq!(placed.len(), usize::from(regions), "{what}");
        for region in &placed {
            let distinct: BTreeSet<_> = region.iter().collect();
            assert_eq!(distinct.len(), region.len(), "{what}");
            assert_eq!(region.len(), usize::from(replicas).min(nodes.len()), "{what}");
            let used = region.iter().map(|id| zone_of[id]).collect::<BTreeSet<_>>().len();
            assert_eq!(used, zones.min(region.len()), "{what}");
        }
        let leads = nodes.iter().map(|(id, _)| placed.iter().filter(|r| r[0] == *id).count());
        let leads = spread(leads);
        assert!(leads.most - leads.least <= 1, "leads {what}");
        let held = nodes.iter().map(|(id, _)| placed.iter().filter(|r| r.contains(id)).count());
        let held = spread(held);
        // With zones of different sizes the nodes of the small ones have to hold more.
        if zones == 1 || nodes.len() == zones {
            assert!(held.most - held.least <= 2, "replicas {} to {}: {what}", held.least, held.most);
        }
    }

    #[test]
    fn replicas_spread_over_zones_and_leads_over_nodes() {
        for nodes in 1..=7_u64 {
            for zones in 1..=nodes {
                let names = ["a", "b", "c", "d", "e", "f", "g"];
                let nodes: Vec<(NodeId, &str)> =
                    (0..nodes).map(|n| (NodeId(n + 1), names[(n % zones) as usize])).collect();
                for replicas in [1, 3, 5] {
                    for regions in 1..=64 {
                        check(regions, replicas, &nodes);
                    }
                }
            }
        }
    }

    #[test]
    fn zones_of_different_sizes_are_all_used() {
        let nodes =
            [(NodeId(1), "a"), (NodeId(2), "a"), (NodeId(3), "a"), (NodeId(4), "b"), (NodeId(5), "c")];
        for regions in 1..=64 {
            check(regions, 3, &nodes);
        }
    }

    #[test]
    fn the_order_of_the_nodes_has_no_influence() {
        let nodes = [(NodeId(1), "a"), (NodeId(2), "b"), (NodeId(3), "c"), (NodeId(4), "a")];
        let mut turned = nodes;
        turned.reverse();
        assert_eq!(place(16, 3, &nodes), place(16, 3, &turned));
    }

    #[test]
    fn without_nodes_nothing_has_a_place() {
        assert_eq!(place(2, 3, &[]), [vec![], vec![]]);
    }
}
