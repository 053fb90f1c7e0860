//! Rows packed into blocks, since a write to sled costs about the same for one row as for a hundred.
//!
//! The blocks of a tree share out all keys: each holds the rows from its bound (included) to the next
//! block's (excluded), and the first block's bound is empty. A block that gets too large is written as
//! several, the last one first, so that every row stands somewhere at every step; one that gets empty goes,
//! and its keys fall to the block before. After a crash between those steps a block may still hold rows from
//! the next one's bound on: they are not its own, and nobody reads them.
//!
//! A block's bytes: rows in key order, each `key length u32, key, value length u32, value`. Little endian.

use super::{Change, StoreError};
use bytes::{Buf, BufMut, Bytes};
use std::iter::Peekable;

/// A block is split past this. Smaller blocks cost more writes where neighbours change together, larger
/// ones more bytes where single rows do.
pub(super) const BLOCK_BYTES_MAX: usize = 8 << 10;
/// What the parts of a split block are filled to, so that a few more rows don't split them again.
const SPLIT_BYTES: usize = 6 << 10;

pub(super) type Row = (Bytes, Bytes);
/// A block's bound and bytes.
pub(super) type Block = (Vec<u8>, Vec<u8>);

/// Rows of one block, read as they are asked for.
pub(super) struct BlockRows {
    left: Bytes,
}

impl BlockRows {
    pub fn new(block: Bytes) -> Self {
        Self { left: block }
    }

    /// Those before `end`.
    pub fn before(self, end: Option<&[u8]>) -> impl Iterator<Item = Result<Row, StoreError>> {
        self.take_while(move |row| !matches!((row, end), (Ok((key, _)), Some(end)) if key.as_ref() >= end))
    }

    fn take_bytes(&mut self) -> Option<Bytes> {
        let length = self.left.try_get_u32_le().ok()? as usize;
        (length <= self.left.len()).then(|| self.left.split_to(length))
    }
}

impl Iterator for BlockRows {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let row = self.take_bytes().and_then(|key| Some((key, self.take_bytes()?)));
        if row.is_none() {
            self.left = Bytes::new();
        }
        Some(row.ok_or_else(|| StoreError::Malformed { found: "a broken block".into() }))
    }
}

/// The row with this key in a block.
pub(super) fn find(block: Bytes, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    for row in BlockRows::new(block) {
        let (found, value) = row?;
        match found.as_ref().cmp(key) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Ok(Some(value)),
            std::cmp::Ordering::Greater => break,
        }
    }
    Ok(None)
}

/// The blocks that take the place of the block from `bound` to `end` (none: to the last key) once `changes`,
/// in key order and one for each key, are made. The first has the same bound; there is none for no rows.
pub(super) fn rewrite<'a>(
    bound: &[u8],
    end: Option<&[u8]>,
    block: Bytes,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<Vec<Block>, StoreError> {
    let mut rows = BlockRows::new(block).before(end).peekable();
    let mut changes = changes.peekable();
    let mut merged: Vec<Row> = Vec::new();
    let mut bytes = 0;
    while let Some(row) = next_row(&mut rows, &mut changes)? {
        bytes += encoded_bytes(&row);
        merged.push(row);
    }
    let part_bytes = if bytes > BLOCK_BYTES_MAX { SPLIT_BYTES } else { bytes };
    let mut blocks: Vec<Block> = Vec::new();
    for row in merged {
        match blocks.last_mut() {
            Some((_, part)) if part.len() + encoded_bytes(&row) <= part_bytes => encode(part, &row),
            last => {
                let bound = if last.is_none() { bound.to_vec() } else { row.0.to_vec() };
                let mut part = Vec::with_capacity(part_bytes);
                encode(&mut part, &row);
                blocks.push((bound, part));
            }
        }
    }
    Ok(blocks)
}

fn next_row<'a>(
    rows: &mut Peekable<impl Iterator<Item = Result<Row, StoreError>>>,
    changes: &mut Peekable<impl Iterator<Item = &'a Change>>,
) -> Result<Option<Row>, StoreError> {
    loop {
        let order = match (rows.peek(), changes.peek()) {
            (Some(Err(_)), _) | (Some(_), None) => std::cmp::Ordering::Less,
            (None, None) => return Ok(None),
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(Ok((key, _))), Some((changed, _))) => key.cmp(changed),
        };
        let row = if order.is_le() { rows.next().transpose()? } else { None };
        if order.is_lt() {
            return Ok(row);
        }
        if let Some((key, Some(value))) = changes.next() {
            return Ok(Some((key.clone(), value.clone())));
        }
    }
}

fn encoded_bytes((key, value): &Row) -> usize {
    8 + key.len() + value.len()
}

fn encode(block: &mut Vec<u8>, (key, value): &Row) {
    block.put_u32_le(key.len() as u32);
    block.put_slice(key);
    block.put_u32_le(value.len() as u32);
    block.put_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, value: Option<&str>) -> Change {
        (Bytes::from(key.to_owned()), value.map(|value| Bytes::from(value.to_owned())))
    }

    fn block(rows: &[(&str, &str)]) -> Bytes {
        let changes: Vec<Change> = rows.iter().map(|(key, value)| change(key, Some(value))).collect();
        let blocks = rewrite(b"", None, Bytes::new(), changes.iter()).unwrap();
        assert!(blocks.len() <= 1);
        blocks.into_iter().next().map_or_else(Bytes::new, |(_, block)| block.into())
    }

    fn text(block: impl Into<Bytes>) -> String {
        let rows = BlockRows::new(block.into()).map(|row| {
            let (key, value) = row.unwrap();
            format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value))
        });
        rows.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn changes_are_merged_into_a_block() {
        let before = block(&[("b", "1"), ("d", "1"), ("f", "1")]);
        let changes = [
            change("a", Some("2")),
            change("b", None),
            change("d", Some("2")),
            change("e", None),
            change("g", Some("2")),
        ];
        let after = rewrite(b"", None, before.clone(), changes.iter()).unwrap();
        assert_eq!(after.len(), 1);
        assert_eq!(text(after[0].1.clone()), "a=2 d=2 f=1 g=2");
        let none = [change("b", None), change("d", None), change("f", None)];
        assert!(rewrite(b"", None, before, none.iter()).unwrap().is_empty());
    }

    #[test]
    fn rows_of_the_next_block_are_left_out() {
        let before = block(&[("b", "1"), ("d", "1"), ("f", "1")]);
        let after = rewrite(b"", Some(b"d"), before, [change("c", Some("2"))].iter()).unwrap();
        assert_eq!(text(after[0].1.clone()), "b=1 c=2");
    }

    #[test]
    fn a_large_block_is_split_and_each_part_begins_at_its_bound() {
        let changes: Vec<Change> =
            (0..1_000).map(|n| change(&format!("{n:04}"), Some("some value"))).collect();
        let blocks = rewrite(b"\x01", None, Bytes::new(), changes.iter()).unwrap();
        assert!(blocks.len() > 3);
        assert_eq!(blocks[0].0, b"\x01");
        let mut all = Vec::new();
        for (number, (bound, block)) in blocks.into_iter().enumerate() {
            assert!(block.len() <= BLOCK_BYTES_MAX);
            let rows: Vec<Row> = BlockRows::new(block.into()).map(Result::unwrap).collect();
            assert!(number == 0 || rows[0].0 == bound);
            all.extend(rows.into_iter().map(|(key, value)| (key, Some(value))));
        }
        assert_eq!(all, changes);
    }

    #[test]
    fn a_row_larger_than_a_block_has_one_of_its_own() {
        let large = "x".repeat(3 * BLOCK_BYTES_MAX);
        let changes = [change("a", Some("1")), change("b", Some(&large)), change("c", Some("1"))];
        let blocks = rewrite(b"", None, Bytes::new(), changes.iter()).unwrap();
        let bounds: Vec<&[u8]> = blocks.iter().map(|(bound, _)| bound.as_slice()).collect();
        assert_eq!(bounds, [&b""[..], b"b", b"c"]);
    }

    #[test]
    fn a_row_is_found_where_it_is_and_nowhere_else() {
        let block = block(&[("b", "1"), ("d", "2")]);
        for (key, value) in [("a", None), ("b", Some("1")), ("c", None), ("d", Some("2")), ("e", None)] {
            assert_eq!(find(block.clone(), key.as_bytes()).unwrap(), value.map(Bytes::from));
        }
    }

    #[test]
    fn a_block_that_is_cut_off_is_said_to_be_broken() {
        let whole = block(&[("key", "value"), ("other", "value")]);
        for cut in 1..whole.len() {
            let rows: Result<Vec<Row>, _> = BlockRows::new(whole.slice(..cut)).collect();
            assert_eq!(rows.is_ok(), cut == 4 + 3 + 4 + 5, "cut at {cut}");
            assert!(rewrite(b"", None, whole.slice(..cut), [].iter()).is_ok() == rows.is_ok());
        }
    }

    /// Never edit the bytes: they stand for stores that exist.
    #[test]
    fn the_bytes_of_a_block_are_frozen() {
        assert_eq!(block(&[("k", "v"), ("l", "")]), &b"\x01\0\0\0k\x01\0\0\0v\x01\0\0\0l\0\0\0\0"[..]);
    }
}
