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
use std::{collections::VecDeque, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

const UNREAD_RETRY_AFTER_MS: u64 = 1_000;
/// How long a client may take to read what is there when a scatter ends before all are done.
const LAST_PAGES_TIME_MAX: Duration = Duration::from_secs(5);

type Asked = BoxFuture<'static, (Part, Option<Result<ScatterPage, CallError>>)>;

pub(super) struct Drive {
    router: Router,
    plan: Plan,
    unread: Budget,
    draining: CancellationToken,
    /// Parts that were asked for their next page.
    asked: FuturesUnordered<Asked>,
    /// Pages that the client's stream has not taken; their parts are asked again when it has.
    ready: VecDeque<Ready>,
    /// Results that were passed on.
    given: u64,
}

struct Ready {
    part: Part,
    after: String,
    results: Vec<ScatterResult>,
    share: Share,
}

impl Drive {
    pub(super) fn new(router: Router, plan: Plan, unread: Budget, draining: CancellationToken) -> Self {
        let (asked, ready) = (FuturesUnordered::new(), VecDeque::new());
        Self { router, plan, unread, draining, asked, ready, given: 0 }
    }

    /// Ends with the last agent, with the time, with the client, or with an error that can't be mended. Says
    /// how.
    pub(super) async fn run(mut self, client: &mpsc::Sender<Page>) -> Result<(), Status> {
        let ended = self.all(client).await;
        // The parts end with their being asked.
        self.asked.clear();
        if ended.is_err() {
            let _ = tokio::time::timeout(LAST_PAGES_TIME_MAX, self.last_pages(client)).await;
        }
        ended
    }

    /// Results that are there at an end before the end.
    async fn last_pages(&mut self, client: &mpsc::Sender<Page>) {
        while let Some(ready) = self.ready.pop_front() {
            let page = self.give(ready).0;
            if client.send(page).await.is_err() {
                return;
            }
        }
    }

    async fn all(&mut self, client: &mpsc::Sender<Page>) -> Result<(), Status> {
        loop {
            self.begin_parts();
            if self.asked.is_empty() && self.ready.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = client.closed() => return Ok(()),
                () = self.draining.cancelled() => return Err(stopping()),
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
        (Page { response, _held: share }, part)
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
