//! A second machine of every group applies the same entries: every replica has its outcomes and, at every
//! sixteenth entry and after every restore, its rows. After each entry its rows are valid.

use crate::events::Events;
use afdg_catalog_machine::CatalogMachine;
use afdg_region_machine::{RegionMachine, validate};
use afdg_replication::{Position, RowStore};
use afdg_types::Rows;
use bytes::Bytes;
use std::{collections::BTreeMap, fmt};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Rows are compared at entries whose index is a multiple of this.
const COMPARE_EVERY: u64 = 16;

type RowMap = BTreeMap<Bytes, Bytes>;

enum Machine {
    Catalog(Box<CatalogMachine>),
    Region(RegionMachine),
}

impl Machine {
    fn new(group: u64) -> Self {
        if group == 0 {
            Self::Catalog(Box::new(CatalogMachine::new()))
        } else {
            Self::Region(RegionMachine::default())
        }
    }

    /// The outcome in words.
    fn apply(&mut self, at: Position, command: &Bytes, rows: &mut RowMap) -> String {
        match self {
            Self::Catalog(machine) => format!("{:?}", machine.apply(at.index, command, rows)),
            Self::Region(machine) => format!("{:?}", machine.apply(at.term, command, rows)),
        }
    }
}

pub struct SecondMachine {
    group: u64,
    machine: Machine,
    rows: RowMap,
    reached: Option<u64>,
    /// Every entry so far, to get the rows of any moment again.
    entries: Vec<(Position, Option<Bytes>)>,
    outcomes: BTreeMap<u64, u64>,
    digests: BTreeMap<u64, u64>,
}

impl SecondMachine {
    pub fn new(group: u64) -> Self {
        Self {
            group,
            machine: Machine::new(group),
            rows: BTreeMap::new(),
            reached: None,
            entries: Vec::new(),
            outcomes: BTreeMap::new(),
            digests: BTreeMap::new(),
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub fn applied(
        &mut self,
        host: &str,
        group: u64,
        at: Position,
        command: Option<&Bytes>,
        outcome: Option<&dyn fmt::Debug>,
        rows: &RowStore,
        events: &Events,
    ) {
        if self.reached.is_none_or(|reached| at.index > reached) {
            self.go_on(at, command, events);
        }
        // `Ok` is what the second machine's result is wrapped in.
        let said = outcome.map(|outcome| xxh3_64(format!("Ok({outcome:?})").as_bytes()));
        if said != self.outcomes.get(&at.index).copied() {
            let what = format_args!("{host} has another outcome of group {group} at {at:?}: {outcome:?}");
            events.violation("second machine", what);
        }
        if at.index.is_multiple_of(COMPARE_EVERY) && self.digests.get(&at.index) != Some(&digest(rows)) {
            let what = format_args!("{host} has other rows of group {group} at {at:?}");
            events.violation("second machine", what);
        }
    }

    fn go_on(&mut self, at: Position, command: Option<&Bytes>, events: &Events) {
        self.reached = Some(at.index);
        self.entries.push((at, command.cloned()));
        if let Some(command) = command {
            let outcome = self.machine.apply(at, command, &mut self.rows);
            self.outcomes.insert(at.index, xxh3_64(outcome.as_bytes()));
            if self.group > 0
                && let Err(violation) = validate(&self.rows)
            {
                let what = format_args!("group {} at {at:?}: {violation}", self.group);
                events.violation("valid rows", what);
            }
        }
        if at.index.is_multiple_of(COMPARE_EVERY) {
            self.digests.insert(at.index, digest(&self.rows));
        }
    }

    pub fn restored(&self, host: &str, group: u64, at: Position, rows: &RowStore, events: &Events) {
        if self.reached.is_none_or(|reached| reached < at.index) {
            if at.index > 0 {
                let what = format_args!("{host} restores group {group} to {at:?}, which nobody has applied");
                events.violation("second machine", what);
            }
            return;
        }
        let mut machine = Machine::new(self.group);
        let mut then = BTreeMap::new();
        for (index, command) in self.entries.iter().take_while(|(entry, _)| entry.index <= at.index) {
            if let Some(command) = command {
                machine.apply(*index, command, &mut then);
            }
        }
        if digest(rows) != digest(&then) {
            let what = format_args!("{host} restores other rows of group {group} than were there at {at:?}");
            events.violation("second machine", what);
        }
    }
}

fn digest(rows: &dyn Rows) -> u64 {
    let mut hash = Xxh3::new();
    match rows.scan(b"", None, usize::MAX) {
        Ok(all) => {
            for (key, value) in all {
                hash.update(&(key.len() as u64).to_le_bytes());
                hash.update(&key);
                hash.update(&(value.len() as u64).to_le_bytes());
                hash.update(&value);
            }
        }
        Err(error) => hash.update(error.to_string().as_bytes()),
    }
    hash.digest()
}
