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

/// A send that is on its way, without its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lying {
    pub sender: AgentRef,
    pub to: AgentRef,
    pub number: u64,
    /// Of the request.
    pub bytes: usize,
}

/// Rows read at once: their requests are let go before the next are read.
const ROWS_AT_ONCE: usize = 256;

/// All sends that are on their way, for a new leader: sender by sender, each one's in order.
pub fn all(rows: &dyn Rows) -> Result<Vec<Lying>, RowsError> {
    let (mut lying, mut from) = (Vec::new(), vec![OUTBOX]);
    loop {
        let found = rows.scan(&from, Some(&[OUTBOX + 1]), ROWS_AT_ONCE)?;
        let Some((last, _)) = found.last() else { return Ok(lying) };
        // The first key after it.
        from = [last.as_ref(), &[0]].concat();
        for (key, value) in found {
            let (sender, number) = take_numbered("outbox", &key)?;
            let send: OutgoingSend = decode_value("outgoing send", &value)?;
            lying.push(Lying { sender, to: send.to, number, bytes: send.request.len() });
        }
    }
}
