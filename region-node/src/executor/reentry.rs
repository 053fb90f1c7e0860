//! Messages of a call chain that enter while a turn of their agent waits for the chain's answer.
//!
//! Such a message has an *inner* turn, which is as if it had come before the *outer* one, the turn that waits:
//! it sees what was committed, not what the outer turn has written, and it may change nothing that the outer
//! turn has read. So what the outer turn has gone by still stands, at its end and when it is run again.

use super::overlay::TurnNumber;
use afdg_agent::{
    host::{Reentrancy, RowWrite, TypeDescription},
    read_set::{ReadSet, entity_of},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Whether each of the types that this node hosts lets messages of its call chain enter.
#[derive(Debug, Default)]
pub struct ReentrantTypes {
    hosted: BTreeMap<String, bool>,
    any: bool,
}

impl ReentrantTypes {
    pub fn of(types: &[TypeDescription]) -> Self {
        let hosted =
            types.iter().map(|known| (known.name.clone(), known.reentrancy == Reentrancy::CallChain));
        let hosted: BTreeMap<_, _> = hosted.collect();
        Self { any: hosted.values().any(|reentrant| *reentrant), hosted }
    }

    /// Whether the type is known to let them in.
    pub fn let_in(&self, agent_type: &str) -> bool {
        self.any && self.hosted.get(agent_type) == Some(&true)
    }

    /// Whether the type may let them in: one that this node does not host is for its own region to judge.
    pub fn may_let_in(&self, agent_type: &str) -> bool {
        self.hosted.get(agent_type) != Some(&false)
    }
}

/// What an outer turn and the inner ones have to know of one another.
#[derive(Debug, Default)]
pub struct Reentry {
    state: Mutex<State>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    reads: ReadSet,
    /// The last inner turn that has changed something.
    entered: Option<TurnNumber>,
    /// What it changed is not committed yet.
    unsettled: bool,
}

impl Reentry {
    /// Takes in what inner turn `number` writes; or the entity that the outer turn has read and that would be
    /// another one then. From here on until [`Reentry::settle`] the outer turn reads nothing.
    pub fn enter(&self, number: TurnNumber, writes: &[RowWrite]) -> Result<(), String> {
        let mut state = self.state();
        if let Some(key) = state.reads.changed_by(writes) {
            return Err(entity_of(key));
        }
        if !writes.is_empty() {
            (state.entered, state.unsettled) = (Some(number), true);
        }
        Ok(())
    }

    /// Inner turns up to `number` are committed.
    pub fn settle(&self, number: TurnNumber) {
        let mut state = self.state();
        if state.unsettled && state.entered.is_some_and(|entered| entered <= number) {
            state.unsettled = false;
            drop(state);
            self.settled.notify_waiters();
        }
    }

    /// Has the outer turn read, and note what it read. `read` is told whether an inner turn has changed
    /// something: all that came before the outer turn is committed then, and so is what the inner one left.
    pub async fn read<T>(&self, read: impl FnOnce(bool, &mut ReadSet) -> T) -> T {
        loop {
            // Made before the look, so that it hears of all that comes after it.
            let settled = self.settled.notified();
            {
                let mut state = self.state();
                if !state.unsettled {
                    let entered = state.entered.is_some();
                    return read(entered, &mut state.reads);
                }
            }
            settled.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A read that panics has noted nothing, and its turn is over.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::FutureExt;

    fn deletes(key: &'static str) -> [RowWrite; 1] {
        [RowWrite::Delete(Bytes::from_static(key.as_bytes()))]
    }

    async fn reads(reentry: &Reentry, key: &str) -> bool {
        reentry
            .read(|entered, reads| {
                reads.row(key.as_bytes());
                entered
            })
            .await
    }

    #[tokio::test]
    async fn an_inner_turn_changes_nothing_that_the_outer_one_has_read() {
        let reentry = Reentry::default();
        assert!(!reads(&reentry, "a").await);
        assert_eq!(reentry.enter(1, &deletes("a")), Err("a".to_owned()));
        assert!(!reads(&reentry, "b").await, "one that was refused has changed nothing");
        assert_eq!(reentry.enter(2, &[]), Ok(()));
        assert!(!reads(&reentry, "c").await, "nor has one that writes nothing");
    }

    #[tokio::test]
    async fn the_outer_turn_reads_once_what_the_inner_ones_left_is_committed() {
        let reentry = Reentry::default();
        assert_eq!(reentry.enter(4, &deletes("a")), Ok(()));
        assert_eq!(reentry.enter(6, &deletes("b")), Ok(()));
        let mut read = std::pin::pin!(reads(&reentry, "a"));
        assert_eq!(read.as_mut().now_or_never(), None);
        reentry.settle(4);
        assert_eq!(read.as_mut().now_or_never(), None, "the later one is not committed");
        reentry.settle(6);
        assert!(read.await);
        assert_eq!(reentry.enter(7, &deletes("a")), Err("a".to_owned()), "it was read by now");
    }

    #[test]
    fn types_that_a_node_does_not_host_are_judged_elsewhere() {
        let types = |reentrant| ReentrantTypes {
            hosted: BTreeMap::from([("t.T".to_owned(), reentrant)]),
            any: reentrant,
        };
        assert!(types(true).let_in("t.T") && types(true).may_let_in("t.T"));
        assert!(!types(false).let_in("t.T") && !types(false).may_let_in("t.T"));
        assert!(!types(true).let_in("t.Other") && types(true).may_let_in("t.Other"));
    }
}
