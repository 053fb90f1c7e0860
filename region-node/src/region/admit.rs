//! Admit: am I the leader, is the slot mine, is the id known, is there room.

use super::{
    admission::Admission,
    by_id::of_other_method,
    held::Amount,
    leading::{Acceptance, Leading, Message, Pending, PendingTurn, SendState, Waiter, Waiters},
    owner::{Owner, overloaded},
    pace::Hop,
};
use crate::executor::calls;
use afdg_region_machine::{
    op::{CommitTurn, FailAttempt, KeepId, Next},
    table::{
        mailbox::RecordedTurn,
        replies::{self, Reply, TurnReply},
    },
};
use afdg_types::{
    AgentRef, CallError, GridError, MessageId, MessageIdKind, Purpose, Reason, Slot, TypeLimit, limits,
};
use bytes::Bytes;
use tokio::time::Instant;

/// Callers that may wait for the answer to one message.
pub(super) const WAITERS_MAX: usize = 64;
/// Kept ids that wait to be written at most; an id that finds no place is kept the next time it is seen.
const KEEP_IDS_MAX: usize = 1_024;
/// An id that is seen again is kept longer only if that adds this much, so that a flood of repeats does
/// not write one entry each; so it is kept that much longer to begin with.
pub(super) const KEEP_STEP_S: u64 = 3_600;

impl Owner {
    pub(super) fn admit(&mut self, admission: Admission) {
        match self.check(&admission).and_then(|read_only| self.check_rate(&admission).map(|()| read_only)) {
            Ok(read_only) => self.enter(admission, read_only),
            Err(error) if error.reason == Reason::NotLeader => {
                let hint = self.leader_hint();
                admission.reply_to.refuse_not_leader(error, hint);
            }
            Err(error) => {
                if let (Reason::Overloaded, Some(leading)) = (error.reason, &mut self.leading) {
                    leading.load.refused += 1;
                }
                admission.reply_to.refuse(error);
            }
        }
    }

    /// Whether the message may be admitted at all, and whether its method only reads.
    fn check(&self, admission: &Admission) -> Result<bool, GridError> {
        let Some(leading) = &self.leading else {
            return Err(GridError::new(Reason::NotLeader, "another replica of the region leads"));
        };
        if self.draining {
            return Err(GridError::new(Reason::Draining, "this node is stopping; another one takes over"));
        }
        let slot = Slot::of(&admission.agent);
        // Before the catalog was heard of, after a restart of both, the slots are as they were: the sender's
        // word is taken, whose routes are newer than none.
        if !self.slots.is_empty() && !self.slots.iter().any(|range| range.contains(slot)) {
            let text = format!("slot {slot} of {} is not in region {}", admission.agent, self.region);
            return Err(GridError::new(Reason::StaleRoute, text));
        }
        // They take none, and make some.
        if matches!(admission.purpose, Purpose::Cancel(_) | Purpose::Probe(_)) {
            return Ok(true);
        }
        let agent_type = admission.agent.agent_type();
        leading.load.check_room(agent_type, admission.request.len(), admission.chain.len())?;
        if self.storage_behind && admission.chain.is_empty() {
            return Err(overloaded("the node's checkpoints are behind"));
        }
        let outbox_is_full = !leading.outbox.has_room(agent_type, Amount::of(1, 1));
        // What agents have sent gets in all the same: the outbox may be this region's own.
        let is_sent = matches!(&admission.purpose, Purpose::Send(sending) if sending.sender.is_some());
        if outbox_is_full && admission.chain.is_empty() && !is_sent && !self.only_reads(admission) {
            return Err(overloaded(&format!(
                "the region has as many sends of {agent_type} on their way as it takes"
            )));
        }
        if let Some(error) = calls::refuse(&admission.chain, &admission.agent, &self.here.reentrant) {
            return Err(error);
        }
        match &admission.purpose {
            Purpose::Attach | Purpose::Probe(_) | Purpose::Cancel(_) => Ok(true),
            Purpose::Call => self.check_method(admission),
            Purpose::Send(sending) => {
                self.check_method(admission)?;
                let now_ms = self.here.world.clock.now_ms();
                let latest_ms = now_ms + limits::SEND_DELAY_MS_MAX + limits::CLOCK_SKEW_MS_MAX;
                if sending.due_ms > latest_ms {
                    let text = format!("a message is held back for {} ms at most", limits::SEND_DELAY_MS_MAX);
                    return Err(GridError::new(Reason::RequestMalformed, text).with("field", "due_ms"));
                }
                Ok(false)
            }
        }
    }

    /// A call of an agent that waits is let in at any rate and pace.
    fn check_rate(&mut self, admission: &Admission) -> Result<(), GridError> {
        let has_turn = matches!(admission.purpose, Purpose::Call | Purpose::Send(_));
        let (agent_type, now) = (admission.agent.agent_type(), Instant::now());
        match &mut self.leading {
            // What comes before a new leader is ready is looked at again when it is.
            Some(leading) if has_turn && admission.chain.is_empty() && leading.ready => {
                leading.window.waited(self.woke.saturating_duration_since(admission.arrived));
                leading.load.waited(agent_type, Hop::Admission, now.duration_since(admission.arrived));
                leading.load.check_pace(agent_type)?;
                leading.load.take_rate(agent_type, now)
            }
            _ => Ok(()),
        }
    }

    fn only_reads(&self, admission: &Admission) -> bool {
        matches!(admission.purpose, Purpose::Attach | Purpose::Probe(_))
            || matches!(admission.purpose, Purpose::Call if self.check_method(admission) == Ok(true))
    }

    fn check_method(&self, admission: &Admission) -> Result<bool, GridError> {
        let agent_type = admission.agent.agent_type();
        let Some(methods) = self.here.methods.get(agent_type) else {
            return Err(GridError::new(
                Reason::UnknownType,
                format!("this node hosts no agent type {agent_type}"),
            )
            .with("resource_type", "agent type")
            .with("resource_name", agent_type));
        };
        let Some(read_only) = methods.get(&admission.method) else {
            let text = format!("{agent_type} has no method {}", admission.method);
            return Err(GridError::new(Reason::UnknownMethod, text)
                .with("resource_type", "method")
                .with("resource_name", format!("{agent_type}/{}", admission.method)));
        };
        // A call of a turn may be asked again and must get the same answer, so its answer is recorded
        // even if the method only reads.
        Ok(*read_only && admission.message_id.kind() != MessageIdKind::Derived)
    }

    fn enter(&mut self, admission: Admission, read_only: bool) {
        let Some(leading) = self.leading.as_mut() else { return };
        if !leading.ready {
            return self.keep_early(admission);
        }
        match &admission.purpose {
            Purpose::Attach => return self.attach(admission),
            Purpose::Probe(probe) => {
                let probe = probe.clone();
                if let Some((agent, call, ring)) = self.probe(admission, probe) {
                    self.break_ring(agent, call, &ring);
                }
                return;
            }
            Purpose::Cancel(cancel) => {
                let cancel = *cancel;
                return self.cancel(admission, cancel);
            }
            Purpose::Call | Purpose::Send(_) => {}
        }
        if read_only {
            leading.load.count_in(admission.agent.agent_type(), admission.request.len());
            leading.reads.push(admission);
            return;
        }
        self.answer_or_enqueue(admission);
    }

    /// Keeps a message until the new leader is ready.
    fn keep_early(&mut self, admission: Admission) {
        let Some(leading) = self.leading.as_mut() else { return };
        let bytes = leading.early_bytes + admission.request.len();
        if leading.early.len() >= limits::REGION_IN_FLIGHT_MESSAGES_MAX
            || bytes > limits::REGION_IN_FLIGHT_BYTES_MAX
        {
            return admission.reply_to.refuse(overloaded("the region's new leader is not ready"));
        }
        leading.early_bytes = bytes;
        leading.early.push(admission);
    }

    /// A read-only message that could not run beside others takes a turn of its own.
    pub(super) fn admit_as_turn(&mut self, admission: Admission) {
        match self.check(&admission) {
            Ok(_) if self.leading.as_ref().is_some_and(|leading| !leading.ready) => {
                self.keep_early(admission)
            }
            Ok(_) => self.answer_or_enqueue(admission),
            Err(error) => {
                let hint = self.leader_hint();
                admission.reply_to.refuse_not_leader(error, hint);
            }
        }
    }

    fn answer_or_enqueue(&mut self, admission: Admission) {
        let digest = replies::digest(&admission.agent, &admission.method, &admission.request);
        let Some(admission) = self.answer_known(admission, Some(digest)) else { return };
        let Some(admission) = self.refuse_expired(admission) else { return };
        match &admission.purpose {
            Purpose::Send(_) => self.accept(admission, digest),
            Purpose::Call | Purpose::Attach | Purpose::Probe(_) | Purpose::Cancel(_) => {
                self.enqueue_call(admission, digest);
            }
        }
    }

    /// Answers a message whose id is known, under way or done; gives back one that is new. Without a digest
    /// the id alone is asked for, and whether it is of the method if one is named.
    pub(super) fn answer_known(&mut self, admission: Admission, digest: Option<u128>) -> Option<Admission> {
        let id = admission.message_id;
        let is_send = matches!(admission.purpose, Purpose::Send(_));
        let differs = |admission: &Admission, known: u128| match digest {
            Some(digest) => (digest != known).then(|| id_reused(admission, known, digest)),
            None => of_other_method(id, known, &admission.method),
        };
        let slot = Slot::of(&admission.agent);
        let leading = self.leading.as_mut()?;
        if let Some(waiters) =
            leading.waiters.get_mut(&id).filter(|waiters| digest.is_some() || waiters.slot == slot)
        {
            if let Some(error) = differs(&admission, waiters.digest) {
                admission.reply_to.refuse(error);
            } else if is_send && waiters.acceptance == Acceptance::Stands {
                admission.reply_to.accepted();
            } else if waiters.let_go_of_the_late(Instant::now()) >= WAITERS_MAX {
                admission.reply_to.refuse(overloaded("as many callers wait for this message as may"));
            } else if is_send {
                waiters.senders.push(admission.reply_to);
            } else {
                waiters.called |= admission.purpose == Purpose::Call;
                let Admission { reply_to, deadline, caller, .. } = admission;
                waiters.replies.push(Waiter { reply_to, deadline, caller });
            }
            return None;
        }
        match replies::get(self.replica.rows().as_ref(), id) {
            Err(error) => {
                admission
                    .reply_to
                    .refuse(GridError::new(Reason::OutcomeUnknown, "this node's storage failed"));
                self.storage_failed(&error.to_string());
                None
            }
            // Who asks by the id alone asks for a message to that agent.
            Ok(Some(reply)) if digest.is_none() && reply.slot != slot => Some(admission),
            Ok(Some(reply)) => {
                match differs(&admission, reply.digest) {
                    Some(error) => admission.reply_to.refuse(error),
                    None => {
                        self.keep_id(id, &reply);
                        // A client hears that its message has failed for good; an agent's outbox only has to
                        // know that it was taken.
                        if is_accepted(&admission.purpose, &reply.reply) {
                            admission.reply_to.accepted();
                        } else {
                            admission.reply_to.reply(result_of(reply.reply));
                        }
                    }
                }
                None
            }
            Ok(None) => Some(admission),
        }
    }

    pub(super) fn keep_id(&mut self, id: MessageId, reply: &Reply) {
        let expires_at_s = self.kept_until_s(id);
        let Some(leading) = self.leading.as_mut() else { return };
        let lasting = id.kind() != MessageIdKind::Router;
        let place = || {
            let kept = leading.pending.iter().filter(|op| matches!(op, Pending::KeepId(_)));
            kept.count() < KEEP_IDS_MAX
        };
        if lasting && expires_at_s >= reply.expires_at_s + KEEP_STEP_S && place() {
            let keep = KeepId { message_id: id, expires_at_s };
            leading.wait_for_entry(Pending::KeepId(keep));
        }
    }

    /// An id that is older than ids are kept may have taken effect and been forgotten.
    fn refuse_expired(&mut self, admission: Admission) -> Option<Admission> {
        let now_ms = self.here.world.clock.now_ms();
        match admission.message_id.made_at_ms() {
            Some(made_at_ms) if made_at_ms + limits::ROUTER_ID_KEPT_MS < now_ms => {
                admission.reply_to.refuse(GridError::new(
                    Reason::IdExpired,
                    "the message is so old that whether it took effect is not known any more",
                ));
                None
            }
            Some(made_at_ms) if made_at_ms > now_ms + limits::CLOCK_SKEW_MS_MAX => {
                admission.reply_to.refuse(
                    GridError::new(
                        Reason::ClocksApart,
                        format!(
                            "the message's id was made {} ms in the future: the clock of the server that made it, \
                             or of node {}, is wrong",
                            made_at_ms - now_ms,
                            self.here.node
                        ),
                    ),
                );
                None
            }
            _ => Some(admission),
        }
    }

    fn enqueue_call(&mut self, admission: Admission, digest: u128) {
        let Some(leading) = self.leading.as_mut() else { return };
        let enters = leading.has_come_back(&admission);
        let Admission { agent, method, message_id, request, deadline, chain, reentries, .. } = admission;
        let (caller, reply_to) = (admission.caller, admission.reply_to);
        // Those that wait in the mailbox may wait for it.
        if !enters && let Some(full) = leading.mailbox_full(&agent, request.len(), chain.len()) {
            return reply_to.refuse(full);
        }
        let mut waiters = Waiters::of(&agent, digest, Acceptance::None);
        waiters.called = true;
        waiters.replies.push(Waiter { reply_to, deadline, caller });
        leading.waiters.insert(message_id, waiters);
        let bytes = request.len();
        let send = None;
        let message =
            Message { message_id, method, request, digest, deadline, chain, reentries, bytes, send };
        match enters {
            true => self.let_in(agent, message),
            false if message.chain.is_empty() => self.enqueue(agent, message),
            false => {
                let (of, chain) = (agent.clone(), message.chain.clone());
                self.enqueue(agent, message);
                self.look_for_ring_with(&of, &chain);
            }
        }
    }

    /// Puts a message at the end of its agent's queue.
    pub(super) fn enqueue(&mut self, agent: AgentRef, message: Message) {
        let Some(leading) = self.leading.as_mut() else { return };
        leading.load.count_in(agent.agent_type(), message.bytes);
        leading.agents.entry(agent.clone()).or_default().queue.push_back(message);
        self.run_next(&agent);
    }

    /// Takes a turn that its last leader did not finish: it runs before anything else of its agent. `send`
    /// is there if its message stands in the inbox.
    pub(super) fn run_again(&mut self, agent: AgentRef, turn: RecordedTurn, send: Option<SendState>) {
        let Some(leading) = self.leading.as_mut() else { return };
        // Whom it called may have forgotten by now that it did: run again it could do things twice.
        let age_ms = self.here.world.clock.now_ms().saturating_sub(turn.now_ms);
        if age_ms + 2 * limits::CLOCK_SKEW_MS_MAX > limits::RECORDED_TURN_MS_MAX {
            tracing::error!(%agent, id = %turn.message_id, age_ms, "a recorded turn is too old to be run again");
            return self.give_up(agent, turn, send);
        }
        let acceptance = if send.is_some() { Acceptance::Stands } else { Acceptance::None };
        leading.waiters.insert(turn.message_id, Waiters::of(&agent, turn.digest, acceptance));
        leading.agents.entry(agent.clone()).or_default();
        leading.load.count_in(agent.agent_type(), turn.request.len());
        self.start_recorded(agent, turn, send);
    }
}

impl Owner {
    /// Ends a recorded turn that may not be run again: what it did to others stays, its own effects are lost.
    fn give_up(&mut self, agent: AgentRef, turn: RecordedTurn, send: Option<SendState>) {
        let expires_at_s = self.kept_until_s(turn.message_id);
        let now_ms = self.here.world.clock.now_ms();
        let Some(leading) = self.leading.as_mut() else { return };
        let message = "the turn was not finished within a day; what it did to other agents stays".to_owned();
        let message_bytes = turn.request.len();
        leading.load.count_in(agent.agent_type(), message_bytes);
        leading.agents.entry(agent.clone()).or_default().uncommitted += 1;
        leading.let_go(&agent, send.as_ref());
        if send.is_some() {
            let failure = TurnReply::Failed { reason: Reason::OutcomeUnknown, message };
            let next = Next::GiveUp { expires_at_s };
            let op = FailAttempt { agent, message_id: turn.message_id, failure, next, now_ms };
            leading.wait_for_entry(Pending::Fail { op, message_bytes });
            return;
        }
        let effects = CommitTurn {
            agent: agent.clone(),
            message_id: turn.message_id,
            digest: turn.digest,
            expires_at_s,
            changes: Vec::new(),
            reply: TurnReply::Failed { reason: Reason::OutcomeUnknown, message },
            recorded: true,
        };
        let number = leading.next_turn;
        leading.next_turn += 1;
        let turn = PendingTurn {
            number,
            effects,
            accepted: false,
            sends: Vec::new(),
            schedules: Vec::new(),
            bytes: 0,
            message_bytes,
            ended: Instant::now(),
        };
        leading.wait_for_entry(Pending::Turn(turn));
    }
}

impl Leading {
    /// Why no other message may wait for the agent's turn, if that is so. One for which `chain_agents` agents wait
    /// finds more room: outside the mailbox it would be in no ring that can be found.
    pub(super) fn mailbox_full(
        &self,
        agent: &AgentRef,
        bytes: usize,
        chain_agents: usize,
    ) -> Option<GridError> {
        let queue = &self.agents.get(agent)?.queue;
        // As good as always there is no need to look for the limits.
        if queue.is_empty() {
            return None;
        }
        let limits = self.load.limits_of(agent.agent_type());
        let share = 1 + chain_agents;
        let limit = if queue.len() >= share.saturating_mul(limits.size(TypeLimit::MailboxMessages)) {
            TypeLimit::MailboxMessages
        } else if queue.bytes() + bytes > share.saturating_mul(limits.size(TypeLimit::MailboxBytes)) {
            TypeLimit::MailboxBytes
        } else {
            return None;
        };
        let value = limits.get(limit);
        let text = format!("as many messages wait for the agent as may ({limit} = {value})");
        Some(overloaded(&text).with("limit", limit))
    }

    /// Whether a message of that id is under way here.
    pub(super) fn knows(&self, id: MessageId) -> bool {
        self.waiters.contains_key(&id)
    }
}

/// What a recorded reply says to whoever asks.
pub(super) fn result_of(reply: TurnReply) -> Result<Bytes, CallError> {
    match reply {
        TurnReply::Response(response) => Ok(response),
        TurnReply::Refused(error) => Err(error.into()),
        TurnReply::Failed { reason, message } => Err(GridError::new(reason, message).into()),
    }
}

/// Whether a message of a known id was accepted, as far as its sender has to know.
fn is_accepted(purpose: &Purpose, reply: &TurnReply) -> bool {
    match purpose {
        Purpose::Send(sending) => sending.sender.is_some() || matches!(reply, TurnReply::Response(_)),
        Purpose::Call | Purpose::Attach | Purpose::Probe(_) | Purpose::Cancel(_) => false,
    }
}

fn id_reused(admission: &Admission, known: u128, given: u128) -> GridError {
    let differs = replies::differences(known, given).join(", ");
    GridError::new(
        Reason::IdReused,
        format!(
            "the id {} was used before with another request than this one to {} (what differs: {differs}): repeat \
             the same request, or take a new idempotency key",
            admission.message_id, admission.agent
        ),
    )
    .with("differs", differs)
    .with("known_digest", format!("{known:032x}"))
    .with("given_digest", format!("{given:032x}"))
}
