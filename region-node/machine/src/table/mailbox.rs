//! Turns that may have touched others. Key: `0x20`, the agent. Value: [`RecordedTurn`], in version 2 with its
//! reentries behind it.
//!
//! A turn stands here before its first call leaves and until its effects are committed. A new leader
//! runs it again before anything else of that agent; with the same time and seed it makes the same
//! calls under the same ids. An agent runs one turn at a time, so there is one row an agent.

use super::{MAILBOX, VALUE_VERSION, decode_value, encode_value, put_agent, take_agent};
use afdg_types::{AgentRef, MessageId, Rows, RowsError, RowsMut};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// All that is needed to run a turn again the same way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedTurn {
    pub message_id: MessageId,
    pub method: String,
    pub request: Bytes,
    /// See [`super::replies::digest`].
    pub digest: u128,
    /// The agents that wait for this turn, outermost first.
    pub chain: Vec<AgentRef>,
    /// The turn's time, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Seed of the turn's randomness.
    pub seed: u64,
    /// The calls of agents of the chain while which messages of the chain may enter. Most turns have none, and
    /// those are stored as in version 1.
    #[serde(skip)]
    pub reentries: Vec<MessageId>,
}

/// Of a turn with reentries, first of its value.
const WITH_REENTRIES: u8 = 2;
const _: () = assert!(WITH_REENTRIES != VALUE_VERSION);

fn encode(turn: &RecordedTurn) -> Result<Bytes, RowsError> {
    if turn.reentries.is_empty() {
        return encode_value(turn);
    }
    let encoded = postcard::to_extend(&(turn, &turn.reentries), vec![WITH_REENTRIES]);
    encoded.map(Bytes::from).map_err(|error| RowsError(format!("a recorded turn can't be encoded: {error}")))
}

fn decode(value: &[u8]) -> Result<RecordedTurn, RowsError> {
    match value.split_first() {
        Some((&WITH_REENTRIES, body)) => {
            let (turn, rest): ((RecordedTurn, Vec<MessageId>), _) = postcard::take_from_bytes(body)
                .map_err(|error| RowsError(format!("a stored recorded turn can't be decoded: {error}")))?;
            if !rest.is_empty() {
                return Err(RowsError(format!("a stored recorded turn has {} bytes left over", rest.len())));
            }
            Ok(RecordedTurn { reentries: turn.1, ..turn.0 })
        }
        _ => decode_value("recorded turn", value),
    }
}

fn key(agent: &AgentRef) -> Vec<u8> {
    let mut key = Vec::new();
    put_agent(MAILBOX, agent, &mut key);
    key
}

pub fn get(rows: &dyn Rows, agent: &AgentRef) -> Result<Option<RecordedTurn>, RowsError> {
    rows.get(&key(agent))?.map(|value| decode(&value)).transpose()
}

pub(crate) fn put(rows: &mut dyn RowsMut, agent: &AgentRef, turn: &RecordedTurn) -> Result<(), RowsError> {
    rows.put(key(agent).into(), encode(turn)?);
    Ok(())
}

pub(crate) fn delete(rows: &mut dyn RowsMut, agent: &AgentRef) {
    rows.delete(key(agent).into());
}

/// All recorded turns, for a new leader.
pub fn all(rows: &dyn Rows) -> Result<Vec<(AgentRef, RecordedTurn)>, RowsError> {
    rows.scan(&[MAILBOX], Some(&[MAILBOX + 1]), usize::MAX)?
        .into_iter()
        .map(|(key, value)| {
            let (agent, _) =
                take_agent(&key).ok_or_else(|| RowsError(format!("a mailbox key can't be read: {key:?}")))?;
            Ok((agent, decode(&value)?))
        })
        .collect()
}
