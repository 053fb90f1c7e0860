//! A connection to one peer, shared by all groups.

use super::{
    frames::frames,
    snapshot::{self, SnapshotHeader},
};
use afdg_proto::{
    pb::internal::{PeerKind, PeerMessage, SnapshotChunk, SnapshotRequest, peer_client::PeerClient},
    peer_auth::{PeerToken, ShowToken},
};
use afdg_runtime::{Net, channel_to};
use afdg_types::limits::FRAME_BYTES_MAX;
use bytes::Bytes;
use futures::Stream;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

/// Requests to one peer that wait to be framed.
const LINK_QUEUE_MESSAGES_MAX: usize = 256;
/// Bound of one attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause after a failed attempt; requests fail meanwhile.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

type Client = PeerClient<InterceptedService<Channel, ShowToken>>;
type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Bytes, RequestError>>>>>;

/// Why a peer gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("{address} can't be reached: {why}")]
    Unreachable { address: String, why: String },
    #[error("the connection to {address} broke before the answer came")]
    Lost { address: String },
    #[error("{address} did not handle the request: {why}")]
    Refused { address: String, why: String },
}

/// Links to peers by address, made when first used.
#[derive(Clone)]
pub struct Links {
    net: Arc<dyn Net>,
    token: PeerToken,
    links: Arc<Mutex<HashMap<String, Link>>>,
}

impl Links {
    pub fn new(net: Arc<dyn Net>, token: PeerToken) -> Self {
        Self { net, token, links: Arc::default() }
    }

    /// Sends one request and waits for its answer. Dropping the future forgets the answer.
    pub async fn request(
        &self,
        address: &str,
        to: u64,
        group: u64,
        kind: PeerKind,
        body: Bytes,
    ) -> Result<Bytes, RequestError> {
        let answer = self.send(address, to, group, kind, body).await?;
        answer.wait().await
    }

    /// Hands one request to the link: requests handed over one after the other arrive in that order.
    pub async fn send(
        &self,
        address: &str,
        to: u64,
        group: u64,
        kind: PeerKind,
        body: Bytes,
    ) -> Result<Answer, RequestError> {
        self.link(address)?.send(to, group, kind, body).await
    }

    /// Streams a snapshot; the answer comes when it is installed.
    pub async fn snapshot(
        &self,
        address: &str,
        chunks: impl Stream<Item = SnapshotChunk> + Send + 'static,
    ) -> Result<Bytes, RequestError> {
        let mut client = self.client(address)?;
        let installed = client.install_snapshot(chunks).await.map_err(|status| RequestError::Refused {
            address: address.to_owned(),
            why: status.message().to_owned(),
        })?;
        Ok(installed.into_inner().response)
    }

    /// Asks for the rows of a group as the peer has applied them.
    pub async fn fetch_snapshot(
        &self,
        address: &str,
        to: u64,
        group: u64,
    ) -> Result<(SnapshotHeader, Vec<Bytes>), RequestError> {
        let refused = |why: &str| RequestError::Refused { address: address.to_owned(), why: why.to_owned() };
        let mut client = self.client(address)?;
        let fetched = client.fetch_snapshot(SnapshotRequest { group, to }).await;
        let parts = fetched.map_err(|status| refused(status.message()))?.into_inner();
        let (_, header, chunks) =
            snapshot::receive(parts).await.map_err(|status| refused(status.message()))?;
        Ok((header, chunks))
    }

    fn client(&self, address: &str) -> Result<Client, RequestError> {
        let channel = channel_to(&self.net, address, CONNECT_TIMEOUT).map_err(|error| {
            RequestError::Unreachable { address: address.to_owned(), why: error.to_string() }
        })?;
        Ok(PeerClient::with_interceptor(channel, ShowToken(self.token.clone()))
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX))
    }

    fn link(&self, address: &str) -> Result<Link, RequestError> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(address).filter(|link| !link.queue.is_closed()) {
            return Ok(link.clone());
        }
        let link = Link::start(address.to_owned(), self.client(address)?);
        links.insert(address.to_owned(), link.clone());
        Ok(link)
    }
}

#[derive(Clone)]
struct Link {
    address: Arc<str>,
    queue: mpsc::Sender<PeerMessage>,
    pending: Pending,
    next_id: Arc<AtomicU64>,
}

impl Link {
    fn start(address: String, client: Client) -> Self {
        let (queue, waiting) = mpsc::channel(LINK_QUEUE_MESSAGES_MAX);
        let pending = Pending::default();
        let link = Self {
            address: address.clone().into(),
            queue,
            pending: Arc::clone(&pending),
            next_id: Arc::new(AtomicU64::new(1)),
        };
        tokio::spawn(exchange(address, client, waiting, pending));
        link
    }

    async fn send(&self, to: u64, group: u64, kind: PeerKind, body: Bytes) -> Result<Answer, RequestError> {
        let request_id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, waiting) = oneshot::channel();
        lock(&self.pending).insert(request_id, answer);
        let answer = Answer {
            request_id,
            waiting,
            pending: Arc::clone(&self.pending),
            address: Arc::clone(&self.address),
        };
        let message =
            PeerMessage { request_id, group, kind: kind.into(), stream: 0, body, refusal: String::new(), to };
        // A closed queue drops the message: the answer then says that the connection broke.
        if self.queue.send(message).await.is_err() {
            return Err(RequestError::Lost { address: self.address.to_string() });
        }
        Ok(answer)
    }
}

/// An answer that is on its way.
pub struct Answer {
    request_id: u64,
    waiting: oneshot::Receiver<Result<Bytes, RequestError>>,
    pending: Pending,
    address: Arc<str>,
}

impl Answer {
    pub async fn wait(mut self) -> Result<Bytes, RequestError> {
        match (&mut self.waiting).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Lost { address: self.address.to_string() }),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        lock(&self.pending).remove(&self.request_id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection from its start to its end; a link that ended is replaced when it is next used.
async fn exchange(
    address: String,
    mut client: Client,
    waiting: mpsc::Receiver<PeerMessage>,
    pending: Pending,
) {
    let why = match client.exchange(frames(waiting)).await {
        Ok(response) => {
            let mut answers = response.into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(frame)) => deliver(&address, frame.messages, &pending),
                    Ok(None) => break "it ended".to_owned(),
                    Err(status) => break status.message().to_owned(),
                }
            }
        }
        Err(status) => {
            // The queue is closed only after the pause, so that requests don't start one attempt each.
            fail_all(&address, &pending, status.message());
            tokio::time::sleep(RECONNECT_PAUSE).await;
            status.message().to_owned()
        }
    };
    tracing::debug!(peer = %address, why, "a connection to a peer ended");
    fail_all(&address, &pending, &why);
}

fn deliver(address: &str, messages: Vec<PeerMessage>, pending: &Pending) {
    let mut pending = lock(pending);
    for message in messages {
        let Some(answer) = pending.remove(&message.request_id) else { continue };
        let result = if message.refusal.is_empty() {
            Ok(message.body)
        } else {
            Err(RequestError::Refused { address: address.to_owned(), why: message.refusal })
        };
        // The one who asked may have gone.
        let _ = answer.send(result);
    }
}

fn fail_all(address: &str, pending: &Pending, why: &str) {
    for (_, answer) in std::mem::take(&mut *lock(pending)) {
        let error = RequestError::Unreachable { address: address.to_owned(), why: why.to_owned() };
        let _ = answer.send(Err(error));
    }
}
