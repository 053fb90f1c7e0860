//! Propose: what waits becomes one entry. Never a timer: while as many entries are under way as may be,
//! effects gather, and the next entry takes them all.

use super::{
    admit::result_of,
    leading::{Leading, Pending},
    owner::Owner,
};
use afdg_region_machine::{
    Command, Outcome,
    op::{CollectGarbage, Op, RecordTurn},
};
use afdg_replication::WriteError;
use afdg_types::{
    limits,
    planted::{Bug, planted},
};
use futures::future::BoxFuture;
use std::collections::VecDeque;

/// An entry under way; ends with its outcome and the operations that it holds.
pub type Proposed = BoxFuture<'static, (Result<Outcome, WriteError>, Vec<Pending>)>;

impl Owner {
    pub(super) fn propose(&mut self) {
        loop {
            let Some(leading) = self.leading.as_mut() else { return };
            if leading.pending.is_empty()
                || !leading.ready
                || leading.proposed.len() >= limits::REGION_ENTRIES_IN_FLIGHT_MAX
            {
                return;
            }
            let ops = take_for_entry(&mut leading.pending);
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
            leading
                .proposed
                .push_back(Box::pin(async move { (replica.write_in_term(term, encoded).await, ops) }));
        }
    }
}

fn answer_early(leading: &mut Leading, ops: &[Pending]) {
    for op in ops {
        if let Pending::Turn { effects, .. } = op {
            leading.answer(effects.message_id, &result_of(effects.reply.clone()));
        }
    }
}

/// What waits, as much as goes into one entry: the last operation taken may pass the target, and an entry
/// still fits a frame.
fn take_for_entry(pending: &mut VecDeque<Pending>) -> Vec<Pending> {
    let mut bytes = 0;
    let mut ops = Vec::new();
    while ops.len() < limits::ENTRY_TURNS_MAX && bytes < limits::ENTRY_BYTES_TARGET {
        let Some(op) = pending.pop_front() else { break };
        bytes += match &op {
            Pending::Turn { bytes, .. } => *bytes,
            Pending::Record { agent, turn, .. } => {
                let chain = turn.chain.iter().map(|waiting| waiting.as_str().len());
                agent.as_str().len() + turn.method.len() + turn.request.len() + chain.sum::<usize>()
            }
            Pending::KeepId(_) | Pending::ForgetIds(_) | Pending::CollectGarbage => 64,
        };
        ops.push(op);
    }
    ops
}

fn op_of(pending: &Pending) -> Op {
    match pending {
        Pending::Turn { effects, .. } => Op::CommitTurn(effects.clone()),
        Pending::Record { agent, turn, .. } => {
            Op::RecordTurn(RecordTurn { agent: agent.clone(), turn: turn.clone() })
        }
        Pending::KeepId(op) => Op::KeepId(op.clone()),
        Pending::ForgetIds(op) => Op::ForgetIds(op.clone()),
        Pending::CollectGarbage => Op::CollectGarbage(CollectGarbage {}),
    }
}
