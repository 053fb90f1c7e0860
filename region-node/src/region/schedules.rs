//! Schedules: which are due, and what they send.
//!
//! The rows hold every schedule and the due time at which it stands. A leader keeps those due times in order,
//! works out what a schedule does whose time has come, and proposes that: the messages and the next due time
//! are one operation, which does nothing unless the schedule still stands there. One operation of a schedule
//! is under way at a time, so what it sends goes in the order of its due times.
//!
//! A firing waits, and is late, while there is no room for what it sends. It is never dropped.

use super::{
    held::Amount,
    leading::{Acceptance, Leading, Pending},
    owner::Owner,
};
use afdg_agent::{
    due_times::{DueTimes, Firing},
    host::TurnSchedule,
};
use afdg_region_machine::{
    op::{CancelSchedule, FireSchedule, NewSchedule, Placed, ScheduleChange},
    table::schedules::{self, Progress, Schedule},
};
use afdg_types::{
    AgentRef, RowsError, Sending,
    limits::{AGENT_SCHEDULES_MAX, REGION_IN_FLIGHT_MESSAGES_MAX, REGION_SCHEDULES_MAX},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::oneshot;

/// Schedules whose firing is under way at the same time.
const FIRING_AT_ONCE_MAX: usize = 4_096;
/// Schedules looked at before other events have their turn.
const LOOKED_AT_ONCE: usize = 1_024;
/// Messages in flight up to which schedules fire: the rest is left to others.
const IN_FLIGHT_MESSAGES_MAX: usize = REGION_IN_FLIGHT_MESSAGES_MAX / 2;
/// Pause before it is looked again whether there is room.
const ROOM_PAUSE_MS: u64 = 20;
/// Pause before a schedule is looked at again whose agent's type has as many sends on their way as it may.
const OUTBOX_PAUSE_MS: u64 = 1_000;
/// Pause before a schedule is looked at again that this node's program can't evaluate, or whose agent's type
/// it lacks.
const WITHOUT_CODE_MS: u64 = 1_000;

/// The schedules of the region's agents, as far as a leader has to know them.
#[derive(Default)]
pub struct Schedules {
    known: BTreeMap<AgentRef, BTreeMap<Arc<str>, Known>>,
    /// By when they are to be looked at, milliseconds since the Unix epoch.
    due: BTreeSet<(u64, AgentRef, Arc<str>)>,
    /// Those that there will be once all ended turns are committed.
    expected: usize,
    /// Those whose firing is under way, and what they send.
    firing: usize,
    firing_messages: usize,
    firing_bytes: usize,
    /// There was no room for more: nothing is looked at before that, milliseconds since the Unix epoch.
    full_until_ms: u64,
}

#[derive(Default)]
struct Known {
    /// As it stands in the rows.
    stands: Option<Progress>,
    /// Its place among the due ones.
    at_ms: Option<u64>,
    /// Messages and bytes of requests that are on their way.
    firing: Option<(usize, usize)>,
    /// Changes by turns that are not committed.
    uncommitted: usize,
    /// Whether it will be there once they are.
    expected: bool,
}

impl Schedules {
    /// Takes note of what a turn changes, which will be committed: none of it, if there would be too many or
    /// one is no schedule.
    pub(super) fn expect(
        &mut self,
        agent: &AgentRef,
        changes: Vec<TurnSchedule>,
        now_ms: u64,
    ) -> Result<Vec<ScheduleChange>, String> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let changes: Vec<_> =
            changes.into_iter().map(|change| checked(change, now_ms)).collect::<Result<_, _>>()?;
        let known = self.known.get(agent);
        let of_agent = known.into_iter().flatten().filter(|(_, known)| known.expected);
        let mut names: BTreeSet<&str> = of_agent.map(|(name, _)| &**name).collect();
        let before = names.len();
        for change in &changes {
            match change {
                ScheduleChange::Set(new) => names.insert(&new.name),
                ScheduleChange::Cancel { name } => names.remove(&**name),
            };
        }
        let after = names.len();
        if after > AGENT_SCHEDULES_MAX && after > before {
            return Err(format!(
                "{agent} would have {after} schedules; an agent has {AGENT_SCHEDULES_MAX} at most"
            ));
        }
        if after > before && self.expected + after - before > REGION_SCHEDULES_MAX {
            return Err(format!(
                "the region's agents have {REGION_SCHEDULES_MAX} schedules, as many as may be"
            ));
        }
        self.expected = self.expected + after - before;
        let known = self.known.entry(agent.clone()).or_default();
        for change in &changes {
            let (name, expected) = match change {
                ScheduleChange::Set(new) => (&new.name, true),
                ScheduleChange::Cancel { name } => (name, false),
            };
            let known = known.entry(name.as_str().into()).or_default();
            known.uncommitted += 1;
            known.expected = expected;
        }
        Ok(changes)
    }

    /// A turn's change is committed.
    fn committed(&mut self, agent: &AgentRef, name: &str) {
        if let Some(known) = self.known.get_mut(agent).and_then(|known| known.get_mut(name)) {
            known.uncommitted = known.uncommitted.saturating_sub(1);
        }
    }

    /// How the schedule stands in the rows.
    fn stands(&mut self, agent: &AgentRef, name: &str, progress: Option<Progress>) {
        if progress.is_none() && !self.known.get(agent).is_some_and(|known| known.contains_key(name)) {
            return;
        }
        let of_agent = self.known.entry(agent.clone()).or_default();
        let (name, mut known) =
            of_agent.remove_entry(name).unwrap_or_else(|| (name.into(), Known::default()));
        if known.uncommitted == 0 && known.expected != progress.is_some() {
            known.expected = progress.is_some();
            self.expected = if known.expected { self.expected + 1 } else { self.expected.saturating_sub(1) };
        }
        if known.stands != progress || known.at_ms.is_none() {
            if let Some(at_ms) = known.at_ms.take() {
                self.due.remove(&(at_ms, agent.clone(), Arc::clone(&name)));
            }
            if let Some(progress) = progress.filter(|_| known.firing.is_none()) {
                known.at_ms = Some(progress.due_ms);
                self.due.insert((progress.due_ms, agent.clone(), Arc::clone(&name)));
            }
        }
        known.stands = progress;
        if progress.is_some() || known.firing.is_some() || known.uncommitted > 0 {
            of_agent.insert(name, known);
        } else if of_agent.is_empty() {
            self.known.remove(agent);
        }
    }

    /// Takes the first that is to be looked at by now.
    fn take_due(&mut self, now_ms: u64) -> Option<(AgentRef, Arc<str>, Progress)> {
        self.due.first().filter(|(at_ms, ..)| *at_ms <= now_ms)?;
        let (_, agent, name) = self.due.pop_first()?;
        let known = self.known.get_mut(&agent)?.get_mut(&name)?;
        known.at_ms = None;
        let progress = known.stands?;
        Some((agent, name, progress))
    }

    /// It is looked at again then.
    fn look_again(&mut self, agent: AgentRef, name: Arc<str>, at_ms: u64) {
        let Some(known) = self.known.get_mut(&agent).and_then(|known| known.get_mut(&name)) else { return };
        known.at_ms = Some(at_ms);
        self.due.insert((at_ms, agent, name));
    }

    fn fires(&mut self, agent: &AgentRef, name: &str, messages: usize, bytes: usize) {
        let Some(known) = self.known.get_mut(agent).and_then(|known| known.get_mut(name)) else { return };
        known.firing = Some((messages, bytes));
        self.firing += 1;
        self.firing_messages += messages;
        self.firing_bytes += bytes;
    }

    fn fires_no_more(&mut self, agent: &AgentRef, name: &str) {
        let known = self.known.get_mut(agent).and_then(|known| known.get_mut(name));
        let Some((messages, bytes)) = known.and_then(|known| known.firing.take()) else { return };
        self.firing = self.firing.saturating_sub(1);
        self.firing_messages = self.firing_messages.saturating_sub(messages);
        self.firing_bytes = self.firing_bytes.saturating_sub(bytes);
    }

    /// When one is to be looked at next, milliseconds since the Unix epoch; none if something else comes first.
    pub(super) fn until(&self) -> Option<u64> {
        let (at_ms, ..) = self.due.first().filter(|_| self.firing < FIRING_AT_ONCE_MAX)?;
        Some((*at_ms).max(self.full_until_ms))
    }
}

/// What a turn asks for, as it is replicated; or what is wrong with it.
fn checked(change: TurnSchedule, now_ms: u64) -> Result<ScheduleChange, String> {
    match change {
        TurnSchedule::Cancel { name } => Ok(ScheduleChange::Cancel { name }),
        TurnSchedule::Set { name, when, missed, agent, method, request } => {
            let first = DueTimes::new(&when).map_err(|error| error.to_string())?.first(now_ms);
            let first_due_ms = first.ok_or_else(|| format!("the schedule '{name}' would never be due"))?;
            let set_ms = now_ms;
            let new = NewSchedule { name, when, missed, to: agent, method, request, first_due_ms, set_ms };
            Ok(ScheduleChange::Set(new))
        }
    }
}

impl Owner {
    /// A new leader's start: takes over the schedules.
    pub(super) fn take_over_schedules(&mut self, found: Vec<(AgentRef, String, Progress)>) {
        let Some(leading) = self.leading.as_mut() else { return };
        for (agent, name, progress) in found {
            leading.schedules.stands(&agent, &name, Some(progress));
        }
    }

    /// What a turn has changed is committed.
    pub(super) fn schedules_committed(&mut self, agent: &AgentRef, changes: &[ScheduleChange]) {
        for change in changes {
            let name = match change {
                ScheduleChange::Set(new) => &new.name,
                ScheduleChange::Cancel { name } => name,
            };
            if let Some(leading) = self.leading.as_mut() {
                leading.schedules.committed(agent, name);
            }
            self.see_schedule(agent, name);
        }
    }

    /// Sees how a schedule stands in the rows by now.
    pub(super) fn see_schedule(&mut self, agent: &AgentRef, name: &str) {
        match schedules::progress(self.replica.rows().as_ref(), agent, name) {
            Ok(progress) => {
                if let Some(leading) = self.leading.as_mut() {
                    leading.schedules.stands(agent, name, progress);
                }
            }
            Err(error) => self.storage_failed(&error.to_string()),
        }
    }

    /// Proposes what schedules send that are due by now.
    pub(super) fn fire_schedules(&mut self, now_ms: u64) {
        for _ in 0..LOOKED_AT_ONCE {
            let Some(leading) = self.leading.as_mut().filter(|leading| leading.ready) else { return };
            let first = leading.schedules.until();
            if first.is_none_or(|at_ms| at_ms > now_ms) {
                return;
            }
            if !leading.has_room_for_firings() {
                leading.schedules.full_until_ms = now_ms + ROOM_PAUSE_MS;
                return;
            }
            let Some((agent, name, progress)) = leading.schedules.take_due(now_ms) else { continue };
            if let Err(error) = self.fire(agent, name, progress, now_ms) {
                return self.storage_failed(&error.to_string());
            }
        }
    }

    fn fire(
        &mut self,
        agent: AgentRef,
        name: Arc<str>,
        progress: Progress,
        now_ms: u64,
    ) -> Result<(), RowsError> {
        let Progress { generation, due_ms, .. } = progress;
        let schedule = schedules::get(self.replica.rows().as_ref(), &agent, &name)?;
        // One that was replaced or cancelled meanwhile is seen again once that is dispatched.
        let Some(schedule) = schedule.filter(|schedule| schedule.generation == generation) else {
            return Ok(());
        };
        let Some(leading) = self.leading.as_mut() else { return Ok(()) };
        let to_itself = schedule.to == agent;
        if to_itself && !self.here.methods.contains_key(agent.agent_type()) {
            leading.schedules.look_again(agent, name, now_ms + WITHOUT_CODE_MS);
            return Ok(());
        }
        if leading.is_full_of_firings(&agent, to_itself) {
            // The outbox stays full for longer: until its receivers can be reached again.
            let pause_ms = if to_itself { ROOM_PAUSE_MS } else { OUTBOX_PAUSE_MS };
            leading.schedules.look_again(agent, name, now_ms + pause_ms);
            return Ok(());
        }
        let times = match DueTimes::new(&schedule.when) {
            Ok(times) => times,
            Err(error) => {
                tracing::error!(%agent, %name, %error, "a schedule waits for a node that can evaluate it");
                leading.schedules.look_again(agent, name, now_ms + WITHOUT_CODE_MS);
                return Ok(());
            }
        };
        let Firing { firings, next_due_ms } = times.fire(schedule.missed, due_ms, now_ms);
        let bytes = firings.len() * schedule.request.len();
        leading.schedules.fires(&agent, &name, firings.len(), bytes);
        let name = name.to_string();
        let op = FireSchedule { agent, name, generation, due_ms, firings, next_due_ms, now_ms };
        leading.wait_for_entry(Pending::Fire { op, schedule });
        Ok(())
    }

    /// What a schedule sends is committed, and so is its next due time.
    pub(super) fn fired(&mut self, op: FireSchedule, schedule: &Schedule, placed: Vec<Placed>) {
        let FireSchedule { agent, name, now_ms, .. } = op;
        for Placed { number, due_ms } in placed {
            if schedule.to == agent {
                let send = schedule.firing(&agent, &name, due_ms, now_ms);
                let Some(leading) = self.leading.as_mut() else { return };
                let bytes = send.request.len();
                leading.enter_inbox(&agent, send.message_id, send.digest, bytes, Acceptance::Stands);
                // Many may be due at once: there has to be room for it.
                self.is_due(agent.clone(), send);
            } else {
                self.send_lies_in_outbox(
                    (agent.clone(), schedule.to.clone()),
                    number,
                    schedule.request.len(),
                );
            }
        }
        self.is_not_firing(&agent, &name);
    }

    /// A schedule was replaced or cancelled before its firing was applied.
    pub(super) fn not_fired(&mut self, op: &FireSchedule) {
        self.is_not_firing(&op.agent, &op.name);
    }

    fn is_not_firing(&mut self, agent: &AgentRef, name: &str) {
        if let Some(leading) = self.leading.as_mut() {
            leading.schedules.fires_no_more(agent, name);
        }
        self.see_schedule(agent, name);
    }

    /// Proposes that a person cancels a schedule. Whoever waits hears that nothing is known if this replica
    /// does not lead.
    pub(super) fn cancel_schedule(&mut self, op: CancelSchedule, cancelled: oneshot::Sender<bool>) {
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.ready) {
            leading.wait_for_entry(Pending::CancelSchedule { op, cancelled });
        }
    }
}

impl Leading {
    /// Whether the region may take in what one more operation of a schedule sends.
    fn has_room_for_firings(&self) -> bool {
        let firing = self.with_one_more_firing();
        self.load.messages + firing.messages <= IN_FLIGHT_MESSAGES_MAX
            && self.inbox.has_room_at_all(firing)
            && self.outbox.has_room_at_all(firing)
    }

    /// What is on its way into an entry, which may go either way.
    fn with_one_more_firing(&self) -> Amount {
        Amount::of(self.schedules.firing_messages + 1, self.schedules.firing_bytes)
    }

    /// Whether as many messages wait for the agent, or are sent by agents of its type, as may.
    fn is_full_of_firings(&self, agent: &AgentRef, to_itself: bool) -> bool {
        if !to_itself {
            return !self.outbox.has_room(agent.agent_type(), self.with_one_more_firing());
        }
        let sending = Sending { sender: Some(agent.clone()), due_ms: 0, after: None };
        !self.inbox.has_room(agent.agent_type(), self.with_one_more_firing())
            || self.mailbox_full(agent, 0, 0).is_some()
            || self.is_held_full(agent, &sending)
            || self.parked.contains(agent)
    }
}
