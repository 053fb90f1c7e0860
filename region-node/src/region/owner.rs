//! The task that owns a region's control state: one event at a time, no locks around it.

use super::{
    activity::Activity,
    admission::Admission,
    admit::KEEP_STEP_S,
    arrivals::{Arrivals, Doors},
    begin::{Backlog, ReadyError, begin},
    by_id::Known,
    lanes::Delivery,
    leading::{Acceptance, LaneKey, Leading, Pending, Waiter},
    load::{Load, NodeLoad},
    measures::Measures,
    pace::Hop,
    rings,
};
use crate::{
    cache::RowCache,
    executor::{
        RunFailure, overlay::TurnNumber, reentry::ReentrantTypes, threads::HandlerThreads, view::AgentRows,
    },
    fail_points::FailPoints,
    replica::RegionReplica,
};
use afdg_agent::host::{AgentHost, SendRetry, TurnOutput};
use afdg_catalog_client::Routes;
use afdg_proto::pb::internal::ListBlockedAgentsResponse;
use afdg_region_machine::{
    Outcome,
    op::{CancelSchedule, SettleDeadLetter},
};
use afdg_replication::{Lead, WriteError};
use afdg_router::Router;
use afdg_runtime::{OnEnd, Tasks, World, gather};
use afdg_types::{
    AgentRef, GridError, MessageId, MessageIdKind, NodeId, Reason, RegionId, RowsError, SlotRange, limits,
};
use futures::StreamExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

/// Events taken at once before effects are proposed.
const EVENTS_AT_ONCE: usize = 256;
/// Pause before a new leader asks again whether all of earlier terms is applied.
const BEGIN_AGAIN: Duration = Duration::from_millis(20);
/// How often housekeeping is considered.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// What a region's parts need of the node.
#[derive(Clone)]
pub struct Surroundings {
    pub node: NodeId,
    pub world: World,
    pub host: Arc<dyn AgentHost>,
    /// Methods of the types that this node hosts, and whether each only reads.
    pub methods: Arc<BTreeMap<String, BTreeMap<String, bool>>>,
    pub reentrant: Arc<ReentrantTypes>,
    /// By type, how its sends are tried again.
    pub send_retry: Arc<BTreeMap<String, SendRetry>>,
    pub router: Arc<Router>,
    pub routes: watch::Receiver<Arc<Routes>>,
    pub cache: Arc<RowCache>,
    pub load: Arc<NodeLoad>,
    pub handler_threads: HandlerThreads,
    pub fail_points: FailPoints,
    pub tasks: Tasks,
}

/// What the owner hears from its own region's tasks. The queue has no bound of its own: every event
/// stands for a turn, a read or a check that the owner started, and those are bounded.
pub enum Event {
    TurnEnded { leadership: u64, agent: AgentRef, number: TurnNumber, end: TurnEnd },
    RecordWanted { leadership: u64, agent: AgentRef, number: TurnNumber, recorded: oneshot::Sender<()> },
    Ready { leadership: u64, result: Result<Backlog, ReadyError> },
    Delivered { leadership: u64, lane: LaneKey, again: bool, delivery: Result<Delivery, RowsError> },
    SettleLetter { op: SettleDeadLetter, settled: oneshot::Sender<bool> },
    CancelSchedule { op: CancelSchedule, cancelled: oneshot::Sender<bool> },
    ReadsChecked { leadership: u64, reads: Vec<Admission>, result: Result<(), WriteError> },
    ReadEnded { leadership: u64, number: TurnNumber, waited: Duration, retry: Option<Admission> },
    Inspect { agent: AgentRef, activity: oneshot::Sender<Activity> },
    Find { id: MessageId, method: String, wait: Option<Waiter>, found: oneshot::Sender<Option<Known>> },
    Measure { measures: oneshot::Sender<Measures> },
    ListBlocked { agent_type: String, limit: usize, blocked: oneshot::Sender<ListBlockedAgentsResponse> },
    Drain,
}

pub struct TurnEnd {
    /// For a thread, before it started.
    pub waited: Duration,
    pub ended: Instant,
    pub result: Result<TurnOutput, RunFailure>,
}

/// Lets a turn have its message recorded before its first call leaves.
pub struct RecordTurn {
    pub(super) leadership: u64,
    pub(super) agent: AgentRef,
    pub(super) number: TurnNumber,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl RecordTurn {
    /// Returns once the message stands in the mailbox; never, if the lead is lost before: the turn is
    /// then dropped as it waits here.
    pub async fn recorded(&self) {
        let (recorded, waiting) = oneshot::channel();
        let event = Event::RecordWanted {
            leadership: self.leadership,
            agent: self.agent.clone(),
            number: self.number,
            recorded,
        };
        if self.events.send(event).is_err() || waiting.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What the node reports of a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionStatus {
    pub lead: Lead,
    pub ready: bool,
    pub agents_active: u64,
}

/// Talks to a region's owner. Cheap to clone.
#[derive(Clone)]
pub struct RegionHandle {
    pub replica: RegionReplica,
    admissions: Doors,
    pub(super) events: mpsc::UnboundedSender<Event>,
    status: watch::Receiver<RegionStatus>,
}

impl RegionHandle {
    /// Hands a message to the owner; its answer goes where the message says.
    pub fn admit(&self, admission: Admission) {
        match self.admissions.try_send(admission) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(admission)) => {
                admission.reply_to.refuse(overloaded("the region's queue of arriving messages is full"));
            }
            Err(mpsc::error::TrySendError::Closed(admission)) => {
                admission
                    .reply_to
                    .refuse(GridError::new(Reason::StaleRoute, "the region has left this node"));
            }
        }
    }

    pub fn status(&self) -> RegionStatus {
        *self.status.borrow()
    }

    /// What an agent is doing, and what waits for it; none if this replica does not lead.
    pub async fn activity(&self, agent: AgentRef) -> Option<Activity> {
        let (activity, waiting) = oneshot::channel();
        let _ = self.events.send(Event::Inspect { agent, activity });
        waiting.await.ok()
    }

    /// Agents that wait for others, see [`Owner::blocked_agents`]; none if this replica does not lead.
    pub async fn blocked_agents(
        &self,
        agent_type: String,
        limit: usize,
    ) -> Option<ListBlockedAgentsResponse> {
        let (blocked, waiting) = oneshot::channel();
        let _ = self.events.send(Event::ListBlocked { agent_type, limit, blocked });
        waiting.await.ok()
    }

    /// Carries out what a person decided about a dead letter; whether this decision settled it, and not an earlier
    /// one. None if the lead was lost before that was known.
    pub async fn settle_letter(&self, op: SettleDeadLetter) -> Option<bool> {
        let (settled, waiting) = oneshot::channel();
        let _ = self.events.send(Event::SettleLetter { op, settled });
        waiting.await.ok()
    }

    /// Cancels a schedule; whether it was there. None if the lead was lost before that was known.
    pub async fn cancel_schedule(&self, op: CancelSchedule) -> Option<bool> {
        let (cancelled, waiting) = oneshot::channel();
        let _ = self.events.send(Event::CancelSchedule { op, cancelled });
        waiting.await.ok()
    }

    /// From now on messages are sent elsewhere; what was admitted is finished.
    pub fn drain(&self) {
        let _ = self.events.send(Event::Drain);
    }
}

pub fn overloaded(what: &str) -> GridError {
    GridError::new(Reason::Overloaded, format!("{what}; try again later")).retry_after_ms(50)
}

/// Starts the owner of a replica's region.
pub fn start(region: RegionId, replica: RegionReplica, surroundings: Surroundings) -> RegionHandle {
    let (admissions, arrivals) = Arrivals::new();
    let (events, happening) = mpsc::unbounded_channel();
    let (status, status_seen) = watch::channel(RegionStatus::default());
    let handle =
        RegionHandle { replica: replica.clone(), admissions, events: events.clone(), status: status_seen };
    let tasks = surroundings.tasks.clone();
    let owner = Owner {
        region,
        replica,
        here: surroundings,
        slots: Vec::new(),
        events,
        status,
        leading: None,
        draining: false,
        leaderships: 0,
        storage_behind: false,
        woke: Instant::now(),
    };
    tasks.spawn("region-owner", OnEnd::PanicStopsServer, owner.run(arrivals, happening));
    handle
}

pub struct Owner {
    pub(super) region: RegionId,
    pub(super) replica: RegionReplica,
    pub(super) here: Surroundings,
    /// The region's own, as last heard; empty until then.
    pub(super) slots: Vec<SlotRange>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    status: watch::Sender<RegionStatus>,
    pub(super) leading: Option<Leading>,
    pub(super) draining: bool,
    /// Leaderships begun by this owner: tells what belongs to the current one from what came late.
    leaderships: u64,
    /// The node's storage is behind: nothing more is admitted until checkpoints have caught up.
    pub(super) storage_behind: bool,
    /// When it last began to look at what has happened.
    pub(super) woke: Instant,
}

/// One thing that happened, whatever its source. It is looked at once and never kept, so its size is no matter.
#[allow(clippy::large_enum_variant)]
enum Happened {
    Admissions,
    Event(Event),
    Entry(Result<Outcome, WriteError>, Vec<Pending>),
    Lead,
    Tick,
    Look,
    Due,
    Closed,
}

impl Owner {
    async fn run(mut self, mut arrivals: Arrivals, mut happening: mpsc::UnboundedReceiver<Event>) {
        let mut lead = self.replica.lead();
        let mut ticks = tokio::time::interval(HOUSEKEEPING);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks = tokio::time::interval(rings::LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        lead.mark_changed();
        self.read_slots();
        loop {
            let until_due = self.until_due();
            let happened = tokio::select! {
                biased;
                changed = lead.changed() => if changed.is_ok() { Happened::Lead } else { Happened::Closed },
                Some((result, ops)) = next_entry(&mut self.leading) => Happened::Entry(result, ops),
                // Before the messages, which may never end.
                _ = ticks.tick() => Happened::Tick,
                _ = looks.tick() => Happened::Look,
                () = sleep_for(until_due) => Happened::Due,
                Some(event) = happening.recv() => Happened::Event(event),
                some = arrivals.arrived() => if some { Happened::Admissions } else { Happened::Closed },
            };
            self.woke = Instant::now();
            arrivals.gather();
            // A dropped catalog client leaves the routes as they are.
            if self.here.routes.has_changed().unwrap_or(false) {
                self.read_slots();
            }
            match happened {
                Happened::Lead => {
                    let now = *lead.borrow_and_update();
                    self.lead_changed(now);
                }
                Happened::Entry(result, ops) => self.entry_ended(result, ops),
                Happened::Event(event) => {
                    self.handle(event);
                    // Turns that end about now share the next entry.
                    if self.leading.as_ref().is_some_and(|leading| leading.proposed.is_empty()) {
                        gather().await;
                    }
                    self.handle_what_waits(&mut happening);
                }
                // All handles are gone: the region has left the node.
                Happened::Closed => return,
                Happened::Admissions => {
                    for _ in 0..EVENTS_AT_ONCE {
                        let Some(admission) = arrivals.next() else { break };
                        self.admit(admission);
                    }
                    self.await_quick_turns(&mut happening).await;
                }
                Happened::Tick => self.keep_house(),
                Happened::Look => {
                    self.look_for_reentries();
                    self.look_for_rings();
                    self.look_for_abandoned();
                }
                Happened::Due => {}
            }
            let now = Instant::now();
            if self.leading.as_ref().and_then(|leading| leading.until_accepted(now)) == Some(Duration::ZERO) {
                // Turns that have ended meanwhile have not taken too long.
                self.handle_what_waits(&mut happening);
            }
            if let Some(leading) = self.leading.as_mut() {
                leading.load.look_at_pace(now);
                leading.window.look(now);
                leading.accept_what_runs_on(now);
            }
            self.fire_due();
            self.start_lanes();
            self.check_reads();
            self.propose();
            self.report(*lead.borrow());
        }
    }

    /// The turn of an agent's send that ends at once goes into the next entry together with the send.
    async fn await_quick_turns(&mut self, happening: &mut mpsc::UnboundedReceiver<Event>) {
        let is_acceptance = |op: &Pending| matches!(op, Pending::Accept { .. });
        let may_propose = |leading: &&Leading| leading.may_propose() && leading.window.room() > 0;
        let leading = self.leading.as_ref().filter(may_propose);
        if leading.is_some_and(|leading| leading.pending.iter().any(is_acceptance)) {
            gather().await;
            self.handle_what_waits(happening);
        }
    }

    fn handle_what_waits(&mut self, happening: &mut mpsc::UnboundedReceiver<Event>) {
        for _ in 1..EVENTS_AT_ONCE {
            let Ok(event) = happening.try_recv() else { break };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::TurnEnded { leadership, agent, number, end: TurnEnd { waited, ended, result } } => {
                if let Some(leading) = self.leading.as_mut() {
                    let unheard = ended.elapsed();
                    leading.window.waited(self.woke.saturating_duration_since(ended));
                    leading.load.waited(agent.agent_type(), Hop::Turn, waited + unheard);
                }
                self.turn_ended(leadership, &agent, number, result)
            }
            Event::RecordWanted { leadership, agent, number, recorded } => {
                self.record(leadership, agent, number, recorded)
            }
            Event::Ready { leadership, result } => self.ready(leadership, result),
            Event::Delivered { leadership, lane, again, delivery } => {
                self.delivered(leadership, lane, again, delivery)
            }
            Event::SettleLetter { op, settled } => {
                // Whoever waits hears that nothing was done if this replica does not lead.
                self.settle_letter(op, settled);
            }
            Event::CancelSchedule { op, cancelled } => self.cancel_schedule(op, cancelled),
            Event::ReadsChecked { leadership, reads, result } => {
                self.reads_checked(leadership, reads, result)
            }
            Event::ReadEnded { leadership, number, waited, retry } => {
                self.read_ended(leadership, number, waited, retry)
            }
            // Whoever asks hears nothing if this replica does not lead, and asks the one that does.
            Event::Inspect { agent, activity } => {
                if let Some(doing) = self.activity_of(&agent) {
                    let _ = activity.send(doing);
                }
            }
            Event::Find { id, method, wait, found } => {
                if let Some(known) = self.find(id, &method, wait) {
                    let _ = found.send(known);
                }
            }
            Event::Measure { measures } => {
                if let Some(measured) = self.measure() {
                    let _ = measures.send(measured);
                }
            }
            Event::ListBlocked { agent_type, limit, blocked } => {
                if let Some(agents) = self.blocked_agents(&agent_type, limit) {
                    let _ = blocked.send(agents);
                }
            }
            Event::Drain => self.draining = true,
        }
    }

    fn report(&self, lead: Lead) {
        let leading = self.leading.as_ref();
        let status = RegionStatus {
            lead,
            ready: leading.is_some_and(|leading| leading.ready),
            agents_active: leading.map_or(0, |leading| leading.agents.len() as u64),
        };
        self.status.send_if_modified(|seen| std::mem::replace(seen, status) != status);
    }

    fn lead_changed(&mut self, lead: Lead) {
        let led = self.leading.as_ref().map(|leading| leading.term);
        if lead.is_mine && led == Some(lead.term) {
            return;
        }
        if led.is_some() {
            self.lose_lead("the region's lead moved away");
        }
        if lead.is_mine {
            self.begin_lead(lead.term);
        }
    }

    /// Starts over in `term`: puts an empty first entry of a new leadership into the log and waits for it.
    /// By then everything that came before it is applied, and nothing of an earlier leadership that
    /// comes after it will be let in: what is read from the rows then is what the turns may run on.
    pub(super) fn begin_lead(&mut self, term: u64) {
        self.leaderships += 1;
        let leadership = self.leaderships;
        tracing::debug!(region = %self.region, term, leadership, "this node begins to lead");
        let load = Load::new(Arc::clone(&self.here.load), &self.here.routes.borrow());
        self.leading = Some(Leading::new(term, leadership, load));
        let (replica, events) = (self.replica.clone(), self.events.clone());
        let threads = Arc::clone(&self.here.world.threads);
        self.here.tasks.spawn("begin-lead", OnEnd::PanicStopsServer, async move {
            let result = begin(replica, threads, term, leadership).await;
            if result.is_err() {
                // Asked again at once it would be in a loop.
                tokio::time::sleep(BEGIN_AGAIN).await;
            }
            let _ = events.send(Event::Ready { leadership, result });
        });
    }

    fn ready(&mut self, leadership: u64, result: Result<Backlog, ReadyError>) {
        let current = |leading: &&mut Leading| leading.leadership == leadership && !leading.ready;
        let Some(leading) = self.leading.as_mut().filter(current) else { return };
        match result {
            Ok(Backlog { recorded, inbox, outbox, schedules, dead_letters }) => {
                leading.ready = true;
                leading.dead_letters = dead_letters;
                leading.early_bytes = 0;
                let early = std::mem::take(&mut leading.early);
                // Turns that may have touched others come first, before anything else of their agents.
                self.take_over_inbox(recorded, inbox);
                self.take_over_outbox(outbox);
                self.take_over_schedules(schedules);
                early.into_iter().for_each(|admission| self.admit(admission));
            }
            Err(ReadyError::Rows(error)) => self.storage_failed(&error.to_string()),
            Err(ReadyError::Write(WriteError::Stopped(_))) => self.lose_lead("the replica has stopped"),
            // A majority did not answer in time: it is asked again as long as this replica is taken for
            // the leader.
            Err(ReadyError::Write(_)) => {
                let (term, early) = (leading.term, std::mem::take(&mut leading.early));
                let early_bytes = leading.early_bytes;
                let lead = *self.replica.lead().borrow();
                if !lead.is_mine || lead.term != term {
                    leading.early = early;
                    return self.lose_lead("the region's lead moved away");
                }
                self.begin_lead(term);
                if let Some(leading) = self.leading.as_mut() {
                    leading.early = early;
                    leading.early_bytes = early_bytes;
                }
            }
        }
    }

    /// Forgets everything that was not committed. Who waits for a message that was never run is sent
    /// elsewhere; who waits for one that was run is told that its outcome is not known.
    pub(super) fn lose_lead(&mut self, why: &str) {
        let Some(mut leading) = self.leading.take() else { return };
        tracing::debug!(region = %self.region, term = leading.term, why, "this node leads no more");
        let mut never_run = BTreeSet::new();
        for state in leading.agents.values() {
            let held = state.held.values().flatten();
            let entering = state.entering.iter().flat_map(|entering| &entering.waiting);
            let waiting = state.queue.iter().chain(held).chain(entering);
            never_run.extend(waiting.map(|message| message.message_id));
        }
        let hint = self.leader_hint();
        for (id, waiters) in std::mem::take(&mut leading.waiters) {
            let proposed = waiters.acceptance == Acceptance::Proposed;
            let replies = waiters.replies.into_iter().map(|waiter| waiter.reply_to);
            for reply_to in replies.chain(waiters.senders) {
                if never_run.contains(&id) && !proposed {
                    reply_to.refuse_not_leader(GridError::new(Reason::NotLeader, why), hint);
                } else {
                    let text = format!("{why} before the turn's effects were known to be committed");
                    reply_to.refuse_not_leader(GridError::new(Reason::OutcomeUnknown, text), hint);
                }
            }
        }
        let waiting = leading.load.take_reads();
        for admission in leading.early.into_iter().chain(leading.reads).chain(waiting) {
            admission.reply_to.refuse_not_leader(GridError::new(Reason::NotLeader, why), hint);
        }
    }

    /// Starts over without losing the lead: what was not committed can't be relied on any more.
    pub(super) fn start_over(&mut self, why: &str) {
        let term = self.leading.as_ref().map(|leading| leading.term);
        self.lose_lead(why);
        let lead = *self.replica.lead().borrow();
        if lead.is_mine && term == Some(lead.term) {
            self.begin_lead(lead.term);
        }
    }

    /// The replica's rows can't be read: nothing more may be served from this node.
    pub(super) fn storage_failed(&mut self, why: &str) {
        tracing::error!(region = %self.region, why, "stored rows can't be read");
        self.here.tasks.fail(format!("region {}: {why}", self.region));
        self.lose_lead("this node's storage failed");
    }

    pub(super) fn leader_hint(&self) -> Option<NodeId> {
        self.replica.lead().borrow().leader.map(NodeId).filter(|leader| *leader != self.here.node)
    }

    fn read_slots(&mut self) {
        let routes = self.here.routes.borrow_and_update();
        if let Some(region) = routes.regions.get(&self.region) {
            self.slots.clone_from(&region.slots);
        }
        let Some(leading) = self.leading.as_mut() else { return };
        leading.load.set_limits(&routes);
        let waiting = leading.load.with_waiting();
        drop(routes);
        // There may be more places now.
        waiting.iter().for_each(|agent_type| self.give_places(agent_type));
    }

    pub(super) fn agent_rows(&self, agent: &AgentRef) -> AgentRows {
        AgentRows {
            region: self.region,
            agent: agent.clone(),
            rows: Arc::clone(self.replica.rows()),
            cache: Arc::clone(&self.here.cache),
        }
    }

    /// Seconds since the epoch until which an id is kept that takes effect now.
    pub(super) fn kept_until_s(&self, id: MessageId) -> u64 {
        let kept_s = (self.here.world.clock.now_ms() + id.kept_ms() + 2 * limits::CLOCK_SKEW_MS_MAX) / 1_000;
        match id.kind() {
            MessageIdKind::Router => kept_s,
            _ => kept_s + KEEP_STEP_S,
        }
    }
}

/// Ends after `duration`; never without one.
async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// The next entry whose outcome is known; never, while none is under way.
async fn next_entry(leading: &mut Option<Leading>) -> Option<(Result<Outcome, WriteError>, Vec<Pending>)> {
    match leading {
        Some(leading) if !leading.proposed.is_empty() => leading.proposed.next().await,
        _ => std::future::pending().await,
    }
}
