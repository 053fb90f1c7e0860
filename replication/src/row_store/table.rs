//! One table in memory: rows that changed since some moment, deletions included.

use super::Change;
use bytes::Bytes;
use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, btree_map},
    iter::Peekable,
    ops::Bound::{Excluded, Included, Unbounded},
};

/// What a row takes in memory besides key and value: two handles, and its part of a node.
const ROW_BYTES: usize = 104;

#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<Key, Option<Bytes>>,
    pub bytes: usize,
}

impl Table {
    pub fn put(&mut self, (key, value): Change) {
        self.put_key(Key::new(key), value);
    }

    fn put_key(&mut self, key: Key, value: Option<Bytes>) {
        let bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let key_bytes = key.bytes.len() + ROW_BYTES;
        self.bytes += bytes(&value);
        match self.rows.insert(key, value) {
            Some(old) => self.bytes -= bytes(&old),
            None => self.bytes += key_bytes,
        }
    }

    /// Takes in all changes of a newer table.
    pub fn put_all(&mut self, newer: Table) {
        for (key, value) in newer.rows {
            self.put_key(key, value);
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        let key = KeySlice::new(key);
        self.rows.get(&key as &dyn Keyed)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn range(&self, from: &[u8], before: Option<&[u8]>) -> btree_map::Range<'_, Key, Option<Bytes>> {
        let (from, before) = (KeySlice::new(from), before.map(KeySlice::new));
        let before = before.as_ref().map_or(Unbounded, |before| Excluded(before as &dyn Keyed));
        self.rows.range::<dyn Keyed, _>((Included(&from as &dyn Keyed), before))
    }
}

/// A key with its first bytes as a number: most comparisons then need no look at the key's own memory,
/// which is seldom in the processor's cache.
#[derive(Debug)]
struct Key {
    head: u64,
    bytes: Bytes,
}

/// A key that is looked for.
struct KeySlice<'a> {
    head: u64,
    bytes: &'a [u8],
}

/// The first eight bytes, with zeros for what is missing: where two differ, the keys differ alike.
fn head_of(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let bytes = key.len().min(8);
    head[..bytes].copy_from_slice(&key[..bytes]);
    u64::from_be_bytes(head)
}

impl Key {
    fn new(bytes: Bytes) -> Self {
        Self { head: head_of(&bytes), bytes }
    }
}

impl<'a> KeySlice<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { head: head_of(bytes), bytes }
    }
}

/// What both have in common, so that a map of keys can be searched by a slice.
trait Keyed {
    fn head(&self) -> u64;
    fn bytes(&self) -> &[u8];
}

impl Keyed for Key {
    fn head(&self) -> u64 {
        self.head
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Keyed for KeySlice<'_> {
    fn head(&self) -> u64 {
        self.head
    }

    fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

impl<'a> Borrow<dyn Keyed + 'a> for Key {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
    }
}

impl Ord for dyn Keyed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.bytes().cmp(other.bytes()))
    }
}

impl PartialOrd for dyn Keyed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Keyed + '_ {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head.cmp(&other.head).then_with(|| self.bytes.cmp(&other.bytes))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

/// The greatest row of `from..before` over all layers, newest layer first, and the keys behind it that
/// are deleted in them.
pub(super) fn last_before(
    layers: &[&Table],
    from: &[u8],
    before: &[u8],
) -> (Option<(Bytes, Bytes)>, Vec<Bytes>) {
    let mut deleted: Vec<Bytes> = Vec::new();
    loop {
        let before = deleted.last().map_or(before, |key| key);
        if from >= before {
            return (None, deleted);
        }
        let lasts = layers.iter().filter_map(|table| table.range(from, Some(before)).next_back());
        // The first of equal keys is the newest; `max_by` would take the last.
        let last = lasts.reduce(|best, next| if next.0 > best.0 { next } else { best });
        match last {
            Some((key, Some(value))) => return (Some((key.bytes.clone(), value.clone())), deleted),
            Some((key, None)) => deleted.push(key.bytes.clone()),
            None => return (None, deleted),
        }
    }
}

type Layer<'a> = Peekable<btree_map::Range<'a, Key, Option<Bytes>>>;

/// The rows of several layers in key order, deletions included; of equal keys the newest layer's.
pub(super) struct Layers<'a> {
    /// Newest first.
    layers: Vec<Layer<'a>>,
}

impl<'a> Layers<'a> {
    pub fn new(layers: impl IntoIterator<Item = &'a Table>, from: &[u8], to: Option<&[u8]>) -> Self {
        if to.is_some_and(|to| to <= from) {
            return Self { layers: Vec::new() };
        }
        let layers = layers.into_iter().map(|table| table.range(from, to).peekable());
        Self { layers: layers.collect() }
    }
}

impl<'a> Iterator for Layers<'a> {
    type Item = (&'a Bytes, &'a Option<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        if let [only] = self.layers.as_mut_slice() {
            return only.next().map(|(key, value)| (&key.bytes, value));
        }
        let first = self.layers.iter_mut().filter_map(|layer| layer.peek().map(|(key, _)| *key)).min()?;
        let mut newest = None;
        for layer in &mut self.layers {
            if let Some(row) = layer.next_if(|(key, _)| *key == first) {
                newest = newest.or(Some(row));
            }
        }
        newest.map(|(key, value)| (&key.bytes, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_by_their_bytes() {
        let mut keys: Vec<Vec<u8>> = vec![vec![]];
        for length in 1..=3 {
            for at in [0, 6, 7, 8] {
                for byte in [0, 1, 255] {
                    let mut key = vec![7; at];
                    key.resize(at + length, byte);
                    keys.push(key);
                }
            }
        }
        for (one, other) in keys.iter().flat_map(|one| keys.iter().map(move |other| (one, other))) {
            let (own, slice) = (Key::new(one.clone().into()), KeySlice::new(other));
            assert_eq!(own.cmp(&Key::new(other.clone().into())), one.cmp(other), "{one:?} {other:?}");
            assert_eq!((&own as &dyn Keyed).cmp(&slice as &dyn Keyed), one.cmp(other), "{one:?} {other:?}");
        }
    }
}
