//! Calls that come back to an agent of their own chain enter while its turn waits for them, where its type says
//! so ([`crate::executor::reentry`] has the rules).
//!
//! A call enters only while the outer turn waits for the very call that led to it: each call carries the ids of
//! those by which agents of its chain wait. A turn that a new leader runs again may not be there yet; what comes
//! meanwhile waits until it is. By then it has read what it read the first time, so the inner turn is judged the
//! same.
//!
//! Inner turns of an agent run one at a time. They are not recorded, since they call nobody, and take no place
//! among their type's turns: the outer turn has one. What has not entered when the outer turn ends, or has not
//! ended, has its turn as any other message, before all others.

use super::{
    admission::Admission,
    leading::{AgentState, Leading, Message, Running},
    owner::Owner,
    run::Role,
};
use crate::executor::RunFailure;
use afdg_agent::host::TurnOutput;
use afdg_types::{AgentRef, Reason};

impl Owner {
    /// A call has come back to an agent whose turn runs.
    pub(super) fn let_in(&mut self, agent: AgentRef, message: Message) {
        let Some(leading) = self.leading.as_mut() else { return };
        leading.load.count_in(agent.agent_type(), message.bytes);
        let state = leading.agents.entry(agent.clone()).or_default();
        state.entering.get_or_insert_default().waiting.push_back(message);
        leading.reentered.insert(agent.clone());
        self.enter_next(&agent);
    }

    /// Lets in what waits for turns that have come to where they wait by now.
    pub(super) fn look_for_reentries(&mut self) {
        let Some(leading) = self.leading.as_ref().filter(|leading| !leading.reentered.is_empty()) else {
            return;
        };
        for agent in leading.reentered.clone() {
            self.enter_next(&agent);
        }
    }

    fn enter_next(&mut self, agent: &AgentRef) {
        let Some(leading) = self.leading.as_mut() else { return };
        let Some(state) = leading.agents.get_mut(agent) else { return };
        let Some(message) = state.take_entering() else { return };
        let (now_ms, seed) = (self.here.world.clock.now_ms(), self.here.world.entropy.random_u64());
        self.start_turn(agent, message, now_ms, seed, Role::Inner);
    }

    pub(super) fn inner_turn_ended(
        &mut self,
        agent: &AgentRef,
        inner: Running,
        result: Result<TurnOutput, RunFailure>,
    ) {
        let state = self.leading.as_ref().and_then(|leading| leading.agents.get(agent));
        let outer = state.and_then(|state| state.running.as_ref());
        let Some(reentry) = outer.and_then(|outer| outer.reentry.clone()) else { return };
        let number = inner.number;
        let taken = self.take_effects(agent, inner, result, |writes| {
            let conflict = |entity: String| (Reason::ReentrantConflict, conflict_of(agent, &entity));
            reentry.enter(number, writes).map_err(conflict)
        });
        if taken {
            self.enter_next(agent);
        }
    }
}

fn conflict_of(agent: &AgentRef, entity: &str) -> String {
    format!(
        "the message has entered {agent} while a turn of it waits for this call chain, and would have changed the \
         entity '{entity}', which that turn has read: nothing of it was done. Let it change other entities, have \
         the waiting turn read after its call, or send instead of calling"
    )
}

impl Leading {
    /// Whether the message is a call of an agent that waits for the one that it calls, whose turn runs.
    pub(super) fn has_come_back(&self, admission: &Admission) -> bool {
        let Admission { agent, chain, .. } = admission;
        chain.contains(agent) && self.agents.get(agent).is_some_and(|state| state.running.is_some())
    }

    /// What has come back to the agent and has not ended is a message like others from now on.
    pub(super) fn outer_turn_ended(&mut self, agent: &AgentRef, outer: &mut Running) {
        let Some(state) = self.agents.get_mut(agent) else { return };
        // Its writes lie over those of the inner turns, which have later numbers; also of those that wrote
        // nothing, whose commit would have its writes forgotten before they are committed themselves.
        if outer.reentry.is_some() {
            outer.number = self.next_turn;
            self.next_turn += 1;
        }
        let Some(entering) = state.entering.take() else { return };
        self.reentered.remove(agent);
        for message in entering.waiting.into_iter().rev() {
            state.queue.push_front(message);
        }
        if let Some(inner) = entering.running {
            state.queue.push_front(inner.message.clone());
        }
    }
}

impl AgentState {
    /// Whether the turn that runs waits for one of the calls that led to the message.
    pub(super) fn lets_in(&self, message: &Message) -> bool {
        let running = self.running.as_ref().filter(|running| running.reentry.is_some());
        running.is_some_and(|running| running.calls.waits_for_any(&message.reentries))
    }

    /// The next message that enters, if none has that runs.
    fn take_entering(&mut self) -> Option<Message> {
        let entering = self.entering.as_ref().filter(|entering| entering.running.is_none())?;
        let place = entering.waiting.iter().position(|message| self.lets_in(message))?;
        self.entering.as_mut()?.waiting.remove(place)
    }
}
