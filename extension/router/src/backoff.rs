//! How long the retry loop pauses.

use afdg_runtime::Entropy;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// First pause after a whole round of replicas could not take a message.
const PAUSE_MS_FIRST: u64 = 5;
/// Longest pause.
const PAUSE_MS_MAX: u64 = 250;
/// First pause while an attempt is open that has not been answered: its agent may just be slow.
const QUIET_PAUSE_MS_FIRST: u64 = 250;
/// Longest pause while an attempt is open.
const QUIET_PAUSE_MS_MAX: u64 = 4_000;
/// A server's hint is followed up to this.
const RETRY_AFTER_MS_MAX: u64 = 5_000;

/// Pauses of one message: 5 ms doubling to 250 ms, with jitter, so that the many messages that met one
/// failure do not come back together.
#[derive(Default)]
pub(crate) struct Backoff {
    pauses: u32,
    quiet_pauses: u32,
}

impl Backoff {
    /// `retry_after_ms` is the server's hint, which counts as the least pause.
    pub(crate) fn pause(&mut self, entropy: &dyn Entropy, retry_after_ms: Option<u64>) -> Duration {
        let pause = jittered(entropy, doubled(PAUSE_MS_FIRST, self.pauses, PAUSE_MS_MAX));
        self.pauses = self.pauses.saturating_add(1);
        let hint = retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MS_MAX);
        pause.max(Duration::from_millis(hint))
    }

    pub(crate) fn quiet_pause(&mut self, entropy: &dyn Entropy) -> Duration {
        let pause = doubled(QUIET_PAUSE_MS_FIRST, self.quiet_pauses, QUIET_PAUSE_MS_MAX);
        self.quiet_pauses = self.quiet_pauses.saturating_add(1);
        jittered(entropy, pause)
    }
}

fn doubled(first: u64, times: u32, max: u64) -> u64 {
    (first << times.min(16)).min(max)
}

/// From half of it to all of it.
fn jittered(entropy: &dyn Entropy, pause_ms: u64) -> Duration {
    let pause_us = pause_ms * 1_000;
    Duration::from_micros(pause_us / 2 + entropy.random_u64() % (pause_us / 2 + 1))
}

/// Overload retries that a router makes at once before they are spaced.
const OVERLOAD_RETRIES_BURST: u32 = 200;
/// Time between overload retries of one router: 2,000 a second.
const OVERLOAD_RETRY_SPACING: Duration = Duration::from_micros(500);

/// The retry budget of one router: repeating what an overloaded server refused must not keep it
/// overloaded. It is a token bucket in which each such retry books the next free place in time, so a
/// retry is put off, never failed, and their rate is bounded however many messages wait.
/// Retries for other reasons are bounded by the pauses of each message alone.
#[derive(Default)]
pub(crate) struct RetryBudget {
    next_place: Mutex<Option<Instant>>,
}

impl RetryBudget {
    /// How long from `now` the retry has to wait.
    pub(crate) fn book(&self, now: Instant) -> Duration {
        let burst = OVERLOAD_RETRY_SPACING * OVERLOAD_RETRIES_BURST;
        let mut next_place = self.next_place.lock().unwrap_or_else(PoisonError::into_inner);
        let place = next_place.map_or(now, |next| next.max(now));
        *next_place = Some(place + OVERLOAD_RETRY_SPACING);
        (place - now).saturating_sub(burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_runtime::SystemEntropy;

    #[test]
    fn pauses_double_to_a_bound_and_follow_the_hint() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.pause(&SystemEntropy, None)).collect();
        assert!(pauses[0] <= Duration::from_millis(5) && pauses[0] >= Duration::from_micros(2_500));
        assert!(pauses[39] <= Duration::from_millis(250) && pauses[39] >= Duration::from_millis(125));
        assert!(backoff.pause(&SystemEntropy, Some(900)) >= Duration::from_millis(900));
        assert!(backoff.pause(&SystemEntropy, Some(u64::MAX)) <= Duration::from_secs(5));
    }

    #[test]
    fn overload_retries_are_spaced_past_a_burst() {
        let budget = RetryBudget::default();
        let now = Instant::now();
        let waits: Vec<_> = (0..2_201).map(|_| budget.book(now)).collect();
        assert!(waits[..200].iter().all(Duration::is_zero));
        assert_eq!(waits[2_200], Duration::from_secs(1));
        assert!(budget.book(now + Duration::from_secs(2)).is_zero());
    }
}
