//! Do calls succeed? Asked by calling: one counter in each region. And does the grid say so of itself?

use crate::{
    admin,
    client::{CallFailure, Client},
};
use afdg_proto::pb::{admin::Region, v1::CallRequest};
use afdg_types::{AgentRef, Slot};
use anyhow::{Context, bail};
use std::time::{Duration, Instant};
use tonic::Request;

const COUNTER: &str = "counter.v1.Counter";
/// Keys that are tried to find one for every region; each hits a region of average size at once.
const KEYS_MAX: u32 = 1_000_000;
const CALL_MS_MAX: u64 = 5_000;
const PAUSE_MS: u64 = 100;

/// Waits until an agent in each of `regions` regions has answered and `afdg status` would find the grid
/// well, `limit` at most.
pub async fn all_well(client: &Client, regions: usize, limit: Duration) -> anyhow::Result<()> {
    let give_up = Instant::now() + limit;
    loop {
        match try_all(client, regions).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > give_up => {
                return Err(error).context("calls did not succeed in time");
            }
            Err(error) => tracing::debug!(%error, "calls do not succeed yet"),
        }
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
    }
}

async fn try_all(client: &Client, wanted: usize) -> anyhow::Result<()> {
    let regions = admin::region::fetch(client).await?;
    if regions.len() != wanted {
        bail!("{} of {wanted} regions are there", regions.len());
    }
    for region in &regions {
        let agent = agent_in(region).with_context(|| format!("region {} owns no slot", region.id))?;
        let mut request = Request::new(CallRequest {
            agent: agent.to_string(),
            method: "Get".to_owned(),
            timeout_ms: CALL_MS_MAX,
            ..CallRequest::default()
        });
        request.set_timeout(Duration::from_millis(2 * CALL_MS_MAX));
        let answer = client.grid().call(request).await;
        answer
            .map_err(|status| CallFailure::of_status(&status))
            .with_context(|| format!("region {}", region.id))?;
    }
    let troubles = admin::status::troubles(&admin::status::fetch(client).await?);
    if !troubles.is_empty() {
        bail!("calls succeed, but {}", troubles.join("; "));
    }
    Ok(())
}

/// A counter that lives in `region`.
fn agent_in(region: &Region) -> Option<AgentRef> {
    let agents = (0..KEYS_MAX).filter_map(|number| AgentRef::new(COUNTER, &format!("probe-{number}")).ok());
    let mut here = agents.filter(|agent| {
        let slot = u32::from(Slot::of(agent).0);
        region.slots.iter().any(|range| range.first <= slot && slot <= range.last)
    });
    here.next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_proto::pb::admin::SlotRange;

    #[test]
    fn every_slot_has_a_counter() {
        for first in [0, 7, 16_383] {
            let region = Region { slots: vec![SlotRange { first, last: first }], ..Region::default() };
            assert_eq!(u32::from(Slot::of(&agent_in(&region).unwrap()).0), first);
        }
        assert!(agent_in(&Region::default()).is_none());
    }
}
