//! If an entry is committed in a term, it is in the logs of the leaders of all later terms.

use super::state_machine_safety::StateMachineSafety;
use crate::{events::Events, referee::MirroredLog};

/// `host` leads `group` in `term` with `log`.
pub fn check(
    host: &str,
    group: u64,
    term: u64,
    log: &MirroredLog,
    committed: &StateMachineSafety,
    events: &Events,
) {
    for (index, committed_term, digest) in committed.committed() {
        if committed_term >= term || index <= log.purged.index {
            continue;
        }
        let held = log.entries.get(&index);
        let same = held.is_some_and(|(held_term, held_digest)| {
            *held_term == committed_term && (*held_digest == digest || digest == 0)
        });
        if !same {
            let what = format_args!(
                "{host} leads group {group} in term {term} and has {held:?} at index {index}, where an entry of \
                 term {committed_term} was committed"
            );
            events.violation("leader completeness", what);
            return;
        }
    }
}
