//! Entity rows. Key: `0x10`, the agent (see the module above), the row key that the agent's host chose.
//! Value: bytes of the host's own layout.

use super::{ENTITIES, put_agent, take_agent};
use afdg_types::{AgentRef, Slot};
use bytes::Bytes;

/// Where the rows of `agent` begin.
pub fn prefix(agent: &AgentRef) -> Vec<u8> {
    let mut key = Vec::new();
    put_agent(ENTITIES, agent, &mut key);
    key
}

/// The stored key of the row that `agent`'s host calls `row_key`.
pub fn key(agent: &AgentRef, row_key: &[u8]) -> Bytes {
    let mut key = prefix(agent);
    key.extend_from_slice(row_key);
    Bytes::from(key)
}

/// The agent a stored key belongs to, and the host's part of the key.
pub fn parse(key: &[u8]) -> Option<(AgentRef, &[u8])> {
    let (agent, end) = take_agent(key)?;
    Some((agent, &key[end..]))
}

/// Where those of the slot's agents of a type begin whose key has `key_bytes` bytes and begins with
/// `key_prefix`. Before them are the type's agents with shorter keys.
pub fn of_type(slot: Slot, agent_type: &str, key_bytes: u16, key_prefix: &str) -> Vec<u8> {
    let mut key = slot_prefix(slot).to_vec();
    // No type's name is longer than the field holds.
    key.push(agent_type.len() as u8);
    key.extend_from_slice(agent_type.as_bytes());
    key.extend_from_slice(&key_bytes.to_be_bytes());
    key.extend_from_slice(key_prefix.as_bytes());
    key
}

/// Where all rows of `slot` begin.
pub fn slot_prefix(slot: Slot) -> [u8; 3] {
    let [high, low] = slot.0.to_be_bytes();
    [ENTITIES, high, low]
}

/// Where the table begins.
pub const START: &[u8] = &[ENTITIES];
/// The first key after the table.
pub const END: &[u8] = &[ENTITIES + 1];
