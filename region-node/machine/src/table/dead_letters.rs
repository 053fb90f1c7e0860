//! Sends that were given up. Key: `0x24`, the agent on whose side it was given up, the number (u64 BE) that
//! the region gave it then. Value: [`DeadLetter`].
//!
//! They stay until a person has them tried again or dropped.

use super::{DEAD_LETTERS, decode_value, encode_value, inbox::AcceptedSend, put_numbered, take_numbered};
use afdg_types::{AgentRef, Rows, RowsError, RowsMut};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Whom the message was for.
    pub to: AgentRef,
    pub side: Side,
    pub send: AcceptedSend,
    /// When it was given up, milliseconds since the Unix epoch.
    pub died_ms: u64,
}

/// Where a send was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// The receiver's turns failed.
    Receiver,
    /// The receiver's region did not accept it.
    Sender,
}

pub fn get(rows: &dyn Rows, agent: &AgentRef, number: u64) -> Result<Option<DeadLetter>, RowsError> {
    let value = rows.get(&put_numbered(DEAD_LETTERS, agent, number))?;
    value.map(|value| decode_value("dead letter", &value)).transpose()
}

pub(crate) fn put(
    rows: &mut dyn RowsMut,
    agent: &AgentRef,
    number: u64,
    letter: &DeadLetter,
) -> Result<(), RowsError> {
    rows.put(put_numbered(DEAD_LETTERS, agent, number), encode_value(letter)?);
    Ok(())
}

pub(crate) fn delete(rows: &mut dyn RowsMut, agent: &AgentRef, number: u64) {
    rows.delete(put_numbered(DEAD_LETTERS, agent, number));
}

/// How many dead letters the region has.
pub fn count(rows: &dyn Rows) -> Result<usize, RowsError> {
    // A few at once: each is read with its request.
    const AT_ONCE: usize = 16;
    let (mut from, mut count) = (vec![DEAD_LETTERS], 0);
    loop {
        let found = rows.scan(&from, Some(&[DEAD_LETTERS + 1]), AT_ONCE)?;
        count += found.len();
        let Some((last, _)) = found.last().filter(|_| found.len() == AT_ONCE) else { return Ok(count) };
        from = last.to_vec();
        from.push(0);
    }
}

/// One page of the region's dead letters, in the order of their keys.
pub struct Page {
    pub letters: Vec<(AgentRef, u64, DeadLetter)>,
    /// Where the next page begins; none at the end.
    pub next: Option<Vec<u8>>,
}

/// At most `limit` dead letters from the key `from`, which a page before gave, or from the first.
pub fn page(rows: &dyn Rows, from: Option<&[u8]>, limit: usize) -> Result<Page, RowsError> {
    let from = from.filter(|from| from.first() == Some(&DEAD_LETTERS)).unwrap_or(&[DEAD_LETTERS]);
    let mut found = rows.scan(from, Some(&[DEAD_LETTERS + 1]), limit.saturating_add(1))?;
    let next = (found.len() > limit).then(|| found.pop()).flatten().map(|(key, _)| key.to_vec());
    let letters = found.into_iter().map(|(key, value)| {
        let (agent, number) = take_numbered("dead letter", &key)?;
        Ok((agent, number, decode_value("dead letter", &value)?))
    });
    Ok(Page { letters: letters.collect::<Result<_, RowsError>>()?, next })
}
