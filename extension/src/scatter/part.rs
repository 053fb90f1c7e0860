//! One region's part, at whichever node leads the region.

use afdg_proto::pb::internal::ScatterStart;
use afdg_region_client::{RegionClient, ScatterPage, ScatterPages};
use afdg_router::Router;
use afdg_types::{AgentRef, CallError, GridError, Reason, RegionId, Retry, Slot};
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// Between two rounds of asking all replicas of the region.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// How long a node may take to begin.
const BEGIN_TIME_MAX: Duration = Duration::from_secs(2);

/// A place among a region's agents, in the order in which they are walked.
type Place = (u16, usize, String);

pub(super) struct Part {
    router: Router,
    pub(super) region: RegionId,
    start: ScatterStart,
    deadline: Instant,
    pages: Option<ScatterPages>,
    /// Nodes to ask in this round.
    candidates: VecDeque<RegionClient>,
    /// Places behind the start's `after`, up to which all are done, whose outcomes were passed on: at the next leader they come again. No more than the
    /// node gets ahead.
    ahead: BTreeSet<Place>,
}

impl Part {
    pub(super) fn new(
        router: Router,
        region: RegionId,
        after: String,
        start: &ScatterStart,
        deadline: Instant,
    ) -> Self {
        let start = ScatterStart { region: region.0, after, ..start.clone() };
        let candidates = candidates(&router, region);
        Self { router, region, start, deadline, pages: None, candidates, ahead: BTreeSet::new() }
    }

    /// The next outcomes that were not passed on before; none once all agents are done. It comes to an end for
    /// an error that another node would give as well, and otherwise asks on.
    pub(super) async fn next(mut self) -> (Self, Option<Result<ScatterPage, CallError>>) {
        let result = self.next_page().await.transpose();
        (self, result)
    }

    async fn next_page(&mut self) -> Result<Option<ScatterPage>, CallError> {
        loop {
            let pages = match &mut self.pages {
                Some(pages) => pages.next().await,
                None => match self.begin().await {
                    Ok(pages) => self.pages.insert(pages).next().await,
                    Err(error) => Err(error),
                },
            };
            match pages {
                Ok(Some(page)) => {
                    let page = self.take(page)?;
                    if !page.outcomes.is_empty() {
                        return Ok(Some(page));
                    }
                }
                Ok(None) => return Ok(None),
                Err(CallError::Grid(error)) if error.retry() != Retry::Never => {
                    tracing::debug!(region = %self.region, %error, "a region's part of a scatter goes on elsewhere");
                    self.pages = None;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks the next replica.
    async fn begin(&mut self) -> Result<ScatterPages, CallError> {
        let node = match self.candidates.pop_front() {
            Some(node) => node,
            None => {
                tokio::time::sleep(ROUND_PAUSE).await;
                self.candidates = candidates(&self.router, self.region);
                let nobody = || GridError::new(Reason::NoLeader, "the region has no replica in the routes");
                self.candidates.pop_front().ok_or_else(nobody)?
            }
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        node.scatter(ScatterStart { timeout_ms, ..self.start.clone() }, BEGIN_TIME_MAX).await
    }

    /// Leaves out what was passed on before, and notes what is now.
    fn take(&mut self, page: ScatterPage) -> Result<ScatterPage, GridError> {
        let agent_type = &self.start.r#type;
        let mut fresh = Vec::with_capacity(page.outcomes.len());
        for (key, result) in page.outcomes {
            if self.ahead.insert(place(agent_type, &key)?) {
                fresh.push((key, result));
            }
        }
        if !page.after.is_empty() {
            let after = place(agent_type, &page.after)?;
            self.ahead = self.ahead.split_off(&after);
            self.ahead.remove(&after);
            self.start.after = page.after;
        }
        Ok(ScatterPage { outcomes: fresh, after: self.start.after.clone() })
    }
}

/// The region's replicas, who is said to lead first.
fn candidates(router: &Router, region: RegionId) -> VecDeque<RegionClient> {
    router.replicas_of(region).into_iter().map(|(_, client)| client).collect()
}

fn place(agent_type: &str, key: &str) -> Result<Place, GridError> {
    let agent = AgentRef::new(agent_type, key);
    let agent =
        agent.map_err(|error| GridError::new(Reason::Internal, format!("a node named none: {error}")))?;
    Ok((Slot::of(&agent).0, key.len(), key.to_owned()))
}
