//! Checkpoints: rows move from memory into the store below, are made durable, and only then may the
//! write-ahead log lose what led to them.
//!
//! The log is purged up to the checkpoint before the last, so that a store that turns out to be damaged
//! in its newest part can be brought up again from the one before.

use crate::codec;
use crate::row_store::{CheckpointStore, RowStore};
use afdg_runtime::{Blocking, blocking};
use afdg_types::planted::{Bug, planted};
use bytes::Bytes;
use std::{io, sync::Arc};

/// Makes checkpoints of a server's groups, one at a time: they share one store, whose flush is common.
#[derive(Clone)]
pub struct Checkpointer {
    store: Arc<dyn CheckpointStore>,
    threads: Arc<dyn Blocking>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Checkpointer {
    pub fn new(store: Arc<dyn CheckpointStore>, threads: Arc<dyn Blocking>) -> Self {
        Self { store, threads, turn: Arc::new(tokio::sync::Mutex::new(())) }
    }

    /// Makes durable all that was applied so far. Returns the mark of what is durable now; none if
    /// nothing was ever applied.
    pub async fn checkpoint(&self, rows: &Arc<RowStore>) -> io::Result<Option<Bytes>> {
        let _turn = self.turn.lock().await;
        let Some(checkpoint) = rows.begin_checkpoint() else { return Ok(rows.checkpoint_mark()) };
        let written = blocking(&self.threads, move || checkpoint.write().map(|()| checkpoint)).await?;
        let checkpoint = written.map_err(io::Error::other)?;
        let store = Arc::clone(&self.store);
        if !planted(Bug::CheckpointNotDurable) {
            let durable = blocking(&self.threads, move || store.make_durable()).await?;
            durable.map_err(io::Error::other)?;
        }
        // Frees what was in memory, which takes its time.
        let finished = blocking(&self.threads, move || checkpoint.finish()).await?;
        // None if a snapshot took the rows' place meanwhile: then its mark is the durable one.
        Ok(finished.or_else(|| rows.checkpoint_mark()))
    }

    /// Replaces all rows by those of a peer's snapshot.
    pub async fn install(&self, rows: &Arc<RowStore>, chunks: Vec<Bytes>, mark: Bytes) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        let rows = Arc::clone(rows);
        let install = move || {
            let mut replacement = rows.begin_replacement().map_err(io::Error::other)?;
            for chunk in chunks {
                replacement.put_rows(codec::decode_rows(&chunk)?).map_err(io::Error::other)?;
            }
            replacement.finish(mark).map_err(io::Error::other)
        };
        blocking(&self.threads, install).await?
    }
}
