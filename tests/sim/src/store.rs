//! A simulated store of checkpoints: what was not made durable may be lost with the host, newest first,
//! as of a log.

use crate::events::Events;
use afdg_replication::row_store::{Change, CheckpointStore, CheckpointTree, StoreError, TreeReplacement};
use afdg_types::Rows;
use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One host's store: outlives its processes. Cheap to clone.
#[derive(Clone)]
pub struct SimStore {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    host: String,
    events: Events,
    chance: StdRng,
    /// As readers see it.
    now: BTreeMap<u64, Content>,
    /// As it would be after the loss of power, at worst.
    durable: BTreeMap<u64, Content>,
    /// What was changed since, in order.
    since: Vec<(u64, Step)>,
}

#[derive(Clone, Default)]
struct Content {
    rows: BTreeMap<Bytes, Bytes>,
    mark: Option<Bytes>,
}

#[derive(Clone)]
enum Step {
    Batch(Arc<Vec<Change>>, Bytes),
    Replace(Content),
    Drop,
}

impl Step {
    fn apply(&self, group: u64, trees: &mut BTreeMap<u64, Content>) {
        match self {
            Self::Batch(batch, mark) => {
                let content = trees.entry(group).or_default();
                for (key, value) in batch.iter() {
                    match value {
                        Some(value) => content.rows.insert(key.clone(), value.clone()),
                        None => content.rows.remove(key),
                    };
                }
                content.mark = Some(mark.clone());
            }
            Self::Replace(new) => {
                trees.insert(group, new.clone());
            }
            Self::Drop => {
                trees.remove(&group);
            }
        }
    }
}

impl SimStore {
    pub fn new(host: &str, seed: u64, events: Events) -> Self {
        let shared = Shared {
            host: host.to_owned(),
            events,
            chance: StdRng::seed_from_u64(seed),
            now: BTreeMap::new(),
            durable: BTreeMap::new(),
            since: Vec::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host died: of what was not durable, chance keeps a first part.
    pub fn host_died(&self) {
        let mut shared = self.lock();
        let since = std::mem::take(&mut shared.since);
        let kept = shared.chance.random_range(0..=since.len());
        let mut durable = std::mem::take(&mut shared.durable);
        since[..kept].iter().for_each(|(group, step)| step.apply(*group, &mut durable));
        if kept < since.len() {
            let host = shared.host.clone();
            shared
                .events
                .note(&host, format_args!("store: {} of {} steps lost", since.len() - kept, since.len()));
            shared.events.count("checkpoints lost");
        }
        shared.now = durable.clone();
        shared.durable = durable;
    }

    /// All rows are gone, as if the folder had been set aside.
    pub fn lose(&self) {
        let mut shared = self.lock();
        (shared.now, shared.durable) = Default::default();
        shared.since.clear();
    }

    fn step(&self, group: u64, step: Step) {
        let mut shared = self.lock();
        step.apply(group, &mut shared.now);
        shared.since.push((group, step));
    }

    fn read<T>(&self, group: u64, read: impl FnOnce(&Content) -> T) -> T {
        match self.lock().now.get(&group) {
            Some(content) => read(content),
            None => read(&Content::default()),
        }
    }
}

impl CheckpointStore for SimStore {
    fn tree(&self, group: u64) -> Result<Arc<dyn CheckpointTree>, StoreError> {
        Ok(Arc::new(SimTree { store: self.clone(), group }))
    }

    fn drop_tree(&self, group: u64) -> Result<(), StoreError> {
        self.step(group, Step::Drop);
        Ok(())
    }

    fn make_durable(&self) -> Result<(), StoreError> {
        let mut shared = self.lock();
        shared.durable = shared.now.clone();
        shared.since.clear();
        shared.events.count("checkpoints");
        Ok(())
    }

    fn trees(&self) -> Result<Vec<u64>, StoreError> {
        Ok(self.lock().now.keys().copied().collect())
    }
}

struct SimTree {
    store: SimStore,
    group: u64,
}

impl CheckpointTree for SimTree {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.store.read(self.group, |content| content.rows.get(key).cloned()))
    }

    fn last_before(&self, from: &[u8], before: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if from >= before {
            return Ok(None);
        }
        Ok(self.store.read(self.group, |content| {
            let range = (Bound::Included(from), Bound::Excluded(before));
            let last = content.rows.range::<[u8], _>(range).next_back();
            last.map(|(key, value)| (key.clone(), value.clone()))
        }))
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let scanned = self.store.read(self.group, |content| content.rows.scan(from, to, limit));
        scanned.map_err(|error| StoreError::Malformed { found: error.to_string() })
    }

    fn apply(&self, batch: Vec<Change>, mark: Bytes) -> Result<(), StoreError> {
        self.store.step(self.group, Step::Batch(Arc::new(batch), mark));
        Ok(())
    }

    fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.store.read(self.group, |content| content.mark.clone()))
    }

    fn begin_replacement(&self) -> Result<Box<dyn TreeReplacement>, StoreError> {
        Ok(Box::new(SimReplacement { store: self.store.clone(), group: self.group, rows: BTreeMap::new() }))
    }
}

struct SimReplacement {
    store: SimStore,
    group: u64,
    rows: BTreeMap<Bytes, Bytes>,
}

impl TreeReplacement for SimReplacement {
    fn put_rows(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        self.rows.extend(rows);
        Ok(())
    }

    fn finish(self: Box<Self>, mark: Bytes) -> Result<Arc<dyn CheckpointTree>, StoreError> {
        self.store.step(self.group, Step::Replace(Content { rows: self.rows, mark: Some(mark) }));
        // As the trait says: durable when it returns.
        self.store.make_durable()?;
        self.store.tree(self.group)
    }
}
