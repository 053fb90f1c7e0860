//! What became of a message that was handed to a region node.

use afdg_proto::{
    pb::internal::{Outcome, outcome},
    status::{agent_error_from_wire, grid_error_from_wire},
};
use afdg_types::{AgentError, GridError, NodeId};
use std::fmt;
use tonic::codegen::Bytes;

pub type ForwardResult = Result<Answer, ForwardError>;

/// The node's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The encoded response message.
    Response(Bytes),
    /// The handler refused.
    AgentError(AgentError),
    /// The node or the grid behind it could not do it.
    GridError {
        error: GridError,
        /// Who leads, as far as the node knows.
        leader: Option<NodeId>,
    },
}

/// Why there is no answer of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardError {
    /// The transport never took the message: it has had no effect and may go elsewhere.
    NotSent(String),
    /// The transport took the message and no answer came: its outcome is unknown.
    Lost(String),
    /// A bound of this client is reached, or the message is past one; it was not sent.
    Refused(GridError),
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "not sent: {why}"),
            Self::Lost(why) => write!(f, "sent, but no answer came: {why}"),
            Self::Refused(error) => write!(f, "not sent: {error}"),
        }
    }
}

impl std::error::Error for ForwardError {}

/// An outcome without a result comes from a newer server: what it did is not known here.
pub fn result_of(outcome: Outcome) -> ForwardResult {
    match outcome.result {
        Some(outcome::Result::Response(response)) => Ok(Answer::Response(response)),
        Some(outcome::Result::AgentError(error)) => Ok(Answer::AgentError(agent_error_from_wire(error))),
        Some(outcome::Result::GridError(error)) => {
            let leader = (error.leader_hint != 0).then_some(NodeId(error.leader_hint));
            Ok(Answer::GridError { error: grid_error_from_wire(error), leader })
        }
        None => Err(ForwardError::Lost("the node's outcome has no result that is known here".to_owned())),
    }
}
