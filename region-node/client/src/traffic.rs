//! The messages of one link: those that wait for the transport and those that wait for an answer.
//!
//! Plain data behind the link's lock. It is held for a few map operations and never across an await.

use crate::{ForwardError, ForwardResult};
use afdg_proto::pb::internal::{Forwarded, OutcomeFrame};
use afdg_types::{
    FairQueue, GridError, Reason,
    limits::{FRAME_BYTES_TARGET, MESSAGE_BYTES_MAX, ROUTER_IN_FLIGHT_MESSAGES_MAX},
};
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    task::Waker,
};
use tokio::{sync::oneshot, time::Instant};

/// Messages that wait for the transport of one node.
pub(crate) const QUEUED_MESSAGES_MAX: usize = 16_384;
/// Bytes of the messages that wait for the transport of one node.
pub(crate) const QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest message with its address and chain. A frame may pass its target by one message, and must
/// still fit `FRAME_BYTES_MAX`, since a frame that does not fit would end the whole connection.
pub(crate) const FORWARDED_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 256 * 1024;
/// Hint for a sender that met a full queue.
pub(crate) const FULL_RETRY_AFTER_MS: u64 = 50;
/// Bytes of a message's fixed fields, tags and lengths, at most.
const FIXED_FIELDS_BYTES: usize = 96;

pub(crate) struct Traffic {
    /// By agent type. May hold messages that nobody waits for any more; they are left out of frames.
    queue: FairQueue<Forwarded>,
    queued_bytes: usize,
    waiting: HashMap<u64, Waiting, BuildHasherDefault<RequestIdHasher>>,
    last_request_id: u64,
    pub(crate) connection: Connection,
    /// Counts connections, so that a stream of an earlier one takes no messages.
    pub(crate) generation: u64,
    /// Connections in a row that ended without an outcome.
    pub(crate) failures: u32,
    /// The frame stream of the current connection, if it found nothing to send.
    pub(crate) writer: Option<Waker>,
    /// The node is gone from the routing table: no more messages, those in flight are waited for.
    pub(crate) closed: bool,
}

pub(crate) enum Connection {
    /// The next message starts one, unless `retry_at` is still to come.
    Down { retry_at: Option<Instant>, why: String },
    /// A task connects or is connected.
    Up,
}

impl Default for Connection {
    fn default() -> Self {
        Self::Down { retry_at: None, why: String::new() }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            queue: FairQueue::new(|message| &message.r#type, bytes_of),
            queued_bytes: 0,
            waiting: HashMap::default(),
            last_request_id: 0,
            connection: Connection::default(),
            generation: 0,
            failures: 0,
            writer: None,
            closed: false,
        }
    }
}

struct Waiting {
    reply: oneshot::Sender<ForwardResult>,
    sent: bool,
}

impl Traffic {
    /// Puts a message into the queue; its request id is set here.
    pub(crate) fn enqueue(
        &mut self,
        mut message: Forwarded,
    ) -> Result<(u64, oneshot::Receiver<ForwardResult>), ForwardError> {
        let bytes = bytes_of(&message);
        if bytes > FORWARDED_BYTES_MAX {
            return Err(ForwardError::Refused(GridError::new(
                Reason::MessageTooLarge,
                format!("the message has {bytes} bytes; at most {FORWARDED_BYTES_MAX} can be forwarded"),
            )));
        }
        if self.is_full(bytes) {
            self.drop_abandoned();
            if self.is_full(bytes) {
                return Err(ForwardError::Refused(
                    GridError::new(
                        Reason::Overloaded,
                        format!(
                            "{} messages with {} bytes wait for the node's connection; try again later",
                            self.queue.len(),
                            self.queued_bytes
                        ),
                    )
                    .retry_after_ms(FULL_RETRY_AFTER_MS),
                ));
            }
        }
        self.last_request_id += 1;
        let request_id = self.last_request_id;
        message.request_id = request_id;
        let (reply, receiver) = oneshot::channel();
        self.waiting.insert(request_id, Waiting { reply, sent: false });
        self.queued_bytes += bytes;
        self.queue.push(message);
        Ok((request_id, receiver))
    }

    fn is_full(&self, bytes: usize) -> bool {
        self.queue.len() >= QUEUED_MESSAGES_MAX
            || self.queued_bytes + bytes > QUEUED_BYTES_MAX
            || self.waiting.len() >= ROUTER_IN_FLIGHT_MESSAGES_MAX
    }

    fn drop_abandoned(&mut self) {
        let waiting = &self.waiting;
        self.queue.retain(|message| waiting.contains_key(&message.request_id));
        self.queued_bytes = self.queue.iter().map(bytes_of).sum();
    }

    /// Takes what waits, for one frame, and counts it as sent.
    pub(crate) fn next_frame(&mut self) -> Vec<Forwarded> {
        let mut messages = Vec::new();
        let mut frame_bytes = 0;
        while frame_bytes < FRAME_BYTES_TARGET {
            let Some(message) = self.queue.pop() else { break };
            let bytes = bytes_of(&message);
            self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
            if let Some(waiting) = self.waiting.get_mut(&message.request_id) {
                waiting.sent = true;
                frame_bytes += bytes;
                messages.push(message);
            }
        }
        messages
    }

    /// Takes the waiters of a frame's outcomes. An outcome that nobody waits for is dropped.
    pub(crate) fn settle(&mut self, frame: OutcomeFrame) -> Vec<Settled> {
        frame
            .outcomes
            .into_iter()
            .filter_map(|outcome| {
                let waiting = self.waiting.remove(&outcome.request_id)?;
                Some(Settled { reply: waiting.reply, result: crate::answer::result_of(outcome) })
            })
            .collect()
    }

    /// Takes all waiters: the connection is gone.
    pub(crate) fn fail_all(&mut self, why: &str) -> Vec<Settled> {
        self.queue.clear();
        self.queued_bytes = 0;
        std::mem::take(&mut self.waiting)
            .into_values()
            .map(|waiting| Settled { result: Err(without_answer(waiting.sent, why)), reply: waiting.reply })
            .collect()
    }

    /// Forgets one waiter; tells whether its message was sent, none if it is no longer known.
    pub(crate) fn forget(&mut self, request_id: u64) -> Option<bool> {
        self.waiting.remove(&request_id).map(|waiting| waiting.sent)
    }

    pub(crate) fn is_sent(&self, request_id: u64) -> bool {
        self.waiting.get(&request_id).is_none_or(|waiting| waiting.sent)
    }
}

pub(crate) fn without_answer(sent: bool, why: &str) -> ForwardError {
    if sent { ForwardError::Lost(why.to_owned()) } else { ForwardError::NotSent(why.to_owned()) }
}

/// A waiter and what it waited for; told outside the lock.
pub(crate) struct Settled {
    reply: oneshot::Sender<ForwardResult>,
    result: ForwardResult,
}

impl Settled {
    pub(crate) fn tell(self) {
        // Nobody listens any more if the caller gave up in between.
        let _ = self.reply.send(self.result);
    }
}

fn bytes_of(message: &Forwarded) -> usize {
    FIXED_FIELDS_BYTES
        + message.request.len()
        + message.r#type.len()
        + message.key.len()
        + message.method.len()
        + message.chain.iter().map(|agent| agent.len() + 4).sum::<usize>()
        + message.reentries.iter().map(|id| id.len() + 4).sum::<usize>()
}

/// Request ids are counted up by this client, so they need no protection against chosen collisions:
/// one multiplication spreads them over the table.
#[derive(Default)]
pub(crate) struct RequestIdHasher(u64);

impl Hasher for RequestIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0.rotate_left(8) ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Forwarded {
        Forwarded { request: vec![0; bytes].into(), ..Forwarded::default() }
    }

    #[test]
    fn what_waits_goes_into_one_frame_up_to_the_target() {
        let mut traffic = Traffic::default();
        let kept: Vec<_> = (0..5).map(|_| traffic.enqueue(message(400 * 1024)).unwrap()).collect();
        assert_eq!(traffic.next_frame().len(), 3);
        assert_eq!(traffic.next_frame().len(), 2);
        assert!(traffic.next_frame().is_empty());
        assert_eq!((traffic.queued_bytes, kept.len()), (0, 5));
    }

    #[test]
    fn a_types_backlog_does_not_stand_ahead_of_other_types() {
        let mut traffic = Traffic::default();
        let flood = || Forwarded { r#type: "t.Flood".to_owned(), ..message(400 * 1024) };
        let kept: Vec<_> = (0..20).map(|_| traffic.enqueue(flood()).unwrap()).collect();
        let other = Forwarded { r#type: "t.Other".to_owned(), ..message(10) };
        let (other, _kept) = traffic.enqueue(other).unwrap();
        let frame: Vec<_> = traffic.next_frame().iter().map(|message| message.request_id).collect();
        assert!(frame.contains(&other), "{frame:?}");
        assert!(frame.contains(&kept[0].0) && frame.len() == 4, "{frame:?}");
    }

    #[test]
    fn a_full_queue_refuses_and_forgets_what_nobody_waits_for() {
        let mut traffic = Traffic::default();
        let mut kept = Vec::new();
        let error = loop {
            match traffic.enqueue(message(MESSAGE_BYTES_MAX)) {
                Ok(one) => kept.push(one),
                Err(error) => break error,
            }
        };
        let ForwardError::Refused(error) = error else { panic!("{error}") };
        assert_eq!(error.reason, Reason::Overloaded);
        assert!(error.retry_after_ms.is_some());
        assert_eq!(traffic.forget(kept[0].0), Some(false));
        assert!(traffic.enqueue(message(MESSAGE_BYTES_MAX)).is_ok());
        assert_eq!(traffic.next_frame()[0].request_id, kept[1].0);
    }

    #[test]
    fn a_message_that_no_frame_can_hold_is_refused() {
        let result = Traffic::default().enqueue(message(FORWARDED_BYTES_MAX));
        let Err(ForwardError::Refused(error)) = result else { panic!() };
        assert_eq!(error.reason, Reason::MessageTooLarge);
    }
}
