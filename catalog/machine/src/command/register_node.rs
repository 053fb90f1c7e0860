//! A region node has started and makes itself known.
//!
//! A node *is* its data: the incarnation, made together with the data folder, decides which node it is.
//! - A known incarnation is the node it was before, and gets its id again; its name may not differ, so
//!   that one node never starts on another's data.
//! - A new incarnation is a new node with a new id, also under a known name: that node has lost its
//!   disk, so it has promised nothing and voted for nobody. The node that had the name before is marked
//!   dead. Its replicas stay listed until they are replaced. While that node is live, the name is refused:
//!   two that run must not share one.
//! - A replaced node that registers again has its disk back: it takes its name and id again, and the
//!   node that had replaced it is dead instead.

use crate::{
    AgentType, CatalogState, Node, NodeState, Refusal, Reply,
    limits::{
        ADDRESS_BYTES_MAX, NAME_BYTES_MAX, NODES_MAX, TYPE_BYTES_MAX, TYPE_METHODS_MAX, TYPES_BYTES_MAX,
        TYPES_MAX,
    },
};
use afdg_types::{AgentRef, ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterNode {
    /// The cluster that the node's data is of; none on a new node.
    pub cluster: Option<ClusterId>,
    /// The node that the data is of; none on a new node.
    pub node: Option<NodeId>,
    pub name: String,
    pub incarnation: String,
    pub address: String,
    pub zone: String,
    pub types: Vec<AgentType>,
    pub at_ms: u64,
}

impl RegisterNode {
    pub(crate) fn apply(self, state: &mut CatalogState) -> Result<Reply, Refusal> {
        let cluster = state.formed()?.id.clone();
        if let Some(claimed) = self.cluster.clone().filter(|claimed| *claimed != cluster) {
            return Err(Refusal::WrongCluster { claimed, own: cluster });
        }
        self.check_texts()?;
        let id = self.decide_id(state)?;
        self.check_name(id, state)?;
        let types = self.types.iter().map(|t| t.name.clone()).collect();
        put_types(self.types, state)?;

        let known = state.nodes.get(&id);
        let was_live = known.filter(|node| node.state == NodeState::Live);
        let changed_ms = was_live.map_or(self.at_ms, |node| node.changed_ms);
        for (other, namesake) in &mut state.nodes {
            if *other != id && namesake.name == self.name {
                replace(namesake, id, self.at_ms);
            }
        }
        state.node_id_last = state.node_id_last.max(id.0);
        state.nodes.insert(
            id,
            Node {
                name: self.name,
                incarnation: self.incarnation,
                address: self.address,
                zone: self.zone,
                state: NodeState::Live,
                registered_ms: self.at_ms,
                changed_ms,
                types,
                replaced_by: None,
            },
        );
        Ok(Reply::Registered { node: id, cluster })
    }

    fn check_texts(&self) -> Result<(), Refusal> {
        check_text("name", &self.name, 1, NAME_BYTES_MAX)?;
        check_text("incarnation", &self.incarnation, 1, NAME_BYTES_MAX)?;
        check_text("address", &self.address, 1, ADDRESS_BYTES_MAX)?;
        check_text("zone", &self.zone, 0, NAME_BYTES_MAX)
    }

    /// A new node takes over a name only from one that is not heard of any more.
    fn check_name(&self, id: NodeId, state: &CatalogState) -> Result<(), Refusal> {
        if state.nodes.contains_key(&id) {
            return Ok(());
        }
        let mut nodes = state.nodes.iter();
        let namesake = nodes.find(|(_, node)| node.name == self.name && node.state == NodeState::Live);
        namesake.map_or(Ok(()), |(node, namesake)| {
            let (name, address) = (self.name.clone(), namesake.address.clone());
            Err(Refusal::NameInUse { name, node: *node, address })
        })
    }

    fn decide_id(&self, state: &CatalogState) -> Result<NodeId, Refusal> {
        let same_data = state.nodes.iter().find(|(_, node)| node.incarnation == self.incarnation);
        match (same_data, self.node) {
            (Some((id, node)), claimed) => {
                let right = node.name == self.name && claimed.is_none_or(|claimed| claimed == *id);
                let (name, given) = (node.name.clone(), self.name.clone());
                if right { Ok(*id) } else { Err(Refusal::DataOfAnotherNode { node: *id, name, given }) }
            }
            (None, Some(node)) => Err(Refusal::UnknownData { node }),
            (None, None) if state.nodes.len() >= NODES_MAX => {
                Err(Refusal::Full { what: "nodes", max: NODES_MAX })
            }
            (None, None) => Ok(NodeId(state.node_id_last + 1)),
        }
    }
}

fn replace(node: &mut Node, by: NodeId, at_ms: u64) {
    if node.state != NodeState::Dead {
        node.changed_ms = at_ms;
    }
    node.state = NodeState::Dead;
    node.replaced_by = Some(by);
}

fn check_text(field: &'static str, text: &str, min: usize, max: usize) -> Result<(), Refusal> {
    let invalid = |problem: String| Err(Refusal::Invalid { field, problem });
    if !(min..=max).contains(&text.len()) {
        return invalid(format!("must have {min} to {max} bytes; got {}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return invalid("must hold no control characters".to_owned());
    }
    Ok(())
}

fn put_types(types: Vec<AgentType>, state: &mut CatalogState) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for agent_type in types {
        check_type(&agent_type)?;
        let name = agent_type.name.clone();
        if !seen.insert(name.clone()) {
            return Err(Refusal::InvalidType { name, problem: "is given twice".to_owned() });
        }
        if state.types.get(&name).is_none_or(|known| **known != agent_type) {
            state.types.insert(name, Arc::new(agent_type));
        }
    }
    if state.types.len() > TYPES_MAX {
        return Err(Refusal::Full { what: "agent types", max: TYPES_MAX });
    }
    if state.types.values().map(|t| t.size_bytes()).sum::<usize>() > TYPES_BYTES_MAX {
        return Err(Refusal::Full { what: "bytes of agent types", max: TYPES_BYTES_MAX });
    }
    Ok(())
}

fn check_type(agent_type: &AgentType) -> Result<(), Refusal> {
    // A name that no agent's address could hold could never be called.
    let name_error = AgentRef::new(&agent_type.name, "key").err();
    let bytes = agent_type.size_bytes();
    let methods = agent_type.methods.len();
    let names: BTreeSet<&str> = agent_type.methods.iter().map(|method| method.name.as_str()).collect();
    let problem = if let Some(error) = name_error {
        format!("has no usable name: {error}")
    } else if bytes > TYPE_BYTES_MAX {
        format!("has {bytes} bytes of descriptors and names; at most {TYPE_BYTES_MAX} are allowed")
    } else if methods > TYPE_METHODS_MAX {
        format!("has {methods} methods; at most {TYPE_METHODS_MAX} are allowed")
    } else if names.len() != methods || names.contains("") {
        "has a method without a name, or two of one name".to_owned()
    } else {
        return Ok(());
    };
    let name = agent_type.name.chars().take(80).collect::<String>().escape_debug().to_string();
    Err(Refusal::InvalidType { name, problem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Method, command::assert_frozen};
    use bytes::Bytes;

    #[test]
    fn stored_bytes_never_change() {
        assert_frozen(
            Command::RegisterNode(RegisterNode {
                cluster: Some(ClusterId("c1".to_owned())),
                node: Some(NodeId(3)),
                name: "node-3".to_owned(),
                incarnation: "i3".to_owned(),
                address: "h:1".to_owned(),
                zone: "z".to_owned(),
                types: vec![AgentType {
                    name: "a.B".to_owned(),
                    version: "0f".to_owned(),
                    descriptors: Bytes::from_static(b"\x01\x02"),
                    methods: vec![Method {
                        name: "M".to_owned(),
                        read_only: true,
                        key_field: 1,
                        request: "Q".to_owned(),
                        response: "R".to_owned(),
                    }],
                }],
                at_ms: 1_700_000_000_000,
            }),
            "0101010263310103066e6f64652d3302693303683a31017a0103612e4202306602010201014d01010151015280d095ffbc31",
        );
    }
}
