//! Messages of which only the id is known: whether this region knows one, and how it ended.

use super::{
    ReplyTo,
    admit::{WAITERS_MAX, result_of},
    leading::Waiter,
    owner::{Event, Owner, RegionHandle, overloaded},
};
use afdg_proto::pb::internal::Outcome;
use afdg_region_machine::table::replies;
use afdg_types::{GridError, MessageId, Reason, Slot};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};

/// What a region knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of the agent that it is for.
    pub slot: Slot,
    pub digest: u128,
}

/// A method is named by a client; an error holds no more of it than this.
const METHOD_CHARS_SHOWN_MAX: usize = 80;

/// What to tell who takes the message for one of another method than it is, and so would read its response as what it
/// is not. No method is none that is wrong.
pub fn of_other_method(id: MessageId, digest: u128, method: &str) -> Option<GridError> {
    if method.is_empty() || replies::is_of_method(digest, method) {
        return None;
    }
    let shown: String = method.chars().take(METHOD_CHARS_SHOWN_MAX).collect();
    let text = format!("the message {id} was for another method than '{}'", shown.escape_debug());
    Some(GridError::new(Reason::RequestMalformed, text).with("field", "method"))
}

impl RegionHandle {
    /// What is known of the message, and how it ended if that is known within `wait` and it is of the method (or
    /// none is named); none if this replica does not lead.
    pub async fn find(
        &self,
        id: MessageId,
        method: &str,
        wait: Duration,
    ) -> Option<(Option<Known>, Option<Outcome>)> {
        let (outcomes, mut ended) = mpsc::unbounded_channel();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().ok().filter(|_| !wait.is_zero());
        let until = Instant::now() + wait;
        let waiter = place.map(|place| Waiter {
            reply_to: ReplyTo::new(0, outcomes, place),
            deadline: Some(until),
            caller: 0,
        });
        let (found, waiting) = oneshot::channel();
        let _ = self.events.send(Event::Find { id, method: method.to_owned(), wait: waiter, found });
        let known = waiting.await.ok()?;
        let outcome = match known {
            // At once if nobody will answer.
            Some(_) => tokio::time::timeout_at(until, ended.recv()).await.ok().flatten(),
            None => None,
        };
        Some((known, outcome.map(|outgoing| outgoing.outcome)))
    }
}

impl Owner {
    /// What is known of the message; whoever waits is told how it ended, if it is of the method. None if this replica
    /// does not lead.
    pub(super) fn find(
        &mut self,
        id: MessageId,
        method: &str,
        wait: Option<Waiter>,
    ) -> Option<Option<Known>> {
        let leading = self.leading.as_mut().filter(|leading| leading.ready)?;
        if let Some(waiters) = leading.waiters.get_mut(&id) {
            let known = Known { slot: waiters.slot, digest: waiters.digest };
            match wait.filter(|_| of_other_method(id, known.digest, method).is_none()) {
                Some(waiter) if waiters.let_go_of_the_late(Instant::now()) >= WAITERS_MAX => {
                    waiter.reply_to.refuse(overloaded("as many callers wait for this message as may"));
                }
                wait => waiters.replies.extend(wait),
            }
            return Some(Some(known));
        }
        match replies::get(self.replica.rows().as_ref(), id) {
            Ok(Some(reply)) => {
                let known = Known { slot: reply.slot, digest: reply.digest };
                if let Some(waiter) = wait.filter(|_| of_other_method(id, known.digest, method).is_none()) {
                    self.keep_id(id, &reply);
                    waiter.reply_to.reply(result_of(reply.reply));
                }
                Some(Some(known))
            }
            Ok(None) => Some(None),
            Err(error) => {
                self.storage_failed(&error.to_string());
                None
            }
        }
    }
}
