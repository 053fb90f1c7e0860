//! What a message asks for.

use crate::{AgentRef, MessageId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A turn, whose answer the sender waits for.
    Call,
    /// A turn that nobody waits for: the answer is that the message was accepted.
    Send(Sending),
    /// No turn: the answer that the message of that id got or will get.
    Attach,
    /// No turn: agents that wait for one another in a ring are looked for.
    Probe(Probe),
    /// No turn: nobody waits any more for the message of that id.
    Cancel(Cancel),
}

/// Who does not wait any more. What a turn waits for is cut short; the turn itself goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The turn that called: for a call of a turn.
    Turn,
    /// One of a client's callers, by the number under which it asked. Others may wait for the same message.
    Caller(u64),
}

/// How a message is sent that nobody waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// Whose turn sent it; none for a client's.
    pub sender: Option<AgentRef>,
    /// When it may get its turn, milliseconds since the Unix epoch; 0 for at once.
    pub due_ms: u64,
    /// The sender's message before it, if that one may still be on its way.
    pub after: Option<MessageId>,
}

/// A way along agents that wait, each for the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// At most [`crate::limits::CALL_CHAIN_AGENTS_MAX`].
    pub waits: Vec<Wait>,
    pub stage: ProbeStage,
}

/// What a probe does where it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStage {
    /// It goes on along what the last wait's callee waits for.
    Search,
    /// The waits are a ring; it looks again whether the one of that place still stands.
    Confirm(usize),
    /// The ring stood all the while: the call of the one wait is refused.
    Break,
}

/// One agent's turn waits for the answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    pub agent: AgentRef,
    /// The message whose turn waits.
    pub turn: MessageId,
    pub call: MessageId,
    pub callee: AgentRef,
    /// The call waits for its turn behind another message: it can be refused without effect.
    pub queued: bool,
}
