//! What the catalog's leader proposes. One file a command.

mod form_cluster;
mod place_regions;
mod record_action;
mod region_ready;
mod register_node;
mod set_node_state;
mod set_type_limits;

pub use form_cluster::FormCluster;
pub use place_regions::PlaceRegions;
pub use record_action::{AdminAction, RecordAction};
pub use region_ready::RegionReady;
pub use register_node::RegisterNode;
pub use set_node_state::SetNodeState;
pub use set_type_limits::SetTypeLimits;

use crate::Refusal;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Version of the encoding below.
const VERSION: u8 = 1;

/// One command. Encoded as a version byte and postcard: a variant's place in this list is its number on
/// disk, so new ones go to the end and none is ever taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    FormCluster(FormCluster),
    RegisterNode(RegisterNode),
    SetNodeState(SetNodeState),
    PlaceRegions(PlaceRegions),
    RegionReady(RegionReady),
    RecordAction(RecordAction),
    SetTypeLimits(SetTypeLimits),
}

impl Command {
    pub fn encode(&self) -> Result<Bytes, CommandNotEncoded> {
        postcard::to_extend(self, vec![VERSION])
            .map(Bytes::from)
            .map_err(|error| CommandNotEncoded(error.to_string()))
    }

    /// A command of a newer server, or bytes that are none, can't be read.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Command, Refusal> {
        let version = bytes.first().copied().unwrap_or(0);
        let unknown = Refusal::UnknownCommand { version, known: VERSION };
        match bytes.split_first() {
            Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((command, [])) => Ok(command),
                Ok(_) | Err(_) => Err(unknown),
            },
            Some(_) | None => Err(unknown),
        }
    }
}

/// A command that has no encoding: a defect of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a command can't be encoded: {0}")]
pub struct CommandNotEncoded(String);

/// Asserts that `command` is stored as these bytes, and that they still mean the same.
#[cfg(test)]
pub(crate) fn assert_frozen(command: Command, hex: &str) {
    let bytes = command.encode().unwrap();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, hex);
    assert_eq!(Command::decode(&bytes), Ok(command));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_command_is_refused() {
        for bytes in [&b""[..], b"\x00", b"\x01", b"\x02\x00", b"\x01\x63", b"\x01\xff\xff\xff\xff\xff\xff"] {
            assert!(matches!(Command::decode(bytes), Err(Refusal::UnknownCommand { .. })), "{bytes:?}");
        }
        let ready = Command::RegionReady(RegionReady { region: afdg_types::RegionId(1), at_ms: 2 });
        let mut longer = ready.encode().unwrap().to_vec();
        longer.push(0);
        assert_eq!(Command::decode(&longer), Err(Refusal::UnknownCommand { version: 1, known: 1 }));
    }

    #[test]
    fn cut_or_changed_commands_never_panic() {
        let command = Command::RecordAction(RecordAction {
            actor: "ann".to_owned(),
            reason: "a test".to_owned(),
            action: AdminAction::TransferLeader {
                region: afdg_types::RegionId(300),
                to: afdg_types::NodeId(2),
            },
            at_ms: 1_700_000_000_000,
        });
        let bytes = command.encode().unwrap();
        for length in 0..bytes.len() {
            assert!(Command::decode(&bytes[..length]).is_err());
            for bit in 0..8 {
                let mut changed = bytes.to_vec();
                changed[length] ^= 1 << bit;
                let _ = Command::decode(&changed);
            }
        }
    }
}
