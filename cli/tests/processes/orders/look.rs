//! What an operator sees of agents and dead letters.

use afdg_proto::pb::admin::{
    DeadLetter, InspectAgentRequest, InspectAgentResponse, ListDeadLettersRequest,
    agents_client::AgentsClient, dead_letters_client::DeadLettersClient,
};
use afdg_tests::client::Client;
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::Instant;

/// How long one look is repeated.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub struct Look {
    client: Client,
}

impl Look {
    pub fn new(endpoint: &str) -> Result<Self> {
        Ok(Self { client: Client::lazy(endpoint)? })
    }

    /// Repeated while nobody leads.
    pub async fn inspect(&self, agent: &str) -> Result<InspectAgentResponse> {
        let give_up = Instant::now() + LOOK_LIMIT;
        loop {
            let request = InspectAgentRequest { agent: agent.to_owned(), items_max: 1 };
            match AgentsClient::new(self.client.channel()).inspect_agent(request).await {
                Ok(found) => return Ok(found.into_inner()),
                Err(status) if Instant::now() > give_up => return Err(status).context(agent.to_owned()),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        let request = ListDeadLettersRequest::default();
        let listed = DeadLettersClient::new(self.client.channel()).list_dead_letters(request).await;
        Ok(listed.context("the dead letters")?.into_inner().letters)
    }
}

/// The values of an agent's entities whose keys begin with `prefix`, by the rest of the key.
pub fn values<T: DeserializeOwned>(found: &InspectAgentResponse, prefix: &str) -> Result<Vec<(String, T)>> {
    let of = |key: &str| key.strip_prefix(prefix).map(str::to_owned);
    let some = found.entities.iter().filter_map(|entity| Some((of(&entity.key)?, entity)));
    some.map(|(rest, entity)| {
        let [value]: [T; 1] = serde_json::from_str::<Vec<T>>(&entity.items_json)?
            .try_into()
            .ok()
            .with_context(|| format!("{}'s {} is no single value", found.agent, entity.key))?;
        Ok((rest, value))
    })
    .collect()
}
