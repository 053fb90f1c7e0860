//! The rows of a group on the wire, whoever asked for them.

use super::service::refuse;
use crate::{codec, row_store::RowSnapshot};
use afdg_proto::pb::internal::SnapshotChunk;
use afdg_types::planted::{Bug, planted};
use bytes::Bytes;
use futures::Stream;
use tonic::{Status, Streaming};

/// Target size of one chunk.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Largest snapshot that a replica takes in; it is checked whole before anything is replaced.
const BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;

/// What a snapshot begins with.
#[derive(Clone, Debug)]
pub struct SnapshotHeader {
    pub vote: Bytes,
    pub meta: Bytes,
}

/// A region's rows without its replies, whose keys begin with 0x30 to 0x32.
fn without_replies(rows: Vec<(Bytes, Bytes)>) -> Vec<(Bytes, Bytes)> {
    rows.into_iter().filter(|(key, _)| !matches!(key.first(), Some(0x30..=0x32))).collect()
}

/// The header, then all rows in chunks; the last chunk carries the checksum of all of them.
pub fn send(head: SnapshotChunk, rows: RowSnapshot) -> impl Stream<Item = SnapshotChunk> + Send + 'static {
    enum State {
        Head(SnapshotChunk, RowSnapshot),
        Rows(RowSnapshot, u32),
        End,
    }
    futures::stream::unfold(State::Head(head, rows), |state| async move {
        match state {
            State::Head(head, rows) => Some((head, State::Rows(rows, 0))),
            State::Rows(mut rows, checksum) => {
                let part = match rows.next_rows(CHUNK_BYTES) {
                    Ok(part) => part,
                    Err(error) => {
                        // Without its checksum the receiver refuses what it got.
                        tracing::error!(%error, "a snapshot could not be read to its end");
                        return None;
                    }
                };
                if part.is_empty() {
                    let end = SnapshotChunk { checksum: Some(checksum), ..SnapshotChunk::default() };
                    return Some((end, State::End));
                }
                let part = if planted(Bug::SnapshotWithoutReplies) { without_replies(part) } else { part };
                let bytes = codec::encode_rows(&part);
                let checksum = crc32c::crc32c_append(checksum, &bytes);
                Some((SnapshotChunk { rows: bytes, ..SnapshotChunk::default() }, State::Rows(rows, checksum)))
            }
            State::End => None,
        }
    })
}

/// The server and the group that the snapshot is meant for, its header and its rows, once all of them have come.
pub async fn receive(
    mut parts: Streaming<SnapshotChunk>,
) -> Result<((u64, u64), SnapshotHeader, Vec<Bytes>), Box<Status>> {
    let head = parts
        .message()
        .await
        .map_err(Box::new)?
        .ok_or_else(|| Box::new(refuse("the snapshot is empty".into())))?;
    let mut chunks = Vec::new();
    let mut bytes = 0;
    let mut checksum = 0;
    loop {
        let Some(part) = parts.message().await.map_err(Box::new)? else {
            return Err(Box::new(refuse("the snapshot broke off".into())));
        };
        if let Some(expected) = part.checksum {
            if expected != checksum {
                return Err(Box::new(refuse(format!(
                    "the snapshot's checksum is {checksum:08x}, not {expected:08x}"
                ))));
            }
            return Ok(((head.to, head.group), SnapshotHeader { vote: head.vote, meta: head.meta }, chunks));
        }
        bytes += part.rows.len();
        if bytes > BYTES_MAX {
            return Err(Box::new(refuse(format!("the snapshot has more than {BYTES_MAX} bytes"))));
        }
        checksum = crc32c::crc32c_append(checksum, &part.rows);
        chunks.push(part.rows);
    }
}
