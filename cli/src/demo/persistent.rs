//! Calls that are repeated until the grid says how they ended.

use crate::client::{CallFailure, Pipe};
use afdg_proto::pb::v1::CallRequest;
use afdg_types::{CallError, GridError, Reason, Retry};
use bytes::Bytes;
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The grid's limit of one attempt.
const ATTEMPT_MS_MAX: u64 = 10_000;
/// How much longer than that an answer is waited for: past it the outcome is unknown.
const ANSWER_GRACE_MS: u64 = 5_000;
/// How long one call is repeated.
const CALL_MS_MAX: u64 = 120_000;
/// A grid that has answered nobody for so long is taken for gone: no call is made any more.
const SILENCE_MS_MAX: u64 = 30_000;
/// Pauses between attempts, doubled each time, unless the grid names one.
const PAUSE_MS_MIN: u64 = 10;
const PAUSE_MS_MAX: u64 = 1_000;

/// Makes calls, and counts what it took.
pub struct Persistent {
    pipe: Pipe,
    retries: AtomicU64,
    unknown_outcomes: AtomicU64,
    /// Since when no call has succeeded, if the last one failed.
    failing_since: Mutex<Option<Instant>>,
}

impl Persistent {
    pub fn new(pipe: Pipe) -> Self {
        let (retries, unknown_outcomes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { pipe, retries, unknown_outcomes, failing_since: Mutex::default() }
    }

    /// Attempts beyond the first of all calls.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Attempts of which the grid could not say whether they took effect.
    pub fn unknown_outcomes(&self) -> u64 {
        self.unknown_outcomes.load(Ordering::Relaxed)
    }

    /// The response, or the error that no repeating helps with. Each attempt has the same key.
    pub async fn call(&self, call: CallRequest) -> Result<Bytes, CallFailure> {
        let give_up = Instant::now() + Duration::from_millis(CALL_MS_MAX);
        let mut pause_ms = PAUSE_MS_MIN;
        loop {
            if self.is_silent() {
                let what = format!("no call has succeeded for {SILENCE_MS_MAX} ms, so none is made any more");
                return Err(CallFailure::of_call_error(GridError::new(Reason::NoLeader, what).into()));
            }
            let error = match self.attempt(call.clone()).await {
                Ok(response) => {
                    *self.failing_since() = None;
                    return Ok(response);
                }
                Err(error) => error,
            };
            let failure = CallFailure::of_call_error(error);
            if failure.retry != Retry::Never && failure.reason != Reason::Overloaded.as_str() {
                self.failing_since().get_or_insert_with(Instant::now);
            }
            if failure.retry == Retry::Unknown {
                self.unknown_outcomes.fetch_add(1, Ordering::Relaxed);
            }
            let pause = Duration::from_millis(failure.retry_after_ms.unwrap_or(pause_ms).min(PAUSE_MS_MAX));
            if failure.retry == Retry::Never || self.is_silent() || Instant::now() + pause > give_up {
                return Err(failure);
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }

    fn is_silent(&self) -> bool {
        self.failing_since().is_some_and(|since| since.elapsed() > Duration::from_millis(SILENCE_MS_MAX))
    }

    fn failing_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failing_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn attempt(&self, call: CallRequest) -> Result<Bytes, CallError> {
        let call = CallRequest { timeout_ms: ATTEMPT_MS_MAX, ..call };
        let limit = Duration::from_millis(ATTEMPT_MS_MAX + ANSWER_GRACE_MS);
        match tokio::time::timeout(limit, self.pipe.call(call)).await {
            Ok(outcome) => outcome.map(|response| response.response),
            Err(_) => {
                let what = "no answer came long after the call's own time limit";
                Err(GridError::new(Reason::DeadlineOutcomeUnknown, what).into())
            }
        }
    }
}
