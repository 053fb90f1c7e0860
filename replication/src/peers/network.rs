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
use futures::{FutureExt, Stream, StreamExt, stream::BoxStream};
use openraft::{
    OptionalSend,
    base::{BoxFuture, BoxStream as RaftStream},
    error::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    impls::BasicNode,
    network::{Backoff, RPCOption, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse},
};
use std::{
    collections::VecDeque,
    future::Future,
    task::{Poll, ready},
    time::Duration,
};

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

/// An append under way.
struct Append {
    /// The last entry that the peer has once it answers.
    last: Option<LogId>,
    answer: futures::future::BoxFuture<'static, Result<Appended, RPCError<Types>>>,
}

/// A peer's answer, with the entries before and at the end of its append.
type Appended = (AppendResponse, Option<LogId>, Option<LogId>);

/// Answers in the order of their appends, while later ones are already under way.
///
/// openraft tells by an answer's last entry which appends it answers, and takes the time at which the last of
/// those was sent for the beginning of the leader's lease. An append without entries ends where the one before
/// it does: if it is under way, the answer to the earlier one would be taken for its own too, and the lease
/// would begin too late, at a leader that was held up by as much as that was. So such an answer is held back
/// for the later one's.
fn pipeline(
    appends: BoxStream<'static, Append>,
) -> impl Stream<Item = Result<Appended, RPCError<Types>>> + Send {
    let mut appends = appends.fuse();
    let mut under_way: VecDeque<Append> = VecDeque::new();
    futures::stream::poll_fn(move |context| {
        loop {
            while under_way.len() < APPENDS_IN_FLIGHT_MAX {
                match appends.poll_next_unpin(context) {
                    Poll::Ready(Some(append)) => under_way.push_back(append),
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            let Some(first) = under_way.front_mut() else {
                return if appends.is_done() { Poll::Ready(None) } else { Poll::Pending };
            };
            let answer = ready!(first.answer.poll_unpin(context));
            let last = first.last;
            under_way.pop_front();
            let is_taken = match &answer {
                Ok((AppendResponse::Success, _, _)) => true,
                Ok((AppendResponse::PartialSuccess(up_to), _, _)) => *up_to == last,
                _ => false,
            };
            if !(is_taken && under_way.front().is_some_and(|next| next.last == last)) {
                return Poll::Ready(Some(answer));
            }
        }
    })
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
            let sent = sent.map(|(answer, prev, last)| {
                let answer = async move { Ok((wait_append(answer).await?, prev, last)) };
                Append { last, answer: answer.boxed() }
            });
            let results: RaftStream<'s, _> = Box::pin(until_broken(pipeline(sent.boxed()).boxed()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{channel::mpsc, poll};
    use tokio::sync::oneshot;

    fn entry(index: u64) -> Option<LogId> {
        Some(LogId::new_term_index(1, index))
    }

    struct Peer {
        appends: mpsc::UnboundedSender<Append>,
    }

    impl Peer {
        /// An append of the entries between the two.
        fn append(&self, prev: Option<LogId>, last: Option<LogId>) -> oneshot::Sender<AppendResponse> {
            let (answer, waiting) = oneshot::channel();
            let answer_of = async move {
                let gone = |_| RPCError::Unreachable(Unreachable::from_string("the peer is gone"));
                Ok((waiting.await.map_err(gone)?, prev, last))
            };
            self.appends.unbounded_send(Append { last, answer: answer_of.boxed() }).unwrap();
            answer
        }
    }

    #[tokio::test]
    async fn an_answer_is_not_taken_for_that_of_a_later_append_without_entries() {
        let (appends, sent) = mpsc::unbounded();
        let peer = Peer { appends };
        let mut answers = pipeline(sent.boxed()).boxed();
        let first = peer.append(entry(1), entry(2));
        let empty = peer.append(entry(2), entry(2));
        let third = peer.append(entry(2), entry(3));
        first.send(AppendResponse::Success).unwrap();
        assert!(poll!(answers.next()).is_pending(), "nothing shows that the second was answered");
        empty.send(AppendResponse::Success).unwrap();
        let Some(Ok((_, prev, last))) = answers.next().await else { panic!("no answer") };
        assert_eq!((prev, last), (entry(2), entry(2)));
        third.send(AppendResponse::Success).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap().2, entry(3));

        // One that is alone is answered at once.
        peer.append(entry(3), entry(3)).send(AppendResponse::Success).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap().2, entry(3));
        drop(peer);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_refused_append_is_told_whatever_comes_behind_it() {
        let (appends, sent) = mpsc::unbounded();
        let peer = Peer { appends };
        let mut answers = pipeline(sent.boxed()).boxed();
        let first = peer.append(entry(1), entry(2));
        let empty = peer.append(entry(2), entry(2));
        first.send(AppendResponse::Conflict).unwrap();
        assert!(matches!(answers.next().await, Some(Ok((AppendResponse::Conflict, _, _)))));
        drop(empty);
        assert!(matches!(answers.next().await, Some(Err(_))));
    }
}
