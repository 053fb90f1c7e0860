//! Agents whose turns wait for other agents, of all regions.

use crate::region_questions::{ask_leader, bounded};
use afdg_proto::pb::{
    admin::{
        BlockedAgent, ListBlockedAgentsRequest, ListBlockedAgentsResponse, QueuedMessage, RunningTurn,
        WaitedCall,
    },
    internal,
};
use afdg_region_client::RegionClient;
use afdg_router::Router;
use afdg_types::{
    CallError, MessageId, RegionId,
    limits::{CALL_CHAIN_AGENTS_MAX, LIST_BLOCKED_AGENTS_MAX},
};
use futures::StreamExt;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

const LIMIT_DEFAULT: u32 = 100;
/// Regions that are asked at the same time.
const REGIONS_AT_ONCE: usize = 16;
/// One region that has no leader must not take all the time that there is.
const REGION_TIME_MAX: Duration = Duration::from_secs(3);

/// Asks the leaders of all regions.
pub(crate) async fn list(
    router: &Router,
    request: ListBlockedAgentsRequest,
    until: Instant,
) -> Result<ListBlockedAgentsResponse, CallError> {
    let limit = bounded("limit", request.limit, LIMIT_DEFAULT, LIST_BLOCKED_AGENTS_MAX)?;
    let regions: Vec<RegionId> = router.routes().regions.keys().copied().collect();
    let agent_type = &request.r#type;
    let answers = futures::stream::iter(regions)
        .map(async |region| {
            let ask = internal::ListBlockedAgentsRequest {
                region: region.0,
                r#type: agent_type.clone(),
                // All that there may be, whatever is wanted: chains are followed through them.
                limit: LIST_BLOCKED_AGENTS_MAX,
            };
            let ask = |node: RegionClient, time| {
                let ask = ask.clone();
                async move { node.list_blocked_agents(ask, time).await }
            };
            let until = until.min(Instant::now() + REGION_TIME_MAX);
            (region, ask_leader(router, region, until, ask).await)
        })
        .buffer_unordered(REGIONS_AT_ONCE);
    let mut answers = std::pin::pin!(answers);
    let mut response = ListBlockedAgentsResponse::default();
    let wanted = |agent: &BlockedAgent| {
        let is_of_type = agent.agent.split('/').next() == Some(agent_type);
        (agent_type.is_empty() || is_of_type) && waiting_ms(agent) >= request.waiting_ms_min
    };
    let mut agents = Vec::new();
    while let Some((region, answer)) = answers.next().await {
        match answer {
            Ok((_, mut found)) => {
                found.agents.truncate(LIST_BLOCKED_AGENTS_MAX as usize);
                agents.extend(found.agents.into_iter().map(|agent| blocked(region, agent)));
                // Those of the type, and who has waited longer, come first.
                response.more |= found.more && agents.last().is_some_and(&wanted);
            }
            Err(_) => response.silent_regions.push(region.0),
        }
    }
    response.silent_regions.sort_unstable();
    let waits_for = longest_waits(&agents);
    agents.retain(wanted);
    agents.sort_by(|a, b| (Reverse(waiting_ms(a)), &a.agent).cmp(&(Reverse(waiting_ms(b)), &b.agent)));
    response.more |= agents.len() > limit as usize;
    agents.truncate(limit as usize);
    for agent in &mut agents {
        agent.chain = chain_from(&agent.agent, &waits_for);
    }
    response.agents = agents;
    Ok(response)
}

fn blocked(region: RegionId, agent: internal::BlockedAgent) -> BlockedAgent {
    BlockedAgent {
        agent: agent.agent,
        region: region.0,
        turn: agent.turn.map(turn),
        behind: agent.behind,
        chain: Vec::new(),
    }
}

/// The turn's longest wait.
fn longest(agent: &BlockedAgent) -> Option<&WaitedCall> {
    agent.turn.as_ref()?.calls.first()
}

fn waiting_ms(agent: &BlockedAgent) -> u64 {
    longest(agent).map_or(0, |call| call.waiting_ms)
}

fn longest_waits(agents: &[BlockedAgent]) -> BTreeMap<String, String> {
    let waits = agents.iter().filter_map(|agent| Some((agent.agent.clone(), longest(agent)?.callee.clone())));
    waits.collect()
}

/// `first`, whom it waits for, whom that one waits for, and so on. The regions were asked one after the other, so
/// what looks like a ring may be none: it ends where an agent comes again.
fn chain_from(first: &str, waits_for: &BTreeMap<String, String>) -> Vec<String> {
    let (mut chain, mut seen) = (vec![first.to_owned()], BTreeSet::from([first]));
    let mut last = first;
    while let Some(next) = waits_for.get(last).filter(|_| chain.len() < CALL_CHAIN_AGENTS_MAX) {
        chain.push(next.clone());
        if !seen.insert(next) {
            break;
        }
        last = next;
    }
    chain
}

pub(crate) fn turn(turn: internal::RunningTurn) -> RunningTurn {
    let calls = turn.calls.into_iter().map(|call| WaitedCall {
        callee: call.callee,
        method: call.method,
        message_id: id_shown(&call.message_id),
        waiting_ms: call.waiting_ms,
    });
    RunningTurn {
        method: turn.method,
        message_id: id_shown(&turn.message_id),
        running_ms: turn.running_ms,
        recorded: turn.recorded,
        sender: turn.sender,
        calls: calls.collect(),
        calls_count: turn.calls_count,
    }
}

pub(crate) fn queued(message: internal::QueuedMessage) -> QueuedMessage {
    QueuedMessage {
        method: message.method,
        message_id: id_shown(&message.message_id),
        sender: message.sender,
        sent: message.sent,
    }
}

fn id_shown(id: &[u8]) -> String {
    MessageId::from_bytes(id).map(|id| id.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
    }

    #[test]
    fn a_chain_goes_as_far_as_is_known_and_round_once() {
        assert_eq!(chain_from("a", &waits(&[("a", "b"), ("b", "c"), ("x", "a")])), ["a", "b", "c"]);
        assert_eq!(chain_from("a", &waits(&[("a", "b"), ("b", "a")])), ["a", "b", "a"]);
        assert_eq!(chain_from("x", &waits(&[("x", "a"), ("a", "b"), ("b", "a")])), ["x", "a", "b", "a"]);
        assert_eq!(chain_from("a", &waits(&[("a", "a")])), ["a", "a"]);
    }

    #[test]
    fn a_chain_has_a_bound() {
        let long: Vec<(String, String)> =
            (0..100).map(|number: u32| (number.to_string(), (number + 1).to_string())).collect();
        assert_eq!(chain_from("0", &long.into_iter().collect()).len(), CALL_CHAIN_AGENTS_MAX);
    }
}
