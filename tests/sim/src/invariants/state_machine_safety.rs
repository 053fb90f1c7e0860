//! If a server has applied an entry at an index, no other server will ever apply a different one there.
//! And each applies them in order, without a gap.

use crate::events::Events;
use afdg_replication::Position;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct StateMachineSafety {
    /// Term and digest by index. The digest is 0 where the log was purged before it was looked at.
    applied: BTreeMap<u64, (u64, u64)>,
    /// Where each host is.
    reached: BTreeMap<String, u64>,
}

impl StateMachineSafety {
    pub fn applied(&mut self, host: &str, group: u64, at: Position, digest: u64, events: &Events) {
        let known = self.applied.entry(at.index).or_insert((at.term, digest));
        let same = known.0 == at.term && (known.1 == digest || known.1 == 0 || digest == 0);
        if !same {
            let what =
                format_args!("{host} applies another entry of group {group} at {at:?} than others did");
            events.violation("state machine safety", what);
        }
        let reached = self.reached.entry(host.to_owned()).or_default();
        // The first entry has index 0, and so has nothing at all.
        if at.index != *reached + 1 && at.index != 0 {
            let what = format_args!("{host} applies {at:?} of group {group} after index {reached}");
            events.violation("state machine safety", what);
        }
        *reached = at.index;
    }

    /// Whether it was a peer's snapshot, and not what the host's own disk held at its start.
    pub fn restored(&mut self, host: &str, at: Position) -> bool {
        self.reached.insert(host.to_owned(), at.index).is_some()
    }

    pub fn ended(&mut self, host: &str) {
        self.reached.remove(host);
    }

    /// Everything that is known to be committed: index, term, digest.
    pub fn committed(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.applied.iter().map(|(index, (term, digest))| (*index, *term, *digest))
    }
}
