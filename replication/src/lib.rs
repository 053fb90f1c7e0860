//! Replicated state machines on openraft: write-ahead log, checkpoints over sled, transport between peers.
//!
//! | part | owns |
//! | --- | --- |
//! | [`Machine`], [`Observer`] | what a user of this crate writes |
//! | [`Replica`] | one replica of one group: openraft around a machine |
//! | [`ReplicaHost`] | what the replicas of one server share |
//! | [`wal`] | the log that makes entries and votes durable, one per server |
//! | [`row_store`] | a group's rows: in memory since the last checkpoint, in sled before |
//! | [`peers`] | requests of all groups between two servers on one connection |
//! | [`codec`] | Raft's own data as bytes |
//! | [`Identity`] | whose data a folder holds |
//! | [`Substitutes`] | what a simulator puts in the place of a server's own |

mod checkpoint;
mod codec;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod decoders;
mod host;
mod identity;
mod log_store;
mod machine;
mod peers;
mod raft_types;
mod rebuild;
mod replica;
pub mod row_store;
mod state_machine;
mod substitutes;
#[cfg(test)]
mod tests;
pub mod wal;

pub use host::{CheckpointPolicy, HostConfig, ReplicaHost, StartError, Timing};
pub use identity::{Identity, IdentityError};
pub use machine::{Machine, Observer, Position};
pub use peers::PeerEndpoint;
pub use replica::{Lead, Replica, WriteError};
pub use row_store::{Found, RowSnapshot, RowStore, RowWriter};
pub use substitutes::{Substitutes, Witness};
