//! Agents whose turn was refused in this leadership. Key: `0x50`, the agent. Value: the term (u64 BE).
//!
//! A later turn of the same agent may have run on the refused turn's effects before its leader heard
//! of the refusal. Those turns are refused too, until a new leadership begins.

use super::{REFUSALS, put_agent};
use afdg_types::{AgentRef, Rows, RowsError, RowsMut};
use bytes::Bytes;

fn key(agent: &AgentRef) -> Vec<u8> {
    let mut key = Vec::new();
    put_agent(REFUSALS, agent, &mut key);
    key
}

pub(crate) fn put(rows: &mut dyn RowsMut, agent: &AgentRef, term: u64) {
    rows.put(key(agent).into(), Bytes::copy_from_slice(&term.to_be_bytes()));
}

/// Whether a turn of `agent` was refused in `term`.
pub fn stands(rows: &dyn Rows, agent: &AgentRef, term: u64) -> Result<bool, RowsError> {
    Ok(rows.get(&key(agent))?.is_some_and(|value| value.as_ref() == term.to_be_bytes()))
}

/// How many agents are marked. Usually none, which saves every turn the look-up.
pub(crate) fn any(rows: &dyn Rows) -> Result<bool, RowsError> {
    Ok(!rows.scan(&[REFUSALS], Some(&[REFUSALS + 1]), 1)?.is_empty())
}

/// Forgets all marks: a new leadership begins.
pub(crate) fn forget_all(rows: &mut dyn RowsMut) -> Result<(), RowsError> {
    for (key, _) in rows.scan(&[REFUSALS], Some(&[REFUSALS + 1]), usize::MAX)? {
        rows.delete(key);
    }
    Ok(())
}
