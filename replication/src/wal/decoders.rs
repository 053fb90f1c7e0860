//! Bodies of [`crate::decoders`] for the log.

use super::{
    record::{Body, Record, State},
    segment::{HEADER_BYTES, Header},
};
use bytes::{Bytes, BytesMut};

/// Records one after the other, as recovery reads them.
pub fn segment(data: &[u8]) {
    let segment = Bytes::copy_from_slice(data);
    let mut at = HEADER_BYTES.min(data.len());
    while let Ok((record, next)) = Record::decode(&segment, at) {
        assert!(next > at, "a record takes no place");
        let mut bytes = BytesMut::new();
        record.encode(&mut bytes);
        let again = Record::decode(&bytes.freeze(), 0);
        assert_eq!(again.map(|(record, _)| record), Ok(record));
        at = next;
    }
}

pub fn header(data: &[u8]) {
    if let Ok(header) = Header::decode(&Bytes::copy_from_slice(data)) {
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes);
        assert_eq!(&bytes[..], &data[..HEADER_BYTES]);
    }
}

pub fn segments() -> Vec<Vec<u8>> {
    let mut bytes = BytesMut::new();
    Header { states: 1, first_sequence: 3 }.encode(&mut bytes);
    let some = || Bytes::from("some bytes");
    let state = State { vote: Some(some()), purged: Some((3, some())), range: Some((4, 9)), committed: None };
    let bodies = [
        Body::State(state),
        Body::Begin { sequence: 3, offset: 7 },
        Body::Entry { index: 9, entry: some() },
        Body::Vote(some()),
        Body::Committed(some()),
        Body::Truncate { from: 4 },
        Body::Purge { upto: 5, mark: some() },
        Body::Remove,
    ];
    for body in bodies {
        Record::new(5, body).encode(&mut bytes);
    }
    vec![bytes.to_vec()]
}
