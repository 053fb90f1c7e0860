//! What changes the tree below a store of rows: a checkpoint, or a replacement by a snapshot.

use super::{
    Change, CheckpointTree, RowStore, StoreError, TreeReplacement,
    table::{self, Table},
};
use bytes::Bytes;
use std::sync::Arc;

/// Rows put into a replacement at a time by [`RowStore::replace_all`].
const REPLACEMENT_ROWS: usize = 1024;

/// A checkpoint on its way into the tree: [`Checkpoint::write`], then
/// [`make_durable`](super::CheckpointStore::make_durable), then [`Checkpoint::finish`].
///
/// Dropped before it is finished, it leaves its tables where they are: readers see them, and the next
/// checkpoint takes them along.
pub struct Checkpoint {
    store: Arc<RowStore>,
    tree: Arc<dyn CheckpointTree>,
    /// Oldest first.
    tables: Vec<Arc<Table>>,
    mark: Bytes,
    replacements: u64,
}

/// A snapshot that is being installed. Readers see the old rows until it is finished; dropped
/// unfinished, or after a crash, the old rows stay.
pub struct Replacement {
    store: Arc<RowStore>,
    tree: Box<dyn TreeReplacement>,
}

impl RowStore {
    /// Freezes what changed since the last checkpoint. None if nothing did, if a checkpoint runs, or if
    /// a snapshot needs the tree as it is.
    pub fn begin_checkpoint(self: &Arc<Self>) -> Option<Checkpoint> {
        let mut layers = self.lock();
        if layers.checkpoint_running || layers.snapshots > 0 {
            return None;
        }
        layers.freeze();
        if layers.frozen.is_empty() && layers.mark == layers.tree_mark {
            return None;
        }
        let mark = layers.mark.clone()?;
        layers.checkpoint_running = true;
        Some(Checkpoint {
            store: self.clone(),
            tree: layers.tree.clone(),
            tables: layers.frozen.clone(),
            mark,
            replacements: layers.replacements,
        })
    }

    /// Starts to replace all rows.
    pub fn begin_replacement(self: &Arc<Self>) -> Result<Replacement, StoreError> {
        let tree = self.read().tree.clone();
        Ok(Replacement { store: self.clone(), tree: tree.begin_replacement()? })
    }

    /// Replaces all rows by `rows` and the mark by `mark`. Blocks. It is durable when it returns; after
    /// a crash before that, the old rows are there as they were.
    pub fn replace_all(
        self: &Arc<Self>,
        rows: impl IntoIterator<Item = (Bytes, Bytes)>,
        mark: Bytes,
    ) -> Result<(), StoreError> {
        let mut replacement = self.begin_replacement()?;
        let mut rows = rows.into_iter();
        loop {
            let chunk: Vec<_> = rows.by_ref().take(REPLACEMENT_ROWS).collect();
            if chunk.is_empty() {
                return replacement.finish(mark);
            }
            replacement.put_rows(chunk)?;
        }
    }
}

impl Checkpoint {
    /// What the checkpoint stands for.
    pub fn mark(&self) -> &Bytes {
        &self.mark
    }

    pub fn rows(&self) -> usize {
        self.tables.iter().map(|table| table.len()).sum()
    }

    /// Applies the tables to the tree. Blocks.
    pub fn write(&self) -> Result<(), StoreError> {
        let tables = self.tables.iter().rev().map(|table| &**table);
        let batch: Vec<Change> =
            table::Layers::new(tables, &[], None).map(|(key, value)| (key.clone(), value.clone())).collect();
        self.store.lock().tree_changes += 1;
        self.tree.apply(batch, self.mark.clone())
    }

    /// Drops the tables that the tree holds durably by now, and returns the mark that it stands at; none
    /// if all rows were replaced meanwhile, so that the checkpoint came to nothing. Freeing a large table
    /// takes its time, so call it where blocking is allowed.
    pub fn finish(self) -> Option<Bytes> {
        let mut layers = self.store.lock();
        if layers.replacements != self.replacements {
            return None;
        }
        // Snapshots may have frozen more since; those come after.
        let taken = layers.frozen.drain(..self.tables.len()).collect::<Vec<_>>();
        layers.tree_mark = Some(self.mark.clone());
        drop(layers);
        drop(taken);
        Some(self.mark.clone())
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        let mut layers = self.store.lock();
        if layers.replacements == self.replacements {
            layers.checkpoint_running = false;
        }
    }
}

impl Replacement {
    /// Rows in any order. Blocks.
    pub fn put_rows(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        self.tree.put_rows(rows)
    }

    /// Makes the new rows durable and puts them in the place of the old. Blocks.
    pub fn finish(self, mark: Bytes) -> Result<(), StoreError> {
        let tree = self.tree.finish(mark.clone())?;
        let mut layers = self.store.lock();
        let old = (std::mem::take(&mut layers.active), std::mem::take(&mut layers.frozen));
        layers.tree = tree;
        layers.tree_changes += 1;
        layers.mark = Some(mark.clone());
        layers.tree_mark = Some(mark);
        layers.checkpoint_running = false;
        layers.snapshots = 0;
        layers.replacements += 1;
        layers.version += 1;
        drop(layers);
        drop(old);
        Ok(())
    }
}
