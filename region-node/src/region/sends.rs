//! Sends on their receiver's side: accepted into the inbox, run like other messages, tried again when their
//! turn fails, given up in the end.
//!
//! An agent's send is proposed to the inbox at once, and its turn may start at the same moment. A client's goes
//! there only if its turn has not ended soon: else the turn's effects go in place of the message. The client hears no
//! less than that it stands, and its send costs what a call costs.
//!
//! Messages of one sender to one agent take effect in order. Behind one that failed the sender's later ones
//! are held, nobody else's.

use super::{
    admission::Admission,
    admit::result_of,
    held::Amount,
    leading::{Acceptance, Leading, Message, Pending, Running, SendState, Waiters},
    owner::{Owner, overloaded},
};
use afdg_agent::host::SendRetry;
use afdg_region_machine::{
    OpOutcome,
    op::{FailAttempt, LetterVerdict, Next, SettleDeadLetter},
    table::{
        dead_letters::{self, Side},
        inbox::AcceptedSend,
        mailbox::RecordedTurn,
        replies::{self, TurnReply},
    },
};
use afdg_types::{
    AgentRef, GridError, MessageId, Purpose, Reason, RowsError, Sending, limits,
    planted::{Bug, planted},
};
use std::{collections::HashMap, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// How long a client's message waits for its turn to end before it goes into the inbox by itself: about as long as
/// an entry takes. In a loaded grid nearly all turns that wait for nothing end before.
const QUICK_TURN_MAX: Duration = Duration::from_millis(2);

impl Owner {
    /// Takes in a send of a new id.
    pub(super) fn accept(&mut self, admission: Admission, digest: u128) {
        let Admission { agent, method, message_id, request, reply_to, purpose, .. } = admission;
        let Purpose::Send(sending) = purpose else { return };
        if let Some(after) = sending.after.filter(|_| !planted(Bug::AcceptOutOfOrder)) {
            match self.is_known(after) {
                Ok(true) => {}
                Ok(false) => {
                    let text =
                        format!("the message {after}, which was sent before this one, is not known here");
                    return reply_to.refuse(GridError::new(Reason::OutOfOrder, text));
                }
                Err(error) => {
                    reply_to.refuse(GridError::new(Reason::OutcomeUnknown, "this node's storage failed"));
                    return self.storage_failed(&error.to_string());
                }
            }
        }
        let now_ms = self.here.world.clock.now_ms();
        let Some(leading) = self.leading.as_mut() else { return };
        let held_back = sending.due_ms > now_ms;
        let bytes = request.len();
        if !held_back && let Some(full) = leading.mailbox_full(&agent, bytes, 0) {
            return reply_to.refuse(full);
        }
        if !held_back && leading.parked.contains(&agent) {
            return reply_to.refuse(overloaded("as many messages wait for the agent as may"));
        }
        if !held_back && leading.is_held_full(&agent, &sending) {
            return reply_to.refuse(overloaded("as many of the sender's messages wait for the agent as may"));
        }
        if !leading.inbox.has_room(agent.agent_type(), Amount::of(1, bytes)) {
            let text = format!("as many sends to agents of {} wait in the region as may", agent.agent_type());
            return reply_to.refuse(overloaded(&text));
        }
        let may_await = !held_back && sending.sender.is_none();
        let acceptance = if may_await { Acceptance::Awaited } else { Acceptance::Pending };
        leading.enter_inbox(&agent, message_id, digest, bytes, acceptance);
        if planted(Bug::AcceptBeforeCommit) {
            reply_to.accepted();
        } else if let Some(waiters) = leading.waiters.get_mut(&message_id) {
            waiters.senders.push(reply_to);
        }
        let send = AcceptedSend {
            message_id,
            method,
            request,
            digest,
            sender: sending.sender,
            accepted_ms: now_ms,
            due_ms: sending.due_ms,
            attempts: 0,
            refusals: 0,
            last_failure: None,
        };
        if held_back {
            return leading.accept_next(agent, send);
        }
        if may_await {
            leading.await_turn(Instant::now(), agent.clone(), send.clone());
        } else {
            leading.accept_next(agent.clone(), send.clone());
        }
        self.enqueue(agent, message_of(send));
    }

    /// Whether the message was accepted here, is under way, or has had its turn.
    fn is_known(&self, id: MessageId) -> Result<bool, RowsError> {
        if self.leading.as_ref().is_some_and(|leading| leading.knows(id)) {
            return Ok(true);
        }
        Ok(replies::get(self.replica.rows().as_ref(), id)?.is_some())
    }

    /// A send stands in the inbox.
    pub(super) fn send_accepted(&mut self, send: &AcceptedSend) {
        let Some(leading) = self.leading.as_mut() else { return };
        leading.stands(send.message_id);
        // What was not held back is in its agent's queue, or past it.
        if send.due_ms > send.accepted_ms {
            leading.is_due_at(send.due_ms, send.message_id);
        }
    }

    /// A send's failed attempt is committed: it waits for the next one, or is given up.
    pub(super) fn attempt_failed(&mut self, op: FailAttempt, message_bytes: usize) {
        let Some(leading) = self.leading.as_mut() else { return };
        leading.load.count_out(op.agent.agent_type(), message_bytes);
        match op.next {
            Next::TryAgain { due_ms } => {
                leading.is_due_at(due_ms, op.message_id);
            }
            Next::GiveUp { .. } => {
                tracing::warn!(agent = %op.agent, id = %op.message_id, "a send is a dead letter");
                leading.dead_letters += 1;
                leading.leave_inbox(&op.agent, op.message_id, message_bytes);
                leading.answer(op.message_id, &result_of(op.failure));
            }
        }
        leading.committed(&op.agent);
        self.run_next(&op.agent);
    }

    /// Waits for, or gives, the answer of a message of which only the id is known.
    pub(super) fn attach(&mut self, admission: Admission) {
        let Some(admission) = self.answer_known(admission, None) else { return };
        // Only a leader can say that nobody knows it.
        let Some(leading) = self.leading.as_mut() else { return };
        leading.load.count_in(admission.agent.agent_type(), admission.request.len());
        leading.reads.push(admission);
    }

    /// The same once it is certain that this replica leads.
    pub(super) fn attach_or_refuse(&mut self, admission: Admission) {
        let Some(admission) = self.answer_known(admission, None) else { return };
        let text = format!(
            "no message of the id {} to {} is known: it was not sent, or its time is over",
            admission.message_id, admission.agent
        );
        let error = GridError::new(Reason::NotFound, text)
            .with("resource_type", "message")
            .with("resource_name", admission.message_id);
        admission.reply_to.refuse(error);
    }

    /// Proposes what a person decided about a dead letter.
    pub(super) fn settle_letter(&mut self, op: SettleDeadLetter, settled: oneshot::Sender<bool>) {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.ready) else { return };
        let letter = match dead_letters::get(self.replica.rows().as_ref(), &op.agent, op.number) {
            Ok(letter) => letter,
            Err(error) => return self.storage_failed(&error.to_string()),
        };
        let place = (op.agent.clone(), op.number);
        let is_first = letter.is_some() && !leading.letters_settling.contains(&place);
        if let Some(letter) = letter.filter(|_| is_first) {
            if (op.verdict, letter.side) == (LetterVerdict::TryAgain, Side::Receiver) {
                // Sent anew under its id, long after it was given up: the letter stays until that has ended.
                if leading.knows(letter.send.message_id) {
                    let _ = settled.send(false);
                    return;
                }
                // Until it is known to stand in the inbox its id must not be taken for a new one.
                let waiters = Waiters::of(&op.agent, letter.send.digest, Acceptance::Proposed);
                leading.waiters.insert(letter.send.message_id, waiters);
            }
            leading.letters_settling.insert(place);
        }
        leading.wait_for_entry(Pending::SettleLetter { op, settled, is_first });
    }

    /// What a person decided about a dead letter is done.
    pub(super) fn letter_settled(&mut self, op: SettleDeadLetter, is_first: bool, outcome: OpOutcome) {
        let agent = op.agent;
        let Some(leading) = self.leading.as_mut() else { return };
        if is_first {
            leading.dead_letters = leading.dead_letters.saturating_sub(1);
            leading.letters_settling.remove(&(agent.clone(), op.number));
        }
        match outcome {
            OpOutcome::AcceptedAgain { send } => {
                leading.inbox.add(agent.agent_type(), Amount::of(1, send.request.len()));
                leading.stands(send.message_id);
                leading.is_due_at(send.due_ms, send.message_id);
            }
            OpOutcome::LetterIsOver { message_id } => {
                let waiters = leading.waiters.get(&message_id);
                // Who joined meanwhile asks again, and is answered from the record.
                if waiters.is_some_and(|waiters| waiters.acceptance == Acceptance::Proposed) {
                    let error = GridError::new(Reason::OutcomeUnknown, "the dead letter was settled before");
                    leading.answer(message_id, &Err(error.into()));
                }
            }
            OpOutcome::SentAgain { to, number, bytes } => {
                self.send_lies_in_outbox((agent, to), number, bytes)
            }
            _ => {}
        }
    }

    /// A new leader's start: takes over what stands in the inbox. Those whose turn is recorded run again.
    pub(super) fn take_over_inbox(
        &mut self,
        recorded: Vec<(AgentRef, RecordedTurn)>,
        sends: Vec<(AgentRef, AcceptedSend)>,
    ) {
        let now_ms = self.here.world.clock.now_ms();
        let Some(leading) = self.leading.as_mut() else { return };
        let mut states = HashMap::new();
        for (agent, send) in &sends {
            let bytes = send.request.len();
            leading.enter_inbox(agent, send.message_id, send.digest, bytes, Acceptance::Stands);
            states.insert(send.message_id, state_of(send));
        }
        for (agent, send) in &sends {
            if send.attempts > 0
                && let Some(sender) = &send.sender
            {
                leading.agents.entry(agent.clone()).or_default().held.entry(sender.clone()).or_default();
            }
        }
        for (agent, turn) in recorded {
            let send = states.remove(&turn.message_id);
            self.run_again(agent, turn, send);
        }
        for (agent, send) in sends {
            if states.remove(&send.message_id).is_none() {
                continue;
            }
            let Some(leading) = self.leading.as_mut() else { return };
            // One that was held back and is due by now goes in the order in which they were due.
            if send.due_ms > now_ms || (send.attempts == 0 && send.due_ms > send.accepted_ms) {
                leading.is_due_at(send.due_ms, send.message_id);
            } else {
                self.is_due(agent, send);
            }
        }
    }
}

impl Leading {
    pub(super) fn enter_inbox(
        &mut self,
        agent: &AgentRef,
        id: MessageId,
        digest: u128,
        bytes: usize,
        acceptance: Acceptance,
    ) {
        self.inbox.add(agent.agent_type(), Amount::of(1, bytes));
        self.waiters.insert(id, Waiters::of(agent, digest, acceptance));
    }

    /// Has the message go into the inbox with one of the next entries.
    fn accept_next(&mut self, agent: AgentRef, send: AcceptedSend) {
        self.wait_for_entry(Pending::Accept { agent, send });
    }

    /// Has a client's message go into the inbox only if its turn has not ended soon.
    fn await_turn(&mut self, now: Instant, agent: AgentRef, send: AcceptedSend) {
        self.awaited.push_back((now + QUICK_TURN_MAX, agent, send));
    }

    /// How long until one of those messages goes into the inbox; none if none waits.
    pub(super) fn until_accepted(&self, now: Instant) -> Option<Duration> {
        self.awaited.front().map(|(until, ..)| until.saturating_duration_since(now))
    }

    /// Those of them whose turns have taken too long go into the inbox.
    pub(super) fn accept_what_runs_on(&mut self, now: Instant) {
        while self.awaited.front().is_some_and(|(until, ..)| *until <= now) {
            let Some((_, agent, send)) = self.awaited.pop_front() else { return };
            self.accept_awaited(agent, send);
        }
    }

    /// The message is needed in the inbox, whenever its turn ends.
    pub(super) fn accept_now(&mut self, id: MessageId) {
        if self.waiters.get(&id).is_none_or(|waiters| waiters.acceptance != Acceptance::Awaited) {
            return;
        }
        let place = self.awaited.iter().position(|(_, _, send)| send.message_id == id);
        let Some((_, agent, send)) = place.and_then(|place| self.awaited.remove(place)) else { return };
        self.accept_awaited(agent, send);
    }

    fn accept_awaited(&mut self, agent: AgentRef, send: AcceptedSend) {
        let waiters = self.waiters.get_mut(&send.message_id);
        if let Some(waiters) = waiters.filter(|waiters| waiters.acceptance == Acceptance::Awaited) {
            waiters.acceptance = Acceptance::Pending;
            self.accept_next(agent, send);
        }
    }

    /// The message stands in the inbox: those who wanted to know hear of it.
    fn stands(&mut self, id: MessageId) {
        let Some(waiters) = self.waiters.get_mut(&id) else { return };
        waiters.acceptance = Acceptance::Stands;
        std::mem::take(&mut waiters.senders).into_iter().for_each(super::ReplyTo::accepted);
    }

    /// Whether there is room for another dead letter.
    pub(super) fn may_give_up(&self) -> bool {
        self.dead_letters < limits::REGION_DEAD_LETTERS_MAX
    }

    /// From then on the send may have its turn.
    pub(super) fn is_due_at(&mut self, due_ms: u64, id: MessageId) {
        self.due_counted += 1;
        self.due.insert((due_ms, self.due_counted, id));
    }

    /// Whether as many of the sender's messages wait behind one that failed as may.
    pub(super) fn is_held_full(&self, agent: &AgentRef, sending: &Sending) -> bool {
        let held = sending.sender.as_ref().and_then(|sender| self.agents.get(agent)?.held.get(sender));
        held.is_some_and(|held| held.len() >= limits::AGENT_MAILBOX_MESSAGES_MAX)
    }

    /// Counts a send out whose turn is committed; before its waiters are answered.
    pub(super) fn leave_inbox(&mut self, agent: &AgentRef, id: MessageId, bytes: usize) {
        let waiters = self.waiters.get(&id);
        if waiters.is_some_and(|waiters| waiters.acceptance != Acceptance::None) {
            self.inbox.remove(agent.agent_type(), Amount::of(1, bytes));
        }
    }

    /// One of the agent's ended turns is committed.
    pub(super) fn committed(&mut self, agent: &AgentRef) {
        let Some(state) = self.agents.get_mut(agent) else { return };
        state.uncommitted = state.uncommitted.saturating_sub(1);
        if state.is_idle() {
            self.agents.remove(agent);
        }
    }

    /// Gives the message back, unless one that its sender sent before has failed and is to be tried again:
    /// then it waits behind that one.
    pub(super) fn hold_back(&mut self, agent: &AgentRef, message: Message) -> Option<Message> {
        let first =
            message.send.as_ref().is_none_or(|send| send.attempts > 0) || planted(Bug::FailedOvertaken);
        let sender = message.send.as_ref().and_then(|send| send.sender.as_ref()).filter(|_| !first);
        let state = self.agents.get_mut(agent);
        let Some(held) = sender.and_then(|sender| state?.held.get_mut(sender)) else { return Some(message) };
        let bytes = message.bytes;
        held.push_back(message);
        self.load.count_out(agent.agent_type(), bytes);
        None
    }

    /// The message has taken effect or is given up: what its sender sent after it may go on.
    pub(super) fn let_go(&mut self, agent: &AgentRef, send: Option<&SendState>) {
        let Some(SendState { sender: Some(sender), attempts: 1.., .. }) = send else { return };
        let Some(state) = self.agents.get_mut(agent) else { return };
        for held in state.held.remove(sender).unwrap_or_default().into_iter().rev() {
            self.load.count_in(agent.agent_type(), held.bytes);
            state.queue.push_front(held);
        }
    }

    /// A turn of a send failed. Its sender's later messages wait for the next attempt.
    pub(super) fn attempt_failed(
        &mut self,
        agent: &AgentRef,
        running: &Running,
        failure: TurnReply,
        retry: SendRetry,
        now_ms: u64,
        expires_at_s: u64,
    ) {
        let message = &running.message;
        let Some(send) = &message.send else { return };
        let attempts = send.attempts + 1;
        let next = next_of(attempts, retry, self.may_give_up(), now_ms, expires_at_s);
        if let Next::GiveUp { .. } = next {
            self.let_go(agent, message.send.as_ref());
        }
        self.accept_now(message.message_id);
        let Some(state) = self.agents.get_mut(agent) else { return };
        if let (Next::TryAgain { .. }, Some(sender)) = (next, &send.sender) {
            state.held.entry(sender.clone()).or_default();
        }
        state.uncommitted += 1;
        let op = FailAttempt { agent: agent.clone(), message_id: message.message_id, failure, next, now_ms };
        self.wait_for_entry(Pending::Fail { op, message_bytes: message.bytes });
    }
}

/// What comes after so many attempts. Where there is no room for another dead letter the message is tried again,
/// rather than lost.
fn next_of(attempts: u32, retry: SendRetry, has_room: bool, now_ms: u64, expires_at_s: u64) -> Next {
    match attempts >= retry.attempts_max {
        true if has_room => Next::GiveUp { expires_at_s },
        true => Next::TryAgain { due_ms: now_ms + limits::SEND_RETRY_MS_MAX },
        false => Next::TryAgain { due_ms: now_ms + retry.pause_ms(attempts) },
    }
}

fn state_of(send: &AcceptedSend) -> SendState {
    SendState { sender: send.sender.clone(), attempts: send.attempts, refusals: send.refusals }
}

pub(super) fn message_of(send: AcceptedSend) -> Message {
    Message {
        send: Some(state_of(&send)),
        message_id: send.message_id,
        method: send.method,
        bytes: send.request.len(),
        request: send.request,
        digest: send.digest,
        deadline: None,
        chain: Vec::new(),
        reentries: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::load::Load;
    use afdg_catalog_client::Routes;
    use bytes::Bytes;
    use std::sync::Arc;

    #[test]
    fn without_room_for_a_dead_letter_a_send_is_tried_again_at_the_longest_pause() {
        let retry = SendRetry::default();
        let last = retry.attempts_max;
        let again = |pause_ms| Next::TryAgain { due_ms: 1_000 + pause_ms };
        for has_room in [true, false] {
            assert_eq!(next_of(last - 1, retry, has_room, 1_000, 7), again(retry.pause_ms(last - 1)));
        }
        assert_eq!(next_of(last, retry, true, 1_000, 7), Next::GiveUp { expires_at_s: 7 });
        assert_eq!(next_of(last, retry, false, 1_000, 7), again(limits::SEND_RETRY_MS_MAX));
        assert_eq!(next_of(u32::MAX, retry, false, 1_000, 7), again(limits::SEND_RETRY_MS_MAX));
    }

    #[test]
    fn a_clients_message_goes_into_the_inbox_once_its_turn_takes_long_or_needs_it_there() {
        let mut leading = Leading::new(1, 1, Load::new(Arc::default(), &Routes::default()));
        let agent: AgentRef = "t.T/a".parse().unwrap();
        let start = Instant::now();
        let ids = [1, 2, 3, 4].map(|random| MessageId::from_router(1_000, random));
        for (place, id) in ids.into_iter().enumerate() {
            leading.enter_inbox(&agent, id, 7, 0, Acceptance::Awaited);
            leading.await_turn(start + place as u32 * QUICK_TURN_MAX / 4, agent.clone(), clients(id));
        }
        assert_eq!(leading.until_accepted(start), Some(QUICK_TURN_MAX));
        leading.accept_what_runs_on(start + QUICK_TURN_MAX / 2);
        assert_eq!(accepted(&mut leading), [], "their turns may end yet");

        leading.accept_now(ids[2]);
        leading.accept_now(ids[2]);
        assert_eq!(accepted(&mut leading), [ids[2]], "once");
        leading.waiters.get_mut(&ids[0]).unwrap().acceptance = Acceptance::Superseded;
        leading.accept_what_runs_on(start + QUICK_TURN_MAX * 3 / 2);
        assert_eq!(accepted(&mut leading), [ids[1]], "one that has ended does not go there");
        assert_eq!(leading.until_accepted(start + QUICK_TURN_MAX), Some(QUICK_TURN_MAX * 3 / 4));
        leading.accept_what_runs_on(start + 2 * QUICK_TURN_MAX);
        assert_eq!(accepted(&mut leading), [ids[3]]);
        assert_eq!(leading.until_accepted(start), None);
    }

    fn clients(message_id: MessageId) -> AcceptedSend {
        AcceptedSend {
            message_id,
            method: "Get".into(),
            request: Bytes::new(),
            digest: 7,
            sender: None,
            accepted_ms: 1_000,
            due_ms: 0,
            attempts: 0,
            refusals: 0,
            last_failure: None,
        }
    }

    /// What goes into the inbox with the next entry.
    fn accepted(leading: &mut Leading) -> Vec<MessageId> {
        let ops = std::iter::from_fn(|| leading.pending.pop());
        let id = |op| match op {
            Pending::Accept { send, .. } => send.message_id,
            _ => panic!("another operation"),
        };
        ops.map(id).collect()
    }

    #[test]
    fn a_region_has_room_for_a_bounded_number_of_dead_letters() {
        let mut leading = Leading::new(1, 1, Load::new(Arc::default(), &Routes::default()));
        leading.dead_letters = limits::REGION_DEAD_LETTERS_MAX - 1;
        assert!(leading.may_give_up());
        leading.dead_letters += 1;
        assert!(!leading.may_give_up());
    }
}
