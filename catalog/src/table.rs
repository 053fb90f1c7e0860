//! The routing table as watchers get it: the replicated state with the hints.

use crate::hints::{HintTable, Hints};
use afdg_catalog_machine::{AgentType, CatalogState, NodeState, RegionPhase};
use afdg_proto::pb::internal::{RouteNode, RouteRegion, RoutingTable, SlotSpan, TypeDescriptor, TypeMethod};
use afdg_types::Epoch;
use std::sync::Arc;
use tokio::sync::watch;

/// The latest table. Slow watchers skip what lies between.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// Without types.
    pub(crate) table: RoutingTable,
    pub(crate) types: Arc<Vec<TypeDescriptor>>,
    pub(crate) types_epoch: Epoch,
}

impl Published {
    /// The table for a watcher that has seen the types of `seen`, if any.
    pub(crate) fn for_watcher(&self, seen: Option<Epoch>) -> RoutingTable {
        if seen == Some(self.types_epoch) {
            return self.table.clone();
        }
        RoutingTable { types: self.types.to_vec(), types_included: true, ..self.table.clone() }
    }

    fn next(&self, state: &CatalogState, hints: &Hints) -> Published {
        let same_types = self.types_epoch == state.types_epoch;
        let types = if same_types {
            Arc::clone(&self.types)
        } else {
            Arc::new(state.types.values().map(|agent_type| describe(agent_type, state)).collect())
        };
        Published { table: table(state, hints), types, types_epoch: state.types_epoch }
    }
}

/// Keeps `published` at the latest state and hints, until the server ends.
pub(crate) async fn publish(
    mut state: watch::Receiver<Arc<CatalogState>>,
    hints: Arc<HintTable>,
    published: watch::Sender<Arc<Published>>,
) {
    let mut heard = hints.subscribe();
    loop {
        let (state_now, hints_now) =
            (Arc::clone(&state.borrow_and_update()), Arc::clone(&heard.borrow_and_update()));
        let next = published.borrow().next(&state_now, &hints_now);
        published.send_replace(Arc::new(next));
        let changed = tokio::select! {
            changed = state.changed() => changed,
            changed = heard.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn table(state: &CatalogState, hints: &Hints) -> RoutingTable {
    let nodes = state.nodes.iter().map(|(id, node)| RouteNode {
        id: id.0,
        name: node.name.clone(),
        address: node.address.clone(),
        live: node.state == NodeState::Live,
    });
    let regions = state.regions.iter().map(|(id, region)| {
        // A hint about an earlier set of replicas may name a node that holds none now.
        let hint = hints.get(id).filter(|hint| region.replicas.contains(&hint.leader));
        RouteRegion {
            id: id.0,
            slots: region
                .slots
                .iter()
                .map(|range| SlotSpan { first: range.first.0.into(), last: range.last.0.into() })
                .collect(),
            replicas: region.replicas.iter().map(|node| node.0).collect(),
            leader: hint.map_or(0, |hint| hint.leader.0),
            term: hint.map_or(0, |hint| hint.term.0),
            creating: region.phase == RegionPhase::Creating,
        }
    });
    RoutingTable {
        cluster_id: state.cluster.as_ref().map(|cluster| cluster.id.0.clone()).unwrap_or_default(),
        epoch: state.epoch.0,
        nodes: nodes.collect(),
        regions: regions.collect(),
        types: Vec::new(),
        types_included: false,
        ready: state.is_ready(),
    }
}

fn describe(agent_type: &AgentType, state: &CatalogState) -> TypeDescriptor {
    let methods = agent_type.methods.iter().map(|method| TypeMethod {
        name: method.name.clone(),
        read_only: method.read_only,
        key_field: method.key_field,
        request: method.request.clone(),
        response: method.response.clone(),
    });
    let limits = state.limits.get(&agent_type.name).into_iter().flatten();
    TypeDescriptor {
        name: agent_type.name.clone(),
        descriptors: agent_type.descriptors.clone(),
        methods: methods.collect(),
        limits: limits.map(|(limit, value)| (limit.name().to_owned(), *value)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hints::Hint;
    use afdg_catalog_machine::{Node, Region};
    use afdg_types::{NodeId, RegionId, Slot, SlotRange, Term};

    fn state() -> CatalogState {
        let node = Node {
            name: "a".to_owned(),
            incarnation: "ia".to_owned(),
            address: "a:1".to_owned(),
            zone: String::new(),
            state: NodeState::Suspect,
            registered_ms: 0,
            changed_ms: 0,
            types: Default::default(),
            replaced_by: None,
        };
        let region = Region {
            slots: vec![SlotRange { first: Slot(0), last: Slot(16_383) }],
            replicas: vec![NodeId(1)],
            phase: RegionPhase::Creating,
        };
        CatalogState {
            nodes: [(NodeId(1), node)].into(),
            regions: [(RegionId(1), region)].into(),
            epoch: Epoch(7),
            types_epoch: Epoch(3),
            ..CatalogState::default()
        }
    }

    #[test]
    fn a_table_shows_the_state_and_the_hints() {
        let hint = |leader| Hints::from([(RegionId(1), Hint { term: Term(5), leader: NodeId(leader) })]);
        let shown = table(&state(), &hint(1));
        assert_eq!((shown.epoch, shown.ready), (7, false));
        assert_eq!((shown.regions[0].leader, shown.regions[0].term, shown.regions[0].creating), (1, 5, true));
        assert!(!shown.nodes[0].live);
        let shown = table(&state(), &hint(9));
        assert_eq!(shown.regions[0].leader, 0, "a node without a replica leads nothing");
    }

    #[test]
    fn types_are_sent_first_and_when_they_change() {
        let published = Published::default().next(&state(), &Hints::new());
        assert!(published.for_watcher(None).types_included);
        assert!(!published.for_watcher(Some(Epoch(3))).types_included);
        let next = published.next(&CatalogState { types_epoch: Epoch(8), ..state() }, &Hints::new());
        assert!(next.for_watcher(Some(Epoch(3))).types_included);
    }
}
