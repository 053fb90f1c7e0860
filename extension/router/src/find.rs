//! Messages of which only the id is known: all regions are asked.

use crate::{
    Router, ask_leader,
    verdict::{self, Verdict},
};
use afdg_proto::pb::internal::FindMessageRequest;
use afdg_region_client::{RegionClient, result_of};
use afdg_types::{CallError, GridError, MessageId, Reason, RegionId, Slot};
use bytes::Bytes;
use futures::StreamExt;
use std::time::Duration;
use tokio::time::Instant;

/// Searches that one router makes at the same time: each asks all regions.
pub(crate) const SEARCHES_MAX: usize = 64;
/// Regions that one search asks at the same time.
const REGIONS_AT_ONCE: usize = 64;
/// A leader is asked to wait for a message's end no longer than this at once; then it, or its successor, is asked
/// again.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two rounds of asking for an end that is not certain yet.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Who knows a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    pub region: RegionId,
    /// Of the agent that it is for.
    pub slot: Slot,
    /// Tells its request from others, see `replies::digest` of the region's machine.
    pub digest: u128,
}

/// What came of asking all regions for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    At(Whereabouts),
    /// All regions have answered.
    Nowhere,
    /// No region that has answered knows it; these have not.
    NotBy(Vec<RegionId>),
}

impl Router {
    /// Asks all regions at once for a message, until one knows it or `until` has come.
    pub async fn find_message(&self, id: MessageId, until: Instant) -> Result<Found, GridError> {
        let overloaded = || {
            GridError::new(Reason::Overloaded, "as many messages are looked for as may").retry_after_ms(50)
        };
        let place = tokio::time::timeout_at(until, self.searches().acquire()).await;
        let _place = place.map_err(|_| overloaded())?.map_err(|_| overloaded())?;
        let regions: Vec<RegionId> = self.routes().regions.keys().copied().collect();
        if regions.is_empty() {
            return Err(GridError::new(Reason::NotReady, "no region is known yet").retry_after_ms(500));
        }
        let answers = futures::stream::iter(regions)
            .map(async |region| (region, self.ask_for(region, id, until).await))
            .buffer_unordered(REGIONS_AT_ONCE);
        let mut answers = std::pin::pin!(answers);
        let mut silent = Vec::new();
        while let Some((region, answer)) = answers.next().await {
            match answer {
                Ok(Some(whereabouts)) => return Ok(Found::At(whereabouts)),
                Ok(None) => {}
                Err(_) => silent.push(region),
            }
        }
        silent.sort_unstable();
        Ok(if silent.is_empty() { Found::Nowhere } else { Found::NotBy(silent) })
    }

    async fn ask_for(
        &self,
        region: RegionId,
        id: MessageId,
        until: Instant,
    ) -> Result<Option<Whereabouts>, CallError> {
        let ask = |node: RegionClient, time| async move {
            node.find_message(request(region, id, Duration::ZERO), time).await
        };
        let (_, answer) = ask_leader(self, region, until, ask).await?;
        if !answer.known {
            return Ok(None);
        }
        let digest = answer.digest.as_ref().try_into().map(u128::from_be_bytes);
        match (digest, u16::try_from(answer.slot)) {
            (Ok(digest), Ok(slot)) => Ok(Some(Whereabouts { region, slot: Slot(slot), digest })),
            _ => Err(GridError::new(Reason::Internal, "a node's answer can't be read").into()),
        }
    }

    /// Waits for the end of a message that the region knows; none if it knows it no more. That it is for another
    /// method is an error, unless none is named.
    pub async fn await_message(
        &self,
        region: RegionId,
        id: MessageId,
        method: &str,
        until: Instant,
    ) -> Result<Option<Bytes>, CallError> {
        loop {
            let not_ended = || {
                let text = format!("the message {id} has not ended in this time");
                Err(GridError::new(Reason::DeadlineExceeded, text).into())
            };
            if Instant::now() >= until {
                return not_ended();
            }
            let ask = |node: RegionClient, time: Duration| async move {
                // So that its answer comes in time.
                let wait = WAIT_MAX.min(time * 3 / 4).max(Duration::from_millis(1));
                let request = FindMessageRequest { method: method.to_owned(), ..request(region, id, wait) };
                node.find_message(request, time).await
            };
            let answer = match ask_leader(self, region, until, ask).await {
                Ok((_, answer)) => answer,
                // The question was cut off by the time, not answered: what the last replica said of it is no news.
                Err(_) if Instant::now() + AGAIN_AFTER >= until => return not_ended(),
                Err(error) => return Err(error),
            };
            if !answer.known {
                return Ok(None);
            }
            let Some(outcome) = answer.outcome else { continue };
            match verdict::of(result_of(outcome)) {
                Verdict::Done(result) => return result.map(Some),
                // Its leader has lost the lead, or as many wait for it as may.
                Verdict::Again(_) => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
    }
}

fn request(region: RegionId, id: MessageId, wait: Duration) -> FindMessageRequest {
    FindMessageRequest {
        region: region.0,
        message_id: Bytes::copy_from_slice(id.as_bytes()),
        wait_ms: wait.as_millis() as u64,
        method: String::new(),
    }
}
