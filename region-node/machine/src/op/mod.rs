//! What an entry can ask for, one file each.

mod collect_garbage;
mod commit_turn;
mod forget_ids;
mod keep_id;
mod record_turn;

pub use collect_garbage::{CollectGarbage, GARBAGE_ROWS_PER_OP};
pub use commit_turn::{CommitTurn, RowChange};
pub use forget_ids::{FORGET_IDS_PER_OP, ForgetIds};
pub use keep_id::KeepId;
pub use record_turn::RecordTurn;

use crate::table::replies::TurnReply;
use serde::{Deserialize, Serialize};

/// One operation. The order of the variants is part of the stored form: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    CommitTurn(CommitTurn),
    RecordTurn(RecordTurn),
    KeepId(KeepId),
    ForgetIds(ForgetIds),
    CollectGarbage(CollectGarbage),
}

/// What one operation did. Outcomes stand in the order of the operations.
#[derive(Clone, Debug, PartialEq)]
pub enum OpOutcome {
    /// The turn's effects stand.
    Committed,
    /// The id had taken effect before: nothing changed, and this is the answer it got then.
    Duplicate { digest: u128, reply: TurnReply },
    /// An earlier turn of this agent was refused in this term, so this one ran on state that never was.
    RefusedBase,
    /// The turn stands in the mailbox: its calls may leave.
    Recorded,
    /// Another turn of the agent stands in the mailbox: an agent has one.
    RefusedOccupied,
    /// Housekeeping is done; `more` says whether to go on.
    Done { more: bool },
}
