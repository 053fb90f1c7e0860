//! A group's log: against a map in random histories with restarts, and at its edges.

use super::{
    random::Random,
    server::{GROUP, append, blank, command, id, open_log},
};
use crate::{
    log_store::LogStore,
    raft_types::{Entry, LogId, Vote},
    wal::{RecoveredGroup, Wal},
};
use bytes::Bytes;
use openraft::{
    RaftLogReader,
    entry::RaftEntry,
    storage::{LogState, RaftLogStorage},
    vote::RaftLeaderId,
};
use std::collections::BTreeMap;

async fn state(log: &mut LogStore) -> (Option<LogId>, Option<LogId>) {
    let LogState { last_purged_log_id, last_log_id } = log.get_log_state().await.unwrap();
    (last_purged_log_id, last_log_id)
}

async fn indexes(log: &mut LogStore) -> Vec<u64> {
    log.try_get_log_entries(..).await.unwrap().iter().map(|entry| entry.index()).collect()
}

fn vote(term: u64, node: u64) -> Vote {
    Vote { leader_id: RaftLeaderId::new(term, node), committed: term.is_multiple_of(2) }
}

/// What a log holds.
#[derive(Default)]
struct Model {
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.values().next_back().map(|entry| entry.log_id).or(self.purged)
    }

    fn next_index(&self) -> u64 {
        self.last().map_or(0, |last| last.index() + 1)
    }
}

struct History {
    random: Random,
    folder: tempfile::TempDir,
    wal: Wal,
    log: LogStore,
    model: Model,
    term: u64,
}

impl History {
    async fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (wal, log) = open_log(folder.path()).await;
        History { random: Random::new(seed), folder, wal, log, model: Model::default(), term: 1 }
    }

    async fn step(&mut self) {
        match self.random.below(12) {
            0..6 => self.append().await,
            6 => self.truncate().await,
            7 | 8 => self.purge().await,
            9 => {
                let vote = vote(self.term, self.random.below(3));
                self.log.save_vote(&vote).await.unwrap();
                self.model.vote = Some(vote);
            }
            10 => {
                // Grows, up to the end of the log.
                let from = self.model.committed.or(self.model.purged).map_or(0, |id| id.index());
                let known: Vec<&Entry> = self.model.entries.range(from..).map(|(_, entry)| entry).collect();
                if known.is_empty() {
                    return;
                }
                let committed = Some(known[self.random.below(known.len() as u64) as usize].log_id);
                self.model.committed = committed;
                self.log.save_committed(committed).await.unwrap();
                assert_eq!(self.log.read_committed().await.unwrap(), committed);
            }
            _ => self.restart().await,
        }
        self.check().await;
    }

    async fn append(&mut self) {
        self.term += self.random.below(2);
        let first = self.model.next_index();
        let count = 1 + self.random.below(5);
        let entries: Vec<Entry> =
            (first..first + count).map(|index| self.random.entry(id(self.term, index))).collect();
        append(&mut self.log, entries.clone()).await.unwrap();
        self.model.entries.extend(entries.into_iter().map(|entry| (entry.index(), entry)));
    }

    /// Raft never takes back what may be committed, and what is purged is.
    async fn truncate(&mut self) {
        let safe = self.model.committed.max(self.model.purged);
        let later = self.model.entries.values().map(|entry| Some(entry.log_id)).filter(|id| *id > safe);
        let ends: Vec<Option<LogId>> = std::iter::once(safe).chain(later).collect();
        let last = ends[self.random.below(ends.len() as u64) as usize];
        self.log.truncate_after(last).await.unwrap();
        self.model.entries.retain(|index, _| last.is_some_and(|last| *index <= last.index()));
    }

    async fn purge(&mut self) {
        let upto = match self.random.below(6) {
            // A snapshot that reaches past the log.
            0 => id(self.term, self.model.next_index() + self.random.below(5)),
            // Not newer than what is purged.
            1 if self.model.purged.is_some() => self.model.purged.unwrap(),
            _ => {
                let count = self.model.entries.len().div_ceil(2);
                let Some(entry) = self.model.entries.values().take(count).next_back() else { return };
                entry.log_id
            }
        };
        self.log.purge(upto).await.unwrap();
        self.model.entries.retain(|index, _| *index > upto.index());
        self.model.purged = Some(upto);
    }

    async fn restart(&mut self) {
        self.wal.close().await;
        (self.wal, self.log) = open_log(self.folder.path()).await;
        // May have fallen back, but not past the end.
        let committed = self.log.read_committed().await.unwrap();
        assert!(committed.map_or(0, |id| id.index()) <= self.model.last().map_or(0, |id| id.index()));
    }

    async fn check(&mut self) {
        assert_eq!(state(&mut self.log).await, (self.model.purged, self.model.last()));
        assert_eq!(self.log.read_vote().await.unwrap(), self.model.vote);
        let all = self.log.try_get_log_entries(..).await.unwrap();
        assert_eq!(all, self.model.entries.values().cloned().collect::<Vec<_>>());
        let end = self.model.next_index() + 2;
        let (from, to) = (self.random.below(end + 1), self.random.below(end + 1));
        let expected: Vec<Entry> = match from <= to {
            true => self.model.entries.range(from..to).map(|(_, entry)| entry.clone()).collect(),
            false => Vec::new(),
        };
        let mut reader = self.log.get_log_reader().await;
        assert_eq!(reader.try_get_log_entries(from..to).await.unwrap(), expected, "{from}..{to}");
        assert_eq!(reader.limited_get_log_entries(from, to).await.unwrap(), expected, "{from}..{to}");
        if let Some(last) = to.checked_sub(1) {
            assert_eq!(reader.try_get_log_entries(from..=last).await.unwrap(), expected, "{from}..={last}");
        }
    }
}

#[tokio::test]
async fn a_log_is_what_was_written_to_it_also_after_restarts() {
    for seed in 0..12 {
        let mut history = History::new(seed).await;
        for _ in 0..60 {
            history.step().await;
        }
        history.restart().await;
        history.check().await;
    }
}

#[tokio::test]
async fn what_is_read_for_one_request_is_bounded_and_the_first_entry_always_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (_wal, mut log) = open_log(folder.path()).await;
    let large = |index| command(1, index, vec![7; 400 * 1024]);
    let mut entries: Vec<Entry> = (0..4).map(large).collect();
    entries.push(command(1, 4, vec![7; 3 * 1024 * 1024]));
    entries.extend((5..100).map(|index| blank(1, index)));
    append(&mut log, entries).await.unwrap();
    let mut counts = Vec::new();
    for (from, to) in [(0, 100), (1, 3), (3, 100), (4, 100), (5, 100), (5, 7), (7, 7), (99, 200), (100, 200)]
    {
        counts.push(log.limited_get_log_entries(from, to).await.unwrap().len());
    }
    assert_eq!(counts, [3, 2, 2, 1, 95, 2, 0, 1, 0]);
    assert_eq!(log.try_get_log_entries(0..100).await.unwrap().len(), 100, "this one is not bounded");
}

#[tokio::test]
async fn a_log_may_begin_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (wal, mut log) = open_log(folder.path()).await;
    append(&mut log, vec![blank(1, 7), blank(1, 8), blank(1, 9)]).await.unwrap();
    assert_eq!(indexes(&mut log).await, [7, 8, 9]);
    let entries = log.try_get_log_entries(8..9).await.unwrap();
    assert_eq!(entries, [blank(1, 8)]);
    log.truncate_after(Some(id(1, 8))).await.unwrap();
    assert_eq!(indexes(&mut log).await, [7, 8]);
    append(&mut log, vec![blank(2, 9)]).await.unwrap();
    wal.close().await;
    let (_wal, mut log) = open_log(folder.path()).await;
    assert_eq!(log.try_get_log_entries(8..).await.unwrap(), [blank(1, 8), blank(2, 9)]);
    log.purge(id(1, 8)).await.unwrap();
    assert_eq!(indexes(&mut log).await, [9]);
    assert_eq!(state(&mut log).await, (Some(id(1, 8)), Some(id(2, 9))));
}

#[tokio::test]
async fn groups_of_one_log_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let (wal, mut first) = open_log(folder.path()).await;
    let mut second =
        LogStore::new(GROUP + 1, wal.clone(), None, crate::Substitutes::default().witness).unwrap();
    append(&mut first, vec![blank(1, 0), blank(1, 1)]).await.unwrap();
    append(&mut second, vec![blank(4, 0)]).await.unwrap();
    first.save_vote(&vote(1, 1)).await.unwrap();
    second.purge(id(4, 0)).await.unwrap();
    second.save_vote(&vote(4, 2)).await.unwrap();
    wal.close().await;
    let (_wal, mut first) = open_log(folder.path()).await;
    assert_eq!(indexes(&mut first).await, [0, 1]);
    assert_eq!(state(&mut first).await, (None, Some(id(1, 1))));
    assert_eq!(first.read_vote().await.unwrap(), Some(vote(1, 1)));
}

#[tokio::test]
async fn a_reader_sees_what_is_appended_after_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let (_wal, mut log) = open_log(folder.path()).await;
    let mut reader = log.get_log_reader().await;
    append(&mut log, vec![blank(1, 0), blank(1, 1)]).await.unwrap();
    log.save_vote(&vote(3, 1)).await.unwrap();
    assert_eq!(indexes(&mut reader).await, [0, 1]);
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote(3, 1)));
    log.truncate_after(None).await.unwrap();
    assert_eq!(indexes(&mut reader).await, [0; 0]);
}

#[tokio::test]
async fn a_write_that_can_not_reach_the_disk_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (wal, mut log) = open_log(folder.path()).await;
    append(&mut log, vec![blank(1, 0)]).await.unwrap();
    wal.close().await;
    assert!(append(&mut log, vec![blank(1, 1)]).await.is_err());
    assert!(log.save_vote(&vote(3, 1)).await.is_err());
    // Entries that do not follow are refused by the log below, which goes on.
    let (_wal, mut log) = open_log(folder.path()).await;
    assert!(append(&mut log, vec![blank(1, 5)]).await.is_err());
    assert_eq!(indexes(&mut open_again(&folder).await).await, [0]);
}

async fn open_again(folder: &tempfile::TempDir) -> LogStore {
    open_log(folder.path()).await.1
}

#[tokio::test]
async fn bytes_in_the_log_that_are_no_entry_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (wal, _) = open_log(folder.path()).await;
    let no_entry = Bytes::from_static(b"\x01\xff");
    let whole = || RecoveredGroup {
        entries: vec![(0, crate::codec::encode_entry(&blank(1, 0)))],
        ..Default::default()
    };
    assert!(LogStore::new(GROUP, wal.clone(), Some(whole()), crate::Substitutes::default().witness).is_ok());
    for damaged in [
        RecoveredGroup { entries: vec![(0, no_entry.clone())], ..whole() },
        RecoveredGroup { vote: Some(no_entry.clone()), ..whole() },
        RecoveredGroup { committed: Some(no_entry.clone()), ..whole() },
        RecoveredGroup { purged: Some((0, no_entry.clone())), ..whole() },
    ] {
        assert!(
            LogStore::new(GROUP, wal.clone(), Some(damaged.clone()), crate::Substitutes::default().witness)
                .is_err(),
            "{damaged:?} was taken"
        );
    }
}
