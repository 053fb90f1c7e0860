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

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_region_machine::{
        Command, Op, OpOutcome,
        op::{CommitTurn, RowChange},
        table::{entities, replies::TurnReply},
    };
    use afdg_types::{AgentRef, MessageId};
    use std::collections::BTreeMap;

    const REGION: RegionId = RegionId(1);

    fn alice() -> AgentRef {
        "bank.v1.Account/alice".parse().unwrap()
    }

    fn turn(number: u64, changes: Vec<RowChange>) -> Bytes {
        let turn = CommitTurn {
            agent: alice(),
            message_id: MessageId::from_router(number, 0),
            digest: 0,
            expires_at_s: 9,
            changes,
            reply: TurnReply::Response(Bytes::new()),
            recorded: false,
        };
        Command { term: 1, sequence: number, ops: vec![Op::CommitTurn(turn)] }.encode().unwrap()
    }

    fn own(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    /// Whether a load of alice's row that begins and ends now is cached.
    fn is_cached(cache: &RowCache, text: &str) -> bool {
        let key = entities::key(&alice(), text.as_bytes());
        let load = cache.begin_load(&key);
        cache.end_load(&load, REGION, key.clone(), None);
        cache.get(REGION, &key).is_some()
    }

    #[test]
    fn changed_rows_leave_the_cache_before_they_are_visible_and_may_come_back_after() {
        let cache = Arc::new(RowCache::new(1 << 20));
        let mut machine = CachedRegionMachine::new(REGION, Arc::clone(&cache));
        let mut rows = BTreeMap::new();
        machine.restore(&rows).unwrap();
        let unchanged = ["put", "deleted"].map(|text| is_cached(&cache, text));
        assert_eq!(unchanged, [true, true]);
        let changes = vec![
            RowChange::Put { key: own("put"), value: own("value") },
            RowChange::Delete { key: own("deleted") },
        ];
        let at = Position { term: 1, index: 1 };
        let outcome = machine.apply(at, turn(1, changes), &mut rows).unwrap();
        assert_eq!(outcome, Outcome::Applied(vec![OpOutcome::Committed]));
        for text in ["put", "deleted"] {
            assert!(!is_cached(&cache, text), "{text} was cached while its change was on its way");
        }
        machine.visible();
        for text in ["put", "deleted"] {
            assert!(is_cached(&cache, text), "{text} can't be cached any more");
        }
    }

    #[test]
    fn only_entity_rows_are_followed() {
        let mut rows = BTreeMap::new();
        let mut tracked = TrackedRows { rows: &mut rows, changed: Vec::new() };
        let entity = entities::key(&alice(), b"a");
        for key in [own("\x01"), own("\x0f\x7f"), own("\x11"), own("\x30"), own("\x40\x10")] {
            tracked.put(key.clone(), Bytes::new());
            tracked.delete(key);
        }
        assert!(tracked.changed.is_empty());
        tracked.put(entity.clone(), own("v"));
        assert_eq!(tracked.get(&entity).unwrap(), Some(own("v")));
        tracked.delete(entity.clone());
        assert_eq!(tracked.changed, [entity.clone(), entity]);
    }

    #[test]
    fn rows_replaced_by_a_snapshot_are_forgotten() {
        let cache = Arc::new(RowCache::new(1 << 20));
        let mut machine = CachedRegionMachine::new(REGION, Arc::clone(&cache));
        assert!(is_cached(&cache, "a"));
        machine.restore(&BTreeMap::new()).unwrap();
        assert_eq!(cache.get(REGION, &entities::key(&alice(), b"a")), None);
    }
}
