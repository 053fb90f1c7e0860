//! openraft's own suite for storage, on this crate's log and state machine.

use super::server::{Applying, Counting, append, blank, command, id, open_log};
use crate::{
    codec,
    log_store::LogStore,
    raft_types::{Answer, LogId, SnapshotMeta, StoredMembership, Types},
    state_machine::{SnapshotBuilder, SnapshotRows, StateMachine},
};
use futures::Stream;
use openraft::{
    OptionalSend, RaftSnapshotBuilder, StorageError,
    storage::{EntryResponder, RaftLogStorage, RaftStateMachine, Snapshot, StorageHelper},
    testing::log::{StoreBuilder, Suite},
    type_config::alias::SnapshotOf,
};
use std::{fmt, io};

/// The suite prints answers of assertions that fail.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "an outcome" } else { "no outcome" })
    }
}

struct Folders;

impl StoreBuilder<Types, LogStore, Linked, tempfile::TempDir> for Folders {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Linked), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let (_, log) = open_log(folder.path()).await;
        Ok((folder, log, Linked(Applying::in_memory().machine)))
    }
}

/// Stands for the network between two state machines: a snapshot that is sent arrives in chunks.
struct Linked(StateMachine<Counting>);

pub fn received(snapshot: SnapshotRows, bytes_target: usize) -> SnapshotRows {
    let SnapshotRows::Own(mut rows) = snapshot else { return snapshot };
    let mut chunks = Vec::new();
    loop {
        let chunk = rows.next_rows(bytes_target).unwrap();
        if chunk.is_empty() {
            return SnapshotRows::Received(chunks);
        }
        chunks.push(codec::encode_rows(&chunk));
    }
}

/// The suite starts on a log that was purged though nothing was applied. A real builder refuses that, see
/// `a_purged_log_without_its_rows_stops_the_start`; here it is let through, as an empty snapshot.
struct Builder {
    real: SnapshotBuilder,
    any_applied: bool,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotRows;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, SnapshotRows>, io::Error> {
        if self.any_applied {
            return self.real.build_snapshot().await;
        }
        Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: SnapshotRows::Received(Vec::new()) })
    }
}

impl RaftStateMachine<Types> for Linked {
    type SnapshotData = SnapshotRows;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.0.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        self.0.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let (applied, _) = self.0.applied_state().await.unwrap();
        Builder { real: self.0.get_snapshot_builder().await, any_applied: applied.is_some() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotRows,
    ) -> Result<(), io::Error> {
        self.0.install_snapshot(meta, received(snapshot, 64)).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, SnapshotRows>>, io::Error> {
        self.0.get_current_snapshot().await
    }
}

/// Time is paused, so that the suite's waits for a purge in the background take none.
#[tokio::test(start_paused = true)]
async fn the_storage_keeps_what_openraft_asks_of_it() {
    Suite::test_all(Folders).await.unwrap();
}

#[tokio::test]
async fn a_purged_log_without_its_rows_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (_wal, mut log) = open_log(folder.path()).await;
    let mut applying = Applying::in_memory();
    let entries = vec![blank(1, 0), command(1, 1, "a+1"), command(1, 2, "a+1"), command(1, 3, "a+1")];
    append(&mut log, entries.clone()).await.unwrap();
    log.save_committed(Some(id(1, 3))).await.unwrap();
    applying.apply(entries[..3].to_vec()).await.unwrap();
    applying.checkpointer.checkpoint(&applying.rows).await.unwrap();
    log.purge(id(1, 1)).await.unwrap();

    // With its rows the log is applied up to what it knows to be committed.
    StorageHelper::new(&mut log, &mut applying.machine).with_id(1).get_initial_state().await.unwrap();
    assert_eq!(applying.all(), "a=3");
    let mut lost = Applying::in_memory();
    let started = StorageHelper::new(&mut log, &mut lost.machine).with_id(1).get_initial_state().await;
    assert!(started.is_err(), "entries whose effects are lost must not be skipped");
    assert_eq!(lost.all(), "");
}
