//! One record of the log: `length u32 | crc32c u32 | kind u8 | group u64 | payload`, numbers little endian.
//!
//! `length` counts kind, group and payload, and the checksum is over the same bytes. Kinds and payloads
//! are never renumbered; a new format gets a new version in the segment's header.
//!
//! | kind | payload |
//! | --- | --- |
//! | 1 entry | index u64, the entry's bytes |
//! | 2 vote | the vote's bytes |
//! | 3 committed | the bytes |
//! | 4 truncate | index u64: entries from it on are gone |
//! | 5 purge | index u64, mark: entries up to and with it are gone |
//! | 6 remove | nothing: the group is gone |
//! | 7 begin (group 0) | sequence u64, offset u64 of this record: the first record of one append |
//! | 8 state | what a group holds when a segment starts, see [`State`] |

use bytes::{BufMut, Bytes, BytesMut};

/// A record that claims more is damaged, and none longer is written.
pub(super) const RECORD_BYTES_MAX: usize = 256 << 20;

/// Length and checksum.
const FRAME_BYTES: usize = 8;
/// Kind and group.
const HEAD_BYTES: usize = 9;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub group: u64,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Entry { index: u64, entry: Bytes },
    Vote(Bytes),
    Committed(Bytes),
    Truncate { from: u64 },
    Purge { upto: u64, mark: Bytes },
    Remove,
    Begin { sequence: u64, offset: u64 },
    State(State),
}

/// What a group holds, apart from its entries: `flags u8` (1 vote, 2 committed, 4 purged, 8 range), then
/// those that are present: `length u32` and bytes of the vote, of the committed, `index u64` with length
/// and bytes of the purge's mark, `first u64` and `next u64` of the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    pub purged: Option<(u64, Bytes)>,
    /// Indexes of the first entry and of the one that comes next; equal if there is none.
    pub range: Option<(u64, u64)>,
}

impl Record {
    pub fn new(group: u64, body: Body) -> Self {
        Self { group, body }
    }

    /// Bytes on disk; exact but for a state's.
    fn payload_bytes(&self) -> usize {
        match &self.body {
            Body::Entry { entry: bytes, .. } | Body::Purge { mark: bytes, .. } => 8 + bytes.len(),
            Body::Vote(bytes) | Body::Committed(bytes) => bytes.len(),
            Body::Truncate { .. } => 8,
            Body::Remove => 0,
            Body::Begin { .. } => 16,
            Body::State(state) => {
                let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| 4 + bytes.len());
                let mark = state.purged.as_ref().map_or(0, |(_, mark)| 12 + mark.len());
                17 + len(&state.vote) + len(&state.committed) + mark
            }
        }
    }

    /// Refuses what could not be read back.
    pub fn check_length(&self) -> Result<(), String> {
        let bytes = self.payload_bytes();
        if bytes > RECORD_BYTES_MAX - HEAD_BYTES {
            return Err(format!("a record of {bytes} bytes is longer than the log takes"));
        }
        Ok(())
    }

    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(FRAME_BYTES + HEAD_BYTES + self.payload_bytes());
        let start = out.len();
        out.put_u64_le(0);
        out.put_u8(self.kind());
        out.put_u64_le(self.group);
        match &self.body {
            Body::Entry { index, entry: bytes } | Body::Purge { upto: index, mark: bytes } => {
                out.put_u64_le(*index);
                out.put_slice(bytes);
            }
            Body::Vote(bytes) | Body::Committed(bytes) => out.put_slice(bytes),
            Body::Truncate { from } => out.put_u64_le(*from),
            Body::Remove => {}
            Body::Begin { sequence, offset } => {
                out.put_u64_le(*sequence);
                out.put_u64_le(*offset);
            }
            Body::State(state) => state.encode(out),
        }
        let framed = start + FRAME_BYTES;
        // `check_length` keeps this far below u32's end.
        let length = (out.len() - framed) as u32;
        let checksum = crc32c::crc32c(&out[framed..]);
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..framed].copy_from_slice(&checksum.to_le_bytes());
    }

    fn kind(&self) -> u8 {
        match self.body {
            Body::Entry { .. } => 1,
            Body::Vote(_) => 2,
            Body::Committed(_) => 3,
            Body::Truncate { .. } => 4,
            Body::Purge { .. } => 5,
            Body::Remove => 6,
            Body::Begin { .. } => BEGIN_KIND,
            Body::State(_) => 8,
        }
    }

    /// Reads the record at `at` and tells where the next one starts. What it says is a part of
    /// `segment`, which it keeps alive. The error says what is wrong with the bytes.
    pub fn decode(segment: &Bytes, at: usize) -> Result<(Record, usize), String> {
        let rest = segment.len().saturating_sub(at);
        if rest < FRAME_BYTES {
            return Err(format!("{rest} bytes are too few for a record"));
        }
        let mut frame = segment.slice(at..at + FRAME_BYTES);
        let length = number_u32(&mut frame)? as usize;
        let checksum = number_u32(&mut frame)?;
        if !(HEAD_BYTES..=RECORD_BYTES_MAX).contains(&length) {
            return Err(format!("no record has {length} bytes"));
        }
        if length > rest - FRAME_BYTES {
            return Err(format!("a record of {length} bytes ends after {} bytes", rest - FRAME_BYTES));
        }
        let next = at + FRAME_BYTES + length;
        let framed = segment.slice(at + FRAME_BYTES..next);
        if crc32c::crc32c(&framed) != checksum {
            return Err(format!("the checksum of a record of {length} bytes does not match"));
        }
        Ok((Self::decode_framed(framed)?, next))
    }

    fn decode_framed(mut framed: Bytes) -> Result<Record, String> {
        let kind = take(&mut framed, 1)?[0];
        let group = number(&mut framed)?;
        let body = match kind {
            1 => Body::Entry { index: number(&mut framed)?, entry: std::mem::take(&mut framed) },
            2 => Body::Vote(std::mem::take(&mut framed)),
            3 => Body::Committed(std::mem::take(&mut framed)),
            4 => Body::Truncate { from: number(&mut framed)? },
            5 => Body::Purge { upto: number(&mut framed)?, mark: std::mem::take(&mut framed) },
            6 => Body::Remove,
            BEGIN_KIND => Body::Begin { sequence: number(&mut framed)?, offset: number(&mut framed)? },
            8 => Body::State(State::decode(&mut framed)?),
            unknown => return Err(format!("no record has kind {unknown}")),
        };
        if !framed.is_empty() {
            return Err(format!("{} bytes too many in a record of kind {kind}", framed.len()));
        }
        Ok(Record { group, body })
    }

    /// Offset of the first intact [`Body::Begin`] after `at` that says that it stands where it stands.
    ///
    /// An append starts only when the one before it is durable. So damage that has such a record behind
    /// it is not the torn end of a write that nobody was promised.
    pub fn find_begin(segment: &Bytes, at: usize) -> Option<usize> {
        const LENGTH: [u8; 4] = ((HEAD_BYTES + 16) as u32).to_le_bytes();
        let end = segment.len().saturating_sub(FRAME_BYTES + HEAD_BYTES + 16);
        (at + 1..=end).find(|&at| {
            segment[at..].starts_with(&LENGTH)
                && segment[at + FRAME_BYTES] == BEGIN_KIND
                && matches!(Record::decode(segment, at),
                    Ok((Record { body: Body::Begin { offset, .. }, .. }, _)) if offset == at as u64)
        })
    }
}

const BEGIN_KIND: u8 = 7;

impl State {
    fn encode(&self, out: &mut BytesMut) {
        let put = |out: &mut BytesMut, bytes: &Bytes| {
            out.put_u32_le(bytes.len() as u32);
            out.put_slice(bytes);
        };
        let flag = |present: bool, flag: u8| if present { flag } else { 0 };
        out.put_u8(
            flag(self.vote.is_some(), 1)
                | flag(self.committed.is_some(), 2)
                | flag(self.purged.is_some(), 4)
                | flag(self.range.is_some(), 8),
        );
        for bytes in [&self.vote, &self.committed].into_iter().flatten() {
            put(out, bytes);
        }
        if let Some((index, mark)) = &self.purged {
            out.put_u64_le(*index);
            put(out, mark);
        }
        if let Some((first, next)) = self.range {
            out.put_u64_le(first);
            out.put_u64_le(next);
        }
    }

    fn decode(from: &mut Bytes) -> Result<State, String> {
        let flags = take(from, 1)?[0];
        if flags > 15 {
            return Err(format!("a group's state has unknown parts {flags:#x}"));
        }
        let bytes = |present: u8, from: &mut Bytes| -> Result<Option<Bytes>, String> {
            if flags & present == 0 {
                return Ok(None);
            }
            let length = number_u32(from)? as usize;
            take(from, length).map(Some)
        };
        let vote = bytes(1, from)?;
        let committed = bytes(2, from)?;
        let purged_at = if flags & 4 == 0 { None } else { Some(number(from)?) };
        let purged = purged_at.zip(bytes(4, from)?);
        let range = if flags & 8 == 0 { None } else { Some((number(from)?, number(from)?)) };
        Ok(State { vote, committed, purged, range })
    }
}

fn take(from: &mut Bytes, bytes: usize) -> Result<Bytes, String> {
    if from.len() < bytes {
        return Err(format!("a record ends {} bytes early", bytes - from.len()));
    }
    Ok(from.split_to(bytes))
}

pub(super) fn number(from: &mut Bytes) -> Result<u64, String> {
    let taken = take(from, 8)?;
    Ok(u64::from_le_bytes(std::array::from_fn(|at| taken[at])))
}

pub(super) fn number_u32(from: &mut Bytes) -> Result<u32, String> {
    let taken = take(from, 4)?;
    Ok(u32::from_le_bytes(std::array::from_fn(|at| taken[at])))
}
