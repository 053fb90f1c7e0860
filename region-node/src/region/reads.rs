//! Read-only turns: beside the others, on committed state, once it is certain that this replica still
//! leads. All that waits is checked at once.

use super::{
    admission::Admission,
    load::WaitsForPlace,
    owner::{Event, Owner},
    pace::Hop,
    run::{STUCK_AFTER, bounds_of, refusal_of},
};
use crate::executor::{
    self, RunFailure,
    calls::{Caller, Calls},
    overlay::{Overlay, TurnNumber},
    view::View,
};
use afdg_agent::host::Turn;
use afdg_replication::WriteError;
use afdg_types::{
    AgentRef, CallError, GridError, MessageId, Purpose, Reason, TypeLimit,
    planted::{Bug, planted},
};
use bytes::Bytes;
use futures::future::Either;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A read whose answers did not fit together, because turns of the agent were committed meanwhile, runs
/// again this often; then it takes a turn of its own among the others.
const READ_TRIES: u32 = 4;

impl Owner {
    /// Has this replica's lead checked for the reads that wait, if no check is under way.
    pub(super) fn check_reads(&mut self) {
        let Some(leading) = self.leading.as_mut() else { return };
        if leading.reads.is_empty() || leading.reads_checking {
            return;
        }
        leading.reads_checking = true;
        let reads = std::mem::take(&mut leading.reads);
        let (replica, events, leadership) = (self.replica.clone(), self.events.clone(), leading.leadership);
        tokio::spawn(async move {
            let result = replica.linearize().await;
            let _ = events.send(Event::ReadsChecked { leadership, reads, result });
        });
    }

    pub(super) fn reads_checked(
        &mut self,
        leadership: u64,
        reads: Vec<Admission>,
        result: Result<(), WriteError>,
    ) {
        let hint = self.leader_hint();
        let current = self.leading.as_mut().filter(|leading| leading.leadership == leadership);
        let (Some(leading), Ok(())) = (current, &result) else {
            for read in reads {
                if let Some(leading) =
                    self.leading.as_mut().filter(|leading| leading.leadership == leadership)
                {
                    leading.load.count_out(read.agent.agent_type(), read.request.len());
                }
                let error =
                    GridError::new(Reason::NotLeader, "this replica could not make sure that it leads");
                read.reply_to.refuse_not_leader(error, hint);
            }
            if let Some(leading) = self.leading.as_mut().filter(|leading| leading.leadership == leadership) {
                leading.reads_checking = false;
            }
            return;
        };
        leading.reads_checking = false;
        for read in reads {
            if read.purpose == Purpose::Attach {
                self.count_out_read(&read);
                self.attach_or_refuse(read);
            } else {
                self.start_read(leadership, read);
            }
        }
    }

    pub(super) fn start_read(&mut self, leadership: u64, read: Admission) {
        if read.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.count_out_read(&read);
            let error =
                GridError::new(Reason::DeadlineExceeded, "the deadline passed before the read could start");
            return read.reply_to.refuse(error);
        }
        let Some(leading) = self.leading.as_mut() else { return };
        let agent_type = read.agent.agent_type();
        if !leading.load.has_place(agent_type, read.chain.len()) {
            let agent_type = agent_type.to_owned();
            return leading.load.wait_for_place(&agent_type, WaitsForPlace::Read(Box::new(read)));
        }
        let number = leading.next_turn;
        leading.next_turn += 1;
        leading.load.turn_starts(agent_type);
        let limits = leading.load.limits_of(agent_type);
        let turn_ms_max = limits.get(TypeLimit::TurnMs);
        let rows = self.agent_rows(&read.agent);
        let overlay = self.uncommitted_for_reads(&read.agent);
        let router = Arc::clone(&self.here.router);
        let turn = Turn {
            agent: read.agent.clone(),
            method: read.method.clone(),
            message_id: read.message_id,
            parent: read.message_id,
            request: read.request.clone(),
            now_ms: self.here.world.clock.now_ms(),
            seed: self.here.world.entropy.random_u64(),
            read_only: true,
            bounds: bounds_of(&limits),
        };
        let (host, world) = (Arc::clone(&self.here.host), self.here.world.clone());
        let reentrant = Arc::clone(&self.here.reentrant);
        let threads = self.here.handler_threads.clone();
        let (events, fail_points) = (self.events.clone(), self.here.fail_points);
        let (chain, reentries) = (read.chain.clone(), read.reentries.clone());
        let (agent, bytes) = (read.agent.clone(), read.request.len());
        let waiting = WaitingRead::new(read);
        let Some(leading) = self.leading.as_mut() else { return };
        leading
            .reads_running
            .insert(number, RunningRead { agent: agent.clone(), bytes, waiting: waiting.clone() });
        let starter = leading.load.starter(agent.agent_type());
        tokio::spawn(async move {
            let waited = || starter.as_ref().map_or(Duration::ZERO, |starter| starter.waited());
            for _ in 0..READ_TRIES {
                // Another try may call others with other requests: its calls get ids of their own.
                let parent = MessageId::from_router(turn.now_ms, world.entropy.random_u128());
                let caller = Caller {
                    agent: turn.agent.clone(),
                    message_id: turn.message_id,
                    parent,
                    chain: chain.clone(),
                    reentries: reentries.clone(),
                    runs_again: false,
                    is_inner: false,
                    fail_points,
                };
                waiting.begins();
                let calls = Calls::new(caller, Arc::clone(&router), Arc::clone(&reentrant), None);
                let view = Arc::new(match &overlay {
                    None => View::of_read(rows.clone(), calls),
                    Some(overlay) => View::of_turn(rows.clone(), overlay.clone(), calls),
                });
                let begun = starter.clone();
                let run = executor::run(
                    &threads,
                    Arc::clone(&host),
                    turn.clone(),
                    Arc::clone(&view),
                    turn_ms_max,
                    move || begun.map(|begun| begun.start()),
                    || true,
                );
                let result = run.await;
                let answer = match view.reads_fit_together() {
                    Ok(true) => answer_of(result),
                    Ok(false) => continue,
                    Err(failure) => answer_of(Err(RunFailure::Turn(failure))),
                };
                // Who was given up has heard so.
                if let Some(read) = waiting.take() {
                    read.reply_to.reply(answer);
                }
                let _ = events.send(Event::ReadEnded { leadership, number, waited: waited(), retry: None });
                return;
            }
            let retry = waiting.take();
            let _ = events.send(Event::ReadEnded { leadership, number, waited: waited(), retry });
        });
    }

    /// What a read may see of what is not committed: nothing.
    fn uncommitted_for_reads(&self, agent: &AgentRef) -> Option<Overlay> {
        let state = self.leading.as_ref().and_then(|leading| leading.agents.get(agent));
        state.filter(|_| planted(Bug::ReadUncommitted)).map(|state| state.overlay.clone())
    }

    pub(super) fn read_ended(
        &mut self,
        leadership: u64,
        number: TurnNumber,
        waited: Duration,
        retry: Option<Admission>,
    ) {
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.leadership == leadership)
            && let Some(RunningRead { agent, bytes, .. }) = leading.reads_running.remove(&number)
        {
            leading.load.waited(agent.agent_type(), Hop::Turn, waited);
            leading.load.turn_ends(agent.agent_type());
            leading.load.count_out(agent.agent_type(), bytes);
            self.give_places(agent.agent_type());
        }
        // Among the agent's own turns nothing changes beside it.
        if let Some(read) = retry {
            self.admit_as_turn(read);
        }
    }

    /// Fails reads whose handlers keep a serving thread past their time, see [`Owner::give_up_stuck_turns`].
    pub(super) fn give_up_stuck_reads(&mut self) {
        let Some(leading) = self.leading.as_ref() else { return };
        let stuck = leading.reads_running.iter().filter_map(|(number, running)| {
            let limit_ms = leading.load.limits_of(running.agent.agent_type()).get(TypeLimit::TurnMs);
            running.waiting.take_if_stuck(limit_ms).map(|read| (*number, limit_ms, read))
        });
        let (stuck, leadership) = (stuck.collect::<Vec<_>>(), leading.leadership);
        for (number, limit_ms, read) in stuck {
            tracing::warn!(agent = %read.agent, limit_ms, "a handler computes without waiting and keeps a thread");
            read.reply_to.reply(answer_of(Err(RunFailure::TimedOut { limit_ms })));
            self.read_ended(leadership, number, Duration::ZERO, None);
        }
    }

    /// Of a read that does not run.
    fn count_out_read(&mut self, read: &Admission) {
        if let Some(leading) = self.leading.as_mut() {
            leading.load.count_out(read.agent.agent_type(), read.request.len());
        }
    }
}

/// A read that runs, as the owner sees it.
pub struct RunningRead {
    agent: AgentRef,
    /// Counted among the region's bytes in flight.
    bytes: usize,
    waiting: WaitingRead,
}

/// Who waits for a read, until somebody answers, and since when its handler runs.
#[derive(Clone)]
struct WaitingRead(Arc<Mutex<(Option<Admission>, Instant)>>);

impl WaitingRead {
    fn new(read: Admission) -> Self {
        Self(Arc::new(Mutex::new((Some(read), Instant::now()))))
    }

    fn lock(&self) -> MutexGuard<'_, (Option<Admission>, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its handler starts, or starts again.
    fn begins(&self) {
        self.lock().1 = Instant::now();
    }

    fn take(&self) -> Option<Admission> {
        self.lock().0.take()
    }

    fn take_if_stuck(&self, limit_ms: u64) -> Option<Admission> {
        let mut waiting = self.lock();
        let is_stuck = waiting.1.elapsed() > Duration::from_millis(limit_ms) + STUCK_AFTER;
        waiting.0.take_if(|_| is_stuck)
    }
}

fn answer_of(result: Result<afdg_agent::host::TurnOutput, RunFailure>) -> Result<Bytes, CallError> {
    match result {
        Ok(output) => output.reply.map_err(CallError::Agent),
        Err(failure) => Err(match refusal_of(failure) {
            Either::Left((reason, message)) => GridError::new(reason, message),
            Either::Right(storage) => {
                GridError::new(Reason::OutcomeUnknown, format!("this node's storage failed: {storage}"))
            }
        }
        .into()),
    }
}
