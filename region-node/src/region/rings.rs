//! Agents that wait for one another in a ring, formed by independent calls, are found and set free.
//!
//! Each region looks four times a second for turns that wait for a call while others' calls wait for them, and at
//! once where a call comes from an agent that the turn waits for itself. From each goes a probe along what they wait
//! for, from region to region (Chandy, Misra and Haas, Distributed Deadlock Detection, 1983). One that comes back to
//! its beginning has seen a ring; since its parts were seen at different times, it goes round once more. A call is
//! made once and answered once, so a wait that was there both times was there in between, and all of them were at
//! once: no alarm is false. Then one call of the ring, which all that look at it agree upon, is refused before its
//! turn: nothing of it was done, its caller is told the whole ring, and the refusal is recorded like any answer. Once
//! that caller's turn has ended, its agent takes the calls of the ring's agents first: behind another turn they would
//! close the ring again.

use super::{
    admission::Admission,
    leading::{AgentState, Running},
    owner::Owner,
};
use crate::executor::calls::{MET_RING, WaitingCall};
use afdg_router::OutgoingMessage;
use afdg_types::{
    AgentRef, MessageId, Probe, ProbeStage, Purpose, Reason, Wait, limits,
    planted::{Bug, planted},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often a region looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A call is waited for that long before it is suspected.
const SUSPECTED_AFTER: Duration = Duration::from_millis(200);
/// Probes that one look sends at most.
const PROBES_MAX: usize = 256;
/// How long a probe looks for the next region.
const PROBE_MS_MAX: u64 = 2_000;

impl Owner {
    /// Sends probes from the turns that wait while others wait for them.
    pub(super) fn look_for_rings(&self) {
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.ready) else { return };
        if planted(Bug::RingsLeft) {
            return;
        }
        let now = Instant::now();
        let suspects = leading.agents.iter().filter(|(_, state)| is_waited_for(state));
        let waits = suspects.flat_map(|(agent, state)| waits_of(agent, state));
        let long = waits.filter(|(_, since)| now.duration_since(*since) >= SUSPECTED_AFTER);
        for (wait, _) in long.take(PROBES_MAX) {
            self.send_probe(wait.callee.clone(), wait.call, vec![wait], ProbeStage::Search);
        }
    }

    /// Sends probes where a call to the agent has come from one that the agent's turn waits for. Of two such calls
    /// the one that comes later finds both in their queues.
    pub(super) fn look_for_ring_with(&self, agent: &AgentRef, chain: &[AgentRef]) {
        let Some(leading) = self.leading.as_ref() else { return };
        let Some(state) = leading.agents.get(agent).filter(|_| !planted(Bug::RingsLeft)) else { return };
        let Some(running) = state.running.as_ref().filter(|running| running.recorded) else { return };
        for call in running.calls.waiting_for(chain) {
            let wait = wait_of(agent, running, call);
            self.send_probe(wait.callee.clone(), wait.call, vec![wait], ProbeStage::Search);
        }
    }

    /// A probe has arrived.
    pub(super) fn probe(&self, admission: Admission, probe: Probe) -> Option<(AgentRef, MessageId, String)> {
        let Admission { agent, message_id, reply_to, .. } = admission;
        reply_to.accepted();
        let state = self.leading.as_ref()?.agents.get(&agent)?;
        let Probe { mut waits, stage } = probe;
        match stage {
            ProbeStage::Search => {
                let last = waits.last_mut()?;
                last.queued = how_it_waits(state, last.call)?;
                let turn = state.running.as_ref()?.message.message_id;
                if waits.iter().any(|wait| wait.agent == agent) {
                    // Whoever stands in a ring finds it: a probe that only leads into one ends here.
                    let first = waits.first()?;
                    if first.agent == agent && first.turn == turn {
                        let (callee, call) = (first.callee.clone(), first.call);
                        self.send_probe(callee, call, waits, ProbeStage::Confirm(0));
                    }
                    return None;
                }
                if waits.len() < limits::CALL_CHAIN_AGENTS_MAX {
                    let now = Instant::now();
                    for (wait, since) in waits_of(&agent, state) {
                        // Of those that are not suspected by themselves only the one that closes the ring.
                        let is_old = now.duration_since(since) >= SUSPECTED_AFTER;
                        if !is_old && waits.iter().all(|earlier| earlier.agent != wait.callee) {
                            continue;
                        }
                        let (callee, call) = (wait.callee.clone(), wait.call);
                        let longer = waits.iter().cloned().chain([wait]).collect();
                        self.send_probe(callee, call, longer, ProbeStage::Search);
                    }
                }
                None
            }
            ProbeStage::Confirm(at) => {
                how_it_waits(state, waits.get(at)?.call)?;
                let next = waits.get((at + 1) % waits.len())?;
                let still =
                    waits_of(&agent, state).any(|(wait, _)| (wait.turn, wait.call) == (next.turn, next.call));
                if !still {
                    return None;
                }
                if at + 1 < waits.len() {
                    let (callee, call) = (next.callee.clone(), next.call);
                    self.send_probe(callee, call, waits, ProbeStage::Confirm(at + 1));
                    return None;
                }
                let victim = waits.iter().filter(|wait| wait.queued).max_by_key(|wait| wait.call)?;
                let (callee, call) = (victim.callee.clone(), victim.call);
                self.send_probe(callee, call, waits, ProbeStage::Break);
                None
            }
            ProbeStage::Break => Some((agent, message_id, ring_of(&waits))),
        }
    }

    /// Refuses a call that waits for its turn, to set a ring free.
    pub(super) fn break_ring(&mut self, agent: AgentRef, call: MessageId, ring: &str) {
        let text = format!(
            "{MET_RING}: {ring}. It has had no effect; once this turn has ended, another one may make it again. Call \
             in one order only, or send instead of calling"
        );
        if self.refuse_waiting(&agent, call, Reason::CallCycle, text) {
            tracing::info!(%agent, id = %call, ring, "a call is refused: agents waited for one another in a ring");
        }
    }

    fn send_probe(&self, to: AgentRef, id: MessageId, waits: Vec<Wait>, stage: ProbeStage) {
        let message = OutgoingMessage {
            agent: to,
            method: String::new(),
            request: Bytes::new(),
            id,
            deadline: Some(Instant::now() + Duration::from_millis(PROBE_MS_MAX)),
            chain: Vec::new(),
            reentries: Vec::new(),
            purpose: Purpose::Probe(Probe { waits, stage }),
        };
        let router = Arc::clone(&self.here.router);
        // One that is lost is sent again with the next look.
        tokio::spawn(async move { router.call(message).await });
    }
}

/// Whether an agent's turn waits for a call while an agent's call waits for it.
fn is_waited_for(state: &AgentState) -> bool {
    let running = state.running.as_ref().filter(|running| running.recorded);
    running.is_some_and(|running| {
        let entering = state.entering.iter().flat_map(|entering| &entering.waiting);
        let mut waiting = state.queue.iter().chain(entering);
        !running.message.chain.is_empty() || waiting.any(|message| !message.chain.is_empty())
    })
}

/// What the agent's running turn waits for, and since when.
fn waits_of(agent: &AgentRef, state: &AgentState) -> impl Iterator<Item = (Wait, Instant)> {
    let running = state.running.as_ref().filter(|running| running.recorded);
    running.into_iter().flat_map(move |running| {
        let calls = running.calls.waiting().into_iter();
        calls.map(move |call| {
            let since = call.since;
            (wait_of(agent, running, call), since)
        })
    })
}

fn wait_of(agent: &AgentRef, running: &Running, call: WaitingCall) -> Wait {
    let turn = running.message.message_id;
    Wait { agent: agent.clone(), turn, call: call.id, callee: call.callee, queued: false }
}

/// Whether the call waits in the queue; none if it does not wait here at all.
fn how_it_waits(state: &AgentState, call: MessageId) -> Option<bool> {
    if state.running.as_ref().is_some_and(|running| running.message.message_id == call) {
        return Some(false);
    }
    if let Some(entering) = &state.entering
        && let Some(message) = entering.waiting.iter().find(|message| message.message_id == call)
    {
        // One that may enter does not wait for the turn that runs.
        return (!state.lets_in(message)).then_some(true);
    }
    state.queue.iter().any(|message| message.message_id == call).then_some(true)
}

/// `a -> b -> a`.
fn ring_of(waits: &[Wait]) -> String {
    let first = waits.first().map(|wait| &wait.agent);
    let agents: Vec<&str> = waits.iter().map(|wait| &wait.agent).chain(first).map(AgentRef::as_str).collect();
    agents.join(" -> ")
}
