//! Trees in memory: for tests and the simulator. They live as long as the store, which stands for the disk.

use super::{Change, CheckpointStore, CheckpointTree, StoreError, TreeReplacement};
use afdg_types::Rows;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

/// Cheap to clone; all clones are one store.
#[derive(Clone, Default)]
pub struct MemoryStore {
    trees: Trees,
}

type Trees = Arc<Mutex<BTreeMap<u64, Arc<MemoryTree>>>>;

#[derive(Default)]
struct MemoryTree {
    group: u64,
    store: Trees,
    content: RwLock<Content>,
}

#[derive(Default)]
struct Content {
    rows: BTreeMap<Bytes, Bytes>,
    mark: Option<Bytes>,
}

struct MemoryReplacement {
    group: u64,
    store: Trees,
    rows: BTreeMap<Bytes, Bytes>,
}

fn lock(trees: &Trees) -> MutexGuard<'_, BTreeMap<u64, Arc<MemoryTree>>> {
    trees.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CheckpointStore for MemoryStore {
    fn tree(&self, group: u64) -> Result<Arc<dyn CheckpointTree>, StoreError> {
        let new = || Arc::new(MemoryTree { group, store: self.trees.clone(), content: RwLock::default() });
        Ok(lock(&self.trees).entry(group).or_insert_with(new).clone())
    }

    fn drop_tree(&self, group: u64) -> Result<(), StoreError> {
        lock(&self.trees).remove(&group);
        Ok(())
    }

    fn make_durable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn trees(&self) -> Result<Vec<u64>, StoreError> {
        Ok(lock(&self.trees).keys().copied().collect())
    }
}

impl MemoryTree {
    fn read<T>(&self, read: impl FnOnce(&Content) -> T) -> T {
        read(&self.content.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reading a map can't fail, though the trait it is read through says so.
fn malformed(error: afdg_types::RowsError) -> StoreError {
    StoreError::Malformed { found: error.0 }
}

impl CheckpointTree for MemoryTree {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(|content| Ok(content.rows.get(key).cloned()))
    }

    fn last_before(&self, from: &[u8], before: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if from >= before {
            return Ok(None);
        }
        self.read(|content| {
            let range = (std::ops::Bound::Included(from), std::ops::Bound::Excluded(before));
            let last = content.rows.range::<[u8], _>(range).next_back();
            Ok(last.map(|(key, value)| (key.clone(), value.clone())))
        })
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.read(|content| content.rows.scan(from, to, limit).map_err(malformed))
    }

    fn apply(&self, batch: Vec<Change>, mark: Bytes) -> Result<(), StoreError> {
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            match value {
                Some(value) => content.rows.insert(key, value),
                None => content.rows.remove(&key),
            };
        }
        content.mark = Some(mark);
        Ok(())
    }

    fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        self.read(|content| Ok(content.mark.clone()))
    }

    fn begin_replacement(&self) -> Result<Box<dyn TreeReplacement>, StoreError> {
        let (group, store) = (self.group, self.store.clone());
        Ok(Box::new(MemoryReplacement { group, store, rows: BTreeMap::new() }))
    }
}

impl TreeReplacement for MemoryReplacement {
    fn put_rows(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        self.rows.extend(rows);
        Ok(())
    }

    fn finish(self: Box<Self>, mark: Bytes) -> Result<Arc<dyn CheckpointTree>, StoreError> {
        let content = RwLock::new(Content { rows: self.rows, mark: Some(mark) });
        let tree = Arc::new(MemoryTree { group: self.group, store: self.store.clone(), content });
        lock(&self.store).insert(self.group, tree.clone());
        Ok(tree)
    }
}
