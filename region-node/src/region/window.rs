//! How many operations a region has on their way through the log at once.
//!
//! What waits for an entry stands in a queue in which agent types take turns; what has gone into one can't be
//! overtaken any more. While processors are short, many operations in entries gain little: the entries are larger,
//! and each takes longer, so that a type that floods stands ahead of all others. While it is the disk or the way to
//! the replicas that takes its time, many are needed to get anything done.
//!
//! Which of the two it is shows in how long the owner's own events wait until it begins to look at them: for a
//! processor, not for a disk. While they wait long the window is halved, and else doubled if there was more to propose.

use afdg_types::limits::{ENTRY_TURNS_MAX, REGION_ENTRIES_IN_FLIGHT_MAX};
use std::time::Duration;
use tokio::time::Instant;

/// Operations that may always be under way: where an entry takes 2 ms, some 30,000 a second.
const SIZE_MIN: usize = 64;
/// With which a leadership begins.
const SIZE_FIRST: usize = 8 * SIZE_MIN;
const SIZE_MAX: usize = REGION_ENTRIES_IN_FLIGHT_MAX * ENTRY_TURNS_MAX;
/// Processors are short while events wait for longer than this in the mean: on idle ones it is some 0.02 ms.
const WAIT_MAX: Duration = Duration::from_micros(500);
/// Of fewer events it does not tell.
const WAITED_MIN: u32 = 8;
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Of one leadership.
pub struct Window {
    size: usize,
    in_flight: usize,
    /// There was more to propose.
    is_wanted: bool,
    waits: Duration,
    waited: u32,
    looked: Instant,
}

impl Window {
    pub fn new(now: Instant) -> Self {
        let (waits, waited) = (Duration::ZERO, 0);
        Self { size: SIZE_FIRST, in_flight: 0, is_wanted: false, waits, waited, looked: now }
    }

    /// How many operations may go into an entry now: half of the window, so that one entry is written while
    /// another is filled, or as many as fit an entry. None if less is free, since each entry costs something.
    pub fn room(&self) -> usize {
        let part = (self.size / 2).min(ENTRY_TURNS_MAX);
        if self.size.saturating_sub(self.in_flight) < part { 0 } else { part }
    }

    pub fn proposed(&mut self, operations: usize) {
        self.in_flight += operations;
    }

    pub fn committed(&mut self, operations: usize) {
        self.in_flight = self.in_flight.saturating_sub(operations);
    }

    /// More could be proposed if there were room.
    pub fn note_full(&mut self) {
        self.is_wanted = true;
    }

    /// An event waited so long until the owner began to look at events.
    pub fn waited(&mut self, time: Duration) {
        self.waits += time;
        self.waited += 1;
    }

    /// Looks, once in a while, whether processors are short.
    pub fn look(&mut self, now: Instant) {
        if now.saturating_duration_since(self.looked) < LOOK_EVERY {
            return;
        }
        self.looked = now;
        let (waits, waited) = (std::mem::take(&mut self.waits), std::mem::take(&mut self.waited));
        let is_wanted = std::mem::take(&mut self.is_wanted);
        if waited >= WAITED_MIN && waits / waited > WAIT_MAX {
            self.size = (self.size / 2).max(SIZE_MIN);
        } else if is_wanted {
            self.size = (self.size * 2).min(SIZE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window is looked at so often, after events that waited so long each.
    fn looks(window: &mut Window, count: u32, wait: Duration, is_full: bool) {
        for _ in 0..count {
            (0..WAITED_MIN).for_each(|_| window.waited(wait));
            if is_full {
                window.note_full();
            }
            window.look(window.looked + LOOK_EVERY);
        }
    }

    #[test]
    fn it_shrinks_while_processors_are_short_and_grows_while_more_waits_otherwise() {
        let start = Instant::now();
        let mut window = Window::new(start);
        looks(&mut window, 1, WAIT_MAX, false);
        assert_eq!(window.size, SIZE_FIRST, "nothing waits");
        looks(&mut window, 1, WAIT_MAX, true);
        assert_eq!(window.size, 2 * SIZE_FIRST);
        looks(&mut window, 3, 2 * WAIT_MAX, true);
        assert_eq!(window.size, SIZE_FIRST / 4);
        looks(&mut window, 3, 2 * WAIT_MAX, false);
        assert_eq!(window.size, SIZE_MIN);
        looks(&mut window, 10, Duration::ZERO, true);
        assert_eq!(window.size, SIZE_MAX);
        (0..WAITED_MIN).for_each(|_| window.waited(2 * WAIT_MAX));
        window.look(window.looked + LOOK_EVERY / 2);
        assert_eq!(window.size, SIZE_MAX, "not yet");
        window.look(window.looked + LOOK_EVERY);
        assert_eq!(window.size, SIZE_MAX / 2);
        (1..WAITED_MIN).for_each(|_| window.waited(2 * WAIT_MAX));
        window.look(window.looked + LOOK_EVERY);
        assert_eq!(window.size, SIZE_MAX / 2, "too few to tell");
    }

    #[test]
    fn a_few_events_that_wait_long_among_many_that_do_not_are_no_reason_to_shrink() {
        let start = Instant::now();
        let mut window = Window::new(start);
        (0..100).for_each(|_| window.waited(Duration::ZERO));
        window.waited(100 * WAIT_MAX);
        window.look(start + LOOK_EVERY);
        assert_eq!(window.size, SIZE_FIRST);
    }

    #[test]
    fn an_entry_waits_until_half_of_the_window_is_free_and_the_largest_window_holds_four_full_ones() {
        let mut window = Window::new(Instant::now());
        window.proposed(SIZE_FIRST / 2);
        assert_eq!(window.room(), SIZE_FIRST / 2);
        window.proposed(1);
        assert_eq!(window.room(), 0);
        window.committed(1);
        assert_eq!(window.room(), SIZE_FIRST / 2);
        window.committed(SIZE_FIRST / 2);
        looks(&mut window, 10, Duration::ZERO, true);
        for _ in 0..REGION_ENTRIES_IN_FLIGHT_MAX {
            assert_eq!(window.room(), ENTRY_TURNS_MAX);
            window.proposed(ENTRY_TURNS_MAX);
        }
        assert_eq!(window.room(), 0);
        looks(&mut window, 10, 2 * WAIT_MAX, true);
        window.committed(3 * ENTRY_TURNS_MAX);
        assert_eq!(window.room(), 0, "what was under way is first");
        window.committed(ENTRY_TURNS_MAX);
        assert_eq!(window.room(), SIZE_MIN / 2);
    }
}
