//! Looking into a region: which agents have data, and what.

use crate::{
    executor::{
        calls::{Caller, Calls},
        view::{AgentRows, View},
    },
    region::{RegionHandle, Surroundings},
};
use afdg_agent::{host::TurnView, inspect};
use afdg_proto::pb::internal::{
    InspectAgentRequest, InspectAgentResponse, InspectedEntity, ListAgentsRequest, ListAgentsResponse,
};
use afdg_region_machine::table::{entities, inbox, schedules};
use afdg_types::{AgentRef, GridError, MessageId, Reason, RegionId, Rows, limits, prefix_end};
use bytes::Bytes;
use std::sync::Arc;

/// Entities shown of one agent at most.
const ENTITIES_MAX: u32 = 1_000;
/// Accepted sends of one agent that are counted.
const SENDS_MAX: usize = 1_000;
/// Schedules of one agent that are counted; it has fewer.
const SCHEDULES_MAX: usize = 1_000;
/// Agents looked at for one page of a listing by type, found or not.
const LOOKED_AT_MAX: u32 = 20_000;

pub fn storage(error: impl std::fmt::Display) -> GridError {
    GridError::new(Reason::Internal, format!("this node's storage can't be read: {error}"))
}

pub fn not_leader() -> GridError {
    GridError::new(Reason::NotLeader, "this replica could not make sure that it leads")
}

/// Agents with data in key order, skipping from one agent to the next.
pub fn list_agents(
    handle: &RegionHandle,
    request: &ListAgentsRequest,
) -> Result<ListAgentsResponse, GridError> {
    let rows = handle.replica.rows();
    let limit = request.limit.clamp(1, limits::LIST_AGENTS_MAX) as usize;
    let mut from = if request.after.is_empty() {
        entities::START.to_vec()
    } else if request.after.starts_with(entities::START) {
        request.after.to_vec()
    } else {
        let error =
            GridError::new(Reason::InvalidRequest, "the page token is not one of a listing of agents");
        return Err(error.with("field", "page_token"));
    };
    let mut agents = Vec::new();
    for _ in 0..LOOKED_AT_MAX {
        let Some((key, _)) = rows.scan(&from, Some(entities::END), 1).map_err(storage)?.pop() else {
            return Ok(ListAgentsResponse { agents, last: Bytes::new() });
        };
        let (agent, _) =
            entities::parse(&key).ok_or_else(|| storage(format!("the key {key:?} is of no agent")))?;
        // On to the next agent, past all rows of this one.
        from = prefix_end(&entities::prefix(&agent)).unwrap_or_else(|| entities::END.to_vec());
        if request.r#type.is_empty() || agent.agent_type() == request.r#type {
            agents.push(agent.to_string());
        }
        if agents.len() == limit {
            break;
        }
    }
    Ok(ListAgentsResponse { agents, last: Bytes::from(from) })
}

/// All entities of an agent with their first items.
pub async fn inspect_agent(
    region: RegionId,
    handle: &RegionHandle,
    here: &Surroundings,
    request: &InspectAgentRequest,
) -> Result<InspectAgentResponse, GridError> {
    let agent: AgentRef = request.agent.parse().map_err(|error: afdg_types::AgentRefError| {
        GridError::new(Reason::KeyMalformed, error.to_string()).with("field", "agent")
    })?;
    let rows = AgentRows {
        region,
        agent: agent.clone(),
        rows: Arc::clone(handle.replica.rows()),
        cache: Arc::clone(&here.cache),
    };
    // Looking makes no calls: the id is never used.
    let nobody = MessageId::from_router(0, 0);
    let caller = Caller {
        agent: agent.clone(),
        message_id: nobody,
        parent: nobody,
        chain: Vec::new(),
        reentries: Vec::new(),
        runs_again: false,
        is_inner: false,
        fail_points: here.fail_points,
    };
    let calls = Calls::new(caller, Arc::clone(&here.router), Arc::clone(&here.reentrant), None);
    let view: Arc<dyn TurnView> = Arc::new(View::of_read(rows, calls));
    let found = inspect::entities(Arc::clone(&view), "", None, ENTITIES_MAX).await.map_err(storage)?;
    let mut shown = Vec::with_capacity(found.len());
    for entity in found {
        let items =
            inspect::items(Arc::clone(&view), &entity.key, 0, request.items_max).await.map_err(storage)?;
        let items_json = serde_json::to_string(&items.items).map_err(storage)?;
        shown.push(InspectedEntity { key: entity.key, length: items.length, items_json });
    }
    let (sends, next_due_ms) =
        inbox::of_agent(handle.replica.rows().as_ref(), &agent, SENDS_MAX).map_err(storage)?;
    let schedules = schedules::count_of_agent(handle.replica.rows().as_ref(), &agent, SCHEDULES_MAX);
    let schedules = schedules.map_err(storage)?;
    let doing = handle.activity(agent).await.ok_or_else(not_leader)?;
    Ok(InspectAgentResponse {
        entities: shown,
        activity: doing.word.to_owned(),
        waiting: doing.waiting as u32,
        sends: sends as u32,
        next_due_ms,
        turn: doing.turn,
        next: doing.next,
        held: doing.held as u32,
        schedules: schedules as u32,
    })
}
