//! The connection to one node: made when a message needs it, made again after a failure.

use crate::{
    ForwardError, InFlight,
    frames::Frames,
    traffic::{Connection, Traffic},
};
use afdg_proto::{
    pb::internal::{Forwarded, region_node_client::RegionNodeClient},
    peer_auth::{PeerToken, ShowToken},
};
use afdg_runtime::{OnEnd, Tasks};
use afdg_types::limits::FRAME_BYTES_MAX;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{service::interceptor::InterceptedService, transport::Channel};

/// Bounds one attempt to connect.
pub(crate) const CONNECT_MS_MAX: u64 = 1_000;
/// Pause after the first failed connection; doubles with each further one.
const RECONNECT_MS_FIRST: u64 = 20;
/// Longest pause between attempts to connect.
const RECONNECT_MS_MAX: u64 = 1_000;

pub(crate) type NodeClient = RegionNodeClient<InterceptedService<Channel, ShowToken>>;

pub(crate) struct Link {
    address: String,
    channel: Channel,
    token: PeerToken,
    tasks: Tasks,
    traffic: Mutex<Traffic>,
}

impl Link {
    pub(crate) fn new(address: &str, channel: Channel, token: PeerToken, tasks: Tasks) -> Self {
        Self { address: address.to_owned(), channel, token, tasks, traffic: Mutex::default() }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A panic under this lock is not possible short of running out of memory; were there one, the
    /// maps would still be whole.
    pub(crate) fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn node_client(&self) -> NodeClient {
        RegionNodeClient::with_interceptor(self.channel.clone(), ShowToken(self.token.clone()))
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    /// Puts the message into the queue of the current connection, and starts one if there is none.
    pub(crate) fn start(self: &Arc<Self>, message: Forwarded) -> Result<InFlight, ForwardError> {
        let mut traffic = self.traffic();
        if traffic.closed {
            return Err(ForwardError::NotSent(format!("{} has left the routing table", self.address)));
        }
        let connect = match &traffic.connection {
            Connection::Up => false,
            Connection::Down { retry_at: Some(at), why } if Instant::now() < *at => {
                return Err(ForwardError::NotSent(format!("{} is not reachable: {why}", self.address)));
            }
            Connection::Down { .. } => true,
        };
        let (request_id, reply) = traffic.enqueue(message)?;
        let writer = traffic.writer.take();
        if connect {
            traffic.connection = Connection::Up;
            traffic.generation += 1;
        }
        let generation = traffic.generation;
        drop(traffic);
        if let Some(writer) = writer {
            writer.wake();
        }
        if connect {
            let connection = Ending { link: Arc::clone(self), generation, answered: false, why: None };
            self.tasks.spawn("region link", OnEnd::Finish, connection.serve());
        }
        Ok(InFlight::new(Arc::clone(self), request_id, reply))
    }

    /// Takes no more messages; the connection ends when those in flight are answered.
    pub(crate) fn close(&self) {
        let mut traffic = self.traffic();
        traffic.closed = true;
        let writer = traffic.writer.take();
        drop(traffic);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

/// One connection from its first message to its end. However its task ends, every message that was
/// on it is settled.
struct Ending {
    link: Arc<Link>,
    generation: u64,
    /// An outcome has come: the node works, and the next attempt to connect needs no pause.
    answered: bool,
    why: Option<String>,
}

impl Ending {
    async fn serve(mut self) {
        let frames = Frames { link: Arc::clone(&self.link), generation: self.generation };
        let mut client = self.link.node_client();
        let mut outcomes = match client.forward(frames).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                self.why = Some(why(&status));
                return;
            }
        };
        loop {
            match outcomes.message().await {
                Ok(Some(frame)) => {
                    self.answered = true;
                    let settled = self.link.traffic().settle(frame);
                    settled.into_iter().for_each(crate::traffic::Settled::tell);
                }
                Ok(None) => return,
                Err(status) => {
                    self.why = Some(why(&status));
                    return;
                }
            }
        }
    }
}

fn why(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

impl Drop for Ending {
    fn drop(&mut self) {
        let why = self.why.take().unwrap_or_else(|| "the connection was closed".to_owned());
        let mut traffic = self.link.traffic();
        if traffic.generation != self.generation {
            return;
        }
        traffic.failures = if self.answered { 0 } else { traffic.failures.saturating_add(1) };
        let pause = match traffic.failures {
            0 => None,
            failures => {
                let doubled = RECONNECT_MS_FIRST << (failures - 1).min(16);
                Some(Duration::from_millis(doubled.min(RECONNECT_MS_MAX)))
            }
        };
        // The frame stream of this connection takes nothing more, even if the transport still polls it.
        traffic.generation += 1;
        traffic.writer = None;
        traffic.connection =
            Connection::Down { retry_at: pause.map(|pause| Instant::now() + pause), why: why.clone() };
        let first_failure = traffic.failures <= 1 && !traffic.closed;
        let settled = traffic.fail_all(&why);
        drop(traffic);
        if first_failure {
            tracing::info!(
                node = self.link.address,
                why,
                in_flight = settled.len(),
                "a link to a node ended"
            );
        }
        settled.into_iter().for_each(crate::traffic::Settled::tell);
    }
}
