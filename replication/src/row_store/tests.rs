//! One suite for the store in memory and the one in sled.

use super::*;
use afdg_types::{Rows, RowsMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// A store that can be opened again. Whatever was opened before must be gone by then.
pub enum Place {
    Memory(MemoryStore),
    Sled(tempfile::TempDir),
}

impl Place {
    pub fn both() -> [Place; 2] {
        [Place::Memory(MemoryStore::default()), Place::Sled(tempfile::tempdir().unwrap())]
    }

    pub fn open(&self) -> Arc<dyn CheckpointStore> {
        match self {
            Place::Memory(store) => Arc::new(store.clone()),
            Place::Sled(folder) => Arc::new(SledStore::open(&sled_options(folder)).unwrap()),
        }
    }
}

fn sled_options(folder: &tempfile::TempDir) -> SledOptions {
    SledOptions::new(folder.path().join("rows"))
}

pub fn bytes(text: impl ToString) -> Bytes {
    text.to_string().into()
}

fn rows(store: &dyn CheckpointStore) -> Arc<RowStore> {
    Arc::new(RowStore::open(store.tree(1).unwrap()).unwrap())
}

fn put(rows: &RowStore, changes: &[(&str, Option<&str>)], mark: &str) {
    let changes = changes.iter().map(|(key, value)| (bytes(key), value.map(bytes)));
    rows.write(changes.collect(), bytes(mark));
}

fn checkpoint(store: &dyn CheckpointStore, rows: &Arc<RowStore>) -> Option<Bytes> {
    let checkpoint = rows.begin_checkpoint()?;
    checkpoint.write().unwrap();
    store.make_durable().unwrap();
    checkpoint.finish()
}

fn text(rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> String {
    let texts = rows
        .into_iter()
        .map(|(key, value)| format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value)));
    texts.collect::<Vec<_>>().join(" ")
}

fn all(rows: &dyn Rows) -> String {
    text(rows.scan(b"", None, usize::MAX).unwrap())
}

fn read_out(snapshot: &mut RowSnapshot, bytes_target: usize) -> String {
    let mut all = Vec::new();
    loop {
        let chunk = snapshot.next_rows(bytes_target).unwrap();
        if chunk.is_empty() {
            return text(all);
        }
        all.extend(chunk);
    }
}

/// Rows in the tree, in two frozen tables and in the active one, deletions in each.
fn layered(store: &dyn CheckpointStore) -> Arc<RowStore> {
    let rows = rows(store);
    let tree = ["a", "b", "c", "d", "e"].map(|key| (key, Some("tree")));
    put(&rows, &tree, "1");
    checkpoint(store, &rows).unwrap();
    put(&rows, &[("b", Some("old")), ("c", None), ("f", Some("old"))], "2");
    drop(rows.snapshot());
    put(&rows, &[("c", Some("newer")), ("e", None), ("f", None)], "3");
    drop(rows.snapshot());
    put(&rows, &[("d", None), ("g", Some("active"))], "4");
    rows
}

#[test]
fn reads_see_the_newest_of_all_layers() {
    for place in Place::both() {
        let store = place.open();
        let rows = layered(&*store);
        assert_eq!(all(&*rows), "a=tree b=old c=newer g=active");
        let get = |key: &str| rows.get(key.as_bytes()).unwrap();
        assert_eq!(
            (get("a"), get("b"), get("c")),
            (Some("tree".into()), Some("old".into()), Some("newer".into()))
        );
        assert_eq!((get("d"), get("e"), get("f"), get("x")), (None, None, None, None));
        let scan = |from: &str, to: &str, limit| {
            text(rows.scan(from.as_bytes(), Some(to.as_bytes()), limit).unwrap())
        };
        assert_eq!(scan("b", "c", 9), "b=old");
        assert_eq!(scan("b", "z", 2), "b=old c=newer");
        assert_eq!((scan("d", "g", 9), scan("a", "z", 0), scan("z", "a", 9)), Default::default());
        let last =
            |from: &str, at: &str| text(rows.last_at_or_before(from.as_bytes(), at.as_bytes()).unwrap());
        assert_eq!(
            (last("a", "f"), last("a", "c"), last("a", "bb")),
            ("c=newer".into(), "c=newer".into(), "b=old".into())
        );
        assert_eq!((last("d", "f"), last("z", "a"), last("h", "z")), Default::default());
        assert_eq!((last("a", "z"), last("a", "a")), ("g=active".into(), "a=tree".into()));
        assert_eq!(rows.dirty_rows(), 8);
        assert!(rows.dirty_bytes() > 8 * 96);
        checkpoint(&*store, &rows).unwrap();
        assert_eq!(all(&*rows), "a=tree b=old c=newer g=active");
        assert_eq!((rows.dirty_rows(), rows.dirty_bytes()), (0, 0));
    }
}

#[test]
fn a_writer_reads_its_own_changes_and_shows_them_when_it_commits() {
    for place in Place::both() {
        let store = place.open();
        let rows = layered(&*store);
        let change = || {
            let mut writer = RowWriter::new(&rows);
            writer.put(bytes("f"), bytes("own"));
            writer.delete(bytes("a"));
            writer.delete(bytes("g"));
            writer
        };
        let writer = change();
        assert_eq!(all(&writer), "b=old c=newer f=own");
        assert_eq!(writer.get(b"a").unwrap(), None);
        assert_eq!(writer.get(b"b").unwrap(), Some("old".into()));
        assert_eq!(text(writer.last_at_or_before(b"", b"z").unwrap()), "f=own");
        assert_eq!(text(writer.last_at_or_before(b"", b"a").unwrap()), "");
        drop(writer);
        assert_eq!(all(&*rows), "a=tree b=old c=newer g=active");
        change().commit(bytes("5"));
        assert_eq!(all(&*rows), "b=old c=newer f=own");
        assert_eq!(rows.mark(), Some("5".into()));
    }
}

#[test]
fn a_checkpoint_outlives_the_process() {
    for place in Place::both() {
        let store = place.open();
        let rows_now = rows(&*store);
        assert_eq!(rows_now.mark(), None);
        assert!(rows_now.begin_checkpoint().is_none(), "nothing to write");
        put(&rows_now, &[("", Some("the empty key is a key")), ("a", Some("1"))], "1");
        let running = rows_now.begin_checkpoint().unwrap();
        put(&rows_now, &[("a", Some("2"))], "2");
        assert!(rows_now.begin_checkpoint().is_none(), "one runs");
        running.write().unwrap();
        store.make_durable().unwrap();
        assert_eq!(running.finish(), Some("1".into()));
        assert_eq!((rows_now.mark(), rows_now.checkpoint_mark()), (Some("2".into()), Some("1".into())));
        assert_eq!(rows_now.dirty_rows(), 1);
        drop((rows_now, store));

        let store = place.open();
        let rows_now = rows(&*store);
        assert_eq!(all(&*rows_now), "=the empty key is a key a=1");
        assert_eq!(rows_now.mark(), Some("1".into()));
        assert!(rows_now.begin_checkpoint().is_none());
        put(&rows_now, &[], "3");
        assert_eq!(checkpoint(&*store, &rows_now), Some("3".into()), "a mark alone moves, too");
        assert!(rows_now.begin_checkpoint().is_none());
    }
}

#[test]
fn a_checkpoint_that_fails_stays_readable_and_goes_into_the_next() {
    for place in Place::both() {
        let store = place.open();
        let rows_now = rows(&*store);
        put(&rows_now, &[("a", Some("1")), ("b", Some("1"))], "1");
        drop(rows_now.begin_checkpoint().unwrap());
        assert_eq!(all(&*rows_now), "a=1 b=1");
        let written = rows_now.begin_checkpoint().unwrap();
        written.write().unwrap();
        drop(written);
        put(&rows_now, &[("b", None)], "2");
        assert_eq!(all(&*rows_now), "a=1");
        assert_eq!(checkpoint(&*store, &rows_now), Some("2".into()));
        drop((rows_now, store));
        assert_eq!(all(&*rows(&*place.open())), "a=1");
    }
}

/// On a disk that fails sled waits for ever, or panics, where it is dropped.
#[cfg(unix)]
#[test]
fn a_store_whose_files_cant_be_synced_is_left_open() {
    let folder = tempfile::tempdir().unwrap();
    let options = sled_options(&folder);
    let store = SledStore::open(&options).unwrap();
    let looped = options.folder.join("looped");
    std::os::unix::fs::symlink(&looped, &looped).unwrap();
    drop(store);
    std::fs::remove_file(&looped).unwrap();
    assert!(SledStore::open(&options).is_err(), "its lock is still held");
}

#[test]
fn a_large_checkpoint_is_whole() {
    for place in Place::both() {
        let store = place.open();
        let rows_now = rows(&*store);
        let value = "x".repeat(300);
        for round in 0..2 {
            let changes =
                (0..1000).map(|n| (bytes(format!("{n:04}")), (n % 3 != round).then(|| bytes(&value))));
            rows_now.write(changes.collect(), bytes(round));
            checkpoint(&*store, &rows_now).unwrap();
        }
        drop((rows_now, store));
        let store = place.open();
        let rows_now = rows(&*store);
        let found = rows_now.scan(b"", None, usize::MAX).unwrap();
        let expected = (0..1000).filter(|n| n % 3 != 1).map(|n| (bytes(format!("{n:04}")), bytes(&value)));
        assert!(found.into_iter().eq(expected));
        assert_eq!(rows_now.mark(), Some("1".into()));
    }
}

#[test]
fn a_snapshot_shows_one_moment_and_holds_checkpoints_back() {
    for place in Place::both() {
        let store = place.open();
        let rows = layered(&*store);
        // A checkpoint that began before may still reach the tree.
        let running = rows.begin_checkpoint().unwrap();
        put(&rows, &[("h", Some("late"))], "5");
        let mut snapshot = rows.snapshot();
        running.write().unwrap();
        running.finish().unwrap();
        put(&rows, &[("a", None), ("h", Some("later")), ("i", Some("later"))], "6");
        assert!(rows.begin_checkpoint().is_none());
        let second = rows.snapshot();
        assert_eq!(snapshot.mark(), Some(&bytes("5")));
        assert_eq!(text(snapshot.next_rows(0).unwrap()), "a=tree");
        assert_eq!(text(snapshot.next_rows(10).unwrap()), "b=old c=newer");
        assert_eq!(read_out(&mut snapshot, 1), "g=active h=late");
        drop(snapshot);
        assert_eq!(rows.snapshots(), 1);
        assert!(rows.begin_checkpoint().is_none());
        drop(second);
        assert_eq!(checkpoint(&*store, &rows), Some("6".into()));
        assert_eq!(all(&*rows), "b=old c=newer g=active h=later i=later");
    }
}

#[test]
fn a_replacement_takes_the_place_of_everything() {
    for place in Place::both() {
        let store = place.open();
        let rows_now = layered(&*store);
        let overtaken = rows_now.begin_checkpoint().unwrap();
        let mut snapshot = rows_now.snapshot();
        let new = (0..3000).map(|n| (bytes(format!("{n:04}")), bytes(n)));
        rows_now.replace_all(new.clone(), bytes("replaced")).unwrap();
        overtaken.write().unwrap();
        assert_eq!(overtaken.finish(), None);
        assert_eq!(read_out(&mut snapshot, 1 << 20), "a=tree b=old c=newer g=active");
        drop(snapshot);
        assert_eq!(rows_now.mark(), Some("replaced".into()));
        assert!(rows_now.scan(b"", None, usize::MAX).unwrap().into_iter().eq(new.clone()));
        assert!(rows_now.begin_checkpoint().is_none());
        put(&rows_now, &[("0000", None)], "after");
        assert_eq!(checkpoint(&*store, &rows_now), Some("after".into()));
        drop((rows_now, store));
        let store = place.open();
        let rows_now = rows(&*store);
        assert_eq!(rows_now.mark(), Some("after".into()));
        assert!(rows_now.scan(b"", None, usize::MAX).unwrap().into_iter().eq(new.skip(1)));
    }
}

#[test]
fn an_unfinished_replacement_leaves_the_old_rows() {
    for place in Place::both() {
        let store = place.open();
        let rows_now = layered(&*store);
        checkpoint(&*store, &rows_now).unwrap();
        let mut dropped = rows_now.begin_replacement().unwrap();
        dropped.put_rows(vec![(bytes("new"), bytes("new"))]).unwrap();
        drop(dropped);
        assert_eq!(all(&*rows_now), "a=tree b=old c=newer g=active");
        let mut crashed = rows_now.begin_replacement().unwrap();
        crashed.put_rows(vec![(bytes("new"), bytes("new"))]).unwrap();
        store.make_durable().unwrap();
        drop((crashed, rows_now, store));
        let store = place.open();
        let rows_now = rows(&*store);
        assert_eq!(all(&*rows_now), "a=tree b=old c=newer g=active");
        assert_eq!(rows_now.mark(), Some("4".into()));
        assert_eq!(store.trees().unwrap(), [1]);
    }
}

#[test]
fn groups_do_not_share_rows_and_a_dropped_one_is_gone() {
    for place in Place::both() {
        let store = place.open();
        let first = layered(&*store);
        checkpoint(&*store, &first).unwrap();
        let other = RowStore::open(store.tree(300).unwrap()).unwrap();
        assert_eq!((all(&other), other.mark()), (String::new(), None));
        assert_eq!(store.trees().unwrap(), [1, 300]);
        store.drop_tree(1).unwrap();
        assert_eq!(all(&*first), "a=tree b=old c=newer g=active", "who holds it may read on");
        assert_eq!(all(&*rows(&*store)), "");
        store.drop_tree(1).unwrap();
        store.make_durable().unwrap();
        drop((first, other, store));
        assert_eq!(place.open().trees().unwrap(), [300]);
        assert_eq!(all(&*rows(&*place.open())), "");
    }
}

#[test]
fn readers_see_whole_batches_while_checkpoints_run() {
    for place in Place::both() {
        let store = place.open();
        let rows_now = rows(&*store);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    checkpoint(&*store, &rows_now);
                }
            });
            let reader = scope.spawn(|| {
                let mut reads = 0;
                while !ended.load(Ordering::Relaxed) {
                    let found = rows_now.scan(b"k", None, 1000).unwrap();
                    assert!(found.windows(2).all(|two| two[0].1 == two[1].1), "{}", text(found));
                    assert!(found.is_empty() || found.len() == 20);
                    let last = rows_now.last_at_or_before(b"k", b"l").unwrap();
                    assert!(found.is_empty() || last.is_some());
                    reads += 1;
                }
                reads
            });
            for round in 0..2000 {
                let keys = (0..20).map(|n| bytes(format!("k{:03}", n + round % 7 * 20)));
                let old = (0..20).map(|n| (bytes(format!("k{:03}", n + (round + 6) % 7 * 20)), None));
                let new = keys.map(|key| (key, Some(bytes(round))));
                rows_now.write(old.chain(new).collect(), bytes(round));
            }
            ended.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 0);
        });
    }
}

#[test]
fn a_damaged_store_is_set_aside_and_a_locked_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let options = sled_options(&folder);
    let store = SledStore::open(&options).unwrap();
    assert!(matches!(SledStore::open_or_reset(&options), Err(StoreError::Io { .. })), "it is locked");
    let rows_now = layered(&store);
    checkpoint(&store, &rows_now).unwrap();
    // A pointer that is none.
    store.shared.db.insert(b"group-nonsense", b"x").unwrap();
    store.make_durable().unwrap();
    drop((rows_now, store));
    let unreadable = SledStore::open(&options);
    assert!(matches!(unreadable, Err(StoreError::Unreadable { .. })));
    drop(unreadable);
    let aside = folder.path().join("rows.damaged-0");
    std::fs::create_dir(&aside).unwrap();
    let (store, aside) = SledStore::open_or_reset(&options).unwrap();
    assert_eq!(aside, Some(folder.path().join("rows.damaged-1")));
    assert!(aside.unwrap().join("db").exists());
    assert!(store.trees().unwrap().is_empty());
    drop(store);
    // sled's own file, damaged from its start.
    let conf = options.folder.join("conf");
    let mut damaged = std::fs::read(&conf).unwrap();
    damaged.iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&conf, damaged).unwrap();
    let (_, aside) = SledStore::open_or_reset(&options).unwrap();
    assert_eq!(aside, Some(folder.path().join("rows.damaged-2")));
}
