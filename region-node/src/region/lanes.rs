//! Sends on their sender's side: from the outbox to their receivers' regions.
//!
//! Between one sender and one receiver lies a lane, in which messages keep their order: up to
//! [`limits::LANE_IN_FLIGHT_MESSAGES_MAX`] are on their way at once, each names the one before it, and the
//! receiver's region takes none whose predecessor it does not know. What was not taken is sent again, under
//! the same ids, from the first on. Lanes do not wait for one another.

use super::{
    held::Amount,
    leading::{LaneKey, LaneState, Pending},
    owner::{Event, Owner},
};
use crate::fail_points::{Moment, Step};
use afdg_agent::host::SendRetry;
use afdg_region_machine::{
    op::{GivenUp, SettleSends},
    table::{
        outbox::{self, OutgoingSend},
        replies::TurnReply,
    },
};
use afdg_router::{OutgoingMessage, Router};
use afdg_runtime::{OnEnd, in_order};
use afdg_types::{
    AgentRef, CallError, GridError, MessageId, Purpose, Reason, Retry, Rows, RowsError, Sending, limits,
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long one attempt to deliver looks for the receiver's region.
const DELIVERY_MS_MAX: u64 = 3_000;

/// Of the lanes that are delivered at the same time, those whose last attempt failed: each may keep its place
/// for as long as [`DELIVERY_MS_MAX`], which the others must not wait for.
const LANES_AGAIN_MAX: usize = limits::REGION_LANES_MAX / 4;

/// Longest pause before a lane is tried again whose receiver's region had no room or no leader.
const PAUSE_MS_MAX: u64 = 1_000;

/// What became of a lane's first messages.
pub struct Delivery {
    /// They stand in their receiver's region.
    accepted: Vec<u64>,
    /// The first that does not, when it was sent, and why.
    failed: Option<(u64, u64, CallError)>,
}

impl Owner {
    /// A turn's sends are committed: they may leave.
    pub(super) fn sends_committed(&mut self, sender: &AgentRef, sends: Vec<OutgoingSend>, first: u64) {
        for (number, send) in (first..).zip(sends) {
            self.send_lies_in_outbox((sender.clone(), send.to), number, send.request.len());
        }
    }

    /// A new leader's start: takes over what lies in the outbox.
    pub(super) fn take_over_outbox(&mut self, sends: Vec<outbox::Lying>) {
        for outbox::Lying { sender, to, number, bytes } in sends {
            self.send_lies_in_outbox((sender, to), number, bytes);
        }
    }

    pub(super) fn send_lies_in_outbox(&mut self, key: LaneKey, number: u64, bytes: usize) {
        let Some(leading) = self.leading.as_mut() else { return };
        leading.lanes.entry(key.clone()).or_default().numbers.push_back((number, bytes));
        leading.outbox.add(key.0.agent_type(), Amount::of(1, bytes));
        leading.lanes_wanted.push(key);
    }

    /// Starts the lanes that have something to deliver, as many as there are places.
    pub(super) fn start_lanes(&mut self) {
        let Some(leading) = self.leading.as_mut() else { return };
        for key in std::mem::take(&mut leading.lanes_wanted) {
            match leading.lanes.get_mut(&key) {
                Some(lane) if lane.state == LaneState::Idle && lane.numbers.is_empty() => {
                    leading.lanes.remove(&key);
                }
                Some(lane) if lane.state == LaneState::Idle => {
                    lane.state = LaneState::Queued;
                    match lane.failures {
                        0 => leading.lanes_queued.push_back(key),
                        _ => leading.lanes_queued_again.push_back(key),
                    }
                }
                _ => {}
            }
        }
        while leading.lanes_delivering < limits::REGION_LANES_MAX {
            let again = leading.lanes_delivering_again < LANES_AGAIN_MAX
                && (leading.lanes_queued.is_empty() || leading.lanes_delivering_again < LANES_AGAIN_MAX / 4);
            let key = match again {
                true => leading.lanes_queued_again.pop_front().or_else(|| leading.lanes_queued.pop_front()),
                false => leading.lanes_queued.pop_front(),
            };
            let Some(key) = key else { return };
            let Some(lane) = leading.lanes.get_mut(&key) else { continue };
            // Where the last attempt failed one message shows whether the next would do better.
            let (again, count) = match lane.failures {
                0 => (false, limits::LANE_IN_FLIGHT_MESSAGES_MAX),
                _ => (true, 1),
            };
            lane.state = LaneState::Delivering;
            leading.lanes_delivering += 1;
            leading.lanes_delivering_again += usize::from(again);
            let numbers = lane.numbers.iter().take(count).map(|(number, _)| *number).collect();
            let now_ms = self.here.world.clock.now_ms();
            let (rows, router) = (Arc::clone(self.replica.rows()), Arc::clone(&self.here.router));
            let (events, leadership) = (self.events.clone(), leading.leadership);
            self.here.fail_points.reach(Moment::Before, Step::Deliver, &key.0);
            self.here.tasks.spawn("deliver", OnEnd::PanicStopsServer, async move {
                let delivery = deliver(rows.as_ref(), &router, &key, numbers, now_ms).await;
                let _ = events.send(Event::Delivered { leadership, lane: key, again, delivery });
            });
        }
    }

    pub(super) fn delivered(
        &mut self,
        leadership: u64,
        key: LaneKey,
        again: bool,
        delivery: Result<Delivery, RowsError>,
    ) {
        let now_ms = self.here.world.clock.now_ms();
        let current = self.leading.as_mut().filter(|leading| leading.leadership == leadership);
        let Some(leading) = current else { return };
        leading.lanes_delivering = leading.lanes_delivering.saturating_sub(1);
        leading.lanes_delivering_again = leading.lanes_delivering_again.saturating_sub(usize::from(again));
        let has_room = leading.may_give_up();
        let Some(lane) = leading.lanes.get_mut(&key) else { return };
        lane.state = LaneState::Idle;
        let Delivery { accepted, failed } = match delivery {
            Ok(delivery) => delivery,
            Err(error) => return self.storage_failed(&error.to_string()),
        };
        if !accepted.is_empty() {
            self.here.fail_points.reach(Moment::After, Step::Deliver, &key.0);
            (lane.attempts, lane.failures) = (0, 0);
        }
        let mut settled: HashSet<u64> = accepted.iter().copied().collect();
        let mut given_up = None;
        if let Some((number, sent_ms, error)) = failed
            && (accepted.is_empty() || reason_of(&error) != Some(Reason::OutOfOrder))
        {
            lane.failures += 1;
            lane.attempts += u32::from(stays_the_same(&error));
            let too_old = is_too_old(sent_ms, now_ms);
            let is_over = too_old || lane.attempts >= limits::SEND_ATTEMPTS_MAX;
            if is_over && has_room {
                tracing::warn!(sender = %key.0, receiver = %key.1, %error, "a send is a dead letter");
                given_up = Some(GivenUp { number, attempts: lane.attempts, failure: failure_of(error) });
                settled.insert(number);
                (lane.attempts, lane.failures) = (0, 0);
                lane.state = LaneState::Settling;
            } else {
                // Room, or a leader, is there again sooner than what is refused is let in.
                let longest = if stays_the_same(&error) { u64::MAX } else { PAUSE_MS_MAX };
                let pause_ms = match is_over {
                    // There is no room for another dead letter, and the message must not be lost.
                    true => limits::SEND_RETRY_MS_MAX,
                    false => SendRetry::default().pause_ms(lane.failures).min(longest),
                };
                lane.state = LaneState::Paused;
                leading.lanes_due.insert((now_ms + pause_ms, key.clone()));
            }
        }
        let mut bytes = 0;
        lane.numbers.retain(|(number, of_this)| {
            let is_settled = settled.contains(number);
            bytes += if is_settled { *of_this } else { 0 };
            !is_settled
        });
        leading.outbox.remove(key.0.agent_type(), Amount::of(settled.len(), bytes));
        if !settled.is_empty() {
            let lane = given_up.is_some().then(|| key.clone());
            let op = SettleSends { sender: key.0.clone(), accepted, given_up, now_ms };
            leading.wait_for_entry(Pending::Settle { op, lane });
        }
        leading.lanes_wanted.push(key);
    }

    /// What a lane has given up is committed: what comes behind it may not be taken before that.
    pub(super) fn lane_settled(&mut self, key: Option<LaneKey>) {
        let (Some(leading), Some(key)) = (self.leading.as_mut(), key) else { return };
        if let Some(lane) = leading.lanes.get_mut(&key) {
            lane.state = LaneState::Idle;
        }
        leading.lanes_wanted.push(key);
    }

    /// Lanes whose pause is over are delivered again.
    pub(super) fn resume_lanes(&mut self, now_ms: u64) {
        let Some(leading) = self.leading.as_mut() else { return };
        while leading.lanes_due.first().is_some_and(|(due_ms, _)| *due_ms <= now_ms) {
            let Some((_, key)) = leading.lanes_due.pop_first() else { return };
            if let Some(lane) = leading.lanes.get_mut(&key) {
                lane.state = LaneState::Idle;
            }
            leading.lanes_wanted.push(key);
        }
    }
}

/// Sends a lane's first messages, all at once, and says how far they came.
async fn deliver(
    rows: &(dyn Rows + Send + Sync),
    router: &Router,
    (sender, to): &LaneKey,
    numbers: Vec<u64>,
    now_ms: u64,
) -> Result<Delivery, RowsError> {
    let deadline = Instant::now() + Duration::from_millis(DELIVERY_MS_MAX);
    let (mut messages, mut bytes) = (Vec::new(), 0);
    let mut delivery = Delivery { accepted: Vec::new(), failed: None };
    let mut after: Option<MessageId> = None;
    let mut too_old = None;
    for number in numbers {
        // A message that is not there any more was accepted.
        let Some(send) = outbox::get(rows, sender, number)? else {
            delivery.accepted.push(number);
            continue;
        };
        // It may have been taken, had its turn, and been forgotten there.
        if is_too_old(send.sent_ms, now_ms) {
            let text = "the message was not known to be accepted within a day, and may have been";
            let error = GridError::new(Reason::OutcomeUnknown, text);
            too_old = Some((number, send.sent_ms, error.into()));
            break;
        }
        bytes += send.request.len();
        let sending = Sending { sender: Some(sender.clone()), due_ms: send.due_ms, after };
        after = Some(send.message_id);
        let message = OutgoingMessage {
            agent: to.clone(),
            method: send.method,
            request: send.request,
            id: send.message_id,
            deadline: Some(deadline),
            chain: Vec::new(),
            reentries: Vec::new(),
            purpose: Purpose::Send(sending),
        };
        messages.push((number, send.sent_ms, router.call(message)));
        if bytes >= limits::FRAME_BYTES_TARGET {
            break;
        }
    }
    let sent = messages
        .into_iter()
        .map(|(number, sent_ms, result)| in_order(async move { (number, sent_ms, result.await) }));
    for (number, sent_ms, result) in futures::future::join_all(sent).await {
        match result {
            Ok(_) => delivery.accepted.push(number),
            Err(error) => {
                delivery.failed = Some((number, sent_ms, error));
                return Ok(delivery);
            }
        }
    }
    delivery.failed = too_old;
    Ok(delivery)
}

/// Whether a receiver may have forgotten that it took the message, be the clocks as they may.
fn is_too_old(sent_ms: u64, now_ms: u64) -> bool {
    sent_ms + limits::SEND_DELIVERY_MS_MAX < now_ms + 2 * limits::CLOCK_SKEW_MS_MAX
}

fn reason_of(error: &CallError) -> Option<Reason> {
    match error {
        CallError::Grid(error) => Some(error.reason),
        CallError::Agent(_) => None,
    }
}

/// Whether the receiver's region would say the same again.
fn stays_the_same(error: &CallError) -> bool {
    match error {
        CallError::Grid(error) => error.retry() == Retry::Never,
        CallError::Agent(_) => true,
    }
}

fn failure_of(error: CallError) -> TurnReply {
    match error {
        CallError::Grid(error) => TurnReply::Failed { reason: error.reason, message: error.message },
        CallError::Agent(error) => TurnReply::Refused(error),
    }
}
