//! The catalog's state machine: pure, synchronous, total.
//!
//! It owns what the whole cluster agrees on: the cluster's id, its nodes, its regions with their slots
//! and replicas, its agent types, and the log of what administrators did. What changes many times a
//! second (who leads a region, when a node was last heard) is left out on purpose: it is soft state of
//! the catalog's leader, and nobody has to agree on it.
//!
//! [`Command`] goes in, [`CatalogMachine::apply`] is the only function that changes anything, [`Outcome`]
//! comes out. Time, ids and hashes come in with the command.

mod command;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod decoders;
mod invariants;
pub mod limits;
mod machine;
mod outcome;
mod placement;
mod rows;
mod state;

pub use command::{
    AdminAction, Command, FormCluster, PlaceRegions, RecordAction, RegionReady, RegisterNode, SetNodeState,
    SetTypeLimits,
};
pub use invariants::InvariantBroken;
pub use machine::CatalogMachine;
pub use outcome::{Outcome, Refusal, Reply};
pub use placement::place;
pub use state::{
    AgentType, AuditRecord, CatalogState, Cluster, Method, Node, NodeState, Region, RegionPhase,
};
