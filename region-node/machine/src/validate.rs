//! What must hold of a region's rows after every entry.

use crate::table::{entities, inbox, mailbox, replies, schedules};
use afdg_types::{Rows, RowsError, Slot};

/// An invariant that does not hold. The message has every value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("replies and expiries don't match: {0}")]
    Unmatched(String),
    #[error("the id of the recorded turn of {agent} was already answered: {id}")]
    AnsweredTurnInMailbox { agent: String, id: String },
    #[error("sends and their places don't match: {0}")]
    UnmatchedSends(String),
    #[error("the id of an accepted send to {agent} was already answered: {id}")]
    AnsweredSendInInbox { agent: String, id: String },
    #[error("schedules and how far they are don't match: {0}")]
    UnmatchedSchedules(String),
    #[error("an entity row's key can't be read or lies in a wrong slot: {0}")]
    EntityKey(String),
    #[error("{0}")]
    Rows(#[from] RowsError),
}

/// Reads all rows: for tests and the simulator.
pub fn validate(rows: &dyn Rows) -> Result<(), Violation> {
    if let Some(what) = replies::unmatched(rows)? {
        return Err(Violation::Unmatched(what));
    }
    for (agent, turn) in mailbox::all(rows)? {
        if replies::get(rows, turn.message_id)?.is_some() {
            return Err(Violation::AnsweredTurnInMailbox {
                agent: agent.to_string(),
                id: turn.message_id.to_string(),
            });
        }
    }
    if let Some(what) = inbox::unmatched(rows)? {
        return Err(Violation::UnmatchedSends(what));
    }
    for (agent, send) in inbox::all(rows)? {
        if replies::get(rows, send.message_id)?.is_some() {
            return Err(Violation::AnsweredSendInInbox {
                agent: agent.to_string(),
                id: send.message_id.to_string(),
            });
        }
    }
    if let Some(what) = schedules::unmatched(rows)? {
        return Err(Violation::UnmatchedSchedules(what));
    }
    for (key, _) in rows.scan(entities::START, Some(entities::END), usize::MAX)? {
        let in_slot = entities::parse(&key)
            .is_some_and(|(agent, _)| key.starts_with(&entities::slot_prefix(Slot::of(&agent))));
        if !in_slot {
            return Err(Violation::EntityKey(format!("{key:?}")));
        }
    }
    Ok(())
}
