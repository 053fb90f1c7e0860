//! All regions' parts side by side, and their results to the client.

use super::{Page, part::Part, plan::Plan};
use crate::{
    budget::{Budget, Share},
    grid::message_of,
};
use afdg_proto::{
    pb::v1::{ScatterResponse, ScatterResult, scatter_result},
    status::{of_call_error, of_grid_error},
};
use afdg_region_client::ScatterPage;
use afdg_router::Router;
use afdg_types::{CallError, GridError, Reason};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use prost::Message;
use std::collections::VecDeque;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;

const UNREAD_RETRY_AFTER_MS: u64 = 1_000;

type Asked = BoxFuture<'static, (Part, Option<Result<ScatterPage, CallError>>)>;

pub(super) struct Drive {
    router: Router,
    plan: Plan,
    client: mpsc::Sender<Page>,
    unread: Budget,
    draining: CancellationToken,
    /// Parts that were asked for their next page.
    asked: FuturesUnordered<Asked>,
    /// Pages that the client's stream has not taken; their parts are asked again when it has.
    ready: VecDeque<Ready>,
    /// Results that were passed on.
    given: u64,
    _place: OwnedSemaphorePermit,
}

struct Ready {
    part: Part,
    after: String,
    results: Vec<ScatterResult>,
    share: Share,
}

impl Drive {
    pub(super) fn new(
        router: Router,
        plan: Plan,
        client: mpsc::Sender<Page>,
        unread: Budget,
        draining: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let (asked, ready) = (FuturesUnordered::new(), VecDeque::new());
        Self { router, plan, client, unread, draining, asked, ready, given: 0, _place: place }
    }

    /// Ends with the last agent, with the time, with the client, or with an error that can't be mended.
    pub(super) async fn run(mut self) {
        if let Err(status) = self.all().await {
            // Whatever is not asked for any more ends here.
            self.asked.clear();
            while let Some(ready) = self.ready.pop_front() {
                let page = self.give(ready).0;
                if self.client.send(page).await.is_err() {
                    return;
                }
            }
            let _ = self.client.send(Page { result: Err(status), _held: None }).await;
        }
    }

    async fn all(&mut self) -> Result<(), Status> {
        let client = self.client.clone();
        let draining = self.draining.clone();
        loop {
            self.begin_parts();
            if self.asked.is_empty() && self.ready.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = client.closed() => return Ok(()),
                () = draining.cancelled() => return Err(stopping()),
                () = tokio::time::sleep_until(self.plan.deadline) => return Err(self.time_is_over()),
                room = client.reserve(), if !self.ready.is_empty() => {
                    let (Ok(room), Some(ready)) = (room, self.ready.pop_front()) else { return Ok(()) };
                    let (page, part) = self.give(ready);
                    room.send(page);
                    self.asked.push(part.next().boxed());
                }
                Some((part, page)) = self.asked.next() => self.take(part, page)?,
            }
        }
    }

    /// Begins with as many regions as may be asked at the same time.
    fn begin_parts(&mut self) {
        while self.asked.len() + self.ready.len() < self.plan.regions_max {
            let Some((region, after)) = self.plan.progress.begin() else { return };
            let part = Part::new(self.router.clone(), region, after, &self.plan.start, self.plan.deadline);
            self.asked.push(part.next().boxed());
        }
    }

    fn take(&mut self, part: Part, page: Option<Result<ScatterPage, CallError>>) -> Result<(), Status> {
        let agent_type = &self.plan.start.r#type;
        match page {
            None => self.plan.progress.done(part.region),
            Some(Err(error)) => return Err(of_call_error(&error, agent_type)),
            Some(Ok(ScatterPage { outcomes, after })) => {
                let results = outcomes.into_iter().map(|(key, result)| result_of(agent_type, &key, result));
                let results: Vec<_> = results.collect();
                let mut share = self.unread.share();
                if !share.grow(results.iter().map(Message::encoded_len).sum()) {
                    return Err(unread());
                }
                self.ready.push_back(Ready { part, after, results, share });
            }
        }
        Ok(())
    }

    /// A page for the client, and its part.
    fn give(&mut self, ready: Ready) -> (Page, Part) {
        let Ready { part, after, results, share } = ready;
        self.plan.progress.advance(part.region, &after);
        self.given += results.len() as u64;
        let response = ScatterResponse { results, resume_token: self.plan.progress.token() };
        (Page { result: Ok(response), _held: Some(share) }, part)
    }

    fn time_is_over(&self) -> Status {
        let (reason, what) = match self.plan.read_only && !self.plan.start.send {
            true => (Reason::DeadlineExceeded, "the others have none"),
            false => {
                (Reason::DeadlineOutcomeUnknown, "the message may yet take effect on some of the others")
            }
        };
        let ready: usize = self.ready.iter().map(|ready| ready.results.len()).sum();
        let results = self.given + ready as u64;
        let text = format!(
            "the time for all agents is over; {results} have a result, and {what}. Go on with the newest resume \
             token, or repeat all under the same idempotency key: nothing takes effect twice"
        );
        of_grid_error(&GridError::new(reason, text).with("results", results))
    }
}

fn result_of(agent_type: &str, key: &str, result: Result<bytes::Bytes, CallError>) -> ScatterResult {
    let result = match result {
        Ok(response) => scatter_result::Result::Response(response),
        Err(error) => scatter_result::Result::Error(message_of(&of_call_error(&error, agent_type))),
    };
    ScatterResult { agent: format!("{agent_type}/{key}"), result: Some(result) }
}

fn stopping() -> Status {
    let what = "this server is stopping; go on elsewhere with the newest resume token";
    of_grid_error(&GridError::new(Reason::Draining, what))
}

fn unread() -> Status {
    let error = GridError::new(
        Reason::Overloaded,
        "the results that clients have not read yet fill this server; go on later with the newest resume token",
    );
    of_grid_error(&error.retry_after_ms(UNREAD_RETRY_AFTER_MS))
}
