//! The region's pure machine on a replica of this node: keeps the node's cache in step with the rows.

use crate::cache::{Change, RowCache};
use afdg_region_machine::{Outcome, RegionMachine};
use afdg_replication::{Machine, Observer, Position};
use afdg_types::{RegionId, Rows, RowsError, RowsMut};
use bytes::Bytes;
use std::sync::Arc;

/// A replica of a region.
pub type RegionReplica = afdg_replication::Replica<CachedRegionMachine>;

pub struct CachedRegionMachine {
    region: RegionId,
    machine: RegionMachine,
    cache: Arc<RowCache>,
    change: Option<Change>,
}

impl CachedRegionMachine {
    pub fn new(region: RegionId, cache: Arc<RowCache>) -> Self {
        Self { region, machine: RegionMachine::default(), cache, change: None }
    }
}

impl Machine for CachedRegionMachine {
    type Outcome = Outcome;

    fn restore(&mut self, rows: &dyn Rows) -> Result<(), RowsError> {
        self.cache.forget(self.region);
        self.machine.restore(rows)
    }

    fn apply(&mut self, at: Position, command: Bytes, rows: &mut dyn RowsMut) -> Result<Outcome, RowsError> {
        let mut tracked = TrackedRows { rows, changed: Vec::new() };
        let outcome = self.machine.apply(at.term, &command, &mut tracked)?;
        self.change = Some(self.cache.change(self.region, &tracked.changed));
        Ok(outcome)
    }

    fn visible(&mut self) {
        self.change = None;
    }
}

/// Remembers which entity rows were changed.
struct TrackedRows<'a> {
    rows: &'a mut dyn RowsMut,
    changed: Vec<Bytes>,
}

impl TrackedRows<'_> {
    fn track(&mut self, key: &Bytes) {
        use afdg_region_machine::table::entities;
        // Only entity rows are ever cached.
        if key.as_ref() >= entities::START && key.as_ref() < entities::END {
            self.changed.push(key.clone());
        }
    }
}

impl Rows for TrackedRows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, RowsError> {
        self.rows.get(key)
    }

    fn last_at_or_before(&self, from: &[u8], at: &[u8]) -> Result<Option<(Bytes, Bytes)>, RowsError> {
        self.rows.last_at_or_before(from, at)
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, RowsError> {
        self.rows.scan(from, to, limit)
    }
}

impl RowsMut for TrackedRows<'_> {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.track(&key);
        self.rows.put(key, value);
    }

    fn delete(&mut self, key: Bytes) {
        self.track(&key);
        self.rows.delete(key);
    }
}

/// The region's owner waits for the outcome of each entry that it proposes, and needs no other word.
pub struct NoObserver;

impl Observer<Outcome> for NoObserver {
    fn applied(&mut self, _at: Position, _outcome: Option<Outcome>) {}
    fn restored(&mut self, _at: Position) {}
}
