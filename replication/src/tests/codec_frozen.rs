//! Bytes that logs and disks hold and peers send: these literals are added to, never edited.

use crate::{codec::*, raft_types::*};
use bytes::Bytes;
use openraft::{
    EntryPayload, entry::RaftEntry, impls::BasicNode, raft::TransferLeaderRequest, vote::RaftLeaderId,
};
use std::collections::{BTreeMap, BTreeSet};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

fn vote() -> Vote {
    Vote { leader_id: RaftLeaderId::new(300, 7), committed: true }
}

fn membership() -> Membership {
    let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
    let nodes: BTreeMap<u64, BasicNode> = [(1, "a:1"), (2, "b:2"), (3, "c:3"), (4, "")]
        .map(|(id, address)| (id, BasicNode::new(address)))
        .into();
    Membership::new(configs, nodes).unwrap()
}

#[track_caller]
fn is_frozen<T: PartialEq + std::fmt::Debug>(
    value: T,
    encoded: Bytes,
    decode: impl Fn(&[u8]) -> Result<T, CodecError>,
    frozen: &str,
) {
    assert_eq!(hex(&encoded), frozen, "{value:?}");
    assert_eq!(decode(&unhex(frozen)), Ok(value));
}

#[test]
fn entries() {
    let is = |payload, frozen| {
        let entry = Entry::new(id(3, 300), payload);
        let encoded = encode_entry(&entry);
        is_frozen(entry, encoded, decode_entry, frozen);
    };
    is(EntryPayload::Blank, "0103ac0200");
    is(EntryPayload::Normal(CommandBytes(Bytes::from_static(b"\x01abc"))), "0103ac02010401616263");
    is(
        EntryPayload::Membership(membership()),
        "0103ac020202020102020203040103613a310203623a320303633a330400",
    );
    is(EntryPayload::Membership(Membership::default()), "0103ac02020000");
}

#[test]
fn votes() {
    is_frozen(vote(), encode_vote(&vote()), decode_vote, "01ac020701");
    let plain = Vote { leader_id: RaftLeaderId::new(u64::MAX, 0), committed: false };
    is_frozen(plain, encode_vote(&plain), decode_vote, "01ffffffffffffffffff010000");
}

#[test]
fn log_ids() {
    is_frozen(None, encode_log_id(None), decode_log_id, "0100");
    let some = Some(id(3, 300));
    is_frozen(some, encode_log_id(some.as_ref()), decode_log_id, "010103ac02");
}

#[test]
fn marks() {
    let stored = StoredMembership::new(Some(id(2, 9)), membership());
    let encoded = encode_mark(Some(&id(3, 300)), &stored);
    is_frozen(
        (Some(id(3, 300)), stored.clone()),
        encoded.clone(),
        decode_mark,
        "010103ac0201020902020102020203040103613a310203623a320303633a330400",
    );
    let meta = SnapshotMeta { last_log_id: Some(id(3, 300)), last_membership: stored };
    assert_eq!(encode_snapshot_meta(&meta), encoded, "a snapshot's meta is the mark of its rows");
    let empty = (None, StoredMembership::default());
    is_frozen(empty, encode_mark(None, &StoredMembership::default()), decode_mark, "0100000000");
}

#[test]
fn requests_between_peers() {
    let entries = vec![
        Entry::new(id(3, 300), EntryPayload::Blank),
        Entry::new(id(3, 301), EntryPayload::Normal(CommandBytes(Bytes::from_static(b"c")))),
    ];
    let append = AppendRequest {
        vote: vote(),
        prev_log_id: Some(id(2, 299)),
        leader_commit: Some(id(2, 298)),
        entries: entries.clone(),
    };
    let frozen = "01ac0207010102ab020102aa020203ac020003ad02010163";
    assert_eq!(hex(&encode_append_request(&append)), frozen);
    let back = decode_append_request(&unhex(frozen)).unwrap();
    assert_eq!(
        (back.vote, back.prev_log_id, back.leader_commit),
        (vote(), append.prev_log_id, append.leader_commit)
    );
    assert_eq!(back.entries, entries);

    let mut request = VoteRequest::new(vote(), Some(id(2, 299)));
    request.leadership_transfer = true;
    let encoded = encode_vote_request(&request);
    is_frozen(request, encoded, decode_vote_request, "01ac0207010102ab0201");

    let transfer = TransferLeaderRequest::new(vote(), 2, Some(id(3, 300)));
    let encoded = encode_transfer(&transfer);
    is_frozen(transfer, encoded, decode_transfer, "01ac020701020103ac02");

    let rows = vec![(Bytes::from_static(b"k"), Bytes::from_static(b"value")), (Bytes::new(), Bytes::new())];
    is_frozen(rows.clone(), encode_rows(&rows), decode_rows, "0102016b0576616c75650000");
}

#[test]
fn responses_between_peers() {
    for (response, frozen) in [
        (AppendResponse::Success, "0100"),
        (AppendResponse::PartialSuccess(Some(id(3, 300))), "01010103ac02"),
        (AppendResponse::PartialSuccess(None), "010100"),
        (AppendResponse::Conflict, "0102"),
        (AppendResponse::HigherVote(vote()), "0103ac020701"),
    ] {
        let encoded = encode_append_response(&response);
        is_frozen(response, encoded, decode_append_response, frozen);
    }
    let response = VoteResponse { vote: vote(), vote_granted: true, last_log_id: Some(id(3, 300)) };
    let encoded = encode_vote_response(&response);
    is_frozen(response, encoded, decode_vote_response, "01ac020701010103ac02");
}
