//! One group's tree in sled.
//!
//! Keys: `2` + a block's bound -> the block ([`super::blocks`]); `0` + `state` -> what the blocks add up to
//! ([`super::sum`]) and the mark; `0` + `redo` + number u32 big endian -> a part of a batch; `0` + `next` ->
//! how many parts there are u32, their crc32c u32 (little endian), and the mark of their batch.
//!
//! **sled's batches are not relied on.** After a write that failed, sled has come back with a part of one.
//! Rows of which some are newer than their mark would be worse than none, since the log is applied to them
//! again. So a batch is first written as a few large values, the parts, and made durable; then its blocks are
//! written, and made durable; then its state takes effect with one value. A crash in between is mended by
//! writing the blocks again from the parts, which puts the same rows.
//! A batch of sled's would also keep all other reads waiting, some 14 us a value.
//!
//! The first version had `1` + a row's key -> the row's value, `0` + `mark` -> the mark, and `0` + `todo` ->
//! the mark of a batch whose parts are all there. Such trees are made into this version's when opened.

use super::{
    Change, CheckpointTree, StoreError, TreeReplacement,
    blocks::{self, Block, BlockRows},
    sled_store::Shared,
    sum::BlockSum,
};
use bytes::{Buf, BufMut, Bytes};
use sled::IVec;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
};

/// A part of a batch takes rows until it has this much: small to sled, large next to a row.
const REDO_BYTES: usize = 64 << 10;

const STATE: &[u8] = b"\0state";
const NEXT: &[u8] = b"\0next";
const REDO: &[u8] = b"\0redo";
/// Of the first version.
const MARK: &[u8] = b"\0mark";
const TODO: &[u8] = b"\0todo";
/// Before a row's key in the first version.
const ROW: u8 = 1;
/// Before a block's bound.
const BLOCK: u8 = 2;
/// After every block's key.
const BLOCKS_END: &[u8] = &[BLOCK + 1];
/// Rows of the first version that are packed at a time.
const PACK_ROWS: usize = 4_096;

pub(super) struct SledTree {
    tree: sled::Tree,
    group: u64,
    pub generation: u64,
    /// Weak, since the store holds its trees.
    store: Weak<Shared>,
    last_keys: LastKeys,
    /// Of the blocks as they are now.
    sum: Mutex<BlockSum>,
}

/// For each first byte of keys, a key that no row's is greater than. Ids are mostly looked up to find that
/// they are new, and newer ids have greater keys: this answers without a look into sled.
#[derive(Default)]
struct LastKeys(RwLock<BTreeMap<u8, Bytes>>);

impl LastKeys {
    fn may_hold(&self, key: &[u8]) -> bool {
        let Some(first) = key.first() else { return true };
        let last = self.0.read().unwrap_or_else(PoisonError::into_inner);
        last.get(first).is_some_and(|last| key <= last.as_ref())
    }

    fn raise(&self, key: &Bytes) {
        let Some(&first) = key.first() else { return };
        if !self.may_hold(key) {
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert(first, key.clone());
        }
    }
}

struct SledReplacement {
    tree: Option<Arc<SledTree>>,
    store: Arc<Shared>,
}

/// What one block becomes.
struct Rewritten {
    bound: Vec<u8>,
    /// Empty if there was none.
    old: Bytes,
    blocks: Vec<Block>,
}

impl Rewritten {
    /// In the order in which they have to be written: a reader that comes between finds every row at least
    /// once, since the old block goes last.
    fn writes(&self) -> impl Iterator<Item = (Vec<u8>, Option<&[u8]>)> {
        let keeps_bound = self.blocks.first().is_some_and(|(bound, _)| *bound == self.bound);
        let gone = (!keeps_bound).then(|| (block_key(&self.bound), None));
        let kept = self.blocks.iter().rev();
        kept.map(|(bound, block)| (block_key(bound), Some(block.as_slice()))).chain(gone)
    }
}

fn block_key(bound: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(bound.len() + 1);
    stored.push(BLOCK);
    stored.extend_from_slice(bound);
    stored
}

fn bytes(value: &IVec) -> Bytes {
    Bytes::copy_from_slice(value)
}

/// For an error of sled's, which the store has to know of.
fn failing(
    store: Weak<Shared>,
    action: &'static str,
    group: u64,
) -> impl FnOnce(sled::Error) -> StoreError + use<> {
    move |source| {
        if let Some(store) = store.upgrade() {
            store.note_failure();
        }
        StoreError::Tree { action, group, source }
    }
}

impl SledTree {
    /// Opens the tree, completes a batch that a crash interrupted, and refuses one that is not whole.
    pub fn open(store: &Arc<Shared>, group: u64, generation: u64) -> Result<SledTree, StoreError> {
        let opened = store.db.open_tree(name(group, generation));
        let tree = opened.map_err(failing(Arc::downgrade(store), "open the rows", group))?;
        let (last_keys, sum) = Default::default();
        let tree = SledTree { tree, group, generation, store: Arc::downgrade(store), last_keys, sum };
        let counted = tree.count()?;
        *tree.sum() = counted;
        if !tree.redo()?
            && let Some((written, _)) = tree.state()?
        {
            counted.check(group, written)?;
        }
        tree.upgrade()?;
        tree.forget_batch()?;
        tree.read_last_keys()?;
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
        failing(self.store.clone(), "read the rows", self.group)
    }

    fn writing(&self) -> impl FnOnce(sled::Error) -> StoreError + use<> {
        failing(self.store.clone(), "write the rows", self.group)
    }

    fn sum(&self) -> MutexGuard<'_, BlockSum> {
        self.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all blocks.
    fn count(&self) -> Result<BlockSum, StoreError> {
        let mut counted = BlockSum::default();
        for block in self.tree.range([BLOCK].as_slice()..BLOCKS_END) {
            let (bound, block) = block.map_err(self.reading())?;
            counted.add(&bound[1..], &block);
        }
        Ok(counted)
    }

    /// What the blocks added up to at the last batch, and its mark.
    fn state(&self) -> Result<Option<(BlockSum, Bytes)>, StoreError> {
        let Some(state) = self.tree.get(STATE).map_err(self.reading())? else { return Ok(None) };
        let Some((sum, mark)) = state.split_at_checked(BlockSum::BYTES) else {
            return Err(StoreError::Malformed { found: "a broken mark".into() });
        };
        Ok(Some((BlockSum::decode(sum)?, Bytes::copy_from_slice(mark))))
    }

    /// All that was written before holds from now on, and stands for `mark`.
    fn put_state(&self, mark: &[u8]) -> Result<(), StoreError> {
        let state = [&self.sum().encode(), mark].concat();
        self.tree.insert(STATE, state).map(|_| ()).map_err(self.writing())
    }

    /// The block that `key` belongs to, and its bound; empty if there is none.
    fn block_of(&self, key: &[u8]) -> Result<(Vec<u8>, Bytes), StoreError> {
        let upto = block_key(key);
        let found = self.tree.range([BLOCK].as_slice()..=&upto).next_back();
        Ok(match found.transpose().map_err(self.reading())? {
            Some((bound, block)) => (bound[1..].to_vec(), bytes(&block)),
            None => (Vec::new(), Bytes::new()),
        })
    }

    /// The next block's bound.
    fn bound_after(&self, bound: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let after = self.tree.get_gt(block_key(bound)).map_err(self.reading())?;
        Ok(after.filter(|(key, _)| key.first() == Some(&BLOCK)).map(|(key, _)| key[1..].to_vec()))
    }

    /// Makes the changes, which are in key order, block by block.
    fn change(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut left = changes;
        while let Some((key, _)) = left.first() {
            let (bound, block) = self.block_of(key)?;
            let end = self.bound_after(&bound)?;
            let here = match &end {
                Some(end) => left.partition_point(|(key, _)| key.as_ref() < end.as_slice()),
                None => left.len(),
            };
            let (changed, rest) = left.split_at(here);
            changed
                .iter()
                .filter(|(_, value)| value.is_some())
                .for_each(|(key, _)| self.last_keys.raise(key));
            let blocks = blocks::rewrite(&bound, end.as_deref(), block.clone(), changed.iter())?;
            self.write(&Rewritten { bound, old: block, blocks })?;
            left = rest;
        }
        Ok(())
    }

    fn write(&self, rewritten: &Rewritten) -> Result<(), StoreError> {
        for (key, block) in rewritten.writes() {
            let changed = match block {
                Some(block) => self.tree.insert(key, block),
                None => self.tree.remove(key),
            };
            changed.map_err(self.writing())?;
        }
        let mut sum = self.sum();
        if !rewritten.old.is_empty() {
            sum.take_away(&rewritten.bound, &rewritten.old);
        }
        rewritten.blocks.iter().for_each(|(bound, block)| sum.add(bound, block));
        Ok(())
    }

    /// Makes a tree of the first version into one of this. After a crash it goes on: nothing is removed
    /// before what takes its place is there.
    fn upgrade(&self) -> Result<(), StoreError> {
        let read = |key: &[u8]| self.tree.get(key).map_err(self.reading());
        let Some(mark) = read(TODO)?.or(read(MARK)?) else { return Ok(()) };
        self.pack_rows()?;
        if read(TODO)?.is_some() {
            self.put_parts()?;
        }
        self.put_state(&mark)?;
        self.store()?.make_durable()?;
        for key in [TODO, MARK] {
            self.tree.remove(key).map_err(self.writing())?;
        }
        Ok(())
    }

    /// A few thousand rows at a time; a row goes only once it stands in its block.
    fn pack_rows(&self) -> Result<(), StoreError> {
        loop {
            let rows = self.tree.scan_prefix([ROW]).take(PACK_ROWS);
            let rows: Vec<(IVec, IVec)> = rows.collect::<Result<_, _>>().map_err(self.reading())?;
            if rows.is_empty() {
                return Ok(());
            }
            let packed =
                rows.iter().map(|(key, value)| (Bytes::copy_from_slice(&key[1..]), Some(bytes(value))));
            self.change(&packed.collect::<Vec<_>>())?;
            for (key, _) in rows {
                self.tree.remove(key).map_err(self.writing())?;
            }
        }
    }

    fn read_last_keys(&self) -> Result<(), StoreError> {
        let mut before: Option<u8> = None;
        loop {
            let end = before.map_or_else(|| BLOCKS_END.to_vec(), |first| block_key(&[first]));
            let Some(last) = self.last_row(&[], &end)? else { return Ok(()) };
            let Some(&first) = last.0.first() else { return Ok(()) };
            self.last_keys.raise(&last.0);
            before = Some(first);
        }
    }

    /// The row with the greatest key from `from` on that is below the key of the block key `end`.
    fn last_row(&self, from: &[u8], end: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let mut upto = (end != BLOCKS_END).then(|| end[1..].to_vec());
        for block in self.tree.range([BLOCK].as_slice()..end).rev() {
            let (bound, block) = block.map_err(self.reading())?;
            let bound = &bound[1..];
            let mut last = None;
            for row in BlockRows::new(bytes(&block)).before(upto.as_deref()) {
                last = Some(row?);
            }
            let last = last.filter(|(key, _)| key.as_ref() >= from);
            if last.is_some() || bound <= from {
                return Ok(last);
            }
            upto = Some(bound.to_vec());
        }
        Ok(None)
    }

    /// Writes the parts of a batch, and what they are when they are all there.
    fn write_parts(&self, batch: &[Change], mark: &[u8]) -> Result<(), StoreError> {
        let (mut parts, mut checksum): (u32, u32) = (0, 0);
        let mut part = Vec::with_capacity(REDO_BYTES + 1024);
        let mut rows = batch.iter().peekable();
        while let Some((key, value)) = rows.next() {
            encode_change(&mut part, key, value.as_ref());
            if part.len() >= REDO_BYTES || rows.peek().is_none() {
                self.tree.insert(redo_key(parts), part.as_slice()).map_err(self.writing())?;
                checksum = crc32c::crc32c_append(checksum, &part);
                part.clear();
                parts += 1;
            }
        }
        let next = [&parts.to_le_bytes()[..], &checksum.to_le_bytes(), mark].concat();
        self.tree.insert(NEXT, next).map(|_| ()).map_err(self.writing())
    }

    /// The mark of a batch whose parts are all there. Without all of them, no block was written yet.
    fn next(&self) -> Result<Option<IVec>, StoreError> {
        let Some(next) = self.tree.get(NEXT).map_err(self.reading())? else { return Ok(None) };
        let number = |at: usize| next.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let (Some(wanted), Some(wanted_checksum)) = (number(0), number(4)) else {
            return Err(StoreError::Malformed { found: "a broken batch".into() });
        };
        let (mut parts, mut checksum) = (0, 0);
        for part in self.tree.scan_prefix(REDO).values() {
            checksum = crc32c::crc32c_append(checksum, &part.map_err(self.reading())?);
            parts += 1;
        }
        let is_whole = (parts, checksum) == (wanted, wanted_checksum);
        Ok(is_whole.then(|| next.subslice(8, next.len() - 8)))
    }

    /// Applies the batch whose parts are all there, and tells whether there was one.
    fn redo(&self) -> Result<bool, StoreError> {
        let next = self.next()?;
        if let Some(mark) = &next {
            self.put_parts()?;
            self.end_batch(mark)?;
        }
        Ok(next.is_some())
    }

    fn put_parts(&self) -> Result<(), StoreError> {
        for part in self.tree.scan_prefix(REDO).values() {
            let part = bytes(&part.map_err(self.reading())?);
            self.change(&sorted(decode_changes(part)?))?;
        }
        Ok(())
    }

    /// The batch's blocks are written.
    fn end_batch(&self, mark: &[u8]) -> Result<(), StoreError> {
        // No mark may reach the disk before the rows that it stands for.
        self.store()?.make_durable()?;
        self.put_state(mark)?;
        self.forget_batch()
    }

    fn forget_batch(&self) -> Result<(), StoreError> {
        self.tree.remove(NEXT).map_err(self.writing())?;
        for key in self.tree.scan_prefix(REDO).keys() {
            let key = key.map_err(self.reading())?;
            self.tree.remove(key).map_err(self.writing())?;
        }
        Ok(())
    }
}

impl CheckpointTree for SledTree {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if !self.last_keys.may_hold(key) {
            return Ok(None);
        }
        blocks::find(self.block_of(key)?.1, key)
    }

    fn last_before(&self, from: &[u8], before: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if from >= before {
            return Ok(None);
        }
        self.last_row(from, &block_key(before))
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
        if to.is_some_and(|to| to <= from) {
            return Ok(rows);
        }
        let first = block_key(&self.block_of(from)?.0);
        let mut blocks = self.tree.range(first.as_slice()..BLOCKS_END).peekable();
        while let Some(block) = blocks.next() {
            let (_, block) = block.map_err(self.reading())?;
            // Of the next block, if it can be read; if not, that is told when it is its turn.
            let end = blocks.peek().and_then(|next| next.as_ref().ok()).map(|(bound, _)| bound[1..].to_vec());
            for row in BlockRows::new(bytes(&block)).before(end.as_deref()) {
                let row = row?;
                if rows.len() == limit || to.is_some_and(|to| row.0.as_ref() >= to) {
                    return Ok(rows);
                }
                if row.0.as_ref() >= from {
                    rows.push(row);
                }
            }
        }
        Ok(rows)
    }

    fn apply(&self, batch: Vec<Change>, mark: Bytes) -> Result<(), StoreError> {
        // One that failed half way must be whole before it is changed.
        if !self.redo()? {
            self.forget_batch()?;
        }
        let batch = sorted(batch);
        self.write_parts(&batch, &mark)?;
        // No row may reach the disk before the parts that could complete its batch.
        self.store()?.make_durable()?;
        self.change(&batch)?;
        self.end_batch(&mark)
    }

    fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state()?.map(|(_, mark)| mark))
    }

    fn begin_replacement(&self) -> Result<Box<dyn TreeReplacement>, StoreError> {
        let store = self.store()?;
        Ok(Box::new(SledReplacement { tree: Some(store.new_generation(self.group)?), store }))
    }
}

impl TreeReplacement for SledReplacement {
    fn put_rows(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        let Some(tree) = &self.tree else { return Ok(()) };
        tree.change(&sorted(rows.into_iter().map(|(key, value)| (key, Some(value))).collect()))
    }

    fn finish(mut self: Box<Self>, mark: Bytes) -> Result<Arc<dyn CheckpointTree>, StoreError> {
        let Some(tree) = &self.tree else {
            return Err(StoreError::Malformed { found: "no replacement".into() });
        };
        let tree = tree.clone();
        tree.put_state(&mark)?;
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

/// In key order, the last change of each key alone.
fn sorted(mut changes: Vec<Change>) -> Vec<Change> {
    let is_sorted = changes.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !is_sorted {
        changes.sort_by(|one, other| one.0.cmp(&other.0));
        changes.reverse();
        changes.dedup_by(|earlier, kept| earlier.0 == kept.0);
        changes.reverse();
    }
    changes
}

fn name(group: u64, generation: u64) -> String {
    format!("group-{group}-{generation}")
}

fn redo_key(part: u32) -> Vec<u8> {
    [REDO, &part.to_be_bytes()].concat()
}

/// `key length u32, key, 0` for a row that goes, `key length u32, key, 1, value length u32, value` for one
/// that is put. Little endian.
pub(super) fn encode_change(part: &mut Vec<u8>, key: &[u8], value: Option<&Bytes>) {
    part.put_u32_le(key.len() as u32);
    part.put_slice(key);
    part.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        part.put_u32_le(value.len() as u32);
        part.put_slice(value);
    }
}

pub(super) fn decode_changes(mut part: Bytes) -> Result<Vec<Change>, StoreError> {
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
mod tests;
