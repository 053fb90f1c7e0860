//! What the owner keeps while its replica leads. All of it is lost with the lead, and rebuilt from the
//! rows by the next one.

use super::{
    admission::{Admission, ReplyTo},
    due::Parked,
    held::Held,
    load::Load,
    mailbox_queue::MailboxQueue,
    propose::Proposed,
    reads::RunningRead,
    schedules::Schedules,
    window::Window,
};
use crate::executor::{
    calls::Calls,
    overlay::{Overlay, TurnNumber},
    reentry::Reentry,
};
use afdg_region_machine::{
    op::{
        CancelSchedule, CommitTurn, FailAttempt, FireSchedule, ScheduleChange, SettleDeadLetter, SettleSends,
    },
    table::{
        fence::Fence, inbox::AcceptedSend, mailbox::RecordedTurn, outbox::OutgoingSend, schedules::Schedule,
    },
};
use afdg_types::{AgentRef, FairQueue, MessageId, Slot, limits};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};
use tokio::{sync::oneshot, task::AbortHandle, time::Instant};

/// A message that was admitted, with everybody who waits for its answer.
#[derive(Clone)]
pub struct Message {
    pub message_id: MessageId,
    pub method: String,
    pub request: Bytes,
    pub digest: u128,
    pub deadline: Option<Instant>,
    pub chain: Vec<AgentRef>,
    /// The calls of agents of the chain while which the message may enter.
    pub reentries: Vec<MessageId>,
    /// Counted among the region's bytes in flight.
    pub bytes: usize,
    /// Of a message that nobody waits for.
    pub send: Option<SendState>,
}

/// What an accepted send has been through.
#[derive(Clone, Debug)]
pub struct SendState {
    pub sender: Option<AgentRef>,
    pub attempts: u32,
    pub refusals: u32,
}

/// One agent with something under way.
#[derive(Default)]
pub struct AgentState {
    /// Messages that wait for their turn.
    pub queue: MailboxQueue,
    /// It stands among those that wait for a place among their type's turns.
    pub waits_for_place: bool,
    pub running: Option<Running>,
    /// There only while a turn runs.
    pub entering: Option<Box<Entering>>,
    /// By sender: what waits behind a send whose turn failed and that is tried again.
    pub held: BTreeMap<AgentRef, VecDeque<Message>>,
    pub overlay: Overlay,
    /// Turns that ended and are not committed.
    pub uncommitted: u32,
}

impl AgentState {
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.running.is_none()
            && self.held.is_empty()
            && self.uncommitted == 0
            // Or it would stand there once more with its next message.
            && !self.waits_for_place
    }

    /// Messages that wait for their turn.
    pub fn waiting(&self) -> usize {
        let entering = self.entering.as_ref().map_or(0, |entering| entering.waiting.len());
        self.queue.len() + entering + self.held.values().map(VecDeque::len).sum::<usize>()
    }
}

/// Calls that have come back to an agent whose turn runs.
#[derive(Default)]
pub struct Entering {
    /// Those that have not entered yet.
    pub waiting: VecDeque<Message>,
    /// The inner turn.
    pub running: Option<Running>,
}

/// The turn that runs.
pub struct Running {
    pub number: TurnNumber,
    pub message: Message,
    pub now_ms: u64,
    pub seed: u64,
    pub since: Instant,
    /// The turn's message stands in the mailbox, or is on its way there.
    pub recorded: bool,
    /// How it calls others, and whom it waits for.
    pub calls: Calls,
    /// What it has read, if its type lets messages of its call chain enter.
    pub reentry: Option<Arc<Reentry>>,
    /// Calls that are cut short: those that it waited for when it was first found that nobody waits for it.
    /// What its handler calls after that is let alone. Empty until then.
    pub cut: BTreeSet<MessageId>,
    pub task: AbortHandle,
}

/// A turn that nobody waits for any more ends at its next await point.
impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who waits for the message of an id.
pub struct Waiters {
    /// Of the agent that the message is for.
    pub slot: Slot,
    pub digest: u128,
    /// Those who want to know how its turn ended.
    pub replies: Vec<Waiter>,
    /// Those who want to know that it was accepted.
    pub senders: Vec<ReplyTo>,
    /// Somebody has called, and waited here for the answer.
    pub called: bool,
    pub acceptance: Acceptance,
}

/// Somebody who waits, and until when; none if for as long as it takes.
pub struct Waiter {
    pub reply_to: ReplyTo,
    pub deadline: Option<Instant>,
    /// Under which number it may go; 0 if it can't.
    pub caller: u64,
}

impl Waiters {
    /// Forgets those who have given up by now; how many there are.
    pub fn let_go_of_the_late(&mut self, now: Instant) -> usize {
        self.replies.retain(|waiter| waiter.deadline.is_none_or(|deadline| deadline > now));
        self.replies.len() + self.senders.len()
    }

    /// Whether somebody called and nobody waits any more. Who only looks after the message does not call.
    pub fn are_gone(&mut self, now: Instant) -> bool {
        self.called && self.let_go_of_the_late(now) == 0
    }

    pub fn of(agent: &AgentRef, digest: u128, acceptance: Acceptance) -> Self {
        Self {
            slot: Slot::of(agent),
            digest,
            replies: Vec::new(),
            senders: Vec::new(),
            called: false,
            acceptance,
        }
    }
}

/// How far a message is on its way into the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It does not go there: somebody waits for its answer.
    None,
    /// It goes there if its turn has not ended soon.
    Awaited,
    /// It goes with the next entry.
    Pending,
    /// Its turn ended before: its effects go with the next entry in its place.
    Superseded,
    Proposed,
    Stands,
}

/// One operation on its way into an entry, and what is to be done once it is committed.
pub enum Pending {
    Turn(PendingTurn),
    Accept {
        agent: AgentRef,
        send: AcceptedSend,
    },
    Fail {
        op: FailAttempt,
        message_bytes: usize,
    },
    /// A lane that has given something up goes on once that is committed.
    Settle {
        op: SettleSends,
        lane: Option<LaneKey>,
    },
    SettleLetter {
        op: SettleDeadLetter,
        settled: oneshot::Sender<bool>,
        /// The dead letter is there, and this is the first to settle it.
        is_first: bool,
    },
    Record {
        agent: AgentRef,
        turn: RecordedTurn,
        recorded: oneshot::Sender<()>,
    },
    Fire {
        op: FireSchedule,
        schedule: Schedule,
    },
    CancelSchedule {
        op: CancelSchedule,
        /// Whether it was there.
        cancelled: oneshot::Sender<bool>,
    },
    KeepId(afdg_region_machine::op::KeepId),
    ForgetIds(afdg_region_machine::op::ForgetIds),
    CollectGarbage,
}

/// The effects of a turn that has ended.
pub struct PendingTurn {
    pub number: TurnNumber,
    pub effects: CommitTurn,
    /// The message stands in the inbox.
    pub accepted: bool,
    pub sends: Vec<OutgoingSend>,
    pub schedules: Vec<ScheduleChange>,
    pub bytes: usize,
    pub message_bytes: usize,
    pub ended: Instant,
}

/// The sends of one agent to another, in order.
pub type LaneKey = (AgentRef, AgentRef);

/// What is on its way from one agent to another.
#[derive(Default)]
pub struct Lane {
    /// Numbers in the outbox, with the bytes of their requests.
    pub numbers: VecDeque<(u64, usize)>,
    /// Attempts to deliver the first of them that were refused.
    pub attempts: u32,
    /// Attempts in a row that failed, whatever the reason.
    pub failures: u32,
    pub state: LaneState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LaneState {
    #[default]
    Idle,
    /// It waits for a place among those that are delivered.
    Queued,
    Delivering,
    /// It waits until it is committed that its first message was given up.
    Settling,
    /// It waits for its next attempt.
    Paused,
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
    /// Those to which calls have come back.
    pub reentered: BTreeSet<AgentRef>,
    pub waiters: HashMap<MessageId, Waiters>,
    pub next_turn: TurnNumber,
    pub next_sequence: u64,
    /// Operations that wait for the next entry, by agent type.
    pub pending: FairQueue<Pending>,
    pub window: Window,
    /// Entries under way, in order.
    pub proposed: futures::stream::FuturesOrdered<Proposed>,
    /// Admitted and not yet answered.
    pub load: Load,
    /// Clients' sends whose turns may end soon, by when they go into the inbox if not.
    pub awaited: VecDeque<(Instant, AgentRef, AcceptedSend)>,
    /// Accepted sends that are held back or wait for their next attempt, by when that is, milliseconds
    /// since the Unix epoch.
    ///
    /// Those that are due at the same time have their turns in the order in which they were accepted.
    pub due: BTreeSet<(u64, u64, MessageId)>,
    pub due_counted: u64,
    pub parked: Parked,
    /// There was no room for more that is due: nothing is looked at before that, milliseconds since the Unix
    /// epoch.
    pub due_full_until_ms: u64,
    /// Sends that were taken and whose turn is not committed.
    pub inbox: Held,
    pub lanes: HashMap<LaneKey, Lane>,
    /// Lanes with something to deliver that wait for a place.
    pub lanes_queued: VecDeque<LaneKey>,
    /// Those of them whose last attempt failed.
    pub lanes_queued_again: VecDeque<LaneKey>,
    /// Lanes that wait for their next attempt, by when that is.
    pub lanes_due: BTreeSet<(u64, LaneKey)>,
    pub lanes_delivering: usize,
    /// Those of them whose last attempt failed.
    pub lanes_delivering_again: usize,
    /// Lanes to look at once the events that came together are handled.
    pub lanes_wanted: Vec<LaneKey>,
    /// Sends that were given up and that no person has settled.
    pub dead_letters: usize,
    /// Those that are about to be settled.
    pub letters_settling: BTreeSet<(AgentRef, u64)>,
    /// Sends in the outbox.
    pub outbox: Held,
    pub schedules: Schedules,
    /// Read-only messages that wait for word that this replica still leads.
    pub reads: Vec<Admission>,
    pub reads_checking: bool,
    pub reads_running: HashMap<TurnNumber, RunningRead>,
    /// By looks for what nobody waits for any more, where one did not send all.
    pub cancels_sent: usize,
    /// Housekeeping is under way.
    pub forgetting: bool,
    pub collecting: bool,
}

impl Leading {
    pub fn new(term: u64, leadership: u64, load: Load) -> Self {
        Self {
            term,
            leadership,
            early_bytes: 0,
            ready: false,
            early: Vec::new(),
            agents: HashMap::new(),
            reentered: BTreeSet::new(),
            waiters: HashMap::new(),
            next_turn: 1,
            next_sequence: Fence::first_of(leadership) + 1,
            pending: Pending::queue(),
            window: Window::new(Instant::now()),
            proposed: futures::stream::FuturesOrdered::new(),
            load,
            awaited: VecDeque::new(),
            due: BTreeSet::new(),
            due_counted: 0,
            parked: Parked::default(),
            due_full_until_ms: 0,
            inbox: Held::new(limits::REGION_INBOX_MESSAGES_MAX, limits::REGION_INBOX_BYTES_MAX),
            lanes: HashMap::new(),
            lanes_queued: VecDeque::new(),
            lanes_queued_again: VecDeque::new(),
            lanes_due: BTreeSet::new(),
            lanes_delivering: 0,
            lanes_delivering_again: 0,
            lanes_wanted: Vec::new(),
            dead_letters: 0,
            letters_settling: BTreeSet::new(),
            outbox: Held::new(limits::REGION_OUTBOX_MESSAGES_MAX, limits::REGION_OUTBOX_BYTES_MAX),
            schedules: Schedules::default(),
            reads: Vec::new(),
            reads_checking: false,
            reads_running: HashMap::new(),
            cancels_sent: 0,
            forgetting: false,
            collecting: false,
        }
    }

    /// Answers everybody who waits for `id`: whose turn has ended, or that will have none.
    pub fn answer(&mut self, id: MessageId, result: &Result<Bytes, afdg_types::CallError>) {
        let Some(waiters) = self.waiters.remove(&id) else { return };
        for waiter in waiters.replies {
            waiter.reply_to.reply(result.clone());
        }
        // A send that joined a call which has failed was not accepted.
        for reply_to in waiters.senders {
            match result {
                Ok(_) => reply_to.accepted(),
                Err(error) => reply_to.reply(Err(error.clone())),
            }
        }
    }
}
