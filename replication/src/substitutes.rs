//! What a simulator puts in the place of a server's own.

use crate::{
    machine::Position,
    row_store::{CheckpointStore, RowStore},
};
use bytes::Bytes;
use std::{fmt, sync::Arc};

/// Nothing is replaced by default.
#[derive(Clone)]
pub struct Substitutes {
    /// Where checkpoints go instead of into sled.
    pub store: Option<Arc<dyn CheckpointStore>>,
    pub witness: Arc<dyn Witness>,
}

impl Default for Substitutes {
    fn default() -> Self {
        Self { store: None, witness: Arc::new(Nobody) }
    }
}

impl fmt::Debug for Substitutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = if self.store.is_some() { "a substitute" } else { "sled" };
        f.debug_struct("Substitutes").field("store", &store).finish_non_exhaustive()
    }
}

/// Told of everything that Raft's invariants speak of, on one server, as it happens there. Must not block.
pub trait Witness: Send + Sync + 'static {
    /// A replica starts on a log that holds these entries after the purged ones.
    fn opened(&self, _group: u64, _purged: Position, _entries: &[(Position, Bytes)]) {}
    /// The rows in the store end before the log begins, so they have to be a peer's.
    fn lacks_rows(&self, _group: u64) {}
    /// An entry, as it is stored, was put at the end of the log.
    fn appended(&self, _group: u64, _at: Position, _entry: &Bytes) {}
    /// The log was cut: entries from `from` on are gone.
    fn truncated(&self, _group: u64, _from: u64) {}
    /// This replica leads in `term`.
    fn led(&self, _group: u64, _term: u64) {}
    /// An entry was applied and is visible in `rows`. Entries of Raft's own have no command and no outcome.
    fn applied(
        &self,
        _group: u64,
        _at: Position,
        _command: Option<&Bytes>,
        _outcome: Option<&dyn fmt::Debug>,
        _rows: &RowStore,
    ) {
    }
    /// The rows are those of a snapshot, or of a checkpoint when a replica starts, which reach up to `at`.
    fn restored(&self, _group: u64, _at: Position, _rows: &RowStore) {}
}

/// The witness of servers that are not watched.
struct Nobody;

impl Witness for Nobody {}
