//! What a command did.

use crate::NodeState;
use afdg_types::{ClusterId, NodeId, RegionId};

/// A refusal is an output like any other: the command was committed, and changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done(Reply),
    Refused(Refusal),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Formed { cluster: ClusterId },
    Registered { node: NodeId, cluster: ClusterId },
    NodeStateSet { node: NodeId, state: NodeState },
    Placed { regions: u16, replicas: u8 },
    RegionReady { region: RegionId },
    Recorded { index: u64 },
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the cluster is not formed yet; try again in a moment")]
    NotFormed,
    #[error("the cluster is formed already; its id is {cluster}")]
    AlreadyFormed { cluster: ClusterId },
    #[error("the data is of cluster {claimed}, and this is cluster {own}")]
    WrongCluster { claimed: ClusterId, own: ClusterId },
    #[error(
        "the data is of node {node}, whose name is '{name}', and it was given as that of '{given}'; start it under its own name, or give '{given}' an empty data folder"
    )]
    DataOfAnotherNode { node: NodeId, name: String, given: String },
    #[error(
        "the data says it is of node {node}, and the catalog knows no such data; start with an empty data folder to join as a new node"
    )]
    UnknownData { node: NodeId },
    #[error("the catalog knows no node {node}")]
    UnknownNode { node: NodeId },
    #[error("the catalog knows no region {region}")]
    UnknownRegion { region: RegionId },
    #[error("the catalog knows no agent type '{name}'; a region node that has it has to register first")]
    UnknownType { name: String },
    #[error("node {node} is {state}, not {expected}")]
    NodeStateChanged { node: NodeId, state: NodeState, expected: NodeState },
    #[error("node {node} was replaced by node {by}, which registered under the same name with another disk")]
    NodeReplaced { node: NodeId, by: NodeId },
    #[error(
        "the name '{name}' is that of node {node}, which is live at {address}: give this node a name of its own. If that node has lost its disk, wait until it is no longer live"
    )]
    NameInUse { name: String, node: NodeId, address: String },
    #[error("regions are placed when {wanted} nodes are live; {live} are")]
    NodesMissing { live: usize, wanted: usize },
    #[error("the regions are placed already")]
    AlreadyPlaced,
    #[error("node {node} holds no replica of region {region}")]
    NotAReplica { node: NodeId, region: RegionId },
    #[error("{field} {problem}")]
    Invalid { field: &'static str, problem: String },
    #[error("the agent type '{name}' {problem}")]
    InvalidType { name: String, problem: String },
    #[error("the catalog holds at most {max} {what}")]
    Full { what: &'static str, max: usize },
    #[error("the command can't be read; it is of version {version}, and this server knows version {known}")]
    UnknownCommand { version: u8, known: u8 },
}
