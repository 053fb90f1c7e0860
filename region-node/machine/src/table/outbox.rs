//! Sends of committed turns on their way to other agents. Key: `0x23`, the sender, the number (u64 BE) that
//! the region gave the message. Value: [`OutgoingSend`].
//!
//! A row goes once the receiver's region has accepted the message, or it has become a dead letter.

use super::{OUTBOX, decode_value, encode_value, put_numbered, take_numbered};
use afdg_types::{AgentRef, MessageId, Rows, RowsError, RowsMut};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutgoingSend {
    pub to: AgentRef,
    pub message_id: MessageId,
    pub method: String,
    pub request: Bytes,
    /// When the turn sent it, milliseconds since the Unix epoch.
    pub sent_ms: u64,
    /// When it may get its turn, milliseconds since the Unix epoch.
    pub due_ms: u64,
}

pub fn get(rows: &dyn Rows, sender: &AgentRef, number: u64) -> Result<Option<OutgoingSend>, RowsError> {
    let value = rows.get(&put_numbered(OUTBOX, sender, number))?;
    value.map(|value| decode_value("outgoing send", &value)).transpose()
}

pub(crate) fn put(
    rows: &mut dyn RowsMut,
    sender: &AgentRef,
    number: u64,
    send: &OutgoingSend,
) -> Result<(), RowsError> {
    rows.put(put_numbered(OUTBOX, sender, number), encode_value(send)?);
    Ok(())
}

pub(crate) fn delete(rows: &mut dyn RowsMut, sender: &AgentRef, number: u64) {
    rows.delete(put_numbered(OUTBOX, sender, number));
}

/// Senders, receivers and numbers of all sends that are on their way, for a new leader: sender by sender,
/// each one's in order.
pub fn all(rows: &dyn Rows) -> Result<Vec<(AgentRef, AgentRef, u64)>, RowsError> {
    rows.scan(&[OUTBOX], Some(&[OUTBOX + 1]), usize::MAX)?
        .into_iter()
        .map(|(key, value)| {
            let (sender, number) = take_numbered("outbox", &key)?;
            let send: OutgoingSend = decode_value("outgoing send", &value)?;
            Ok((sender, send.to, number))
        })
        .collect()
}
