//! Rows: what an entity is stored in.
//!
//! An entity is a head row and, once its list outgrows the head, page rows:
//!
//! | row | key, relative to the agent | holds |
//! | --- | --- | --- |
//! | head | key length (1 byte), entity key, `0x00` | length, generation, number of the tail's first item, the tail's items |
//! | page | key length, entity key, `0x01`, generation (u32 BE), number of the first item (u64 BE) | items |
//!
//! Appending rewrites the head only, until its tail is full and is sealed into a page. So an append
//! costs the same on a list of ten as on a list of a million, and a single value is one row.
//! Clearing raises the generation and drops the old generation's prefix.
//!
//! Pages of one generation never overlap and cover `0..tail_first`; the tail covers the rest. A full
//! tail is sealed by the append that comes after, so that a single value of any size stays one row.
//!
//! Bytes of a row, version 1. Numbers are unsigned LEB128, and an item is its length and its bytes:
//!
//! | row | bytes |
//! | --- | --- |
//! | head | `0x01` `0x00` generation, number of the tail's first item, count of items, items |
//! | page | `0x01` `0x01` count of items, items |
//!
//! The length is not stored: it is the number of the tail's first item and the count together.

use afdg_types::limits::ENTITY_KEY_BYTES_MAX;
use bytes::{BufMut, Bytes, BytesMut};
use std::{fmt, mem::size_of};

/// A tail with this many items is sealed into a page by the next append.
pub const PAGE_ITEMS_MAX: usize = 16;
/// A tail whose items have this many bytes or more is sealed into a page by the next append.
pub const PAGE_BYTES_TARGET: usize = 4 * 1024;

const VERSION: u8 = 1;
const KIND_HEAD: u8 = 0;
const KIND_PAGE: u8 = 1;

/// One stored row of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    Head(Head),
    Page(Page),
}

/// An entity's first row. `length` is `tail_first` and the number of the tail's items together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Number of items in the list.
    pub length: u64,
    /// Raised when the list is cleared while it has pages; only pages of this generation count.
    pub generation: u32,
    /// Number of the tail's first item: all items before it are in pages.
    pub tail_first: u64,
    pub tail: Vec<Bytes>,
}

/// Items that were sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<Bytes>,
}

impl Row {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_bytes());
        out.put_u8(VERSION);
        match self {
            Row::Head(head) => {
                debug_assert_eq!(
                    head.length,
                    head.tail_first + head.tail.len() as u64,
                    "a head's length is its tail's end: {head:?}"
                );
                out.put_u8(KIND_HEAD);
                put_number(&mut out, u64::from(head.generation));
                put_number(&mut out, head.tail_first);
                put_items(&mut out, &head.tail);
            }
            Row::Page(page) => {
                out.put_u8(KIND_PAGE);
                put_items(&mut out, &page.items);
            }
        }
        out.freeze()
    }

    /// Takes one copy of `bytes`, which the row's items share. Any bytes give a row or an error.
    pub fn decode(bytes: &[u8]) -> Result<Row, RowError> {
        let mut input = Input { all: Bytes::copy_from_slice(bytes), at: 0 };
        let version = input.byte()?;
        if version != VERSION {
            return Err(RowError::Version { version });
        }
        let row = match input.byte()? {
            KIND_HEAD => {
                let generation = input.number()?;
                let generation =
                    u32::try_from(generation).map_err(|_| RowError::Generation { generation })?;
                let tail_first = input.number()?;
                let tail = input.items()?;
                let length = tail_first.checked_add(tail.len() as u64).ok_or(RowError::Length)?;
                Row::Head(Head { length, generation, tail_first, tail })
            }
            KIND_PAGE => Row::Page(Page { items: input.items()? }),
            kind => return Err(RowError::Kind { kind }),
        };
        match input.remaining() {
            0 => Ok(row),
            bytes => Err(RowError::Trailing { bytes }),
        }
    }

    pub fn items(&self) -> &[Bytes] {
        match self {
            Row::Head(head) => &head.tail,
            Row::Page(page) => &page.items,
        }
    }

    /// Bytes that [`Row::encode`] returns.
    pub fn encoded_bytes(&self) -> usize {
        let numbers = match self {
            Row::Head(head) => number_bytes(u64::from(head.generation)) + number_bytes(head.tail_first),
            Row::Page(_) => 0,
        };
        let items = self.items();
        let each = |item: &Bytes| number_bytes(item.len() as u64) + item.len();
        2 + numbers + number_bytes(items.len() as u64) + items.iter().map(each).sum::<usize>()
    }

    /// Bytes of memory that the row takes in a cache.
    pub fn size_bytes(&self) -> usize {
        let items = self.items();
        size_of::<Row>() + std::mem::size_of_val(items) + items.iter().map(Bytes::len).sum::<usize>()
    }
}

/// Cuts items into pages: each but the last is full, none is empty. No items give no page.
pub fn paginate(items: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let mut pages: Vec<Vec<Bytes>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        match pages.last_mut() {
            Some(page) if page.len() < PAGE_ITEMS_MAX && bytes < PAGE_BYTES_TARGET => {
                bytes += item.len();
                page.push(item);
            }
            _ => {
                bytes = item.len();
                pages.push(vec![item]);
            }
        }
    }
    pages
}

/// The key of an entity: 1 to [`ENTITY_KEY_BYTES_MAX`] bytes of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey<'a>(&'a str);

impl<'a> EntityKey<'a> {
    pub fn new(key: &'a str) -> Result<Self, EntityKeyError> {
        match key.len() {
            1..=ENTITY_KEY_BYTES_MAX => Ok(Self(key)),
            bytes => Err(EntityKeyError { bytes }),
        }
    }

    pub fn as_str(self) -> &'a str {
        self.0
    }

    fn start(self, more_bytes: usize) -> BytesMut {
        const { assert!(ENTITY_KEY_BYTES_MAX <= u8::MAX as usize) };
        let mut key = BytesMut::with_capacity(1 + self.0.len() + more_bytes);
        key.put_u8(self.0.len() as u8);
        key.put_slice(self.0.as_bytes());
        key
    }
}

impl fmt::Display for EntityKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A text is no entity's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entity key has 1 to {ENTITY_KEY_BYTES_MAX} bytes; this one has {bytes}")]
pub struct EntityKeyError {
    pub bytes: usize,
}

/// Key of an entity's head row.
pub fn head_key(entity: EntityKey<'_>) -> Bytes {
    let mut key = entity.start(1);
    key.put_u8(KIND_HEAD);
    key.freeze()
}

/// What the keys of all pages of one generation start with, and no other key does.
pub fn page_prefix(entity: EntityKey<'_>, generation: u32) -> Bytes {
    page_start(entity, generation).freeze()
}

/// Key of the page whose first item has the number `first`.
pub fn page_key(entity: EntityKey<'_>, generation: u32, first: u64) -> Bytes {
    let mut key = page_start(entity, generation);
    key.put_u64(first);
    key.freeze()
}

/// A key past all rows of an entity and before those of the next.
pub fn entity_end(entity: EntityKey<'_>) -> Bytes {
    let mut key = entity.start(1);
    key.put_u8(KIND_PAGE + 1);
    key.freeze()
}

/// A key past all rows of an agent: entity keys are text, which never holds `0xff`.
pub const ROWS_END: [u8; 2] = [u8::MAX, u8::MAX];

fn page_start(entity: EntityKey<'_>, generation: u32) -> BytesMut {
    let mut key = entity.start(13);
    key.put_u8(KIND_PAGE);
    key.put_u32(generation);
    key
}

/// A row's key, read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKey<'a> {
    Head { entity: EntityKey<'a> },
    Page { entity: EntityKey<'a>, generation: u32, first: u64 },
}

impl<'a> RowKey<'a> {
    pub fn parse(key: &'a [u8]) -> Result<Self, RowError> {
        let parts = || {
            let (length, rest) = key.split_first()?;
            let (entity, rest) = rest.split_at_checked(usize::from(*length))?;
            let entity = EntityKey::new(std::str::from_utf8(entity).ok()?).ok()?;
            match rest.split_first()? {
                (&KIND_HEAD, []) => Some(RowKey::Head { entity }),
                (&KIND_PAGE, numbers) => {
                    let (generation, first) = numbers.split_first_chunk()?;
                    Some(RowKey::Page {
                        entity,
                        generation: u32::from_be_bytes(*generation),
                        first: u64::from_be_bytes(first.try_into().ok()?),
                    })
                }
                _ => None,
            }
        };
        parts().ok_or(RowError::Key)
    }
}

/// Bytes that are no row, or no row's key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("a row ends before its time, at byte {at}")]
    Short { at: usize },
    #[error("a row has version {version}; this program reads version {VERSION}")]
    Version { version: u8 },
    #[error("a row has the unknown kind {kind}")]
    Kind { kind: u8 },
    #[error("a number in a row has more than 64 bits, at byte {at}")]
    Number { at: usize },
    #[error("a head has generation {generation}, past 32 bits")]
    Generation { generation: u64 },
    #[error("a head's length is past 64 bits")]
    Length,
    #[error("a row is followed by {bytes} more bytes")]
    Trailing { bytes: usize },
    #[error("a key is no row's key")]
    Key,
}

fn put_number(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn number_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_items(out: &mut BytesMut, items: &[Bytes]) {
    put_number(out, items.len() as u64);
    for item in items {
        put_number(out, item.len() as u64);
        out.put_slice(item);
    }
}

struct Input {
    all: Bytes,
    at: usize,
}

impl Input {
    fn remaining(&self) -> usize {
        self.all.len() - self.at
    }

    fn byte(&mut self) -> Result<u8, RowError> {
        let byte = *self.all.get(self.at).ok_or(RowError::Short { at: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, RowError> {
        let (mut number, start) = (0u64, self.at);
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(RowError::Number { at: start });
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(RowError::Number { at: start })
    }

    /// A length that the rest of the input can hold, so that no allocation follows a made-up one.
    fn length(&mut self) -> Result<usize, RowError> {
        let length = self.number()?;
        match usize::try_from(length) {
            Ok(length) if length <= self.remaining() => Ok(length),
            _ => Err(RowError::Short { at: self.at }),
        }
    }

    fn items(&mut self) -> Result<Vec<Bytes>, RowError> {
        // Every item takes a byte at least, so a count past the remaining bytes can't be true.
        let count = self.length()?;
        let mut items = Vec::with_capacity(count.min(PAGE_ITEMS_MAX));
        for _ in 0..count {
            let length = self.length()?;
            items.push(self.all.slice(self.at..self.at + length));
            self.at += length;
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests;
