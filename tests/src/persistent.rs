//! A client that repeats a call, under its idempotency key, until the grid says how it ended.

use crate::client::{Client, with_key};
use afdg_proto::status::to_call_error;
use afdg_types::{AgentError, CallError, Retry};
use anyhow::{Context, bail};
use prost::Message;
use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Request, Status};

/// The deadline of one attempt, if none is set. Within it the grid retries by itself.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
/// How much later than that an answer is waited for.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// How long one call is repeated.
const CALL_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Speaks with one extension until that fails, then with the next.
pub struct Persistent {
    clients: Vec<Client>,
    place: AtomicUsize,
    repeats: AtomicU64,
    attempt_limit: Duration,
}

impl Persistent {
    /// Begins with the extension at `first`, counted around.
    pub fn new(endpoints: &[String], first: usize) -> anyhow::Result<Self> {
        let clients: Vec<_> =
            endpoints.iter().map(|endpoint| Client::lazy(endpoint)).collect::<Result<_, _>>()?;
        let (place, repeats) = (AtomicUsize::new(first), AtomicU64::new(0));
        Ok(Self { clients, place, repeats, attempt_limit: ATTEMPT_LIMIT })
    }

    /// Gives up an attempt after so long: the shorter, the more is repeated.
    pub fn with_attempt_limit(self, attempt_limit: Duration) -> Self {
        Self { attempt_limit, ..self }
    }

    /// Attempts beyond the first of all calls.
    pub fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }

    /// The response. An error if the agent refuses, if the grid says that no repeating helps, or if the
    /// outcome is still not known after a minute.
    pub async fn call<Q, A>(&self, path: &str, request: Q, key: &str) -> anyhow::Result<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let answer = self.call_or_refusal(path, request, key).await?;
        answer.or_else(|refusal| refused(path, &CallError::Agent(refusal))).with_context(|| the_key(key))
    }

    /// The response, or the agent's refusal.
    pub async fn call_or_refusal<Q, A>(
        &self,
        path: &str,
        request: Q,
        key: &str,
    ) -> anyhow::Result<Result<A, AgentError>>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.repeat(path, || with_key(request.clone(), key)).await.with_context(|| the_key(key))
    }

    /// The same of a method that only reads, which needs no key.
    pub async fn read<Q, A>(&self, path: &str, request: Q) -> anyhow::Result<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let answer = self.repeat(path, || Ok(Request::new(request.clone()))).await?;
        answer.or_else(|refusal| refused(path, &CallError::Agent(refusal)))
    }

    async fn repeat<Q, A>(
        &self,
        path: &str,
        request: impl Fn() -> Result<Request<Q>, Status>,
    ) -> anyhow::Result<Result<A, AgentError>>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let give_up = Instant::now() + CALL_LIMIT;
        loop {
            let error = match self.attempt(path, request()?).await? {
                Ok(answer) => return Ok(Ok(answer)),
                Err(CallError::Agent(refusal)) => return Ok(Err(refusal)),
                Err(error) => error,
            };
            match &error {
                CallError::Grid(grid) if grid.retry() != Retry::Never => {}
                error => return refused(path, error),
            }
            if Instant::now() > give_up {
                bail!("{path} was repeated for {CALL_LIMIT:?}; the last error: {error:?}");
            }
            self.repeats.fetch_add(1, Ordering::Relaxed);
            // Whatever it was, another extension may know better.
            self.place.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt<Q, A>(&self, path: &str, mut request: Request<Q>) -> anyhow::Result<Result<A, CallError>>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let place = self.place.load(Ordering::Relaxed) % self.clients.len().max(1);
        let client = self.clients.get(place).context("no extension is known")?;
        request.set_timeout(self.attempt_limit);
        let limit = self.attempt_limit + ANSWER_GRACE;
        let answer = tokio::time::timeout(limit, client.request(path, request)).await;
        let status = match answer {
            Ok(Ok(answer)) => return Ok(Ok(answer)),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("no answer long after the call's own limit"),
        };
        Ok(Err(to_call_error(&status)))
    }
}

fn refused<T>(path: &str, error: &CallError) -> anyhow::Result<T> {
    bail!("{path} was refused: {error:?}")
}

fn the_key(key: &str) -> String {
    format!("the key {key}")
}
