//! Clients and operators of the cases: whatever fails for want of a leader they ask again, under the same key.

use afdg_proto::pb::{
    admin::{
        CancelSchedulesRequest, DeadLetter, ListDeadLettersRequest, ListSchedulesRequest, ScheduleFilter,
        ScheduleName, SettleDeadLettersRequest, dead_letters_client::DeadLettersClient,
        schedules_client::SchedulesClient, settle_dead_letters_request::Action,
    },
    v1::{SendRequest, SendResponse},
};
use afdg_tests::{
    client::Client,
    persistent::Persistent,
    relay::v1::{KeepRequest, Kept, Marks, ReadRequest},
};
use afdg_types::AgentRef;
use anyhow::{Context, Result};
use prost::Message;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Response, Status};

/// How long an operator asks again.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

pub struct Clients {
    calls: Persistent,
    operator: Client,
}

impl Clients {
    pub fn new(endpoints: &[String]) -> Result<Self> {
        let first = endpoints.first().context("there is no extension")?;
        Ok(Self { calls: Persistent::new(endpoints, 0)?, operator: Client::lazy(first)? })
    }

    pub async fn keep(&self, agent: &AgentRef, request: KeepRequest, key: &str) -> Result<Kept> {
        let request = KeepRequest { relay: agent.key().to_owned(), ..request };
        self.calls.call(&format!("/{}/Keep", agent.agent_type()), request, key).await
    }

    /// Returns the message's id once it was accepted.
    pub async fn send(
        &self,
        agent: &AgentRef,
        request: &KeepRequest,
        key: &str,
        delay_ms: u64,
    ) -> Result<String> {
        let request = SendRequest {
            agent: agent.to_string(),
            method: "Keep".to_owned(),
            request: request.encode_to_vec().into(),
            idempotency_key: key.to_owned(),
            delay_ms,
            ..SendRequest::default()
        };
        let sent: SendResponse = self.calls.read("/afdg.v1.Grid/Send", request).await?;
        Ok(sent.message_id)
    }

    pub async fn marks(&self, agent: &AgentRef) -> Result<Marks> {
        let request = ReadRequest { relay: agent.key().to_owned() };
        self.calls.read(&format!("/{}/Read", agent.agent_type()), request).await
    }

    /// The dead letters that were meant for the agent.
    pub async fn dead_letters(&self, agent: &AgentRef) -> Result<Vec<DeadLetter>> {
        let request = ListDeadLettersRequest { page_size: 1_000, ..ListDeadLettersRequest::default() };
        let listed = again("the dead letters", || {
            let (mut client, request) = (DeadLettersClient::new(self.operator.channel()), request.clone());
            async move { client.list_dead_letters(request).await }
        });
        let letters = listed.await?.letters;
        Ok(letters.into_iter().filter(|letter| letter.agent == agent.to_string()).collect())
    }

    pub async fn settle(&self, letter: &DeadLetter, action: Action) -> Result<u32> {
        let request = SettleDeadLettersRequest {
            names: vec![letter.name.clone()],
            action: action.into(),
            actor: "a test".to_owned(),
            reason: "a test".to_owned(),
            filter: None,
        };
        let settled = again("a dead letter", || {
            let (mut client, request) = (DeadLettersClient::new(self.operator.channel()), request.clone());
            async move { client.settle_dead_letters(request).await }
        });
        Ok(settled.await?.settled)
    }

    pub async fn cancel_schedule(&self, agent: &AgentRef, name: &str) -> Result<u32> {
        let request = CancelSchedulesRequest {
            schedules: vec![ScheduleName { agent: agent.to_string(), name: name.to_owned() }],
            actor: "a test".to_owned(),
            reason: "a test".to_owned(),
            filter: None,
        };
        let cancelled = again("a schedule", || {
            let (mut client, request) = (SchedulesClient::new(self.operator.channel()), request.clone());
            async move { client.cancel_schedules(request).await }
        });
        Ok(cancelled.await?.cancelled)
    }

    /// Of the agent's schedules the names.
    pub async fn schedules(&self, agent: &AgentRef) -> Result<Vec<String>> {
        let filter = Some(ScheduleFilter { agent: agent.to_string(), ..ScheduleFilter::default() });
        let request = ListSchedulesRequest { filter, ..ListSchedulesRequest::default() };
        let listed = again("the schedules", || {
            let (mut client, request) = (SchedulesClient::new(self.operator.channel()), request.clone());
            async move { client.list_schedules(request).await }
        });
        Ok(listed.await?.schedules.into_iter().map(|schedule| schedule.name).collect())
    }
}

async fn again<T, F>(what: &str, ask: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let give_up = Instant::now() + LIMIT;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if Instant::now() > give_up => return Err(status).context(what.to_owned()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
