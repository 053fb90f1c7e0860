//! The nouns that AFDG's crates share: who is addressed ([`AgentRef`]), by what message
//! ([`MessageId`]), where it lives ([`Slot`], [`RegionId`], [`NodeId`]), how big things may be
//! ([`limits`]) and how a message can fail ([`CallError`]).
//!
//! Nothing here does IO, reads a clock or draws randomness.

mod agent_ref;
mod call_error;
mod fair_queue;
mod ids;
pub mod limits;
mod message_id;
pub mod planted;
mod purpose;
mod rows;
mod schedule;
mod slot;
mod type_limits;

pub use agent_ref::{AgentRef, AgentRefError};
pub use call_error::{AgentError, CallError, Code, GridError, PER_SECOND, Reason, Retry};
pub use fair_queue::FairQueue;
pub use ids::{ClusterId, Epoch, NodeId, RegionId, Term};
pub use message_id::{MessageId, MessageIdError, MessageIdKind};
pub use purpose::{Cancel, Probe, ProbeStage, Purpose, Sending, Wait};
pub use rows::{Rows, RowsError, RowsMut, prefix_end};
pub use schedule::{Missed, Timing, When};
pub use slot::{SLOTS, Slot, SlotRange, tag};
pub use type_limits::{LimitFacts, LimitOutOfRange, TypeLimit, TypeLimits, UnknownLimit};
