//! `afdg.admin.v1.Agents`: what is stored of agents, asked of the nodes that lead their regions.

use crate::{
    blocked_agents,
    cluster_admin::time_for,
    key_field,
    region_questions::{PageToken, ask_leader, bounded},
};
use afdg_proto::{
    pb::{
        admin::{
            InspectAgentRequest, InspectAgentResponse, InspectedEntity, ListAgentsRequest,
            ListAgentsResponse, ListBlockedAgentsRequest, ListBlockedAgentsResponse, agents_server::Agents,
        },
        internal,
    },
    status::{of_call_error, of_grid_error},
};
use afdg_region_client::RegionClient;
use afdg_router::Router;
use afdg_types::{
    AgentRef, CallError, GridError, Reason, Slot,
    limits::{INSPECT_ITEMS_MAX, LIST_AGENTS_MAX},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

const PAGE_SIZE_DEFAULT: u32 = 100;
const ITEMS_DEFAULT: u32 = 100;

pub(crate) struct AgentsAdmin {
    pub(crate) router: Router,
}

#[tonic::async_trait]
impl Agents for AgentsAdmin {
    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let until = Instant::now() + time_for(request.metadata())?;
        let response = self.list(request.into_inner(), until).await;
        response.map(Response::new).map_err(|error| of_call_error(&error, ""))
    }

    async fn inspect_agent(
        &self,
        request: Request<InspectAgentRequest>,
    ) -> Result<Response<InspectAgentResponse>, Status> {
        let until = Instant::now() + time_for(request.metadata())?;
        let request = request.into_inner();
        let agent: AgentRef =
            request.agent.parse().map_err(|error| of_grid_error(&key_field::refusal(&error)))?;
        let response = self.inspect(agent, request.items_max, until).await;
        response.map(Response::new).map_err(|error| of_call_error(&error, ""))
    }

    async fn list_blocked_agents(
        &self,
        request: Request<ListBlockedAgentsRequest>,
    ) -> Result<Response<ListBlockedAgentsResponse>, Status> {
        let until = Instant::now() + time_for(request.metadata())?;
        let response = blocked_agents::list(&self.router, request.into_inner(), until).await;
        response.map(Response::new).map_err(|error| of_call_error(&error, ""))
    }
}

impl AgentsAdmin {
    async fn list(
        &self,
        request: ListAgentsRequest,
        until: Instant,
    ) -> Result<ListAgentsResponse, CallError> {
        let wanted = bounded("page_size", request.page_size, PAGE_SIZE_DEFAULT, LIST_AGENTS_MAX)?;
        let start = PageToken::parse(&request.page_token)?;
        let routes = self.router.routes();
        let mut agents = Vec::new();
        let mut after = start.after;
        for region in routes.regions.range(start.region..).map(|(id, _)| *id) {
            if region != start.region {
                after.clear();
            }
            loop {
                let left = wanted - agents.len() as u32;
                if left == 0 {
                    let next_page_token = PageToken { region, after }.to_string();
                    return Ok(ListAgentsResponse { agents, next_page_token });
                }
                let ask = internal::ListAgentsRequest {
                    region: region.0,
                    r#type: request.r#type.clone(),
                    after: after.clone().into(),
                    limit: left,
                };
                let ask = |node: RegionClient, time| {
                    let ask = ask.clone();
                    async move { node.list_agents(ask, time).await }
                };
                let (_, mut page) = ask_leader(&self.router, region, until, ask).await?;
                // No more than asked for, whatever the node says.
                page.agents.truncate(left as usize);
                let is_empty = page.agents.is_empty();
                agents.append(&mut page.agents);
                after = page.last.to_vec();
                if after.is_empty() || is_empty {
                    break;
                }
            }
        }
        Ok(ListAgentsResponse { agents, next_page_token: String::new() })
    }

    async fn inspect(
        &self,
        agent: AgentRef,
        items_max: u32,
        until: Instant,
    ) -> Result<InspectAgentResponse, CallError> {
        let items_max = bounded("items_max", items_max, ITEMS_DEFAULT, INSPECT_ITEMS_MAX)?;
        self.router.agent_type(agent.agent_type(), until).await?;
        let Some(region) = self.router.region_of(&agent) else {
            return Err(GridError::new(Reason::NoLeader, "the agent's slot is in no region yet").into());
        };
        let ask =
            internal::InspectAgentRequest { region: region.0, agent: agent.as_str().to_owned(), items_max };
        let ask = |node: RegionClient, time| {
            let ask = ask.clone();
            async move { node.inspect_agent(ask, time).await }
        };
        let (leader, found) = ask_leader(&self.router, region, until, ask).await?;
        let entities = found.entities.into_iter().map(|entity| InspectedEntity {
            key: entity.key,
            length: entity.length,
            items_json: entity.items_json,
        });
        Ok(InspectAgentResponse {
            agent: agent.as_str().to_owned(),
            slot: u32::from(Slot::of(&agent).0),
            region: region.0,
            leader: leader.0,
            entities: entities.collect(),
            activity: found.activity,
            waiting: found.waiting,
            sends: found.sends,
            next_due_ms: found.next_due_ms,
            schedules: found.schedules,
            turn: found.turn.map(blocked_agents::turn),
            next: found.next.into_iter().map(blocked_agents::queued).collect(),
            held: found.held,
        })
    }
}
