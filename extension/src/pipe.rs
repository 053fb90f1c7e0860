//! `afdg.v1.Grid/Pipe`: many calls in flight on one stream.
//!
//! A task reads requests, keeps their calls going, and queues results as they come. A request holds a
//! place from when it is read until its result is taken by the transport. With all places taken the task
//! stops reading, which stops the client by HTTP/2's flow control; the calls go on, so a client that
//! does not read its results blocks nobody but itself.
//!
//! A client that goes on sending while its calls are refused for lack of room would take the time of those that
//! are not: each such refusal puts off the next read a little, so that a stream is refused so much and no more.

use crate::{
    budget::{Budget, Share},
    caller::Caller,
    grid::result_of,
};
use afdg_proto::{
    pb::v1::{CallResponse, PipeRequest, PipeResponse, call_result, pipe_request},
    status::{of_grid_error, to_call_error},
};
use afdg_runtime::{OnEnd, Tasks};
use afdg_types::{CallError, GridError, Reason, limits::PIPE_IN_FLIGHT_CALLS_MAX};
use futures::{FutureExt, Stream, StreamExt, stream::FuturesUnordered};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

const UNREAD_RETRY_AFTER_MS: u64 = 1_000;
/// How long a call that finds no room puts off the reading of further ones: 4,000 refusals a second at most.
const REFUSAL_PAUSE: Duration = Duration::from_micros(250);
/// Pauses that add up to less than this are not kept.
const REFUSAL_PAUSES_MIN: Duration = Duration::from_millis(4);
/// Bytes of a result besides its response.
const RESULT_BYTES: usize = 64;

/// Results in the order in which they became ready.
pub(crate) struct PipeStream {
    results: mpsc::Receiver<Queued>,
}

struct Queued {
    result: Result<PipeResponse, Status>,
    /// There was no room for the call.
    refused: bool,
    /// The call's place and its bytes, given back when the transport takes the result.
    _held: Option<(OwnedSemaphorePermit, Share)>,
}

/// Not what an agent says in its own name.
fn is_overload(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted
        && matches!(to_call_error(status), CallError::Grid(error) if error.reason == Reason::Overloaded)
}

fn is_far(reads_from: Instant) -> bool {
    reads_from.saturating_duration_since(Instant::now()) > REFUSAL_PAUSES_MIN
}

impl Stream for PipeStream {
    type Item = Result<PipeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.results.poll_recv(cx).map(|queued| queued.map(|queued| queued.result))
    }
}

pub(crate) fn start(
    tasks: &Tasks,
    caller: Caller,
    requests: Streaming<PipeRequest>,
    deadline: Option<Instant>,
    unread: &Budget,
) -> PipeStream {
    // One more for the status that ends the stream.
    let (sender, results) = mpsc::channel(PIPE_IN_FLIGHT_CALLS_MAX + 1);
    let pipe = Pipe { caller, deadline, results: sender, unread: unread.clone(), draining: tasks.draining() };
    tasks.spawn_until_done("pipe", OnEnd::Finish, pipe.run(requests));
    PipeStream { results }
}

struct Pipe {
    caller: Caller,
    deadline: Option<Instant>,
    results: mpsc::Sender<Queued>,
    unread: Budget,
    draining: CancellationToken,
}

impl Pipe {
    async fn run(self, mut requests: Streaming<PipeRequest>) {
        let places = Arc::new(Semaphore::new(PIPE_IN_FLIGHT_CALLS_MAX));
        let mut place = None;
        let mut calls = FuturesUnordered::new();
        // How the stream ends once all calls have ended.
        let mut end: Option<Result<(), Status>> = None;
        // Nothing is read before that.
        let mut reads_from = Instant::now();
        loop {
            if let (Some(end), true) = (&end, calls.is_empty()) {
                if let Err(status) = end {
                    let _ = self.results.try_send(Queued {
                        result: Err(status.clone()),
                        refused: false,
                        _held: None,
                    });
                }
                return;
            }
            tokio::select! {
                // Results first: they make room. Then what the client waits for least.
                biased;
                Some(queued) = calls.next() => {
                    let queued: Queued = queued;
                    let failed = queued.result.is_err();
                    if queued.refused {
                        reads_from = reads_from.max(Instant::now()) + REFUSAL_PAUSE;
                    }
                    // There is a place in the queue for each call; a closed one means the client is gone.
                    if self.results.try_send(queued).is_err() || failed {
                        return;
                    }
                }
                () = self.results.closed() => return,
                () = self.draining.cancelled(), if end.is_none() => end = Some(Err(draining())),
                () = tokio::time::sleep_until(reads_from), if end.is_none() && is_far(reads_from) => {}
                taken = Arc::clone(&places).acquire_owned(), if end.is_none() && place.is_none() => {
                    place = taken.ok();
                }
                request = requests.message(), if end.is_none() && place.is_some() && !is_far(reads_from) => {
                    match (request, place.take()) {
                        (Ok(Some(request)), Some(place)) => calls.push(self.call(request, place).boxed()),
                        (Ok(_), _) => end = Some(Ok(())),
                        (Err(status), _) => end = Some(Err(crate::gateway::explain(status))),
                    }
                }
            }
        }
    }

    fn call(
        &self,
        request: PipeRequest,
        place: OwnedSemaphorePermit,
    ) -> impl Future<Output = Queued> + Send + 'static {
        let (caller, deadline, mut share) = (self.caller.clone(), self.deadline, self.unread.share());
        async move {
            let result = match request.message {
                Some(pipe_request::Message::Call(call)) => caller.grid_call(call, deadline).await,
                Some(pipe_request::Message::Send(send)) => {
                    let sent = caller.grid_send(send, deadline).await;
                    sent.map(|id| CallResponse { message_id: id.to_string(), ..CallResponse::default() })
                }
                None => Err(of_grid_error(
                    &GridError::new(Reason::RequestMalformed, "the request holds no call and no send")
                        .with("field", "call"),
                )),
            };
            let refused = result.as_ref().is_err_and(is_overload);
            let result = result_of(result);
            let response = match &result.result {
                Some(call_result::Result::Response(response)) => response.response.len(),
                _ => 0,
            };
            if !share.grow(response + RESULT_BYTES) {
                return Queued { result: Err(unread()), refused: false, _held: None };
            }
            let response = PipeResponse { id: request.id, result: Some(result) };
            Queued { result: Ok(response), refused, _held: Some((place, share)) }
        }
    }
}

fn draining() -> Status {
    let what = "this server is stopping; all calls that it took are answered, send further ones elsewhere";
    of_grid_error(&GridError::new(Reason::Draining, what))
}

/// Ends the stream, since a result that can't be held can't be delivered later either.
fn unread() -> Status {
    let error = GridError::new(
        Reason::OutcomeUnknown,
        "the results that clients have not read yet fill this server; calls without a result may have \
         taken effect. Read results while sending, and repeat under the same idempotency keys",
    );
    of_grid_error(&error.retry_after_ms(UNREAD_RETRY_AFTER_MS))
}
