//! Bodies of [`crate::decoders`] for the checkpoints' store.

use super::{
    Change,
    blocks::{self, BlockRows},
    sled_tree::{decode_changes, encode_change},
};
use bytes::Bytes;

pub fn block(data: &[u8]) {
    let block = Bytes::copy_from_slice(data);
    let rows: Result<Vec<_>, _> = BlockRows::new(block.clone()).collect();
    let rewritten = blocks::rewrite(b"", None, block.clone(), [].iter());
    assert_eq!(rewritten.is_ok(), rows.is_ok());
    for (key, _) in rows.into_iter().flatten() {
        // Keys out of order may hide each other, but nothing is made up.
        let _ = blocks::find(block.clone(), &key);
    }
}

pub fn blocks() -> Vec<Vec<u8>> {
    let changes: Vec<Change> =
        ["a", "bc", "d"].map(|key| (Bytes::from(key), Some(Bytes::from("value")))).to_vec();
    let blocks = blocks::rewrite(b"", None, Bytes::new(), changes.iter());
    blocks.into_iter().flatten().map(|(_, block)| block).collect()
}

pub fn part(data: &[u8]) {
    if let Ok(changes) = decode_changes(Bytes::copy_from_slice(data)) {
        let mut bytes = Vec::new();
        changes.iter().for_each(|(key, value)| encode_change(&mut bytes, key, value.as_ref()));
        assert_eq!(bytes, data);
    }
}

pub fn parts() -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    encode_change(&mut bytes, b"key", Some(&Bytes::from("value")));
    encode_change(&mut bytes, b"gone", None);
    vec![bytes]
}
