//! What nobody waits for any more is cut short: the deadline of a client's call has passed, or the client is gone.
//!
//! A turn is never killed that may have touched others. What is cut short are the calls that it waits for, from
//! the leaf on: the cancel follows the calls from region to region to the one that waits for its turn. That one
//! is refused with `CALL_CANCELLED`, which is recorded like any answer, so a turn that is run again gets the
//! same. Its caller's handler hears it and decides; then so does that one's caller, and so on up the chain. What
//! has been committed on the way stays.
//!
//! A cancel that is lost, or that comes before its call does, is sent again with the next look, as long as the
//! same calls are waited for. A recorded turn that a new leader runs again is left alone until somebody has
//! called it there: its caller may come back under the same id.

use super::{
    admission::Admission,
    leading::{AgentState, Message, Pending, PendingTurn, Running},
    owner::Owner,
};
use crate::executor::calls::{WaitingCall, cancel_call};
use afdg_region_machine::{op::CommitTurn, table::replies::TurnReply};
use afdg_types::{AgentRef, Cancel, GridError, MessageId, MessageIdKind, Reason};
use std::sync::Arc;
use tokio::time::Instant;

/// Cancels that one look sends at most; the next look sends the others.
const CANCELS_MAX: usize = 256;

impl Owner {
    /// Cuts short what turns of clients' calls wait for that nobody waits for any more.
    pub(super) fn look_for_abandoned(&mut self) {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.ready) else { return };
        let now = Instant::now();
        let (agents, waiters) = (&mut leading.agents, &mut leading.waiters);
        let running = agents.values_mut().filter_map(|state| state.running.as_mut());
        let abandoned = running.filter(|running| {
            let is_call = running.recorded && is_clients_call(&running.message);
            let waiters = waiters.get_mut(&running.message.message_id).filter(|_| is_call);
            waiters.is_some_and(|waiters| waiters.are_gone(now))
        });
        let mut cancels: Vec<WaitingCall> = abandoned.flat_map(Running::cut).collect();
        if cancels.len() > CANCELS_MAX {
            // Each look begins where the one before ended.
            leading.cancels_sent = leading.cancels_sent.wrapping_add(CANCELS_MAX);
            let from = leading.cancels_sent % cancels.len();
            cancels.rotate_left(from);
            cancels.truncate(CANCELS_MAX);
        }
        self.pass_on(cancels);
    }

    /// Somebody does not wait any more.
    pub(super) fn cancel(&mut self, admission: Admission, cancel: Cancel) {
        let Admission { agent, message_id, reply_to, .. } = admission;
        reply_to.accepted();
        match cancel {
            Cancel::Turn if message_id.kind() == MessageIdKind::Derived => {
                let text = "nobody waits for this call any more: the deadline for it has passed, or whoever made \
                            the first call of the chain is gone. It has had no effect";
                if !self.refuse_waiting(&agent, message_id, Reason::CallCancelled, text.to_owned()) {
                    self.cut_turn(&agent, message_id);
                }
            }
            // A client's call is its callers' own.
            Cancel::Turn => {}
            Cancel::Caller(caller) => self.caller_has_gone(&agent, message_id, caller),
        }
    }

    fn caller_has_gone(&mut self, agent: &AgentRef, message_id: MessageId, caller: u64) {
        let Some(leading) = self.leading.as_mut() else { return };
        let Some(waiters) = leading.waiters.get_mut(&message_id) else { return };
        waiters.replies.retain(|waiter| waiter.caller != caller);
        if !waiters.are_gone(Instant::now()) {
            return;
        }
        let Some(state) = leading.agents.get_mut(agent) else { return };
        let Some(message) = state.take_waiting(message_id) else { return self.cut_turn(agent, message_id) };
        // It never ran, and a repeat of it may: nothing is recorded.
        leading.load.count_out(agent.agent_type(), message.bytes);
        let error = GridError::new(Reason::DeadlineExceeded, "its caller went before the message got a turn");
        leading.answer(message_id, &Err(error.into()));
        self.run_next(agent);
    }

    /// Cuts short what the turn of that call waits for, if it runs here.
    fn cut_turn(&mut self, agent: &AgentRef, message_id: MessageId) {
        let Some(leading) = self.leading.as_mut() else { return };
        let running = leading.agents.get_mut(agent).and_then(|state| state.running.as_mut());
        let is_it = |running: &&mut Running| {
            running.message.message_id == message_id && running.message.send.is_none()
        };
        let cancels = running.filter(is_it).map(Running::cut);
        self.pass_on(cancels.unwrap_or_default());
    }

    fn pass_on(&self, cancels: Vec<WaitingCall>) {
        for WaitingCall { id, callee, .. } in cancels {
            let router = Arc::clone(&self.here.router);
            tokio::spawn(async move { cancel_call(&router, callee, id).await });
        }
    }

    /// Refuses a call that waits for its turn: it gets none, and whoever asks under its id hears the same. False
    /// if it does not wait here.
    pub(super) fn refuse_waiting(
        &mut self,
        agent: &AgentRef,
        call: MessageId,
        reason: Reason,
        text: String,
    ) -> bool {
        let expires_at_s = self.kept_until_s(call);
        let Some(leading) = self.leading.as_mut() else { return false };
        let Some(state) = leading.agents.get_mut(agent) else { return false };
        let Some(message) = state.take_waiting(call) else { return false };
        state.uncommitted += 1;
        let bytes = text.len() + 1_024;
        let effects = CommitTurn {
            agent: agent.clone(),
            message_id: call,
            digest: message.digest,
            expires_at_s,
            changes: Vec::new(),
            reply: TurnReply::Failed { reason, message: text },
            recorded: false,
        };
        // No turn has this number: what others of the agent have written is not taken for committed with it.
        let number = 0;
        let turn = PendingTurn {
            number,
            effects,
            accepted: false,
            sends: Vec::new(),
            schedules: Vec::new(),
            bytes,
            message_bytes: message.bytes,
            ended: Instant::now(),
        };
        leading.wait_for_entry(Pending::Turn(turn));
        true
    }
}

/// Whether a client made it and waits for its answer.
fn is_clients_call(message: &Message) -> bool {
    message.send.is_none() && message.chain.is_empty()
}

impl AgentState {
    /// Takes a call out of the queue, or out of those that are about to enter.
    fn take_waiting(&mut self, id: MessageId) -> Option<Message> {
        if let Some(entering) = &mut self.entering
            && let Some(place) = entering.waiting.iter().position(|message| message.message_id == id)
        {
            return entering.waiting.remove(place);
        }
        let place =
            self.queue.iter().position(|message| message.message_id == id && message.send.is_none())?;
        self.queue.remove(place)
    }
}

impl Running {
    /// The calls that are cut short, as far as they are waited for: those that are when this is first asked
    /// while there are any.
    fn cut(&mut self) -> Vec<WaitingCall> {
        let mut waiting = self.calls.waiting();
        if self.cut.is_empty() {
            self.cut = waiting.iter().map(|call| call.id).collect();
        }
        waiting.retain(|call| self.cut.contains(&call.id));
        waiting
    }
}
