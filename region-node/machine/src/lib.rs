//! The state machine of a region: pure, synchronous, total.
//!
//! One [`Command`] is one replicated entry: the term it was proposed in and a list of operations, in
//! order. [`RegionMachine::apply`] is the only function that changes a region's rows. An entry that was
//! proposed in another term than the one it was committed in, or that does not follow its proposer's last
//! one, holds turns that were run on state that this log may not hold: it is fenced off as a whole.
//!
//! | table | file | holds |
//! | --- | --- | --- |
//! | fence | [`table::fence`] | term and number of the last entry that was let in |
//! | numbers | [`table::numbers`] | the number that the next message gets that waits |
//! | entities | [`table::entities`] | the rows of agents' entities, opaque here |
//! | mailbox | [`table::mailbox`] | turns that may have touched others and must be finished |
//! | inbox | [`table::inbox`] | accepted sends that wait for their turn, and where each id stands |
//! | outbox | [`table::outbox`] | sends of committed turns on their way to other agents |
//! | dead letters | [`table::dead_letters`] | sends that were given up |
//! | schedules | [`table::schedules`] | what agents are sent at set times, and how far each schedule is |
//! | replies | [`table::replies`] | ids already answered, with the answer, and when each may be forgotten |
//! | garbage | [`table::garbage`] | prefixes of entity rows that nobody reads any more |
//! | refusals | [`table::refusals`] | agents whose turn was refused in this term |
//!
//! Left out on purpose: who leads, who waits, what is cached. That is the owner task's business.

mod command;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod decoders;
mod machine;
pub mod op;
pub mod table;
mod validate;

pub use command::{Command, CommandError};
pub use machine::{Outcome, RegionMachine};
pub use op::{Op, OpOutcome};
pub use validate::{Violation, validate};
