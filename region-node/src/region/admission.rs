//! A message as it reaches its region, and the way back for its answer.

use afdg_proto::{
    pb::internal::{Outcome, outcome},
    status,
};
use afdg_types::{AgentRef, CallError, GridError, MessageId, NodeId, Purpose};
use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

/// A message that asks to be admitted.
pub struct Admission {
    pub agent: AgentRef,
    pub method: String,
    pub message_id: MessageId,
    pub request: Bytes,
    /// When the caller stops waiting; none for a call of a recorded turn.
    pub deadline: Option<Instant>,
    /// The agents that wait for this message, outermost first.
    pub chain: Vec<AgentRef>,
    /// The calls of agents of the chain while which this message may enter.
    pub reentries: Vec<MessageId>,
    /// Under which number whoever waits may take its wait back; 0 if it can't.
    pub caller: u64,
    pub purpose: Purpose,
    /// When it reached the node.
    pub arrived: Instant,
    pub reply_to: ReplyTo,
}

/// An outcome on its way to the connection that the message came by. It holds its place among the
/// connection's messages until it is written.
pub struct Outgoing {
    pub outcome: Outcome,
    pub place: OwnedSemaphorePermit,
}

/// Where the answer to one message goes. The connection may be gone by then: the answer is dropped, and
/// whoever asked repeats its message.
pub struct ReplyTo {
    request_id: u64,
    // Bounded by the places: each message holds one of a connection's.
    outcomes: mpsc::UnboundedSender<Outgoing>,
    place: OwnedSemaphorePermit,
}

impl ReplyTo {
    pub fn new(
        request_id: u64,
        outcomes: mpsc::UnboundedSender<Outgoing>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { request_id, outcomes, place }
    }

    pub fn reply(self, result: Result<Bytes, CallError>) {
        let result = match result {
            Ok(response) => outcome::Result::Response(response),
            Err(error) => status::to_wire(error, 0),
        };
        self.send(result);
    }

    /// Says that a message that nobody waits for was accepted.
    pub fn accepted(self) {
        self.reply(Ok(Bytes::new()));
    }

    pub fn refuse(self, error: GridError) {
        self.reply(Err(error.into()));
    }

    /// Says that another replica leads, and which, if known.
    pub fn refuse_not_leader(self, error: GridError, leader: Option<NodeId>) {
        self.send(status::to_wire(error.into(), leader.map_or(0, |leader| leader.0)));
    }

    fn send(self, result: outcome::Result) {
        let outcome = Outcome { request_id: self.request_id, result: Some(result) };
        let _ = self.outcomes.send(Outgoing { outcome, place: self.place });
    }
}
