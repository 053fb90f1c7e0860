//! The effects of one turn: all or nothing.

use super::OpOutcome;
use crate::table::{
    entities, garbage, mailbox, refusals,
    replies::{self, Reply, TurnReply},
};
use afdg_types::{
    AgentRef, MessageId, RowsError, RowsMut, Slot,
    planted::{Bug, planted},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What a turn leaves behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitTurn {
    pub agent: AgentRef,
    pub message_id: MessageId,
    /// See [`replies::digest`].
    pub digest: u128,
    /// Second since the Unix epoch from which an id that lasts may be forgotten.
    pub expires_at_s: u64,
    pub changes: Vec<RowChange>,
    pub reply: TurnReply,
    /// The turn stands in the mailbox, and leaves it now.
    pub recorded: bool,
}

/// One change of an agent's rows; keys are relative to the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RowChange {
    Put {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    /// Rows under this prefix are never read again.
    DropPrefix {
        prefix: Bytes,
    },
}

impl CommitTurn {
    pub(crate) fn apply(
        &self,
        term: u64,
        any_refused: bool,
        rows: &mut dyn RowsMut,
    ) -> Result<OpOutcome, RowsError> {
        if any_refused && refusals::stands(rows, &self.agent, term)? {
            return Ok(OpOutcome::RefusedBase);
        }
        if let Some(known) = replies::get(rows, self.message_id)? {
            refusals::put(rows, &self.agent, term);
            return Ok(OpOutcome::Duplicate { digest: known.digest, reply: known.reply });
        }
        let lost = planted(Bug::ReplyWithoutEffects) && self.message_id.as_bytes()[15].is_multiple_of(8);
        for change in self.changes.iter().filter(|_| !lost) {
            match change {
                RowChange::Put { key, value } => rows.put(entities::key(&self.agent, key), value.clone()),
                RowChange::Delete { key } => rows.delete(entities::key(&self.agent, key)),
                RowChange::DropPrefix { prefix } => garbage::put(rows, &entities::key(&self.agent, prefix)),
            }
        }
        let reply = Reply {
            slot: Slot::of(&self.agent),
            digest: self.digest,
            expires_at_s: self.expires_at_s,
            reply: self.reply.clone(),
        };
        replies::put(rows, self.message_id, reply)?;
        if self.recorded {
            mailbox::delete(rows, &self.agent);
        }
        Ok(OpOutcome::Committed)
    }
}
