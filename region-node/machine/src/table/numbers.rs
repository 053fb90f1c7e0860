//! The number that the region gives next. Key: `0x02`. Value: the number (u64 BE).
//!
//! Messages that wait are numbered in the order in which the region took them in; a number is given once.

use super::NUMBERS;
use afdg_types::{Rows, RowsError, RowsMut};
use bytes::Bytes;

/// The numbers that were not given yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    next: u64,
}

impl Numbers {
    pub(crate) fn restore(rows: &dyn Rows) -> Result<Self, RowsError> {
        let Some(value) = rows.get(&[NUMBERS])? else { return Ok(Self::default()) };
        let next = value.as_ref().try_into().map(u64::from_be_bytes);
        next.map(|next| Self { next })
            .map_err(|_| RowsError(format!("the next number has {} bytes, not 8", value.len())))
    }

    /// The first of `count` numbers in a row.
    pub(crate) fn take(&mut self, count: u64, rows: &mut dyn RowsMut) -> u64 {
        let first = self.next;
        self.next += count;
        rows.put(Bytes::from_static(&[NUMBERS]), Bytes::copy_from_slice(&self.next.to_be_bytes()));
        first
    }
}
