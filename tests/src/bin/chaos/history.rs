//! What clients have called and what they were answered, agent by agent.

use crate::caller::{Called, Outcome, lock};
use afdg_tests::linearizability::{History, Model, Operation};
use rand::{Rng, rngs::StdRng};
use std::{collections::BTreeMap, sync::Mutex};

/// The histories of all agents of one kind.
pub struct Book<M: Model> {
    agents: Mutex<BTreeMap<String, History<M>>>,
    /// Agents that are called at the moment.
    current: Mutex<Vec<Current>>,
    limits: Limits,
}

#[derive(Clone, Copy)]
pub struct Limits {
    /// What agents are named after.
    pub name: &'static str,
    /// Agents called at a time.
    pub agents: usize,
    /// Operations of an agent, after which another takes its place: histories that are short are checked
    /// quickly.
    pub operations_max: usize,
    /// Operations of unknown outcome of an agent; each doubles at worst what has to be tried.
    pub unknown_max: usize,
}

#[derive(Default)]
struct Current {
    generation: usize,
    operations: usize,
    unknown: usize,
}

impl<M: Model> Book<M> {
    pub fn new(limits: Limits) -> Self {
        let current = (0..limits.agents).map(|_| Current::default()).collect();
        Self { agents: Mutex::default(), current: Mutex::new(current), limits }
    }

    /// The next agent to be called.
    pub fn agent(&self, random: &mut StdRng) -> String {
        let place = random.random_range(0..self.limits.agents);
        let mut current = lock(&self.current);
        let now = &mut current[place];
        if now.operations >= self.limits.operations_max || now.unknown >= self.limits.unknown_max {
            *now = Current { generation: now.generation + 1, ..Current::default() };
        }
        now.operations += 1;
        format!("{}-{place}-{}", self.limits.name, now.generation)
    }

    /// Notes how an operation went. `answer` of the response is what the model knows.
    pub fn note<A>(
        &self,
        agent: &str,
        client: u32,
        op: M::Op,
        called: &Called<A>,
        answer: impl Fn(&A) -> M::Answer,
    ) {
        let answered = match &called.outcome {
            Outcome::Answered(response) => Some((called.ended, answer(response))),
            Outcome::Unknown if !M::is_read(&op) => {
                self.count_unknown(agent);
                None
            }
            // Nothing happened, or nothing was seen.
            Outcome::Unknown | Outcome::NoEffect | Outcome::Cancelled => return,
        };
        let operation = Operation { client, op, called: called.called, answered };
        lock(&self.agents).entry(agent.to_owned()).or_default().push(operation);
    }

    fn count_unknown(&self, agent: &str) {
        for (place, now) in lock(&self.current).iter_mut().enumerate() {
            if agent == format!("{}-{place}-{}", self.limits.name, now.generation) {
                now.unknown += 1;
            }
        }
    }

    pub fn name(&self) -> &'static str {
        self.limits.name
    }

    pub fn agents(&self) -> Vec<String> {
        lock(&self.agents).keys().cloned().collect()
    }

    pub fn histories(&self) -> BTreeMap<String, History<M>> {
        lock(&self.agents).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_tests::linearizability::{Counter, CounterOp};
    use rand::SeedableRng;

    #[test]
    fn an_agent_with_many_operations_or_unknown_outcomes_is_left_for_another() {
        let limits = Limits { name: "n", agents: 1, operations_max: 3, unknown_max: 1 };
        let book = Book::<Counter>::new(limits);
        let mut random = StdRng::seed_from_u64(1);
        let names: Vec<_> = (0..4).map(|_| book.agent(&mut random)).collect();
        assert_eq!(names, ["n-0-0", "n-0-0", "n-0-0", "n-0-1"]);
        let unknown = Called::<i64> { called: 1, ended: 2, outcome: Outcome::Unknown };
        book.note("n-0-1", 0, CounterOp::Add(1), &unknown, |value| *value);
        book.note("n-0-1", 0, CounterOp::Get, &unknown, |value| *value);
        assert_eq!(book.agent(&mut random), "n-0-2");
        let histories = book.histories();
        assert_eq!(histories["n-0-1"].len(), 1, "a read without an answer tells nothing");
    }
}
