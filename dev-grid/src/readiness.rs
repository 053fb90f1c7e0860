//! Do calls succeed? Asked by calling, as any client does: one agent in each region. And does the grid say
//! so of itself?

use crate::DevGridError;
use afdg_proto::pb::{
    admin::{GetStatusRequest, GetStatusResponse, ListRegionsRequest, Region, cluster_client::ClusterClient},
    v1::{CallRequest, grid_client::GridClient},
};
use afdg_types::{AgentRef, Slot};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

/// Keys that are tried to find one for every region; each hits a region of average size at once.
const KEYS_MAX: u32 = 1_000_000;
/// The grid's limit of one call.
const CALL_MS_MAX: u64 = 5_000;
/// The client's, in case the grid does not keep its own.
const ANSWER_MS_MAX: u64 = 2 * CALL_MS_MAX;
const CONNECT_MS_MAX: u64 = 5_000;
const PAUSE_MS: u64 = 100;

/// What is called to see whether an agent answers: a method that reads only, with an empty request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub agent_type: &'static str,
    pub method: &'static str,
}

/// What a grid that is well has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub nodes: usize,
    pub regions: usize,
}

/// Waits until an agent in each region has answered through `endpoint` and `afdg status` would find the
/// grid well, `limit` at most.
pub async fn until_well(
    endpoint: &str,
    wanted: Wanted,
    probe: Probe,
    limit: Duration,
) -> Result<(), DevGridError> {
    let not_ready = |why: String| DevGridError::NotReady { limit, why };
    let endpoint =
        Endpoint::from_shared(endpoint.to_owned()).map_err(|error| not_ready(error.to_string()))?;
    let channel = endpoint.connect_timeout(Duration::from_millis(CONNECT_MS_MAX)).connect_lazy();
    let give_up = Instant::now() + limit;
    let mut last = "no attempt ended".to_owned();
    loop {
        match tokio::time::timeout_at(give_up, is_well(&channel, wanted, probe)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => last = why,
            Err(_) => return Err(not_ready(last)),
        }
        tracing::debug!(why = last, "calls do not succeed yet");
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
    }
}

async fn is_well(channel: &Channel, wanted: Wanted, probe: Probe) -> Result<(), String> {
    let mut cluster = ClusterClient::new(channel.clone());
    let listed = cluster.list_regions(limited(ListRegionsRequest {})).await;
    let regions = listed.map_err(|status| told("the regions", &status))?.into_inner().regions;
    if regions.len() != wanted.regions {
        return Err(format!("{} of {} regions are there", regions.len(), wanted.regions));
    }
    for region in &regions {
        let Some(agent) = agent_in(region, probe) else {
            return Err(format!("region {} owns no slot", region.id));
        };
        let call = CallRequest {
            agent: agent.to_string(),
            method: probe.method.to_owned(),
            timeout_ms: CALL_MS_MAX,
            ..CallRequest::default()
        };
        let answer = GridClient::new(channel.clone()).call(limited(call)).await;
        answer.map_err(|status| told(format_args!("region {}", region.id), &status))?;
    }
    let status = cluster.get_status(limited(GetStatusRequest {})).await;
    lacking(&status.map_err(|status| told("the status", &status))?.into_inner(), wanted)
}

fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_millis(ANSWER_MS_MAX));
    request
}

fn told(what: impl std::fmt::Display, status: &Status) -> String {
    format!("{what}: {:?} {}", status.code(), status.message())
}

/// What of `wanted` the grid lacks, by its own word.
fn lacking(status: &GetStatusResponse, wanted: Wanted) -> Result<(), String> {
    let is_led = status.catalog.iter().any(|server| server.leader);
    let GetStatusResponse { nodes_live, regions_with_leader, regions_under_replicated, .. } = *status;
    let all = nodes_live as usize >= wanted.nodes && regions_with_leader as usize >= wanted.regions;
    if is_led && all && regions_under_replicated == 0 {
        return Ok(());
    }
    Err(format!(
        "calls succeed, but {nodes_live} of {} nodes are live, {regions_with_leader} of {} regions are led, \
         {regions_under_replicated} lack replicas, and the catalog {} a leader",
        wanted.nodes,
        wanted.regions,
        if is_led { "has" } else { "lacks" },
    ))
}

/// An agent that lives in `region`.
fn agent_in(region: &Region, probe: Probe) -> Option<AgentRef> {
    let agents =
        (0..KEYS_MAX).filter_map(|number| AgentRef::new(probe.agent_type, &format!("probe-{number}")).ok());
    let mut here = agents.filter(|agent| {
        let slot = u32::from(Slot::of(agent).0);
        region.slots.iter().any(|range| range.first <= slot && slot <= range.last)
    });
    here.next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_proto::pb::admin::{CatalogServer, SlotRange};

    const PROBE: Probe = Probe { agent_type: "counter.v1.Counter", method: "Get" };

    #[test]
    fn every_slot_has_an_agent() {
        for first in [0, 7, 16_383] {
            let region = Region { slots: vec![SlotRange { first, last: first }], ..Region::default() };
            assert_eq!(u32::from(Slot::of(&agent_in(&region, PROBE).unwrap()).0), first);
        }
        assert!(agent_in(&Region::default(), PROBE).is_none());
    }

    #[test]
    fn whatever_is_missing_is_seen() {
        let wanted = Wanted { nodes: 3, regions: 6 };
        let well = GetStatusResponse {
            catalog: vec![CatalogServer { leader: true, ..Default::default() }],
            nodes_live: 3,
            regions_with_leader: 6,
            ..Default::default()
        };
        lacking(&well, wanted).unwrap();
        for wrong in [
            GetStatusResponse { nodes_live: 2, ..well.clone() },
            GetStatusResponse { regions_with_leader: 5, ..well.clone() },
            GetStatusResponse { regions_under_replicated: 1, ..well.clone() },
            GetStatusResponse { catalog: Vec::new(), ..well.clone() },
        ] {
            lacking(&wrong, wanted).unwrap_err();
        }
    }
}
