//! What agents are doing and what they wait for, for people: answered by the owner from memory, bounded.

use super::{
    leading::{AgentState, Message, Running},
    owner::Owner,
};
use crate::executor::calls::WaitingCall;
use afdg_proto::pb::internal::{
    BlockedAgent, ListBlockedAgentsResponse, QueuedMessage, RunningTurn, WaitedCall,
};
use afdg_types::{AgentRef, MessageId};
use bytes::Bytes;
use std::cmp::Reverse;
use tokio::time::Instant;

/// Calls of a turn that are shown at most.
const CALLS_SHOWN_MAX: usize = 32;
/// Messages that wait for an agent's turn that are shown at most.
const QUEUED_SHOWN_MAX: usize = 10;

/// What one agent is doing.
pub struct Activity {
    /// `idle`, `running` or `calling`.
    pub word: &'static str,
    pub turn: Option<RunningTurn>,
    /// Messages that wait for their turn.
    pub waiting: usize,
    /// Of those, how many stand behind one of their sender that has failed.
    pub held: usize,
    /// The first of those that wait for nothing but the agent's turn.
    pub next: Vec<QueuedMessage>,
}

impl Activity {
    fn of(state: Option<&AgentState>, now: Instant) -> Self {
        let turn = state.and_then(|state| state.running.as_ref());
        let turn = turn.map(|running| shown(running, running.calls.waiting(), CALLS_SHOWN_MAX, now));
        Self {
            word: match &turn {
                Some(turn) if turn.calls_count > 0 => "calling",
                Some(_) => "running",
                None => "idle",
            },
            turn,
            waiting: state.map_or(0, AgentState::waiting),
            held: state.map_or(0, |state| state.held.values().map(|held| held.len()).sum()),
            next: state.map_or_else(Vec::new, |state| {
                state.queue.iter().take(QUEUED_SHOWN_MAX).map(queued).collect()
            }),
        }
    }
}

impl Owner {
    /// What an agent is doing; none if this replica does not lead.
    pub(super) fn activity_of(&self, agent: &AgentRef) -> Option<Activity> {
        let leading = self.leading.as_ref().filter(|leading| leading.ready)?;
        let mut activity = Activity::of(leading.agents.get(agent), Instant::now());
        activity.waiting += leading.parked.len(agent);
        Some(activity)
    }

    /// The agents whose turns have waited for a call for longest, at most `limit`; those of `agent_type`, if it
    /// is not empty, come before all others. None if this replica does not lead.
    pub(super) fn blocked_agents(&self, agent_type: &str, limit: usize) -> Option<ListBlockedAgentsResponse> {
        let leading = self.leading.as_ref().filter(|leading| leading.ready)?;
        let now = Instant::now();
        let blocked = leading.agents.iter().filter_map(|(agent, state)| {
            let running = state.running.as_ref()?;
            let since = running.calls.waiting_since()?;
            Some((agent.agent_type() != agent_type, since, agent, state, running))
        });
        let mut blocked: Vec<_> = blocked.collect();
        blocked.sort_unstable_by_key(|(is_other, since, ..)| (*is_other, *since));
        let more = blocked.len() > limit;
        blocked.truncate(limit);
        let agents = blocked.into_iter().map(|(_, _, agent, state, running)| BlockedAgent {
            agent: agent.to_string(),
            turn: Some(shown(running, running.calls.waiting(), 1, now)),
            behind: (state.waiting() + leading.parked.len(agent)) as u32,
        });
        Some(ListBlockedAgentsResponse { agents: agents.collect(), more })
    }
}

fn shown(running: &Running, mut calls: Vec<WaitingCall>, calls_max: usize, now: Instant) -> RunningTurn {
    calls.sort_by_key(|call| Reverse(now.duration_since(call.since)));
    let calls_count = calls.len() as u32;
    calls.truncate(calls_max);
    let message = &running.message;
    RunningTurn {
        method: message.method.clone(),
        message_id: id(message.message_id),
        running_ms: elapsed_ms(running.since, now),
        recorded: running.recorded,
        sender: sender_of(message),
        calls: calls.into_iter().map(|call| waited(&call, now)).collect(),
        calls_count,
    }
}

fn waited(call: &WaitingCall, now: Instant) -> WaitedCall {
    WaitedCall {
        callee: call.callee.to_string(),
        method: call.method.to_string(),
        message_id: id(call.id),
        waiting_ms: elapsed_ms(call.since, now),
    }
}

fn queued(message: &Message) -> QueuedMessage {
    QueuedMessage {
        method: message.method.clone(),
        message_id: id(message.message_id),
        sender: sender_of(message),
        sent: message.send.is_some(),
    }
}

/// The agent that waits for the message, or sent it; empty for a client's.
fn sender_of(message: &Message) -> String {
    let sent_by = message.send.as_ref().and_then(|send| send.sender.as_ref());
    sent_by.or(message.chain.last()).map(AgentRef::to_string).unwrap_or_default()
}

fn id(id: MessageId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn elapsed_ms(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.duration_since(since).as_millis()).unwrap_or(u64::MAX)
}
