//! Raft's own data as bytes: what stands in the write-ahead log, beside the rows, and on the wire.
//!
//! The layouts are this crate's, not openraft's, so that an upgrade of openraft changes no stored byte.
//! Everything is postcard (<https://postcard.jamesmunns.com/wire-format>) behind one version byte.

use crate::raft_types::{
    AppendRequest, AppendResponse, CommandBytes, Entry, LogId, Membership, SnapshotMeta, StoredMembership,
    Types, Vote, VoteRequest, VoteResponse,
};
use bytes::Bytes;
use openraft::{
    EntryPayload, entry::RaftEntry, impls::BasicNode, raft::TransferLeaderRequest, vote::RaftLeaderId,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};

const VERSION: u8 = 1;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("{what} has version {version}; this server reads version {VERSION}")]
    Version { what: &'static str, version: u8 },
    #[error("{what} can't be decoded: {why}")]
    Malformed { what: &'static str, why: String },
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    // Fails for values without a known length or for a full writer only: these types have neither.
    postcard::to_extend(value, vec![VERSION]).map(Bytes::from).unwrap_or_default()
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => {
            let (value, rest) = postcard::take_from_bytes(body)
                .map_err(|error| CodecError::Malformed { what, why: error.to_string() })?;
            if rest.is_empty() {
                Ok(value)
            } else {
                Err(CodecError::Malformed { what, why: format!("{} bytes are left over", rest.len()) })
            }
        }
        Some((&version, _)) => Err(CodecError::Version { what, version }),
        None => Err(CodecError::Malformed { what, why: "it is empty".to_owned() }),
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct LogIdBytes {
    term: u64,
    index: u64,
}

impl From<&LogId> for LogIdBytes {
    fn from(id: &LogId) -> Self {
        Self { term: id.committed_leader_id().term, index: id.index() }
    }
}

impl From<LogIdBytes> for LogId {
    fn from(id: LogIdBytes) -> Self {
        LogId::new_term_index(id.term, id.index)
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct VoteBytes {
    term: u64,
    node: u64,
    committed: bool,
}

impl From<&Vote> for VoteBytes {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<VoteBytes> for Vote {
    fn from(vote: VoteBytes) -> Self {
        Vote { leader_id: RaftLeaderId::new(vote.term, vote.node), committed: vote.committed }
    }
}

#[derive(Serialize, Deserialize)]
struct MembershipBytes {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, String>,
}

impl From<&Membership> for MembershipBytes {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        }
    }
}

impl TryFrom<MembershipBytes> for Membership {
    type Error = CodecError;

    fn try_from(bytes: MembershipBytes) -> Result<Self, CodecError> {
        let nodes: BTreeMap<u64, BasicNode> =
            bytes.nodes.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
        if bytes.configs.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(bytes.configs, nodes)
            .map_err(|error| CodecError::Malformed { what: "a membership", why: error.to_string() })
    }
}

#[derive(Serialize, Deserialize)]
enum PayloadBytes {
    Blank,
    Command(Bytes),
    Membership(MembershipBytes),
}

#[derive(Serialize, Deserialize)]
struct EntryBytes {
    id: LogIdBytes,
    payload: PayloadBytes,
}

impl From<&Entry> for EntryBytes {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => PayloadBytes::Blank,
            EntryPayload::Normal(command) => PayloadBytes::Command(command.0.clone()),
            EntryPayload::Membership(membership) => PayloadBytes::Membership(membership.into()),
        };
        Self { id: (&entry.log_id).into(), payload }
    }
}

impl EntryBytes {
    fn into_entry(self) -> Result<Entry, CodecError> {
        let payload = match self.payload {
            PayloadBytes::Blank => EntryPayload::Blank,
            PayloadBytes::Command(command) => EntryPayload::Normal(CommandBytes(command)),
            PayloadBytes::Membership(membership) => EntryPayload::Membership(membership.try_into()?),
        };
        Ok(Entry::new(self.id.into(), payload))
    }
}

pub fn encode_entry(entry: &Entry) -> Bytes {
    encode(&EntryBytes::from(entry))
}

pub fn decode_entry(bytes: &[u8]) -> Result<Entry, CodecError> {
    decode::<EntryBytes>("a log entry", bytes)?.into_entry()
}

pub fn encode_vote(vote: &Vote) -> Bytes {
    encode(&VoteBytes::from(vote))
}

pub fn decode_vote(bytes: &[u8]) -> Result<Vote, CodecError> {
    Ok(decode::<VoteBytes>("a vote", bytes)?.into())
}

pub fn encode_log_id(id: Option<&LogId>) -> Bytes {
    encode(&id.map(LogIdBytes::from))
}

pub fn decode_log_id(bytes: &[u8]) -> Result<Option<LogId>, CodecError> {
    Ok(decode::<Option<LogIdBytes>>("a log id", bytes)?.map(LogId::from))
}

/// Stands beside the rows: up to where they were applied, and the membership as of there.
#[derive(Serialize, Deserialize)]
struct MarkBytes {
    applied: Option<LogIdBytes>,
    membership_at: Option<LogIdBytes>,
    membership: MembershipBytes,
}

pub fn encode_mark(applied: Option<&LogId>, membership: &StoredMembership) -> Bytes {
    encode(&MarkBytes {
        applied: applied.map(LogIdBytes::from),
        membership_at: membership.log_id().as_ref().map(LogIdBytes::from),
        membership: membership.membership().into(),
    })
}

pub fn decode_mark(bytes: &[u8]) -> Result<(Option<LogId>, StoredMembership), CodecError> {
    let mark: MarkBytes = decode("an applied mark", bytes)?;
    let membership = StoredMembership::new(mark.membership_at.map(LogId::from), mark.membership.try_into()?);
    Ok((mark.applied.map(LogId::from), membership))
}

pub fn encode_snapshot_meta(meta: &SnapshotMeta) -> Bytes {
    encode_mark(meta.last_log_id.as_ref(), &meta.last_membership)
}

pub fn decode_snapshot_meta(bytes: &[u8]) -> Result<SnapshotMeta, CodecError> {
    let (last_log_id, last_membership) = decode_mark(bytes)?;
    Ok(SnapshotMeta { last_log_id, last_membership })
}

#[derive(Serialize, Deserialize)]
struct AppendRequestBytes {
    vote: VoteBytes,
    prev: Option<LogIdBytes>,
    commit: Option<LogIdBytes>,
    entries: Vec<EntryBytes>,
}

pub fn encode_append_request(request: &AppendRequest) -> Bytes {
    encode(&AppendRequestBytes {
        vote: (&request.vote).into(),
        prev: request.prev_log_id.as_ref().map(LogIdBytes::from),
        commit: request.leader_commit.as_ref().map(LogIdBytes::from),
        entries: request.entries.iter().map(EntryBytes::from).collect(),
    })
}

/// None after the last of all indexes.
fn index_after(last: Option<u64>) -> Option<u64> {
    last.map_or(Some(0), |last| last.checked_add(1))
}

pub fn decode_append_request(bytes: &[u8]) -> Result<AppendRequest, CodecError> {
    let request: AppendRequestBytes = decode("an append request", bytes)?;
    let entries: Result<Vec<Entry>, CodecError> =
        request.entries.into_iter().map(EntryBytes::into_entry).collect();
    let entries = entries?;
    let mut last = request.prev.map(|prev| prev.index);
    for index in entries.iter().map(RaftEntry::index) {
        // Raft takes the indexes for granted: a gap from a broken peer must not reach it.
        if Some(index) != index_after(last) {
            let why = format!("entry {index} stands right after {last:?}");
            return Err(CodecError::Malformed { what: "an append request", why });
        }
        last = Some(index);
    }
    if index_after(last).is_none() {
        let why = "no index is left for a next entry".to_owned();
        return Err(CodecError::Malformed { what: "an append request", why });
    }
    Ok(AppendRequest {
        vote: request.vote.into(),
        prev_log_id: request.prev.map(LogId::from),
        leader_commit: request.commit.map(LogId::from),
        entries,
    })
}

#[derive(Serialize, Deserialize)]
enum AppendResponseBytes {
    Success,
    Partial(Option<LogIdBytes>),
    Conflict,
    HigherVote(VoteBytes),
}

pub fn encode_append_response(response: &AppendResponse) -> Bytes {
    encode(&match response {
        AppendResponse::Success => AppendResponseBytes::Success,
        AppendResponse::PartialSuccess(id) => AppendResponseBytes::Partial(id.as_ref().map(LogIdBytes::from)),
        AppendResponse::Conflict => AppendResponseBytes::Conflict,
        AppendResponse::HigherVote(vote) => AppendResponseBytes::HigherVote(vote.into()),
    })
}

pub fn decode_append_response(bytes: &[u8]) -> Result<AppendResponse, CodecError> {
    Ok(match decode("an append response", bytes)? {
        AppendResponseBytes::Success => AppendResponse::Success,
        AppendResponseBytes::Partial(id) => AppendResponse::PartialSuccess(id.map(LogId::from)),
        AppendResponseBytes::Conflict => AppendResponse::Conflict,
        AppendResponseBytes::HigherVote(vote) => AppendResponse::HigherVote(vote.into()),
    })
}

#[derive(Serialize, Deserialize)]
struct VoteRequestBytes {
    vote: VoteBytes,
    last: Option<LogIdBytes>,
    transfer: bool,
}

pub fn encode_vote_request(request: &VoteRequest) -> Bytes {
    encode(&VoteRequestBytes {
        vote: (&request.vote).into(),
        last: request.last_log_id.as_ref().map(LogIdBytes::from),
        transfer: request.leadership_transfer,
    })
}

pub fn decode_vote_request(bytes: &[u8]) -> Result<VoteRequest, CodecError> {
    let bytes: VoteRequestBytes = decode("a vote request", bytes)?;
    let mut request = VoteRequest::new(bytes.vote.into(), bytes.last.map(LogId::from));
    request.leadership_transfer = bytes.transfer;
    Ok(request)
}

#[derive(Serialize, Deserialize)]
struct VoteResponseBytes {
    vote: VoteBytes,
    granted: bool,
    last: Option<LogIdBytes>,
}

pub fn encode_vote_response(response: &VoteResponse) -> Bytes {
    encode(&VoteResponseBytes {
        vote: (&response.vote).into(),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(LogIdBytes::from),
    })
}

pub fn decode_vote_response(bytes: &[u8]) -> Result<VoteResponse, CodecError> {
    let bytes: VoteResponseBytes = decode("a vote response", bytes)?;
    Ok(VoteResponse {
        vote: bytes.vote.into(),
        vote_granted: bytes.granted,
        last_log_id: bytes.last.map(LogId::from),
    })
}

#[derive(Serialize, Deserialize)]
struct TransferBytes {
    from: VoteBytes,
    to: u64,
    last: Option<LogIdBytes>,
}

pub fn encode_transfer(request: &TransferLeaderRequest<Types>) -> Bytes {
    encode(&TransferBytes {
        from: request.from_leader().into(),
        to: *request.to_node_id(),
        last: request.last_log_id().map(LogIdBytes::from),
    })
}

pub fn decode_transfer(bytes: &[u8]) -> Result<TransferLeaderRequest<Types>, CodecError> {
    let bytes: TransferBytes = decode("a transfer of leadership", bytes)?;
    Ok(TransferLeaderRequest::new(bytes.from.into(), bytes.to, bytes.last.map(LogId::from)))
}

/// Rows of a snapshot in one chunk.
pub fn encode_rows(rows: &[(Bytes, Bytes)]) -> Bytes {
    encode(&rows)
}

pub fn decode_rows(bytes: &[u8]) -> Result<Vec<(Bytes, Bytes)>, CodecError> {
    decode("rows of a snapshot", bytes)
}
