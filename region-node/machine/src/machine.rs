//! The one function that changes a region's rows.

use crate::{
    command::{Command, CommandError},
    op::{Op, OpOutcome},
    table::{
        fence::{self, Fence},
        numbers::Numbers,
        refusals,
    },
};
use afdg_types::{
    Rows, RowsError, RowsMut,
    planted::{Bug, planted},
};

/// What is kept besides the rows: derived from them, read again by [`RegionMachine::restore`].
#[derive(Debug, Default)]
pub struct RegionMachine {
    fence: Fence,
    /// Whether the table of refusals holds anything.
    any_refused: bool,
    numbers: Numbers,
}

/// What one entry did.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Applied(Vec<OpOutcome>),
    /// The entry was proposed in another term than it was committed in, or does not follow its
    /// proposer's last one: nothing of it was done.
    Fenced {
        term: u64,
        sequence: u64,
        committed_in: u64,
        expected_sequence: u64,
    },
    /// The entry was written by a newer server, or is damaged: nothing of it was done. The same on every
    /// replica that runs this version; a region must not be upgraded past its oldest replica.
    Unreadable(CommandError),
}

impl RegionMachine {
    /// Reads what is derived from the rows.
    pub fn restore(&mut self, rows: &dyn Rows) -> Result<(), RowsError> {
        *self = Self {
            fence: fence::get(rows)?,
            any_refused: refusals::any(rows)?,
            numbers: Numbers::restore(rows)?,
        };
        Ok(())
    }

    /// Applies the entry that was committed in `term`. Errors only if rows can't be read.
    pub fn apply(&mut self, term: u64, command: &[u8], rows: &mut dyn RowsMut) -> Result<Outcome, RowsError> {
        let command = match Command::decode(command) {
            Ok(command) => command,
            Err(error) => return Ok(Outcome::Unreadable(error)),
        };
        let expected_sequence = self.fence.next_in(term);
        let fenced = command.term != term || !self.fence.lets_in(term, command.sequence);
        if fenced && !planted(Bug::ApplyWithoutFence) {
            let Command { term: proposed_in, sequence, .. } = command;
            return Ok(Outcome::Fenced {
                term: proposed_in,
                sequence,
                committed_in: term,
                expected_sequence,
            });
        }
        // A new leadership has read the rows as they are: what it runs is based on nothing refused.
        if self.any_refused && (term != self.fence.term || Fence::begins(command.sequence)) {
            refusals::forget_all(rows)?;
            self.any_refused = false;
        }
        self.fence = Fence { term, sequence: command.sequence };
        fence::put(rows, self.fence)?;
        let outcomes: Result<Vec<_>, _> = command.ops.iter().map(|op| self.apply_op(op, rows)).collect();
        Ok(Outcome::Applied(outcomes?))
    }

    fn apply_op(&mut self, op: &Op, rows: &mut dyn RowsMut) -> Result<OpOutcome, RowsError> {
        let (term, any_refused) = (self.fence.term, self.any_refused);
        let numbers = &mut self.numbers;
        let outcome = match op {
            Op::CommitTurn(op) => op.apply(term, any_refused, rows)?,
            Op::RecordTurn(op) => op.apply(term, any_refused, rows)?,
            Op::RecordChainedTurn(op) => op.apply(term, any_refused, rows)?,
            Op::KeepId(op) => op.apply(rows)?,
            Op::ForgetIds(op) => op.apply(rows)?,
            Op::CollectGarbage(op) => op.apply(rows)?,
            Op::AcceptSend(op) => op.apply(numbers, rows)?,
            Op::CommitMessaging(op) => op.apply(term, any_refused, numbers, rows)?,
            Op::FailAttempt(op) => op.apply(term, any_refused, numbers, rows)?,
            Op::SettleSends(op) => op.apply(numbers, rows)?,
            Op::SettleDeadLetter(op) => op.apply(numbers, rows)?,
            Op::CommitScheduling(op) => op.apply(term, any_refused, numbers, rows)?,
            Op::FireSchedule(op) => op.apply(numbers, rows)?,
            Op::CancelSchedule(op) => op.apply(rows)?,
        };
        match outcome {
            OpOutcome::Duplicate { .. } | OpOutcome::RefusedOccupied => self.any_refused = true,
            OpOutcome::Committed
            | OpOutcome::RefusedBase
            | OpOutcome::RefusedGone
            | OpOutcome::Recorded
            | OpOutcome::CommittedSends { .. }
            | OpOutcome::Accepted
            | OpOutcome::AcceptedAgain { .. }
            | OpOutcome::SentAgain { .. }
            | OpOutcome::LetterIsOver { .. }
            | OpOutcome::Fired { .. }
            | OpOutcome::NotFired
            | OpOutcome::Cancelled { .. }
            | OpOutcome::Done { .. } => {}
        }
        Ok(outcome)
    }
}
