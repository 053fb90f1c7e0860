//! What a state machine sees of its storage: ordered rows of bytes.

use bytes::Bytes;

/// Reads of ordered rows. A state machine reads through this and nothing else.
pub trait Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, RowsError>;

    /// The row with the greatest key in `from..=at`, if any.
    fn last_at_or_before(&self, from: &[u8], at: &[u8]) -> Result<Option<(Bytes, Bytes)>, RowsError>;

    /// Rows in key order from `from` (included) to `to` (excluded; none means to the end), at most `limit`.
    fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, RowsError>;
}

/// Rows that can be changed. Only a state machine's `apply` holds one.
pub trait RowsMut: Rows {
    fn put(&mut self, key: Bytes, value: Bytes);
    fn delete(&mut self, key: Bytes);
}

/// The rows below can't be read: the replica that owns them has to stop and be rebuilt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored rows can't be read: {0}")]
pub struct RowsError(pub String);

/// The first key after every key that starts with `prefix`; none if there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Rows in memory: for tests of state machines and for the simulator.
impl Rows for std::collections::BTreeMap<Bytes, Bytes> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, RowsError> {
        Ok(std::collections::BTreeMap::get(self, key).cloned())
    }

    fn last_at_or_before(&self, from: &[u8], at: &[u8]) -> Result<Option<(Bytes, Bytes)>, RowsError> {
        if from > at {
            return Ok(None);
        }
        Ok(self
            .range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Included(at)))
            .next_back()
            .map(|(k, v)| (k.clone(), v.clone())))
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, RowsError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let range = self.range::<[u8], _>((Included(from), to.map_or(Unbounded, Excluded)));
        Ok(range.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}

impl RowsMut for std::collections::BTreeMap<Bytes, Bytes> {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.insert(key, value);
    }

    fn delete(&mut self, key: Bytes) {
        self.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn the_end_of_a_prefix_is_past_all_its_keys() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
