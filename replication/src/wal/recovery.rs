//! Reads the log back.
//!
//! Only the last append may be damaged, since an append starts when the one before it is durable: what
//! is torn at the very end was promised to nobody and is cut off. Any other damage means that promised
//! bytes are gone; the log does not open then. The damage of one append that was durable and the last
//! one can't be told from a torn one: that much rests on the disk keeping what it synced.

use super::{
    RecoveredGroup, WalError,
    ledger::{Ledger, Segment},
    record::{Body, Record},
    segment::{BadHeader, HEADER_BYTES, Header, file_name, sequence_of},
    writer::Active,
};
use afdg_runtime::Disk;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
};

pub(super) struct Recovered {
    pub ledger: Ledger,
    pub groups: BTreeMap<u64, RecoveredGroup>,
    /// The last segment, open for the writer; none if there is no segment yet.
    pub active: Option<Active>,
}

/// Every failure below names what was done to which file.
fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> WalError + 'a {
    move |source| WalError::Io { action, path: path.to_owned(), source }
}

pub(super) async fn recover(disk: &dyn Disk, folder: &Path) -> Result<Recovered, WalError> {
    disk.create_folder(folder).await.map_err(failed("make the folder", folder))?;
    let names = disk.list(folder).await.map_err(failed("list", folder))?;
    let mut sequences = Vec::new();
    for name in names.iter().filter(|name| name.starts_with("wal-") && name.ends_with(".log")) {
        let sequence = sequence_of(name).ok_or_else(|| WalError::Damaged {
            file: folder.join(name),
            offset: 0,
            found: "its name is not one of a segment".into(),
        })?;
        sequences.push(sequence);
    }
    sequences.sort_unstable();
    let mut replay = Replay::default();
    for (at, &sequence) in sequences.iter().enumerate() {
        let file = folder.join(file_name(sequence));
        let bytes = disk.read(&file).await.map_err(failed("read", &file))?;
        replay.check_sequence(sequence, &file)?;
        let last = at + 1 == sequences.len();
        match replay.segment(sequence, &bytes, &file, last)? {
            End::Whole => {}
            End::Reserved { keep } if last => {
                disk.truncate(&file, keep).await.map_err(failed("cut", &file))?;
            }
            // The next segment's number tells that nothing is missing.
            End::Reserved { .. } => {}
            End::Torn { keep: Some(offset), found } => {
                tracing::warn!(file = %file.display(), offset, found, "cut off the torn end of the log");
                disk.truncate(&file, offset).await.map_err(failed("cut", &file))?;
            }
            End::Torn { keep: None, found } => {
                tracing::warn!(file = %file.display(), offset = 0, found, "removed an unfinished segment");
                disk.remove(&file).await.map_err(failed("remove", &file))?;
            }
        }
    }
    replay.check_complete(folder)?;
    let mut active = None;
    if let Some(segment) = replay.ledger.segments.back() {
        let path = folder.join(file_name(segment.first_sequence));
        // Opening syncs the file: from here on all that was read is durable.
        let file = disk.open_append(&path).await.map_err(failed("open", &path))?;
        active = Some(Active { file, path });
    }
    Ok(Recovered { groups: replay.groups(), ledger: replay.ledger, active })
}

/// How a segment ended.
enum End {
    Whole,
    /// Zeros follow: space that was reserved and not used.
    Reserved {
        keep: u64,
    },
    /// Only for the last segment: its first bytes that are kept; none if the file goes as a whole.
    Torn {
        keep: Option<u64>,
        found: String,
    },
}

#[derive(Default)]
struct Replay {
    ledger: Ledger,
    /// The last entries of each group, as many as were found.
    entries: BTreeMap<u64, VecDeque<Bytes>>,
}

impl Replay {
    fn check_sequence(&self, sequence: u64, file: &Path) -> Result<(), WalError> {
        let expected = self.ledger.next_sequence();
        if !self.ledger.segments.is_empty() && sequence != expected {
            if sequence > expected {
                return Err(WalError::MissingSegment { file: file.to_owned(), expected });
            }
            let found = format!("by its name it starts at record {sequence}, not at {expected}");
            return Err(WalError::Damaged { file: file.to_owned(), offset: 0, found });
        }
        Ok(())
    }

    /// Replays one segment. Where it is torn, what is kept has been taken in.
    fn segment(&mut self, sequence: u64, bytes: &Bytes, file: &Path, last: bool) -> Result<End, WalError> {
        let header = match Header::decode(bytes) {
            Ok(header) => header,
            Err(BadHeader::UnknownVersion(version)) => {
                return Err(WalError::UnknownVersion { file: file.to_owned(), version });
            }
            Err(BadHeader::Damaged(found)) => return Err(damaged(file, 0, found)),
            Err(BadHeader::Unwritten) => {
                let found = "its header was never written".to_owned();
                if !last || began_twice(bytes) {
                    return Err(damaged(file, 0, found));
                }
                return self.unfinished(sequence, found, file);
            }
        };
        self.check_header(sequence, header).map_err(|found| damaged(file, 0, found))?;
        self.ledger.segments.push_back(Segment {
            first_sequence: sequence,
            records: 0,
            bytes: HEADER_BYTES as u64,
            start_bytes: HEADER_BYTES as u64,
        });
        let mut records = 0;
        let mut offset = HEADER_BYTES;
        let written = bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0).count();
        while offset < written {
            let (record, next) = match Record::decode(bytes, offset) {
                Ok(decoded) => decoded,
                Err(found) if last => {
                    if let Some(later) = Record::find_begin(bytes, offset) {
                        let found = format!("{found}, though a later write at byte {later} is whole");
                        return Err(damaged(file, offset, found));
                    }
                    return self.torn(sequence, header, records, offset, found, file);
                }
                Err(found) => return Err(damaged(file, offset, found)),
            };
            self.record(sequence, header, records, offset, record)
                .map_err(|found| damaged(file, offset, found))?;
            records += 1;
            offset = next;
            self.count(header, records, offset);
        }
        if records < u64::from(header.states) {
            let found = format!("it ends after {records} of {} states", header.states);
            if !last {
                return Err(damaged(file, offset, found));
            }
            return self.torn(sequence, header, records, offset, found, file);
        }
        let reserved = offset < bytes.len();
        Ok(if reserved { End::Reserved { keep: offset as u64 } } else { End::Whole })
    }

    fn check_header(&self, sequence: u64, header: Header) -> Result<(), String> {
        if header.first_sequence != sequence {
            return Err(format!("its header says that it starts at record {}", header.first_sequence));
        }
        let (states, groups) = (header.states as usize, self.ledger.groups.len());
        if !self.ledger.segments.is_empty() && states != groups {
            return Err(format!(
                "it starts with the states of {states} groups, and {groups} live by the older segments"
            ));
        }
        Ok(())
    }

    /// The last segment has so many records up to `offset`.
    fn count(&mut self, header: Header, records: u64, offset: usize) {
        if let Some(segment) = self.ledger.segments.back_mut() {
            segment.records = records;
            segment.bytes = offset as u64;
            if records <= u64::from(header.states) {
                segment.start_bytes = offset as u64;
            }
        }
    }

    fn torn(
        &mut self,
        sequence: u64,
        header: Header,
        records: u64,
        offset: usize,
        found: String,
        file: &Path,
    ) -> Result<End, WalError> {
        if records >= u64::from(header.states) {
            return Ok(End::Torn { keep: Some(offset as u64), found });
        }
        // Its states are not all there, so it could not stand for the older segments: it goes.
        self.ledger.segments.pop_back();
        self.unfinished(sequence, found, file)
    }

    /// The last segment was never finished. Then the older ones still stand, or it is the very first.
    fn unfinished(&self, sequence: u64, found: String, file: &Path) -> Result<End, WalError> {
        if self.ledger.segments.is_empty() && sequence > 0 {
            let found = format!("{found}, and there is no older segment");
            return Err(WalError::Damaged { file: file.to_owned(), offset: 0, found });
        }
        Ok(End::Torn { keep: None, found })
    }

    /// Takes one record in. The error says what does not fit.
    fn record(
        &mut self,
        sequence: u64,
        header: Header,
        records: u64,
        offset: usize,
        record: Record,
    ) -> Result<(), String> {
        let states = u64::from(header.states);
        let is_state = matches!(record.body, Body::State(_));
        if is_state != (records < states) {
            return Err(format!("record {records} of a segment that starts with {states} states is none"));
        }
        if records == states && !matches!(record.body, Body::Begin { .. }) {
            return Err("a record before the first begin record".into());
        }
        let Record { group, body } = record;
        // Copied, so that a small entry that stays does not keep its whole segment in memory.
        let body = match body {
            Body::Entry { index, entry } => Body::Entry { index, entry: copy(&entry) },
            Body::Vote(vote) => Body::Vote(copy(&vote)),
            Body::Committed(bytes) => Body::Committed(copy(&bytes)),
            Body::Purge { upto, mark } => Body::Purge { upto, mark: copy(&mark) },
            Body::State(mut state) => {
                state.vote = state.vote.as_ref().map(copy);
                state.committed = state.committed.as_ref().map(copy);
                state.purged = state.purged.map(|(index, mark)| (index, copy(&mark)));
                Body::State(state)
            }
            Body::Begin { sequence: said, offset: said_offset } => {
                let number = sequence + records;
                if (said, said_offset) != (number, offset as u64) {
                    return Err(format!("record {number} says that it is {said} at byte {said_offset}"));
                }
                return Ok(());
            }
            body @ (Body::Truncate { .. } | Body::Remove) => body,
        };
        let before = self.ledger.groups.get(&group).and_then(|group| group.range());
        self.ledger.enter(sequence, group, &body)?;
        self.keep_entries(group, before, body);
        Ok(())
    }

    fn keep_entries(&mut self, group: u64, before: Option<(u64, u64)>, body: Body) {
        let entries = self.entries.entry(group).or_default();
        let now = self.ledger.groups.get(&group);
        match body {
            Body::Entry { entry, .. } => entries.push_back(entry),
            Body::Truncate { .. } => {
                let next = |range: Option<(u64, u64)>| range.map_or(0, |(_, next)| next);
                let removed = next(before) - next(now.and_then(|group| group.range()));
                entries.truncate(entries.len().saturating_sub(removed as usize));
            }
            Body::Purge { .. } => {
                let left = now.map_or(0, |group| group.entries() as usize);
                let gone = entries.len().saturating_sub(left);
                entries.drain(..gone);
            }
            Body::Remove => {
                self.entries.remove(&group);
            }
            Body::Vote(_) | Body::Committed(_) | Body::State(_) | Body::Begin { .. } => {}
        }
    }

    fn check_complete(&self, folder: &Path) -> Result<(), WalError> {
        for (id, group) in &self.ledger.groups {
            if let Some((first, end)) = group.missing() {
                let oldest = self.ledger.segments.front().map_or(0, |segment| segment.first_sequence);
                let found = format!("entries {first} to {} of group {id} stand nowhere", end - 1);
                let file: PathBuf = folder.join(file_name(oldest));
                return Err(WalError::Damaged { file, offset: 0, found });
            }
        }
        Ok(())
    }

    fn groups(&mut self) -> BTreeMap<u64, RecoveredGroup> {
        let groups = self.ledger.groups.iter().map(|(&id, group)| {
            let entries = self.entries.remove(&id).unwrap_or_default();
            let first = group.range().map_or(0, |(first, _)| first);
            let recovered = RecoveredGroup {
                vote: group.vote.clone(),
                committed: group.committed.clone(),
                purged: group.purged.clone(),
                entries: (first..).zip(entries).collect(),
            };
            (id, recovered)
        });
        groups.collect()
    }
}

fn damaged(file: &Path, offset: usize, found: String) -> WalError {
    WalError::Damaged { file: file.to_owned(), offset: offset as u64, found }
}

fn copy(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Two appends reached this file, so the first, and the header with it, was durable once.
fn began_twice(bytes: &Bytes) -> bool {
    Record::find_begin(bytes, 0).is_some_and(|first| Record::find_begin(bytes, first).is_some())
}
