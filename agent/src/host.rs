//! How a region node runs agents, whatever they are written in.
//!
//! A host gets one [`Turn`] and a [`TurnView`] of the world around it, and returns what the turn leaves
//! behind. It names bytes only, so that a host of WebAssembly components or of processes in other
//! languages fits the same trait.

use crate::row::Row;
use afdg_types::{AgentError, AgentRef, CallError, GridError, MessageId, Reason};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// Runs turns of the agent types that it knows.
#[async_trait]
pub trait AgentHost: Send + Sync + 'static {
    fn types(&self) -> Vec<TypeDescription>;

    /// Runs one turn to its end. A panic of the author's code is caught by the caller.
    async fn run(&self, turn: Turn, view: Arc<dyn TurnView>) -> Result<TurnOutput, TurnFailure>;
}

/// An agent type as its `.proto` declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeDescription {
    /// The service's full name, `bank.v1.Account`.
    pub name: String,
    /// Serialized `google.protobuf.FileDescriptorSet` with the service's file and all that it imports.
    pub descriptors: Bytes,
    pub methods: Vec<MethodDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodDescription {
    pub name: String,
    pub read_only: bool,
    /// Number of the request's string field that holds the agent's key; none if no field is marked.
    pub key_field: Option<u32>,
    /// Full names of the messages.
    pub request: String,
    pub response: String,
}

/// One message and all that its handler may know. A turn that is run again gets the same.
#[derive(Clone, Debug)]
pub struct Turn {
    pub agent: AgentRef,
    pub method: String,
    pub message_id: MessageId,
    pub request: Bytes,
    /// The turn's time, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Seed of the turn's randomness.
    pub seed: u64,
    /// Declared so in the `.proto`: the turn must write nothing.
    pub read_only: bool,
}

/// What a turn sees of the grid. Row keys are relative to the agent.
#[async_trait]
pub trait TurnView: Send + Sync + 'static {
    async fn row(&self, key: &[u8]) -> Result<Option<Arc<Row>>, TurnFailure>;

    /// The row with the greatest key in `from..=at`.
    async fn last_row_at_or_before(
        &self,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Bytes, Arc<Row>)>, TurnFailure>;

    /// Rows in key order from `from` (included) to `to` (excluded), at most `limit`.
    async fn rows(&self, from: &[u8], to: &[u8], limit: usize)
    -> Result<Vec<(Bytes, Arc<Row>)>, TurnFailure>;

    /// Calls another agent and waits for its answer. `ordinal` numbers the turn's calls from 0 in the
    /// order in which the handler made them; with the turn's message id it makes the call's id.
    /// Only answers that stay the same when asked again come back.
    async fn call(
        &self,
        ordinal: u32,
        agent: AgentRef,
        method: &str,
        request: Bytes,
    ) -> Result<Bytes, CallError>;
}

/// What a turn leaves behind.
#[derive(Clone, Debug)]
pub struct TurnOutput {
    /// The response message, or the handler's refusal, with which no writes go.
    pub reply: Result<Bytes, AgentError>,
    pub writes: Vec<RowWrite>,
}

/// One change of an agent's rows, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum RowWrite {
    Put(Bytes, Arc<Row>),
    Delete(Bytes),
    /// No row whose key starts so will be read again; they are deleted in the background.
    DropPrefix(Bytes),
}

/// Why a turn has no output: the grid's answer, not the handler's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnFailure {
    #[error("the agent's rows can't be read: {0}")]
    Storage(String),
    #[error("the host knows no agent type '{0}'")]
    UnknownType(String),
    #[error("the type has no method '{0}'")]
    UnknownMethod(String),
    #[error("the request is no {message}: {error}")]
    RequestMalformed { message: String, error: String },
    #[error("{0}")]
    TooLarge(String),
    #[error("the read-only method {0} tried to change the agent")]
    ReadOnly(String),
    #[error("the handler panicked: {0}")]
    Panicked(String),
    #[error("the turn was abandoned: its region's lead moved away")]
    Abandoned,
}

/// What the caller of a turn that failed is told.
impl From<&TurnFailure> for GridError {
    fn from(failure: &TurnFailure) -> Self {
        let reason = match failure {
            // A write in a read-only method is the author's defect, which no reason of its own names.
            TurnFailure::Storage(_) | TurnFailure::ReadOnly(_) => Reason::Internal,
            TurnFailure::UnknownType(_) => Reason::UnknownType,
            TurnFailure::UnknownMethod(_) => Reason::UnknownMethod,
            TurnFailure::RequestMalformed { .. } => Reason::RequestMalformed,
            TurnFailure::TooLarge(_) => Reason::TurnTooLarge,
            TurnFailure::Panicked(_) => Reason::HandlerPanicked,
            TurnFailure::Abandoned => Reason::NotLeader,
        };
        GridError::new(reason, failure.to_string())
    }
}
