//! Watches all replicas and holds what they do against the invariants, one file each.
//!
//! It keeps a mirror of every log, as its owner sees it, and a copy of every group's machine that applies
//! the same entries.

use crate::{
    events::Events,
    invariants::{
        election_safety::ElectionSafety, leader_completeness, log_matching::LogMatching,
        second_machine::SecondMachine, state_machine_safety::StateMachineSafety,
    },
};
use afdg_replication::{Position, RowStore};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use xxhash_rust::xxh3::xxh3_64;

/// Cheap to clone.
#[derive(Clone)]
pub struct Referee {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    events: Events,
    logs: BTreeMap<(String, u64), MirroredLog>,
    groups: BTreeMap<u64, Group>,
    /// Who was the last to lead each group.
    leaders: BTreeMap<u64, String>,
    /// Whose rows a fault has lost.
    lost_rows: BTreeSet<String>,
}

/// A log as its owner sees it.
#[derive(Default)]
pub struct MirroredLog {
    pub purged: Position,
    /// Term and digest by index.
    pub entries: BTreeMap<u64, (u64, u64)>,
}

struct Group {
    elections: ElectionSafety,
    matching: LogMatching,
    applied: StateMachineSafety,
    machine: SecondMachine,
}

impl Group {
    fn new(group: u64) -> Self {
        Self {
            elections: ElectionSafety::default(),
            matching: LogMatching::default(),
            applied: StateMachineSafety::default(),
            machine: SecondMachine::new(group),
        }
    }
}

impl Referee {
    pub fn new(events: Events) -> Self {
        let (logs, groups, leaders, lost_rows) = Default::default();
        let shared = Shared { events, logs, groups, leaders, lost_rows };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn process_ended(&self, host: &str) {
        let mut shared = self.lock();
        shared.logs.retain(|(owner, _), _| owner != host);
        shared.groups.values_mut().for_each(|group| group.applied.ended(host));
    }

    pub fn opened(&self, host: &str, group: u64, purged: Position, entries: &[(Position, Bytes)]) {
        let mut shared = self.lock();
        let count = entries.len();
        shared.events.note(host, format_args!("opens group {group}: {count} entries after {purged:?}"));
        let log = MirroredLog { purged, entries: BTreeMap::new() };
        shared.logs.insert((host.to_owned(), group), log);
        for (at, entry) in entries {
            shared.append(host, group, *at, entry);
        }
    }

    pub fn rows_lost(&self, host: &str) {
        self.lock().lost_rows.insert(host.to_owned());
    }

    /// What was checkpointed has to be there, but for the faults.
    pub fn lacks_rows(&self, host: &str, group: u64) {
        let shared = self.lock();
        shared.events.note(host, format_args!("lacks the rows of group {group}"));
        shared.events.count("rows rebuilt from a peer");
        if !shared.lost_rows.contains(host) {
            let what = format_args!("{host}: the rows of group {group} end before the log begins");
            shared.events.violation("servers start and go on", what);
        }
    }

    pub fn appended(&self, host: &str, group: u64, at: Position, entry: &Bytes) {
        let mut shared = self.lock();
        shared.events.note(host, format_args!("appends to group {group}: {at:?}"));
        shared.append(host, group, at, entry);
    }

    pub fn truncated(&self, host: &str, group: u64, from: u64) {
        let mut shared = self.lock();
        shared.events.note(host, format_args!("truncates group {group} from {from}"));
        shared.events.count("log truncations");
        shared.log(host, group).entries.split_off(&from);
    }

    pub fn led(&self, host: &str, group: u64, term: u64) {
        let mut shared = self.lock();
        let shared = &mut *shared;
        let known = shared.groups.entry(group).or_insert_with(|| Group::new(group));
        if !known.elections.led(host, group, term, &shared.events) {
            return;
        }
        shared.events.note(host, format_args!("leads group {group} in term {term}"));
        shared.events.count("leader changes");
        shared.leaders.insert(group, host.to_owned());
        let log = shared.logs.entry((host.to_owned(), group)).or_default();
        leader_completeness::check(host, group, term, log, &known.applied, &shared.events);
    }

    /// The hosts that were the last to lead a region.
    pub fn leaders(&self) -> Vec<String> {
        let shared = self.lock();
        shared.leaders.iter().filter(|(group, _)| **group > 0).map(|(_, host)| host.clone()).collect()
    }

    pub fn applied(
        &self,
        host: &str,
        group: u64,
        at: Position,
        command: Option<&Bytes>,
        outcome: Option<&dyn fmt::Debug>,
        rows: &RowStore,
    ) {
        let mut shared = self.lock();
        let shared = &mut *shared;
        let known = shared.groups.entry(group).or_insert_with(|| Group::new(group));
        let digest = shared.logs.get(&(host.to_owned(), group)).and_then(|log| log.entries.get(&at.index));
        let digest = digest.map_or(0, |(_, digest)| *digest);
        shared.events.count("applied entries");
        known.applied.applied(host, group, at, digest, &shared.events);
        known.machine.applied(host, group, at, command, outcome, rows, &shared.events);
    }

    pub fn restored(&self, host: &str, group: u64, at: Position, rows: &RowStore) {
        let mut shared = self.lock();
        let shared = &mut *shared;
        shared.events.note(host, format_args!("restores group {group} up to {at:?}"));
        let known = shared.groups.entry(group).or_insert_with(|| Group::new(group));
        if known.applied.restored(host, at) {
            shared.events.count("snapshots installed");
        }
        known.machine.restored(host, group, at, rows, &shared.events);
        // A snapshot took the place of what the log held up to there.
        let log = shared.logs.entry((host.to_owned(), group)).or_default();
        if log.purged < at {
            log.purged = at;
        }
    }
}

impl Shared {
    fn log(&mut self, host: &str, group: u64) -> &mut MirroredLog {
        self.logs.entry((host.to_owned(), group)).or_default()
    }

    fn append(&mut self, host: &str, group: u64, at: Position, entry: &Bytes) {
        let digest = xxh3_64(entry);
        let log = self.logs.entry((host.to_owned(), group)).or_default();
        let before = log.entries.get(&at.index.wrapping_sub(1)).map(|(term, _)| *term);
        log.entries.insert(at.index, (at.term, digest));
        let known = self.groups.entry(group).or_insert_with(|| Group::new(group));
        known.matching.appended(host, group, at, digest, before, &self.events);
    }
}
