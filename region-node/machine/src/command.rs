//! The replicated form of what a leader decided.

use crate::op::Op;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// First byte of an encoded command. A new layout gets a new number; old numbers are read for ever.
const VERSION: u8 = 1;

/// What one entry of a region's log asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The term in which the proposer led.
    pub term: u64,
    /// Counts the proposer's entries: see [`crate::table::fence`].
    pub sequence: u64,
    pub ops: Vec<Op>,
}

/// Bytes that are no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("the command has version {version}; this server reads version {VERSION}: upgrade it")]
    Version { version: u8 },
    #[error("the command can't be decoded: {why}")]
    Malformed { why: String },
    #[error("the command can't be encoded: {why}")]
    Encode { why: String },
}

impl Command {
    pub fn encode(&self) -> Result<Bytes, CommandError> {
        let out = postcard::to_extend(self, vec![VERSION]);
        out.map(Bytes::from).map_err(|error| CommandError::Encode { why: error.to_string() })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        match bytes.split_first() {
            Some((&VERSION, body)) => {
                let (command, rest) = postcard::take_from_bytes(body)
                    .map_err(|error| CommandError::Malformed { why: error.to_string() })?;
                if rest.is_empty() {
                    Ok(command)
                } else {
                    Err(CommandError::Malformed { why: format!("{} bytes are left over", rest.len()) })
                }
            }
            Some((&version, _)) => Err(CommandError::Version { version }),
            None => Err(CommandError::Malformed { why: "it is empty".to_owned() }),
        }
    }
}
