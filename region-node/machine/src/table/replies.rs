//! Ids already answered. Key: `0x30`, slot (u16 BE), message id. Value: [`Reply`].
//!
//! Beside each stands an expiry row, key: `0x31`, the second (u64 BE) from which the id may be
//! forgotten, slot, message id; so that what has expired is one range.

use super::{EXPIRIES, REPLIES, decode_value, encode_value};
use afdg_types::{AgentError, AgentRef, MessageId, Reason, Rows, RowsError, RowsMut, Slot};
use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// How the turn of a message ended, kept so that repeating the message gets the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TurnReply {
    /// The response message.
    Response(Bytes),
    /// The handler's refusal.
    Refused(AgentError),
    /// The grid's own verdict, which is final: the handler panicked, the turn was too large.
    Failed { reason: Reason, message: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// See [`digest`].
    pub digest: u128,
    /// Second since the Unix epoch from which the id may be forgotten.
    pub expires_at_s: u64,
    pub reply: TurnReply,
}

/// Tells one request from another under the same id: xxh3-128 over agent, method and request bytes.
pub fn digest(agent: &AgentRef, method: &str, request: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    for part in [agent.as_str().as_bytes(), method.as_bytes(), request] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest128()
}

fn key(slot: Slot, id: MessageId) -> [u8; 19] {
    let mut key = [REPLIES; 19];
    key[1..3].copy_from_slice(&slot.0.to_be_bytes());
    key[3..].copy_from_slice(id.as_bytes());
    key
}

fn expiry_key(expires_at_s: u64, slot: Slot, id: MessageId) -> Bytes {
    let mut key = Vec::with_capacity(27);
    key.put_u8(EXPIRIES);
    key.put_u64(expires_at_s);
    key.put_u16(slot.0);
    key.put_slice(id.as_bytes());
    Bytes::from(key)
}

fn parse_expiry_key(key: &[u8]) -> Result<(u64, Slot, MessageId), RowsError> {
    let wrong = || RowsError(format!("an expiry key can't be read: {key:?}"));
    let second =
        key.get(1..9).and_then(|part| part.try_into().ok()).map(u64::from_be_bytes).ok_or_else(wrong)?;
    let slot =
        key.get(9..11).and_then(|part| part.try_into().ok()).map(u16::from_be_bytes).ok_or_else(wrong)?;
    let id = key.get(11..).and_then(|part| MessageId::from_bytes(part).ok()).ok_or_else(wrong)?;
    Ok((second, Slot(slot), id))
}

pub fn get(rows: &dyn Rows, slot: Slot, id: MessageId) -> Result<Option<Reply>, RowsError> {
    rows.get(&key(slot, id))?.map(|value| decode_value("reply", &value)).transpose()
}

pub(crate) fn put(rows: &mut dyn RowsMut, slot: Slot, id: MessageId, reply: &Reply) -> Result<(), RowsError> {
    rows.put(Bytes::copy_from_slice(&key(slot, id)), encode_value(reply)?);
    rows.put(expiry_key(reply.expires_at_s, slot, id), Bytes::new());
    Ok(())
}

/// Moves the expiry of a known id; false if the id is not known or would not be kept longer.
pub(crate) fn keep_until(
    rows: &mut dyn RowsMut,
    slot: Slot,
    id: MessageId,
    expires_at_s: u64,
) -> Result<bool, RowsError> {
    let Some(mut reply) = get(rows, slot, id)? else { return Ok(false) };
    if expires_at_s <= reply.expires_at_s {
        return Ok(false);
    }
    rows.delete(expiry_key(reply.expires_at_s, slot, id));
    reply.expires_at_s = expires_at_s;
    put(rows, slot, id, &reply)?;
    Ok(true)
}

/// Forgets at most `limit` ids that expired before `now_s`; true if more may be left.
pub(crate) fn forget_expired(rows: &mut dyn RowsMut, now_s: u64, limit: usize) -> Result<bool, RowsError> {
    let mut end = vec![EXPIRIES];
    end.put_u64(now_s);
    let expired = rows.scan(&[EXPIRIES], Some(&end), limit)?;
    for (expiry, _) in &expired {
        let (_, slot, id) = parse_expiry_key(expiry)?;
        rows.delete(Bytes::copy_from_slice(&key(slot, id)));
        rows.delete(expiry.clone());
    }
    Ok(expired.len() == limit)
}

/// The second at which the oldest id may be forgotten, if any id is known.
pub fn first_expiry(rows: &dyn Rows) -> Result<Option<u64>, RowsError> {
    let first = rows.scan(&[EXPIRIES], Some(&[EXPIRIES + 1]), 1)?;
    first.first().map(|(key, _)| parse_expiry_key(key).map(|(second, _, _)| second)).transpose()
}

/// Every reply has its expiry row and the other way round.
pub(crate) fn unmatched(rows: &dyn Rows) -> Result<Option<String>, RowsError> {
    let replies = rows.scan(&[REPLIES], Some(&[REPLIES + 1]), usize::MAX)?;
    let expiries = rows.scan(&[EXPIRIES], Some(&[EXPIRIES + 1]), usize::MAX)?;
    if replies.len() != expiries.len() {
        return Ok(Some(format!("{} replies, {} expiries", replies.len(), expiries.len())));
    }
    for (expiry, _) in expiries {
        let (second, slot, id) = parse_expiry_key(&expiry)?;
        match get(rows, slot, id)? {
            Some(reply) if reply.expires_at_s == second => {}
            other => return Ok(Some(format!("expiry of {id} at {second} beside {other:?}"))),
        }
    }
    Ok(None)
}
