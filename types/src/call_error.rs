//! How a message to an agent can fail.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Why a call has no response: the handler refused it, or the grid could not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Agent(AgentError),
    #[error("{0}")]
    Grid(GridError),
}

impl From<AgentError> for CallError {
    fn from(error: AgentError) -> Self {
        Self::Agent(error)
    }
}

impl From<GridError> for CallError {
    fn from(error: GridError) -> Self {
        Self::Grid(error)
    }
}

/// The handler's own answer that it refuses. It is recorded like a response: repeating the message
/// with the same id gets the same refusal. A turn that ends in one changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct AgentError {
    pub code: Code,
    /// For programs: UPPER_SNAKE_CASE, such as `BALANCE_SHORT`.
    pub reason: String,
    /// For people.
    pub message: String,
    pub metadata: BTreeMap<String, String>,
}

impl AgentError {
    pub fn new(code: Code, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), metadata: BTreeMap::new() }
    }

    /// The state of the agent does not allow it: `FAILED_PRECONDITION`.
    pub fn refused(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, reason, message)
    }

    /// The request is wrong whatever the state: `INVALID_ARGUMENT`.
    pub fn invalid(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason, message)
    }

    /// Adds a fact for programs, such as `("balance_cents", "250")`.
    pub fn with(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }
}

/// In the metadata of an overload: how many messages a second are let in of those that the refused one was of.
pub const PER_SECOND: &str = "per_second";

/// The grid's own answer that a message got no turn, or that its outcome is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct GridError {
    pub reason: Reason,
    /// For people: what was wrong, where, and what to do.
    pub message: String,
    pub metadata: BTreeMap<String, String>,
    pub retry_after_ms: Option<u64>,
}

impl GridError {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), metadata: BTreeMap::new(), retry_after_ms: None }
    }

    pub fn with(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    pub fn retry_after_ms(mut self, delay: u64) -> Self {
        self.retry_after_ms = Some(delay);
        self
    }

    pub fn retry(&self) -> Retry {
        self.reason.retry()
    }
}

/// Whether repeating a message can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same message fails the same way.
    Never,
    /// Nothing took effect; the same message may pass later.
    Same,
    /// Nothing took effect here; another replica or a newer route is the right place.
    Elsewhere,
    /// It may have taken effect; repeating it with the same id is safe and tells.
    Unknown,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident, $retry:ident;)*) => {
        /// The machine-readable reason of a [`GridError`]; `ErrorInfo.reason` on the wire, under the
        /// domain `afdg`. Texts are never reused for another meaning.
        ///
        /// Recorded replies store it by its position here, so the list is append-only: a new reason goes to
        /// the end, and none is moved or taken out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            pub fn code(self) -> Code {
                match self { $(Reason::$name => Code::$code,)* }
            }

            pub fn retry(self) -> Retry {
                match self { $(Reason::$name => Retry::$retry,)* }
            }

            pub fn from_text(text: &str) -> Option<Reason> {
                match text { $($text => Some(Reason::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// No agent type of that name is known to the catalog.
    UnknownType = "UNKNOWN_TYPE", NotFound, Never;
    /// The type has no such method.
    UnknownMethod = "UNKNOWN_METHOD", Unimplemented, Never;
    /// The request names no agent key.
    KeyMissing = "KEY_MISSING", InvalidArgument, Never;
    /// The key is too long or holds characters that a key may not.
    KeyMalformed = "KEY_MALFORMED", InvalidArgument, Never;
    /// The request can't be decoded as the method's request message, or a header's value is wrong.
    RequestMalformed = "REQUEST_MALFORMED", InvalidArgument, Never;
    /// A request or a response is larger than the limit.
    MessageTooLarge = "MESSAGE_TOO_LARGE", ResourceExhausted, Never;
    /// The handler panicked; the turn changed nothing.
    HandlerPanicked = "HANDLER_PANICKED", Internal, Never;
    /// The handler ran past its time limit; the turn changed nothing.
    HandlerTimedOut = "HANDLER_TIMED_OUT", Aborted, Never;
    /// The turn wrote more than a turn may, or made more calls than a turn may; it changed nothing.
    TurnTooLarge = "TURN_TOO_LARGE", ResourceExhausted, Never;
    /// A queue is full; nothing was admitted.
    Overloaded = "OVERLOADED", ResourceExhausted, Same;
    /// The region has no leader at the moment, or no replica can be reached.
    NoLeader = "NO_LEADER", Unavailable, Same;
    /// This replica does not lead; another one may.
    NotLeader = "NOT_LEADER", Unavailable, Elsewhere;
    /// The sender's route is out of date: the slot is not this region's, or the region not this node's.
    StaleRoute = "STALE_ROUTE", Unavailable, Elsewhere;
    /// The routing table has not been received yet.
    NotReady = "NOT_READY", Unavailable, Same;
    /// The connection to a server failed before the message was sent.
    Unreachable = "UNREACHABLE", Unavailable, Elsewhere;
    /// The server is stopping and takes no more messages.
    Draining = "DRAINING", Unavailable, Elsewhere;
    /// The message was sent on and its outcome can't be known.
    OutcomeUnknown = "OUTCOME_UNKNOWN", Unavailable, Unknown;
    /// The deadline passed before the message took effect.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded, Same;
    /// The deadline passed after the message was sent on: it may yet take effect.
    DeadlineOutcomeUnknown = "DEADLINE_OUTCOME_UNKNOWN", DeadlineExceeded, Unknown;
    /// The call would close a cycle of agents that wait for each other.
    CallCycle = "CALL_CYCLE", FailedPrecondition, Never;
    /// Too many agents wait for one another in one chain.
    CallChainTooLong = "CALL_CHAIN_TOO_LONG", FailedPrecondition, Never;
    /// The id was used before with another request.
    IdReused = "ID_REUSED", AlreadyExists, Never;
    /// The id is so old that whether it took effect is no longer known.
    IdExpired = "ID_EXPIRED", FailedPrecondition, Never;
    /// The caller is not a server of this cluster.
    NotAPeer = "NOT_A_PEER", PermissionDenied, Never;
    /// A server belongs to another cluster, or its data to another node.
    WrongCluster = "WRONG_CLUSTER", FailedPrecondition, Never;
    /// What was asked for does not exist.
    NotFound = "NOT_FOUND", NotFound, Never;
    /// An admin request is incomplete or names impossible values.
    InvalidRequest = "INVALID_REQUEST", InvalidArgument, Never;
    /// A defect of the grid.
    Internal = "INTERNAL", Internal, Never;
    /// The clocks of two servers are further apart than the grid allows; nothing took effect here.
    ClocksApart = "CLOCKS_APART", Unavailable, Same;
    /// The sender's message before this one is not known here: the sender has to begin with that one.
    OutOfOrder = "OUT_OF_ORDER", Aborted, Never;
    /// Nobody waits for the call any more: it got no turn, and will have none.
    CallCancelled = "CALL_CANCELLED", Cancelled, Never;
    /// A message that entered while its agent's turn waits for it would change what that turn has read; it
    /// changed nothing.
    ReentrantConflict = "REENTRANT_CONFLICT", Aborted, Never;
    /// The turn of a message that entered while another turn of its agent waits for it calls nobody.
    ReentrantCall = "REENTRANT_CALL", FailedPrecondition, Never;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// gRPC's status codes, without OK. Discriminants are the numbers on the wire.
///
/// Recorded refusals store it by its position here, one less than the number on the wire, so the list is
/// append-only: none is moved or taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Code {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    pub const ALL: [Code; 16] = [
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    pub fn from_number(number: i32) -> Option<Code> {
        Code::ALL.into_iter().find(|code| *code as i32 == number)
    }
}

impl fmt::Display for Code {
    /// gRPC's own spelling: `FAILED_PRECONDITION`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_from_its_text() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_text(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::from_text("SOMETHING"), None);
    }

    #[test]
    fn every_code_reads_back_from_its_number() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(code as i32), Some(code));
        }
        assert_eq!(Code::from_number(0), None);
        assert_eq!(Code::from_number(17), None);
    }
}
