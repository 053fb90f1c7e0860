//! A tree in sled by itself; what it shares with the tree in memory is tested in `row_store/tests.rs`.

use super::{super::*, *};
use afdg_types::Rows;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IteratorRandom};

fn change(n: usize) -> Change {
    (Bytes::from(format!("{n:05}")), (!n.is_multiple_of(5)).then(|| Bytes::from("new value")))
}

#[test]
fn a_large_batch_is_completed_or_left_out_after_a_crash_at_any_step() {
    let batch: Vec<Change> = (0..10_000).map(change).collect();
    for (parts_whole, rows_written) in [(false, 0), (true, 0), (true, 1), (true, 5000), (true, 10_000)] {
        let folder = tempfile::tempdir().unwrap();
        let options = SledOptions::new(folder.path().join("rows"));
        let store = SledStore::open(&options).unwrap();
        let old: Vec<Change> = (0..100).map(|n| (change(n).0, Some("old value".into()))).collect();
        store.tree(1).unwrap().apply(old.clone(), "old".into()).unwrap();
        let tree = SledTree::open(&store.shared, 1, 1).unwrap();
        tree.write_parts(&batch, b"new").unwrap();
        assert!(tree.tree.scan_prefix(REDO).count() > 3);
        if !parts_whole {
            tree.tree.remove(redo_key(1)).unwrap();
        }
        tree.change(&batch[..rows_written]).unwrap();
        store.make_durable().unwrap();
        drop((tree, store));

        let store = SledStore::open(&options).unwrap();
        let tree = store.tree(1).unwrap();
        let (mark, rows) = if parts_whole { ("new", &batch) } else { ("old", &old) };
        assert_eq!(tree.mark().unwrap(), Some(mark.into()));
        let rows = rows.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        assert!(tree.scan(b"", None, usize::MAX).unwrap().into_iter().eq(rows));
        let tree = SledTree::open(&store.shared, 1, 1).unwrap();
        assert_eq!(tree.tree.scan_prefix([0]).count(), 1, "the state alone is left of all that");
    }
}

#[test]
fn a_broken_part_is_said_to_be_broken() {
    let mut part = Vec::new();
    encode_change(&mut part, b"key", Some(&Bytes::from("value")));
    encode_change(&mut part, b"key", None);
    assert_eq!(decode_changes(part.clone().into()).unwrap().len(), 2);
    for cut in 1..part.len() {
        let changes = decode_changes(part[..cut].to_vec().into());
        assert_eq!(changes.is_ok(), cut == part.len() - 8, "cut at {cut}");
    }
}

/// Never edit the bytes: they stand for stores that exist.
#[test]
fn rows_of_version_1_are_packed_when_a_tree_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let options = SledOptions::new(folder.path().join("rows"));
    let store = SledStore::open(&options).unwrap();
    store.tree(258).unwrap();
    let tree = store.shared.db.open_tree("group-258-1").unwrap();
    for (key, value) in [(&b"\0mark"[..], "mark"), (b"\x01key", "value"), (b"\x01other", "")] {
        tree.insert(key, value).unwrap();
    }
    drop((tree, store));
    let store = SledStore::open(&options).unwrap();
    let tree = store.tree(258).unwrap();
    assert_eq!(tree.mark().unwrap(), Some("mark".into()));
    let rows = vec![("key".into(), "value".into()), ("other".into(), "".into())];
    assert_eq!(tree.scan(b"", None, usize::MAX).unwrap(), rows);
    let stored = store.shared.db.open_tree("group-258-1").unwrap();
    assert_eq!(stored.len(), 2, "the state and one block");
}

/// Never edit the bytes: they stand for stores that exist.
#[test]
fn a_batch_of_version_1_that_was_interrupted_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let options = SledOptions::new(folder.path().join("rows"));
    let store = SledStore::open(&options).unwrap();
    store.tree(258).unwrap();
    let tree = store.shared.db.open_tree("group-258-1").unwrap();
    let stored = [(&b"\0mark"[..], &b"old"[..]), (b"\x01key", b"old"), (b"\x01other", b"old")];
    let batch = [(&b"\0todo"[..], &b"new"[..]), (b"\0redo\0\0\0\0", b"\x03\0\0\0key\x01\x03\0\0\0new")];
    for (key, value) in stored.into_iter().chain(batch) {
        tree.insert(key, value).unwrap();
    }
    drop((tree, store));
    for _ in 0..2 {
        let store = SledStore::open(&options).unwrap();
        let tree = store.tree(258).unwrap();
        assert_eq!(tree.mark().unwrap(), Some("new".into()));
        let rows = vec![("key".into(), "new".into()), ("other".into(), "old".into())];
        assert_eq!(tree.scan(b"", None, usize::MAX).unwrap(), rows);
        let stored = store.shared.db.open_tree("group-258-1").unwrap();
        assert_eq!(stored.len(), 2, "the state and one block");
    }
}

/// Never edit the bytes: they stand for stores that exist.
#[test]
fn the_bytes_of_version_2_are_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(&SledOptions::new(folder.path().join("rows"))).unwrap();
    store.tree(258).unwrap().apply(vec![("key".into(), Some("value".into()))], "mark".into()).unwrap();
    let tree = store.shared.db.open_tree("group-258-1").unwrap();
    let rows: Vec<_> = tree.iter().map(|row| row.unwrap()).collect();
    let block = b"\x03\0\0\0key\x05\0\0\0value".into();
    let state = b"\x01\0\0\0\0\0\0\0\xc4\x86\x52\x2a\x83\xf3\x58\x39mark".into();
    assert_eq!(rows, [(b"\0state".into(), state), (b"\x02".into(), block)]);
    let pointer = store.shared.db.get(b"group\0\0\0\0\0\0\x01\x02").unwrap();
    assert_eq!(pointer.as_deref(), Some(&b"\0\0\0\0\0\0\0\x01"[..]));
    let mut part = Vec::new();
    encode_change(&mut part, b"k", Some(&Bytes::from("v")));
    encode_change(&mut part, b"k", None);
    assert_eq!(part, b"\x01\0\0\0k\x01\x01\0\0\0v\x01\0\0\0k\0");
    assert_eq!(redo_key(258), b"\0redo\0\0\x01\x02");
    let last = SledTree::open(&store.shared, 258, 1).unwrap();
    last.write_parts(&[("k".into(), None)], b"mark").unwrap();
    let next = tree.get(b"\0next").unwrap().unwrap();
    assert_eq!(&next[..], b"\x01\0\0\0\xb4\x59\x75\x91mark");
}

/// A random history against a map, with the store opened again and blocks left half split on the way.
#[test]
fn a_tree_of_blocks_reads_as_a_map_does() {
    let folder = tempfile::tempdir().unwrap();
    let options = SledOptions::new(folder.path().join("rows"));
    let mut chance = StdRng::seed_from_u64(7);
    let mut map: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut store = Some(SledStore::open(&options).unwrap());
    for round in 0..60_u32 {
        let opened = store.take().unwrap();
        let tree = opened.tree(1).unwrap();
        let count = if round.is_multiple_of(7) { 3_000 } else { chance.random_range(1..200) };
        let batch: Vec<Change> = (0..count)
            .map(|_| {
                let key = format!(
                    "{}{:04}",
                    ["a", "b", "\u{7f}"][chance.random_range(0..3)],
                    chance.random_range(0..4_000)
                );
                let value = "v".repeat(chance.random_range(0..60)) + &round.to_string();
                (Bytes::from(key), chance.random_ratio(2, 3).then(|| Bytes::from(value)))
            })
            .collect();
        for (key, value) in &batch {
            match value {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
        }
        tree.apply(batch, "mark".into()).unwrap();
        if round.is_multiple_of(5) {
            half_split(&opened, &mut chance);
        }
        let rows: Vec<_> = map.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        assert_eq!(tree.scan(b"", None, usize::MAX).unwrap(), rows, "round {round}");
        for _ in 0..40 {
            let key =
                format!("{}{:04}", ["a", "b", "c"][chance.random_range(0..3)], chance.random_range(0..4_000));
            assert_eq!(tree.get(key.as_bytes()).unwrap(), map.get(key.as_bytes()).cloned());
            let last = map.range(..Bytes::from(key.clone())).next_back();
            let last = last.filter(|(found, _)| found.as_ref() >= &b"a1"[..]);
            let found = tree.last_before(b"a1", key.as_bytes()).unwrap();
            assert_eq!(found, last.map(|(key, value)| (key.clone(), value.clone())), "before {key}");
            let some = tree.scan(key.as_bytes(), Some(b"b2"), 10).unwrap();
            let expected = map.scan(key.as_bytes(), Some(b"b2"), 10).unwrap();
            assert_eq!(some, expected, "from {key}");
        }
        drop((tree, opened));
        store = Some(SledStore::open(&options).unwrap());
    }
}

/// What a crash in the middle of a split leaves once the rest of its batch is done: the second half of a block
/// stands in a new one, and the block still holds all.
fn half_split(store: &SledStore, chance: &mut StdRng) {
    let tree = store.shared.db.open_tree("group-1-1").unwrap();
    let Some(block) = tree.scan_prefix([BLOCK]).choose(chance) else { return };
    let (_, block) = block.unwrap();
    let rows: Vec<_> = BlockRows::new(bytes(&block)).map(|row| row.unwrap()).collect();
    let half: Vec<Change> =
        rows[rows.len() / 2..].iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    let Some((bound, _)) = half.first() else { return };
    let (_, second) = blocks::rewrite(bound, None, Bytes::new(), half.iter()).unwrap().swap_remove(0);
    tree.insert(block_key(bound), &second[..]).unwrap();
    let state = tree.get(STATE).unwrap().unwrap();
    let mut sum = BlockSum::decode(&state[..BlockSum::BYTES]).unwrap();
    sum.add(bound, &second);
    tree.insert(STATE, [&sum.encode(), &state[BlockSum::BYTES..]].concat()).unwrap();
}

/// sled reads such trees without a word.
#[test]
fn a_tree_that_is_not_whole_is_refused() {
    type Damage = fn(&sled::Tree, Vec<(IVec, IVec)>);
    let damages: [(&str, Damage); 5] = [
        ("a block is gone", |tree, blocks| assert!(tree.remove(&blocks[1].0).unwrap().is_some())),
        ("a block is old", |tree, blocks| {
            tree.insert(&blocks[2].0, &blocks[2].1[..blocks[2].1.len() / 2]).unwrap();
        }),
        ("two have changed places", |tree, blocks| {
            tree.insert(&blocks[0].0, &blocks[1].1).unwrap();
            tree.insert(&blocks[1].0, &blocks[0].1).unwrap();
        }),
        ("all are gone", |tree, blocks| blocks.iter().for_each(|(key, _)| drop(tree.remove(key).unwrap()))),
        ("the sum is old", |tree, _| {
            tree.insert(STATE, [&BlockSum::default().encode(), &b"mark"[..]].concat()).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        let options = SledOptions::new(folder.path().join("rows"));
        let store = SledStore::open(&options).unwrap();
        for round in 0..3_u32 {
            let batch = (0..5_000).map(|n| (change(n).0, Some(round.to_string().into()))).collect();
            store.tree(1).unwrap().apply(batch, "mark".into()).unwrap();
        }
        drop(store);
        let store = SledStore::open(&options).unwrap();
        let tree = store.shared.db.open_tree("group-1-1").unwrap();
        let blocks: Vec<_> = tree.scan_prefix([BLOCK]).map(Result::unwrap).collect();
        assert!(blocks.len() > 3);
        damage(&tree, blocks);
        drop((tree, store));
        match SledStore::open(&options) {
            Err(StoreError::Unreadable { reason, .. }) => assert!(reason.contains("add up to"), "{reason}"),
            opened => panic!("{what}: {:?}", opened.err()),
        }
    }
}
