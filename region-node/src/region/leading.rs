//! What the owner keeps while its replica leads. All of it is lost with the lead, and rebuilt from the
//! rows by the next one.

use super::{
    admission::{Admission, ReplyTo},
    propose::Proposed,
};
use crate::executor::overlay::{Overlay, TurnNumber};
use afdg_region_machine::{
    op::CommitTurn,
    table::{fence::Fence, mailbox::RecordedTurn},
};
use afdg_types::{AgentRef, MessageId};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use tokio::{sync::oneshot, task::AbortHandle, time::Instant};

/// A message that was admitted, with everybody who waits for its answer.
pub struct Message {
    pub message_id: MessageId,
    pub method: String,
    pub request: Bytes,
    pub digest: u128,
    pub deadline: Option<Instant>,
    pub chain: Vec<AgentRef>,
    /// Counted among the region's bytes in flight.
    pub bytes: usize,
}

/// One agent with something under way.
#[derive(Default)]
pub struct AgentState {
    /// Messages that wait for their turn.
    pub queue: VecDeque<Message>,
    pub running: Option<Running>,
    pub overlay: Overlay,
    /// Turns that ended and are not committed.
    pub uncommitted: u32,
}

impl AgentState {
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_none() && self.uncommitted == 0
    }
}

/// The turn that runs.
pub struct Running {
    pub number: TurnNumber,
    pub message: Message,
    pub now_ms: u64,
    pub seed: u64,
    /// The turn's message stands in the mailbox, or is on its way there.
    pub recorded: bool,
    pub task: AbortHandle,
}

/// A turn that nobody waits for any more ends at its next await point.
impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who waits for the message of an id.
#[derive(Default)]
pub struct Waiters {
    pub digest: u128,
    pub replies: Vec<ReplyTo>,
}

/// One operation on its way into an entry, and what is to be done once it is committed.
pub enum Pending {
    Turn { number: TurnNumber, effects: CommitTurn, bytes: usize, message_bytes: usize },
    Record { agent: AgentRef, turn: RecordedTurn, recorded: oneshot::Sender<()> },
    KeepId(afdg_region_machine::op::KeepId),
    ForgetIds(afdg_region_machine::op::ForgetIds),
    CollectGarbage,
}

/// The state of one leadership.
pub struct Leading {
    pub term: u64,
    /// See [`super::owner::Owner`].
    pub leadership: u64,
    /// False until everything of earlier terms is applied and the mailbox is read.
    pub ready: bool,
    /// Messages that came before that.
    pub early: Vec<Admission>,
    pub early_bytes: usize,
    pub agents: HashMap<AgentRef, AgentState>,
    pub waiters: HashMap<MessageId, Waiters>,
    pub next_turn: TurnNumber,
    pub next_sequence: u64,
    /// Operations that wait for the next entry.
    pub pending: VecDeque<Pending>,
    /// Entries under way, in order.
    pub proposed: futures::stream::FuturesOrdered<Proposed>,
    /// Admitted and not yet answered.
    pub messages: usize,
    pub message_bytes: usize,
    /// Read-only messages that wait for word that this replica still leads.
    pub reads: Vec<Admission>,
    pub reads_checking: bool,
    /// Housekeeping is under way.
    pub forgetting: bool,
    pub collecting: bool,
}

impl Leading {
    pub fn new(term: u64, leadership: u64) -> Self {
        Self {
            term,
            leadership,
            early_bytes: 0,
            ready: false,
            early: Vec::new(),
            agents: HashMap::new(),
            waiters: HashMap::new(),
            next_turn: 1,
            next_sequence: Fence::first_of(leadership) + 1,
            pending: VecDeque::new(),
            proposed: futures::stream::FuturesOrdered::new(),
            messages: 0,
            message_bytes: 0,
            reads: Vec::new(),
            reads_checking: false,
            forgetting: false,
            collecting: false,
        }
    }

    pub fn count_out(&mut self, bytes: usize) {
        self.messages = self.messages.saturating_sub(1);
        self.message_bytes = self.message_bytes.saturating_sub(bytes);
    }

    /// Answers everybody who waits for `id`.
    pub fn answer(&mut self, id: MessageId, result: &Result<Bytes, afdg_types::CallError>) {
        for reply_to in self.waiters.remove(&id).map(|waiters| waiters.replies).unwrap_or_default() {
            reply_to.reply(result.clone());
        }
    }
}
