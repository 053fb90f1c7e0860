//! The routing table, decoded and checked.

use crate::TypeInfo;
use afdg_proto::pb::internal;
use afdg_types::{ClusterId, Epoch, NodeId, RegionId, SLOTS, Slot, SlotRange, Term};
use std::{collections::BTreeMap, sync::Arc};

/// Where everything is, as last heard from the catalog. Never changes; a newer one takes its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// None until the first table of a formed cluster was heard.
    pub cluster_id: Option<ClusterId>,
    pub epoch: Epoch,
    /// True once calls can succeed: regions are placed and each has had a leader.
    pub ready: bool,
    pub nodes: BTreeMap<NodeId, RouteNode>,
    pub regions: BTreeMap<RegionId, RouteRegion>,
    pub types: BTreeMap<String, Arc<TypeInfo>>,
    /// The region of each slot, by slot; empty until regions are placed. Shared by all tables of an epoch.
    slots: Arc<[RegionId]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteNode {
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Its lease is held, as far as the catalog knows.
    pub live: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRegion {
    pub id: RegionId,
    pub slots: Vec<SlotRange>,
    /// The first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// A hint: who was last heard to lead, in which term.
    pub leader: Option<NodeId>,
    pub term: Term,
    /// The replicas still have to form the group.
    pub creating: bool,
}

/// A table that can't be used; the one held stays in use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableRefused {
    #[error("it is of cluster {given}, and the routes held are of cluster {held}")]
    OtherCluster { given: String, held: ClusterId },
    #[error("it is malformed: {0}")]
    Malformed(String),
}

impl Routes {
    /// The routes of one table by itself.
    pub fn from_table(table: internal::RoutingTable) -> Result<Routes, TableRefused> {
        Ok(Routes::default().next(table)?.unwrap_or_default())
    }

    /// The region that owns `slot`; none until regions are placed.
    pub fn region_of(&self, slot: Slot) -> Option<&RouteRegion> {
        self.regions.get(self.slots.get(usize::from(slot.0))?)
    }

    /// Who was last heard to lead `region`.
    pub fn leader_hint(&self, region: RegionId) -> Option<NodeId> {
        self.regions.get(&region)?.leader
    }

    pub fn address_of(&self, node: NodeId) -> Option<&str> {
        Some(&self.nodes.get(&node)?.address)
    }

    /// These routes after hearing `table`; none if it says nothing new. A table of an earlier epoch (of
    /// a server that lags) changes nothing; one of the same epoch can bring newer hints.
    pub fn next(&self, table: internal::RoutingTable) -> Result<Option<Routes>, TableRefused> {
        if table.epoch < self.epoch.0 {
            return Ok(None);
        }
        match (&self.cluster_id, table.cluster_id.is_empty()) {
            (Some(held), false) if held.0 != table.cluster_id => {
                return Err(TableRefused::OtherCluster { given: table.cluster_id, held: held.clone() });
            }
            // Before the cluster is formed there is nothing to tell.
            (_, true) => return Ok(None),
            (_, false) => {}
        }
        let types = if table.types_included { self.share_types(table.types) } else { self.types.clone() };
        let nodes = decode_nodes(table.nodes)?;
        let regions = self.decode_regions(table.regions, &nodes)?;
        let same_epoch = self.epoch.0 == table.epoch && !self.slots.is_empty();
        let slots = if same_epoch { Arc::clone(&self.slots) } else { index_slots(&regions)? };
        let next = Routes {
            cluster_id: Some(ClusterId(table.cluster_id)),
            epoch: Epoch(table.epoch),
            ready: table.ready,
            nodes,
            regions,
            types,
            slots,
        };
        Ok((next != *self).then_some(next))
    }

    /// A type that has not changed stays the same `Arc`, so that what was made from it stays valid.
    fn share_types(&self, types: Vec<internal::TypeDescriptor>) -> BTreeMap<String, Arc<TypeInfo>> {
        let shared = types.into_iter().map(|wire| {
            let new = TypeInfo::from(wire);
            let held = self.types.get(&new.name).filter(|held| ***held == new).cloned();
            (new.name.clone(), held.unwrap_or_else(|| Arc::new(new)))
        });
        shared.collect()
    }

    fn decode_regions(
        &self,
        wire: Vec<internal::RouteRegion>,
        nodes: &BTreeMap<NodeId, RouteNode>,
    ) -> Result<BTreeMap<RegionId, RouteRegion>, TableRefused> {
        let mut regions = BTreeMap::new();
        for region in wire {
            let mut region = decode_region(region, nodes)?;
            // Servers hear of leaders at different times: the later term counts. One term has one leader.
            if let Some(held) = self.regions.get(&region.id) {
                let newer = (region.term, region.leader.is_some()) >= (held.term, held.leader.is_some());
                let holds = held.leader.is_none_or(|leader| region.replicas.contains(&leader));
                if !newer && holds {
                    (region.leader, region.term) = (held.leader, held.term);
                }
            }
            let id = region.id;
            if regions.insert(id, region).is_some() {
                return Err(TableRefused::Malformed(format!("region {id} stands in it twice")));
            }
        }
        Ok(regions)
    }
}

fn decode_nodes(wire: Vec<internal::RouteNode>) -> Result<BTreeMap<NodeId, RouteNode>, TableRefused> {
    let mut nodes = BTreeMap::new();
    for node in wire {
        let id = NodeId(node.id);
        let route = RouteNode { name: node.name, address: node.address, live: node.live };
        if id.0 == 0 || nodes.insert(id, route).is_some() {
            return Err(TableRefused::Malformed(format!("node {id} is 0 or stands in it twice")));
        }
    }
    Ok(nodes)
}

fn decode_region(
    wire: internal::RouteRegion,
    nodes: &BTreeMap<NodeId, RouteNode>,
) -> Result<RouteRegion, TableRefused> {
    let id = RegionId(wire.id);
    let malformed = |what: String| Err(TableRefused::Malformed(format!("region {id} {what}")));
    if id.0 == 0 {
        return malformed("has no id".to_owned());
    }
    let mut slots = Vec::with_capacity(wire.slots.len());
    for span in wire.slots {
        let range = u16::try_from(span.first).ok().zip(u16::try_from(span.last).ok());
        match range.filter(|(first, last)| first <= last && *last < SLOTS) {
            Some((first, last)) => slots.push(SlotRange { first: Slot(first), last: Slot(last) }),
            None => return malformed(format!("has slots {} to {}", span.first, span.last)),
        }
    }
    let replicas: Vec<NodeId> = wire.replicas.into_iter().map(NodeId).collect();
    if let Some(unknown) = replicas.iter().find(|node| !nodes.contains_key(node)) {
        return malformed(format!("lies on the unknown node {unknown}"));
    }
    let leader = Some(NodeId(wire.leader)).filter(|node| replicas.contains(node));
    Ok(RouteRegion { id, slots, replicas, leader, term: Term(wire.term), creating: wire.creating })
}

/// The region of each slot. Every slot must have one, and one only.
fn index_slots(regions: &BTreeMap<RegionId, RouteRegion>) -> Result<Arc<[RegionId]>, TableRefused> {
    if regions.is_empty() {
        return Ok(Arc::default());
    }
    let nobody = RegionId(0);
    let mut owners = vec![nobody; usize::from(SLOTS)];
    for region in regions.values() {
        for range in &region.slots {
            for owner in &mut owners[usize::from(range.first.0)..=usize::from(range.last.0)] {
                if *owner != nobody {
                    let what = format!("a slot is in region {owner} and in region {}", region.id);
                    return Err(TableRefused::Malformed(what));
                }
                *owner = region.id;
            }
        }
    }
    match owners.iter().position(|owner| *owner == nobody) {
        Some(slot) => Err(TableRefused::Malformed(format!("slot {slot} is in no region"))),
        None => Ok(owners.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use internal::{
        RouteNode as WireNode, RouteRegion as WireRegion, RoutingTable, SlotSpan, TypeDescriptor,
    };

    fn region(id: u64, first: u32, last: u32, leader: u64, term: u64) -> WireRegion {
        let slots = vec![SlotSpan { first, last }];
        WireRegion { id, slots, replicas: vec![1, 2], leader, term, creating: false }
    }

    fn table(epoch: u64) -> RoutingTable {
        let node =
            |id: u64| WireNode { id, name: format!("n{id}"), address: format!("n{id}:7000"), live: true };
        let descriptors = bytes::Bytes::from_static(b"d");
        RoutingTable {
            cluster_id: "c".to_owned(),
            epoch,
            nodes: vec![node(1), node(2)],
            regions: vec![region(1, 0, 8191, 1, 4), region(2, 8192, 16_383, 0, 0)],
            types: vec![TypeDescriptor { name: "a.B".to_owned(), descriptors, ..Default::default() }],
            types_included: true,
            ready: true,
        }
    }

    #[test]
    fn every_slot_has_its_region() {
        let routes = Routes::from_table(table(3)).unwrap();
        let of = |slot| routes.region_of(Slot(slot)).map(|region| region.id.0);
        assert_eq!([of(0), of(8191), of(8192), of(16_383)], [Some(1), Some(1), Some(2), Some(2)]);
        assert_eq!(of(16_384), None);
        assert_eq!(routes.leader_hint(RegionId(1)), Some(NodeId(1)));
        assert_eq!(routes.leader_hint(RegionId(2)), None);
        assert_eq!(routes.address_of(NodeId(2)), Some("n2:7000"));
        assert_eq!(Routes::default().region_of(Slot(0)), None);
    }

    #[test]
    fn older_tables_change_nothing_and_hints_only_grow() {
        let held = Routes::from_table(table(3)).unwrap();
        assert_eq!(held.next(table(2)), Ok(None));
        assert_eq!(held.next(table(3)), Ok(None), "the same table is no news");
        let hint = |leader, term| {
            let mut newer = table(3);
            newer.regions[0] = region(1, 0, 8191, leader, term);
            held.next(newer).unwrap().map(|routes| routes.leader_hint(RegionId(1)).unwrap().0)
        };
        assert_eq!(hint(2, 5), Some(2));
        assert_eq!(hint(2, 3), None);
        assert_eq!(hint(0, 4), None);
        assert_eq!(hint(0, 0), None);
        let next = held.next(RoutingTable { types: vec![], types_included: false, ..table(4) });
        let next = next.unwrap().unwrap();
        assert!(Arc::ptr_eq(&next.types["a.B"], &held.types["a.B"]), "types stay unless they are included");
        let next = held.next(table(4)).unwrap().unwrap();
        assert!(Arc::ptr_eq(&next.types["a.B"], &held.types["a.B"]), "the same type stays the same");
    }

    #[test]
    fn tables_of_other_clusters_and_malformed_ones_are_refused() {
        let held = Routes::from_table(table(3)).unwrap();
        let other = RoutingTable { cluster_id: "other".to_owned(), ..table(9) };
        assert!(matches!(held.next(other), Err(TableRefused::OtherCluster { .. })));
        assert_eq!(held.next(RoutingTable { cluster_id: String::new(), ..table(9) }), Ok(None));
        let refused = |change: fn(&mut RoutingTable)| {
            let mut bad = table(4);
            change(&mut bad);
            held.next(bad).unwrap_err().to_string()
        };
        assert_eq!(
            refused(|t| t.regions[0].slots[0].last = 8192),
            "it is malformed: a slot is in region 1 and in region 2"
        );
        assert_eq!(
            refused(|t| t.regions[0].slots[0].last = 8190),
            "it is malformed: slot 8191 is in no region"
        );
        assert_eq!(
            refused(|t| t.regions[1].slots[0].last = 16_384),
            "it is malformed: region 2 has slots 8192 to 16384"
        );
        assert_eq!(
            refused(|t| t.regions[0].replicas.push(9)),
            "it is malformed: region 1 lies on the unknown node 9"
        );
        assert_eq!(refused(|t| t.regions[1].id = 1), "it is malformed: region 1 stands in it twice");
        assert_eq!(refused(|t| t.nodes[1].id = 1), "it is malformed: node 1 is 0 or stands in it twice");
    }
}
