//! If two logs contain an entry with the same index and term, then the logs are identical in all entries
//! up through it.
//!
//! By induction it is enough that an index and a term have one content and one term before it.

use crate::events::Events;
use afdg_replication::Position;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct LogMatching {
    /// By index and term: digest, and the term of the entry before, once somebody knew it.
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
}

impl LogMatching {
    pub fn appended(
        &mut self,
        host: &str,
        group: u64,
        at: Position,
        digest: u64,
        before: Option<u64>,
        events: &Events,
    ) {
        let known = self.entries.entry((at.index, at.term)).or_insert((digest, before));
        if known.0 != digest {
            let what = format_args!("{host} has another entry of group {group} at {at:?} than others had");
            events.violation("log matching", what);
        }
        match (known.1, before) {
            (Some(one), Some(other)) if one != other => {
                let what = format_args!(
                    "before the entry of group {group} at {at:?}, {host} has one of term {other}, others of term {one}"
                );
                events.violation("log matching", what);
            }
            (None, Some(_)) => known.1 = before,
            _ => {}
        }
    }
}
