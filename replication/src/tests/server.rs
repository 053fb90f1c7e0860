//! One server's log and rows in a folder, and a machine that counts.

use crate::{
    checkpoint::Checkpointer,
    log_store::LogStore,
    machine::{Machine, Observer, Position},
    raft_types::{CommandBytes, Entry, LogId, Types},
    row_store::{CheckpointStore, MemoryStore, RowStore},
    state_machine::StateMachine,
    wal::{Wal, WalOptions},
};
use afdg_runtime::RealDisk;
use afdg_types::{Rows, RowsError, RowsMut};
use bytes::Bytes;
use openraft::{
    EntryPayload,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage, RaftStateMachine},
    type_config::TypeConfigExt,
};
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

pub const GROUP: u64 = 5;

pub async fn open_log(folder: &Path) -> (Wal, LogStore) {
    let (wal, mut groups) =
        Wal::open(Arc::new(RealDisk), folder.join("log"), WalOptions::default()).await.unwrap();
    let log = LogStore::new(GROUP, wal.clone(), groups.remove(&GROUP), crate::Substitutes::default().witness)
        .unwrap();
    (wal, log)
}

pub fn id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

pub fn blank(term: u64, index: u64) -> Entry {
    Entry::new(id(term, index), EntryPayload::Blank)
}

pub fn command(term: u64, index: u64, command: impl Into<Bytes>) -> Entry {
    Entry::new(id(term, index), EntryPayload::Normal(CommandBytes(command.into())))
}

/// Returns when the entries are on disk.
pub async fn append(log: &mut LogStore, entries: Vec<Entry>) -> io::Result<()> {
    let (done, wait) = Types::oneshot();
    log.append(entries, IOFlushed::signal(done)).await?;
    wait.await.map_err(io::Error::other)?
}

/// Commands are `key+1`, which counts in a row, so that a command that is applied twice shows;
/// `key-`, which deletes it; and `fail`.
pub struct Counting {
    seen: Arc<Mutex<Vec<String>>>,
    /// What readers see, whatever the machine is told.
    readable: Arc<RowStore>,
}

impl Machine for Counting {
    type Outcome = String;

    fn restore(&mut self, rows: &dyn Rows) -> Result<(), RowsError> {
        self.seen.lock().unwrap().push(format!("restored from {} rows", count_of(rows)));
        Ok(())
    }

    fn apply(&mut self, _: Position, command: Bytes, rows: &mut dyn RowsMut) -> Result<String, RowsError> {
        let text = String::from_utf8(command.to_vec()).unwrap();
        if let Some((key, step)) = text.split_once('+') {
            let count = rows.get(key.as_bytes())?.map_or(0, |count| number(&count)) + number(step.as_bytes());
            rows.put(key.to_owned().into(), count.to_string().into());
            return Ok(format!("{key} is {count}"));
        }
        match text.split_once('-') {
            Some((key, _)) => rows.delete(key.to_owned().into()),
            None => return Err(RowsError("as the test wants it".to_owned())),
        }
        Ok(format!("{text} is done"))
    }

    fn visible(&mut self) {
        self.seen.lock().unwrap().push(format!("visible: {} rows", count_of(&*self.readable)));
    }
}

fn count_of(rows: &dyn Rows) -> usize {
    rows.scan(b"", None, usize::MAX).unwrap().len()
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

struct Noting(Arc<Mutex<Vec<String>>>);

impl Observer<String> for Noting {
    fn applied(&mut self, at: Position, outcome: Option<String>) {
        let outcome = outcome.unwrap_or_else(|| "nothing".to_owned());
        self.0.lock().unwrap().push(format!("{}.{} {outcome}", at.term, at.index));
    }

    fn restored(&mut self, at: Position) {
        self.0.lock().unwrap().push(format!("rows replaced, up to {}.{}", at.term, at.index));
    }
}

/// A state machine over a store, which outlives it.
pub struct Applying {
    pub machine: StateMachine<Counting>,
    pub rows: Arc<RowStore>,
    pub checkpointer: Checkpointer,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Applying {
    pub fn open(store: Arc<dyn CheckpointStore>) -> Self {
        let rows = Arc::new(RowStore::open(store.tree(GROUP).unwrap()).unwrap());
        Self::over(rows, store).unwrap()
    }

    pub fn over(rows: Arc<RowStore>, store: Arc<dyn CheckpointStore>) -> io::Result<Self> {
        let checkpointer = Checkpointer::new(store, Arc::new(afdg_runtime::TokioBlocking));
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let counting = Counting { seen: Arc::clone(&seen), readable: Arc::clone(&rows) };
        let noting = Box::new(Noting(Arc::clone(&seen)));
        let machine = StateMachine::open(
            counting,
            Arc::clone(&rows),
            noting,
            checkpointer.clone(),
            (GROUP, crate::Substitutes::default().witness),
        )?;
        Ok(Self { machine, rows, checkpointer, seen })
    }

    pub fn in_memory() -> Self {
        Self::open(Arc::new(MemoryStore::default()))
    }

    pub async fn apply(&mut self, entries: impl IntoIterator<Item = Entry>) -> io::Result<()> {
        let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
        self.machine.apply(futures::stream::iter(entries)).await
    }

    pub fn all(&self) -> String {
        let rows = self.rows.scan(b"", None, usize::MAX).unwrap();
        let text = |(key, value): &(Bytes, Bytes)| {
            format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
        };
        rows.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    /// What machine and observer were told since the last time.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}
