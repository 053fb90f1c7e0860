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
use afdg_proto::pb::v1::{ScatterRequest, ScatterResponse};
use afdg_runtime::{OnEnd, Tasks};
use afdg_types::{CallError, GridError, Reason};
use drive::Drive;
use futures::Stream;
use plan::Plan;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
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
}

/// A page, or the status that ends the stream, with its bytes, given back when the transport takes it.
struct Page {
    result: Result<ScatterResponse, Status>,
    _held: Option<Share>,
}

impl Stream for ScatterStream {
    type Item = Result<ScatterResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pages.poll_recv(cx).map(|page| page.map(|page| page.result))
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
        let drive =
            Drive::new(caller.router.clone(), plan, sender, self.unread.clone(), tasks.draining(), place);
        tasks.spawn_until_done("scatter", OnEnd::Finish, drive.run());
        Ok(ScatterStream { pages })
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, GridError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let text = format!("{SCATTERS_MAX} scatters run through this server, which is all it takes");
            GridError::new(Reason::Overloaded, text).retry_after_ms(FULL_RETRY_AFTER_MS)
        })
    }
}
