//! The schedules of a [`super::TestGrid`]: as in a region, without its rows.

use crate::{
    call::Target,
    due_times::{DueTimes, Firing},
    host::{TurnFailure, TurnSchedule},
    schedule::ScheduleError,
};
use afdg_types::{AgentRef, MessageId, Missed, When, limits::AGENT_SCHEDULES_MAX};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Schedules {
    standing: BTreeMap<(AgentRef, String), Standing>,
    generations: u64,
}

#[derive(Clone)]
struct Standing {
    generation: u64,
    when: When,
    missed: Missed,
    target: Target,
    due_ms: u64,
}

impl Schedules {
    /// Does what a turn asks for, all or nothing.
    pub(super) fn change(
        &mut self,
        agent: &AgentRef,
        changes: Vec<TurnSchedule>,
        now_ms: u64,
    ) -> Result<(), TurnFailure> {
        let mut standing = self.standing.clone();
        for change in changes {
            match change {
                TurnSchedule::Cancel { name } => {
                    standing.remove(&(agent.clone(), name));
                }
                TurnSchedule::Set { name, when, missed, agent: to, method, request } => {
                    let first = DueTimes::new(&when).map(|times| times.first(now_ms));
                    let first = first.and_then(|first| first.ok_or(ScheduleError::NeverDue));
                    let first_ms = first.map_err(|error| TurnFailure::TooLarge(error.to_string()))?;
                    let key = (agent.clone(), name);
                    let earlier = standing.get(&key).filter(|earlier| earlier.when == when);
                    let due_ms = earlier.map_or(first_ms, |earlier| earlier.due_ms);
                    self.generations += 1;
                    let target = Target { agent: to, method, request };
                    let generation = self.generations;
                    standing.insert(key, Standing { generation, when, missed, target, due_ms });
                }
            }
        }
        let count = standing.keys().filter(|(of, _)| of == agent).count();
        if count > AGENT_SCHEDULES_MAX {
            let text =
                format!("{agent} would have {count} schedules; an agent has {AGENT_SCHEDULES_MAX} at most");
            return Err(TurnFailure::TooLarge(text));
        }
        self.standing = standing;
        Ok(())
    }

    pub(super) fn first_due_ms(&self) -> Option<u64> {
        self.standing.values().map(|standing| standing.due_ms).min()
    }

    /// What the schedule sends that is due first, for each of its due times.
    pub(super) fn fire_first(&mut self, now_ms: u64) -> Vec<(u64, MessageId, Target)> {
        let first = self.standing.iter().min_by_key(|(_, standing)| standing.due_ms);
        let Some((key, Standing { generation, when, missed, target, due_ms })) =
            first.map(|(key, standing)| (key.clone(), standing.clone()))
        else {
            return Vec::new();
        };
        let fire = |times: DueTimes| times.fire(missed, due_ms, now_ms);
        let nothing = Firing { firings: Vec::new(), next_due_ms: None };
        let Firing { firings, next_due_ms } = DueTimes::new(&when).map_or(nothing, fire);
        match (next_due_ms, self.standing.get_mut(&key)) {
            (Some(next_ms), Some(standing)) => standing.due_ms = next_ms,
            _ => {
                self.standing.remove(&key);
            }
        }
        let (agent, name) = key;
        let id = |due_ms| MessageId::of_firing(&agent, &name, generation, due_ms);
        firings.into_iter().map(|due_ms| (due_ms, id(due_ms), target.clone())).collect()
    }

    pub(super) fn of(&self, agent: &AgentRef) -> Vec<(String, u64)> {
        let of_agent = self.standing.iter().filter(|((of, _), _)| of == agent);
        of_agent.map(|((_, name), standing)| (name.clone(), standing.due_ms)).collect()
    }
}
