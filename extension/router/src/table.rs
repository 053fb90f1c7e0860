//! Resolving: from an agent to the region that owns it and the clients of its replicas.

use crate::itinerary::REPLICAS_MAX;
use afdg_catalog_client::{RouteRegion, Routes};
use afdg_region_client::{RegionClient, RegionClients};
use afdg_types::{AgentRef, NodeId, RegionId, Slot};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// One version of the routes, with the clients of its nodes and what was learned of its leaders.
pub(crate) struct Table {
    pub(crate) routes: Arc<Routes>,
    regions: BTreeMap<RegionId, Region>,
}

pub(crate) struct Region {
    pub(crate) id: RegionId,
    /// The preferred leader first, nodes that are not live last.
    pub(crate) replicas: Vec<Replica>,
    /// What the routes said of the leader; kept to see when they say something new.
    routed_leader: Option<NodeId>,
    /// Who leads, learned from answers; 0 while unknown. A hint: a wrong one costs one attempt.
    leader: AtomicU64,
}

pub(crate) struct Replica {
    pub(crate) node: NodeId,
    pub(crate) client: RegionClient,
}

impl Table {
    /// Leaders learned under `previous` are kept unless the routes name a new one.
    pub(crate) fn new(routes: Arc<Routes>, clients: &RegionClients, previous: Option<&Table>) -> Self {
        let regions = (routes.regions.values())
            .map(|route| {
                let known = previous.and_then(|table| table.region(route.id));
                (route.id, Region::new(route, &routes, clients, known))
            })
            .collect();
        let addresses: BTreeSet<&str> = routes.nodes.values().map(|node| node.address.as_str()).collect();
        clients.retain(&addresses);
        Self { routes, regions }
    }

    pub(crate) fn resolve(&self, agent: &AgentRef) -> Option<&Region> {
        self.region(self.routes.region_of(Slot::of(agent))?.id)
    }

    pub(crate) fn region(&self, id: RegionId) -> Option<&Region> {
        self.regions.get(&id)
    }
}

impl Region {
    fn new(route: &RouteRegion, routes: &Routes, clients: &RegionClients, known: Option<&Region>) -> Self {
        let mut replicas: Vec<(bool, Replica)> = Vec::new();
        for id in route.replicas.iter().take(REPLICAS_MAX) {
            let Some(node) = routes.nodes.get(id) else { continue };
            match clients.node(&node.address) {
                Ok(client) => replicas.push((node.live, Replica { node: *id, client })),
                Err(error) => tracing::warn!(node = node.name, %error, "a node can't be reached as routed"),
            }
        }
        replicas.sort_by_key(|(live, _)| !live);
        let leader = match known {
            Some(known) if known.routed_leader == route.leader => known.leader.load(Relaxed),
            _ => route.leader.map_or(0, |node| node.0),
        };
        Self {
            id: route.id,
            replicas: replicas.into_iter().map(|(_, replica)| replica).collect(),
            routed_leader: route.leader,
            leader: AtomicU64::new(leader),
        }
    }

    /// The place of the replica that is said to lead.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leader = self.leader.load(Relaxed);
        self.replicas.iter().position(|replica| replica.node.0 == leader)
    }

    pub(crate) fn learn_leader(&self, node: NodeId) {
        if self.leader.load(Relaxed) != node.0 {
            self.leader.store(node.0, Relaxed);
        }
    }

    /// `node` does not lead after all.
    pub(crate) fn forget_leader(&self, node: NodeId) {
        let _ = self.leader.compare_exchange(node.0, 0, Relaxed, Relaxed);
    }
}
