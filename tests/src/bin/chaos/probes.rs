//! How long each region is without service: a client for each region that adds to a counter there, one call
//! after the other, through whichever extension answers first.

use crate::caller::lock;
use afdg_example_counter::v1::{AddRequest, Count};
use afdg_proto::pb::admin::Region;
use afdg_tests::{
    client::{Client, with_key},
    load::keys_in,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

const ADD: &str = "/counter.v1.Counter/Add";
/// Between an answer and the next call.
const PAUSE: Duration = Duration::from_millis(50);
/// After which another extension is asked as well, so that the time of a frozen one is not a region's.
const SECOND_AFTER: Duration = Duration::from_millis(200);
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// Nanoseconds since the run began.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub called: u64,
    pub answered: u64,
}

pub struct Probes {
    regions: Vec<Arc<Probe>>,
    tasks: JoinSet<()>,
}

struct Probe {
    region: u64,
    counter: String,
    extensions: Vec<Client>,
    began: Instant,
    answered: Mutex<Vec<Answered>>,
    wrong: Mutex<Option<String>>,
}

impl Probes {
    pub fn start(
        endpoints: &[String],
        regions: &[Region],
        began: Instant,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let mut probes = Self { regions: Vec::new(), tasks: JoinSet::new() };
        for region in regions {
            let extensions =
                endpoints.iter().map(|endpoint| Client::lazy(endpoint)).collect::<Result<_, _>>()?;
            let probe = Arc::new(Probe {
                region: region.id,
                counter: keys_in(region, "counter.v1.Counter", "probed").next().unwrap_or_default(),
                extensions,
                began,
                answered: Mutex::default(),
                wrong: Mutex::default(),
            });
            probes.regions.push(probe.clone());
            probes.tasks.spawn(probe.run(stop.clone()));
        }
        Ok(probes)
    }

    /// Waits for the last calls; returns the answers of each region and what was wrong.
    pub async fn finish(mut self) -> (BTreeMap<u64, Vec<Answered>>, Vec<String>) {
        while self.tasks.join_next().await.is_some() {}
        let wrong = self.regions.iter().filter_map(|probe| lock(&probe.wrong).clone()).collect();
        let answered = self.regions.iter().map(|probe| (probe.region, lock(&probe.answered).clone()));
        (answered.collect(), wrong)
    }
}

impl Probe {
    async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) {
        for number in 1_i64.. {
            if *stop.borrow() {
                return;
            }
            let called = self.now();
            let value = self.add(number).await;
            lock(&self.answered).push(Answered { called, answered: self.now() });
            if value != number {
                let what = format!("addition {number} to {} was answered {value}", self.counter);
                lock(&self.wrong).get_or_insert(what);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Until somebody answers, for as long as it takes.
    async fn add(self: &Arc<Self>, number: i64) -> i64 {
        loop {
            let mut attempts = JoinSet::new();
            for extension in 0..self.extensions.len() {
                let (probe, place) = (self.clone(), (extension + number as usize) % self.extensions.len());
                attempts.spawn(async move {
                    tokio::time::sleep(SECOND_AFTER * extension as u32).await;
                    probe.ask(place, number).await
                });
            }
            while let Some(attempt) = attempts.join_next().await {
                if let Ok(Some(value)) = attempt {
                    return value;
                }
            }
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    async fn ask(&self, extension: usize, number: i64) -> Option<i64> {
        let request = AddRequest { counter: self.counter.clone(), delta: 1 };
        let mut request = with_key(request, &format!("{}-{number}", self.counter)).ok()?;
        request.set_timeout(ATTEMPT_LIMIT);
        let answer = self.extensions[extension].request::<_, Count>(ADD, request);
        Some(tokio::time::timeout(ATTEMPT_LIMIT, answer).await.ok()?.ok()?.value)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The longest that a call of a region has waited.
pub fn longest_wait(answers: &[Answered]) -> Duration {
    let waits = answers.iter().map(|answer| answer.answered - answer.called);
    Duration::from_nanos(waits.max().unwrap_or_default())
}

/// The longest that a call of a region has waited which was under way between these times.
pub fn longest_wait_within(answers: &[Answered], began: u64, ended: u64) -> Duration {
    let then = answers.iter().filter(|answer| answer.called < ended && began < answer.answered);
    longest_wait(&then.copied().collect::<Vec<_>>())
}

/// How long after `death` the region was without service. None if it has not answered since.
pub fn unavailable_after(answers: &[Answered], death: u64) -> Option<Duration> {
    /// A call under way that ends sooner was answered before the death, or did not need the leader.
    const UNDISTURBED_NS: u64 = 100_000_000;
    let under_way = answers.iter().find(|answer| answer.called < death && death < answer.answered);
    let waited = under_way.map(|answer| answer.answered - death).filter(|wait| *wait > UNDISTURBED_NS);
    let next = || answers.iter().find(|answer| answer.called >= death).map(|answer| answer.answered - death);
    waited.or_else(next).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn answers(times_ms: &[(u64, u64)]) -> Vec<Answered> {
        let answer =
            |(called, answered): &(u64, u64)| Answered { called: called * MS, answered: answered * MS };
        times_ms.iter().map(answer).collect()
    }

    #[test]
    fn the_time_without_service_is_that_of_the_call_under_way_or_of_the_next() {
        // The leader dies at 1,000 ms.
        let after = |times: &[(u64, u64)]| unavailable_after(&answers(times), 1_000 * MS);
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(after(&[(900, 910), (990, 2_500), (2_550, 2_560)]), ms(1_500));
        assert_eq!(after(&[(990, 1_001), (1_051, 2_400), (2_450, 2_460)]), ms(1_400));
        assert_eq!(after(&[(900, 910), (1_001, 2_000)]), ms(1_000));
        assert_eq!(after(&[(900, 910)]), None);
    }

    #[test]
    fn the_longest_wait_is_that_of_one_call() {
        let waited = longest_wait(&answers(&[(0, 10), (60, 1_260), (1_300, 1_310)]));
        assert_eq!(waited, Duration::from_millis(1_200));
        assert_eq!(longest_wait(&[]), Duration::ZERO);
        let of = |began, ended| {
            longest_wait_within(&answers(&[(0, 10), (60, 1_260), (1_300, 1_310)]), began * MS, ended * MS)
        };
        assert_eq!((of(20, 50), of(20, 70)), (Duration::ZERO, Duration::from_millis(1_200)));
        assert_eq!(of(1_260, 1_400), Duration::from_millis(10));
    }
}
