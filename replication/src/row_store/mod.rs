//! The rows of a group: tables in memory over a tree on disk that only checkpoints change.
//!
//! [`RowStore`] is what a state machine reads and changes. A change goes to the active table and costs
//! about a microsecond; a [`Checkpoint`] freezes the table and moves it into the [`CheckpointTree`] in one
//! atomic batch together with a *mark* (the position that the rows stand for; opaque here). Since the
//! tree changes at no other time, holding checkpoints back makes it a consistent snapshot
//! ([`RowSnapshot`]), and a tree is replaced as a whole by a [`Replacement`].
//!
//! Durability is the write-ahead log's. What is lost here with the process, the log brings back. All
//! calls on trees and stores block.

mod blocks;
mod checkpoint;
#[cfg(feature = "fuzzing")]
pub(crate) mod decoders;
mod memory;
mod merge;
mod rows;
mod sled_store;
mod sled_tree;
mod snapshot;
mod sum;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_model;
mod writer;

pub use checkpoint::{Checkpoint, Replacement};
pub use memory::MemoryStore;
pub use rows::{Found, RowStore};
pub use sled_store::{SledOptions, SledStore};
pub use snapshot::RowSnapshot;
pub use writer::RowWriter;

use afdg_types::RowsError;
use bytes::Bytes;
use std::{path::PathBuf, sync::Arc};

/// A row that is put, or deleted if there is no value.
pub type Change = (Bytes, Option<Bytes>);

/// The trees of all groups on one server.
pub trait CheckpointStore: Send + Sync + 'static {
    /// The group's tree, made if there is none.
    fn tree(&self, group: u64) -> Result<Arc<dyn CheckpointTree>, StoreError>;
    /// Forgets the group's tree. Who still holds it may go on reading it.
    fn drop_tree(&self, group: u64) -> Result<(), StoreError>;
    /// Returns when everything that the trees hold would survive the loss of power.
    fn make_durable(&self) -> Result<(), StoreError>;
    /// The groups that have a tree, in order.
    fn trees(&self) -> Result<Vec<u64>, StoreError>;
}

/// Rows of one group and their mark, as of a checkpoint.
pub trait CheckpointTree: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// The row with the greatest key in `from..before`, if any.
    fn last_before(&self, from: &[u8], before: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError>;
    /// Rows in key order from `from` (included) to `to` (excluded; none means to the end), at most `limit`.
    fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    /// Applies all changes and the mark. After a crash either all of it is there or nothing; a reader
    /// in between may see a part.
    fn apply(&self, batch: Vec<Change>, mark: Bytes) -> Result<(), StoreError>;
    /// None for a tree that no checkpoint and no snapshot has reached.
    fn mark(&self) -> Result<Option<Bytes>, StoreError>;
    /// Starts a tree that is to take this one's place. Until it is finished, and after a crash before
    /// that, the group's tree is this one, unchanged.
    fn begin_replacement(&self) -> Result<Box<dyn TreeReplacement>, StoreError>;
}

/// A tree that is being filled. Dropped unfinished, it goes away.
pub trait TreeReplacement: Send {
    fn put_rows(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), StoreError>;
    /// Makes the new tree durable and then, in one step, the group's own.
    fn finish(self: Box<Self>, mark: Bytes) -> Result<Arc<dyn CheckpointTree>, StoreError>;
}

/// The store of checkpoints failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing in it can be relied on. It can be set aside: the log and the peers hold what it held.
    #[error("the checkpoints in {folder} can't be read: {reason}")]
    Unreadable { folder: PathBuf, reason: String },
    #[error("can't {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("can't {action} of group {group}: {source}")]
    Tree { action: &'static str, group: u64, source: sled::Error },
    #[error("can't {action} of the checkpoints: {source}")]
    Store { action: &'static str, source: sled::Error },
    /// The bytes are not what was written.
    #[error("the checkpoints hold {found}")]
    Malformed { found: String },
}

impl From<StoreError> for RowsError {
    fn from(error: StoreError) -> Self {
        RowsError(error.to_string())
    }
}
