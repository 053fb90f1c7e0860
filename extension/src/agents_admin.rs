//! `afdg.admin.v1.Agents`: what is stored of agents, asked of the nodes that lead their regions.

use crate::{cluster_admin::time_for, key_field};
use afdg_proto::{
    pb::{
        admin::{
            InspectAgentRequest, InspectAgentResponse, InspectedEntity, ListAgentsRequest,
            ListAgentsResponse, agents_server::Agents,
        },
        internal,
    },
    status::{of_call_error, of_grid_error},
};
use afdg_region_client::RegionClient;
use afdg_router::Router;
use afdg_types::{
    AgentRef, CallError, GridError, NodeId, Reason, RegionId, Slot,
    limits::{INSPECT_ITEMS_MAX, LIST_AGENTS_MAX},
};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

const PAGE_SIZE_DEFAULT: u32 = 100;
const ITEMS_DEFAULT: u32 = 100;
/// Between two rounds of asking all replicas of a region who leads it.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// One question of one node.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);

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
                let (_, mut page) = self.ask_leader(region, until, ask).await?;
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
        let (leader, found) = self.ask_leader(region, until, ask).await?;
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
        })
    }

    /// Asks the replicas of a region in turn until one answers as its leader. These are reads: asking
    /// again after an unknown outcome does no harm.
    async fn ask_leader<T, F>(
        &self,
        region: RegionId,
        until: Instant,
        ask: impl Fn(RegionClient, Duration) -> F,
    ) -> Result<(NodeId, T), CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut last =
            GridError::new(Reason::NoLeader, format!("region {region} has no replica in the routes"));
        loop {
            for (node, client) in self.router.replicas_of(region) {
                let left = until.saturating_duration_since(Instant::now());
                match ask(client, left.min(ASK_TIME_MAX)).await {
                    Ok(answer) => return Ok((node, answer)),
                    Err(CallError::Grid(error)) if error.retry() != afdg_types::Retry::Never => last = error,
                    Err(error) => return Err(error),
                }
            }
            if Instant::now() + ROUND_PAUSE >= until {
                return Err(last.into());
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }
}

fn bounded(field: &str, given: u32, default: u32, max: u32) -> Result<u32, GridError> {
    match given {
        0 => Ok(default),
        given if given <= max => Ok(given),
        given => {
            let message = format!("{field} is at most {max}; got {given}");
            Err(GridError::new(Reason::InvalidRequest, message).with("field", field))
        }
    }
}

/// Where the next page begins: a region, and in it after which agent. Opaque to clients.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageToken {
    region: RegionId,
    after: Vec<u8>,
}

impl PageToken {
    fn parse(text: &str) -> Result<Self, GridError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let parse = || {
            let (region, after) = text.split_once('-')?;
            let digits: Option<Vec<u32>> = after.chars().map(|digit| digit.to_digit(16)).collect();
            let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
            let after = digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
            Some(Self { region: RegionId(region.parse().ok()?), after })
        };
        parse().ok_or_else(|| {
            let message = "page_token is none that this service has given out";
            GridError::new(Reason::InvalidRequest, message).with("field", "page_token")
        })
    }
}

impl std::fmt::Display for PageToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-", self.region)?;
        self.after.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_read_back_and_others_are_refused() {
        for token in [
            PageToken { region: RegionId(7), after: vec![0, 255, 16] },
            PageToken { region: RegionId(1), after: Vec::new() },
        ] {
            assert_eq!(PageToken::parse(&token.to_string()), Ok(token));
        }
        assert_eq!(PageToken::parse(""), Ok(PageToken::default()));
        for bad in ["x", "7", "7-0", "7-0g", "-", "-00", "7-ü0", "99999999999999999999-00"] {
            assert!(PageToken::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_default_and_a_bound() {
        assert_eq!(bounded("page_size", 0, 100, 1_000), Ok(100));
        assert_eq!(bounded("page_size", 1_000, 100, 1_000), Ok(1_000));
        assert!(bounded("page_size", 1_001, 100, 1_000).is_err());
    }
}
