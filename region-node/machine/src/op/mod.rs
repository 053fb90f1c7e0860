//! What an entry can ask for, one file each.

mod accept_send;
mod cancel_schedule;
mod collect_garbage;
mod commit_messaging;
mod commit_scheduling;
mod commit_turn;
mod fail_attempt;
mod fire_schedule;
mod forget_ids;
mod keep_id;
mod record_turn;
mod settle_dead_letter;
mod settle_sends;

pub use accept_send::AcceptSend;
pub use cancel_schedule::CancelSchedule;
pub use collect_garbage::{CollectGarbage, GARBAGE_ROWS_PER_OP};
pub use commit_messaging::CommitMessaging;
pub use commit_scheduling::{CommitScheduling, NewSchedule, ScheduleChange};
pub use commit_turn::{CommitTurn, RowChange};
pub use fail_attempt::{FailAttempt, Next};
pub use fire_schedule::{FireSchedule, Placed};
pub use forget_ids::{FORGET_IDS_PER_OP, ForgetIds};
pub use keep_id::KeepId;
pub use record_turn::{RecordChainedTurn, RecordTurn};
pub use settle_dead_letter::{LetterVerdict, SettleDeadLetter};
pub use settle_sends::{GivenUp, SettleSends};

use crate::table::{inbox::AcceptedSend, replies::TurnReply};
use afdg_types::{AgentRef, MessageId};
use serde::{Deserialize, Serialize};

/// One operation. The order of the variants is part of the stored form: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    CommitTurn(CommitTurn),
    RecordTurn(RecordTurn),
    KeepId(KeepId),
    ForgetIds(ForgetIds),
    CollectGarbage(CollectGarbage),
    AcceptSend(AcceptSend),
    CommitMessaging(CommitMessaging),
    FailAttempt(FailAttempt),
    SettleSends(SettleSends),
    SettleDeadLetter(SettleDeadLetter),
    CommitScheduling(CommitScheduling),
    FireSchedule(FireSchedule),
    CancelSchedule(CancelSchedule),
    RecordChainedTurn(RecordChainedTurn),
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
    /// The send whose attempt failed does not stand in the inbox.
    RefusedGone,
    /// The turn's effects stand, and so do its sends: they have numbers in a row, of which this is the first.
    CommittedSends { first: u64 },
    /// The send stands in the inbox, or has had its turn.
    Accepted,
    /// A dead letter stands in the inbox again.
    AcceptedAgain { send: Box<AcceptedSend> },
    /// A dead letter stands in the outbox again.
    SentAgain { to: AgentRef, number: u64, bytes: usize },
    /// The dead letter is gone and is not tried again: its message stands in the inbox, or has taken effect.
    LetterIsOver { message_id: MessageId },
    /// The schedule's messages are on their way, and it stands at its next due time.
    Fired { placed: Vec<Placed> },
    /// The schedule is not the one that was meant, or is not at that due time: nothing was sent.
    NotFired,
    /// The schedule that was meant is gone; whether it was there before.
    Cancelled { was_there: bool },
    /// Nothing more is to be done for it; of housekeeping `more` says whether to go on.
    Done { more: bool },
}
