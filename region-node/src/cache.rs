//! Decoded rows of active agents, bounded in bytes, shared by the node's regions.
//!
//! Only committed rows are cached. The danger is a reader that read a row before it was changed and
//! caches it after: readers would see the new row, then the old one again. So each row belongs to one of
//! a few stripes, and a stripe counts the changes of its rows that began and those that are on their way:
//!
//! 1. before the changed rows become visible, the change is counted as begun and on its way, and the
//!    rows leave the cache;
//! 2. once they are visible, it is on its way no more;
//! 3. who loaded a row may cache it only if no change was on its way before the load and none began since.

use afdg_agent::row::Row;
use afdg_types::RegionId;
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const STRIPES: usize = 256;
/// What an entry costs besides the row: key, counters of the cache's policy.
const ENTRY_BYTES: usize = 160;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    region: RegionId,
    row: Bytes,
}

/// The node's cache. `None` is cached too: that a row is missing.
pub struct RowCache {
    rows: moka::sync::Cache<Key, Option<Arc<Row>>>,
    stripes: Vec<Mutex<Stripe>>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stripe {
    begun: u64,
    on_their_way: u32,
}

/// Taken before a load; says afterwards whether what was loaded may be cached.
pub struct Load {
    stripe: usize,
    /// Changes begun by then; none if one was on its way.
    begun: Option<u64>,
}

impl RowCache {
    pub fn new(bytes_max: u64) -> Self {
        let weigh = |key: &Key, row: &Option<Arc<Row>>| {
            let bytes = ENTRY_BYTES + key.row.len() + row.as_ref().map_or(0, |row| row.size_bytes());
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self {
            rows: moka::sync::Cache::builder()
                .max_capacity(bytes_max)
                .weigher(weigh)
                .support_invalidation_closures()
                .build(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    pub fn get(&self, region: RegionId, row: &Bytes) -> Option<Option<Arc<Row>>> {
        self.rows.get(&Key { region, row: row.clone() })
    }

    pub fn begin_load(&self, row: &[u8]) -> Load {
        let stripe = self.stripe_of(row);
        let now = *self.lock(stripe);
        Load { stripe, begun: (now.on_their_way == 0).then_some(now.begun) }
    }

    pub fn end_load(&self, load: &Load, region: RegionId, key: Bytes, row: Option<Arc<Row>>) {
        // Held until the row is in, so that a change that begins now takes it out again.
        let now = self.lock(load.stripe);
        if load.begun == Some(now.begun) {
            self.rows.insert(Key { region, row: key }, row);
        }
    }

    /// Begins a change of `rows`; it ends when what is returned is dropped.
    pub fn change(self: &Arc<Self>, region: RegionId, rows: &[Bytes]) -> Change {
        let stripes: BTreeSet<usize> = rows.iter().map(|row| self.stripe_of(row)).collect();
        for stripe in &stripes {
            let mut stripe = self.lock(*stripe);
            stripe.begun += 1;
            stripe.on_their_way += 1;
        }
        for row in rows {
            self.rows.invalidate(&Key { region, row: row.clone() });
        }
        Change { cache: Arc::clone(self), stripes }
    }

    /// Forgets all rows of a region: they were replaced as a whole.
    pub fn forget(&self, region: RegionId) {
        for stripe in 0..STRIPES {
            self.lock(stripe).begun += 1;
        }
        if let Err(error) = self.rows.invalidate_entries_if(move |key, _| key.region == region) {
            tracing::debug!(%error, "forgetting a region's rows one by one failed: forgetting all");
            self.rows.invalidate_all();
        }
    }

    fn stripe_of(&self, row: &[u8]) -> usize {
        (self.hasher.hash_one(row) % STRIPES as u64) as usize
    }

    fn lock(&self, stripe: usize) -> MutexGuard<'_, Stripe> {
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change that is on its way.
pub struct Change {
    cache: Arc<RowCache>,
    stripes: BTreeSet<usize>,
}

impl Drop for Change {
    fn drop(&mut self) {
        for stripe in &self.stripes {
            self.cache.lock(*stripe).on_their_way -= 1;
        }
    }
}
