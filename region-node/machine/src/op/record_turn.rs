//! A turn that is about to touch others enters the mailbox, so that it is finished whatever happens.

use super::OpOutcome;
use crate::table::{
    mailbox::{self, RecordedTurn},
    refusals, replies,
};
use afdg_types::{AgentRef, MessageId, RowsError, RowsMut};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordTurn {
    pub agent: AgentRef,
    pub turn: RecordedTurn,
}

/// [`RecordTurn`] of a turn in whose chain agents wait that messages of the chain may enter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordChainedTurn {
    pub record: RecordTurn,
    /// See [`RecordedTurn::reentries`], which is not part of how `record` is stored.
    pub reentries: Vec<MessageId>,
}

impl RecordChainedTurn {
    pub(crate) fn apply(
        &self,
        term: u64,
        any_refused: bool,
        rows: &mut dyn RowsMut,
    ) -> Result<OpOutcome, RowsError> {
        let turn = RecordedTurn { reentries: self.reentries.clone(), ..self.record.turn.clone() };
        RecordTurn { agent: self.record.agent.clone(), turn }.apply(term, any_refused, rows)
    }
}

impl RecordTurn {
    pub(crate) fn apply(
        &self,
        term: u64,
        any_refused: bool,
        rows: &mut dyn RowsMut,
    ) -> Result<OpOutcome, RowsError> {
        if any_refused && refusals::stands(rows, &self.agent, term)? {
            return Ok(OpOutcome::RefusedBase);
        }
        if let Some(known) = replies::get(rows, self.turn.message_id)? {
            refusals::put(rows, &self.agent, term);
            return Ok(OpOutcome::Duplicate { digest: known.digest, reply: known.reply });
        }
        match mailbox::get(rows, &self.agent)? {
            Some(other) if other.message_id != self.turn.message_id => {
                refusals::put(rows, &self.agent, term);
                Ok(OpOutcome::RefusedOccupied)
            }
            // The same turn, run again by a new leader: what stands is what was recorded first.
            Some(_) => Ok(OpOutcome::Recorded),
            None => {
                mailbox::put(rows, &self.agent, &self.turn)?;
                Ok(OpOutcome::Recorded)
            }
        }
    }
}
