//! `afdg.v1.Grid/Scatter`: one message to all agents of a type, found and called in their regions.
//!
//! | file | |
//! | --- | --- |
//! | `plan` | what is asked for, checked once |
//! | `progress` | how far it is in each region, and the token that says so |
//! | `part` | one region's part, at whichever node leads it |
//! | `drive` | all parts side by side, and their results to the client |
//!
//! A region is asked for its next page of results when the client's stream has taken the last one. So a client
//! that does not read stops the work, with one page of each region here; and what is here is bounded in bytes
//! over all clients.

mod drive;
mod part;
mod plan;
mod progress;

use crate::{
    budget::{Budget, Share},
    caller::Caller,
    config::{SCATTER_UNREAD_BYTES_MAX, SCATTERS_MAX},
};
use afdg_proto::{
    pb::v1::{ScatterRequest, ScatterResponse},
    status::of_grid_error,
};
use afdg_runtime::{OnEnd, Tasks};
use afdg_types::{CallError, GridError, Reason};
use drive::Drive;
use futures::Stream;
use plan::Plan;
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tonic::Status;

const FULL_RETRY_AFTER_MS: u64 = 500;

/// The scatters of one extension.
pub(crate) struct Scatters {
    places: Arc<Semaphore>,
    unread: Budget,
}

/// Pages of results as they come.
pub(crate) struct ScatterStream {
    pages: mpsc::Receiver<Page>,
    ended: Ended,
    has_ended: bool,
}

/// A page with its bytes, which are given back when the transport takes it.
struct Page {
    response: ScatterResponse,
    _held: Share,
}

/// How a stream ends once its pages are read: beside them, so that a client that does not read them can't hold
/// up the end.
type Ended = Arc<OnceLock<Result<(), Status>>>;

impl Stream for ScatterStream {
    type Item = Result<ScatterResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(page) = ready!(self.pages.poll_recv(cx)) else {
            let is_new = !std::mem::replace(&mut self.has_ended, true);
            return Poll::Ready(is_new.then(|| end(&self.ended)).flatten().map(Err));
        };
        Poll::Ready(Some(Ok(page.response)))
    }
}

/// The status other than success.
fn end(ended: &Ended) -> Option<Status> {
    match ended.get() {
        Some(ended) => ended.clone().err(),
        None => {
            let text = "the scatter ended half way by a defect; go on with the newest resume token";
            Some(of_grid_error(&GridError::new(Reason::Internal, text)))
        }
    }
}

impl Scatters {
    pub(crate) fn new() -> Self {
        let places = Arc::new(Semaphore::new(SCATTERS_MAX));
        Self { places, unread: Budget::new(SCATTER_UNREAD_BYTES_MAX) }
    }

    pub(crate) async fn start(
        &self,
        caller: &Caller,
        tasks: &Tasks,
        request: ScatterRequest,
        transport_deadline: Option<Instant>,
    ) -> Result<ScatterStream, CallError> {
        let place = self.enter()?;
        let plan = Plan::new(&caller.router, request, transport_deadline).await?;
        // Room for one page while the next is got ready.
        let (sender, pages) = mpsc::channel(1);
        let drive = Drive::new(caller.router.clone(), plan, self.unread.clone(), tasks.draining());
        let ended = Ended::default();
        let end = Arc::clone(&ended);
        tasks.spawn_until_done("scatter", OnEnd::Finish, async move {
            let _place = place;
            let _ = end.set(drive.run(&sender).await);
            // The stream's pages end with the sender, after it is said how.
            drop(sender);
        });
        Ok(ScatterStream { pages, ended, has_ended: false })
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, GridError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let text = format!("{SCATTERS_MAX} scatters run through this server, which is all it takes");
            GridError::new(Reason::Overloaded, text).retry_after_ms(FULL_RETRY_AFTER_MS)
        })
    }
}
