//! The open attempts of one message.
//!
//! An attempt that is not answered in time stays open while another replica is asked: if its node is
//! only slow, its answer still comes, and nothing was sent in vain; if the node is frozen, the message
//! is already on its way elsewhere.

use afdg_region_client::{ForwardResult, InFlight};
use afdg_types::NodeId;
use std::{future::Future, pin::Pin, task::Poll};
use tokio::time::Instant;

/// Open attempts of one message; past it the oldest is given up.
const OPEN_ATTEMPTS_MAX: usize = 4;

#[derive(Default)]
pub(crate) struct Attempts {
    open: Vec<Attempt>,
}

struct Attempt {
    node: NodeId,
    in_flight: InFlight,
}

impl Attempts {
    /// Adds an attempt. Returns what is known of one that was given up for it.
    pub(crate) fn open(&mut self, node: NodeId, in_flight: InFlight) -> Option<(NodeId, ForwardResult)> {
        let given_up = (self.open.len() >= OPEN_ATTEMPTS_MAX).then(|| {
            let oldest = self.open.remove(0);
            (oldest.node, oldest.in_flight.give_up("the node has not answered in time"))
        });
        self.open.push(Attempt { node, in_flight });
        given_up
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn is_open(&self, node: NodeId) -> bool {
        self.open.iter().any(|attempt| attempt.node == node)
    }

    /// The next result of any open attempt, none if `until` comes first.
    pub(crate) async fn next(&mut self, until: Instant) -> Option<(NodeId, ForwardResult)> {
        let any = std::future::poll_fn(|cx| {
            for index in 0..self.open.len() {
                if let Poll::Ready(result) = Pin::new(&mut self.open[index].in_flight).poll(cx) {
                    let attempt = self.open.swap_remove(index);
                    return Poll::Ready((attempt.node, result));
                }
            }
            Poll::Pending
        });
        tokio::time::timeout_at(until, any).await.ok()
    }

    /// Ends all attempts; what is known of each.
    pub(crate) fn give_up(&mut self) -> Vec<ForwardResult> {
        self.open.drain(..).map(|attempt| attempt.in_flight.give_up("the deadline passed")).collect()
    }
}
