//! Many calls in flight on one `Grid/Pipe` stream, each awaited by itself.
//!
//! A stream that breaks fails the calls in flight with an unknown outcome; the next call opens a new one.
//! Nothing is retried here: the caller knows its idempotency keys.

use super::{Client, status_of};
use afdg_proto::{
    pb::v1::{CallRequest, CallResponse, PipeRequest, PipeResponse, call_result, pipe_request},
    status::to_call_error,
};
use afdg_types::{CallError, GridError, Reason, limits::PIPE_IN_FLIGHT_CALLS_MAX};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

type Outcome = Result<CallResponse, CallError>;

/// Cheap to clone; all clones share one stream.
#[derive(Clone)]
pub struct Pipe {
    client: Client,
    stream: Arc<tokio::sync::Mutex<Option<Stream>>>,
}

/// One open stream: what is sent on it, and who waits for what.
#[derive(Clone)]
struct Stream {
    requests: mpsc::Sender<PipeRequest>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, oneshot::Sender<Outcome>>,
    next_id: u64,
    /// Why the stream is no more; no call is added from then on.
    broken: Option<Status>,
}

impl Pipe {
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), stream: Arc::default() }
    }

    pub async fn call(&self, call: CallRequest) -> Outcome {
        let stream = self.open().await?;
        let (answer, outcome) = oneshot::channel();
        let id = {
            let mut waiting = lock(&stream.waiting);
            if let Some(status) = &waiting.broken {
                return Err(unknown(status));
            }
            waiting.next_id += 1;
            let id = waiting.next_id;
            waiting.calls.insert(id, answer);
            id
        };
        let message = Some(pipe_request::Message::Call(call));
        if stream.requests.send(PipeRequest { id, message }).await.is_err() {
            // The reader sees the stream's end as well, and answers with the reason.
            tracing::debug!(id, "a pipe ended while a call was sent");
        }
        match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => Err(unknown(&Status::unavailable("the pipe ended"))),
        }
    }

    /// The open stream, or a new one where none is or the last is broken.
    async fn open(&self) -> Result<Stream, CallError> {
        let mut current = self.stream.lock().await;
        if let Some(stream) = &*current
            && lock(&stream.waiting).broken.is_none()
        {
            return Ok(stream.clone());
        }
        let (requests, queue) = mpsc::channel(PIPE_IN_FLIGHT_CALLS_MAX);
        let waiting = Arc::<Mutex<Waiting>>::default();
        // Nothing was sent yet: whatever happens here took no effect.
        let responses = self.client.grid().pipe(ReceiverStream::new(queue)).await.map_err(|status| {
            let what = format!("no pipe to {}: {}", self.client.endpoint(), status.message());
            CallError::Grid(GridError::new(Reason::Unreachable, what))
        })?;
        tokio::spawn(read(responses.into_inner(), waiting.clone()));
        let stream = Stream { requests, waiting };
        *current = Some(stream.clone());
        Ok(stream)
    }
}

/// Hands every response to who waits for it, until the stream ends.
async fn read(mut responses: Streaming<PipeResponse>, waiting: Arc<Mutex<Waiting>>) {
    let end = loop {
        match responses.message().await {
            Ok(Some(response)) => {
                let caller = lock(&waiting).calls.remove(&response.id);
                if let Some(caller) = caller {
                    // Who no longer waits needs no answer.
                    let _ = caller.send(outcome_of(response));
                }
            }
            Ok(None) => break Status::unavailable("the server ended the pipe"),
            Err(status) => break status,
        }
    };
    let mut waiting = lock(&waiting);
    for (_, caller) in waiting.calls.drain() {
        let _ = caller.send(Err(unknown(&end)));
    }
    waiting.broken = Some(end);
}

/// The response or the error in one answer of a pipe.
pub fn outcome_of(response: PipeResponse) -> Outcome {
    match response.result.and_then(|result| result.result) {
        Some(call_result::Result::Response(response)) => Ok(response),
        Some(call_result::Result::Error(error)) => Err(to_call_error(&status_of(&error))),
        None => {
            let empty = GridError::new(Reason::Internal, "the grid answered with neither response nor error");
            Err(empty.into())
        }
    }
}

fn unknown(status: &Status) -> CallError {
    let what = format!("the pipe broke while the call was under way: {}", status.message());
    GridError::new(Reason::OutcomeUnknown, what).into()
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
