//! Run: starts turns on the executor and takes in how they ended.
//!
//! An agent runs one turn at a time. The next may start as soon as one has ended, on effects that are
//! not committed yet: its answer waits for its own commit, which comes after theirs in the log.

use super::{
    leading::{Message, Pending, Running},
    owner::{Event, Owner, RecordTurn},
};
use crate::executor::{self, RunFailure, calls::Calls, overlay::TurnNumber, view::View};
use afdg_agent::host::{RowWrite, Turn, TurnFailure, TurnOutput};
use afdg_region_machine::{
    op::{CommitTurn, RowChange},
    table::{mailbox::RecordedTurn, replies::TurnReply},
};
use afdg_types::{AgentRef, GridError, Reason, limits};
use futures::future::Either;
use std::sync::Arc;
use tokio::{sync::oneshot, time::Instant};

/// Room for what a turn's effects carry besides its rows: the agent's name, ids, lengths.
const EFFECT_OVERHEAD_BYTES: usize = 1_024;
/// What one turn may put into an entry, whatever its host lets it: an entry must fit a frame.
const EFFECT_BYTES_MAX: usize = limits::TURN_EFFECT_BYTES_MAX + limits::MESSAGE_BYTES_MAX;
const _: () = assert!(EFFECT_BYTES_MAX + limits::ENTRY_BYTES_TARGET + 64 * 1024 < limits::FRAME_BYTES_MAX);

impl Owner {
    /// Starts the agent's next turn, if none runs.
    pub(super) fn run_next(&mut self, agent: &AgentRef) {
        loop {
            let Some(leading) = self.leading.as_mut() else { return };
            let Some(state) = leading.agents.get_mut(agent) else { return };
            if state.running.is_some() {
                return;
            }
            let Some(message) = state.queue.pop_front() else {
                if state.is_idle() {
                    leading.agents.remove(agent);
                }
                return;
            };
            if message.deadline.is_none_or(|deadline| deadline > Instant::now()) {
                let (now_ms, seed) = (self.here.world.clock.now_ms(), self.here.world.entropy.random_u64());
                self.start_turn(agent.clone(), message, now_ms, seed, false);
                return;
            }
            leading.count_out(message.bytes);
            let error = GridError::new(
                Reason::DeadlineExceeded,
                "the deadline passed while the message waited for its turn",
            );
            leading.answer(message.message_id, &Err(error.into()));
        }
    }

    /// Runs a turn from the mailbox again: with the same time and seed it takes the same way.
    pub(super) fn start_recorded(&mut self, agent: AgentRef, turn: RecordedTurn) {
        let RecordedTurn { message_id, method, request, digest, chain, now_ms, seed } = turn;
        let bytes = request.len();
        let message = Message { message_id, method, request, digest, deadline: None, chain, bytes };
        self.start_turn(agent, message, now_ms, seed, true);
    }

    fn start_turn(&mut self, agent: AgentRef, message: Message, now_ms: u64, seed: u64, recorded: bool) {
        let rows = self.agent_rows(&agent);
        let events = self.events.clone();
        let Some(leading) = self.leading.as_mut() else { return };
        let Some(state) = leading.agents.get_mut(&agent) else { return };
        let number = leading.next_turn;
        leading.next_turn += 1;
        let leadership = leading.leadership;
        let record = (!recorded).then(|| RecordTurn {
            leadership,
            agent: agent.clone(),
            number,
            events: events.clone(),
        });
        let router = Arc::clone(&self.here.router);
        let calls = Calls::new(message.message_id, message.chain.clone(), agent.clone(), router, record);
        let view = Arc::new(View::of_turn(rows, state.overlay.clone(), calls.clone()));
        let turn = Turn {
            agent: agent.clone(),
            method: message.method.clone(),
            message_id: message.message_id,
            request: message.request.clone(),
            now_ms,
            seed,
            read_only: false,
        };
        let host = Arc::clone(&self.here.host);
        let ended = agent.clone();
        let run = tokio::spawn(async move {
            let limited = || !recorded && !calls.have_left();
            let result = executor::run(host, turn, view, limited).await;
            let _ = events.send(Event::TurnEnded { leadership, agent: ended, number, result });
        });
        state.running = Some(Running { number, message, now_ms, seed, recorded, task: run.abort_handle() });
    }

    /// A turn is about to make its first call: its message goes into the mailbox first.
    pub(super) fn record(
        &mut self,
        leadership: u64,
        agent: AgentRef,
        number: TurnNumber,
        recorded: oneshot::Sender<()>,
    ) {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.leadership == leadership) else {
            return;
        };
        let Some(state) = leading.agents.get_mut(&agent) else { return };
        let Some(running) = state.running.as_mut().filter(|running| running.number == number) else { return };
        running.recorded = true;
        let message = &running.message;
        let turn = RecordedTurn {
            message_id: message.message_id,
            method: message.method.clone(),
            request: message.request.clone(),
            digest: message.digest,
            chain: message.chain.clone(),
            now_ms: running.now_ms,
            seed: running.seed,
        };
        leading.pending.push_back(Pending::Record { agent, turn, recorded });
    }

    pub(super) fn turn_ended(
        &mut self,
        leadership: u64,
        agent: &AgentRef,
        number: TurnNumber,
        result: Result<TurnOutput, RunFailure>,
    ) {
        let is_current = |leading: &&mut super::leading::Leading| leading.leadership == leadership;
        let Some(leading) = self.leading.as_mut().filter(is_current) else { return };
        let Some(state) = leading.agents.get_mut(agent) else { return };
        let Some(running) = state.running.take_if(|running| running.number == number) else { return };
        if running.recorded && lacks_code(&result) {
            // An earlier leader knew the type and may have touched others: the turn stays in the mailbox, its
            // agent waits, and the next leader that knows the type finishes it.
            tracing::error!(%agent, ?result, "a recorded turn can't be finished by this node's program");
            state.running = Some(running);
            return;
        }
        let (reply, writes) = match reply_of(result) {
            Ok(reply) => reply,
            Err(storage) => return self.storage_failed(&storage),
        };
        let (changes, bytes) = changes_of(&writes, &reply);
        let (reply, writes, changes, bytes) = if bytes > EFFECT_BYTES_MAX {
            let message = format!("the turn's effects have {bytes} bytes; at most {EFFECT_BYTES_MAX} fit");
            (
                TurnReply::Failed { reason: Reason::TurnTooLarge, message },
                Vec::new(),
                Vec::new(),
                EFFECT_OVERHEAD_BYTES,
            )
        } else {
            (reply, writes, changes, bytes)
        };
        state.overlay.write(number, &writes);
        state.uncommitted += 1;
        let message_id = running.message.message_id;
        let message_bytes = running.message.bytes;
        let digest = running.message.digest;
        let expires_at_s = self.kept_until_s(message_id);
        let recorded = running.recorded;
        let agent_ref = agent.clone();
        let effects =
            CommitTurn { agent: agent_ref, message_id, digest, expires_at_s, changes, reply, recorded };
        if let Some(leading) = self.leading.as_mut() {
            leading.pending.push_back(Pending::Turn { number, effects, bytes, message_bytes });
        }
        self.run_next(agent);
    }
}

/// The reply and the rows that a turn leaves; or why this node's storage can't be relied on.
fn reply_of(result: Result<TurnOutput, RunFailure>) -> Result<(TurnReply, Vec<RowWrite>), String> {
    match result {
        Ok(TurnOutput { reply: Ok(response), writes }) => Ok((TurnReply::Response(response), writes)),
        // A turn that refuses leaves nothing but its refusal, whatever its host returned.
        Ok(TurnOutput { reply: Err(error), .. }) => Ok((TurnReply::Refused(error), Vec::new())),
        Err(failure) => match refusal_of(failure) {
            Either::Left((reason, message)) => Ok((TurnReply::Failed { reason, message }, Vec::new())),
            Either::Right(storage) => Err(storage),
        },
    }
}

/// The grid's verdict on a turn without output; on the right, why this node's storage can't be relied on.
pub(super) fn refusal_of(failure: RunFailure) -> Either<(Reason, String), String> {
    let failure = match failure {
        RunFailure::Turn(failure) => failure,
        RunFailure::TimedOut => {
            let limit = limits::TURN_MS_MAX;
            let text = format!("the handler ran for more than {limit} ms; the turn changed nothing");
            return Either::Left((Reason::HandlerTimedOut, text));
        }
    };
    if let TurnFailure::Storage(why) = failure {
        return Either::Right(why);
    }
    let error = GridError::from(&failure);
    Either::Left((error.reason, error.message))
}

/// Whether the host could not even try, because it does not know the type or the method.
fn lacks_code(result: &Result<TurnOutput, RunFailure>) -> bool {
    matches!(result, Err(RunFailure::Turn(TurnFailure::UnknownType(_) | TurnFailure::UnknownMethod(_))))
}

fn changes_of(writes: &[RowWrite], reply: &TurnReply) -> (Vec<RowChange>, usize) {
    let mut bytes = EFFECT_OVERHEAD_BYTES;
    let changes = writes.iter().map(|write| match write {
        RowWrite::Put(key, row) => {
            let value = row.encode();
            bytes += key.len() + value.len();
            RowChange::Put { key: key.clone(), value }
        }
        RowWrite::Delete(key) => {
            bytes += key.len();
            RowChange::Delete { key: key.clone() }
        }
        RowWrite::DropPrefix(prefix) => {
            bytes += prefix.len();
            RowChange::DropPrefix { prefix: prefix.clone() }
        }
    });
    let changes = changes.collect();
    bytes += match reply {
        TurnReply::Response(response) => response.len(),
        TurnReply::Refused(error) => {
            let metadata = error.metadata.iter().map(|(key, value)| key.len() + value.len());
            error.reason.len() + error.message.len() + metadata.sum::<usize>()
        }
        TurnReply::Failed { message, .. } => message.len(),
    };
    (changes, bytes)
}
