//! Accepted sends whose time has come: from the rows into their agents' queues, as far as there is room.
//!
//! What was held back, failed, or stood in the inbox when a new leader began was let in before, at its time,
//! and there may be any number of it. So while half of what an agent, its type or the region may have in flight
//! is taken, the rest waits in the rows; the other half is left to what arrives. A few agents of a type that have
//! none of their sends in their queues get one all the same, however much arrives: so many that a quarter of what
//! the type may have in flight is still left. An agent's sends that wait so keep their order, and nothing that
//! arrives for it later goes before them but calls.

use super::{leading::Leading, owner::Owner, sends::message_of};
use afdg_region_machine::table::inbox::{self, AcceptedSend};
use afdg_types::{AgentRef, MessageId, Rows, RowsError, TypeLimit, limits};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    time::Duration,
};
use tokio::time::Instant;

/// Sends that become due are put into their agents' queues so many at a time.
const DUE_AT_ONCE: usize = 1_024;
/// Messages in flight in the region up to which sends that are due are let in.
const IN_FLIGHT_MESSAGES_MAX: usize = limits::REGION_IN_FLIGHT_MESSAGES_MAX / 2;
/// Bytes of requests.
const IN_FLIGHT_BYTES_MAX: usize = limits::REGION_IN_FLIGHT_BYTES_MAX / 2;
/// Agents of one type that have one of their sends in their queues although there was no room for it.
const WITHOUT_ROOM_MAX: usize = 64;
/// Sends that are read from the rows at one look although the region has no room.
const READ_WITHOUT_ROOM_MAX: usize = 64;
/// Pause before it is looked again whether there is room.
const ROOM_PAUSE_MS: u64 = 20;
/// For so many agents whose sends wait, the pause is a millisecond longer.
const AGENTS_A_MS: u64 = 256;

/// By agent, the sends that are due and find no room, in order.
#[derive(Default)]
pub struct Parked {
    agents: BTreeMap<AgentRef, VecDeque<MessageId>>,
    /// Nothing is looked at before that, milliseconds since the Unix epoch.
    until_ms: u64,
    /// It had its turn last.
    last: Option<AgentRef>,
    /// By type, the agents that were let in without room, until that send is done.
    without_room: BTreeMap<String, BTreeMap<AgentRef, MessageId>>,
}

impl Parked {
    pub fn contains(&self, agent: &AgentRef) -> bool {
        self.agents.contains_key(agent)
    }

    /// Of the agent.
    pub fn len(&self, agent: &AgentRef) -> usize {
        self.agents.get(agent).map_or(0, VecDeque::len)
    }

    /// The agent after the one that had its turn last; after the last one the first.
    fn next_in_turn(&self) -> Option<AgentRef> {
        let last = self.last.as_ref();
        let behind =
            last.and_then(|last| self.agents.range((Bound::Excluded(last), Bound::Unbounded)).next());
        behind.or_else(|| self.agents.iter().next()).map(|(agent, _)| agent.clone())
    }

    fn is_let_in_without_room(&mut self, agent: &AgentRef, id: MessageId) {
        let agents = self.without_room.entry(agent.agent_type().to_owned()).or_default();
        agents.insert(agent.clone(), id);
    }

    fn pause(&mut self, now_ms: u64) {
        self.until_ms = now_ms + ROOM_PAUSE_MS + self.agents.len() as u64 / AGENTS_A_MS;
    }
}

impl Owner {
    /// Starts what is due by now.
    pub(super) fn fire_due(&mut self) {
        let now_ms = self.here.world.clock.now_ms();
        if let Err(error) = self.let_in_parked(now_ms).and_then(|()| self.let_in_due(now_ms)) {
            return self.storage_failed(&error.to_string());
        }
        self.resume_lanes(now_ms);
        self.fire_schedules(now_ms);
    }

    fn let_in_due(&mut self, now_ms: u64) -> Result<(), RowsError> {
        for number in 0..DUE_AT_ONCE {
            let Some(leading) = self.leading.as_mut().filter(|leading| leading.ready) else { return Ok(()) };
            let due = leading.due.first().copied().filter(|(due_ms, ..)| *due_ms <= now_ms);
            let Some((_, _, id)) = due.filter(|_| now_ms >= leading.due_full_until_ms) else { return Ok(()) };
            if number >= READ_WITHOUT_ROOM_MAX && !leading.region_has_room() {
                leading.due_full_until_ms = now_ms + ROOM_PAUSE_MS;
                return Ok(());
            }
            leading.due.pop_first();
            if let Some((agent, send)) = stored(self.replica.rows().as_ref(), id)? {
                self.is_due(agent, send);
            }
        }
        Ok(())
    }

    /// Puts a send of the inbox into its agent's queue; without room it is parked.
    pub(super) fn is_due(&mut self, agent: AgentRef, send: AcceptedSend) {
        let now_ms = self.here.world.clock.now_ms();
        let Some(leading) = self.leading.as_mut() else { return };
        let is_behind = send.attempts == 0 && leading.parked.contains(&agent);
        if !is_behind && leading.agent_has_room(&agent) {
            return self.enqueue(agent, message_of(send));
        }
        if leading.parked.agents.is_empty() {
            leading.parked.pause(now_ms);
        }
        let parked = leading.parked.agents.entry(agent).or_default();
        // What failed goes first: its sender's later ones wait for it.
        match send.attempts {
            0 => parked.push_back(send.message_id),
            _ => parked.push_front(send.message_id),
        }
    }

    /// Lets in what is parked, as far as there is room by now.
    fn let_in_parked(&mut self, now_ms: u64) -> Result<(), RowsError> {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.ready) else { return Ok(()) };
        if leading.parked.agents.is_empty() || now_ms < leading.parked.until_ms {
            return Ok(());
        }
        leading.forget_those_done();
        let mut let_in = 0;
        'look: for _ in 0..leading.parked.agents.len() {
            let next = self.leading.as_ref().and_then(|leading| leading.parked.next_in_turn());
            let Some(agent) = next else { break };
            loop {
                let Some(leading) = self.leading.as_mut() else { return Ok(()) };
                let has_room = leading.agent_has_room(&agent);
                if let_in >= DUE_AT_ONCE {
                    break 'look;
                }
                if !has_room && !leading.may_have_one(&agent) {
                    break;
                }
                let first = leading.parked.agents.get_mut(&agent).and_then(VecDeque::pop_front);
                let Some(first) = first else {
                    leading.parked.agents.remove(&agent);
                    break;
                };
                if leading.parked.len(&agent) == 0 {
                    leading.parked.agents.remove(&agent);
                }
                let_in += 1;
                if !has_room {
                    leading.parked.is_let_in_without_room(&agent, first);
                }
                if let Some((_, send)) = stored(self.replica.rows().as_ref(), first)? {
                    self.enqueue(agent.clone(), message_of(send));
                }
            }
            if let Some(leading) = self.leading.as_mut() {
                leading.parked.last = Some(agent);
            }
        }
        if let Some(leading) = self.leading.as_mut() {
            leading.parked.pause(now_ms);
        }
        Ok(())
    }

    /// How long until something is due; none if nothing will be.
    pub(super) fn until_due(&self) -> Option<Duration> {
        let leading = self.leading.as_ref().filter(|leading| leading.ready)?;
        let send = leading.due.first().map(|(due_ms, ..)| (*due_ms).max(leading.due_full_until_ms));
        let parked = (!leading.parked.agents.is_empty()).then_some(leading.parked.until_ms);
        let lane = leading.lanes_due.first().map(|(due_ms, _)| *due_ms);
        let due = [send, parked, lane, leading.schedules.until()];
        let due_ms = due.into_iter().flatten().min();
        let until_ms = due_ms.map(|due_ms| due_ms.saturating_sub(self.here.world.clock.now_ms()));
        let due = [until_ms.map(Duration::from_millis), leading.until_accepted(Instant::now())];
        due.into_iter().flatten().min()
    }
}

impl Leading {
    fn region_has_room(&self) -> bool {
        self.load.messages < IN_FLIGHT_MESSAGES_MAX && self.load.bytes < IN_FLIGHT_BYTES_MAX
    }

    fn agent_has_room(&self, agent: &AgentRef) -> bool {
        if !self.region_has_room() || self.load.is_half_full(agent.agent_type()) {
            return false;
        }
        let Some(state) = self.agents.get(agent) else { return true };
        let limits = self.load.limits_of(agent.agent_type());
        state.queue.is_empty()
            || (state.queue.len() < limits.size(TypeLimit::MailboxMessages).div_ceil(2)
                && state.queue.bytes() < limits.size(TypeLimit::MailboxBytes).div_ceil(2))
    }

    /// Whether an agent without room gets one of its sends all the same.
    fn may_have_one(&self, agent: &AgentRef) -> bool {
        let limits = self.load.limits_of(agent.agent_type());
        let quarter = limits.size(TypeLimit::InFlightMessages).div_ceil(4);
        let known = self.parked.without_room.get(agent.agent_type());
        let is_one_of_few = known
            .is_none_or(|agents| agents.len() < quarter.min(WITHOUT_ROOM_MAX) && !agents.contains_key(agent));
        is_one_of_few && !self.has_send_in_queue(agent)
    }

    /// Those whose send is committed; or has failed, and waits for its next attempt.
    fn forget_those_done(&mut self) {
        let mut without_room = std::mem::take(&mut self.parked.without_room);
        without_room.retain(|_, agents| {
            agents.retain(|agent, id| {
                let uncommitted = self.agents.get(agent).is_some_and(|state| state.uncommitted > 0);
                self.knows(*id) && (uncommitted || self.has_send_in_queue(agent))
            });
            !agents.is_empty()
        });
        self.parked.without_room = without_room;
    }

    /// Whether one of those that wait for the agent's turn, or have it, is a send.
    fn has_send_in_queue(&self, agent: &AgentRef) -> bool {
        let Some(state) = self.agents.get(agent) else { return false };
        let running = state.running.as_ref().map(|running| &running.message);
        running.into_iter().chain(state.queue.iter()).any(|message| message.send.is_some())
    }
}

fn stored(rows: &dyn Rows, id: MessageId) -> Result<Option<(AgentRef, AcceptedSend)>, RowsError> {
    let Some(place) = inbox::place(rows, id)? else { return Ok(None) };
    let send = inbox::get(rows, &place)?;
    Ok(Some((place.agent, send)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_agents_take_turns_also_as_they_come_and_go() {
        let agent = |key: &str| AgentRef::new("t.T", key).unwrap();
        let mut parked = Parked::default();
        assert_eq!(parked.next_in_turn(), None);
        for key in ["a", "b", "c"] {
            parked.agents.insert(agent(key), VecDeque::new());
        }
        let mut turns = Vec::new();
        for removed in [None, None, Some("c"), None, Some("a"), None] {
            let next = parked.next_in_turn().unwrap();
            turns.push(next.key().to_owned());
            parked.last = Some(next);
            if let Some(key) = removed {
                parked.agents.remove(&agent(key));
            }
        }
        assert_eq!(turns, ["a", "b", "c", "a", "b", "b"]);
    }
}
