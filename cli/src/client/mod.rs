//! The grid as its clients see it: gRPC to an extension, in plain text.

mod errors;
mod pipe;

pub use errors::{CallFailure, LetterKnown, status_of};
pub use pipe::{Pipe, outcome_of};

use crate::{arguments::EndpointArgs, failure::usage};
use afdg_proto::pb::{
    admin::{
        agents_client::AgentsClient, cluster_client::ClusterClient, dead_letters_client::DeadLettersClient,
        schedules_client::SchedulesClient,
    },
    v1::grid_client::GridClient,
};
use afdg_types::limits::FRAME_BYTES_MAX;
use anyhow::Context;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// How long one attempt to connect may take.
const CONNECT_MS_MAX: u64 = 5_000;

/// A connection to one extension.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    endpoint: String,
}

impl Client {
    pub async fn connect(args: &EndpointArgs) -> anyhow::Result<Self> {
        Self::connect_to(&args.endpoint).await
    }

    pub async fn connect_to(endpoint: &str) -> anyhow::Result<Self> {
        let channel = transport(endpoint)?.connect().await.with_context(|| {
            format!(
                "no grid answers at {endpoint}; start one with 'afdg dev', or say where it is with --endpoint"
            )
        })?;
        Ok(Self { channel, endpoint: endpoint.to_owned() })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub fn grid(&self) -> GridClient<Channel> {
        GridClient::new(self.channel()).max_decoding_message_size(FRAME_BYTES_MAX)
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel()).max_decoding_message_size(FRAME_BYTES_MAX)
    }

    pub fn dead_letters(&self) -> DeadLettersClient<Channel> {
        DeadLettersClient::new(self.channel()).max_decoding_message_size(FRAME_BYTES_MAX)
    }

    pub fn schedules(&self) -> SchedulesClient<Channel> {
        SchedulesClient::new(self.channel()).max_decoding_message_size(FRAME_BYTES_MAX)
    }

    pub fn agents(&self) -> AgentsClient<Channel> {
        AgentsClient::new(self.channel()).max_decoding_message_size(FRAME_BYTES_MAX)
    }
}

/// Reads an address as people write it: `http://host:port` or `host:port`.
fn transport(endpoint: &str) -> anyhow::Result<Endpoint> {
    let text = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let wrong = || {
        let shown = endpoint.escape_debug();
        usage(format!("'{shown}' is no address of a grid; write one such as http://127.0.0.1:7400"))
    };
    let Ok(parsed) = Endpoint::from_shared(text) else { return wrong() };
    if parsed.uri().scheme_str() != Some("http") || parsed.uri().host().is_none_or(str::is_empty) {
        return wrong();
    }
    if parsed.uri().port_u16().is_none() {
        return wrong();
    }
    Ok(parsed
        .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
        .tcp_nodelay(true)
        .initial_stream_window_size(8 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port() {
        for good in ["http://127.0.0.1:7400", "127.0.0.1:7400", "grid.example:80", "http://[::1]:1"] {
            assert!(transport(good).is_ok(), "{good} was refused");
        }
        for bad in ["", "http://", "https://a:1", "localhost", "http://:7400", "a b:1", "ftp://a:1"] {
            assert!(transport(bad).is_err(), "{bad} was taken");
        }
    }
}
