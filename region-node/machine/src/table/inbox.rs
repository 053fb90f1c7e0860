//! Sends that were accepted and wait for their turn. Key: `0x21`, the agent, the number (u64 BE) that the
//! region gave the message. Value: [`AcceptedSend`].
//!
//! Beside each stands where it is, by its id. Key: `0x22`, the message id. Value: [`Place`].

use super::{ACCEPTED, INBOX, decode_value, encode_value, put_numbered, replies::TurnReply, take_numbered};
use afdg_types::{AgentRef, MessageId, Rows, RowsError, RowsMut};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A message without a caller that waits for its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptedSend {
    pub message_id: MessageId,
    pub method: String,
    pub request: Bytes,
    /// See [`super::replies::digest`].
    pub digest: u128,
    /// Whose turn sent it; none for a client's. Messages of one sender take effect in order.
    pub sender: Option<AgentRef>,
    /// When the region took it in, milliseconds since the Unix epoch.
    pub accepted_ms: u64,
    /// When it may get its turn, milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// Turns that it had and that failed.
    pub attempts: u32,
    /// How many of them ended with the handler's own refusal.
    pub refusals: u32,
    /// How the last of them ended.
    pub last_failure: Option<TurnReply>,
}

/// Where an accepted send stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub agent: AgentRef,
    pub number: u64,
}

impl Place {
    fn key(&self) -> Bytes {
        put_numbered(INBOX, &self.agent, self.number)
    }
}

fn id_key(id: MessageId) -> [u8; 17] {
    let mut key = [ACCEPTED; 17];
    key[1..].copy_from_slice(id.as_bytes());
    key
}

/// Where the send of that id stands, if it waits.
pub fn place(rows: &dyn Rows, id: MessageId) -> Result<Option<Place>, RowsError> {
    rows.get(&id_key(id))?.map(|value| decode_value("place of a send", &value)).transpose()
}

/// The send that stands there.
pub fn get(rows: &dyn Rows, place: &Place) -> Result<AcceptedSend, RowsError> {
    let value = rows.get(&place.key())?;
    let value = value.ok_or_else(|| RowsError(format!("an accepted send is not there: {place:?}")))?;
    decode_value("accepted send", &value)
}

pub(crate) fn put(rows: &mut dyn RowsMut, place: &Place, send: &AcceptedSend) -> Result<(), RowsError> {
    rows.put(Bytes::copy_from_slice(&id_key(send.message_id)), encode_value(place)?);
    rows.put(place.key(), encode_value(send)?);
    Ok(())
}

pub(crate) fn delete(rows: &mut dyn RowsMut, place: &Place, id: MessageId) {
    rows.delete(Bytes::copy_from_slice(&id_key(id)));
    rows.delete(place.key());
}

/// How many of the agent's sends wait, up to `limit`, and when the first of those is due.
pub fn of_agent(rows: &dyn Rows, agent: &AgentRef, limit: usize) -> Result<(usize, u64), RowsError> {
    let from = put_numbered(INBOX, agent, 0);
    let to = put_numbered(INBOX, agent, u64::MAX);
    let mut first_due_ms = u64::MAX;
    let found = rows.scan(&from, Some(&to), limit)?;
    for (_, value) in &found {
        let send: AcceptedSend = decode_value("accepted send", value)?;
        first_due_ms = first_due_ms.min(send.due_ms);
    }
    Ok((found.len(), if found.is_empty() { 0 } else { first_due_ms }))
}

/// All sends that wait, for a new leader: agent by agent, each one's in order.
pub fn all(rows: &dyn Rows) -> Result<Vec<(AgentRef, AcceptedSend)>, RowsError> {
    rows.scan(&[INBOX], Some(&[INBOX + 1]), usize::MAX)?
        .into_iter()
        .map(|(key, value)| {
            let (agent, _) = take_numbered("inbox", &key)?;
            Ok((agent, decode_value("accepted send", &value)?))
        })
        .collect()
}

/// Every send has its place by its id and the other way round; what does not fit, as a text.
pub(crate) fn unmatched(rows: &dyn Rows) -> Result<Option<String>, RowsError> {
    let places = rows.scan(&[ACCEPTED], Some(&[ACCEPTED + 1]), usize::MAX)?;
    let sends = rows.scan(&[INBOX], Some(&[INBOX + 1]), usize::MAX)?;
    if places.len() != sends.len() {
        return Ok(Some(format!("{} sends, {} places", sends.len(), places.len())));
    }
    for (key, value) in sends {
        let (agent, number) = take_numbered("inbox", &key)?;
        let send: AcceptedSend = decode_value("accepted send", &value)?;
        let stands = place(rows, send.message_id)?;
        if stands != Some(Place { agent, number }) {
            return Ok(Some(format!("send {} at {number} beside {stands:?}", send.message_id)));
        }
    }
    Ok(None)
}
