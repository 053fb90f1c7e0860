//! Which step of a message an operation is, for fail points.

use super::leading::{Pending, PendingTurn};
use crate::fail_points::{FailPoints, Moment, Step};
use afdg_region_machine::{
    OpOutcome,
    op::{LetterVerdict, Next},
};
use afdg_types::AgentRef;

/// The process ends here if the operation's step is a fail point that is armed.
pub(super) fn reach(fail_points: FailPoints, moment: Moment, op: &Pending) {
    if let Some((step, agent)) = step_of(op) {
        fail_points.reach(moment, step, agent);
    }
}

/// The step that an operation is, and whose: of a turn the first that fits. Housekeeping is none.
fn step_of(op: &Pending) -> Option<(Step, &AgentRef)> {
    Some(match op {
        Pending::Turn(turn) => {
            let PendingTurn { effects, accepted, sends, schedules, .. } = turn;
            let step = if effects.recorded {
                Step::RecordedTurn
            } else if !schedules.is_empty() {
                Step::SchedulingTurn
            } else if !sends.is_empty() {
                Step::SendingTurn
            } else if *accepted {
                Step::InboxTurn
            } else {
                Step::Turn
            };
            (step, &effects.agent)
        }
        Pending::Record { agent, .. } => (Step::RecordTurn, agent),
        Pending::Accept { agent, send } if send.due_ms > send.accepted_ms => (Step::AcceptHeld, agent),
        Pending::Accept { agent, .. } => (Step::Accept, agent),
        Pending::Fail { op, .. } => match op.next {
            Next::TryAgain { .. } => (Step::FailAttempt, &op.agent),
            Next::GiveUp { .. } => (Step::GiveUp, &op.agent),
        },
        Pending::Settle { op, .. } => match op.given_up {
            Some(_) => (Step::GiveUpDelivery, &op.sender),
            None => (Step::SettleSends, &op.sender),
        },
        Pending::SettleLetter { op, .. } => match op.verdict {
            LetterVerdict::TryAgain => (Step::RetryDeadLetter, &op.agent),
            LetterVerdict::Drop => (Step::DropDeadLetter, &op.agent),
        },
        Pending::Fire { op, .. } => (Step::FireSchedule, &op.agent),
        Pending::CancelSchedule { op, .. } => (Step::CancelSchedule, &op.agent),
        Pending::KeepId(_) | Pending::ForgetIds(_) | Pending::CollectGarbage => return None,
    })
}

/// Whether the operation did what it was for.
pub(super) fn is_done(outcome: &OpOutcome) -> bool {
    match outcome {
        OpOutcome::Duplicate { .. }
        | OpOutcome::RefusedBase
        | OpOutcome::RefusedOccupied
        | OpOutcome::RefusedGone
        | OpOutcome::NotFired => false,
        OpOutcome::Committed
        | OpOutcome::Recorded
        | OpOutcome::CommittedSends { .. }
        | OpOutcome::Accepted
        | OpOutcome::AcceptedAgain { .. }
        | OpOutcome::SentAgain { .. }
        | OpOutcome::LetterIsOver { .. }
        | OpOutcome::Fired { .. }
        | OpOutcome::Cancelled { .. }
        | OpOutcome::Done { .. } => true,
    }
}
