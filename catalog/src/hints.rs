//! Who leads which region, as last heard.
//!
//! Hints are only hints: they come from heartbeats on the catalog's leader and from its routing table on
//! the others, they outlive a change of the catalog's leader, and a router that follows a wrong one is
//! told better by the node it reaches. A term has one leader, so the later term is always right.

use afdg_types::{NodeId, RegionId, Term};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hint {
    pub(crate) term: Term,
    pub(crate) leader: NodeId,
}

pub(crate) type Hints = BTreeMap<RegionId, Hint>;

/// The one place where hints come together.
pub(crate) struct HintTable {
    hints: watch::Sender<Arc<Hints>>,
}

impl HintTable {
    pub(crate) fn new() -> Self {
        Self { hints: watch::Sender::new(Arc::default()) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Hints>> {
        self.hints.subscribe()
    }

    pub(crate) fn get(&self) -> Arc<Hints> {
        Arc::clone(&self.hints.borrow())
    }

    /// Takes in what is newer. The caller names known regions only, which bounds the table.
    pub(crate) fn merge(&self, heard: impl IntoIterator<Item = (RegionId, Hint)>) {
        let held = self.get();
        let is_newer = |(region, hint): &(RegionId, Hint)| {
            hint.leader.0 > 0 && held.get(region).is_none_or(|held| hint.term > held.term)
        };
        let newer: Vec<_> = heard.into_iter().filter(is_newer).collect();
        if newer.is_empty() {
            return;
        }
        self.hints.send_modify(|hints| {
            let hints = Arc::make_mut(hints);
            for (region, hint) in newer {
                // Compared once more: another may have merged between.
                hints.entry(region).and_modify(|held| *held = (*held).max(hint)).or_insert(hint);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_term_counts() {
        let table = HintTable::new();
        let mut changes = table.subscribe();
        let hear = |term, leader| {
            table.merge([(RegionId(1), Hint { term: Term(term), leader: NodeId(leader) })]);
            table.get()[&RegionId(1)].leader.0
        };
        assert_eq!(hear(2, 7), 7);
        assert_eq!(hear(1, 8), 7);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(hear(2, 7), 7);
        assert_eq!(hear(9, 0), 7);
        assert!(!changes.has_changed().unwrap(), "nothing new is no change");
        assert_eq!(hear(3, 8), 8);
    }
}
