//! The receiving end: hands requests of peers to the replicas of their groups.

use super::{
    frames::frames,
    snapshot::{self, SnapshotHeader},
};
use crate::row_store::RowSnapshot;
use afdg_proto::{
    pb::internal::{
        PeerFrame, PeerKind, PeerMessage, SnapshotChunk, SnapshotInstalled, SnapshotRequest,
        peer_server::{Peer, PeerServer},
    },
    peer_auth::{DemandToken, PeerToken},
    status::of_grid_error,
};
use afdg_runtime::in_order;
use afdg_types::{GridError, Reason, limits::FRAME_BYTES_MAX};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming, service::interceptor::InterceptedService};

/// Requests of one connection under way at the same time; past it, reading pauses.
const CONNECTION_REQUESTS_MAX: usize = 4_096;
/// A replica as its peers see it.
pub trait GroupHandler: Send + Sync + 'static {
    /// Handles one request. What must keep its order is handed on before the future first waits.
    fn handle(&self, kind: PeerKind, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;
    fn install_snapshot(
        &self,
        header: SnapshotHeader,
        chunks: Vec<Bytes>,
    ) -> BoxFuture<'static, Result<Bytes, String>>;
    /// What is applied here now.
    fn snapshot(&self) -> RowSnapshot;
}

/// The groups of one server. Cheap to clone.
#[derive(Clone, Default)]
pub struct PeerService {
    groups: Arc<RwLock<HashMap<u64, Arc<dyn GroupHandler>>>>,
}

/// What one server's peers call.
#[derive(Clone)]
pub struct Receiver {
    groups: PeerService,
    own: u64,
}

/// The service as it is added to a server.
pub type PeerEndpoint = InterceptedService<PeerServer<Receiver>, DemandToken>;

impl PeerService {
    pub fn add(&self, group: u64, handler: Arc<dyn GroupHandler>) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(group, handler);
    }

    pub fn remove(&self, group: u64) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(&group);
    }

    fn group(&self, group: u64) -> Result<Arc<dyn GroupHandler>, String> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(&group).cloned().ok_or_else(|| format!("this server has no replica of group {group}"))
    }

    /// The service of the server `own`.
    pub fn endpoint(&self, own: u64, token: PeerToken) -> PeerEndpoint {
        let server = PeerServer::new(Receiver { groups: self.clone(), own })
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        InterceptedService::new(server, DemandToken(token))
    }
}

impl Receiver {
    /// The group's handler, if this is the server that is meant: an address can change hands, and what is
    /// stored here must not count as stored there.
    fn group(&self, to: u64, group: u64) -> Result<Arc<dyn GroupHandler>, String> {
        if to != self.own {
            return Err(format!("this is server {}, not server {to}", self.own));
        }
        self.groups.group(group)
    }

    fn handle(&self, request: PeerMessage) -> BoxFuture<'static, PeerMessage> {
        let PeerMessage { request_id, group, kind, stream, body, to, .. } = request;
        let answer = PeerMessage { request_id, group, kind, stream, ..PeerMessage::default() };
        let handler = match (self.group(to, group), PeerKind::try_from(kind)) {
            (Ok(handler), Ok(kind)) if kind != PeerKind::Unspecified => handler.handle(kind, body),
            (Ok(_), _) => futures::future::ready(Err(format!("kind {kind} is not known"))).boxed(),
            (Err(why), _) => futures::future::ready(Err(why)).boxed(),
        };
        async move {
            match handler.await {
                Ok(body) => PeerMessage { body, ..answer },
                // An empty refusal would read as an answer.
                Err(why) => {
                    PeerMessage { refusal: if why.is_empty() { "refused".to_owned() } else { why }, ..answer }
                }
            }
        }
        .boxed()
    }
}

#[tonic::async_trait]
impl Peer for Receiver {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<PeerFrame, Status>> + Send>>;
    type FetchSnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotChunk, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (answers, waiting) = mpsc::channel(CONNECTION_REQUESTS_MAX);
        tokio::spawn(serve_connection(self.clone(), request.into_inner(), answers));
        Ok(Response::new(Box::pin(frames(waiting).map(Ok))))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotInstalled>, Status> {
        let ((to, group), header, chunks) =
            snapshot::receive(request.into_inner()).await.map_err(|status| *status)?;
        let handler = self.group(to, group).map_err(refuse)?;
        let response = handler.install_snapshot(header, chunks).await.map_err(refuse)?;
        Ok(Response::new(SnapshotInstalled { response }))
    }

    async fn fetch_snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        let SnapshotRequest { group, to } = request.into_inner();
        let rows = self.group(to, group).map_err(refuse)?.snapshot();
        let Some(meta) = rows.mark().cloned() else {
            return Err(refuse("nothing was applied here yet".into()));
        };
        let head = SnapshotChunk { group, meta, ..SnapshotChunk::default() };
        Ok(Response::new(Box::pin(snapshot::send(head, rows).map(Ok))))
    }
}

pub(super) fn refuse(why: String) -> Status {
    of_grid_error(&GridError::new(Reason::InvalidRequest, why))
}

/// Reads requests and sends answers until either side ends the connection.
async fn serve_connection(
    service: Receiver,
    mut requests: Streaming<PeerFrame>,
    answers: mpsc::Sender<PeerMessage>,
) {
    // First polled in the order in which they were added: that is what keeps appends in order.
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(answer) = under_way.next() => {
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
            frame = requests.message(), if under_way.len() < CONNECTION_REQUESTS_MAX => match frame {
                Ok(Some(frame)) => under_way.extend(frame.messages.into_iter().map(|request| in_order(service.handle(request)))),
                Ok(None) | Err(_) => return,
            },
        }
    }
}
