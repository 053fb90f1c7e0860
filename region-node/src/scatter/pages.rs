//! Calls the agents that the walk finds, and gathers what becomes of it in pages.

use super::walk::{Found, Wanted};
use crate::{
    inspect::{not_leader, storage},
    region::{Admission, Outgoing, RegionHandle, ReplyTo, Surroundings},
};
use afdg_proto::{
    pb::internal::{Outcome, ScatterOutcome, ScatterResponse, outcome},
    status::grid_error_from_wire,
};
use afdg_types::{
    AgentRef, GridError, MessageId, Purpose, Reason, Retry,
    limits::{SCATTER_PAGE_BYTES_TARGET, SCATTER_PAGE_OUTCOMES_MAX, SCATTER_WINDOW_AGENTS_MAX},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

/// Agents that the walk finds at once.
const FOUND_MAX: usize = 512;
/// Rows that it looks at for them.
const LOOKS_MAX: usize = 4_096;
/// Whoever waits for a page hears this often that there will be one.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_millis(500);
/// How long it may take to make sure that this replica still leads.
const LEAD_CHECK_TIME_MAX: Duration = Duration::from_secs(1);
/// How often an agent is called that could not take the message, or whose outcome is not known, before that is
/// its outcome.
const CALLS_MAX: u32 = 20;
/// Pause before it is called again, the first time; it doubles from then on.
const PAUSE_MS_MIN: u64 = 20;
/// Longest such pause.
const PAUSE_MS_MAX: u64 = 1_000;

/// The message that each agent gets.
pub struct Calls {
    pub method: String,
    pub request: Bytes,
    /// 0 means none.
    pub key_field: u32,
    pub idempotency_key: String,
    pub deadline: Instant,
    pub purpose: Purpose,
}

/// A walk over the region's agents on its way.
pub struct Pages {
    handle: RegionHandle,
    here: Surroundings,
    calls: Calls,
    wanted: Arc<Wanted>,
    /// Where the walk goes on; none at its end.
    from: Option<Vec<u8>>,
    /// Found, and not called yet.
    found: VecDeque<AgentRef>,
    /// Called, from the first that is not done on, in the order of the walk.
    window: VecDeque<Called>,
    /// Number of the window's first.
    first: u64,
    /// Key of the agent before the window: all are done up to it.
    after: String,
    outcomes: mpsc::UnboundedSender<Outgoing>,
    /// No more than are called at the same time: each holds a place.
    arriving: mpsc::UnboundedReceiver<Outgoing>,
    places: Arc<Semaphore>,
    parallel: usize,
    in_flight: usize,
    /// An outcome that found no room in the last page.
    held: Option<Outgoing>,
    /// Agents that are called again, by when. They count among those in flight.
    again: BTreeSet<(Instant, u64)>,
    last_sign: Instant,
    ended: Option<GridError>,
}

struct Called {
    agent: AgentRef,
    calls: u32,
    done: bool,
}

/// What happened while a page was waited for.
enum Heard {
    Outcome(Outgoing),
    CallAgain,
    SignOfLife,
    LeadLost,
    DeadlinePassed,
}

impl Pages {
    pub fn new(
        handle: RegionHandle,
        here: Surroundings,
        calls: Calls,
        wanted: Wanted,
        after: Option<AgentRef>,
        parallel: usize,
    ) -> Self {
        let (outcomes, arriving) = mpsc::unbounded_channel();
        Self {
            handle,
            here,
            calls,
            from: wanted.start(after.as_ref()),
            wanted: Arc::new(wanted),
            found: VecDeque::new(),
            window: VecDeque::new(),
            first: 0,
            after: after.map(|agent| agent.key().to_owned()).unwrap_or_default(),
            outcomes,
            arriving,
            places: Arc::new(Semaphore::new(parallel)),
            parallel,
            in_flight: 0,
            held: None,
            again: BTreeSet::new(),
            last_sign: Instant::now(),
            ended: None,
        }
    }

    /// One page for each item of `asked`. `place` is given back at the end.
    pub fn stream(
        self,
        asked: impl Stream<Item = ()> + Send + Unpin,
        place: OwnedSemaphorePermit,
    ) -> impl Stream<Item = Result<ScatterResponse, GridError>> + Send {
        let state = Some((self, asked, place, false));
        futures::stream::unfold(state, |state| async move {
            let (mut pages, mut asked, place, owed) = state?;
            if !owed {
                asked.next().await?;
                pages.last_sign = Instant::now();
            }
            match pages.next().await {
                Some(Ok(page)) => {
                    let owed = page.outcomes.is_empty();
                    Some((Ok(page), Some((pages, asked, place, owed))))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        })
    }

    /// The next outcomes, as soon as there are any; none at all as a sign of life; nothing at the end.
    async fn next(&mut self) -> Option<Result<ScatterResponse, GridError>> {
        loop {
            if let Some(error) = self.ended.take() {
                return Some(Err(error));
            }
            if let Err(error) = self.fill().await {
                return Some(Err(error));
            }
            if self.in_flight == 0 && self.found.is_empty() && self.from.is_none() {
                return None;
            }
            let heard = match self.held.take() {
                Some(held) => Heard::Outcome(held),
                None => self.hear().await,
            };
            match heard {
                Heard::Outcome(outgoing) => {
                    // What is ready by now goes along.
                    afdg_runtime::gather().await;
                    let outcomes = self.gather(outgoing);
                    if !outcomes.is_empty() {
                        // The next ones are under way while this page is.
                        if self.ended.is_none() {
                            self.call_found();
                        }
                        return Some(Ok(self.page(outcomes)));
                    }
                }
                Heard::CallAgain => self.call_again(),
                Heard::SignOfLife if self.leads().await => return Some(Ok(self.page(Vec::new()))),
                Heard::SignOfLife => return Some(Err(not_leader())),
                Heard::LeadLost => return Some(Err(not_leader())),
                Heard::DeadlinePassed => {
                    let text = "the time for all agents was over before all were done";
                    return Some(Err(GridError::new(Reason::DeadlineOutcomeUnknown, text)));
                }
            }
        }
    }

    /// Makes sure of it: a leader that is cut off from the others may take itself for one for long, and nothing
    /// that it has admitted comes to an end.
    async fn leads(&self) -> bool {
        let checked = tokio::time::timeout(LEAD_CHECK_TIME_MAX, self.handle.replica.linearize()).await;
        checked.is_ok_and(|leads| leads.is_ok())
    }

    fn page(&mut self, outcomes: Vec<ScatterOutcome>) -> ScatterResponse {
        self.last_sign = Instant::now();
        ScatterResponse { outcomes, after: self.after.clone() }
    }

    async fn hear(&mut self) -> Heard {
        if self.in_flight == 0 {
            // The walk has found nothing yet and goes on at once.
            let due = self.last_sign.elapsed() >= SIGN_OF_LIFE_EVERY;
            return if due { Heard::SignOfLife } else { Heard::CallAgain };
        }
        let call_again = self.again.first().map(|(at, _)| *at);
        let mut lead = self.handle.replica.lead();
        let lead_lost = lead.wait_for(|lead| !lead.is_mine);
        tokio::select! {
            biased;
            Some(outgoing) = self.arriving.recv() => Heard::Outcome(outgoing),
            () = until(call_again) => Heard::CallAgain,
            _ = lead_lost => Heard::LeadLost,
            () = tokio::time::sleep_until(self.calls.deadline) => Heard::DeadlinePassed,
            () = tokio::time::sleep_until(self.last_sign + SIGN_OF_LIFE_EVERY) => Heard::SignOfLife,
        }
    }

    /// Finds and calls more agents, as far as there is room. If it finds none for now there may be more yet.
    async fn fill(&mut self) -> Result<(), GridError> {
        self.call_found();
        while self.has_room() {
            let Some(from) = self.from.take() else { return Ok(()) };
            self.look(from).await?;
            if self.found.is_empty() {
                return Ok(());
            }
            self.call_found();
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.in_flight < self.parallel && self.window.len() < SCATTER_WINDOW_AGENTS_MAX
    }

    fn call_found(&mut self) {
        while self.has_room() {
            let Some(agent) = self.found.pop_front() else { return };
            let number = self.first + self.window.len() as u64;
            self.window.push_back(Called { agent, calls: 0, done: false });
            self.in_flight += 1;
            self.call(number);
        }
    }

    async fn look(&mut self, from: Vec<u8>) -> Result<(), GridError> {
        self.handle.replica.linearize().await.map_err(|_| not_leader())?;
        let (wanted, rows) = (Arc::clone(&self.wanted), Arc::clone(self.handle.replica.rows()));
        let look = move || wanted.page(rows.as_ref(), from, FOUND_MAX, LOOKS_MAX);
        let looked = afdg_runtime::blocking(&self.here.world.threads, look).await;
        let looked = looked.map_err(storage)?;
        let Found { agents, next } = looked.map_err(storage)?;
        self.found = agents.into();
        self.from = next;
        Ok(())
    }

    /// Hands the message to the owner, for the agent of that number.
    fn call(&mut self, number: u64) {
        let Some(called) = self.window.get_mut((number - self.first) as usize) else { return };
        called.calls += 1;
        // One for each in flight: there is always one free.
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let calls = &self.calls;
        self.handle.admit(Admission {
            agent: called.agent.clone(),
            method: calls.method.clone(),
            message_id: MessageId::from_idempotency_key(&called.agent, &calls.idempotency_key),
            request: with_key(&calls.request, calls.key_field, called.agent.key()),
            deadline: Some(calls.deadline),
            chain: Vec::new(),
            reentries: Vec::new(),
            caller: 0,
            purpose: calls.purpose.clone(),
            arrived: Instant::now(),
            reply_to: ReplyTo::new(number, self.outcomes.clone(), place),
        });
    }

    fn call_again(&mut self) {
        let now = Instant::now();
        while let Some((_, number)) = self.again.first().copied().filter(|(at, _)| *at <= now) {
            self.again.pop_first();
            self.call(number);
        }
    }

    /// The outcomes that are there, up to the bounds of a page.
    fn gather(&mut self, first: Outgoing) -> Vec<ScatterOutcome> {
        let (mut outcomes, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(outgoing) = next {
            let length = outgoing.outcome.encoded_len();
            if !outcomes.is_empty() && bytes + length > SCATTER_PAGE_BYTES_TARGET {
                self.held = Some(outgoing);
                break;
            }
            if let Some(outcome) = self.settle(outgoing) {
                bytes += length + outcome.key.len();
                outcomes.push(outcome);
            }
            let full = outcomes.len() >= SCATTER_PAGE_OUTCOMES_MAX || self.ended.is_some();
            next = if full { None } else { self.arriving.try_recv().ok() };
        }
        outcomes
    }

    /// What became of one call: the agent's outcome, if it is one that stays.
    fn settle(&mut self, outgoing: Outgoing) -> Option<ScatterOutcome> {
        let Outgoing { outcome, place } = outgoing;
        drop(place);
        let (number, result) = (outcome.request_id, outcome.result?);
        let index = (number - self.first) as usize;
        if let outcome::Result::GridError(error) = &result {
            let error = grid_error_from_wire(error.clone());
            let calls = self.window.get(index)?.calls;
            let leads = self.handle.status().lead.is_mine && error.reason != Reason::Draining;
            let is_final = error.retry() == Retry::Never || (leads && calls >= CALLS_MAX);
            if !is_final && (!leads || error.reason == Reason::DeadlineExceeded) {
                // Whoever leads next can tell what became of it.
                self.ended = Some(error);
                return None;
            }
            if !is_final {
                self.again.insert((Instant::now() + pause(calls), number));
                return None;
            }
        }
        self.in_flight -= 1;
        let called = self.window.get_mut(index)?;
        called.done = true;
        let key = called.agent.key().to_owned();
        while self.window.front().is_some_and(|called| called.done) {
            let Some(done) = self.window.pop_front() else { break };
            self.first += 1;
            done.agent.key().clone_into(&mut self.after);
        }
        Some(ScatterOutcome { key, outcome: Some(Outcome { request_id: 0, result: Some(result) }) })
    }
}

/// Ends at that time; never without one.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn pause(calls: u32) -> Duration {
    let doubled = PAUSE_MS_MIN << calls.saturating_sub(1).min(16);
    Duration::from_millis(doubled.min(PAUSE_MS_MAX))
}

/// The request with the agent's key in its field, as `Grid/Call` puts it there: the message under the same
/// idempotency key is the same.
fn with_key(request: &Bytes, key_field: u32, key: &str) -> Bytes {
    if key_field == 0 {
        return request.clone();
    }
    afdg_proto::key_field::put(request, key_field, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stands_where_a_caller_puts_it() {
        let request = Bytes::from_static(b"\x10\x05");
        assert_eq!(with_key(&request, 0, "alice"), request);
        assert_eq!(with_key(&request, 1, "alice").as_ref(), b"\x0a\x05alice\x10\x05");
        assert_eq!(with_key(&request, 300, "a").as_ref(), b"\x10\x05\xe2\x12\x01a");
    }

    #[test]
    fn pauses_double_to_a_bound() {
        let pauses: Vec<_> = (1..=8).map(|calls| pause(calls).as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1_000, 1_000]);
        assert_eq!(pause(u32::MAX), Duration::from_secs(1));
    }
}
