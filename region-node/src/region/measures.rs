//! How much a region has under way, for metrics: counted when somebody asks.

use super::owner::{Event, Owner, RegionHandle};
use tokio::sync::oneshot;

/// What a region's leader counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Admitted and not yet answered.
    pub messages_in_flight: usize,
    pub message_bytes_in_flight: usize,
    /// Messages that were refused for lack of room since this replica leads.
    pub messages_refused: usize,
    pub turns_running: usize,
    /// Of those, how many wait for a call.
    pub turns_calling: usize,
    /// Sends that were taken and whose turn is not committed.
    pub inbox_messages: usize,
    pub inbox_bytes: usize,
    /// Of those, how many are held back or wait for their next attempt.
    pub due_messages: usize,
    /// Sends of turns that are on their way to their receivers.
    pub outbox_messages: usize,
    pub outbox_bytes: usize,
    pub dead_letters: usize,
}

impl RegionHandle {
    /// None if this replica does not lead.
    pub async fn measures(&self) -> Option<Measures> {
        let (measures, waiting) = oneshot::channel();
        let _ = self.events.send(Event::Measure { measures });
        waiting.await.ok()
    }
}

impl Owner {
    pub(super) fn measure(&self) -> Option<Measures> {
        let leading = self.leading.as_ref().filter(|leading| leading.ready)?;
        let running = leading.agents.values().filter_map(|state| state.running.as_ref());
        let (mut turns_running, mut turns_calling) = (0, 0);
        for turn in running {
            turns_running += 1;
            turns_calling += usize::from(turn.calls.waiting_since().is_some());
        }
        Some(Measures {
            messages_in_flight: leading.load.messages,
            message_bytes_in_flight: leading.load.bytes,
            messages_refused: leading.load.refused,
            turns_running,
            turns_calling,
            inbox_messages: leading.inbox.all().messages,
            inbox_bytes: leading.inbox.all().bytes,
            due_messages: leading.due.len(),
            outbox_messages: leading.outbox.all().messages,
            outbox_bytes: leading.outbox.all().bytes,
            dead_letters: leading.dead_letters,
        })
    }
}
