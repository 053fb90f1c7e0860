//! Is there an order of an agent's operations, each between its call and its answer, in which every answer
//! is right?
//!
//! Wing and Gong's search ("Testing and Verifying Concurrent Objects", 1993) with Lowe's memory of what was
//! tried ("Testing for Linearizability", 2017). A history is of one agent: linearizability is local, so
//! that all agents' histories are right if each is.
//!
//! An operation whose outcome is unknown may have taken effect at any time after its call, or never.
//!
//! Written here because the one crate that there is, porcupine-rs 0.3.0, calls a history wrong when the time
//! for it runs out while its details are collected, starts a thread for every key, and knows no outcome
//! that is unknown.

mod models;
mod shrink;
#[cfg(test)]
mod tests;

pub use models::{Counter, CounterOp, List, ListAnswer, ListOp, Register, RegisterAnswer, RegisterOp};
pub use shrink::{Shrunk, shrink};

use std::{
    collections::HashSet,
    fmt::Debug,
    hash::Hash,
    time::{Duration, Instant},
};

/// What one agent does.
pub trait Model {
    /// The default is how an agent begins.
    type State: Clone + Debug + Default + Eq + Hash;
    type Op: Clone + Debug + PartialEq;
    type Answer: Clone + Debug + PartialEq;

    /// The state after the operation, and its answer.
    fn step(state: &Self::State, op: &Self::Op) -> (Self::State, Self::Answer);

    /// Whether the operation changes nothing, whatever the state.
    fn is_read(op: &Self::Op) -> bool;
}

#[derive(Clone, Debug, PartialEq)]
pub struct Operation<O, A> {
    /// Who made it; each makes one operation after the other.
    pub client: u32,
    pub op: O,
    /// In any unit; the same as of the answer.
    pub called: u64,
    /// When and how it was answered; none if its outcome is unknown.
    pub answered: Option<(u64, A)>,
}

pub type History<M> = Vec<Operation<<M as Model>::Op, <M as Model>::Answer>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    Violation,
    /// The time or the memory for the search was used up.
    Undecided,
}

/// Entries of the memory of what was tried: some hundred bytes each.
const TRIED_MAX: usize = 4_000_000;
/// Steps between two looks at the clock.
const STEPS_UNTIMED: u64 = 1_024;

/// Whether a history of an agent that began in its first state is linearizable; searches for `limit` at most.
pub fn check<M: Model>(history: &[Operation<M::Op, M::Answer>], limit: Duration) -> Verdict {
    check_from::<M>(&M::State::default(), history, limit)
}

/// The same of an agent that began in `state`.
pub fn check_from<M: Model>(
    state: &M::State,
    history: &[Operation<M::Op, M::Answer>],
    limit: Duration,
) -> Verdict {
    Search::<M>::new(state, history, limit).run()
}

/// An event of an operation that was answered, in the order of time.
#[derive(Clone, Copy)]
enum Event {
    Call(usize),
    Answer(usize),
}

/// Where the search goes on.
#[derive(Clone, Copy)]
enum Cursor {
    /// At an event in the list of those left.
    At(usize),
    /// At an operation of unknown outcome, by its place among those.
    Unknown(usize),
}

struct Search<'a, M: Model> {
    history: &'a [Operation<M::Op, M::Answer>],
    /// Calls and answers in order; a list through `next` and `before`, whose ends are one more element.
    events: Vec<Event>,
    next: Vec<usize>,
    before: Vec<usize>,
    /// Of each operation that was answered: its events' places.
    places: Vec<(usize, usize)>,
    /// Operations of unknown outcome in the order of their calls. They are tried last: most never were.
    unknown: Vec<usize>,
    /// Answered operations that are left.
    left: usize,
    state: M::State,
    /// A bit for each operation that stands in the order.
    placed: Vec<u64>,
    /// What stands in the order: where the search went on, and the state before.
    order: Vec<(Cursor, M::State)>,
    tried: HashSet<(Vec<u64>, M::State)>,
    give_up: Instant,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(state: &M::State, history: &'a [Operation<M::Op, M::Answer>], limit: Duration) -> Self {
        let mut timed = Vec::new();
        let mut unknown = Vec::new();
        for (index, operation) in history.iter().enumerate() {
            match &operation.answered {
                // At the same instant, calls come first: who overlaps may stand in either order.
                Some((answered, _)) => {
                    timed.push((operation.called, 0, Event::Call(index)));
                    timed.push((*answered, 1, Event::Answer(index)));
                }
                None => unknown.push(index),
            }
        }
        timed.sort_by_key(|(at, kind, _)| (*at, *kind));
        unknown.sort_by_key(|index| history[*index].called);
        let events: Vec<Event> = timed.into_iter().map(|(_, _, event)| event).collect();
        let mut places = vec![(0, 0); history.len()];
        for (place, event) in events.iter().enumerate() {
            match event {
                Event::Call(index) => places[*index].0 = place,
                Event::Answer(index) => places[*index].1 = place,
            }
        }
        let end = events.len();
        Self {
            history,
            next: (1..=end).chain([0]).collect(),
            before: [end].into_iter().chain(0..end).collect(),
            left: end / 2,
            events,
            places,
            unknown,
            state: state.clone(),
            placed: vec![0; history.len().div_ceil(64)],
            order: Vec::new(),
            tried: HashSet::new(),
            give_up: Instant::now() + limit,
        }
    }

    fn run(mut self) -> Verdict {
        let mut cursor = self.first();
        for step in 1_u64.. {
            if self.left == 0 {
                return Verdict::Linearizable;
            }
            let is_late = step % STEPS_UNTIMED == 0 && Instant::now() > self.give_up;
            if is_late || self.tried.len() > TRIED_MAX {
                return Verdict::Undecided;
            }
            cursor = match self.go_on(cursor) {
                Some(cursor) => cursor,
                None => return Verdict::Violation,
            };
        }
        Verdict::Undecided
    }

    fn first(&self) -> Cursor {
        Cursor::At(self.next[self.events.len()])
    }

    /// Puts what is at the cursor into the order, or goes past it, or back; none when all was tried.
    fn go_on(&mut self, cursor: Cursor) -> Option<Cursor> {
        match cursor {
            Cursor::At(place) => {
                // Whatever is called after an answer that is left can't come before its operation.
                let Event::Call(index) = self.events[place] else { return Some(Cursor::Unknown(0)) };
                if !self.place(cursor, index) {
                    return Some(Cursor::At(self.next[place]));
                }
                let (call, answer) = self.places[index];
                self.unlink(call);
                self.unlink(answer);
                self.left -= 1;
                Some(self.first())
            }
            Cursor::Unknown(nth) => match self.unknown.get(nth) {
                Some(&index) if self.history[index].called <= self.first_answer() => {
                    let placed = self.is_worth_a_try(nth) && self.place(cursor, index);
                    Some(if placed { self.first() } else { Cursor::Unknown(nth + 1) })
                }
                _ => self.go_back(),
            },
        }
    }

    /// When the first of those left was answered: all that may come next was called by then.
    fn first_answer(&self) -> u64 {
        let mut place = self.next[self.events.len()];
        loop {
            match self.events[place] {
                Event::Call(_) => place = self.next[place],
                Event::Answer(index) => {
                    return self.history[index].answered.as_ref().map_or(u64::MAX, |(at, _)| *at);
                }
            }
        }
    }

    /// Of several of the same kind, the one that was called first does for all.
    fn is_worth_a_try(&self, nth: usize) -> bool {
        let index = self.unknown[nth];
        let is_same = |other: &usize| self.history[*other].op == self.history[index].op;
        !self.is_placed(index)
            && !self.unknown[..nth].iter().any(|other| is_same(other) && !self.is_placed(*other))
    }

    fn is_placed(&self, index: usize) -> bool {
        self.placed[index / 64] >> (index % 64) & 1 == 1
    }

    /// True if the operation's answer is right here and what follows was not tried before.
    fn place(&mut self, cursor: Cursor, index: usize) -> bool {
        let operation = &self.history[index];
        let (after, answer) = M::step(&self.state, &operation.op);
        match &operation.answered {
            Some((_, given)) if *given != answer => return false,
            // It may as well never have happened.
            None if after == self.state => return false,
            _ => {}
        }
        let mut placed = self.placed.clone();
        placed[index / 64] |= 1 << (index % 64);
        if !self.tried.insert((placed.clone(), after.clone())) {
            return false;
        }
        self.placed = placed;
        self.order.push((cursor, std::mem::replace(&mut self.state, after)));
        true
    }

    /// Takes the last operation out of the order and goes on behind it.
    fn go_back(&mut self) -> Option<Cursor> {
        let (cursor, state) = self.order.pop()?;
        self.state = state;
        let (index, behind) = match cursor {
            Cursor::At(place) => {
                let (Event::Call(index) | Event::Answer(index)) = self.events[place];
                let (call, answer) = self.places[index];
                self.link(answer);
                self.link(call);
                self.left += 1;
                (index, Cursor::At(self.next[place]))
            }
            Cursor::Unknown(nth) => (self.unknown[nth], Cursor::Unknown(nth + 1)),
        };
        self.placed[index / 64] &= !(1 << (index % 64));
        Some(behind)
    }

    fn unlink(&mut self, place: usize) {
        let (before, next) = (self.before[place], self.next[place]);
        self.next[before] = next;
        self.before[next] = before;
    }

    /// Undoes the last `unlink`; its neighbours are as they were then.
    fn link(&mut self, place: usize) {
        let (before, next) = (self.before[place], self.next[place]);
        self.next[before] = place;
        self.before[next] = place;
    }
}
