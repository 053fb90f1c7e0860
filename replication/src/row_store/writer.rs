//! The changes of one call to a machine's `apply`, until they are committed as one batch.

use super::{RowStore, table::Table};
use afdg_types::{Rows, RowsError, RowsMut};
use bytes::Bytes;

/// Reads through its own changes; nobody else sees them before [`RowWriter::commit`]. Dropped, it leaves
/// nothing behind. Keys and values are kept as they are given: a slice keeps what it was cut from alive.
pub struct RowWriter<'a> {
    store: &'a RowStore,
    changes: Table,
}

impl<'a> RowWriter<'a> {
    pub fn new(store: &'a RowStore) -> Self {
        Self { store, changes: Table::default() }
    }

    /// Makes the changes visible, all at once, with the mark that stands for them.
    pub fn commit(self, mark: Bytes) {
        let mut layers = self.store.lock();
        layers.active.put_all(self.changes);
        layers.mark = Some(mark);
        layers.version += 1;
    }
}

impl Rows for RowWriter<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, RowsError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.store.get(key),
        }
    }

    fn last_at_or_before(&self, from: &[u8], at: &[u8]) -> Result<Option<(Bytes, Bytes)>, RowsError> {
        self.store.last_under(&self.changes, from, at)
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, RowsError> {
        self.store.scan_under(&self.changes, from, to, limit)
    }
}

impl RowsMut for RowWriter<'_> {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.changes.put((key, Some(value)));
    }

    fn delete(&mut self, key: Bytes) {
        self.changes.put((key, None));
    }
}
