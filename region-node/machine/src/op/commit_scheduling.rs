//! The effects of a turn that also sets or cancels schedules: all or nothing. A turn that does not is
//! committed without this.

use super::{CommitMessaging, OpOutcome};
use crate::table::{
    numbers::Numbers,
    schedules::{self, Progress, Schedule},
};
use afdg_types::{AgentRef, Missed, RowsError, RowsMut, When};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitScheduling {
    pub messaging: CommitMessaging,
    /// In the order in which the turn made them.
    pub changes: Vec<ScheduleChange>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ScheduleChange {
    Set(NewSchedule),
    Cancel { name: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewSchedule {
    pub name: String,
    pub when: When,
    pub missed: Missed,
    pub to: AgentRef,
    pub method: String,
    pub request: Bytes,
    /// Its first due time, milliseconds since the Unix epoch.
    pub first_due_ms: u64,
    /// The turn's time, milliseconds since the Unix epoch.
    pub set_ms: u64,
}

impl CommitScheduling {
    pub(crate) fn apply(
        &self,
        term: u64,
        any_refused: bool,
        numbers: &mut Numbers,
        rows: &mut dyn RowsMut,
    ) -> Result<OpOutcome, RowsError> {
        let outcome = self.messaging.apply(term, any_refused, numbers, rows)?;
        if !matches!(outcome, OpOutcome::Committed | OpOutcome::CommittedSends { .. }) {
            return Ok(outcome);
        }
        let agent = &self.messaging.turn.agent;
        for change in &self.changes {
            match change {
                ScheduleChange::Set(new) => new.set(agent, numbers, rows)?,
                ScheduleChange::Cancel { name } => schedules::delete(rows, agent, name),
            }
        }
        Ok(outcome)
    }
}

impl NewSchedule {
    /// Puts it in the place of an earlier one of its name. One that is due at the same times takes over how
    /// far the earlier one is, so that a handler may set it again at each of its turns; one that is the same
    /// in everything is left as it is.
    fn set(&self, agent: &AgentRef, numbers: &mut Numbers, rows: &mut dyn RowsMut) -> Result<(), RowsError> {
        let earlier = match schedules::get(rows, agent, &self.name)? {
            Some(earlier) if earlier.when == self.when => {
                schedules::progress(rows, agent, &self.name)?.map(|progress| (earlier, progress))
            }
            _ => None,
        };
        let (due_ms, fired) = match earlier {
            Some((earlier, _)) if self.is(&earlier) => return Ok(()),
            Some((_, progress)) => (progress.due_ms, progress.fired),
            None => (self.first_due_ms, 0),
        };
        let generation = numbers.take(1, rows);
        let schedule = Schedule {
            generation,
            when: self.when.clone(),
            missed: self.missed,
            to: self.to.clone(),
            method: self.method.clone(),
            request: self.request.clone(),
            set_ms: self.set_ms,
        };
        schedules::put(rows, agent, &self.name, &schedule)?;
        schedules::put_progress(rows, agent, &self.name, Progress { generation, due_ms, fired })
    }

    fn is(&self, earlier: &Schedule) -> bool {
        let Schedule { generation: _, when, missed, to, method, request, set_ms: _ } = earlier;
        (&self.when, &self.missed, &self.to, &self.method, &self.request)
            == (when, missed, to, method, request)
    }
}
