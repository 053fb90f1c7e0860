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
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

const STRIPES: usize = 256;
/// Bits of the filter of rows that were ever cached: 16 KiB.
const FILTER_BITS: usize = 1 << 17;
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
    /// A row whose bit is not set was never cached: it is not looked for, and a change of it has nothing
    /// to take out. That is every row of a replica that only follows.
    ever_cached: Vec<AtomicU64>,
    hasher: RandomState,
}

/// Where a row belongs.
#[derive(Clone, Copy)]
struct Place {
    stripe: usize,
    bit: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stripe {
    begun: u64,
    on_their_way: u32,
}

/// Taken before a load; says afterwards whether what was loaded may be cached.
pub struct Load {
    place: Place,
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
            ever_cached: (0..FILTER_BITS / 64).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    pub fn get(&self, region: RegionId, row: &Bytes) -> Option<Option<Arc<Row>>> {
        if !self.may_be_cached(self.place_of(row)) {
            return None;
        }
        self.rows.get(&Key { region, row: row.clone() })
    }

    fn may_be_cached(&self, place: Place) -> bool {
        let (word, mask) = filter_bit(place.bit);
        self.ever_cached[word].load(Ordering::Relaxed) & mask != 0
    }

    pub fn begin_load(&self, row: &[u8]) -> Load {
        let place = self.place_of(row);
        let now = *self.lock(place.stripe);
        Load { place, begun: (now.on_their_way == 0).then_some(now.begun) }
    }

    pub fn end_load(&self, load: &Load, region: RegionId, key: Bytes, row: Option<Arc<Row>>) {
        // Held until the row is in, so that a change that begins now takes it out again.
        let now = self.lock(load.place.stripe);
        if load.begun == Some(now.begun) {
            let (word, mask) = filter_bit(load.place.bit);
            self.ever_cached[word].fetch_or(mask, Ordering::Relaxed);
            self.rows.insert(Key { region, row: key }, row);
        }
    }

    /// Begins a change of `rows`; it ends when what is returned is dropped.
    pub fn change(self: &Arc<Self>, region: RegionId, rows: &[Bytes]) -> Change {
        let places: Vec<Place> = rows.iter().map(|row| self.place_of(row)).collect();
        let mut stripes: Vec<usize> = places.iter().map(|place| place.stripe).collect();
        stripes.sort_unstable();
        stripes.dedup();
        for stripe in &stripes {
            let mut stripe = self.lock(*stripe);
            stripe.begun += 1;
            stripe.on_their_way += 1;
        }
        // Whoever cached a row before that set its bit under the stripe's lock.
        for (row, place) in rows.iter().zip(places) {
            if self.may_be_cached(place) {
                self.rows.invalidate(&Key { region, row: row.clone() });
            }
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

    fn place_of(&self, row: &[u8]) -> Place {
        let hash = self.hasher.hash_one(row) as usize;
        Place { stripe: hash % STRIPES, bit: hash / STRIPES % FILTER_BITS }
    }

    fn lock(&self, stripe: usize) -> MutexGuard<'_, Stripe> {
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Word and mask of a bit of the filter.
fn filter_bit(bit: usize) -> (usize, u64) {
    (bit / 64, 1 << (bit % 64))
}

/// A change that is on its way.
pub struct Change {
    cache: Arc<RowCache>,
    /// Each once.
    stripes: Vec<usize>,
}

impl Drop for Change {
    fn drop(&mut self) {
        for stripe in &self.stripes {
            self.cache.lock(*stripe).on_their_way -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_agent::row::Page;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    const ONE: RegionId = RegionId(1);
    const TWO: RegionId = RegionId(2);

    fn cache() -> Arc<RowCache> {
        Arc::new(RowCache::new(1 << 20))
    }

    fn row(number: u64) -> Option<Arc<Row>> {
        let items = vec![Bytes::copy_from_slice(&number.to_be_bytes())];
        Some(Arc::new(Row::Page(Page { items })))
    }

    fn key(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn load(cache: &RowCache, region: RegionId, text: &str, number: u64) {
        let load = cache.begin_load(text.as_bytes());
        cache.end_load(&load, region, key(text), row(number));
    }

    /// A key other than `text` whose changes are counted together with those of `text`.
    fn neighbour(cache: &RowCache, text: &str) -> String {
        let stripe = cache.place_of(text.as_bytes()).stripe;
        (0..)
            .map(|n| format!("n{n}"))
            .find(|other| cache.place_of(other.as_bytes()).stripe == stripe)
            .unwrap()
    }

    #[test]
    fn a_loaded_row_is_cached_for_its_region_and_so_is_that_there_is_none() {
        let cache = cache();
        assert_eq!(cache.get(ONE, &key("a")), None);
        load(&cache, ONE, "a", 1);
        let missing = cache.begin_load(b"b");
        cache.end_load(&missing, ONE, key("b"), None);
        assert_eq!(cache.get(ONE, &key("a")), Some(row(1)));
        assert_eq!(cache.get(ONE, &key("b")), Some(None));
        assert_eq!(cache.get(TWO, &key("a")), None);
    }

    #[test]
    fn a_change_takes_its_rows_out_and_no_other() {
        let cache = cache();
        for (region, text) in [(ONE, "a"), (ONE, "b"), (TWO, "a")] {
            load(&cache, region, text, 1);
        }
        let change = cache.change(ONE, &[key("a"), key("a"), key("c")]);
        assert_eq!(cache.get(ONE, &key("a")), None);
        assert_eq!(cache.get(ONE, &key("b")), Some(row(1)));
        assert_eq!(cache.get(TWO, &key("a")), Some(row(1)));
        drop(change);
        load(&cache, ONE, "a", 2);
        assert_eq!(cache.get(ONE, &key("a")), Some(row(2)), "named twice, it is on its way once");
    }

    #[test]
    fn a_load_that_began_before_a_change_is_not_cached() {
        let cache = cache();
        let [ends_during, ends_after] = [cache.begin_load(b"a"), cache.begin_load(b"a")];
        let change = cache.change(ONE, &[key("a")]);
        cache.end_load(&ends_during, ONE, key("a"), row(1));
        assert_eq!(cache.get(ONE, &key("a")), None);
        drop(change);
        cache.end_load(&ends_after, ONE, key("a"), row(1));
        assert_eq!(cache.get(ONE, &key("a")), None);
        load(&cache, ONE, "a", 2);
        assert_eq!(cache.get(ONE, &key("a")), Some(row(2)));
    }

    #[test]
    fn a_load_that_began_during_a_change_is_not_cached() {
        let cache = cache();
        let change = cache.change(ONE, &[key("a")]);
        let [ends_during, ends_after] = [cache.begin_load(b"a"), cache.begin_load(b"a")];
        cache.end_load(&ends_during, ONE, key("a"), row(1));
        assert_eq!(cache.get(ONE, &key("a")), None);
        drop(change);
        cache.end_load(&ends_after, ONE, key("a"), row(1));
        assert_eq!(cache.get(ONE, &key("a")), None);
    }

    #[test]
    fn changes_that_overlap_on_one_stripe_end_one_by_one() {
        let cache = cache();
        let other = neighbour(&cache, "a");
        let first = cache.change(ONE, &[key("a")]);
        let second = cache.change(TWO, &[key(&other)]);
        drop(first);
        let load_beside = cache.begin_load(b"a");
        cache.end_load(&load_beside, ONE, key("a"), row(1));
        assert_eq!(cache.get(ONE, &key("a")), None, "the other region's change is still on its way");
        drop(second);
        cache.end_load(&load_beside, ONE, key("a"), row(1));
        assert_eq!(cache.get(ONE, &key("a")), None);
        load(&cache, ONE, "a", 2);
        load(&cache, TWO, &other, 3);
        assert_eq!(cache.get(ONE, &key("a")), Some(row(2)));
        let third = cache.change(TWO, &[key(&other)]);
        assert_eq!(cache.get(ONE, &key("a")), Some(row(2)), "only the changed row leaves");
        assert_eq!(cache.get(TWO, &key(&other)), None);
        drop(third);
    }

    #[test]
    fn a_change_of_nothing_holds_no_load_back() {
        let cache = cache();
        let loading = cache.begin_load(b"a");
        let change = cache.change(ONE, &[]);
        cache.end_load(&loading, ONE, key("a"), row(1));
        assert_eq!(cache.get(ONE, &key("a")), Some(row(1)));
        drop(change);
    }

    #[test]
    fn a_region_is_forgotten_with_the_loads_that_were_under_way() {
        let cache = cache();
        for (region, text) in [(ONE, "a"), (ONE, "b"), (TWO, "a")] {
            load(&cache, region, text, 1);
        }
        let loading = cache.begin_load(b"c");
        cache.forget(ONE);
        assert_eq!((cache.get(ONE, &key("a")), cache.get(ONE, &key("b"))), (None, None));
        assert_eq!(cache.get(TWO, &key("a")), Some(row(1)));
        cache.end_load(&loading, ONE, key("c"), row(1));
        assert_eq!(cache.get(ONE, &key("c")), None);
        load(&cache, ONE, "c", 2);
        assert_eq!(cache.get(ONE, &key("c")), Some(row(2)), "and it is filled anew");
    }

    #[test]
    fn the_cache_is_bounded_in_bytes() {
        let cache = RowCache::new(50_000);
        for n in 0..1_000 {
            let large = Some(Arc::new(Row::Page(Page { items: vec![vec![0; 1_000].into()] })));
            let load = cache.begin_load(b"a");
            cache.end_load(&load, ONE, key(&format!("k{n}")), large);
        }
        cache.rows.run_pending_tasks();
        assert!(cache.rows.weighted_size() <= 50_000, "{} bytes are cached", cache.rows.weighted_size());
        assert!(cache.rows.entry_count() > 10);
    }

    #[test]
    fn no_reader_sees_an_older_row_after_a_newer_one() {
        // Reads from the cache that the readers together must have made before the writer ends.
        const HITS_MIN: u64 = 2_000;
        const ROUNDS_MIN: u64 = 5_000;
        // So that a cache that takes nothing in ends the test, too.
        const ROUNDS_MAX: u64 = 5_000_000;
        let (cache, ended, hits) = (cache(), AtomicBool::new(false), AtomicU64::new(0));
        let stored: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
        let number_of =
            |row: Option<Arc<Row>>| u64::from_be_bytes(row.unwrap().items()[0].as_ref().try_into().unwrap());
        let read = || {
            let mut seen = [0; 4];
            while !ended.load(SeqCst) {
                for (place, stored) in stored.iter().enumerate() {
                    let key = key(&format!("k{place}"));
                    let number = match cache.get(ONE, &key) {
                        Some(row) => {
                            hits.fetch_add(1, SeqCst);
                            number_of(row)
                        }
                        None => {
                            let load = cache.begin_load(&key);
                            let number = stored.load(SeqCst);
                            std::thread::yield_now();
                            cache.end_load(&load, ONE, key, row(number));
                            number
                        }
                    };
                    assert!(number >= seen[place], "{number} after {}", seen[place]);
                    seen[place] = number;
                }
            }
        };
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
            let mut round = 0;
            while (round < ROUNDS_MIN || hits.load(SeqCst) < HITS_MIN)
                && round < ROUNDS_MAX
                && !readers.iter().any(|reader| reader.is_finished())
            {
                round += 1;
                let places = [round as usize % 4, round as usize / 4 % 4];
                let change = cache.change(ONE, &places.map(|place| key(&format!("k{place}"))));
                for place in places {
                    stored[place].store(round, SeqCst);
                }
                drop(change);
                std::thread::yield_now();
            }
            ended.store(true, SeqCst);
        });
        assert!(hits.load(SeqCst) >= HITS_MIN, "{} reads from the cache", hits.load(SeqCst));
    }
}
