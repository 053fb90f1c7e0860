//! How many messages of a type the region takes on at once, so that none waits long for the region itself.
//!
//! A message that the grid takes on waits for three things beside its own agent and handler: for the owner to look
//! at it, for a thread to start its turn, and for its effects to be committed. When more comes than the machine can
//! do, those waits grow with the number of messages that are taken on, and everybody's with them. So they are
//! measured, and once they come to more than `wait_ms_max` of the type in the mean of a window, the type gets as
//! many places as it fills in that time: what it got done in a second, times that wait (J. D. C. Little: A Proof for
//! the Queuing Formula, 1961). While its messages are quick again the places grow, until they bind nobody.
//!
//! What waits for its own agent takes a place, since there is no end to it; a turn whose handler runs does not, so
//! handlers that wait long for others cost no places.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Places that a type always has in a region, however slow the machine is.
pub const PLACES_MIN: usize = 512;
const WINDOW: Duration = Duration::from_millis(100);
/// Places that are added by a window in which messages were quick, of those that there are.
const GROWTH_DIVISOR: usize = 8;

/// What a message waits for on its way through the region.
#[derive(Clone, Copy, Debug)]
pub enum Hop {
    /// That the owner looks at it.
    Admission,
    /// That its turn starts on a thread, and that the owner hears of its end.
    Turn,
    /// That its effects are committed.
    Commit,
}

/// Of one agent type in one leadership.
#[derive(Default)]
pub struct Pace {
    window_began: Option<Instant>,
    waits: [(Duration, u32); 3],
    done: usize,
    places: Option<Places>,
    /// Turns whose handlers run.
    started: Arc<AtomicUsize>,
}

/// How many messages may be taken on, and why so few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    pub count: usize,
    pub delay: Duration,
    pub delay_max: Duration,
}

impl Places {
    /// As many messages as pass through the places while none waits longer than it may.
    pub fn per_second(&self) -> u64 {
        (self.count as f64 / self.delay_max.as_secs_f64()) as u64
    }
}

/// A turn whose handler runs.
pub struct Started(Arc<AtomicUsize>);

impl Drop for Started {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Lets a turn say that its handler runs.
#[derive(Clone)]
pub struct Starter(Arc<AtomicUsize>);

impl Starter {
    pub fn start(&self) -> Started {
        self.0.fetch_add(1, Relaxed);
        Started(Arc::clone(&self.0))
    }
}

impl Pace {
    pub fn starter(&self) -> Starter {
        Starter(Arc::clone(&self.started))
    }

    pub fn waited(&mut self, hop: Hop, time: Duration) {
        let (sum, count) = &mut self.waits[hop as usize];
        *sum += time;
        *count += 1;
    }

    /// A message of the type is done with.
    pub fn done(&mut self) {
        self.done += 1;
    }

    /// Looks how long messages have waited, once in a while. They may wait for `delay_max` in the mean; for any
    /// time if that is zero.
    pub fn look(&mut self, delay_max: Duration, now: Instant) {
        if self.window_began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            self.end_window(delay_max, now);
        }
    }

    /// Why no further message may be taken on beside so many in flight, if that is so.
    pub fn check(&self, in_flight: usize) -> Result<(), Places> {
        let Some(places) = self.places else { return Ok(()) };
        if self.taken(in_flight) < places.count { Ok(()) } else { Err(places) }
    }

    /// Whether half of the places is taken by so many in flight.
    pub fn is_half_full(&self, in_flight: usize) -> bool {
        self.places.is_some_and(|places| self.taken(in_flight) >= places.count.div_ceil(2))
    }

    fn taken(&self, in_flight: usize) -> usize {
        in_flight.saturating_sub(self.started.load(Relaxed))
    }

    fn end_window(&mut self, delay_max: Duration, now: Instant) {
        let lasted = self.window_began.replace(now).map(|began| now.saturating_duration_since(began));
        let mean = |(sum, count): (Duration, u32)| sum.checked_div(count).unwrap_or_default();
        let delay = std::mem::take(&mut self.waits).into_iter().map(mean).sum::<Duration>();
        let done = std::mem::take(&mut self.done);
        let Some(lasted) = lasted else { return };
        if delay_max.is_zero() {
            self.places = None;
        } else if delay > delay_max {
            let filled = done as f64 * delay_max.as_secs_f64() / lasted.as_secs_f64();
            let count = (filled as usize).max(PLACES_MIN);
            self.places = Some(Places { count, delay, delay_max });
        } else if let Some(places) = &mut self.places {
            places.count += places.count / GROWTH_DIVISOR;
            // By now it binds less than the type's own limits do.
            if places.count >= afdg_types::limits::REGION_IN_FLIGHT_MESSAGES_MAX {
                self.places = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY_MAX: Duration = Duration::from_millis(50);

    /// A window in which `done` messages were done that had waited so long each.
    fn window(pace: &mut Pace, now: &mut Instant, done: usize, delay: Duration) {
        pace.look(DELAY_MAX, *now);
        for _ in 0..done {
            pace.waited(Hop::Commit, delay);
            pace.done();
        }
        *now += WINDOW;
        pace.look(DELAY_MAX, *now);
    }

    #[test]
    fn what_waits_too_long_gets_the_places_that_it_fills_in_time_and_grows_out_of_them() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        window(&mut pace, &mut now, 1_000, DELAY_MAX);
        assert_eq!(pace.check(100_000), Ok(()), "as long as it may be");
        window(&mut pace, &mut now, 2_000, 4 * DELAY_MAX);
        let places = Places { count: 1_000, delay: 4 * DELAY_MAX, delay_max: DELAY_MAX };
        assert_eq!(places.per_second(), 20_000);
        assert_eq!(pace.check(999), Ok(()));
        assert_eq!(pace.check(1_000), Err(places));
        assert!(!pace.is_half_full(499) && pace.is_half_full(500));
        window(&mut pace, &mut now, 1_000, DELAY_MAX / 2);
        assert_eq!(pace.check(1_124), Ok(()));
        assert!(pace.check(1_125).is_err());
        let mut windows = 0;
        while pace.check(100_000).is_err() {
            window(&mut pace, &mut now, 1_000, DELAY_MAX / 2);
            windows += 1;
        }
        assert!((20..40).contains(&windows), "{windows}");
    }

    #[test]
    fn a_slow_machine_leaves_a_few_places_and_handlers_that_run_take_none() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        window(&mut pace, &mut now, 1, 10 * DELAY_MAX);
        assert_eq!(pace.check(PLACES_MIN - 1), Ok(()));
        assert!(pace.check(PLACES_MIN).is_err());
        let running = pace.starter().start();
        assert_eq!(pace.check(PLACES_MIN), Ok(()));
        drop(running);
        assert!(pace.check(PLACES_MIN).is_err());
        now += WINDOW;
        pace.look(Duration::ZERO, now);
        assert_eq!(pace.check(PLACES_MIN), Ok(()), "any wait is fine");
    }

    #[test]
    fn waits_add_up() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        pace.waited(Hop::Admission, DELAY_MAX / 2);
        pace.waited(Hop::Turn, DELAY_MAX / 2);
        window(&mut pace, &mut now, 0, DELAY_MAX);
        assert_eq!(pace.check(100_000), Ok(()), "the first window begins with the first look");
        for hop in [Hop::Admission, Hop::Turn, Hop::Commit] {
            pace.waited(hop, DELAY_MAX / 2);
        }
        now += WINDOW;
        pace.look(DELAY_MAX, now);
        assert!(pace.check(PLACES_MIN).is_err());
    }
}
