//! The address of an agent.

use crate::limits::{AGENT_KEY_BYTES_MAX, AGENT_TYPE_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// One agent: its type's protobuf name and its key, written `bank.v1.Account/alice`.
/// Cheap to clone. Everything after the first `/` is the key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentRef {
    text: Arc<str>,
    type_bytes: u16,
}

impl AgentRef {
    pub fn new(agent_type: &str, key: &str) -> Result<Self, AgentRefError> {
        check_type(agent_type)?;
        check_key(key)?;
        Ok(Self { text: [agent_type, "/", key].concat().into(), type_bytes: agent_type.len() as u16 })
    }

    pub fn agent_type(&self) -> &str {
        &self.text[..usize::from(self.type_bytes)]
    }

    pub fn key(&self) -> &str {
        &self.text[usize::from(self.type_bytes) + 1..]
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn check_type(agent_type: &str) -> Result<(), AgentRefError> {
    if agent_type.is_empty() || agent_type.len() > AGENT_TYPE_BYTES_MAX {
        return Err(AgentRefError::TypeLength { bytes: agent_type.len() });
    }
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !agent_type.split('.').all(is_part) {
        return Err(AgentRefError::TypeText { text: agent_type.escape_debug().to_string() });
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), AgentRefError> {
    if key.is_empty() {
        return Err(AgentRefError::KeyMissing);
    }
    if key.len() > AGENT_KEY_BYTES_MAX {
        return Err(AgentRefError::KeyLength { bytes: key.len() });
    }
    if let Some(control) = key.chars().find(|c| c.is_control()) {
        return Err(AgentRefError::KeyControl { code: u32::from(control) });
    }
    Ok(())
}

/// Why a text is no agent's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentRefError {
    #[error("an agent is written TYPE/KEY, as in bank.v1.Account/alice; '{text}' has no '/'")]
    NoSlash { text: String },
    #[error("an agent type has 1 to {AGENT_TYPE_BYTES_MAX} bytes; this one has {bytes}")]
    TypeLength { bytes: usize },
    #[error("an agent type is a protobuf service's full name such as bank.v1.Account; got '{text}'")]
    TypeText { text: String },
    #[error("the agent's key is empty")]
    KeyMissing,
    #[error("an agent's key has at most {AGENT_KEY_BYTES_MAX} bytes; this one has {bytes}")]
    KeyLength { bytes: usize },
    #[error("an agent's key holds no control characters; this one holds U+{code:04X}")]
    KeyControl { code: u32 },
}

impl FromStr for AgentRef {
    type Err = AgentRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((agent_type, key)) => Self::new(agent_type, key),
            None => Err(AgentRefError::NoSlash {
                text: text.chars().take(80).collect::<String>().escape_debug().to_string(),
            }),
        }
    }
}

impl TryFrom<String> for AgentRef {
    type Error = AgentRefError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AgentRef> for String {
    fn from(agent: AgentRef) -> String {
        agent.text.to_string()
    }
}

impl fmt::Display for AgentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for AgentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_written() {
        for text in ["bank.v1.Account/alice", "a.B/x/y/z", "a.B/ü {1}"] {
            assert_eq!(text.parse::<AgentRef>().unwrap().to_string(), text);
        }
        let agent: AgentRef = "a.B/x/y".parse().unwrap();
        assert_eq!((agent.agent_type(), agent.key()), ("a.B", "x/y"));
    }

    #[test]
    fn bad_addresses_are_refused() {
        for text in ["", "a.B", "/k", "a.B/", "a b/k", "a..B/k", "1a/k", "a.B/x\ny", "a.B/\0"] {
            assert!(text.parse::<AgentRef>().is_err(), "{text:?} was taken");
        }
        assert!(AgentRef::new("a.B", &"k".repeat(AGENT_KEY_BYTES_MAX)).is_ok());
        assert!(AgentRef::new("a.B", &"k".repeat(AGENT_KEY_BYTES_MAX + 1)).is_err());
        assert!(AgentRef::new(&"a".repeat(AGENT_TYPE_BYTES_MAX + 1), "k").is_err());
    }
}
