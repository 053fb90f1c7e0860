//! One group's part of the server's write-ahead log, as openraft wants it.
//!
//! All entries that are not purged are held in memory as well: replication and apply read from there,
//! the log on disk is read at start only. A checkpoint purges, which bounds both.

use crate::{
    codec,
    machine::Position,
    raft_types::{Entry, LogId, Types, Vote},
    substitutes::Witness,
    wal::{RecoveredGroup, Wal},
};
use afdg_types::planted::{Bug, planted};
use openraft::{
    OptionalSend, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, PoisonError, RwLock},
};

/// Entries read for one replication request stop past this many bytes.
const READ_BYTES_TARGET: usize = 1024 * 1024;

#[derive(Debug, Default)]
struct GroupLog {
    /// Id of the last entry that was purged.
    purged: Option<LogId>,
    /// Everything after it, without gaps.
    entries: VecDeque<Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl GroupLog {
    /// Where [`Self::entries`] begins, or would: a log that was never purged may begin anywhere.
    fn first_index(&self) -> u64 {
        let next = || self.purged.as_ref().map_or(0, |purged| purged.index() + 1);
        self.entries.front().map_or_else(next, RaftEntry::index)
    }

    fn slice(&self, start: u64, end: u64) -> impl Iterator<Item = &Entry> {
        let first = self.first_index();
        let from = (start.max(first) - first) as usize;
        let to = (end.max(first) - first).min(self.entries.len() as u64) as usize;
        self.entries.range(from.min(to)..to)
    }
}

/// Cheap to clone: a handle.
#[derive(Clone)]
pub struct LogStore {
    group: u64,
    wal: Wal,
    log: Arc<RwLock<GroupLog>>,
    witness: Arc<dyn Witness>,
}

impl LogStore {
    /// Takes over what the write-ahead log recovered of `group`.
    pub fn new(
        group: u64,
        wal: Wal,
        recovered: Option<RecoveredGroup>,
        witness: Arc<dyn Witness>,
    ) -> Result<Self, codec::CodecError> {
        let mut log = GroupLog::default();
        let mut known = Vec::new();
        if let Some(recovered) = recovered {
            log.vote = recovered.vote.as_deref().map(codec::decode_vote).transpose()?;
            log.committed = recovered.committed.as_deref().map(codec::decode_log_id).transpose()?.flatten();
            log.purged =
                recovered.purged.as_ref().map(|(_, mark)| codec::decode_log_id(mark)).transpose()?.flatten();
            for (_, bytes) in &recovered.entries {
                let entry = codec::decode_entry(bytes)?;
                known.push((position(&entry.log_id), bytes.clone()));
                log.entries.push_back(entry);
            }
        }
        witness.opened(group, log.purged.as_ref().map_or_else(Position::default, position), &known);
        Ok(Self { group, wal, witness, log: Arc::new(RwLock::new(log)) })
    }

    // A poisoned lock means that a thread panicked while it held it; every section below leaves the log
    // whole at each step, so going on is safe.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, GroupLog> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, GroupLog> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        (start, end)
    }
}

fn position(id: &LogId) -> Position {
    Position { term: id.committed_leader_id().term, index: id.index() }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = Self::bounds(&range);
        Ok(self.read().slice(start, end).cloned().collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let mut bytes = 0;
        let log = self.read();
        let taken = log.slice(start, end).take_while(|entry| {
            // The first entry always goes, however large.
            let fits = bytes < READ_BYTES_TARGET;
            bytes += if let openraft::EntryPayload::Normal(command) = &entry.payload {
                command.0.len()
            } else {
                64
            };
            fits
        });
        Ok(taken.cloned().collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.read().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let log = self.read();
        let last = log.entries.back().map(|entry| entry.log_id).or(log.purged);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, saved) = tokio::sync::oneshot::channel();
        self.write().vote = Some(*vote);
        if planted(Bug::VoteNotWritten) {
            return Ok(());
        }
        self.wal.save_vote(
            self.group,
            codec::encode_vote(vote),
            Box::new(move |result| {
                let _ = done.send(result);
            }),
        );
        saved.await.map_err(io::Error::other)?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.write().committed = committed;
        self.wal.save_committed(self.group, codec::encode_log_id(committed.as_ref()));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.read().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let encode = |entry: &Entry| {
            let encoded = codec::encode_entry(entry);
            self.witness.appended(self.group, position(&entry.log_id), &encoded);
            (entry.index(), encoded)
        };
        let encoded = entries.iter().map(encode).collect();
        self.write().entries.extend(entries);
        self.wal.append(self.group, encoded, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |last| last.index() + 1);
        let mut log = self.write();
        let keep = from.saturating_sub(log.first_index()) as usize;
        log.entries.truncate(keep);
        self.witness.truncated(self.group, from);
        // Later appends follow in the same log file, so this needs no wait of its own.
        if !planted(Bug::TruncateNotWritten) {
            self.wal.truncate_from(self.group, from, Box::new(|_| {}));
        }
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let mut log = self.write();
        let last = log.entries.back().map(|entry| entry.log_id);
        let gone = (log_id.index() + 1).saturating_sub(log.first_index()) as usize;
        let gone = gone.min(log.entries.len());
        log.entries.drain(..gone);
        if log.purged.as_ref().is_none_or(|purged| purged.index() < log_id.index()) {
            log.purged = Some(log_id);
        }
        let upto = last.filter(|_| planted(Bug::PurgePastCheckpoint)).unwrap_or(log_id);
        self.wal.purge(self.group, upto.index(), codec::encode_log_id(Some(&upto)));
        Ok(())
    }
}
