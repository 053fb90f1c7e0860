//! At most one leader can be elected in a given term.

use crate::events::Events;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct ElectionSafety {
    /// By term.
    leaders: BTreeMap<u64, String>,
}

impl ElectionSafety {
    /// Whether this was news.
    pub fn led(&mut self, host: &str, group: u64, term: u64, events: &Events) -> bool {
        match self.leaders.get(&term) {
            Some(leader) if leader == host => false,
            Some(leader) => {
                let what = format_args!("group {group} has two leaders in term {term}: {leader} and {host}");
                events.violation("election safety", what);
                false
            }
            None => {
                self.leaders.insert(term, host.to_owned());
                true
            }
        }
    }
}
