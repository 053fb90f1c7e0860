//! One group's tree in sled.
//!
//! Keys: `1` + a row's key -> the row's value; `0` + `mark` -> the mark; `0` + `redo` + number u32 big
//! endian -> a part of a large batch; `0` + `todo` -> the mark of a batch whose parts are all there.
//!
//! sled applies a batch under one lock of the whole process, some 14 us a row, and every read waits for
//! it: a large checkpoint would stop all groups for seconds. So a large batch is first written as a few
//! large values and made durable, then applied row by row, which stops nobody, and repeated from those
//! values if a crash came between. Repeating it is harmless: it puts the same rows.

use super::{Change, CheckpointTree, StoreError, TreeReplacement, sled_store::Shared};
use bytes::{Buf, BufMut, Bytes};
use sled::IVec;
use std::sync::{Arc, Weak};

/// A batch up to this goes through sled's own: about 2 ms of its lock.
const BATCH_ROWS_MAX: usize = 128;
/// A part of a larger batch takes rows until it has this much: small to sled, large next to a row.
const REDO_BYTES: usize = 64 << 10;

const MARK: &[u8] = b"\0mark";
const REDO: &[u8] = b"\0redo";
const TODO: &[u8] = b"\0todo";
const ROW: u8 = 1;
/// After every row's key.
const ROWS_END: &[u8] = &[ROW + 1];

pub(super) struct SledTree {
    tree: sled::Tree,
    group: u64,
    pub generation: u64,
    /// Weak, since the store holds its trees.
    store: Weak<Shared>,
}

struct SledReplacement {
    tree: Option<Arc<SledTree>>,
    store: Arc<Shared>,
}

fn row_key(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 1);
    stored.push(ROW);
    stored.extend_from_slice(key);
    stored
}

fn bytes(value: &IVec) -> Bytes {
    Bytes::copy_from_slice(value)
}

fn row((key, value): (IVec, IVec)) -> (Bytes, Bytes) {
    (Bytes::copy_from_slice(&key[1..]), bytes(&value))
}

impl SledTree {
    /// Opens the tree and completes a batch that a crash interrupted.
    pub fn open(store: &Arc<Shared>, group: u64, generation: u64) -> Result<SledTree, StoreError> {
        let opened = store.db.open_tree(name(group, generation));
        let tree = opened.map_err(|source| StoreError::Tree { action: "open the rows", group, source })?;
        let tree = SledTree { tree, group, generation, store: Arc::downgrade(store) };
        tree.redo()?;
        Ok(tree)
    }

    pub fn name(&self) -> String {
        name(self.group, self.generation)
    }

    fn store(&self) -> Result<Arc<Shared>, StoreError> {
        let closed = || self.writing()(sled::Error::Unsupported("the store is closed".into()));
        self.store.upgrade().ok_or_else(closed)
    }

    fn reading(&self) -> impl FnOnce(sled::Error) -> StoreError + use<> {
        let group = self.group;
        move |source| StoreError::Tree { action: "read the rows", group, source }
    }

    fn writing(&self) -> impl FnOnce(sled::Error) -> StoreError + use<> {
        let group = self.group;
        move |source| StoreError::Tree { action: "write the rows", group, source }
    }

    fn change(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        let changed = match value {
            Some(value) => self.tree.insert(row_key(key), value),
            None => self.tree.remove(row_key(key)),
        };
        changed.map(|_| ()).map_err(self.writing())
    }

    /// Writes the parts of a batch, and that they are all there.
    fn write_redo(&self, batch: &[Change], mark: &[u8]) -> Result<(), StoreError> {
        let mut parts: u32 = 0;
        let mut part = Vec::with_capacity(REDO_BYTES + 1024);
        let mut rows = batch.iter().peekable();
        while let Some((key, value)) = rows.next() {
            encode_change(&mut part, key, value.as_ref());
            if part.len() >= REDO_BYTES || rows.peek().is_none() {
                self.tree.insert(redo_key(parts), part.as_slice()).map_err(self.writing())?;
                part.clear();
                parts += 1;
            }
        }
        self.tree.insert(TODO, mark).map_err(self.writing())?;
        Ok(())
    }

    /// Applies the batch whose parts are all there, if there is one, and removes the parts.
    fn redo(&self) -> Result<(), StoreError> {
        if let Some(mark) = self.tree.get(TODO).map_err(self.reading())? {
            for part in self.tree.scan_prefix(REDO).values() {
                let part = bytes(&part.map_err(self.reading())?);
                for (key, value) in decode_changes(part)? {
                    self.change(&key, value.as_deref())?;
                }
            }
            self.end_redo(&mark)?;
        }
        self.remove_parts()
    }

    /// The batch is applied: in one step its mark holds and it is not to be repeated.
    fn end_redo(&self, mark: &[u8]) -> Result<(), StoreError> {
        let mut end = sled::Batch::default();
        end.insert(MARK, mark);
        end.remove(TODO);
        self.tree.apply_batch(end).map_err(self.writing())
    }

    fn remove_parts(&self) -> Result<(), StoreError> {
        for key in self.tree.scan_prefix(REDO).keys() {
            let key = key.map_err(self.reading())?;
            self.tree.remove(key).map_err(self.writing())?;
        }
        Ok(())
    }

    fn apply_large(&self, batch: &[Change], mark: &[u8]) -> Result<(), StoreError> {
        self.write_redo(batch, mark)?;
        // No row may reach the disk before the batch that could complete it.
        self.store()?.make_durable()?;
        for (key, value) in batch {
            self.change(key, value.as_deref())?;
        }
        self.end_redo(mark)?;
        self.remove_parts()
    }
}

impl CheckpointTree for SledTree {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.tree.get(row_key(key)).map_err(self.reading())?.as_ref().map(bytes))
    }

    fn last_before(&self, from: &[u8], before: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if from >= before {
            return Ok(None);
        }
        let last = self.tree.range(row_key(from)..row_key(before)).next_back();
        Ok(last.transpose().map_err(self.reading())?.map(row))
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let to = to.map_or_else(|| ROWS_END.to_vec(), row_key);
        let rows = self.tree.range(row_key(from)..to).take(limit).map(|found| found.map(row));
        rows.collect::<Result<_, _>>().map_err(self.reading())
    }

    fn apply(&self, batch: Vec<Change>, mark: Bytes) -> Result<(), StoreError> {
        // A large batch that failed half way must be whole before it is changed.
        self.redo()?;
        if batch.len() > BATCH_ROWS_MAX {
            return self.apply_large(&batch, &mark);
        }
        let mut all = sled::Batch::default();
        for (key, value) in &batch {
            match value {
                Some(value) => all.insert(row_key(key), &value[..]),
                None => all.remove(row_key(key)),
            }
        }
        all.insert(MARK, &mark[..]);
        self.tree.apply_batch(all).map_err(self.writing())
    }

    fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.tree.get(MARK).map_err(self.reading())?.as_ref().map(bytes))
    }

    fn begin_replacement(&self) -> Result<Box<dyn TreeReplacement>, StoreError> {
        let store = self.store()?;
        Ok(Box::new(SledReplacement { tree: Some(store.new_generation(self.group)?), store }))
    }
}

impl TreeReplacement for SledReplacement {
    fn put_rows(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        let Some(tree) = &self.tree else { return Ok(()) };
        rows.iter().try_for_each(|(key, value)| tree.change(key, Some(value)))
    }

    fn finish(mut self: Box<Self>, mark: Bytes) -> Result<Arc<dyn CheckpointTree>, StoreError> {
        let Some(tree) = &self.tree else {
            return Err(StoreError::Malformed { found: "no replacement".into() });
        };
        let tree = tree.clone();
        tree.tree.insert(MARK, &mark[..]).map_err(tree.writing())?;
        self.store.replace(tree.group, tree.clone())?;
        self.tree = None;
        Ok(tree)
    }
}

impl Drop for SledReplacement {
    fn drop(&mut self) {
        if let Some(unfinished) = self.tree.take() {
            self.store.retire(unfinished);
        }
    }
}

fn name(group: u64, generation: u64) -> String {
    format!("group-{group}-{generation}")
}

fn redo_key(part: u32) -> Vec<u8> {
    [REDO, &part.to_be_bytes()].concat()
}

/// `key length u32, key, 0` for a row that goes, `key length u32, key, 1, value length u32, value` for one
/// that is put. Little endian.
fn encode_change(part: &mut Vec<u8>, key: &[u8], value: Option<&Bytes>) {
    part.put_u32_le(key.len() as u32);
    part.put_slice(key);
    part.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        part.put_u32_le(value.len() as u32);
        part.put_slice(value);
    }
}

fn decode_changes(mut part: Bytes) -> Result<Vec<Change>, StoreError> {
    fn take(part: &mut Bytes) -> Option<Bytes> {
        let length = part.try_get_u32_le().ok()? as usize;
        (length <= part.len()).then(|| part.split_to(length))
    }
    let mut changes = Vec::new();
    while !part.is_empty() {
        let key = take(&mut part);
        let value = match part.try_get_u8() {
            Ok(0) => Some(None),
            Ok(1) => take(&mut part).map(Some),
            _ => None,
        };
        let change = key.zip(value);
        changes.push(change.ok_or_else(|| StoreError::Malformed { found: "a broken batch".into() })?);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

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
            tree.write_redo(&batch, b"new").unwrap();
            assert!(tree.tree.scan_prefix(REDO).count() > 3);
            if !parts_whole {
                tree.tree.remove(TODO).unwrap();
            }
            for (key, value) in &batch[..rows_written] {
                tree.change(key, value.as_deref()).unwrap();
            }
            store.make_durable().unwrap();
            drop((tree, store));

            let store = SledStore::open(&options).unwrap();
            let tree = store.tree(1).unwrap();
            let (mark, rows) = if parts_whole { ("new", &batch) } else { ("old", &old) };
            assert_eq!(tree.mark().unwrap(), Some(mark.into()));
            let rows = rows.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
            assert!(tree.scan(b"", None, usize::MAX).unwrap().into_iter().eq(rows));
            let tree = SledTree::open(&store.shared, 1, 1).unwrap();
            assert_eq!(tree.tree.scan_prefix([0]).count(), 1, "the mark alone is left of all that");
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
    fn the_bytes_of_version_1_are_frozen() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(&SledOptions::new(folder.path().join("rows"))).unwrap();
        store.tree(258).unwrap().apply(vec![("key".into(), Some("value".into()))], "mark".into()).unwrap();
        let tree = store.shared.db.open_tree("group-258-1").unwrap();
        let rows: Vec<_> = tree.iter().map(|row| row.unwrap()).collect();
        assert_eq!(rows, [(b"\0mark".into(), b"mark".into()), (b"\x01key".into(), b"value".into())]);
        let pointer = store.shared.db.get(b"group\0\0\0\0\0\0\x01\x02").unwrap();
        assert_eq!(pointer.as_deref(), Some(&b"\0\0\0\0\0\0\0\x01"[..]));
        let mut part = Vec::new();
        encode_change(&mut part, b"k", Some(&Bytes::from("v")));
        encode_change(&mut part, b"k", None);
        assert_eq!(part, b"\x01\0\0\0k\x01\x01\0\0\0v\x01\0\0\0k\0");
        assert_eq!((redo_key(258), TODO), (b"\0redo\0\0\x01\x02".to_vec(), &b"\0todo"[..]));
    }
}
