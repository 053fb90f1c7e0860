//! Is there an order of an agent's operations, each between its call and its answer, in which every answer
//! is right?
//!
//! Wing and Gong's search (Testing and Verifying Concurrent Objects, 1993) with Lowe's memory of what was
//! tried (Testing for Linearizability, 2017), one agent at a time. An operation whose outcome is unknown
//! may have taken effect at any time after its call, or never.

use std::{collections::HashSet, fmt::Debug, hash::Hash};

/// What one agent does.
pub trait Model {
    type State: Clone + Debug + Default + Eq + Hash;
    type Op: Clone + Debug;
    type Answer: Clone + Debug + PartialEq;

    /// The state after the operation, and its answer.
    fn step(state: &Self::State, op: &Self::Op) -> (Self::State, Self::Answer);
}

#[derive(Clone, Debug)]
pub struct Operation<O, A> {
    pub op: O,
    pub called: u64,
    /// When and how it was answered; none if its outcome is unknown.
    pub answered: Option<(u64, A)>,
}

/// Steps of the search before it gives up.
const STEPS_MAX: usize = 5_000_000;

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// The longest order found answers so many operations.
    Violation {
        placed: usize,
    },
    /// The search was given up.
    Undecided {
        placed: usize,
    },
}

pub fn check<M: Model>(operations: &[Operation<M::Op, M::Answer>]) -> Verdict {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| operation.called);
    let answered = operations.iter().filter(|operation| operation.answered.is_some()).count();
    let mut search = Search::<M> { operations, answered, tried: HashSet::new(), steps: 0, best: 0 };
    let placed = vec![0; search.operations.len().div_ceil(64)];
    match search.go_on(M::State::default(), placed) {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Violation { placed: search.best },
        None => Verdict::Undecided { placed: search.best },
    }
}

struct Search<M: Model> {
    operations: Vec<Operation<M::Op, M::Answer>>,
    answered: usize,
    tried: HashSet<(Vec<u64>, M::State)>,
    steps: usize,
    best: usize,
}

impl<M: Model> Search<M> {
    /// Iterative, since a history may be longer than a stack is deep.
    fn go_on(&mut self, state: M::State, placed: Vec<u64>) -> Option<bool> {
        let mut open = vec![(state, placed, 0)];
        while let Some((state, placed, done)) = open.pop() {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return None;
            }
            self.best = self.best.max(done);
            if done == self.answered {
                return Some(true);
            }
            if !self.tried.insert((placed.clone(), state.clone())) {
                continue;
            }
            // Whatever was called after the first answer of those left can't come before it.
            let is_placed = |index: usize| placed[index / 64] >> (index % 64) & 1 == 1;
            let left = (0..self.operations.len()).filter(|index| !is_placed(*index));
            let first_answer = left
                .clone()
                .filter_map(|index| self.operations[index].answered.as_ref().map(|(at, _)| *at))
                .min()
                .unwrap_or(u64::MAX);
            // Those that were answered are tried first: most histories end quickly that way.
            let mut next = Vec::new();
            for index in left {
                let operation = &self.operations[index];
                if operation.called > first_answer {
                    break;
                }
                let (after, answer) = M::step(&state, &operation.op);
                let mut with = placed.clone();
                with[index / 64] |= 1 << (index % 64);
                match &operation.answered {
                    Some((at, given)) if *given == answer => next.push((*at, (after, with, done + 1))),
                    Some(_) => {}
                    None if after == state => {}
                    None => next.push((u64::MAX, (after, with, done))),
                }
            }
            next.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
            open.extend(next.into_iter().map(|(_, branch)| branch));
        }
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter;

    #[derive(Clone, Debug)]
    enum Op {
        Add(i64),
        Get,
    }

    impl Model for Counter {
        type State = i64;
        type Op = Op;
        type Answer = i64;

        fn step(state: &i64, op: &Op) -> (i64, i64) {
            match op {
                Op::Add(delta) => (state + delta, state + delta),
                Op::Get => (*state, *state),
            }
        }
    }

    fn add(delta: i64, called: u64, answered: Option<(u64, i64)>) -> Operation<Op, i64> {
        Operation { op: Op::Add(delta), called, answered }
    }

    fn get(called: u64, answered: u64, value: i64) -> Operation<Op, i64> {
        Operation { op: Op::Get, called, answered: Some((answered, value)) }
    }

    #[test]
    fn operations_side_by_side_may_take_either_order() {
        let history = [add(1, 0, Some((10, 3))), add(2, 1, Some((9, 2))), get(11, 12, 3)];
        assert_eq!(check::<Counter>(&history), Verdict::Linearizable);
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [add(1, 0, Some((1, 1))), get(2, 3, 0)];
        assert_eq!(check::<Counter>(&history), Verdict::Violation { placed: 1 });
    }

    #[test]
    fn a_lost_update_is_found() {
        let history = [add(1, 0, Some((1, 1))), add(1, 2, Some((3, 1)))];
        assert!(matches!(check::<Counter>(&history), Verdict::Violation { .. }));
    }

    #[test]
    fn an_update_that_took_effect_twice_is_found() {
        let history = [add(1, 0, Some((1, 1))), add(1, 2, Some((3, 3)))];
        assert!(matches!(check::<Counter>(&history), Verdict::Violation { .. }));
    }

    #[test]
    fn an_unknown_outcome_may_show_late_or_never_but_not_before_its_call() {
        let unknown = add(5, 4, None);
        let late = [unknown.clone(), get(5, 6, 0), get(7, 8, 5)];
        assert_eq!(check::<Counter>(&late), Verdict::Linearizable);
        let never = [unknown.clone(), get(5, 6, 0), get(7, 8, 0)];
        assert_eq!(check::<Counter>(&never), Verdict::Linearizable);
        let early = [get(1, 2, 5), unknown.clone()];
        assert!(matches!(check::<Counter>(&early), Verdict::Violation { .. }));
        let back = [unknown, get(5, 6, 5), get(7, 8, 0)];
        assert!(matches!(check::<Counter>(&back), Verdict::Violation { .. }));
    }
}
