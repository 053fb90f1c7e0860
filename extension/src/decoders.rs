//! What must hold of a request's key, whatever a client sends: for property tests and fuzzers
//! (`tests/tests/decoders.rs`, `tests/fuzz`). Only with the feature `fuzzing`.

use crate::key_field;

/// A key that is put into a request that can be read is found there; what was there stays before and behind it.
pub fn key_in_request(data: &[u8]) {
    let found = key_field::find(data, 1);
    let with_key = afdg_proto::key_field::put(data, 1, "alice");
    let key = b"\x0a\x05alice";
    let is_put_at =
        |at: usize| with_key[..at] == data[..at] && with_key[at..].strip_prefix(key) == Some(&data[at..]);
    assert_eq!(with_key.len(), data.len() + key.len());
    assert!((0..=data.len()).any(is_put_at));
    if found.is_ok() {
        assert_eq!(key_field::find(&with_key, 1), Ok(Some("alice")));
    }
}

pub fn requests() -> Vec<Vec<u8>> {
    // Field 1 a string, field 2 a number, field 3 a group, field 4 of 64 bits, field 5 of 32.
    vec![
        b"\x0a\x05alice\x10\x96\x01\x1b\x08\x01\x1c\x21\x01\x02\x03\x04\x05\x06\x07\x08\x2d\x01\x02\x03\x04"
            .to_vec(),
    ]
}
