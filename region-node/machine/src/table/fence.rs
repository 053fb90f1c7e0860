//! The last entry that was let in. Key: `0x01`. Value: [`Fence`].
//!
//! A leader numbers its entries. An entry is let in only if its number follows the last one's: so turns
//! that ran on the effects of an entry that never reached the log can't slip in behind the gap.
//!
//! A leader that has to start over, in the same term too, begins a new leadership: its number stands in
//! the upper bits, and the first entry of a leadership is let in after any entry of an earlier one. What
//! an earlier leadership still has on its way comes too late from then on.

use super::{FENCE, decode_value, encode_value};
use afdg_types::{Rows, RowsError, RowsMut};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    pub term: u64,
    pub sequence: u64,
}

/// Bits of a number that count the entries of one leadership.
const ENTRY_BITS: u32 = 40;

impl Fence {
    /// The number of the first entry of a leadership, counted from 1 in each term.
    pub fn first_of(leadership: u64) -> u64 {
        leadership << ENTRY_BITS
    }

    /// Whether an entry of `term` with number `sequence` may follow.
    pub fn lets_in(self, term: u64, sequence: u64) -> bool {
        let last = if term == self.term { self.sequence } else { 0 };
        let begins = sequence.is_multiple_of(1 << ENTRY_BITS) && sequence > last;
        sequence == last + 1 || begins
    }

    /// Whether `sequence` is the number of a leadership's first entry.
    pub fn begins(sequence: u64) -> bool {
        sequence.is_multiple_of(1 << ENTRY_BITS)
    }

    /// The number that the next entry of the same leadership must carry.
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
