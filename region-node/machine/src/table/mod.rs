//! The tables of a region, one file each. The first byte of a row's key names its table; numbers are
//! never reused. In [`entities`], [`mailbox`], [`inbox`], [`outbox`], [`dead_letters`], [`schedules`] and
//! [`refusals`] the agent's slot comes next, so that a slot's rows are one range there; garbage names such ranges. Replies and
//! the places of accepted sends lie by message id; their values name the slot or the agent.

pub mod dead_letters;
pub mod entities;
pub mod fence;
pub mod garbage;
pub mod inbox;
pub mod mailbox;
pub mod numbers;
pub mod outbox;
pub mod refusals;
pub mod replies;
pub mod schedules;

use afdg_types::{AgentRef, RowsError, Slot};
use bytes::{BufMut, Bytes};
use serde::{Serialize, de::DeserializeOwned};

const FENCE: u8 = 0x01;
const NUMBERS: u8 = 0x02;
const ENTITIES: u8 = 0x10;
const MAILBOX: u8 = 0x20;
const INBOX: u8 = 0x21;
const ACCEPTED: u8 = 0x22;
const OUTBOX: u8 = 0x23;
const DEAD_LETTERS: u8 = 0x24;
const SCHEDULES: u8 = 0x25;
const SCHEDULE_PROGRESS: u8 = 0x26;
const ROUTER_REPLIES: u8 = 0x30;
const LASTING_REPLIES: u8 = 0x31;
const EXPIRIES: u8 = 0x32;
const GARBAGE: u8 = 0x40;
const REFUSALS: u8 = 0x50;

/// First byte of every stored value that this crate encodes.
const VALUE_VERSION: u8 = 1;

/// `table, slot (u16 BE), type length (u8), type, key length (u16 BE), key`: no agent's prefix is the
/// beginning of another's.
fn put_agent(table: u8, agent: &AgentRef, out: &mut Vec<u8>) {
    let (agent_type, key) = (agent.agent_type(), agent.key());
    out.reserve(6 + agent_type.len() + key.len());
    out.put_u8(table);
    out.put_u16(Slot::of(agent).0);
    // AgentRef bounds both lengths below what the fields hold.
    out.put_u8(agent_type.len() as u8);
    out.put_slice(agent_type.as_bytes());
    out.put_u16(key.len() as u16);
    out.put_slice(key.as_bytes());
}

/// Reads back what [`put_agent`] wrote: the agent and the length of its prefix.
fn take_agent(key: &[u8]) -> Option<(AgentRef, usize)> {
    let type_bytes = usize::from(*key.get(3)?);
    let key_at = 4 + type_bytes;
    let agent_type = std::str::from_utf8(key.get(4..key_at)?).ok()?;
    let key_bytes = usize::from(u16::from_be_bytes(key.get(key_at..key_at + 2)?.try_into().ok()?));
    let end = key_at + 2 + key_bytes;
    let agent_key = std::str::from_utf8(key.get(key_at + 2..end)?).ok()?;
    Some((AgentRef::new(agent_type, agent_key).ok()?, end))
}

/// An agent's prefix and a number, so that an agent's rows lie in the order of their numbers.
fn put_numbered(table: u8, agent: &AgentRef, number: u64) -> Bytes {
    let mut key = Vec::new();
    put_agent(table, agent, &mut key);
    key.put_u64(number);
    Bytes::from(key)
}

fn take_numbered(table: &str, key: &[u8]) -> Result<(AgentRef, u64), RowsError> {
    let taken = take_agent(key).and_then(|(agent, end)| {
        let number = key.get(end..)?.try_into().ok()?;
        Some((agent, u64::from_be_bytes(number)))
    });
    taken.ok_or_else(|| RowsError(format!("a key of the {table} can't be read: {key:?}")))
}

fn encode_value<T: Serialize>(value: &T) -> Result<Bytes, RowsError> {
    let vec = postcard::to_extend(value, vec![VALUE_VERSION])
        .map_err(|error| RowsError(format!("a value can't be encoded: {error}")))?;
    Ok(Bytes::from(vec))
}

fn decode_value<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, RowsError> {
    match bytes.split_first() {
        Some((&VALUE_VERSION, body)) => {
            let (value, rest) = postcard::take_from_bytes(body)
                .map_err(|error| RowsError(format!("a stored {what} can't be decoded: {error}")))?;
            if !rest.is_empty() {
                return Err(RowsError(format!("a stored {what} has {} bytes left over", rest.len())));
            }
            Ok(value)
        }
        Some((version, _)) => {
            Err(RowsError(format!("a stored {what} has version {version}, not {VALUE_VERSION}")))
        }
        None => Err(RowsError(format!("a stored {what} is empty"))),
    }
}
