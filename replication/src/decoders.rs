//! What must hold of every decoder of bytes from the disk or a peer, whatever the bytes: for property tests
//! and fuzzers, which share these bodies (`tests/tests/decoders.rs`, `tests/fuzz`). Only with the feature
//! `fuzzing`.
//!
//! None panics; none allocates more than its input accounts for; what decodes is encoded to bytes that
//! decode to the same.

use crate::{
    codec::{self, CodecError},
    row_store,
    wal::decoders as wal,
};
use bytes::Bytes;

/// A decoder by name: what must hold, and bytes that it takes, to be mutated.
pub type Decoder = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

pub const ALL: &[Decoder] = &[
    ("wal_segment", wal::segment, wal::segments),
    ("wal_header", wal::header, wal::segments),
    ("block", row_store::decoders::block, row_store::decoders::blocks),
    ("batch_part", row_store::decoders::part, row_store::decoders::parts),
    ("raft_entry", entry, nothing),
    ("raft_vote", vote, nothing),
    ("raft_log_id", log_id, nothing),
    ("raft_mark", mark, nothing),
    ("snapshot_meta", snapshot_meta, nothing),
    ("append_request", append_request, nothing),
    ("append_response", append_response, nothing),
    ("vote_request", vote_request, nothing),
    ("vote_response", vote_response, nothing),
    ("transfer_leader", transfer, nothing),
    ("snapshot_rows", rows, some_rows),
];

fn nothing() -> Vec<Vec<u8>> {
    Vec::new()
}

fn same_again<T>(data: &[u8], decode: impl Fn(&[u8]) -> Result<T, CodecError>, encode: impl Fn(&T) -> Bytes) {
    if let Ok(value) = decode(data) {
        let bytes = encode(&value);
        let again = decode(&bytes).map(|again| encode(&again));
        assert_eq!(again.ok(), Some(bytes), "what was encoded does not decode to the same");
    }
}

fn entry(data: &[u8]) {
    same_again(data, codec::decode_entry, codec::encode_entry);
}

fn vote(data: &[u8]) {
    same_again(data, codec::decode_vote, codec::encode_vote);
}

fn log_id(data: &[u8]) {
    same_again(data, codec::decode_log_id, |id| codec::encode_log_id(id.as_ref()));
}

fn mark(data: &[u8]) {
    same_again(data, codec::decode_mark, |(applied, membership)| {
        codec::encode_mark(applied.as_ref(), membership)
    });
}

fn snapshot_meta(data: &[u8]) {
    same_again(data, codec::decode_snapshot_meta, codec::encode_snapshot_meta);
}

fn append_request(data: &[u8]) {
    same_again(data, codec::decode_append_request, codec::encode_append_request);
}

fn append_response(data: &[u8]) {
    same_again(data, codec::decode_append_response, codec::encode_append_response);
}

fn vote_request(data: &[u8]) {
    same_again(data, codec::decode_vote_request, codec::encode_vote_request);
}

fn vote_response(data: &[u8]) {
    same_again(data, codec::decode_vote_response, codec::encode_vote_response);
}

fn transfer(data: &[u8]) {
    same_again(data, codec::decode_transfer, codec::encode_transfer);
}

fn rows(data: &[u8]) {
    same_again(data, codec::decode_rows, |rows| codec::encode_rows(rows));
}

fn some_rows() -> Vec<Vec<u8>> {
    let rows = [(Bytes::from("key"), Bytes::from("value")), (Bytes::from("other"), Bytes::new())];
    vec![codec::encode_rows(&rows).to_vec()]
}
