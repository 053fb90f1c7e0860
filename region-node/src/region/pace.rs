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
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Messages of a type that a region lets in in a second at least, however slow the machine is: this and the time that
/// they may wait give the least places.
const PER_SECOND_MIN: u64 = 20_000;
/// Places that a type always has.
const PLACES_MIN: usize = 64;
/// How often it is looked.
pub const WINDOW: Duration = Duration::from_millis(100);
/// Places that are added by a window in which messages were quick, of those that there are.
const GROWTH_DIVISOR: usize = 8;
/// Windows for which places grow at one look, which may come late where little happens.
const GROWTHS_MAX: u128 = 8;

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
    /// As many messages get in in a second, or a few more.
    pub per_second: u64,
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
pub struct Starter {
    since: Instant,
    started: Arc<AtomicUsize>,
    /// How long it took until the handler had a thread, microseconds; the most there is while it has none.
    waited_us: Arc<AtomicU64>,
}

impl Starter {
    pub fn start(&self) -> Started {
        let waited_us = self.since.elapsed().as_micros() as u64;
        self.waited_us.fetch_min(waited_us, Relaxed);
        self.started.fetch_add(1, Relaxed);
        Started(Arc::clone(&self.started))
    }

    /// How long the handler waited for a thread the first time, or has until now.
    pub fn waited(&self) -> Duration {
        self.since.elapsed().min(Duration::from_micros(self.waited_us.load(Relaxed)))
    }
}

impl Pace {
    pub fn starter(&self) -> Starter {
        let waited_us = Arc::new(AtomicU64::new(u64::MAX));
        Starter { since: Instant::now(), started: Arc::clone(&self.started), waited_us }
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

    /// Looks how long messages have waited while a window `lasted`. They may wait for `delay_max` in the mean; for
    /// any time if that is zero.
    pub fn end_window(&mut self, in_flight: usize, delay_max: Duration, lasted: Duration) {
        let mean = |(sum, count): (Duration, u32)| sum.checked_div(count).unwrap_or_default();
        let delay = std::mem::take(&mut self.waits).into_iter().map(mean).sum::<Duration>();
        let per_second = std::mem::take(&mut self.done) as f64 / lasted.as_secs_f64();
        if delay_max.is_zero() {
            self.places = None;
        } else if delay > delay_max && self.taken(in_flight) > places_min(delay_max) {
            let filled = (per_second * delay_max.as_secs_f64()) as usize;
            // What gets in by the least places is not what the region can do.
            let per_second = u64::max(per_second as u64, PER_SECOND_MIN);
            self.places =
                Some(Places { count: filled.max(places_min(delay_max)), delay, delay_max, per_second });
        } else if let Some(places) = &mut self.places {
            for _ in 0..(lasted.as_millis() / WINDOW.as_millis()).min(GROWTHS_MAX) {
                places.count += places.count / GROWTH_DIVISOR;
                places.per_second += places.per_second / GROWTH_DIVISOR as u64;
            }
            places.delay_max = delay_max;
            // By now it binds less than the type's own limits do.
            if places.count >= afdg_types::limits::REGION_IN_FLIGHT_MESSAGES_MAX {
                self.places = None;
            }
        }
    }

    /// Nothing is kept of it that would be missed.
    pub fn is_idle(&self) -> bool {
        self.places.is_none() && Arc::strong_count(&self.started) == 1
    }

    /// Why no further message may be taken on beside so many in flight, if that is so.
    pub fn check(&self, in_flight: usize) -> Result<(), Places> {
        let Some(places) = self.places else { return Ok(()) };
        if self.taken(in_flight) < places.count { Ok(()) } else { Err(places) }
    }

    /// Whether half of the places is taken by so many in flight. As long as they are not counted, three quarters of
    /// the least: many that come at once take them before it shows how long they wait.
    pub fn is_half_full(&self, in_flight: usize, delay_max: Duration) -> bool {
        let half = match self.places {
            Some(places) => places.count.div_ceil(2),
            None => places_min(delay_max).div_ceil(4) * 3,
        };
        !delay_max.is_zero() && self.taken(in_flight) >= half
    }

    fn taken(&self, in_flight: usize) -> usize {
        in_flight.saturating_sub(self.started.load(Relaxed))
    }
}

fn places_min(delay_max: Duration) -> usize {
    ((PER_SECOND_MIN as f64 * delay_max.as_secs_f64()) as usize).max(PLACES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY_MAX: Duration = Duration::from_millis(50);
    const MANY: usize = 100_000;
    /// The least in [`DELAY_MAX`].
    const FEW: usize = 1_000;

    /// A window in which `done` messages were done that had waited so long each.
    fn window(pace: &mut Pace, done: usize, delay: Duration) {
        for _ in 0..done {
            pace.waited(Hop::Commit, delay);
            pace.done();
        }
        pace.end_window(MANY, DELAY_MAX, WINDOW);
    }

    #[test]
    fn what_waits_too_long_gets_the_places_that_it_fills_in_time_and_grows_out_of_them() {
        let mut pace = Pace::default();
        window(&mut pace, 8_000, DELAY_MAX);
        assert_eq!(pace.check(MANY), Ok(()), "as long as it may be");
        window(&mut pace, 8_000, 4 * DELAY_MAX);
        let places = Places { count: 4_000, delay: 4 * DELAY_MAX, delay_max: DELAY_MAX, per_second: 80_000 };
        assert_eq!(pace.check(3_999), Ok(()));
        assert_eq!(pace.check(4_000), Err(places));
        assert!(!pace.is_half_full(1_999, DELAY_MAX) && pace.is_half_full(2_000, DELAY_MAX));
        window(&mut pace, 1_000, DELAY_MAX / 2);
        assert_eq!(pace.check(4_499), Ok(()));
        assert!(pace.check(4_500).is_err());
        let mut windows = 0;
        while pace.check(MANY).is_err() {
            window(&mut pace, 1_000, DELAY_MAX / 2);
            windows += 1;
        }
        assert!((10..40).contains(&windows), "{windows}");
        assert!(pace.is_idle());
    }

    #[test]
    fn a_slow_machine_leaves_a_few_places_and_handlers_that_run_take_none() {
        let mut pace = Pace::default();
        pace.waited(Hop::Commit, 10 * DELAY_MAX);
        pace.end_window(FEW, DELAY_MAX, WINDOW);
        assert_eq!(pace.check(MANY), Ok(()), "so few always get in");
        window(&mut pace, 1, 10 * DELAY_MAX);
        assert_eq!(pace.check(FEW - 1), Ok(()));
        assert_eq!(pace.check(FEW).unwrap_err().per_second, PER_SECOND_MIN);
        let starter = pace.starter();
        let running = starter.start();
        assert_eq!(pace.check(FEW), Ok(()));
        assert!(!pace.is_idle());
        drop(running);
        assert!(pace.check(FEW).is_err());
        pace.end_window(MANY, Duration::ZERO, WINDOW);
        assert_eq!(pace.check(MANY), Ok(()), "any wait is fine");
        assert!(!pace.is_half_full(MANY, Duration::ZERO));
        assert!(pace.is_half_full(FEW * 3 / 4, DELAY_MAX) && !pace.is_half_full(FEW * 3 / 4 - 1, DELAY_MAX));
    }

    #[test]
    fn waits_add_up_and_places_grow_with_the_time_that_has_passed() {
        let mut pace = Pace::default();
        for hop in [Hop::Admission, Hop::Turn, Hop::Commit] {
            pace.waited(hop, DELAY_MAX / 2);
        }
        pace.end_window(MANY, DELAY_MAX, WINDOW);
        assert!(pace.check(FEW).is_err());
        pace.end_window(0, DELAY_MAX, 2 * WINDOW);
        assert_eq!(pace.check(1_264), Ok(()), "1,000, 1,125, 1,265");
        assert!(pace.check(1_265).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_a_thread_ends_with_the_first_start() {
        let pace = Pace::default();
        let starter = pace.starter();
        tokio::time::advance(DELAY_MAX).await;
        assert_eq!(starter.waited(), DELAY_MAX);
        drop(starter.start());
        tokio::time::advance(DELAY_MAX).await;
        drop(starter.start());
        assert_eq!(starter.waited(), DELAY_MAX);
    }
}
