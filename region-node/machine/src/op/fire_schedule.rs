//! A schedule's due times have come: it sends its messages and stands at its next due time, at once.

use super::OpOutcome;
use crate::table::{
    inbox::{self, Place},
    numbers::Numbers,
    outbox::{self, OutgoingSend},
    replies,
    schedules::{self, Progress},
};
use afdg_types::{
    AgentRef, MessageId, RowsError, RowsMut,
    planted::{Bug, planted},
};
use serde::{Deserialize, Serialize};

/// The leader works out due times, since calendars and time zones are no part of the state. What it has
/// worked out counts only if the schedule still stands where the leader saw it: so a firing that is late, of
/// an earlier leader or of a schedule that was replaced, does nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FireSchedule {
    pub agent: AgentRef,
    pub name: String,
    pub generation: u64,
    /// Where it stands.
    pub due_ms: u64,
    /// Due times that send a message now, in order; none if all that have passed are skipped.
    pub firings: Vec<u64>,
    /// Where it stands from then on; none if it is over.
    pub next_due_ms: Option<u64>,
    /// The leader's time, milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// A message of a schedule that is on its way: in its own agent's inbox, or in its outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub number: u64,
    pub due_ms: u64,
}

impl FireSchedule {
    pub(crate) fn apply(
        &self,
        numbers: &mut Numbers,
        rows: &mut dyn RowsMut,
    ) -> Result<OpOutcome, RowsError> {
        let (agent, name) = (&self.agent, &*self.name);
        let stands = schedules::progress(rows, agent, name)?
            .filter(|progress| (progress.generation, progress.due_ms) == (self.generation, self.due_ms));
        let (Some(progress), Some(schedule)) = (stands, schedules::get(rows, agent, name)?) else {
            return Ok(OpOutcome::NotFired);
        };
        let mut placed = Vec::with_capacity(self.firings.len());
        let times = if planted(Bug::FiredAgain) { 2 } else { 1 };
        for (due_ms, time) in self.firings.iter().flat_map(|due_ms| (0..times).map(|time| (*due_ms, time))) {
            let mut send = schedule.firing(agent, name, due_ms, self.now_ms);
            if time > 0 {
                send.message_id = MessageId::of_firing(agent, name, !self.generation, due_ms);
            }
            let id = send.message_id;
            if inbox::place(rows, id)?.is_some() || replies::get(rows, id)?.is_some() {
                continue;
            }
            let number = numbers.take(1, rows);
            if schedule.to == *agent {
                inbox::put(rows, &Place { agent: agent.clone(), number }, &send)?;
            } else {
                let outgoing = OutgoingSend {
                    to: schedule.to.clone(),
                    message_id: id,
                    method: send.method,
                    request: send.request,
                    sent_ms: self.now_ms,
                    due_ms: 0,
                };
                outbox::put(rows, agent, number, &outgoing)?;
            }
            placed.push(Placed { number, due_ms });
        }
        let fired = progress.fired.saturating_add(placed.len() as u64);
        match self.next_due_ms {
            Some(due_ms) => {
                let generation = progress.generation;
                schedules::put_progress(rows, agent, name, Progress { generation, due_ms, fired })?;
            }
            None => schedules::delete(rows, agent, name),
        }
        Ok(OpOutcome::Fired { placed })
    }
}
