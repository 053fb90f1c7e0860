//! openraft's view of a link: requests of one group to one peer.

use super::{
    link::{Answer, Links, RequestError},
    snapshot,
};
use crate::{
    codec,
    raft_types::{AppendRequest, AppendResponse, LogId, Types, Vote, VoteRequest, VoteResponse},
    state_machine::SnapshotRows,
};
use afdg_proto::pb::internal::{PeerKind, SnapshotChunk};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use openraft::{
    OptionalSend,
    base::{BoxFuture, BoxStream as RaftStream},
    error::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    impls::BasicNode,
    network::{Backoff, RPCOption, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse},
};
use std::{future::Future, time::Duration};

/// Append requests of one group under way to one peer at the same time.
const APPENDS_IN_FLIGHT_MAX: usize = 32;
/// A peer that has not answered an append by then is taken for gone.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes the networks of one group.
#[derive(Clone)]
pub struct PeerNetworks {
    pub group: u64,
    pub links: Links,
}

impl RaftNetworkFactory<Types> for PeerNetworks {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> PeerNetwork {
        PeerNetwork { group: self.group, target, links: self.links.clone(), address: node.addr.clone() }
    }
}

/// One group's requests to one peer.
#[derive(Clone)]
pub struct PeerNetwork {
    group: u64,
    target: u64,
    links: Links,
    address: String,
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl PeerNetwork {
    async fn request(&self, kind: PeerKind, body: Bytes, limit: Duration) -> Result<Bytes, RPCError<Types>> {
        let request = self.links.request(&self.address, self.target, self.group, kind, body);
        match tokio::time::timeout(limit, request).await {
            Ok(result) => result.map_err(|error| unreachable(&error)),
            Err(elapsed) => Err(unreachable(&elapsed)),
        }
    }

    async fn send_append(&self, request: &AppendRequest) -> Result<Answer, RequestError> {
        self.links
            .send(
                &self.address,
                self.target,
                self.group,
                PeerKind::Append,
                codec::encode_append_request(request),
            )
            .await
    }
}

async fn wait_append(answer: Result<Answer, RequestError>) -> Result<AppendResponse, RPCError<Types>> {
    let answer = answer.map_err(|error| unreachable(&error))?;
    let body = match tokio::time::timeout(APPEND_TIMEOUT, answer.wait()).await {
        Ok(result) => result.map_err(|error| unreachable(&error))?,
        Err(elapsed) => return Err(unreachable(&elapsed)),
    };
    codec::decode_append_response(&body).map_err(|error| unreachable(&error))
}

/// Results up to and with the first that ends the pipeline: an error, a conflict, or an append that was
/// taken in part.
fn until_broken<S>(
    results: S,
) -> impl Stream<Item = Result<StreamAppendResult<Types>, RPCError<Types>>> + Send
where
    S: Stream<Item = Result<(AppendResponse, Option<LogId>, Option<LogId>), RPCError<Types>>> + Send + Unpin,
{
    futures::stream::unfold(Some(results), |results| async move {
        let mut results = results?;
        let result = results.next().await?;
        Some(match result {
            Err(error) => (Err(error), None),
            Ok((response, prev, last)) => {
                let partial = matches!(&response, AppendResponse::PartialSuccess(up_to) if *up_to != last);
                let result = match response {
                    // `into_stream_result` takes a conflict's previous id for granted; a peer's answer
                    // must not be able to panic this server.
                    AppendResponse::Conflict if prev.is_none() => {
                        let why = "a peer reports a conflict before the first entry";
                        return Some((Err(RPCError::Unreachable(Unreachable::from_string(why))), None));
                    }
                    response => response.into_stream_result(prev, last),
                };
                let goes_on = result.is_ok() && !partial;
                (Ok(result), goes_on.then_some(results))
            }
        })
    })
}

impl RaftNetworkV2<Types> for PeerNetwork {
    type SnapshotData = SnapshotRows;

    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        _option: RPCOption,
    ) -> Result<AppendResponse, RPCError<Types>> {
        wait_append(self.send_append(&rpc).await).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<RaftStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        let network = self.clone();
        Box::pin(async move {
            // Requests are handed to the link one after the other; their answers are awaited in order
            // while later requests are already under way.
            let sent = input.then(move |request| {
                let network = network.clone();
                async move {
                    let prev = request.prev_log_id;
                    let last = request.entries.last().map(|entry| entry.log_id).or(prev);
                    (network.send_append(&request).await, prev, last)
                }
            });
            let answers: BoxStream<'static, _> = sent
                .map(|(answer, prev, last)| async move { Ok((wait_append(answer).await?, prev, last)) })
                .buffered(APPENDS_IN_FLIGHT_MAX)
                .boxed();
            let results: RaftStream<'s, _> = Box::pin(until_broken(answers));
            Ok(results)
        })
    }

    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<Types>> {
        let body = self.request(PeerKind::Vote, codec::encode_vote_request(&rpc), option.hard_ttl()).await?;
        codec::decode_vote_response(&body).map_err(|error| unreachable(&error))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RPCError<Types>> {
        let body =
            self.request(PeerKind::PreVote, codec::encode_vote_request(&rpc), option.hard_ttl()).await?;
        codec::decode_vote_response(&body).map_err(|error| unreachable(&error))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.request(PeerKind::TransferLeader, codec::encode_transfer(&req), option.hard_ttl()).await?;
        Ok(Ok(()))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<Types, SnapshotRows>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let unreachable =
            |error: &dyn std::fmt::Display| StreamingError::Unreachable(Unreachable::from_string(error));
        let SnapshotRows::Own(rows) = snapshot.snapshot else {
            return Err(unreachable(&"a received snapshot is not passed on"));
        };
        // The rows may be newer than the checkpoint that openraft asked for: they say themselves.
        let Some(mark) = rows.mark().cloned() else { return Err(unreachable(&"there are no rows to send")) };
        let head = SnapshotChunk {
            group: self.group,
            to: self.target,
            vote: codec::encode_vote(&vote),
            meta: mark,
            ..SnapshotChunk::default()
        };
        let sent = self.links.snapshot(&self.address, snapshot::send(head, rows));
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            result = tokio::time::timeout(option.hard_ttl(), sent) => {
                let body = result.map_err(|error| unreachable(&error))?.map_err(|error| unreachable(&error))?;
                let vote = codec::decode_vote(&body).map_err(|error| unreachable(&error))?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        None
    }
}
