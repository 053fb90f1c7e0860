//! Dead entity rows are deleted, a bounded number at once.

use super::OpOutcome;
use crate::table::garbage;
use afdg_types::{RowsError, RowsMut};
use serde::{Deserialize, Serialize};

/// Rows deleted by one operation at most.
pub const GARBAGE_ROWS_PER_OP: usize = 1_024;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectGarbage {}

impl CollectGarbage {
    pub(crate) fn apply(&self, rows: &mut dyn RowsMut) -> Result<OpOutcome, RowsError> {
        Ok(OpOutcome::Done { more: garbage::collect(rows, GARBAGE_ROWS_PER_OP)? })
    }
}
