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
