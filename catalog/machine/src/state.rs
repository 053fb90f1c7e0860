//! What the catalog's servers agree on.

use crate::{Refusal, limits::AUDIT_RECORDS_MAX};
use afdg_types::{ClusterId, Epoch, NodeId, RegionId, Slot, SlotRange, TypeLimit};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

/// The whole state. Types and audit records stand in rows of their own, the rest in one row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogState {
    /// None until the catalog's first leader has formed the cluster.
    pub cluster: Option<Cluster>,
    /// Version of everything that a routing table shows.
    pub epoch: Epoch,
    /// The epoch that last changed `types`. It never returns to an earlier value, so that a watcher can
    /// tell from it alone whether it has seen these types.
    pub types_epoch: Epoch,
    pub nodes: BTreeMap<NodeId, Node>,
    /// The highest node id ever given out; ids are never used again.
    pub node_id_last: u64,
    /// Empty until regions are placed; from then on they hold every slot.
    pub regions: BTreeMap<RegionId, Region>,
    #[serde(skip)]
    pub types: BTreeMap<String, Arc<AgentType>>,
    /// By type, the bounds that an administrator has set; none of a type that has its defaults.
    #[serde(skip)]
    pub limits: BTreeMap<String, BTreeMap<TypeLimit, u64>>,
    /// Oldest first.
    #[serde(skip)]
    pub audit: VecDeque<AuditRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    /// Version of the cluster's replicated formats, raised by an upgrade once every server knows it.
    pub format_version: u32,
    pub regions_wanted: u16,
    pub replicas_wanted: u8,
    pub formed_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    /// Made by the node with its data folder: names the data, so that another one is another node.
    pub incarnation: String,
    pub address: String,
    pub zone: String,
    pub state: NodeState,
    pub registered_ms: u64,
    /// When `state` last changed.
    pub changed_ms: u64,
    /// The agent types that the node hosted when it last registered.
    pub types: BTreeSet<String>,
    /// Another node has registered under this name: this one is dead until it registers again itself.
    pub replaced_by: Option<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Its lease is held.
    Live,
    /// It has missed its lease; it may come back at any moment.
    Suspect,
    /// It has been away for longer than the grace time, or another node has taken its name.
    Dead,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Live => "live",
            NodeState::Suspect => "suspect",
            NodeState::Dead => "dead",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    pub slots: Vec<SlotRange>,
    /// The first is the preferred leader.
    pub replicas: Vec<NodeId>,
    pub phase: RegionPhase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegionPhase {
    /// Its replicas still have to form the group.
    Creating,
    /// It has had a leader.
    Ready,
}

impl fmt::Display for RegionPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RegionPhase::Creating => "creating",
            RegionPhase::Ready => "ready",
        })
    }
}

/// An agent type as a node has described it. The latest registration counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentType {
    /// Full name of the protobuf service.
    pub name: String,
    /// Hash of `descriptors`, hexadecimal. Made by the server that proposes, since this crate names no hash.
    pub version: String,
    /// Serialized `google.protobuf.FileDescriptorSet`.
    pub descriptors: Bytes,
    pub methods: Vec<Method>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    pub name: String,
    pub read_only: bool,
    /// Number of the request's field that holds the agent's key; 0 if none.
    pub key_field: u32,
    pub request: String,
    pub response: String,
}

impl AgentType {
    /// What the type takes of `limits::TYPES_BYTES_MAX`.
    pub fn size_bytes(&self) -> usize {
        let of_method = |method: &Method| method.name.len() + method.request.len() + method.response.len();
        let methods: usize = self.methods.iter().map(of_method).sum();
        self.name.len() + self.version.len() + self.descriptors.len() + methods
    }
}

/// One thing that an administrator did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Index of the log entry that holds the action.
    pub index: u64,
    pub at_ms: u64,
    pub actor: String,
    pub reason: String,
    pub action: String,
}

impl CatalogState {
    /// True once the regions have their places.
    pub fn is_placed(&self) -> bool {
        !self.regions.is_empty()
    }

    /// True once calls can succeed: regions are placed, and each has had a leader.
    pub fn is_ready(&self) -> bool {
        self.is_placed() && self.regions.values().all(|region| region.phase == RegionPhase::Ready)
    }

    pub fn nodes_live(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().filter(|(_, node)| node.state == NodeState::Live).map(|(id, node)| (*id, node))
    }

    /// Replicas that each region should have: as wanted, or as many as there were nodes to place on.
    pub fn replicas_wanted(&self) -> u8 {
        self.cluster.as_ref().map_or(0, |cluster| cluster.replicas_wanted)
    }

    pub fn region_of(&self, slot: Slot) -> Option<RegionId> {
        let holds = |region: &Region| region.slots.iter().any(|range| range.contains(slot));
        self.regions.iter().find(|(_, region)| holds(region)).map(|(id, _)| *id)
    }

    pub(crate) fn formed(&self) -> Result<&Cluster, Refusal> {
        self.cluster.as_ref().ok_or(Refusal::NotFormed)
    }

    pub(crate) fn region(&self, region: RegionId) -> Result<&Region, Refusal> {
        self.regions.get(&region).ok_or(Refusal::UnknownRegion { region })
    }

    pub(crate) fn node_mut(&mut self, node: NodeId) -> Result<&mut Node, Refusal> {
        self.nodes.get_mut(&node).ok_or(Refusal::UnknownNode { node })
    }

    pub(crate) fn audit(&mut self, record: AuditRecord) {
        self.audit.push_back(record);
        while self.audit.len() > AUDIT_RECORDS_MAX {
            self.audit.pop_front();
        }
    }
}
