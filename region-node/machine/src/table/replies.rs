//! Ids already answered. Key: `0x30` for an id that a router made, `0x31` for one that lasts, then the
//! message id. Value: [`Reply`].
//!
//! A router's id begins with the time at which it was made, so its rows come in at the table's end, where
//! memory is warm, and what has expired is one range at its beginning. An id that lasts is a hash; beside
//! each stands an expiry row, key: `0x32`, the second (u64 BE) from which it may be forgotten, message id.

use super::{EXPIRIES, LASTING_REPLIES, ROUTER_REPLIES, decode_value, encode_value};
use afdg_types::{
    AgentError, AgentRef, MessageId, MessageIdKind, Reason, Rows, RowsError, RowsMut, Slot, limits,
    planted::{Bug, planted},
};
use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// A router's id is kept this long after the time that stands in it: as long as promised, even if the
/// router's clock was behind the leader's when the message took effect.
const ROUTER_ID_AGE_MS_MAX: u64 = limits::ROUTER_ID_KEPT_MS + 2 * limits::CLOCK_SKEW_MS_MAX;

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

impl TurnReply {
    /// Of what an author's code or a request put into it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Response(response) => response.len(),
            Self::Refused(error) => {
                let metadata = error.metadata.iter().map(|(key, value)| key.len() + value.len());
                error.reason.len() + error.message.len() + metadata.sum::<usize>()
            }
            Self::Failed { message, .. } => message.len(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Of the agent that answered.
    pub slot: Slot,
    /// See [`digest`].
    pub digest: u128,
    /// Second since the Unix epoch from which an id that lasts may be forgotten; 0 for a router's.
    pub expires_at_s: u64,
    pub reply: TurnReply,
}

/// Tells one request from another under the same id, and what differs: from the top, 32 bits of the hash of
/// the agent, 32 of that of the method, and the 64 of that of the request's bytes (xxh3-64 each).
pub fn digest(agent: &AgentRef, method: &str, request: &[u8]) -> u128 {
    let top = |text: &str| u128::from(xxh3_64(text.as_bytes()) >> 32);
    top(agent.as_str()) << 96 | top(method) << 64 | u128::from(xxh3_64(request))
}

/// What two requests differ in, by their [`digest`]s: of `agent`, `method` and `request` those that do.
pub fn differences(one: u128, other: u128) -> Vec<&'static str> {
    let differs = one ^ other;
    let parts =
        [("agent", differs >> 96), ("method", differs >> 64 & 0xffff_ffff), ("request", differs << 64)];
    parts.into_iter().filter(|(_, differs)| *differs != 0).map(|(part, _)| part).collect()
}

/// Whether a request of that digest was for the agent, as far as the digest tells.
pub fn is_for(digest: u128, agent: &AgentRef) -> bool {
    digest >> 96 == self::digest(agent, "", b"") >> 96
}

/// Whether a request of that digest was for the method, as far as the digest tells.
pub fn is_of_method(digest: u128, method: &str) -> bool {
    let top = u128::from(xxh3_64(method.as_bytes()) >> 32);
    digest >> 64 & 0xffff_ffff == top
}

fn key(id: MessageId) -> [u8; 17] {
    let mut key = [0; 17];
    key[0] = match id.kind() {
        MessageIdKind::Router => ROUTER_REPLIES,
        MessageIdKind::Keyed | MessageIdKind::Derived => LASTING_REPLIES,
    };
    key[1..].copy_from_slice(id.as_bytes());
    key
}

fn expiry_key(expires_at_s: u64, id: MessageId) -> Bytes {
    let mut key = Vec::with_capacity(25);
    key.put_u8(EXPIRIES);
    key.put_u64(expires_at_s);
    key.put_slice(id.as_bytes());
    Bytes::from(key)
}

fn parse_expiry_key(key: &[u8]) -> Result<(u64, MessageId), RowsError> {
    let wrong = || RowsError(format!("an expiry key can't be read: {key:?}"));
    let second =
        key.get(1..9).and_then(|part| part.try_into().ok()).map(u64::from_be_bytes).ok_or_else(wrong)?;
    let id = key.get(9..).and_then(|part| MessageId::from_bytes(part).ok()).ok_or_else(wrong)?;
    Ok((second, id))
}

/// Where the rows of routers' ids end that may be forgotten at `now_s`.
fn router_end(now_s: u64) -> [u8; 7] {
    // An id's time has 48 bits; a leader whose clock is past all of them must not stop the replicas.
    let until_ms = now_s.saturating_mul(1_000).saturating_sub(ROUTER_ID_AGE_MS_MAX).min((1 << 48) - 1);
    let mut key = [ROUTER_REPLIES; 7];
    key[1..].copy_from_slice(&until_ms.to_be_bytes()[2..]);
    key
}

pub fn get(rows: &dyn Rows, id: MessageId) -> Result<Option<Reply>, RowsError> {
    if planted(Bug::RunKnownIdAgain) {
        return Ok(None);
    }
    rows.get(&key(id))?.map(|value| decode_value("reply", &value)).transpose()
}

pub(crate) fn put(rows: &mut dyn RowsMut, id: MessageId, mut reply: Reply) -> Result<(), RowsError> {
    if id.kind() == MessageIdKind::Router {
        reply.expires_at_s = 0;
    } else {
        rows.put(expiry_key(reply.expires_at_s, id), Bytes::new());
    }
    rows.put(Bytes::copy_from_slice(&key(id)), encode_value(&reply)?);
    Ok(())
}

/// Moves the expiry of a known id that lasts, if it would be kept longer.
pub(crate) fn keep_until(rows: &mut dyn RowsMut, id: MessageId, expires_at_s: u64) -> Result<(), RowsError> {
    let Some(mut reply) = get(rows, id)? else { return Ok(()) };
    if id.kind() != MessageIdKind::Router && expires_at_s > reply.expires_at_s {
        rows.delete(expiry_key(reply.expires_at_s, id));
        reply.expires_at_s = expires_at_s;
        put(rows, id, reply)?;
    }
    Ok(())
}

/// Forgets what an id was answered with.
pub(crate) fn forget(rows: &mut dyn RowsMut, id: MessageId) -> Result<(), RowsError> {
    let Some(reply) = get(rows, id)? else { return Ok(()) };
    if id.kind() != MessageIdKind::Router {
        rows.delete(expiry_key(reply.expires_at_s, id));
    }
    rows.delete(Bytes::copy_from_slice(&key(id)));
    Ok(())
}

/// Forgets at most `limit` ids of each kind that expired before `now_s`; true if more may be left.
pub(crate) fn forget_expired(rows: &mut dyn RowsMut, now_s: u64, limit: usize) -> Result<bool, RowsError> {
    let routers = rows.scan(&[ROUTER_REPLIES], Some(&router_end(now_s)), limit)?;
    for (key, _) in &routers {
        rows.delete(key.clone());
    }
    let mut end = vec![EXPIRIES];
    end.put_u64(now_s);
    let lasting = rows.scan(&[EXPIRIES], Some(&end), limit)?;
    for (expiry, _) in &lasting {
        let (_, id) = parse_expiry_key(expiry)?;
        rows.delete(Bytes::copy_from_slice(&key(id)));
        rows.delete(expiry.clone());
    }
    Ok(routers.len() == limit || lasting.len() == limit)
}

/// Whether any id may be forgotten at `now_s`.
pub fn any_expired(rows: &dyn Rows, now_s: u64) -> Result<bool, RowsError> {
    let mut end = vec![EXPIRIES];
    end.put_u64(now_s);
    Ok(!rows.scan(&[ROUTER_REPLIES], Some(&router_end(now_s)), 1)?.is_empty()
        || !rows.scan(&[EXPIRIES], Some(&end), 1)?.is_empty())
}

/// Every reply that lasts has its expiry row and the other way round; what does not fit, as a text.
pub(crate) fn unmatched(rows: &dyn Rows) -> Result<Option<String>, RowsError> {
    let replies = rows.scan(&[LASTING_REPLIES], Some(&[LASTING_REPLIES + 1]), usize::MAX)?;
    let expiries = rows.scan(&[EXPIRIES], Some(&[EXPIRIES + 1]), usize::MAX)?;
    if replies.len() != expiries.len() {
        return Ok(Some(format!("{} replies, {} expiries", replies.len(), expiries.len())));
    }
    for (expiry, _) in expiries {
        let (second, id) = parse_expiry_key(&expiry)?;
        match get(rows, id)? {
            Some(reply) if reply.expires_at_s == second => {}
            other => return Ok(Some(format!("expiry of {id} at {second} beside {other:?}"))),
        }
    }
    Ok(None)
}
