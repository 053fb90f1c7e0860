//! All rows of one moment, read in chunks while the group goes on.

use super::{
    CheckpointTree, RowStore,
    merge::{self, TreeRows},
    rows::PAGE_ROWS_MAX,
    table::{self, Table},
};
use afdg_types::RowsError;
use bytes::Bytes;
use std::sync::Arc;

/// The rows as they were when it was taken. While it lives, its tree gets no checkpoint, so that memory
/// and the log grow: read it and let it go.
pub struct RowSnapshot {
    store: Arc<RowStore>,
    tree: Arc<dyn CheckpointTree>,
    /// Oldest first.
    tables: Vec<Arc<Table>>,
    mark: Option<Bytes>,
    /// Where the next chunk starts; none after the last.
    from: Option<Vec<u8>>,
    replacements: u64,
}

impl RowStore {
    /// Takes no copy: it freezes the active table, and starts a new one.
    pub fn snapshot(self: &Arc<Self>) -> RowSnapshot {
        let mut layers = self.lock();
        layers.freeze();
        layers.snapshots += 1;
        RowSnapshot {
            store: self.clone(),
            tree: layers.tree.clone(),
            tables: layers.frozen.clone(),
            mark: layers.mark.clone(),
            from: Some(Vec::new()),
            replacements: layers.replacements,
        }
    }
}

impl RowSnapshot {
    /// What the rows stand for; none if nothing was ever written.
    pub fn mark(&self) -> Option<&Bytes> {
        self.mark.as_ref()
    }

    /// The next rows in key order: as many as reach `bytes_target` (keys and values), one at least; none
    /// when all were read. Blocks. After an error it may be called again.
    pub fn next_rows(&mut self, bytes_target: usize) -> Result<Vec<(Bytes, Bytes)>, RowsError> {
        let Some(from) = &self.from else { return Ok(Vec::new()) };
        let tables = self.tables.iter().rev().map(|table| &**table);
        let mut overlay = table::Layers::new(tables, from, None)
            .map(|(key, value)| (key.clone(), value.clone()))
            .peekable();
        let mut tree = TreeRows::new(&*self.tree, from, None, PAGE_ROWS_MAX);
        let mut rows = Vec::new();
        let mut bytes = 0;
        while rows.is_empty() || bytes < bytes_target {
            let Some((key, value)) = merge::next_row(&mut overlay, &mut tree)? else { break };
            bytes += key.len() + value.len();
            rows.push((key, value));
        }
        self.from = rows.last().map(|(key, _)| merge::after(key));
        Ok(rows)
    }
}

impl Drop for RowSnapshot {
    fn drop(&mut self) {
        let mut layers = self.store.lock();
        // A tree that was replaced gets no more checkpoints anyway.
        if layers.replacements == self.replacements {
            layers.snapshots -= 1;
        }
    }
}
