//! Makes a history that is wrong short enough to be read, without making it wrong in another way.
//!
//! To leave out any operation would not do: without a write, a read of what it wrote is wrong as well. Each
//! step here would leave a right history right, so what is left shows the fault that was there:
//!
//! 1. The end goes. What was not yet answered then has an unknown outcome.
//! 2. The beginning goes, up to a moment without open operations at which the state is certain.
//! 3. Reads go.
//! 4. Answers go: the operation stays, with an unknown outcome.

use super::{History, Model, Operation, Search, Verdict, check_from};
use std::time::{Duration, Instant};

/// A wrong history of an agent that began in `state`.
pub struct Shrunk<M: Model> {
    pub state: M::State,
    /// Those whose answers don't fit together are answered; what else may have happened has an unknown
    /// outcome.
    pub history: History<M>,
    /// Operations before, which explain the state.
    pub left_out: usize,
}

/// How long one check of a shorter history may take; if it takes longer, the longer history is kept.
const CHECK_LIMIT: Duration = Duration::from_secs(1);
const SHRINK_LIMIT: Duration = Duration::from_secs(60);

/// Shrinks a history that [`super::check`] has found to be wrong.
pub fn shrink<M: Model>(history: &[Operation<M::Op, M::Answer>]) -> Shrunk<M> {
    let give_up = Instant::now() + SHRINK_LIMIT;
    let mut history = without_end::<M>(history);
    history.sort_by_key(|operation| operation.called);
    let (state, mut rest, left_out) = without_beginning::<M>(history, give_up);
    let is_wrong = |history: &[Operation<M::Op, M::Answer>]| {
        Instant::now() < give_up && check_from::<M>(&state, history, CHECK_LIMIT) == Verdict::Violation
    };
    for index in (0..rest.len()).rev() {
        if M::is_read(&rest[index].op) {
            let mut shorter = rest.clone();
            shorter.remove(index);
            if is_wrong(&shorter) {
                rest = shorter;
            }
        }
    }
    for index in 0..rest.len() {
        let answered = rest[index].answered.take();
        if !is_wrong(&rest) {
            rest[index].answered = answered;
        }
    }
    Shrunk { state, history: rest, left_out }
}

/// Up to the first answer with which it is wrong.
fn without_end<M: Model>(history: &[Operation<M::Op, M::Answer>]) -> History<M> {
    let mut answers: Vec<u64> =
        history.iter().filter_map(|operation| operation.answered.as_ref().map(|(at, _)| *at)).collect();
    answers.sort_unstable();
    let is_right = |at: &u64| {
        let start = M::State::default();
        check_from::<M>(&start, &until::<M>(history, *at), CHECK_LIMIT) != Verdict::Violation
    };
    let first_wrong = answers.partition_point(is_right);
    match answers.get(first_wrong) {
        Some(at) => until::<M>(history, *at),
        None => history.to_vec(),
    }
}

fn until<M: Model>(history: &[Operation<M::Op, M::Answer>], end: u64) -> History<M> {
    let begun = history.iter().filter(|operation| operation.called <= end);
    let as_of_then = |operation: &Operation<M::Op, M::Answer>| {
        let mut operation = operation.clone();
        operation.answered = operation.answered.filter(|(at, _)| *at <= end);
        operation
    };
    // A read that was not answered tells nothing.
    let told =
        |operation: &Operation<M::Op, M::Answer>| operation.answered.is_some() || !M::is_read(&operation.op);
    begun.map(as_of_then).filter(told).collect()
}

/// From the last moment on at which all that had begun was answered, and the state can only have been one.
/// The history is in the order of calls.
fn without_beginning<M: Model>(history: History<M>, give_up: Instant) -> (M::State, History<M>, usize) {
    let first_state = M::State::default();
    for cut in (1..history.len()).rev() {
        let (before, after) = history.split_at(cut);
        let is_quiet = |operation: &Operation<M::Op, M::Answer>| {
            operation.answered.as_ref().is_none_or(|(at, _)| *at < after[0].called)
        };
        if !before.iter().all(is_quiet) || Instant::now() > give_up {
            continue;
        }
        let Some((state, open)) = only_end::<M>(before) else { continue };
        let rest: History<M> = open.into_iter().chain(after.iter().cloned()).collect();
        if check_from::<M>(&state, &rest, CHECK_LIMIT) == Verdict::Violation {
            let left_out = history.len() - rest.len();
            return (state, rest, left_out);
        }
    }
    (first_state, history, 0)
}

/// The state in which a right history ends and the operations of unknown outcome that have not taken
/// effect by then, if it can be one only.
fn only_end<M: Model>(history: &[Operation<M::Op, M::Answer>]) -> Option<(M::State, History<M>)> {
    let mut search = Search::<M>::new(&M::State::default(), history, CHECK_LIMIT);
    let mut end: Option<(M::State, Vec<u64>)> = None;
    let mut cursor = search.first();
    loop {
        let next = if search.left == 0 {
            let found = (search.state.clone(), search.placed.clone());
            if end.as_ref().is_some_and(|known| *known != found) {
                return None;
            }
            end = Some(found);
            search.go_back()
        } else {
            search.go_on(cursor)
        };
        if Instant::now() > search.give_up {
            return None;
        }
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let (state, placed) = end?;
    let is_open = |index: &usize| placed[index / 64] >> (index % 64) & 1 == 0;
    let open = (0..history.len()).filter(is_open).map(|index| history[index].clone()).collect();
    Some((state, open))
}
