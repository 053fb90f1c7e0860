//! How a region node runs agents, whatever they are written in.
//!
//! A host gets one [`Turn`] and a [`TurnView`] of the world around it, and returns what the turn leaves
//! behind. It names bytes only, so that a host of WebAssembly components or of processes in other
//! languages fits the same trait.

use crate::row::Row;
use afdg_types::{
    AgentError, AgentRef, CallError, GridError, MessageId, Missed, Reason, TypeLimit, TypeLimits, When,
    limits,
};
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
    pub send_retry: SendRetry,
    pub reentrancy: Reentrancy,
}

/// Which messages may have a turn while another turn of their agent waits for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reentrancy {
    /// None: a call that comes back to an agent of its own chain is refused.
    #[default]
    None,
    /// Calls of the chain for which the turn waits.
    CallChain,
}

/// How often, and how soon, a message that nobody waits for is tried again when its turn fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendRetry {
    /// Turns that it gets before it is a dead letter.
    pub attempts_max: u32,
    /// Pause before the second of them, in milliseconds; it doubles from then on.
    pub pause_ms_min: u64,
    /// Longest pause, in milliseconds.
    pub pause_ms_max: u64,
}

impl Default for SendRetry {
    fn default() -> Self {
        Self {
            attempts_max: limits::SEND_ATTEMPTS_MAX,
            pause_ms_min: limits::SEND_RETRY_MS_MIN,
            pause_ms_max: limits::SEND_RETRY_MS_MAX,
        }
    }
}

impl SendRetry {
    /// What the type's options say; 0 stands for the default.
    pub fn new(attempts_max: u32, pause_ms_min: u32, pause_ms_max: u32) -> Self {
        let default = Self::default();
        let pause_ms_min = if pause_ms_min == 0 { default.pause_ms_min } else { u64::from(pause_ms_min) };
        let pause_ms_max = if pause_ms_max == 0 { default.pause_ms_max } else { u64::from(pause_ms_max) };
        Self {
            attempts_max: if attempts_max == 0 { default.attempts_max } else { attempts_max },
            pause_ms_min,
            pause_ms_max: pause_ms_max.max(pause_ms_min),
        }
    }

    /// The pause after so many failures, in milliseconds.
    pub fn pause_ms(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(63);
        self.pause_ms_min.saturating_mul(1 << doublings).min(self.pause_ms_max)
    }
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
    /// What the ids of the turn's calls and sends follow from: the message's id, until a turn of it has refused.
    pub parent: MessageId,
    pub request: Bytes,
    /// The turn's time, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Seed of the turn's randomness.
    pub seed: u64,
    /// Declared so in the `.proto`: the turn must write nothing.
    pub read_only: bool,
    pub bounds: TurnBounds,
}

/// What a host keeps a turn to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnBounds {
    /// Bytes that the turn is given and writes: its request, rows that it reads, answers to its calls.
    pub memory_bytes_max: usize,
    /// Bytes of the rows that it writes, and those of the messages that it sends.
    pub effect_bytes_max: usize,
}

impl Default for TurnBounds {
    fn default() -> Self {
        let limits = TypeLimits::default();
        Self {
            memory_bytes_max: limits.size(TypeLimit::TurnMemoryBytes),
            effect_bytes_max: limits.size(TypeLimit::TurnEffectBytes),
        }
    }
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

    /// [`TurnView::call`], which is cut short at `until_ms`, milliseconds since the Unix epoch: if it still
    /// waits for its turn then, its answer is `CALL_CANCELLED`. A view without time of its own waits as long as
    /// it takes.
    async fn call_until(
        &self,
        ordinal: u32,
        agent: AgentRef,
        method: &str,
        request: Bytes,
        _until_ms: u64,
    ) -> Result<Bytes, CallError> {
        self.call(ordinal, agent, method, request).await
    }
}

/// What a turn leaves behind.
#[derive(Clone, Debug)]
pub struct TurnOutput {
    /// The response message, or the handler's refusal, with which no writes and no sends go.
    pub reply: Result<Bytes, AgentError>,
    pub writes: Vec<RowWrite>,
    /// Messages that leave once the turn is committed, in this order.
    pub sends: Vec<TurnSend>,
    /// Schedules of the agent that are set and cancelled, in this order.
    pub schedules: Vec<TurnSchedule>,
}

/// What a turn does to one of its agent's schedules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnSchedule {
    /// In the place of one of the same name, if there is one.
    Set {
        name: String,
        when: When,
        missed: Missed,
        /// Whom it sends to.
        agent: AgentRef,
        method: String,
        request: Bytes,
    },
    Cancel {
        name: String,
    },
}

impl TurnSchedule {
    pub fn name(&self) -> &str {
        match self {
            Self::Set { name, .. } | Self::Cancel { name } => name,
        }
    }

    /// What it counts among the bytes that a turn may write.
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = limits::SCHEDULE_CRON_BYTES_MAX + limits::SCHEDULE_ZONE_BYTES_MAX + 64;
        OVERHEAD
            + match self {
                Self::Set { name, agent, method, request, .. } => {
                    name.len() + agent.as_str().len() + method.len() + request.len()
                }
                Self::Cancel { name } => name.len(),
            }
    }
}

/// A message that nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnSend {
    /// Its place among the turn's calls and sends; with the turn's message id it makes the message's id.
    pub ordinal: u32,
    pub agent: AgentRef,
    pub method: String,
    pub request: Bytes,
    /// How long after the turn's time it is held back.
    pub delay_ms: u64,
}

impl TurnSend {
    /// What it counts among the bytes that a turn may write: names, request, and room for the rest.
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 64;
        OVERHEAD + self.agent.as_str().len() + self.method.len() + self.request.len()
    }
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

#[cfg(test)]
mod tests {
    use super::SendRetry;

    #[test]
    fn pauses_double_between_their_bounds() {
        let pauses = |retry: SendRetry| (1..=13).map(|failures| retry.pause_ms(failures)).collect::<Vec<_>>();
        let doubling = [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000];
        assert_eq!(pauses(SendRetry::new(0, 0, 0)), doubling);
        assert_eq!(SendRetry::default().pause_ms(u32::MAX), 60_000);
        assert_eq!(SendRetry::new(3, 1_000, 1_500).pause_ms(2), 1_500);
        assert_eq!(
            SendRetry::new(3, 90_000, 0).pause_ms(1),
            90_000,
            "the longest is no shorter than the first"
        );
    }
}
