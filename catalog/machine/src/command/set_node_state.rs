//! The leader has seen a node miss its lease, or come back.

use crate::{CatalogState, NodeState, Refusal, Reply};
use afdg_types::NodeId;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetNodeState {
    pub node: NodeId,
    /// What the proposer knew. A node that has changed meanwhile (it registered again, say) is left
    /// alone: the proposal was about an earlier one.
    pub from: NodeState,
    pub to: NodeState,
    pub at_ms: u64,
}

impl SetNodeState {
    pub(crate) fn apply(self, state: &mut CatalogState) -> Result<Reply, Refusal> {
        let id = self.node;
        let node = state.node_mut(id)?;
        if let Some(by) = node.replaced_by {
            return Err(Refusal::NodeReplaced { node: id, by });
        }
        if node.state != self.from {
            return Err(Refusal::NodeStateChanged { node: id, state: node.state, expected: self.from });
        }
        if node.state != self.to {
            node.state = self.to;
            node.changed_ms = self.at_ms;
        }
        Ok(Reply::NodeStateSet { node: id, state: self.to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, command::assert_frozen};

    #[test]
    fn stored_bytes_never_change() {
        assert_frozen(
            Command::SetNodeState(SetNodeState {
                node: NodeId(7),
                from: NodeState::Suspect,
                to: NodeState::Dead,
                at_ms: 1_700_000_000_000,
            }),
            "010207010280d095ffbc31",
        );
    }
}
