//! Turns that may have touched others. Key: `0x20`, the agent. Value: [`RecordedTurn`].
//!
//! A turn stands here before its first call leaves and until its effects are committed. A new leader
//! runs it again before anything else of that agent; with the same time and seed it makes the same
//! calls under the same ids. An agent runs one turn at a time, so there is one row an agent.

use super::{MAILBOX, decode_value, encode_value, put_agent, take_agent};
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
}

fn key(agent: &AgentRef) -> Vec<u8> {
    let mut key = Vec::new();
    put_agent(MAILBOX, agent, &mut key);
    key
}

pub fn get(rows: &dyn Rows, agent: &AgentRef) -> Result<Option<RecordedTurn>, RowsError> {
    rows.get(&key(agent))?.map(|value| decode_value("recorded turn", &value)).transpose()
}

pub(crate) fn put(rows: &mut dyn RowsMut, agent: &AgentRef, turn: &RecordedTurn) -> Result<(), RowsError> {
    rows.put(key(agent).into(), encode_value(turn)?);
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
            Ok((agent, decode_value("recorded turn", &value)?))
        })
        .collect()
}
