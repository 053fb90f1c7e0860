//! Types that send a region more than it lets in: what this router has heard, and refuses by itself.
//!
//! A region refuses what is past the rate of a type (`turns_per_second_max`), or more than it gets done in time, and
//! says how many it lets in a second. Each of those messages costs it and the way there as much as one that gets
//! in, up to its turn, so a flood of one type takes time from the others.
//! Therefore a router that was refused remembers it. Until the pause of that refusal is over it forwards none of
//! the type's messages to that region, and for a second after it a quarter more than that: the region stays
//! the judge of who gets in, hears of more than it can take, and does not hear of the rest.
//!
//! The places are given by the generic cell rate algorithm (ITU-T I.371, annex A, virtual scheduling). What a
//! router refuses has not been forwarded, so it has had no effect by this attempt; if its id was accepted before,
//! its sender is told to come again like everybody else, and hears of that then.

use afdg_types::{GridError, PER_SECOND, Reason, RegionId};
use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// A refusal is forgotten after this, unless there is another one.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Pairs of a region and a type that are remembered at once. What is past it is forwarded.
const REMEMBERED_MAX: usize = 1_024;
/// Places that nobody took are kept for this long, since callers do not come evenly.
const SAVED_UP: Duration = Duration::from_millis(50);
/// Longest pause that a caller is told.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Rates {
    refused: Mutex<Refusals>,
    /// Refusals that are remembered: as good as always none, and nothing needs to be looked up.
    count: AtomicUsize,
}

#[derive(Default)]
struct Refusals {
    regions: HashMap<RegionId, HashMap<String, Refused>>,
    count: usize,
    /// When it was looked for refusals that are old.
    looked: Option<Instant>,
}

/// A type that a region has refused lately.
struct Refused {
    /// As the region gave it.
    error: GridError,
    per_second: u64,
    /// When it gave the last one.
    at: Instant,
    /// When the next place would come up if nobody saved places up.
    next_place: Instant,
    /// Messages that this router refused since it let one through.
    turned_away: u32,
}

impl Rates {
    /// Takes a place for one message among those that a region lets in; or refuses it as the region would, with
    /// the time until there is a place for it.
    pub(crate) fn check(&self, region: RegionId, agent_type: &str, now: Instant) -> Result<(), GridError> {
        if self.count.load(Relaxed) == 0 {
            return Ok(());
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = refused.get(region, agent_type, now) else {
            if now.saturating_duration_since(refused.looked.unwrap_or(now)) > REMEMBERED {
                refused.forget_old(now);
                self.count.store(refused.count, Relaxed);
            }
            refused.looked.get_or_insert(now);
            return Ok(());
        };
        let spacing = Duration::from_nanos(1_000_000_000 * 4 / 5 / known.per_second);
        let wait = known.next_place.saturating_duration_since(now).saturating_sub(SAVED_UP);
        if wait.is_zero() {
            known.next_place = known.next_place.max(now) + spacing;
            known.turned_away = 0;
            return Ok(());
        }
        // Those who are turned away one after the other are not told to come back at the same time.
        let wait = (wait + spacing.saturating_mul(known.turned_away)).min(RETRY_AFTER_MAX);
        known.turned_away = known.turned_away.saturating_add(1);
        let wait_ms = wait.as_nanos().div_ceil(1_000_000) as u64;
        Err(known.error.clone().retry_after_ms(wait_ms))
    }

    /// Remembers what a region has refused, if it says how many it lets in a second.
    pub(crate) fn learn(&self, region: RegionId, agent_type: &str, error: &GridError, now: Instant) {
        let per_second = error.metadata.get(PER_SECOND).and_then(|number| number.parse().ok());
        let Some(per_second) = per_second.filter(|_| error.reason == Reason::Overloaded) else { return };
        let per_second = u64::max(per_second, 1);
        let pause = Duration::from_millis(error.retry_after_ms.unwrap_or(0)).min(RETRY_AFTER_MAX);
        let next_place = now + pause + SAVED_UP;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = refused.get(region, agent_type, now) {
            known.error.clone_from(error);
            known.per_second = per_second;
            known.at = now;
            known.next_place = known.next_place.max(next_place);
            return;
        }
        if refused.count >= REMEMBERED_MAX {
            refused.forget_old(now);
        }
        if refused.count < REMEMBERED_MAX {
            let new = Refused { error: error.clone(), per_second, at: now, next_place, turned_away: 0 };
            refused.regions.entry(region).or_default().insert(agent_type.to_owned(), new);
            refused.count += 1;
        }
        self.count.store(refused.count, Relaxed);
    }
}

impl Refusals {
    fn get(&mut self, region: RegionId, agent_type: &str, now: Instant) -> Option<&mut Refused> {
        let types = self.regions.get_mut(&region)?;
        if types.get(agent_type).is_some_and(|known| known.is_old(now)) {
            types.remove(agent_type);
            self.count -= 1;
        }
        types.get_mut(agent_type)
    }

    fn forget_old(&mut self, now: Instant) {
        self.looked = Some(now);
        for types in self.regions.values_mut() {
            types.retain(|_, known| !known.is_old(now));
        }
        self.regions.retain(|_, types| !types.is_empty());
        self.count = self.regions.values().map(HashMap::len).sum();
    }
}

impl Refused {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) > REMEMBERED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "t.T";
    const REGION: RegionId = RegionId(1);

    fn refusal(pause_ms: u64) -> GridError {
        GridError::new(Reason::Overloaded, "t.T is at its limit turns_per_second_max = 100 in this region")
            .with(PER_SECOND, 100)
            .with("type", TYPE)
            .retry_after_ms(pause_ms)
    }

    fn at(ms: u64) -> impl Fn(Instant) -> Instant {
        move |start| start + Duration::from_millis(ms)
    }

    #[test]
    fn nothing_is_kept_back_that_no_region_has_refused() {
        let (rates, now) = (Rates::default(), Instant::now());
        assert!((0..1_000).all(|_| rates.check(REGION, TYPE, now).is_ok()));
        rates.learn(REGION, TYPE, &GridError::new(Reason::Overloaded, "full").retry_after_ms(50), now);
        assert!((0..1_000).all(|_| rates.check(REGION, TYPE, now).is_ok()), "that was not for its rate");
    }

    #[test]
    fn what_is_kept_back_is_refused_as_the_region_did_for_the_rest_of_the_pause() {
        let (rates, start) = (Rates::default(), Instant::now());
        rates.learn(REGION, TYPE, &refusal(10), start);
        let refused = rates.check(REGION, TYPE, at(4)(start)).unwrap_err();
        assert_eq!(refused, refusal(6));
        let later = rates.check(REGION, TYPE, at(4)(start)).unwrap_err();
        assert_eq!(later, refusal(6 + 8), "the next one comes a place later");
        let soon = Rates::default();
        soon.learn(REGION, TYPE, &refusal(10), start);
        let just_before = start + Duration::from_millis(10) - Duration::from_nanos(1);
        assert_eq!(soon.check(REGION, TYPE, just_before), Err(refusal(1)), "no pause is none");
        assert_eq!(rates.check(REGION, "t.U", at(4)(start)), Ok(()));
        assert_eq!(rates.check(RegionId(2), TYPE, at(4)(start)), Ok(()));
        assert_eq!(rates.check(REGION, TYPE, at(10)(start)), Ok(()), "the pause is over");
        assert!(rates.check(REGION, TYPE, at(10)(start)).is_err());
    }

    #[test]
    fn a_little_more_than_the_rate_gets_through_and_all_once_the_refusal_is_old() {
        let (rates, start) = (Rates::default(), Instant::now());
        rates.learn(REGION, TYPE, &refusal(10), start);
        let passed = |from: u64, to: u64| {
            (from..to).filter(|ms| rates.check(REGION, TYPE, at(*ms)(start)).is_ok()).count()
        };
        let first = passed(0, 1_000);
        assert!((120..=126).contains(&first), "{first}");
        assert_eq!(passed(1_001, 1_501), 500);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_makes_room() {
        let (rates, start) = (Rates::default(), Instant::now());
        let types = |from: usize| (from..from + REMEMBERED_MAX).map(|number| format!("t.T{number}"));
        let is_kept = |agent_type: &str, ms| {
            rates.learn(REGION, agent_type, &refusal(100), at(ms)(start));
            rates.check(REGION, agent_type, at(ms)(start)).is_err()
        };
        assert!(types(0).all(|agent_type| is_kept(&agent_type, 0)));
        assert!(!is_kept("t.More", 500));
        assert!(is_kept("t.More", 1_001));
        assert_eq!(rates.refused.lock().unwrap().count, 1);
        assert!(types(1).take(REMEMBERED_MAX - 1).all(|agent_type| is_kept(&agent_type, 1_001)));
        assert!(!is_kept("t.Another", 1_001));
    }
}
