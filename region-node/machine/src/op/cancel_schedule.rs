//! A person cancels a schedule. What it has sent before goes its way.

use super::OpOutcome;
use crate::table::schedules;
use afdg_types::{AgentRef, RowsError, RowsMut};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelSchedule {
    pub agent: AgentRef,
    pub name: String,
    /// The schedule that was meant; another one of its name stays.
    pub generation: u64,
}

impl CancelSchedule {
    pub(crate) fn apply(&self, rows: &mut dyn RowsMut) -> Result<OpOutcome, RowsError> {
        let progress = schedules::progress(rows, &self.agent, &self.name)?;
        let was_there = progress.is_some_and(|progress| progress.generation == self.generation);
        if was_there {
            schedules::delete(rows, &self.agent, &self.name);
        }
        Ok(OpOutcome::Cancelled { was_there })
    }
}
