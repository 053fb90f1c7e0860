//! One message's way through the retry loop.

use crate::{
    OutgoingMessage,
    attempts::Attempts,
    backoff::Backoff,
    itinerary::Itinerary,
    router::Inner,
    table::{Region, Table},
    verdict::{self, Again, How, Verdict},
};
use afdg_region_client::{Answer, ForwardError, ForwardResult};
use afdg_types::{
    CallError, GridError, NodeId, Purpose, Reason,
    planted::{Bug, planted},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// An attempt that is not answered by then is left open and another replica is asked, since a node that
/// is frozen keeps its connections for seconds.
const ATTEMPT_MS_MAX: u64 = 1_500;
/// How long a message waits for the table that a node knew to be newer.
const NEWER_ROUTE_MS_MAX: u64 = 250;

pub(crate) struct Journey<'a> {
    router: &'a Inner,
    message: &'a OutgoingMessage,
    /// Under which it waits where the message arrives; 0 if that is not told when it goes.
    caller: u64,
    table: Arc<Table>,
    /// The message is given up then. Past the bound of a recorded turn if the caller named none.
    deadline: Instant,
    attempts: Attempts,
    itinerary: Itinerary,
    backoff: Backoff,
    /// It has a place in its type's rate, for all attempts until the region refuses it one.
    has_place: bool,
    /// An attempt that is no longer open may have been delivered.
    maybe_delivered: bool,
    last_error: Option<GridError>,
}

/// What the loop does next.
enum Next {
    /// Wait for an open attempt until then, and go on.
    Wait(Instant),
    /// A result is there already.
    Result(NodeId, ForwardResult),
}

impl<'a> Journey<'a> {
    pub(crate) fn new(
        router: &'a Inner,
        message: &'a OutgoingMessage,
        caller: u64,
        table: Arc<Table>,
        deadline: Instant,
    ) -> Self {
        Self {
            router,
            message,
            caller,
            table,
            deadline,
            attempts: Attempts::default(),
            itinerary: Itinerary::default(),
            backoff: Backoff::default(),
            has_place: false,
            maybe_delivered: false,
            last_error: None,
        }
    }

    /// Forwards until there is an answer for the caller.
    pub(crate) async fn forward(mut self) -> Result<Bytes, CallError> {
        let mut pause = None;
        loop {
            let next = pause.take().map_or_else(|| self.attempt(), Next::Wait);
            let (node, result) = match next {
                Next::Result(node, result) => (node, result),
                Next::Wait(until) => match self.attempts.next(until.min(self.deadline)).await {
                    Some((node, result)) => {
                        self.learn_rate(&result);
                        (node, result)
                    }
                    None if Instant::now() >= self.deadline => return self.deadline_passed(),
                    // The pause is over, or the attempt is left open and another one begins.
                    None => continue,
                },
            };
            match verdict::of(result) {
                Verdict::Done(Err(CallError::Grid(error)))
                    if self.may_be_delivered() && verdict::is_of_one_node(&error) =>
                {
                    let again = Again { how: How::Later, error, leader: None };
                    pause = self.adapt(node, again).await;
                }
                Verdict::Done(result) => {
                    self.learn_from(node, &result);
                    return result;
                }
                Verdict::Again(again) if self.is_for_the_caller(&again) => return Err(again.error.into()),
                Verdict::Again(again) => pause = self.adapt(node, again).await,
            }
        }
    }

    /// Starts one attempt at the next replica of this round; after the last one, a pause.
    fn attempt(&mut self) -> Next {
        let table = Arc::clone(&self.table);
        let Some(region) = table.resolve(&self.message.agent) else {
            self.last_error.get_or_insert_with(|| GridError::new(Reason::NoLeader, "the slot has no region"));
            return Next::Wait(self.end_round(None));
        };
        let open = (region.replicas.iter().enumerate())
            .filter(|(_, replica)| self.attempts.is_open(replica.node))
            .fold(0, |open, (index, _)| open | 1 << index);
        let next = self.itinerary.next(region.replicas.len(), region.leader(), open);
        let Some(replica) = next.and_then(|index| region.replicas.get(index)) else {
            return Next::Wait(self.end_round(None));
        };
        if let Err(error) = self.take_place(region) {
            return Next::Result(replica.node, Ok(Answer::GridError { error, leader: None }));
        }
        let forwarded = self.message.forwarded(region.id, table.routes.epoch, self.caller);
        match replica.client.start(forwarded) {
            Err(error) => Next::Result(replica.node, Err(error)),
            Ok(in_flight) => match self.attempts.open(replica.node, in_flight) {
                Some((node, given_up)) => Next::Result(node, given_up),
                None => Next::Wait(Instant::now() + Duration::from_millis(ATTEMPT_MS_MAX)),
            },
        }
    }

    /// Whether the region would let the message in, as far as is known here.
    fn take_place(&mut self, region: &Region) -> Result<(), GridError> {
        let agent_type = self.message.agent.agent_type();
        let has_turn = matches!(self.message.purpose, Purpose::Call | Purpose::Send(_));
        // A call of an agent that waits is let in at any rate.
        if has_turn && !self.has_place && self.message.chain.is_empty() {
            self.router.rates.check(region.id, agent_type, Instant::now())?;
            self.has_place = true;
        }
        Ok(())
    }

    fn learn_rate(&self, result: &ForwardResult) {
        if let (Ok(Answer::GridError { error, .. }), Some(region)) = (result, self.region()) {
            self.router.rates.learn(region.id, self.message.agent.agent_type(), error, Instant::now());
        }
    }

    /// When the next round begins.
    fn end_round(&mut self, retry_after_ms: Option<u64>) -> Instant {
        self.itinerary.begin_round();
        let entropy = &*self.router.entropy;
        let pause = if self.attempts.is_empty() {
            self.table = self.router.table();
            self.backoff.pause(entropy, retry_after_ms)
        } else {
            self.backoff.quiet_pause(entropy)
        };
        Instant::now() + pause
    }

    fn region(&self) -> Option<&Region> {
        self.table.resolve(&self.message.agent)
    }

    /// A result that came through the region's owner shows who leads. An error that ends the call may
    /// come from any replica, so it shows nothing.
    fn learn_from(&self, node: NodeId, result: &Result<Bytes, CallError>) {
        if let (Ok(_) | Err(CallError::Agent(_)), Some(region)) = (result, self.region()) {
            region.learn_leader(node);
        }
    }

    /// A caller with a deadline hears of an overload at once and decides by itself; but not after an
    /// attempt that may have been delivered, since the error says that nothing was.
    fn is_for_the_caller(&self, again: &Again) -> bool {
        again.how == How::Overloaded && self.message.deadline.is_some() && !self.may_be_delivered()
    }

    fn may_be_delivered(&self) -> bool {
        self.maybe_delivered || !self.attempts.is_empty()
    }

    /// Takes in what a failed attempt told. Returns until when to pause, if at all.
    async fn adapt(&mut self, node: NodeId, again: Again) -> Option<Instant> {
        if let Some(region) = self.region() {
            match again.leader {
                Some(leader) => region.learn_leader(leader),
                None if matches!(again.how, How::Elsewhere | How::Unknown) => region.forget_leader(node),
                None => {}
            }
        }
        let retry_after_ms = again.error.retry_after_ms;
        self.last_error = Some(again.error);
        match again.how {
            How::Elsewhere => None,
            How::Unknown => {
                self.maybe_delivered = true;
                None
            }
            How::NewerRoute => self.newer_route().await,
            How::Later => Some(Instant::now() + self.backoff.pause(&*self.router.entropy, retry_after_ms)),
            How::Overloaded => {
                self.has_place = false;
                let pause = self.backoff.pause(&*self.router.entropy, retry_after_ms);
                let now = Instant::now();
                // The same replica, not the next: it leads, and will have room again.
                self.itinerary.begin_round();
                Some(now + pause.max(self.router.budget.book(now)))
            }
        }
    }

    /// Goes on with a newer table if one comes soon, else with the next replica.
    async fn newer_route(&mut self) -> Option<Instant> {
        let until = Instant::now() + Duration::from_millis(NEWER_ROUTE_MS_MAX);
        let newer = self.router.newer_table(&self.table, true, until.min(self.deadline)).await;
        self.table = newer?;
        self.itinerary = Itinerary::default();
        None
    }

    fn deadline_passed(mut self) -> Result<Bytes, CallError> {
        for result in self.attempts.give_up() {
            match result {
                Err(ForwardError::NotSent(why)) => {
                    self.last_error.get_or_insert_with(|| GridError::new(Reason::Unreachable, why));
                }
                result => match verdict::of(result) {
                    Verdict::Done(result) => return result,
                    Verdict::Again(again) => {
                        self.maybe_delivered |= again.how == How::Unknown;
                        self.last_error.get_or_insert(again.error);
                    }
                },
            }
        }
        let (reason, what) = if self.maybe_delivered && !planted(Bug::UnknownToldAsNothing) {
            (Reason::DeadlineOutcomeUnknown, "may yet take effect; repeating it with the same id tells")
        } else {
            (Reason::DeadlineExceeded, "has had no effect")
        };
        let agent = &self.message.agent;
        let mut error = match &self.last_error {
            Some(last) => GridError::new(
                reason,
                format!(
                    "the deadline passed; the message to {agent} {what}. The last attempt: {}",
                    last.message
                ),
            )
            .with("last_reason", last.reason),
            None => GridError::new(reason, format!("the deadline passed; the message to {agent} {what}")),
        };
        error = error.with("message_id", self.message.id);
        Err(error.into())
    }
}
