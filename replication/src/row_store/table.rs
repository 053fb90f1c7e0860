//! One table in memory: rows that changed since some moment, deletions included.

use super::Change;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    iter::Peekable,
    ops::Bound::{Excluded, Included, Unbounded},
};

/// What a row takes in memory besides key and value: two handles, and its part of a node.
const ROW_BYTES: usize = 96;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub rows: BTreeMap<Bytes, Option<Bytes>>,
    pub bytes: usize,
}

impl Table {
    pub fn put(&mut self, (key, value): Change) {
        let bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let key_bytes = key.len() + ROW_BYTES;
        self.bytes += bytes(&value);
        match self.rows.insert(key, value) {
            Some(old) => self.bytes -= bytes(&old),
            None => self.bytes += key_bytes,
        }
    }
}

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
        let range = (Included(from), Excluded(before));
        let lasts = layers.iter().filter_map(|table| table.rows.range::<[u8], _>(range).next_back());
        // The first of equal keys is the newest; `max_by` would take the last.
        let last = lasts.reduce(|best, next| if next.0 > best.0 { next } else { best });
        match last {
            Some((key, Some(value))) => return (Some((key.clone(), value.clone())), deleted),
            Some((key, None)) => deleted.push(key.clone()),
            None => return (None, deleted),
        }
    }
}

type Layer<'a> = Peekable<std::collections::btree_map::Range<'a, Bytes, Option<Bytes>>>;

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
        let range = (Included(from), to.map_or(Unbounded, Excluded));
        let layers = layers.into_iter().map(|table| table.rows.range::<[u8], _>(range).peekable());
        Self { layers: layers.collect() }
    }
}

impl<'a> Iterator for Layers<'a> {
    type Item = (&'a Bytes, &'a Option<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        if let [only] = self.layers.as_mut_slice() {
            return only.next();
        }
        let first = self.layers.iter_mut().filter_map(|layer| layer.peek().map(|(key, _)| *key)).min()?;
        let mut newest = None;
        for layer in &mut self.layers {
            if let Some(row) = layer.next_if(|(key, _)| *key == first) {
                newest = newest.or(Some(row));
            }
        }
        newest
    }
}
