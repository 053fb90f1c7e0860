//! What a run counts, and the figures that follow.

use super::cpu::Used;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Latencies above this are recorded as this.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// When answers count.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub start: Instant,
    pub end: Instant,
}

impl Window {
    pub fn after(warm_up: Duration, length: Duration) -> Self {
        let start = Instant::now() + warm_up;
        Self { start, end: start + length }
    }

    fn holds(&self, at: Instant) -> bool {
        self.start <= at && at < self.end
    }
}

pub struct Recorder {
    window: Window,
    latencies_us: Option<Histogram<u64>>,
    operations: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Recorder {
    pub fn new(window: Window) -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).ok();
        Self { window, latencies_us, operations: 0, errors: 0, first_error: None }
    }

    /// A call that was sent at `sent` was answered well at `now`.
    pub fn answered(&mut self, sent: Instant, now: Instant) {
        if !self.window.holds(now) {
            return;
        }
        self.operations += 1;
        if let Some(latencies) = &mut self.latencies_us {
            latencies.saturating_record(now.duration_since(sent).as_micros().max(1) as u64);
        }
    }

    /// A call failed; counted whenever it happens, in the warm-up too.
    pub fn failed(&mut self, calls: u64, error: impl FnOnce() -> String) {
        self.errors += calls;
        if self.first_error.is_none() {
            self.first_error = Some(error());
        }
    }

    pub fn merge(&mut self, other: Recorder) {
        if let (Some(own), Some(other)) = (&mut self.latencies_us, &other.latencies_us) {
            // Both have the same bounds, so that nothing is out of range.
            let _ = own.add(other);
        }
        self.operations += other.operations;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    pub fn into_run(
        self,
        workload: &'static str,
        transport: &'static str,
        in_flight: usize,
        used: Used,
    ) -> Run {
        let seconds = self.window.end.duration_since(self.window.start).as_secs_f64();
        let at = |quantile| self.latencies_us.as_ref().map_or(0, |all| all.value_at_quantile(quantile));
        let per_operation = |used: Option<Duration>| {
            used.filter(|_| self.operations > 0)
                .map(|used| used.as_secs_f64() * 1_000_000.0 / self.operations as f64)
        };
        Run {
            workload,
            transport,
            in_flight,
            rate_per_s: self.operations as f64 / seconds,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.latencies_us.as_ref().map_or(0, |all| all.max()),
            errors: self.errors,
            first_error: self.first_error,
            valid: self.errors == 0 && self.operations > 0,
            seconds,
            operations: self.operations,
            client_cpu_us_per_op: per_operation(used.client),
            server_cpu_us_per_op: per_operation(used.server),
        }
    }
}

/// The figures of one run, as they are printed.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub workload: &'static str,
    pub transport: &'static str,
    pub in_flight: usize,
    pub rate_per_s: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    pub errors: u64,
    pub first_error: Option<String>,
    /// False if any call failed or none was answered: then no figure here may be quoted.
    pub valid: bool,
    pub seconds: f64,
    pub operations: u64,
    pub client_cpu_us_per_op: Option<f64>,
    pub server_cpu_us_per_op: Option<f64>,
}

impl Run {
    /// One line for who watches.
    pub fn summary(&self) -> String {
        let what = format!("{:8} {:5} {:4} in flight", self.workload, self.transport, self.in_flight);
        if self.valid {
            return format!("{what}: {:9.0} calls/s, p99 {} us", self.rate_per_s, self.p99_us);
        }
        let why = self.first_error.as_deref().unwrap_or("no call was answered in time");
        format!("{what}: NOT VALID, {} errors; the first: {why}", self.errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(seconds: u64) -> Recorder {
        Recorder::new(Window::after(Duration::from_secs(1), Duration::from_secs(seconds)))
    }

    const NONE: Used = Used { client: None, server: None };

    #[test]
    fn only_answers_within_the_window_count() {
        let mut recorder = recorder(2);
        let Window { start, end } = recorder.window;
        let ms = Duration::from_millis;
        for at in [start - ms(1), start, start + ms(999), end - ms(1), end, end + ms(5)] {
            recorder.answered(at - ms(1), at);
        }
        let run = recorder.into_run("update", "pipe", 1, NONE);
        assert_eq!((run.operations, run.rate_per_s), (3, 1.5));
        assert!(run.valid && run.client_cpu_us_per_op.is_none());
    }

    #[test]
    fn percentiles_and_cpu_follow_from_what_was_recorded() {
        let mut halves = [recorder(10), recorder(10)];
        for us in 1..=1_000u64 {
            let half = &mut halves[us as usize % 2];
            let at = half.window.start + Duration::from_secs(1);
            half.answered(at - Duration::from_micros(us), at);
        }
        let [mut one, other] = halves;
        one.merge(other);
        let used = Used { client: Some(Duration::from_millis(3)), server: Some(Duration::from_millis(20)) };
        let run = one.into_run("read", "unary", 16, used);
        assert_eq!((run.operations, run.p50_us, run.p99_us, run.max_us), (1_000, 500, 990, 1_000));
        assert_eq!((run.client_cpu_us_per_op, run.server_cpu_us_per_op), (Some(3.0), Some(20.0)));
    }

    #[test]
    fn a_run_with_an_error_is_never_valid() {
        let mut first = recorder(1);
        let at = first.window.start;
        first.answered(at, at);
        first.failed(2, || "one".to_owned());
        let mut second = recorder(1);
        second.failed(1, || "two".to_owned());
        first.merge(second);
        let run = first.into_run("hot", "pipe", 1, NONE);
        assert_eq!((run.valid, run.errors, run.first_error.as_deref()), (false, 3, Some("one")));
        assert!(run.summary().contains("NOT VALID, 3 errors; the first: one"));
    }

    #[test]
    fn a_run_without_answers_is_not_valid() {
        let run = recorder(1).into_run("hot", "pipe", 1, NONE);
        assert!(!run.valid && run.rate_per_s == 0.0 && run.summary().contains("no call was answered"));
    }
}
