//! The rows of one group as readers and the one writer see them.

use super::{
    Change, CheckpointTree, StoreError,
    merge::{self, TreeRows},
    table::{self, Table},
};
use afdg_types::{Rows, RowsError};
use bytes::Bytes;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The rows of one group. Any number of threads read; one changes them, through
/// [`RowStore::write`] or a [`super::RowWriter`].
///
/// Each call sees whole batches only. The lock is held for work in memory, never while the tree is read.
pub struct RowStore {
    layers: RwLock<Layers>,
}

/// Guarded as a whole, so that a reader takes tables and tree of one moment.
pub(super) struct Layers {
    pub tree: Arc<dyn CheckpointTree>,
    /// Grows when the tree is about to change. A reader that took its layers before, and read the tree
    /// after, may have missed the layer that the tree now shows a part of; so it reads again.
    pub tree_changes: u64,
    pub active: Table,
    /// Oldest first. They never change.
    pub frozen: Vec<Arc<Table>>,
    /// Of the newest rows.
    pub mark: Option<Bytes>,
    /// Of the rows in the tree.
    pub tree_mark: Option<Bytes>,
    pub checkpoint_running: bool,
    /// Snapshots that need the tree as it is.
    pub snapshots: usize,
    /// How often the tree was replaced: a checkpoint that began before has nothing to finish.
    pub replacements: u64,
    /// Grows with every batch, and with every replacement, that became visible.
    pub version: u64,
}

/// Where a row was found, or looked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    InMemory,
    /// In the tree of the last checkpoint, on disk or in its own cache.
    InTree,
}

impl RowStore {
    /// The rows as the last checkpoint left them.
    pub fn open(tree: Arc<dyn CheckpointTree>) -> Result<RowStore, RowsError> {
        let mark = tree.mark()?;
        Ok(RowStore {
            layers: RwLock::new(Layers {
                tree,
                tree_changes: 0,
                active: Table::default(),
                frozen: Vec::new(),
                mark: mark.clone(),
                tree_mark: mark,
                checkpoint_running: false,
                snapshots: 0,
                replacements: 0,
                version: 0,
            }),
        })
    }

    /// What the last batch was written with.
    pub fn mark(&self) -> Option<Bytes> {
        self.read().mark.clone()
    }

    /// The mark of the last checkpoint in the tree.
    pub fn checkpoint_mark(&self) -> Option<Bytes> {
        self.read().tree_mark.clone()
    }

    /// Applies a batch; a reader sees all of it or nothing. Only one thread may write.
    pub fn write(&self, changes: Vec<Change>, mark: Bytes) {
        let mut layers = self.lock();
        for change in changes {
            layers.active.put(change);
        }
        layers.mark = Some(mark);
        layers.version += 1;
    }

    /// Grows with every batch and replacement that readers can see: what was read while it stayed the same was all there
    /// at one instant.
    pub fn version(&self) -> u64 {
        self.read().version
    }

    /// Memory that waits for a checkpoint, about.
    pub fn dirty_bytes(&self) -> usize {
        let layers = self.read();
        layers.active.bytes + layers.frozen.iter().map(|table| table.bytes).sum::<usize>()
    }

    /// Rows that wait for a checkpoint; one that changed again after a freeze counts twice.
    pub fn dirty_rows(&self) -> usize {
        let layers = self.read();
        layers.active.len() + layers.frozen.iter().map(|table| table.len()).sum::<usize>()
    }

    /// Live snapshots, each of which holds checkpoints back.
    pub fn snapshots(&self) -> usize {
        self.read().snapshots
    }

    /// A row, and where it was found.
    pub fn get_from(&self, key: &[u8]) -> Result<(Option<Bytes>, Found), RowsError> {
        let layers = self.read();
        if let Some(value) = layers.active.get(key) {
            return Ok((value.clone(), Found::InMemory));
        }
        if let Some(value) = layers.frozen.iter().rev().find_map(|table| table.get(key)) {
            return Ok((value.clone(), Found::InMemory));
        }
        // One row can't be seen in part: if the tree changes meanwhile, the newer value is as right.
        let tree = layers.tree.clone();
        drop(layers);
        Ok((tree.get(key)?, Found::InTree))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Layers> {
        // Every section below leaves the layers whole, also when it panics.
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from memory what `collect` needs and lets `read` complete it from the tree, without the
    /// lock but with the tree of the same moment.
    fn consistent<T, R>(
        &self,
        collect: impl Fn(&[&Table]) -> T,
        read: impl Fn(T, &dyn CheckpointTree) -> Result<R, StoreError>,
    ) -> Result<R, RowsError> {
        loop {
            let layers = self.read();
            let (tree, changes) = (layers.tree.clone(), layers.tree_changes);
            let collected = collect(&layers.newest_first());
            drop(layers);
            let result = read(collected, &*tree)?;
            // At most one more round for each checkpoint that begins meanwhile.
            if self.read().tree_changes == changes {
                return Ok(result);
            }
        }
    }

    /// [`Rows::last_at_or_before`] below the writer's own changes `own`.
    pub(super) fn last_under(
        &self,
        own: &Table,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, RowsError> {
        let before = merge::after(at);
        self.consistent(
            |layers| table::last_before(&with_own(own, layers), from, &before),
            |(above, deleted), tree| {
                let from = above.as_ref().map_or(from, |(key, _)| key);
                let mut before = before.clone();
                loop {
                    match tree.last_before(from, &before)? {
                        Some((key, _)) if deleted.binary_search_by(|gone| key.cmp(gone)).is_ok() => {
                            before = key.to_vec();
                        }
                        Some(row) if above.as_ref().is_none_or(|above| row.0 > above.0) => {
                            return Ok(Some(row));
                        }
                        _ => return Ok(above),
                    }
                }
            },
        )
    }

    /// [`Rows::scan`] below the writer's own changes `own`.
    pub(super) fn scan_under(
        &self,
        own: &Table,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, RowsError> {
        if limit == 0 || to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        self.consistent(
            |layers| merge::overlay(&with_own(own, layers), from, to, limit),
            |(changes, end), tree| {
                let to = end.as_deref().or(to);
                let mut tree = TreeRows::new(tree, from, to, limit.min(PAGE_ROWS_MAX));
                let mut overlay = changes.into_iter().peekable();
                let mut rows = Vec::new();
                while rows.len() < limit
                    && let Some(row) = merge::next_row(&mut overlay, &mut tree)?
                {
                    rows.push(row);
                }
                Ok(rows)
            },
        )
    }
}

/// Rows read from a tree at a time: enough to hide the seek, few enough for large values.
pub(super) const PAGE_ROWS_MAX: usize = 64;

fn with_own<'a>(own: &'a Table, layers: &[&'a Table]) -> Vec<&'a Table> {
    std::iter::once(own).filter(|own| !own.is_empty()).chain(layers.iter().copied()).collect()
}

impl Layers {
    fn newest_first(&self) -> Vec<&Table> {
        std::iter::once(&self.active).chain(self.frozen.iter().rev().map(|table| &**table)).collect()
    }

    /// Makes the active table one that never changes.
    pub fn freeze(&mut self) {
        if !self.active.is_empty() {
            self.frozen.push(Arc::new(std::mem::take(&mut self.active)));
        }
    }
}

impl Rows for RowStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, RowsError> {
        Ok(self.get_from(key)?.0)
    }

    fn last_at_or_before(&self, from: &[u8], at: &[u8]) -> Result<Option<(Bytes, Bytes)>, RowsError> {
        self.last_under(&Table::default(), from, at)
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, RowsError> {
        self.scan_under(&Table::default(), from, to, limit)
    }
}
