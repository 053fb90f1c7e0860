//! Every message comes back as it went, and no bytes bring a server down.

use super::random::Random;
use crate::{codec::*, raft_types::*};
use bytes::Bytes;
use openraft::{raft::TransferLeaderRequest, vote::RaftLeaderId};
use std::fmt::Debug;

fn vote(random: &mut Random) -> Vote {
    let leader_id = RaftLeaderId::new(random.number(), random.below(9));
    Vote { leader_id, committed: random.below(2) == 0 }
}

fn some(random: &mut Random) -> Option<LogId> {
    (random.below(3) > 0).then(|| random.log_id())
}

fn mark(random: &mut Random) -> (Option<LogId>, StoredMembership) {
    let membership = match random.below(3) {
        0 => StoredMembership::default(),
        _ => StoredMembership::new(some(random), random.membership()),
    };
    (some(random), membership)
}

fn append_request(random: &mut Random) -> AppendRequest {
    let prev_log_id = some(random);
    let first = prev_log_id.map_or(0, |prev| prev.index() + 1);
    let count = random.below(4);
    let entries = (first..first + count)
        .map(|index| {
            let term = random.number();
            random.entry(LogId::new_term_index(term, index))
        })
        .collect();
    AppendRequest { vote: vote(random), prev_log_id, leader_commit: some(random), entries }
}

fn append_response(random: &mut Random) -> AppendResponse {
    match random.below(4) {
        0 => AppendResponse::Success,
        1 => AppendResponse::PartialSuccess(some(random)),
        2 => AppendResponse::Conflict,
        _ => AppendResponse::HigherVote(vote(random)),
    }
}

fn vote_request(random: &mut Random) -> VoteRequest {
    let mut request = VoteRequest::new(vote(random), some(random));
    request.leadership_transfer = random.below(2) == 0;
    request
}

fn vote_response(random: &mut Random) -> VoteResponse {
    VoteResponse { vote: vote(random), vote_granted: random.below(2) == 0, last_log_id: some(random) }
}

fn transfer(random: &mut Random) -> TransferLeaderRequest<Types> {
    TransferLeaderRequest::new(vote(random), random.number(), some(random))
}

fn rows(random: &mut Random) -> Vec<(Bytes, Bytes)> {
    let bytes = |random: &mut Random| {
        let length = random.below(30);
        Bytes::from(random.bytes(length))
    };
    (0..random.below(5)).map(|_| (bytes(random), bytes(random))).collect()
}

/// `value` comes back equal, and its bytes are the same the second time.
fn comes_back<T: PartialEq + Debug>(
    value: T,
    encode: impl Fn(&T) -> Bytes,
    decode: impl Fn(&[u8]) -> Result<T, CodecError>,
) {
    let bytes = encode(&value);
    let back = decode(&bytes).unwrap();
    assert_eq!(back, value);
    assert_eq!(encode(&back), bytes);
}

#[test]
fn every_message_comes_back() {
    let random = &mut Random::new(1);
    for _ in 0..500 {
        let id = random.log_id();
        comes_back(random.entry(id), encode_entry, decode_entry);
        comes_back(vote(random), encode_vote, decode_vote);
        comes_back(some(random), |id| encode_log_id(id.as_ref()), decode_log_id);
        comes_back(mark(random), |(id, membership)| encode_mark(id.as_ref(), membership), decode_mark);
        let (last_log_id, last_membership) = mark(random);
        comes_back(SnapshotMeta { last_log_id, last_membership }, encode_snapshot_meta, decode_snapshot_meta);
        comes_back(append_response(random), encode_append_response, decode_append_response);
        comes_back(vote_request(random), encode_vote_request, decode_vote_request);
        comes_back(vote_response(random), encode_vote_response, decode_vote_response);
        comes_back(transfer(random), encode_transfer, decode_transfer);
        comes_back(rows(random), |rows| encode_rows(rows), decode_rows);

        // Has no equality of its own.
        let request = append_request(random);
        let back = decode_append_request(&encode_append_request(&request)).unwrap();
        assert_eq!(
            (back.vote, back.prev_log_id, back.leader_commit, back.entries),
            (request.vote, request.prev_log_id, request.leader_commit, request.entries)
        );
    }
}

/// A kind of message: its name, one of it, and whether bytes can be decoded as one.
type Kind = (&'static str, fn(&mut Random) -> Bytes, fn(&[u8]) -> Result<(), CodecError>);

fn kinds() -> Vec<Kind> {
    vec![
        (
            "entry",
            |random| {
                let id = random.log_id();
                encode_entry(&random.entry(id))
            },
            |bytes| decode_entry(bytes).map(drop),
        ),
        ("vote", |random| encode_vote(&vote(random)), |bytes| decode_vote(bytes).map(drop)),
        ("log id", |random| encode_log_id(some(random).as_ref()), |bytes| decode_log_id(bytes).map(drop)),
        (
            "mark",
            |random| {
                let (id, membership) = mark(random);
                encode_mark(id.as_ref(), &membership)
            },
            |bytes| decode_mark(bytes).map(drop),
        ),
        (
            "append request",
            |random| encode_append_request(&append_request(random)),
            |bytes| decode_append_request(bytes).map(drop),
        ),
        (
            "append response",
            |random| encode_append_response(&append_response(random)),
            |bytes| decode_append_response(bytes).map(drop),
        ),
        (
            "vote request",
            |random| encode_vote_request(&vote_request(random)),
            |bytes| decode_vote_request(bytes).map(drop),
        ),
        (
            "vote response",
            |random| encode_vote_response(&vote_response(random)),
            |bytes| decode_vote_response(bytes).map(drop),
        ),
        ("transfer", |random| encode_transfer(&transfer(random)), |bytes| decode_transfer(bytes).map(drop)),
        ("rows", |random| encode_rows(&rows(random)), |bytes| decode_rows(bytes).map(drop)),
    ]
}

#[test]
fn a_message_that_is_cut_off_or_too_long_or_newer_is_refused() {
    let random = &mut Random::new(2);
    for (kind, one, decode) in kinds() {
        for _ in 0..50 {
            let whole = one(random);
            decode(&whole).unwrap();
            for length in 0..whole.len() {
                assert!(decode(&whole[..length]).is_err(), "{kind}: {length} bytes of {whole:?} were taken");
            }
            let mut longer = whole.to_vec();
            longer.push(0);
            assert!(matches!(decode(&longer), Err(CodecError::Malformed { .. })), "{kind}: {longer:?}");
            let mut newer = whole.to_vec();
            newer[0] = 2;
            assert!(matches!(decode(&newer), Err(CodecError::Version { version: 2, .. })), "{kind}");
        }
        assert!(matches!(decode(&[]), Err(CodecError::Malformed { .. })), "{kind}");
    }
}

#[test]
fn any_bytes_are_a_message_or_a_refusal() {
    let random = &mut Random::new(3);
    for (kind, one, decode) in kinds() {
        let (mut taken, mut refused) = (0, 0);
        let mut check = |bytes: &[u8]| match decode(bytes) {
            Ok(()) => taken += 1,
            Err(_) => refused += 1,
        };
        for _ in 0..2_000 {
            let length = random.below(40);
            let mut bytes = random.bytes(length);
            check(&bytes);
            bytes.insert(0, 1);
            check(&bytes);
            let mut damaged = one(random).to_vec();
            for _ in 0..=random.below(3) {
                let place = random.below(damaged.len() as u64) as usize;
                match random.below(4) {
                    0 => damaged.insert(place, 0xff),
                    1 => drop(damaged.remove(place)),
                    _ => damaged[place] = random.below(256) as u8,
                }
                if damaged.is_empty() {
                    damaged.push(1);
                }
            }
            check(&damaged);
        }
        assert!(taken > 0 && refused > 0, "{kind}: {taken} taken, {refused} refused");
    }
}

/// As postcard writes u64::MAX.
const HUGE: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];

#[test]
fn lengths_far_past_the_end_take_no_memory_and_are_refused() {
    let bytes = |parts: &[&[u8]]| parts.concat();
    // Term, index, a command of so many bytes.
    assert!(decode_entry(&bytes(&[&[1, 1, 1, 1], &HUGE])).is_err());
    // Term, index, a membership of so many configs; one config of so many ids; so many nodes; a long address.
    assert!(decode_entry(&bytes(&[&[1, 1, 1, 2], &HUGE])).is_err());
    assert!(decode_entry(&bytes(&[&[1, 1, 1, 2, 1], &HUGE])).is_err());
    assert!(decode_entry(&bytes(&[&[1, 1, 1, 2, 0], &HUGE])).is_err());
    assert!(decode_entry(&bytes(&[&[1, 1, 1, 2, 0, 1, 7], &HUGE])).is_err());
    assert!(decode_append_request(&bytes(&[&[1, 1, 1, 1, 0, 0], &HUGE])).is_err());
    assert!(decode_rows(&bytes(&[&[1], &HUGE])).is_err());
    assert!(decode_rows(&bytes(&[&[1, 1], &HUGE])).is_err());
    // Numbers with more bits than they have room for.
    assert!(decode_log_id(&bytes(&[&[1, 1, 1], &[0xff; 10], &[1]])).is_err());
}

#[test]
fn a_membership_that_can_not_be_is_refused() {
    // A voter without an address, and a config without voters.
    assert!(decode_entry(&[1, 1, 1, 2, 1, 1, 7, 0]).is_err());
    assert!(decode_entry(&[1, 1, 1, 2, 1, 0, 1, 7, 1, b'a']).is_err());
    decode_entry(&[1, 1, 1, 2, 1, 1, 7, 1, 7, 1, b'a']).unwrap();
}

#[test]
fn an_append_request_with_a_gap_is_refused() {
    let random = &mut Random::new(4);
    let mut decode = |prev: Option<u64>, indexes: &[u64]| {
        let id = |index| LogId::new_term_index(3, index);
        let entries = indexes.iter().map(|index| random.entry(id(*index))).collect();
        let vote = vote(random);
        let request = AppendRequest { vote, prev_log_id: prev.map(id), leader_commit: Some(id(0)), entries };
        decode_append_request(&encode_append_request(&request)).map(|request| request.entries.len())
    };
    assert_eq!(decode(None, &[]), Ok(0));
    assert_eq!(decode(Some(9), &[]), Ok(0));
    assert_eq!(decode(None, &[0, 1, 2]), Ok(3));
    assert_eq!(decode(Some(9), &[10, 11]), Ok(2));
    for (prev, indexes) in [
        (None, &[1][..]),
        (Some(9), &[9]),
        (Some(9), &[11]),
        (Some(9), &[10, 12]),
        (Some(9), &[10, 11, 11]),
        (Some(9), &[11, 10]),
        (Some(9), &[0]),
    ] {
        let refused = decode(prev, indexes);
        assert!(matches!(refused, Err(CodecError::Malformed { .. })), "{indexes:?} after {prev:?}");
    }
}

#[test]
fn an_append_request_at_the_end_of_all_numbers_is_refused() {
    let random = &mut Random::new(5);
    let id = |index| LogId::new_term_index(3, index);
    for (prev, indexes) in [
        (u64::MAX, &[][..]),
        (u64::MAX, &[0]),
        (u64::MAX - 1, &[u64::MAX]),
        (u64::MAX - 2, &[u64::MAX - 1, u64::MAX]),
    ] {
        let entries = indexes.iter().map(|index| random.entry(id(*index))).collect();
        let vote = vote(random);
        let request = AppendRequest { vote, prev_log_id: Some(id(prev)), leader_commit: None, entries };
        let refused = decode_append_request(&encode_append_request(&request)).map(drop);
        assert!(matches!(refused, Err(CodecError::Malformed { .. })), "{indexes:?} after {prev}");
    }
}
