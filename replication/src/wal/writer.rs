//! The one task that writes the log: takes what waits, writes it with one append, calls back.

use super::{
    Done, Shared, WRITER_GONE, WalOptions,
    ledger::{Group, Ledger, Segment},
    record::{Body, Record},
    segment::{HEADER_BYTES, Header, file_name},
};
use afdg_runtime::{AppendFile, Disk};
use afdg_types::planted::{Bug, planted};
use bytes::{Bytes, BytesMut};
use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};
use tokio::sync::{mpsc, oneshot, watch};

pub(super) enum Op {
    Append { group: u64, entries: Vec<(u64, Bytes)>, done: Done },
    Vote { group: u64, vote: Bytes, done: Done },
    Truncate { group: u64, from: u64, done: Done },
    Committed { group: u64, committed: Bytes },
    Purge { group: u64, upto: u64, mark: Bytes },
    Remove { group: u64 },
    Close { closed: oneshot::Sender<()> },
}

impl Op {
    /// What it is counted with while it waits: its bytes and about what it takes besides.
    pub fn bytes(&self) -> usize {
        const EACH: usize = 64;
        match self {
            Op::Append { entries, .. } => {
                EACH + entries.iter().map(|(_, entry)| EACH + entry.len()).sum::<usize>()
            }
            Op::Vote { vote: bytes, .. } | Op::Committed { committed: bytes, .. } => EACH + bytes.len(),
            Op::Purge { mark, .. } => EACH + mark.len(),
            Op::Truncate { .. } | Op::Remove { .. } | Op::Close { .. } => EACH,
        }
    }

    pub fn fail(self, error: impl Fn() -> io::Error) {
        match self {
            Op::Append { done, .. } | Op::Vote { done, .. } | Op::Truncate { done, .. } => done(Err(error())),
            Op::Committed { .. } | Op::Purge { .. } | Op::Remove { .. } => {}
            Op::Close { closed } => drop(closed),
        }
    }
}

/// The last segment.
pub(super) struct Active {
    pub file: Box<dyn AppendFile>,
    pub path: PathBuf,
}

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    options: WalOptions,
    shared: Arc<Shared>,
    ops: mpsc::UnboundedReceiver<Op>,
    failure: watch::Sender<Option<String>>,
    active: Option<Active>,
    buffer: BytesMut,
    /// Groups whose committed mark stands in the ledger and not yet on disk.
    committed: BTreeSet<u64>,
    /// Something went that may have been the last to hold an old segment.
    sweep: bool,
}

/// One batch, ready to be written.
#[derive(Default)]
struct Batch {
    bytes: Bytes,
    /// The segment that it starts, if it does not go to the last one.
    starts: Option<u64>,
    /// Bytes of the segment that are durable already.
    durable: u64,
    dones: Vec<(Done, io::Result<()>)>,
}

impl Writer {
    pub fn new(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        options: WalOptions,
        shared: Arc<Shared>,
        ops: mpsc::UnboundedReceiver<Op>,
        failure: watch::Sender<Option<String>>,
        active: Option<Active>,
    ) -> Self {
        let (buffer, committed) = (BytesMut::new(), BTreeSet::new());
        Self { disk, folder, options, shared, ops, failure, active, buffer, committed, sweep: true }
    }

    /// Ends when every handle is gone or one was told to close; by then all that was asked is written.
    pub async fn run(mut self) {
        let mut waiting = Vec::new();
        let mut closed = Vec::new();
        while closed.is_empty() {
            let Some(first) = self.ops.recv().await else { break };
            afdg_runtime::gather().await;
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(op) = next {
                bytes += op.bytes();
                match op {
                    Op::Close { closed: reply } => closed.push(reply),
                    op => waiting.push(op),
                }
                let full = bytes >= self.options.batch_bytes_max || !closed.is_empty();
                next = if full { None } else { self.ops.try_recv().ok() };
            }
            let last = !closed.is_empty();
            if let Err(error) = self.batch(std::mem::take(&mut waiting), last).await {
                // Nothing more is written from here on, which is what they wait for.
                drop(closed);
                return self.fail_all(error, bytes).await;
            }
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.ops.close();
        while let Ok(op) = self.ops.try_recv() {
            self.shared.queued_bytes.fetch_sub(op.bytes(), Ordering::Relaxed);
            op.fail(|| io::Error::new(io::ErrorKind::BrokenPipe, WRITER_GONE));
        }
        if closed.is_empty()
            && let Err(error) = self.batch(Vec::new(), true).await
        {
            tracing::warn!(%error, "the last committed marks were not written");
        }
        self.active = None;
        for reply in closed {
            // Nobody has to wait for it.
            let _ = reply.send(());
        }
    }

    /// Nothing is known about the disk any more, so nothing is written to it: not even what would fit.
    async fn fail_all(mut self, error: io::Error, bytes: usize) {
        let reason = format!("an earlier write to the log failed: {error}");
        tracing::error!(%error, "the log can't be written; this node has to stop");
        self.active = None;
        self.failure.send_replace(Some(reason.clone()));
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        while let Some(op) = self.ops.recv().await {
            self.shared.queued_bytes.fetch_sub(op.bytes(), Ordering::Relaxed);
            op.fail(|| io::Error::new(error.kind(), reason.clone()));
        }
    }

    /// Writes what `ops` ask with one append, and calls them back. The error is the disk's.
    async fn batch(&mut self, ops: Vec<Op>, last: bool) -> io::Result<()> {
        let mut batch = self.encode(ops, last);
        if planted(Bug::AcknowledgeBeforeFsync) {
            batch.dones.drain(..).for_each(|(done, refused)| done(refused));
        }
        let written = self.write(batch.bytes, batch.starts, batch.durable).await;
        for (done, refused) in batch.dones {
            done(match &written {
                Ok(()) => refused,
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
        written?;
        if self.sweep {
            self.delete_old().await;
        }
        Ok(())
    }

    /// Enters the batch in the ledger and encodes it. No bytes if nothing has to be written now.
    fn encode(&mut self, ops: Vec<Op>, last: bool) -> Batch {
        let shared = self.shared.clone();
        let mut ledger = shared.ledger();
        let mut batch = Batch::default();
        let only_marks = ops.iter().all(|op| matches!(op, Op::Committed { .. }));
        let now = last && !(ops.is_empty() && self.committed.is_empty());
        if only_marks && !now {
            for op in ops {
                self.enter(&mut ledger, 0, op, &mut batch.dones);
            }
            return batch;
        }
        batch.starts = self.start_segment(&mut ledger);
        let sequence = ledger.next_sequence();
        let (segment, offset) =
            ledger.segments.back().map_or((0, 0), |segment| (segment.first_sequence, segment.bytes));
        Record::new(0, Body::Begin { sequence, offset }).encode(&mut self.buffer);
        let mut records = 0;
        for op in ops {
            records += self.enter(&mut ledger, segment, op, &mut batch.dones);
        }
        for group in std::mem::take(&mut self.committed) {
            let committed = ledger.groups.get(&group).and_then(|group| group.committed.clone());
            if let Some(committed) = committed {
                Record::new(group, Body::Committed(committed)).encode(&mut self.buffer);
                records += 1;
            }
        }
        if records == 0 {
            self.buffer.clear();
            if batch.starts.take().is_some() {
                ledger.segments.pop_back();
            }
            return batch;
        }
        batch.bytes = self.buffer.split().freeze();
        batch.durable = if batch.starts.is_some() { 0 } else { offset };
        if let Some(segment) = ledger.segments.back_mut() {
            segment.records += 1 + records;
            segment.bytes = batch.durable + batch.bytes.len() as u64;
        }
        batch
    }

    /// Starts a segment in the buffer if the last one is full or there is none.
    fn start_segment(&mut self, ledger: &mut Ledger) -> Option<u64> {
        if let Some(last) = ledger.segments.back()
            && last.bytes - last.start_bytes < self.options.segment_bytes
        {
            return None;
        }
        let first_sequence = ledger.next_sequence();
        let states = ledger.groups.len() as u32;
        Header { states, first_sequence }.encode(&mut self.buffer);
        debug_assert_eq!(self.buffer.len(), HEADER_BYTES);
        for (&group, state) in &ledger.groups {
            Record::new(group, Body::State(state.state())).encode(&mut self.buffer);
        }
        let bytes = self.buffer.len() as u64;
        ledger.segments.push_back(Segment {
            first_sequence,
            records: u64::from(states),
            bytes,
            start_bytes: bytes,
        });
        self.sweep = true;
        Some(first_sequence)
    }

    /// Enters one op and encodes its records; returns how many. What does not fit is refused as a whole.
    fn enter(
        &mut self,
        ledger: &mut Ledger,
        segment: u64,
        op: Op,
        dones: &mut Vec<(Done, io::Result<()>)>,
    ) -> u64 {
        let (entered, done) = match op {
            Op::Append { group, entries, done } => (self.append(ledger, segment, group, entries), Some(done)),
            Op::Vote { group, vote, done } => {
                (self.put(ledger, segment, Record::new(group, Body::Vote(vote))), Some(done))
            }
            Op::Truncate { group, from, done } if reaches(ledger, group, from) => {
                self.sweep = true;
                (self.put(ledger, segment, Record::new(group, Body::Truncate { from })), Some(done))
            }
            Op::Truncate { done, .. } => (Ok(0), Some(done)),
            Op::Committed { group, committed } => {
                let record = Record::new(group, Body::Committed(committed));
                self.committed.insert(group);
                let entered = record.check_length();
                (entered.and_then(|()| ledger.enter(segment, group, &record.body)).map(|()| 0), None)
            }
            Op::Purge { group, upto, mark } => {
                self.sweep = true;
                (self.put(ledger, segment, Record::new(group, Body::Purge { upto, mark })), None)
            }
            Op::Remove { group } => {
                self.sweep = true;
                (self.put(ledger, segment, Record::new(group, Body::Remove)), None)
            }
            Op::Close { closed } => {
                drop(closed);
                (Ok(0), None)
            }
        };
        let (records, result) = match entered {
            Ok(records) => (records, Ok(())),
            Err(refused) => (0, Err(io::Error::new(io::ErrorKind::InvalidInput, refused))),
        };
        match (done, result) {
            (Some(done), result) => dones.push((done, result)),
            (None, Err(error)) => tracing::error!(%error, "a change of the log was refused"),
            (None, Ok(())) => {}
        }
        records
    }

    fn append(
        &mut self,
        ledger: &mut Ledger,
        segment: u64,
        group: u64,
        entries: Vec<(u64, Bytes)>,
    ) -> Result<u64, String> {
        let records: Vec<Record> = entries
            .into_iter()
            .map(|(index, entry)| Record::new(group, Body::Entry { index, entry }))
            .collect();
        let indexes = records.iter().filter_map(|record| match record.body {
            Body::Entry { index, .. } => Some(index),
            _ => None,
        });
        match ledger.groups.get(&group) {
            Some(known) => known.accepts(indexes)?,
            None => Group::default().accepts(indexes)?,
        }
        records.iter().try_for_each(Record::check_length)?;
        let mut count = 0;
        for record in records {
            count += self.put(ledger, segment, record)?;
        }
        Ok(count)
    }

    fn put(&mut self, ledger: &mut Ledger, segment: u64, record: Record) -> Result<u64, String> {
        record.check_length()?;
        ledger.enter(segment, record.group, &record.body)?;
        record.encode(&mut self.buffer);
        Ok(1)
    }

    async fn write(&mut self, bytes: Bytes, starts: Option<u64>, durable: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(sequence) = starts {
            let path = self.folder.join(file_name(sequence));
            self.active = Some(Active { file: self.disk.open_append(&path).await?, path });
        }
        let Some(active) = &mut self.active else {
            return Err(io::Error::other("the log has no segment to write to"));
        };
        let written = active.file.append(vec![bytes]).await;
        if written.is_err() {
            // After a failed fsync the operating system may show bytes that the disk never got, also to
            // the next process. So they go, if the disk lets us; recovery copes if it does not.
            if let Err(error) = self.disk.truncate(&active.path, durable).await {
                tracing::warn!(%error, file = %active.path.display(), "can't cut off a failed write");
            }
        }
        written
    }

    /// Deletes segments that nothing needs, oldest first. What made them needless is durable by now: the
    /// states at the start of a newer segment, and the purge itself.
    async fn delete_old(&mut self) {
        self.sweep = false;
        loop {
            let oldest = self.shared.ledger().deletable();
            let Some(oldest) = oldest else { return };
            let path = self.folder.join(file_name(oldest));
            match self.disk.remove(&path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, file = %path.display(), "can't delete an old segment");
                    self.sweep = true;
                    return;
                }
                Ok(()) | Err(_) => self.shared.ledger().segments.pop_front(),
            };
        }
    }
}

/// Would removing the entries from `from` on change anything?
fn reaches(ledger: &Ledger, group: u64, from: u64) -> bool {
    ledger.groups.get(&group).is_some_and(|group| group.reaches(from))
}
