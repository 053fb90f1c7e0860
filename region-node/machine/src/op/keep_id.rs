//! An id was seen again: it is kept for its full time from now.

use super::OpOutcome;
use crate::table::replies;
use afdg_types::{MessageId, RowsError, RowsMut};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeepId {
    pub message_id: MessageId,
    /// Second since the Unix epoch from which the id may be forgotten.
    pub expires_at_s: u64,
}

impl KeepId {
    pub(crate) fn apply(&self, rows: &mut dyn RowsMut) -> Result<OpOutcome, RowsError> {
        replies::keep_until(rows, self.message_id, self.expires_at_s)?;
        Ok(OpOutcome::Done { more: false })
    }
}
