//! Boxes on a grid, as clients see them.

use afdg_dev_grid::DevGrid;
use afdg_proto::pb::v1::{AttachRequest, SendRequest, attach_request, grid_client::GridClient};
use afdg_tests::{
    PATIENCE,
    client::Client,
    grid,
    mail::v1::{KeptLetter, Letter, Letters, ReadRequest, Received, Spread, SpreadRequest},
};
use anyhow::{Result, ensure};
use prost::Message;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt;

const PAUSE: Duration = Duration::from_millis(20);

pub struct Mail {
    pub grid: DevGrid,
    pub client: Client,
    _folder: TempDir,
}

pub fn agent(key: &str) -> String {
    format!("mail.v1.Box/{key}")
}

pub fn letter(number: u64) -> Letter {
    Letter { from: "a client".to_owned(), number, ..Letter::default() }
}

pub fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis() as u64)
}

pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

impl Mail {
    pub async fn open(regions: u16) -> Result<Self> {
        let (grid, folder) = grid(|options| options.size.regions = Some(regions)).await?;
        let client = Client::connect(&grid.endpoint()).await?;
        Ok(Self { grid, client, _folder: folder })
    }

    pub fn service(&self) -> GridClient<Channel> {
        GridClient::new(self.client.channel())
    }

    /// Sends a letter and returns the message's id.
    pub async fn send(&self, to: &str, letter: Letter, key: &str, delay_ms: u64) -> Result<String, Status> {
        self.send_as(to, "Receive", &letter, key, delay_ms).await
    }

    /// Has a box send letters, without waiting for that.
    pub async fn send_spread(&self, from: &str, spread: SpreadRequest) -> Result<String, Status> {
        self.send_as(from, "Spread", &spread, "", 0).await
    }

    async fn send_as(
        &self,
        to: &str,
        method: &str,
        request: &impl Message,
        key: &str,
        delay_ms: u64,
    ) -> Result<String, Status> {
        let request = SendRequest {
            agent: agent(to),
            method: method.to_owned(),
            request: request.encode_to_vec().into(),
            idempotency_key: key.to_owned(),
            delay_ms,
            ..SendRequest::default()
        };
        Ok(self.service().send(request).await?.into_inner().message_id)
    }

    /// The result of a letter that was sent before.
    pub async fn attach(&self, to: &str, id: &str, timeout_ms: u64) -> Result<Received, Status> {
        self.attach_as(&agent(to), id, timeout_ms).await
    }

    /// The same by whoever knows nothing but the id.
    pub async fn attach_by_id(&self, id: &str, timeout_ms: u64) -> Result<Received, Status> {
        self.attach_as("", id, timeout_ms).await
    }

    /// What a box was told of the letters that it was to send.
    pub async fn attach_spread(&self, from: &str, id: &str, timeout_ms: u64) -> Result<Spread, Status> {
        self.attach_as(&agent(from), id, timeout_ms).await
    }

    async fn attach_as<A: Message + Default>(
        &self,
        agent: &str,
        id: &str,
        timeout_ms: u64,
    ) -> Result<A, Status> {
        let message = Some(attach_request::Message::MessageId(id.to_owned()));
        let request = AttachRequest { agent: agent.to_owned(), message, timeout_ms, method: String::new() };
        let response = self.service().attach(request).await?.into_inner().response;
        A::decode(response).map_err(|error| Status::internal(error.to_string()))
    }

    pub async fn spread(&self, from: &str, request: SpreadRequest) -> Result<Spread, Status> {
        let request = SpreadRequest { r#box: from.to_owned(), ..request };
        self.client.call("/mail.v1.Box/Spread", request).await
    }

    pub async fn letters(&self, key: &str) -> Result<Vec<KeptLetter>, Status> {
        let request = ReadRequest { r#box: key.to_owned() };
        Ok(self.client.call::<_, Letters>("/mail.v1.Box/Read", request).await?.letters)
    }

    /// The numbers of the letters in a box, once there are so many.
    pub async fn numbers(&self, key: &str, count: usize) -> Result<Vec<u64>> {
        // As long as letters come in it goes on.
        let (mut give_up, mut seen) = (Instant::now() + PATIENCE, 0);
        loop {
            let letters = self.letters(key).await?;
            if letters.len() >= count {
                return Ok(letters.into_iter().map(|letter| letter.number).collect());
            }
            if letters.len() > seen {
                (give_up, seen) = (Instant::now() + PATIENCE, letters.len());
            }
            ensure!(Instant::now() < give_up, "{key} has {} of {count} letters", letters.len());
            tokio::time::sleep(PAUSE).await;
        }
    }
}
