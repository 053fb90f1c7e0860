//! How a call to another agent can fail, as its author sees it.

use afdg_types::{AgentError, GridError, Reason};

/// Why a call has no response: the called agent refused it, or the grid could not do it. `?` turns it
/// into the calling handler's own refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Agent(AgentError),
    #[error("{0}")]
    Grid(GridError),
}

impl CallError {
    pub(crate) fn grid(reason: Reason, message: impl Into<String>) -> Self {
        Self::Grid(GridError::new(reason, message))
    }

    /// The reason for programs, whoever gave it: `BALANCE_SHORT` or `CALL_CYCLE`.
    pub fn reason(&self) -> &str {
        match self {
            Self::Agent(error) => &error.reason,
            Self::Grid(error) => error.reason.as_str(),
        }
    }
}

impl From<afdg_types::CallError> for CallError {
    fn from(error: afdg_types::CallError) -> Self {
        match error {
            afdg_types::CallError::Agent(error) => Self::Agent(error),
            afdg_types::CallError::Grid(error) => Self::Grid(error),
        }
    }
}

impl From<CallError> for afdg_types::CallError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Agent(error) => Self::Agent(error),
            CallError::Grid(error) => Self::Grid(error),
        }
    }
}

impl From<CallError> for AgentError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Agent(error) => error,
            CallError::Grid(error) => refusal_of(error),
        }
    }
}

/// The grid's answer as a handler's own: same code, reason, text and metadata.
pub(crate) fn refusal_of(error: GridError) -> AgentError {
    let mut refusal = AgentError::new(error.reason.code(), error.reason.as_str(), error.message);
    refusal.metadata = error.metadata;
    refusal
}
