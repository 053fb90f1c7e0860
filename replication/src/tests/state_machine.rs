//! Applying, checkpoints and snapshots, with restarts between.

use super::{
    openraft_suite::received,
    random::Random,
    server::{Applying, GROUP, blank, command, id},
};
use crate::{
    codec,
    machine::Position,
    raft_types::{Entry, StoredMembership},
    row_store::{CheckpointStore, CheckpointTree, MemoryStore, SledOptions, SledStore, StoreError},
    state_machine::SnapshotRows,
};
use bytes::Bytes;
use openraft::{EntryPayload, RaftSnapshotBuilder, entry::RaftEntry, storage::RaftStateMachine};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

fn membership(term: u64, index: u64, seed: u64) -> Entry {
    Entry::new(id(term, index), EntryPayload::Membership(Random::new(seed).membership()))
}

#[tokio::test]
async fn entries_are_applied_in_order_and_told_once_they_are_visible() {
    let mut applying = Applying::in_memory();
    assert_eq!(applying.seen(), ["restored from 0 rows"]);
    assert_eq!(applying.machine.applied(), Position::default());
    let entries =
        [blank(1, 0), membership(1, 1, 1), command(1, 2, "a+5"), command(2, 3, "a+2"), command(2, 4, "b+1")];
    applying.apply(entries).await.unwrap();
    assert_eq!(
        applying.seen(),
        [
            "visible: 0 rows",
            "1.0 nothing",
            "visible: 0 rows",
            "1.1 nothing",
            "visible: 1 rows",
            "1.2 a is 5",
            "visible: 1 rows",
            "2.3 a is 7",
            "visible: 2 rows",
            "2.4 b is 1"
        ]
    );
    assert_eq!(applying.all(), "a=7 b=1");
    assert_eq!(applying.machine.applied(), Position { term: 2, index: 4 });
    let stored = StoredMembership::new(Some(id(1, 1)), Random::new(1).membership());
    assert_eq!(applying.machine.applied_state().await.unwrap(), (Some(id(2, 4)), stored.clone()));
    assert_eq!(applying.rows.mark(), Some(codec::encode_mark(Some(&id(2, 4)), &stored)));
}

#[tokio::test]
async fn a_machine_that_can_not_read_its_rows_stops_the_replica_and_leaves_nothing_half_done() {
    let mut applying = Applying::in_memory();
    applying.apply([command(1, 0, "a+1")]).await.unwrap();
    let mark = applying.rows.mark();
    applying.seen();
    let entries = [command(1, 1, "fail"), command(1, 2, "a+1")];
    assert!(applying.apply(entries).await.is_err());
    assert_eq!((applying.all(), applying.rows.mark()), ("a=1".to_owned(), mark));
    assert_eq!(applying.machine.applied(), Position { term: 1, index: 0 });
    assert!(applying.seen().is_empty());
}

/// Entries `0..count`: counters, deletions, blanks and membership changes.
fn log(seed: u64, count: u64) -> Vec<Entry> {
    let mut random = Random::new(seed);
    let entry = |index| {
        let term = 1 + index / 10;
        let key = ["a", "b", "c", "d"][random.below(4) as usize];
        match random.below(8) {
            0 => blank(term, index),
            1 => membership(term, index, index),
            2 => command(term, index, format!("{key}-")),
            _ => command(term, index, format!("{key}+{}", random.below(9))),
        }
    };
    (0..count).map(entry).collect()
}

#[tokio::test]
async fn a_log_replayed_from_the_last_checkpoint_gives_the_same_rows() {
    for seed in 0..20 {
        let log = log(seed, 60);
        let mut whole = Applying::in_memory();
        whole.apply(log.clone()).await.unwrap();

        let mut random = Random::new(seed + 100);
        let store = MemoryStore::default();
        let mut applying = Applying::open(Arc::new(store.clone()));
        let mut next = 0;
        while next < log.len() {
            match random.below(6) {
                0 => {
                    let mark = applying.checkpointer.checkpoint(&applying.rows).await.unwrap();
                    assert_eq!(mark, applying.rows.mark());
                }
                // The process dies: what is not in the store is lost, and the log brings it back.
                1 => {
                    applying = Applying::open(Arc::new(store.clone()));
                    assert_eq!(applying.rows.mark(), applying.rows.checkpoint_mark());
                    let (applied, _) = applying.machine.applied_state().await.unwrap();
                    next = applied.map_or(0, |applied| applied.index() as usize + 1);
                }
                _ => {
                    let end = (next + 1 + random.below(8) as usize).min(log.len());
                    applying.apply(log[next..end].iter().cloned()).await.unwrap();
                    next = end;
                }
            }
        }
        assert_eq!(applying.all(), whole.all(), "seed {seed}");
        assert_eq!(applying.rows.mark(), whole.rows.mark(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_checkpoint_is_in_the_files_when_it_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let open = || -> Arc<dyn CheckpointStore> {
        Arc::new(SledStore::open(&SledOptions::new(folder.path().join("rows"))).unwrap())
    };
    let log = log(3, 40);
    let mut applying = Applying::open(open());
    applying.apply(log[..25].iter().cloned()).await.unwrap();
    let (rows, mark) = (applying.all(), applying.rows.mark());
    assert_eq!(applying.checkpointer.checkpoint(&applying.rows).await.unwrap(), mark);
    applying.apply(log[25..].iter().cloned()).await.unwrap();
    let whole = applying.all();
    drop(applying);

    let mut applying = Applying::open(open());
    assert_eq!((applying.all(), applying.rows.mark()), (rows, mark));
    assert_eq!(applying.machine.applied().index, 24);
    applying.apply(log[25..].iter().cloned()).await.unwrap();
    assert_eq!(applying.all(), whole);
}

#[tokio::test]
async fn a_checkpoint_says_what_is_durable() {
    let mut applying = Applying::in_memory();
    let checkpoint = |applying: &Applying| {
        let (checkpointer, rows) = (applying.checkpointer.clone(), Arc::clone(&applying.rows));
        async move { checkpointer.checkpoint(&rows).await.unwrap() }
    };
    assert_eq!(checkpoint(&applying).await, None, "nothing was ever applied");
    applying.apply([command(1, 0, "a+1")]).await.unwrap();
    let first = applying.rows.mark();
    assert_eq!(checkpoint(&applying).await, first);
    assert_eq!(checkpoint(&applying).await, first, "nothing new");
    applying.apply([blank(1, 1)]).await.unwrap();
    let second = applying.rows.mark();
    assert_eq!(checkpoint(&applying).await, second, "an entry that changed no row");
    applying.apply([command(1, 2, "a+1")]).await.unwrap();
    let snapshot = applying.rows.snapshot();
    assert_eq!(checkpoint(&applying).await, second, "a snapshot that is read holds checkpoints back");
    drop(snapshot);
    assert_eq!(checkpoint(&applying).await, applying.rows.mark());
    assert_eq!(applying.rows.dirty_rows(), 0);
}

/// A store whose disk fails on demand.
#[derive(Clone, Default)]
struct FailingStore {
    store: MemoryStore,
    fails: Arc<AtomicBool>,
}

impl CheckpointStore for FailingStore {
    fn tree(&self, group: u64) -> Result<Arc<dyn CheckpointTree>, StoreError> {
        self.store.tree(group)
    }

    fn drop_tree(&self, group: u64) -> Result<(), StoreError> {
        self.store.drop_tree(group)
    }

    fn make_durable(&self) -> Result<(), StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::Malformed { found: "what the test wants".to_owned() });
        }
        self.store.make_durable()
    }

    fn trees(&self) -> Result<Vec<u64>, StoreError> {
        self.store.trees()
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_not_on_the_disk_is_not_said_to_be() {
    let store = FailingStore::default();
    let mut applying = Applying::open(Arc::new(store.clone()));
    applying.apply([command(1, 0, "a+1")]).await.unwrap();
    let first = applying.checkpointer.checkpoint(&applying.rows).await.unwrap();
    applying.apply([command(1, 1, "a+1")]).await.unwrap();

    store.fails.store(true, Ordering::Relaxed);
    let mut builder = applying.machine.get_snapshot_builder().await;
    assert!(builder.build_snapshot().await.is_err(), "the log would be purged up to it");
    assert!(applying.checkpointer.checkpoint(&applying.rows).await.is_err());
    assert_eq!(applying.rows.checkpoint_mark(), first);
    assert_eq!(applying.all(), "a=2");

    store.fails.store(false, Ordering::Relaxed);
    let second = applying.checkpointer.checkpoint(&applying.rows).await.unwrap();
    assert_eq!((second.clone(), second), (applying.rows.mark(), applying.rows.checkpoint_mark()));
}

#[tokio::test]
async fn a_snapshot_is_built_of_what_is_durable() {
    let mut applying = Applying::in_memory();
    assert!(applying.machine.get_current_snapshot().await.unwrap().is_none());
    let mut builder = applying.machine.get_snapshot_builder().await;
    assert!(builder.build_snapshot().await.is_err(), "nothing was applied");
    applying.apply([membership(1, 0, 1), command(1, 1, "a+1")]).await.unwrap();
    let built = builder.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(id(1, 1)));
    assert_eq!(built.meta.last_membership.log_id(), &Some(id(1, 0)));
    assert_eq!(applying.rows.checkpoint_mark(), Some(codec::encode_snapshot_meta(&built.meta)));

    // While it is read, the next one reaches no further, and the one to be sent is as new as it can be.
    applying.apply([command(1, 2, "a+1")]).await.unwrap();
    assert_eq!(builder.build_snapshot().await.unwrap().meta, built.meta);
    let current = applying.machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(id(1, 2)));
    drop((built, current));
    assert_eq!(builder.build_snapshot().await.unwrap().meta.last_log_id, Some(id(1, 2)));
}

#[tokio::test]
async fn a_snapshot_of_one_replica_makes_another_its_equal() {
    for (seed, bytes_target) in [(1, 1), (2, 20), (3, 1 << 20)] {
        let log = log(seed, 50);
        let (mut from, store) = (Applying::in_memory(), MemoryStore::default());
        let mut to = Applying::open(Arc::new(store.clone()));
        from.apply(log[..20].iter().cloned()).await.unwrap();
        from.checkpointer.checkpoint(&from.rows).await.unwrap();
        from.apply(log[20..40].iter().cloned()).await.unwrap();
        // The other one has rows of its own that must go, in its store and in memory.
        to.apply([command(1, 0, "x+1")]).await.unwrap();
        to.checkpointer.checkpoint(&to.rows).await.unwrap();
        to.apply([command(1, 1, "y+1")]).await.unwrap();
        to.seen();

        let sent = from.machine.get_current_snapshot().await.unwrap().unwrap();
        // What is applied meanwhile is not in it.
        let (rows, mark) = (from.all(), from.rows.mark());
        from.apply(log[40..].iter().cloned()).await.unwrap();
        let version = to.rows.version();
        to.machine.install_snapshot(&sent.meta, received(sent.snapshot, bytes_target)).await.unwrap();

        assert_eq!((to.all(), to.rows.mark()), (rows.clone(), mark.clone()), "seed {seed}");
        assert_eq!(to.rows.checkpoint_mark(), mark, "an installed snapshot is durable");
        assert!(to.rows.version() > version, "who read before can tell that rows changed");
        assert_eq!(to.machine.applied().index, 39);
        let count = rows.split(' ').count();
        assert_eq!(
            to.seen(),
            [format!("restored from {count} rows"), "rows replaced, up to 4.39".to_owned()]
        );

        // It goes on from there, and so does one that starts from the store.
        let again = Applying::open(Arc::new(store));
        assert_eq!((again.all(), again.rows.mark()), (rows, mark));
        for mut after in [to, again] {
            after.apply(log[40..].iter().cloned()).await.unwrap();
            assert_eq!((after.all(), after.rows.mark()), (from.all(), from.rows.mark()), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_can_not_be_read_leaves_the_rows_as_they_were() {
    let mut from = Applying::in_memory();
    from.apply([command(1, 0, "a+1"), command(1, 1, "b+1")]).await.unwrap();
    let sent = from.machine.get_current_snapshot().await.unwrap().unwrap();
    let mut to = Applying::in_memory();
    to.apply([command(1, 0, "x+1")]).await.unwrap();
    let before = (to.all(), to.rows.mark());

    let SnapshotRows::Received(mut chunks) = received(sent.snapshot, 1) else { panic!("it was sent") };
    assert_eq!(chunks.len(), 2);
    chunks[1] = Bytes::from_static(b"\x01\x05");
    assert!(to.machine.install_snapshot(&sent.meta, SnapshotRows::Received(chunks)).await.is_err());
    assert_eq!((to.all(), to.rows.mark()), before);

    let own = to.machine.get_current_snapshot().await.unwrap().unwrap();
    assert!(to.machine.install_snapshot(&own.meta, own.snapshot).await.is_err(), "its own rows");
    assert_eq!((to.all(), to.rows.mark()), before);
    to.apply([command(1, 1, "x+1")]).await.unwrap();
    assert_eq!(to.all(), "x=2");
}

#[tokio::test]
async fn a_checkpoint_and_a_snapshot_that_meet_wait_for_each_other() {
    for _ in 0..20 {
        let mut from = Applying::in_memory();
        from.apply([command(3, 0, "a+1"), command(3, 1, "b+1")]).await.unwrap();
        let sent = from.machine.get_current_snapshot().await.unwrap().unwrap();
        let store = MemoryStore::default();
        let mut to = Applying::open(Arc::new(store.clone()));
        to.apply((0..100).map(|index| command(1, index, format!("k{index}+1")))).await.unwrap();
        let (checkpointer, rows) = (to.checkpointer.clone(), Arc::clone(&to.rows));
        let (checkpointed, installed) = tokio::join!(
            checkpointer.checkpoint(&rows),
            to.machine.install_snapshot(&sent.meta, received(sent.snapshot, 64))
        );
        installed.unwrap();
        assert!(checkpointed.unwrap().is_some());
        assert_eq!(to.all(), "a=1 b=1");
        assert_eq!(Applying::open(Arc::new(store.clone())).all(), "a=1 b=1");
        assert_eq!(store.trees().unwrap(), [GROUP]);
    }
}

#[tokio::test]
async fn a_store_with_another_mark_than_this_server_knows_stops_the_start() {
    let store = MemoryStore::default();
    let tree = store.tree(GROUP).unwrap();
    tree.apply(Vec::new(), Bytes::from_static(b"\x02\x00")).unwrap();
    let rows = Arc::new(crate::RowStore::open(tree).unwrap());
    assert!(Applying::over(rows, Arc::new(store)).is_err());
}
