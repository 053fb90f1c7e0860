//! Propose: what waits becomes one entry. Never a timer: while as much is under way as may be, effects gather,
//! and the next entry takes as many of them as may be.

use super::{
    admit::result_of,
    leading::{Acceptance, Leading, Pending, PendingTurn, Waiters},
    owner::Owner,
    steps,
};
use crate::fail_points::Moment;
use afdg_region_machine::{
    Command, Outcome,
    op::{AcceptSend, CollectGarbage, CommitMessaging, CommitScheduling, Op, RecordChainedTurn, RecordTurn},
};
use afdg_replication::WriteError;
use afdg_runtime::in_order;
use afdg_types::{
    AgentRef, FairQueue, MessageId, limits,
    planted::{Bug, planted},
};
use futures::future::BoxFuture;
use std::collections::HashMap;

/// An entry under way; ends with its outcome and the operations that it holds.
pub type Proposed = BoxFuture<'static, (Result<Outcome, WriteError>, Vec<Pending>)>;

impl Owner {
    pub(super) fn propose(&mut self) {
        loop {
            let Some(leading) = self.leading.as_mut() else { return };
            if leading.pending.is_empty() || !leading.ready || !leading.may_propose() {
                return;
            }
            let room = leading.window.room();
            if room == 0 {
                return leading.window.note_full();
            }
            let ops = take_for_entry(&mut leading.pending, &mut leading.waiters, room);
            if ops.is_empty() {
                return;
            }
            leading.window.proposed(ops.len());
            if self.here.fail_points.any() {
                ops.iter().for_each(|op| steps::reach(self.here.fail_points, Moment::Before, op));
            }
            let command = Command {
                term: leading.term,
                sequence: leading.next_sequence,
                ops: ops.iter().map(op_of).collect(),
            };
            let encoded = match command.encode() {
                Ok(encoded) => encoded,
                // Can't happen for what this crate builds; if it does, nothing was done.
                Err(error) => {
                    tracing::error!(%error, "an entry could not be encoded");
                    return self.start_over("an entry could not be encoded");
                }
            };
            if planted(Bug::ReplyBeforeCommit) {
                answer_early(leading, &ops);
            }
            leading.next_sequence += 1;
            let (replica, term) = (self.replica.clone(), leading.term);
            let written = async move { (replica.write_in_term(term, encoded).await, ops) };
            leading.proposed.push_back(Box::pin(in_order(written)));
        }
    }
}

fn answer_early(leading: &mut Leading, ops: &[Pending]) {
    for op in ops {
        if let Pending::Turn(PendingTurn { effects, .. }) = op {
            leading.answer(effects.message_id, &result_of(effects.reply.clone()));
        }
    }
}

impl Leading {
    /// Whether another entry may be under way.
    pub(super) fn may_propose(&self) -> bool {
        self.proposed.len() < limits::REGION_ENTRIES_IN_FLIGHT_MAX
    }

    /// Has the operation go into one of the next entries. Those of one agent type go in this order; types take
    /// turns.
    pub(super) fn wait_for_entry(&mut self, op: Pending) {
        self.pending.push(op);
    }
}

impl Pending {
    /// Those that wait for an entry, none yet.
    pub(super) fn queue() -> FairQueue<Self> {
        FairQueue::new(|op| op.agent().map_or("", AgentRef::agent_type), bytes_of)
    }

    /// Whose rows it changes; none for what is the region's own.
    fn agent(&self) -> Option<&AgentRef> {
        match self {
            Self::Turn(turn) => Some(&turn.effects.agent),
            Self::Accept { agent, .. } | Self::Record { agent, .. } => Some(agent),
            Self::Fail { op, .. } => Some(&op.agent),
            Self::Settle { op, .. } => Some(&op.sender),
            Self::SettleLetter { op, .. } => Some(&op.agent),
            Self::Fire { op, .. } => Some(&op.agent),
            Self::CancelSchedule { op, .. } => Some(&op.agent),
            Self::KeepId(_) | Self::ForgetIds(_) | Self::CollectGarbage => None,
        }
    }
}

/// What waits, as much as has `room` in one entry: the last operation taken may pass the target of bytes, and an
/// entry still fits a frame.
fn take_for_entry(
    pending: &mut FairQueue<Pending>,
    waiters: &mut HashMap<MessageId, Waiters>,
    room: usize,
) -> Vec<Pending> {
    let mut bytes = 0;
    let mut ops = Vec::new();
    while ops.len() < room && bytes < limits::ENTRY_BYTES_TARGET {
        let Some(op) = pending.pop() else { break };
        if let Pending::Accept { send, .. } = &op
            && let Some(waiters) = waiters.get_mut(&send.message_id)
        {
            // Its turn has ended already: the effects stand further back among these operations.
            if waiters.acceptance == Acceptance::Superseded {
                continue;
            }
            waiters.acceptance = Acceptance::Proposed;
        }
        bytes += bytes_of(&op);
        ops.push(op);
    }
    ops
}

/// What it adds to an entry, more or less.
fn bytes_of(op: &Pending) -> usize {
    match op {
        Pending::Turn(turn) => turn.bytes,
        Pending::Accept { agent, send } => {
            let sender = send.sender.as_ref().map_or(0, |sender| sender.as_str().len());
            64 + agent.as_str().len() + send.method.len() + send.request.len() + sender
        }
        Pending::Fail { op, .. } => 1_024 + op.agent.as_str().len() + op.failure.bytes(),
        Pending::Settle { op, .. } => {
            let failure = op.given_up.as_ref().map_or(0, |given_up| given_up.failure.bytes());
            1_024 + op.accepted.len() * 10 + failure
        }
        Pending::SettleLetter { .. } | Pending::CancelSchedule { .. } => 1_024,
        // What it puts into rows, of which the operation itself has little.
        Pending::Fire { op, schedule } => {
            256 + op.agent.as_str().len() + op.firings.len() * (128 + schedule.request.len())
        }
        Pending::Record { agent, turn, .. } => {
            let chain = turn.chain.iter().map(|waiting| waiting.as_str().len());
            let chain = chain.sum::<usize>() + turn.reentries.len() * size_of::<MessageId>();
            agent.as_str().len() + turn.method.len() + turn.request.len() + chain
        }
        Pending::KeepId(_) | Pending::ForgetIds(_) | Pending::CollectGarbage => 64,
    }
}

fn op_of(pending: &Pending) -> Op {
    match pending {
        Pending::Turn(PendingTurn { effects, accepted: false, sends, schedules, .. })
            if sends.is_empty() && schedules.is_empty() =>
        {
            Op::CommitTurn(effects.clone())
        }
        Pending::Turn(PendingTurn { effects, accepted, sends, schedules, .. }) => {
            let (turn, sends, changes) = (effects.clone(), sends.clone(), schedules.clone());
            let messaging = CommitMessaging { turn, accepted: *accepted, sends };
            match changes.is_empty() {
                true => Op::CommitMessaging(messaging),
                false => Op::CommitScheduling(CommitScheduling { messaging, changes }),
            }
        }
        Pending::Fire { op, .. } => Op::FireSchedule(op.clone()),
        Pending::CancelSchedule { op, .. } => Op::CancelSchedule(op.clone()),
        Pending::Accept { agent, send } => {
            Op::AcceptSend(AcceptSend { agent: agent.clone(), send: send.clone() })
        }
        Pending::Fail { op, .. } => Op::FailAttempt(op.clone()),
        Pending::Settle { op, .. } => Op::SettleSends(op.clone()),
        Pending::SettleLetter { op, .. } => Op::SettleDeadLetter(op.clone()),
        Pending::Record { agent, turn, .. } => {
            let record = RecordTurn { agent: agent.clone(), turn: turn.clone() };
            match turn.reentries.is_empty() {
                true => Op::RecordTurn(record),
                false => {
                    Op::RecordChainedTurn(RecordChainedTurn { record, reentries: turn.reentries.clone() })
                }
            }
        }
        Pending::KeepId(op) => Op::KeepId(op.clone()),
        Pending::ForgetIds(op) => Op::ForgetIds(op.clone()),
        Pending::CollectGarbage => Op::CollectGarbage(CollectGarbage {}),
    }
}
