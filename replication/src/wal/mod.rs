//! The write-ahead log: one per server, shared by the Raft groups that live on it.
//!
//! It alone makes Raft's logs and votes durable, and it holds them only until a checkpoint has moved
//! what they did into the store of rows. What waits is written together: one append, one fsync
//! ([`writer`]). On disk it is a row of segments ([`segment`]) of checksummed records ([`record`]); which
//! of them still matter is kept by the [`ledger`], by the same rules while writing and while
//! [`recovery`] reads everything back.
//!
//! It knows nothing of Raft: entries, votes and marks are bytes, and a group is a number. It does not
//! serve reads: whoever appends keeps what it may still need, and gets it back from [`Wal::open`].

#[cfg(feature = "fuzzing")]
pub(crate) mod decoders;
mod ledger;
mod record;
mod recovery;
mod segment;
#[cfg(test)]
mod test_disk;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_damage;
mod writer;

use afdg_runtime::Disk;
use bytes::Bytes;
use ledger::Ledger;
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::{mpsc, oneshot, watch};
use writer::{Op, Writer};

/// Called once, after the fsync that covers the write, or with the reason why there is none.
/// It runs on the writer's task, so it must be short and must not block.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

#[derive(Clone, Debug)]
pub struct WalOptions {
    /// A segment that holds this much is followed by a new one.
    pub segment_bytes: u64,
    /// At most this much goes into one append (a single larger write goes alone), so that the buffer
    /// stays bounded however much waits.
    pub batch_bytes_max: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, batch_bytes_max: 8 << 20 }
    }
}

/// What the log held of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredGroup {
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    /// The last index that is gone, and the mark that came with its purge.
    pub purged: Option<(u64, Bytes)>,
    /// Without a gap; right after `purged` where there is one.
    pub entries: Vec<(u64, Bytes)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStatus {
    /// Of all segments on disk.
    pub bytes: u64,
    pub segments: usize,
    /// Handed over and not yet durable.
    pub queued_bytes: usize,
}

/// The log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("can't {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the log {file} is damaged at byte {offset}: {found}. Acknowledged writes may be missing, so this \
         node must not vote or lead with it: move its data folder aside and rebuild the node from its peers"
    )]
    Damaged { file: PathBuf, offset: u64, found: String },
    #[error(
        "a segment of the log is missing before {file}: it should start at record {expected}. Acknowledged \
         writes may be missing, so this node must not vote or lead with it: put the file back, or move the \
         node's data folder aside and rebuild it from its peers"
    )]
    MissingSegment { file: PathBuf, expected: u64 },
    #[error("the log {file} has format version {version}, this program knows {known}: run the program that wrote it", known = segment::FORMAT_VERSION)]
    UnknownVersion { file: PathBuf, version: u32 },
}

/// A handle to the log. Cheap to clone; one handle's calls take effect in their order.
///
/// The queue to the writer has no bound of its own: a caller of the methods below can't wait. Each entry
/// in it stands for a proposal or a replicated frame that its sender has bounded already (Raft's limits
/// on what is in flight), and [`WalStatus::queued_bytes`] shows what waits, for admission to look at.
#[derive(Clone)]
pub struct Wal {
    ops: mpsc::UnboundedSender<Op>,
    shared: Arc<Shared>,
    failed: watch::Receiver<Option<String>>,
}

/// What the writer shares with the handles. The ledger is locked for one batch's bookkeeping at a time,
/// never across a write.
struct Shared {
    ledger: Mutex<Ledger>,
    queued_bytes: AtomicUsize,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wal {
    /// Reads back what the log holds, cuts off a torn end, and starts the writer as a task.
    ///
    /// Everything in the answer is durable: the last segment is synced before this returns, because what
    /// a killed process wrote may stand only in the operating system's cache.
    pub async fn open(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        options: WalOptions,
    ) -> Result<(Wal, BTreeMap<u64, RecoveredGroup>), WalError> {
        let recovery::Recovered { ledger, groups, active } = recovery::recover(&*disk, &folder).await?;
        let shared = Arc::new(Shared { ledger: Mutex::new(ledger), queued_bytes: AtomicUsize::new(0) });
        let (ops, receiver) = mpsc::unbounded_channel();
        let (failure, failed) = watch::channel(None);
        let writer = Writer::new(disk, folder, options, shared.clone(), receiver, failure, active);
        tokio::spawn(writer.run());
        Ok((Wal { ops, shared, failed }, groups))
    }

    /// Appends entries with rising indexes that follow the group's last one. Anything else is refused
    /// (`InvalidInput`) and changes nothing; the log goes on.
    pub fn append(&self, group: u64, entries: Vec<(u64, Bytes)>, done: Done) {
        self.enqueue(Op::Append { group, entries, done });
    }

    pub fn save_vote(&self, group: u64, vote: Bytes, done: Done) {
        self.enqueue(Op::Vote { group, vote, done });
    }

    /// Removes the entries from `index` on.
    pub fn truncate_from(&self, group: u64, index: u64, done: Done) {
        self.enqueue(Op::Truncate { group, from: index, done });
    }

    /// Remembers how far the group had committed. It rides along with the next write of any group, so
    /// after a crash an older one may come back.
    pub fn save_committed(&self, group: u64, committed: Bytes) {
        self.enqueue(Op::Committed { group, committed });
    }

    /// The entries up to and with `upto` are gone. The caller must have made durable what they did.
    pub fn purge(&self, group: u64, upto: u64, mark: Bytes) {
        self.enqueue(Op::Purge { group, upto, mark });
    }

    /// Forgets the group as if it had never been.
    pub fn remove_group(&self, group: u64) {
        self.enqueue(Op::Remove { group });
    }

    pub fn status(&self) -> WalStatus {
        let ledger = self.shared.ledger();
        WalStatus {
            bytes: ledger.segments.iter().map(|segment| segment.bytes).sum(),
            segments: ledger.segments.len(),
            queued_bytes: self.shared.queued_bytes.load(Ordering::Relaxed),
        }
    }

    /// The groups whose unpurged entries keep the oldest segment from being deleted: the ones to
    /// checkpoint next. Empty while there is one segment only, since that one is being written.
    pub fn oldest_groups(&self) -> Vec<u64> {
        self.shared.ledger().oldest_groups()
    }

    /// Returns when the log can't be written any more, with the reason. From then on every write fails;
    /// the server has to stop. What was acknowledged before is on disk.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => WRITER_GONE.to_owned(),
        }
    }

    /// Writes what waits, and ends the writer. Later writes fail. Returns when no more is written, so
    /// that the folder may be opened again.
    pub async fn close(&self) {
        let (closed, wait) = oneshot::channel();
        self.enqueue(Op::Close { closed });
        let _ = wait.await;
    }

    fn enqueue(&self, op: Op) {
        let bytes = op.bytes();
        self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Err(mpsc::error::SendError(op)) = self.ops.send(op) {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            op.fail(|| io::Error::new(io::ErrorKind::BrokenPipe, WRITER_GONE));
        }
    }
}

const WRITER_GONE: &str = "the log is closed";
