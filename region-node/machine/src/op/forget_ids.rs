//! Ids past their time are forgotten, a bounded number at once.

use super::OpOutcome;
use crate::table::replies;
use afdg_types::{RowsError, RowsMut};
use serde::{Deserialize, Serialize};

/// Ids forgotten by one operation at most.
pub const FORGET_IDS_PER_OP: usize = 4_096;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForgetIds {
    /// The leader's time, second since the Unix epoch.
    pub now_s: u64,
}

impl ForgetIds {
    pub(crate) fn apply(&self, rows: &mut dyn RowsMut) -> Result<OpOutcome, RowsError> {
        Ok(OpOutcome::Done { more: replies::forget_expired(rows, self.now_s, FORGET_IDS_PER_OP)? })
    }
}
