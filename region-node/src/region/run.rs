//! Run: starts turns on the executor and takes in how they ended.
//!
//! An agent runs one turn at a time. The next may start as soon as one has ended, on effects that are
//! not committed yet: its answer waits for its own commit, which comes after theirs in the log.

use super::{
    leading::{Acceptance, Leading, Message, Pending, PendingTurn, Running, SendState},
    load::WaitsForPlace,
    owner::{Event, Owner, RecordTurn, TurnEnd},
};
use crate::executor::{
    self, RunFailure,
    calls::{Caller, Calls},
    overlay::TurnNumber,
    reentry::Reentry,
    view::View,
};
use afdg_agent::host::{RowWrite, Turn, TurnBounds, TurnFailure, TurnOutput, TurnSchedule, TurnSend};
use afdg_region_machine::{
    op::{CommitTurn, RowChange, ScheduleChange},
    table::{mailbox::RecordedTurn, outbox::OutgoingSend, replies::TurnReply},
};
use afdg_types::{AgentRef, GridError, MessageId, Reason, TypeLimit, TypeLimits, limits};
use futures::future::Either;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
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
            if state.running.is_some() || !leading.takes_place(agent) {
                return;
            }
            let Some(state) = leading.agents.get_mut(agent) else { return };
            let Some(message) = state.queue.pop_front() else {
                if state.is_idle() {
                    leading.agents.remove(agent);
                }
                return;
            };
            let Some(message) = leading.hold_back(agent, message) else { continue };
            if message.deadline.is_none_or(|deadline| deadline > Instant::now()) {
                let (now_ms, seed) = (self.here.world.clock.now_ms(), self.here.world.entropy.random_u64());
                self.start_turn(agent, message, now_ms, seed, Role::New);
                return;
            }
            leading.load.count_out(agent.agent_type(), message.bytes);
            let error = GridError::new(
                Reason::DeadlineExceeded,
                "the deadline passed while the message waited for its turn",
            );
            leading.answer(message.message_id, &Err(error.into()));
        }
    }

    /// Runs a turn from the mailbox again: with the same time and seed it takes the same way.
    pub(super) fn start_recorded(&mut self, agent: AgentRef, turn: RecordedTurn, send: Option<SendState>) {
        let RecordedTurn { message_id, method, request, digest, chain, now_ms, seed, reentries } = turn;
        let (bytes, deadline) = (request.len(), None);
        let message =
            Message { message_id, method, request, digest, deadline, chain, reentries, bytes, send };
        self.start_turn(&agent, message, now_ms, seed, Role::Recorded);
    }

    /// Has the message's handler run on the executor.
    pub(super) fn start_turn(
        &mut self,
        agent: &AgentRef,
        message: Message,
        now_ms: u64,
        seed: u64,
        role: Role,
    ) {
        let rows = self.agent_rows(agent);
        let events = self.events.clone();
        let Some(leading) = self.leading.as_mut() else { return };
        let Some(state) = leading.agents.get_mut(agent) else { return };
        let number = leading.next_turn;
        leading.next_turn += 1;
        let (recorded, is_inner) = (role == Role::Recorded, role == Role::Inner);
        let limits = leading.load.limits_of(agent.agent_type());
        let leadership = leading.leadership;
        let record = (role == Role::New).then(|| RecordTurn {
            leadership,
            agent: agent.clone(),
            number,
            events: events.clone(),
        });
        let router = Arc::clone(&self.here.router);
        let parent = parent_of(&message);
        let (message_id, chain, reentries) =
            (message.message_id, message.chain.clone(), message.reentries.clone());
        // After a failure, too, the calls have the ids of those that an earlier run made.
        let has_failed = message.send.as_ref().is_some_and(|send| send.attempts > send.refusals);
        let runs_again = recorded || has_failed;
        let caller = Caller {
            agent: agent.clone(),
            message_id,
            parent,
            chain,
            reentries,
            runs_again,
            is_inner,
            fail_points: self.here.fail_points,
        };
        let types = &self.here.reentrant;
        let lets_in = !is_inner && types.let_in(agent.agent_type());
        let reentry = lets_in.then(|| Arc::new(Reentry::default()));
        let calls = Calls::new(caller, router, Arc::clone(types), record);
        let view = View::of_turn(rows, state.overlay.clone(), calls.clone()).with_reentry(reentry.clone());
        let turn = Turn {
            agent: agent.clone(),
            method: message.method.clone(),
            message_id: message.message_id,
            parent,
            request: message.request.clone(),
            now_ms,
            seed,
            read_only: false,
            bounds: bounds_of(&limits),
        };
        let turn_ms_max = limits.get(TypeLimit::TurnMs);
        let (host, threads) = (Arc::clone(&self.here.host), self.here.handler_threads.clone());
        let (of, waiting) = (agent.clone(), calls.clone());
        let (since, starter) = (Instant::now(), leading.load.starter(agent.agent_type()));
        let run = tokio::spawn(async move {
            let limited = || !recorded && !calls.have_left();
            let begun = starter.clone();
            let begins = move || begun.map(|begun| begun.start());
            let view = Arc::new(view);
            let result = executor::run(&threads, host, turn, view, turn_ms_max, begins, limited).await;
            let waited = starter.map_or(Duration::ZERO, |starter| starter.waited());
            let end = TurnEnd { waited, ended: Instant::now(), result };
            let _ = events.send(Event::TurnEnded { leadership, agent: of, number, end });
        });
        let task = run.abort_handle();
        let running = Running {
            number,
            message,
            now_ms,
            seed,
            since,
            recorded,
            calls: waiting,
            reentry,
            cut: BTreeSet::new(),
            task,
        };
        if is_inner {
            state.entering.get_or_insert_default().running = Some(running);
        } else {
            leading.load.turn_starts(agent.agent_type());
            state.running = Some(running);
        }
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
            reentries: message.reentries.clone(),
        };
        leading.accept_now(turn.message_id);
        leading.wait_for_entry(Pending::Record { agent, turn, recorded });
    }

    pub(super) fn turn_ended(
        &mut self,
        leadership: u64,
        agent: &AgentRef,
        number: TurnNumber,
        result: Result<TurnOutput, RunFailure>,
    ) {
        let now_ms = self.here.world.clock.now_ms();
        let is_current = |leading: &&mut Leading| leading.leadership == leadership;
        let Some(leading) = self.leading.as_mut().filter(is_current) else { return };
        let Some(state) = leading.agents.get_mut(agent) else { return };
        let is_it = |running: &mut Running| running.number == number;
        if let Some(inner) = state.entering.as_mut().and_then(|entering| entering.running.take_if(is_it)) {
            return self.inner_turn_ended(agent, inner, result);
        }
        let Some(mut running) = state.running.take_if(is_it) else { return };
        if running.recorded && lacks_code(&result) {
            // An earlier leader knew the type and may have touched others: the turn stays in the mailbox, its
            // agent waits, and the next leader that knows the type finishes it.
            tracing::error!(%agent, ?result, "a recorded turn can't be finished by this node's program");
            state.running = Some(running);
            return;
        }
        let rings = running.calls.rings();
        if !rings.is_empty() {
            state.queue.put_calls_of_ring_first(&rings);
        }
        leading.load.turn_ends(agent.agent_type());
        leading.outer_turn_ended(agent, &mut running);
        if lacks_code(&result) && leading.stands_in_inbox(&running.message) {
            // The node lacks the type, not the message: another leader may have it.
            tracing::error!(%agent, ?result, "a send waits for a node whose program has its type");
            leading.load.count_out(agent.agent_type(), running.message.bytes);
            leading.is_due_at(now_ms + WITHOUT_CODE_MS, running.message.message_id);
            self.run_next(agent);
            return self.give_places(agent.agent_type());
        }
        if self.take_effects(agent, running, result, |_| Ok(())) {
            self.run_next(agent);
            self.give_places(agent.agent_type());
        }
    }

    /// Takes in how a turn ended; as a failure, if `check` finds that it can't leave what it wrote. False if
    /// this node's storage can't be relied on.
    pub(super) fn take_effects(
        &mut self,
        agent: &AgentRef,
        running: Running,
        result: Result<TurnOutput, RunFailure>,
        check: impl FnOnce(&[RowWrite]) -> Result<(), (Reason, String)>,
    ) -> bool {
        let mut effects = match effects_of(result) {
            Ok(effects) => effects,
            Err(storage) => {
                self.storage_failed(&storage);
                return false;
            }
        };
        let Some(leading) = self.leading.as_mut() else { return false };
        if let Err((reason, message)) = check(&effects.writes) {
            effects = Effects::only(TurnReply::Failed { reason, message });
        }
        let (mut changes, mut bytes) = changes_of(&effects);
        let schedules = std::mem::take(&mut effects.schedules);
        let fits = match bytes <= EFFECT_BYTES_MAX {
            true => leading.schedules.expect(agent, schedules, running.now_ms),
            false => Err(format!("the turn's effects have {bytes} bytes; at most {EFFECT_BYTES_MAX} fit")),
        };
        let schedules = fits.unwrap_or_else(|message| {
            effects = Effects::only(TurnReply::Failed { reason: Reason::TurnTooLarge, message });
            (changes, bytes) = (Vec::new(), EFFECT_OVERHEAD_BYTES);
            Vec::new()
        });
        self.take_in(agent, running, effects, Changes { rows: changes, schedules, bytes });
        true
    }

    /// Fails the turns of handlers that keep a serving thread past their time: their own time limit does not
    /// come to run there. The thread is theirs until they end; what they lead to is dropped.
    pub(super) fn give_up_stuck_turns(&mut self) {
        let Some(leading) = self.leading.as_ref() else { return };
        let now = Instant::now();
        let running = leading.agents.iter().flat_map(|(agent, state)| {
            let inner = state.entering.as_ref().and_then(|entering| entering.running.as_ref());
            state.running.iter().chain(inner).map(move |running| (agent, running))
        });
        let stuck = running.filter_map(|(agent, running)| {
            let limit_ms = leading.load.limits_of(agent.agent_type()).get(TypeLimit::TurnMs);
            let late = now.duration_since(running.since) > Duration::from_millis(limit_ms) + STUCK_AFTER;
            let limited = !running.recorded && !running.calls.have_left();
            (late && limited).then(|| (agent.clone(), running.number, limit_ms))
        });
        let (stuck, leadership) = (stuck.collect::<Vec<_>>(), leading.leadership);
        for (agent, number, limit_ms) in stuck {
            tracing::warn!(%agent, limit_ms, "a handler computes without waiting and keeps a thread");
            self.turn_ended(leadership, &agent, number, Err(RunFailure::TimedOut { limit_ms }));
        }
    }

    /// A turn of the type has ended: who waits for a place goes on.
    pub(super) fn give_places(&mut self, agent_type: &str) {
        while let Some(leading) = self.leading.as_mut()
            && let Some(waits) = leading.load.next_for_place(agent_type)
        {
            match waits {
                WaitsForPlace::Agent(agent) => {
                    if let Some(state) = leading.agents.get_mut(&agent) {
                        state.waits_for_place = false;
                    }
                    self.run_next(&agent);
                }
                WaitsForPlace::Read(read) => {
                    let leadership = leading.leadership;
                    self.start_read(leadership, *read);
                }
            }
        }
    }

    /// Takes in what a turn leaves, so that it is proposed and the agent's next turn can build on it.
    fn take_in(&mut self, agent: &AgentRef, running: Running, effects: Effects, changes: Changes) {
        let expires_at_s = self.kept_until_s(running.message.message_id);
        let now_ms = self.here.world.clock.now_ms();
        let retry = self.here.send_retry.get(agent.agent_type()).copied().unwrap_or_default();
        let Some(leading) = self.leading.as_mut() else { return };
        let Effects { reply, writes, sends, .. } = effects;
        let Changes { rows: changes, schedules, bytes } = changes;
        if running.message.send.is_some() && !matches!(reply, TurnReply::Response(_)) {
            return leading.attempt_failed(agent, &running, reply, retry, now_ms, expires_at_s);
        }
        leading.let_go(agent, running.message.send.as_ref());
        let accepted = leading.supersede_acceptance(&running);
        let Running { number, message, now_ms: turn_ms, recorded, .. } = &running;
        let Some(state) = leading.agents.get_mut(agent) else { return };
        state.overlay.write(*number, &writes);
        state.uncommitted += 1;
        let (parent, turn_ms) = (parent_of(message), *turn_ms);
        let sends = sends.into_iter().map(|send| outgoing(send, parent, turn_ms, now_ms)).collect();
        let effects = CommitTurn {
            agent: agent.clone(),
            message_id: message.message_id,
            digest: message.digest,
            expires_at_s,
            changes,
            reply,
            recorded: *recorded,
        };
        let (number, message_bytes) = (*number, message.bytes);
        let ended = Instant::now();
        let turn = PendingTurn { number, effects, accepted, sends, schedules, bytes, message_bytes, ended };
        leading.wait_for_entry(Pending::Turn(turn));
    }
}

/// Which turn of its agent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    New,
    /// It stands in the mailbox, and runs again.
    Recorded,
    /// It enters while another one waits.
    Inner,
}

/// How long a turn that ran past its limit has to end by it.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Pause before a send is looked at again whose type the node's program lacks.
const WITHOUT_CODE_MS: u64 = 1_000;

/// What the host keeps the turn to.
pub(super) fn bounds_of(limits: &TypeLimits) -> TurnBounds {
    TurnBounds {
        memory_bytes_max: limits.size(TypeLimit::TurnMemoryBytes),
        effect_bytes_max: limits.size(TypeLimit::TurnEffectBytes),
    }
}

impl Leading {
    /// Whether the agent's next message may have its turn now; if not, the agent waits for a place. It may
    /// hold up those who wait for one of its messages, so the longest chain among them counts.
    fn takes_place(&mut self, agent: &AgentRef) -> bool {
        let agent_type = agent.agent_type();
        if self.load.has_place(agent_type, 0) {
            return true;
        }
        let Some(state) = self.agents.get_mut(agent) else { return true };
        let waited_for = state.queue.iter().map(|message| message.chain.len()).max();
        if waited_for.is_none_or(|chain_agents| self.load.has_place(agent_type, chain_agents)) {
            return true;
        }
        if !state.waits_for_place {
            state.waits_for_place = true;
            self.load.wait_for_place(agent_type, WaitsForPlace::Agent(agent.clone()));
        }
        false
    }

    fn stands_in_inbox(&self, message: &Message) -> bool {
        let waiters = self.waiters.get(&message.message_id);
        message.send.is_some() && waiters.is_some_and(|waiters| waiters.acceptance == Acceptance::Stands)
    }

    /// Whether the turn's message stands in the inbox, or will before the turn's effects do. If it was not
    /// even proposed to, it need not go there; but an agent's send has to, since the agent's next one may be
    /// proposed between the message and the effects, and must not stand without it; and so has one whose turn
    /// is recorded, since a new leader that finds the record alone would take it for a call.
    fn supersede_acceptance(&mut self, running: &Running) -> bool {
        let message = &running.message;
        let is_clients = message.send.as_ref().is_some_and(|send| send.sender.is_none());
        let need_not_stand = is_clients && !running.recorded;
        let Some(waiters) = self.waiters.get_mut(&message.message_id) else { return false };
        match waiters.acceptance {
            Acceptance::None | Acceptance::Superseded => false,
            Acceptance::Awaited | Acceptance::Pending if need_not_stand => {
                waiters.acceptance = Acceptance::Superseded;
                false
            }
            Acceptance::Awaited | Acceptance::Pending | Acceptance::Proposed | Acceptance::Stands => true,
        }
    }
}

/// The id from which those of the turn's calls and sends follow. After a refusal, which the handler decided
/// upon with the answers that it got, another attempt asks anew; after a failure it gets the same answers.
fn parent_of(message: &Message) -> MessageId {
    match &message.send {
        Some(SendState { refusals, .. }) if *refusals > 0 => {
            MessageId::derived(message.message_id, u32::MAX - refusals)
        }
        _ => message.message_id,
    }
}

/// `turn_ms` is the turn's time, from which its handler counts a delay. A turn may have waited for a day until
/// now, from when on its sends are tried to be delivered.
fn outgoing(send: TurnSend, parent: MessageId, turn_ms: u64, now_ms: u64) -> OutgoingSend {
    let TurnSend { ordinal, agent, method, request, delay_ms } = send;
    OutgoingSend {
        to: agent,
        message_id: MessageId::of_send(parent, ordinal),
        method,
        request,
        sent_ms: now_ms,
        due_ms: if delay_ms == 0 { 0 } else { turn_ms.saturating_add(delay_ms) },
    }
}

/// What a turn leaves.
struct Effects {
    reply: TurnReply,
    writes: Vec<RowWrite>,
    sends: Vec<TurnSend>,
    schedules: Vec<TurnSchedule>,
}

/// The same, as it goes into an entry.
struct Changes {
    rows: Vec<RowChange>,
    schedules: Vec<ScheduleChange>,
    bytes: usize,
}

impl Effects {
    /// A turn that refuses or fails leaves nothing but that.
    fn only(reply: TurnReply) -> Self {
        Self { reply, writes: Vec::new(), sends: Vec::new(), schedules: Vec::new() }
    }
}

/// What the turn leaves; or why this node's storage can't be relied on.
fn effects_of(result: Result<TurnOutput, RunFailure>) -> Result<Effects, String> {
    match result {
        Ok(TurnOutput { reply: Ok(response), writes, sends, schedules }) => {
            Ok(Effects { reply: TurnReply::Response(response), writes, sends, schedules })
        }
        Ok(TurnOutput { reply: Err(error), .. }) => Ok(Effects::only(TurnReply::Refused(error))),
        Err(failure) => match refusal_of(failure) {
            Either::Left((reason, message)) => Ok(Effects::only(TurnReply::Failed { reason, message })),
            Either::Right(storage) => Err(storage),
        },
    }
}

/// The grid's verdict on a turn without output; on the right, why this node's storage can't be relied on.
pub(super) fn refusal_of(failure: RunFailure) -> Either<(Reason, String), String> {
    let failure = match failure {
        RunFailure::Turn(failure) => failure,
        RunFailure::TimedOut { limit_ms: limit } => {
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

fn changes_of(effects: &Effects) -> (Vec<RowChange>, usize) {
    let mut bytes = EFFECT_OVERHEAD_BYTES;
    let changes = effects.writes.iter().map(|write| match write {
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
    bytes += effects.sends.iter().map(TurnSend::bytes).sum::<usize>();
    bytes += effects.schedules.iter().map(TurnSchedule::bytes).sum::<usize>();
    (changes, bytes + effects.reply.bytes())
}
