//! One call as a client makes it, and what is known of its outcome afterwards.

use afdg_proto::status::to_call_error;
use afdg_tests::client::{Client, with_key};
use afdg_types::{CallError, GridError, Reason, Retry};
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Request, Status};

/// The deadline of one attempt; within it the grid retries by itself.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// How much later than that an answer is waited for.
const ANSWER_GRACE: Duration = Duration::from_millis(500);
/// How long one call is repeated under its key.
const CALL_LIMIT: Duration = Duration::from_secs(90);
/// After an attempt that failed.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<A> {
    Answered(A),
    /// The grid says that nothing took effect.
    NoEffect,
    /// The same, and for good: an earlier attempt was given up, and the call that its turn made was cut short.
    Cancelled,
    Unknown,
}

/// Calls, with when they began and ended.
#[derive(Clone, Debug)]
pub struct Called<A> {
    pub called: u64,
    pub ended: u64,
    pub outcome: Outcome<A>,
}

/// How often what happened. An attempt is one request; an operation is repeated until its outcome is known
/// if it has a key.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub operations: u64,
    pub answered: u64,
    pub no_effect: u64,
    pub unknown: u64,
    pub attempts: u64,
    /// Attempts beyond the first of their operation.
    pub repeats: u64,
    /// Attempts without an answer, by reason.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// Calls the extensions of a grid.
pub struct Caller {
    extensions: Vec<Client>,
    began: Instant,
    counts: Mutex<Counts>,
    /// What no client should ever be told.
    wrong: Mutex<Vec<String>>,
}

impl Caller {
    pub fn new(endpoints: &[String], began: Instant) -> anyhow::Result<Self> {
        let extensions = endpoints.iter().map(|endpoint| Client::lazy(endpoint)).collect::<Result<_, _>>()?;
        Ok(Self { extensions, began, counts: Mutex::default(), wrong: Mutex::default() })
    }

    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    pub fn wrong(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    /// Something that breaks a promise by itself.
    pub fn tell_wrong(&self, what: String) {
        eprintln!("WRONG: {what}");
        lock(&self.wrong).push(what);
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// One attempt without a key, beginning with the extension at `first`, counted around.
    pub async fn once<Q, A>(&self, first: usize, path: &str, request: Q) -> Called<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let called = self.now();
        let outcome = self.attempt(first, path, request, None).await;
        self.called(called, 1, outcome)
    }

    /// Repeats a reading call until it is answered.
    pub async fn read<Q, A>(&self, first: usize, path: &str, request: Q) -> Called<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.repeat(first, path, request, None).await
    }

    /// Repeats under the key until it is answered.
    pub async fn with_key<Q, A>(&self, first: usize, path: &str, request: Q, key: &str) -> Called<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.repeat(first, path, request, Some(key)).await
    }

    async fn repeat<Q, A>(&self, first: usize, path: &str, request: Q, key: Option<&str>) -> Called<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let (called, begin) = (self.now(), Instant::now());
        let mut may_have_happened = false;
        for attempt in 0.. {
            match self.attempt(first + attempt, path, request.clone(), key).await {
                Outcome::Answered(answer) => {
                    return self.called(called, attempt as u64 + 1, Outcome::Answered(answer));
                }
                Outcome::Cancelled => return self.called(called, attempt as u64 + 1, Outcome::Cancelled),
                Outcome::NoEffect => {}
                Outcome::Unknown => may_have_happened = true,
            }
            if begin.elapsed() > CALL_LIMIT {
                let outcome = if may_have_happened { Outcome::Unknown } else { Outcome::NoEffect };
                return self.called(called, attempt as u64 + 1, outcome);
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.called(called, 0, Outcome::Unknown)
    }

    fn called<A>(&self, called: u64, attempts: u64, outcome: Outcome<A>) -> Called<A> {
        let mut counts = lock(&self.counts);
        counts.operations += 1;
        counts.attempts += attempts;
        counts.repeats += attempts.saturating_sub(1);
        match outcome {
            Outcome::Answered(_) => counts.answered += 1,
            Outcome::NoEffect | Outcome::Cancelled => counts.no_effect += 1,
            Outcome::Unknown => counts.unknown += 1,
        }
        drop(counts);
        Called { called, ended: self.now(), outcome }
    }

    async fn attempt<Q, A>(&self, extension: usize, path: &str, request: Q, key: Option<&str>) -> Outcome<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let request = match key {
            Some(key) => with_key(request, key),
            None => Ok(Request::new(request)),
        };
        let error = match request {
            Ok(request) => match self.ask(extension, path, request).await {
                Ok(answer) => return Outcome::Answered(answer),
                Err(status) => to_call_error(&status),
            },
            Err(status) => to_call_error(&status),
        };
        let error = match error {
            CallError::Grid(error) => error,
            CallError::Agent(refusal) if refusal.reason == Reason::CallCancelled.as_str() => {
                return Outcome::Cancelled;
            }
            // No workload asks for what an agent may refuse.
            CallError::Agent(refusal) => {
                self.tell_wrong(format!("{path} was refused by the agent: {refusal:?}"));
                return Outcome::Unknown;
            }
        };
        *lock(&self.counts).reasons.entry(error.reason.as_str()).or_default() += 1;
        if error.reason == Reason::IdReused {
            self.tell_wrong(format!("{path}, key {key:?}: told to be another request's: {error:?}"));
        }
        if may_have_happened(&error) { Outcome::Unknown } else { Outcome::NoEffect }
    }

    async fn ask<Q, A>(&self, extension: usize, path: &str, mut request: Request<Q>) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let extension = &self.extensions[extension % self.extensions.len()];
        request.set_timeout(ATTEMPT_LIMIT);
        tokio::time::timeout(ATTEMPT_LIMIT + ANSWER_GRACE, extension.request(path, request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer long after the call's own limit")))
    }
}

/// Taken at its word: if the grid says that nothing happened, and it did, the history shows it.
fn may_have_happened(error: &GridError) -> bool {
    match error.retry() {
        Retry::Unknown => true,
        Retry::Same | Retry::Elsewhere => false,
        // An id that is too old may have taken effect long ago; of a defect nothing is known.
        Retry::Never => matches!(error.reason, Reason::IdExpired | Reason::Internal),
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
