//! The effects of a turn that was sent a message by nobody who waits, or that sends messages itself: all
//! or nothing.

use super::{CommitTurn, OpOutcome};
use crate::table::{
    inbox,
    numbers::Numbers,
    outbox::{self, OutgoingSend},
};
use afdg_types::{
    RowsError, RowsMut,
    planted::{Bug, planted},
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitMessaging {
    pub turn: CommitTurn,
    /// The turn's message stands in the inbox, and leaves it now.
    pub accepted: bool,
    /// In the order in which the turn sent them.
    pub sends: Vec<OutgoingSend>,
}

impl CommitMessaging {
    pub(crate) fn apply(
        &self,
        term: u64,
        any_refused: bool,
        numbers: &mut Numbers,
        rows: &mut dyn RowsMut,
    ) -> Result<OpOutcome, RowsError> {
        let place = if self.accepted { inbox::place(rows, self.turn.message_id)? } else { None };
        let place = place.filter(|place| place.agent == self.turn.agent && !planted(Bug::InboxNotLeft));
        let outcome = self.turn.apply(term, any_refused, rows)?;
        // A message that has been answered has no business in the inbox, however that came.
        if let (Some(place), OpOutcome::Committed | OpOutcome::Duplicate { .. }) = (place, &outcome) {
            inbox::delete(rows, &place, self.turn.message_id);
        }
        if outcome != OpOutcome::Committed {
            return Ok(outcome);
        }
        if self.sends.is_empty() {
            return Ok(OpOutcome::Committed);
        }
        let first = numbers.take(self.sends.len() as u64, rows);
        for (number, send) in (first..).zip(&self.sends) {
            outbox::put(rows, &self.turn.agent, number, send)?;
        }
        Ok(OpOutcome::CommittedSends { first })
    }
}
