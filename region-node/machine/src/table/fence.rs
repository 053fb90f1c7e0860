//! The last entry that was let in. Key: `0x01`. Value: [`Fence`].
//!
//! A leader numbers the entries of its term from 1. An entry is let in only if its number follows the
//! last one's: so turns that ran on the effects of an entry that never reached the log can't slip in
//! behind the gap, even when the same leader goes on leading in the same term.

use super::{FENCE, decode_value, encode_value};
use afdg_types::{Rows, RowsError, RowsMut};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    pub term: u64,
    pub sequence: u64,
}

impl Fence {
    /// The number that the next entry of `term` must carry.
    pub fn next_in(self, term: u64) -> u64 {
        if term == self.term { self.sequence + 1 } else { 1 }
    }
}

pub fn get(rows: &dyn Rows) -> Result<Fence, RowsError> {
    Ok(rows.get(&[FENCE])?.map(|value| decode_value("fence", &value)).transpose()?.unwrap_or_default())
}

pub(crate) fn put(rows: &mut dyn RowsMut, fence: Fence) -> Result<(), RowsError> {
    rows.put(Bytes::from_static(&[FENCE]), encode_value(&fence)?);
    Ok(())
}
