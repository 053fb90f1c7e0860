//! Rows of the layers in memory over the rows of the tree.

use super::{Change, CheckpointTree, StoreError, table};
use bytes::Bytes;
use std::{collections::VecDeque, iter::Peekable};

/// Rows of the tree, read page by page.
pub(super) struct TreeRows<'a> {
    tree: &'a dyn CheckpointTree,
    /// Where the next page starts.
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    page: VecDeque<(Bytes, Bytes)>,
    page_rows: usize,
    ended: bool,
}

impl<'a> TreeRows<'a> {
    pub fn new(tree: &'a dyn CheckpointTree, from: &[u8], to: Option<&[u8]>, page_rows: usize) -> Self {
        Self {
            tree,
            from: from.to_vec(),
            to: to.map(<[u8]>::to_vec),
            page: VecDeque::new(),
            page_rows: page_rows.max(1),
            ended: false,
        }
    }

    fn peek(&mut self) -> Result<Option<&Bytes>, StoreError> {
        if self.page.is_empty() && !self.ended {
            let rows = self.tree.scan(&self.from, self.to.as_deref(), self.page_rows)?;
            self.ended = rows.len() < self.page_rows;
            if let Some((key, _)) = rows.last() {
                self.from = after(key);
            }
            self.page = rows.into();
        }
        Ok(self.page.front().map(|(key, _)| key))
    }
}

/// The smallest key greater than `key`.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// The next row of `overlay` over `tree`.
pub(super) fn next_row(
    overlay: &mut Peekable<impl Iterator<Item = Change>>,
    tree: &mut TreeRows<'_>,
) -> Result<Option<(Bytes, Bytes)>, StoreError> {
    loop {
        let below = tree.peek()?;
        let order = match (overlay.peek(), below) {
            (None, None) => return Ok(None),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((above, _)), Some(below)) => above.cmp(below),
        };
        if order.is_ge()
            && let Some(row) = tree.page.pop_front()
            && order.is_gt()
        {
            return Ok(Some(row));
        }
        if let Some((key, Some(value))) = overlay.next() {
            return Ok(Some((key, value)));
        }
    }
}

/// The changes of the layers (newest first) in `from..to` that a scan of `limit` rows can need.
pub(super) fn overlay(
    layers: &[&table::Table],
    from: &[u8],
    to: Option<&[u8]>,
    limit: usize,
) -> (Vec<Change>, Option<Bytes>) {
    let mut changes: Vec<Change> = Vec::new();
    let mut live = 0;
    for (key, value) in table::Layers::new(layers.iter().copied(), from, to) {
        if live == limit {
            // Enough rows before this key, whatever the tree holds.
            return (changes, Some(key.clone()));
        }
        live += usize::from(value.is_some());
        changes.push((key.clone(), value.clone()));
    }
    (changes, None)
}
