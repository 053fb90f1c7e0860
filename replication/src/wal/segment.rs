//! A segment: one file of the log, named after the number of its first record.
//!
//! Records are numbered through the whole life of the log, so a segment says by its name where the one
//! before it has to end. The file starts with a header of 28 bytes (`magic, format version u32, state
//! records u32, first record's number u64, crc32c u32`). The state of every group that lives follows,
//! so that nothing but entries is ever needed from older segments; then come the appends, each starting
//! with a begin record.

use super::record::{number, number_u32};
use bytes::{BufMut, Bytes, BytesMut};

pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 28;
const MAGIC: &[u8; 8] = b"AFDG-WAL";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// How many state records follow. A segment with fewer was never finished.
    pub states: u32,
    pub first_sequence: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// What a crash right after the file was made leaves: too short, or all zeros.
    Unwritten,
    Damaged(String),
    UnknownVersion(u32),
}

impl Header {
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_slice(MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(self.states);
        out.put_u64_le(self.first_sequence);
        let checksum = crc32c::crc32c(&out[start..]);
        out.put_u32_le(checksum);
    }

    pub fn decode(segment: &Bytes) -> Result<Header, BadHeader> {
        if segment.len() < HEADER_BYTES || segment[..HEADER_BYTES].iter().all(|&byte| byte == 0) {
            return Err(BadHeader::Unwritten);
        }
        let mut from = segment.slice(MAGIC.len()..HEADER_BYTES);
        let mut read = || -> Result<(u32, u32, u64, u32), String> {
            Ok((number_u32(&mut from)?, number_u32(&mut from)?, number(&mut from)?, number_u32(&mut from)?))
        };
        let (version, states, first_sequence, checksum) = read().map_err(BadHeader::Damaged)?;
        if !segment.starts_with(MAGIC) {
            return Err(BadHeader::Damaged("this is no segment of a log".into()));
        }
        if crc32c::crc32c(&segment[..HEADER_BYTES - 4]) != checksum {
            return Err(BadHeader::Damaged("the checksum of the header does not match".into()));
        }
        if version != FORMAT_VERSION {
            return Err(BadHeader::UnknownVersion(version));
        }
        Ok(Header { states, first_sequence })
    }
}

pub(super) fn file_name(first_sequence: u64) -> String {
    format!("wal-{first_sequence:020}.log")
}

/// The number in a segment's name; none if the name is another's.
pub(super) fn sequence_of(name: &str) -> Option<u64> {
    let sequence = name.strip_prefix("wal-")?.strip_suffix(".log")?.parse().ok()?;
    (file_name(sequence) == name).then_some(sequence)
}
