//! What the catalog's leader knows without anybody's agreement: when it last heard of each node, and
//! what that said of its replicas.
//!
//! It belongs to one term of leadership. A new leader begins with nothing but the moment at which it
//! began, and counts every lease from there, so that nobody is suspected for the silence of a server
//! that did not listen.

use afdg_proto::pb::internal;
use afdg_types::{NodeId, RegionId, Term};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::Notify, time::Instant};

/// What a node said of one of its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) term: Term,
    pub(crate) leads: bool,
    pub(crate) applied_index: u64,
    pub(crate) agents_active: u64,
}

impl From<&internal::ReplicaReport> for Report {
    fn from(wire: &internal::ReplicaReport) -> Self {
        Self {
            term: Term(wire.term),
            leads: wire.leads,
            applied_index: wire.applied_index,
            agents_active: wire.agents_active,
        }
    }
}

/// A node as last heard.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) wal_bytes: u64,
    pub(crate) replicas: BTreeMap<RegionId, Report>,
}

/// Everything known, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// When this leadership began, or when this server last noticed that it had not been listening.
    pub(crate) since: Instant,
    pub(crate) nodes: BTreeMap<NodeId, Seen>,
}

impl View {
    /// The report of the replica that leads `region`: of the latest term, if several say so.
    pub(crate) fn leader_of(&self, region: RegionId) -> Option<(NodeId, Report, Instant)> {
        let reports =
            self.nodes.iter().filter_map(|(id, seen)| Some((*id, *seen.replicas.get(&region)?, seen.at)));
        reports.filter(|(_, report, _)| report.leads).max_by_key(|(_, report, _)| report.term)
    }
}

#[derive(Default)]
pub(crate) struct Soft {
    lead: Mutex<Option<(u64, View)>>,
    changed: Notify,
}

impl Soft {
    /// Begins the leadership of `term`, unless it or a later one has begun.
    pub(crate) fn begin(&self, term: u64, now: Instant) {
        let mut lead = self.lock();
        if lead.as_ref().is_none_or(|(held, _)| *held < term) {
            *lead = Some((term, View { since: now, nodes: BTreeMap::new() }));
        }
    }

    /// This server leads no more.
    pub(crate) fn end(&self) {
        *self.lock() = None;
    }

    /// This server has not been listening for a while: leases count from now.
    pub(crate) fn forgive_silence(&self, now: Instant) {
        if let Some((_, view)) = &mut *self.lock() {
            view.since = now;
        }
    }

    /// A node has started and says nothing of its replicas yet.
    pub(crate) fn registered(&self, term: u64, node: NodeId, now: Instant) {
        self.heard(term, node, Seen { at: now, wal_bytes: 0, replicas: BTreeMap::new() });
    }

    /// A heartbeat, which replaces what the node said before.
    pub(crate) fn heard(&self, term: u64, node: NodeId, seen: Seen) {
        self.begin(term, seen.at);
        if let Some((_, view)) = self.lock().as_mut().filter(|(held, _)| *held == term) {
            view.nodes.insert(node, seen);
        }
        self.changed.notify_one();
    }

    pub(crate) fn view(&self) -> Option<View> {
        self.lock().as_ref().map(|(_, view)| view.clone())
    }

    /// Resolves after something was heard. For one waiter.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(u64, View)>> {
        // Nothing panics while it is held, and each change is whole.
        self.lead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
