//! Prefixes of entity rows that nobody reads any more. Key: `0x40`, the prefix as stored. Value: empty.
//!
//! Clearing a list of a million items must not delete a million rows in one entry: it leaves its
//! prefix here, and the leader has the rows deleted bit by bit.

use super::GARBAGE;
use afdg_types::{Rows, RowsError, RowsMut, prefix_end};
use bytes::Bytes;

pub(crate) fn put(rows: &mut dyn RowsMut, prefix: &[u8]) {
    let mut key = vec![GARBAGE];
    key.extend_from_slice(prefix);
    rows.put(key.into(), Bytes::new());
}

/// Whether anything is left to delete.
pub fn any(rows: &dyn Rows) -> Result<bool, RowsError> {
    Ok(!rows.scan(&[GARBAGE], Some(&[GARBAGE + 1]), 1)?.is_empty())
}

/// Deletes at most `limit` rows below the first prefixes; true if more may be left.
pub(crate) fn collect(rows: &mut dyn RowsMut, limit: usize) -> Result<bool, RowsError> {
    let mut left = limit;
    while left > 0 {
        let Some((key, _)) = rows.scan(&[GARBAGE], Some(&[GARBAGE + 1]), 1)?.pop() else { return Ok(false) };
        let prefix = key.slice(1..);
        let dead = rows.scan(&prefix, prefix_end(&prefix).as_deref(), left)?;
        let all = dead.len() < left;
        left -= dead.len();
        for (row, _) in dead {
            rows.delete(row);
        }
        if all {
            rows.delete(key);
        }
    }
    any(rows)
}
