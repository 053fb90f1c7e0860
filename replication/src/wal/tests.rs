use super::{test_disk::TestDisk, *};
use afdg_runtime::RealDisk;

pub type Groups = BTreeMap<u64, RecoveredGroup>;

pub fn options(segment_bytes: u64) -> WalOptions {
    WalOptions { segment_bytes, ..WalOptions::default() }
}

pub async fn open(disk: &TestDisk, segment_bytes: u64) -> Result<(Wal, Groups), WalError> {
    Wal::open(Arc::new(disk.clone()), "log".into(), options(segment_bytes)).await
}

/// Asks for a write now; the answer is waited for by the caller.
pub fn ask(write: impl FnOnce(Done)) -> oneshot::Receiver<io::Result<()>> {
    let (done, wait) = oneshot::channel();
    write(Box::new(move |result| done.send(result).unwrap()));
    wait
}

pub async fn entry(wal: &Wal, group: u64, index: u64, entry: &'static str) -> io::Result<()> {
    ask(|done| wal.append(group, vec![(index, entry.into())], done)).await.unwrap()
}

async fn vote(wal: &Wal, group: u64, vote: &'static str) -> io::Result<()> {
    ask(|done| wal.save_vote(group, vote.into(), done)).await.unwrap()
}

async fn truncate(wal: &Wal, group: u64, index: u64) -> io::Result<()> {
    ask(|done| wal.truncate_from(group, index, done)).await.unwrap()
}

fn entries(from: &[(u64, &'static str)]) -> Vec<(u64, Bytes)> {
    from.iter().map(|&(index, entry)| (index, entry.into())).collect()
}

#[tokio::test]
async fn what_was_acknowledged_comes_back_from_real_files() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Wal::open(Arc::new(RealDisk), folder.path().join("log"), options(300));
    let (wal, found) = open().await.unwrap();
    assert!(found.is_empty());
    vote(&wal, 7, "a vote").await.unwrap();
    for index in 1..=20 {
        entry(&wal, 7, index, "an entry of some length").await.unwrap();
        entry(&wal, 8, index + 100, "of another group").await.unwrap();
    }
    wal.save_committed(7, "up to 20".into());
    wal.purge(7, 5, "mark 5".into());
    assert!(wal.status().segments > 3);
    wal.close().await;
    assert_eq!(wal.status().queued_bytes, 0);

    let (wal, found) = open().await.unwrap();
    assert_eq!(found[&7].vote, Some("a vote".into()));
    assert_eq!(found[&7].committed, Some("up to 20".into()));
    assert_eq!(found[&7].purged, Some((5, "mark 5".into())));
    let expected: Vec<(u64, Bytes)> =
        (6..=20).map(|index| (index, "an entry of some length".into())).collect();
    assert_eq!(found[&7].entries, expected);
    assert_eq!(found[&8].entries.len(), 20);
    assert_eq!(found[&8].entries[0], (101, "of another group".into()));
    entry(&wal, 7, 21, "goes on").await.unwrap();
    wal.close().await;
    let (_, found) = open().await.unwrap();
    assert_eq!(found[&7].entries.last(), Some(&(21, "goes on".into())));
}

#[tokio::test]
async fn what_waits_is_written_with_one_append() {
    let disk = TestDisk::default();
    let (wal, _) = open(&disk, 1 << 20).await.unwrap();
    let waiting: Vec<_> = (0..100)
        .map(|group| ask(|done| wal.append(group, entries(&[(1, "one"), (2, "two")]), done)))
        .collect();
    assert!(wal.status().queued_bytes > 600);
    for done in waiting {
        done.await.unwrap().unwrap();
    }
    assert_eq!(disk.content().appends, 1);
    wal.close().await;
    assert_eq!(wal.status().queued_bytes, 0);
    let (_, found) = open(&disk, 1 << 20).await.unwrap();
    assert_eq!(found.len(), 100);
    assert!(found.values().all(|group| group.entries == entries(&[(1, "one"), (2, "two")])));
}

#[tokio::test]
async fn one_append_takes_no_more_than_its_bound() {
    let disk = TestDisk::default();
    let options = WalOptions { batch_bytes_max: 1000, ..WalOptions::default() };
    let (wal, _) = Wal::open(Arc::new(disk.clone()), "log".into(), options).await.unwrap();
    let waiting: Vec<_> = (0..100)
        .map(|group| ask(|done| wal.append(group, vec![(1, vec![b'x'; 400].into())], done)))
        .collect();
    for done in waiting {
        done.await.unwrap().unwrap();
    }
    assert_eq!(disk.content().appends, 50);
}

#[tokio::test]
async fn truncated_entries_stay_away_and_others_take_their_indexes() {
    let disk = TestDisk::default();
    let (wal, _) = open(&disk, 100).await.unwrap();
    for index in 1..=6 {
        entry(&wal, 1, index, "old").await.unwrap();
    }
    truncate(&wal, 1, 7).await.unwrap();
    truncate(&wal, 1, 4).await.unwrap();
    truncate(&wal, 2, 4).await.unwrap();
    entry(&wal, 1, 4, "new").await.unwrap();
    wal.close().await;
    let (wal, found) = open(&disk, 100).await.unwrap();
    assert_eq!(found[&1].entries, entries(&[(1, "old"), (2, "old"), (3, "old"), (4, "new")]));
    assert!(!found.contains_key(&2));
    truncate(&wal, 1, 1).await.unwrap();
    wal.close().await;
    let (_, found) = open(&disk, 100).await.unwrap();
    assert!(found[&1].entries.is_empty());
}

#[tokio::test]
async fn what_does_not_follow_is_refused_and_the_rest_goes_on() {
    let disk = TestDisk::default();
    let (wal, _) = open(&disk, 1000).await.unwrap();
    entry(&wal, 1, 5, "any index may come first").await.unwrap();
    let refused = [
        ask(|done| wal.append(1, entries(&[(7, "a gap")]), done)),
        ask(|done| wal.append(1, entries(&[(5, "no truncation before it")]), done)),
        ask(|done| wal.append(1, entries(&[(6, "good"), (8, "but")]), done)),
        ask(|done| wal.append(2, entries(&[(6, "good"), (8, "but")]), done)),
        ask(|done| wal.append(2, entries(&[(u64::MAX, "no index after it")]), done)),
    ];
    let good = ask(|done| wal.append(1, entries(&[(6, "six")]), done));
    for refused in refused {
        assert_eq!(refused.await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    good.await.unwrap().unwrap();
    wal.purge(1, 5, "mark".into());
    assert_eq!(truncate(&wal, 1, 5).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    wal.close().await;
    let (_, found) = open(&disk, 1000).await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(found[&1].entries, entries(&[(6, "six")]));
}

#[tokio::test]
async fn segments_go_when_all_their_entries_are_purged() {
    let disk = TestDisk::default();
    let (wal, _) = open(&disk, 200).await.unwrap();
    vote(&wal, 1, "vote of 1").await.unwrap();
    vote(&wal, 2, "vote of 2").await.unwrap();
    wal.save_committed(2, "committed of 2".into());
    wal.append(2, entries(&[(1, "pins the first segment")]), Box::new(|_| {}));
    for index in 1..=50 {
        entry(&wal, 1, index, "passes by").await.unwrap();
    }
    let many = wal.status();
    assert!(many.segments > 10, "{many:?}");
    assert_eq!(wal.oldest_groups(), [1, 2]);
    wal.purge(1, 50, "mark 50".into());
    vote(&wal, 1, "vote of 1").await.unwrap();
    assert_eq!(wal.oldest_groups(), [2]);
    assert!(wal.status().segments >= many.segments);
    wal.purge(2, 1, "mark 1".into());
    vote(&wal, 1, "newer vote of 1").await.unwrap();
    // The sweep comes after the answer.
    wal.close().await;
    assert_eq!(wal.status().segments, 1);
    assert_eq!(disk.names().len(), 1);
    let (wal, found) = open(&disk, 200).await.unwrap();
    let group = |vote: &'static str, committed: Option<Bytes>, purged, mark: &'static str| RecoveredGroup {
        vote: Some(vote.into()),
        committed,
        purged: Some((purged, mark.into())),
        entries: vec![],
    };
    assert_eq!(found[&1], group("newer vote of 1", None, 50, "mark 50"));
    assert_eq!(found[&2], group("vote of 2", Some("committed of 2".into()), 1, "mark 1"));
    assert!(wal.oldest_groups().is_empty());
    entry(&wal, 1, 51, "goes on").await.unwrap();
}

#[tokio::test]
async fn a_purge_past_the_end_moves_the_log_there() {
    let disk = TestDisk::default();
    let (wal, _) = open(&disk, 1000).await.unwrap();
    entry(&wal, 1, 1, "behind the snapshot").await.unwrap();
    wal.purge(1, 90, "snapshot".into());
    wal.purge(1, 80, "late".into());
    wal.purge(3, 10, "a group that starts with a snapshot".into());
    entry(&wal, 1, 2, "too old").await.unwrap_err();
    entry(&wal, 1, 91, "after it").await.unwrap();
    wal.close().await;
    let (_, found) = open(&disk, 1000).await.unwrap();
    assert_eq!(found[&1].purged, Some((90, "snapshot".into())));
    assert_eq!(found[&1].entries, entries(&[(91, "after it")]));
    assert_eq!(found[&3].purged, Some((10, "a group that starts with a snapshot".into())));
}

#[tokio::test]
async fn a_removed_group_is_as_if_it_had_never_been() {
    let disk = TestDisk::default();
    let (wal, _) = open(&disk, 150).await.unwrap();
    for index in 1..=9 {
        entry(&wal, 1, index, "first life").await.unwrap();
    }
    vote(&wal, 1, "first life").await.unwrap();
    wal.save_committed(1, "first life".into());
    wal.remove_group(1);
    entry(&wal, 2, 1, "another").await.unwrap();
    wal.close().await;
    let (wal, found) = open(&disk, 150).await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), [&2]);
    entry(&wal, 1, 3, "second life").await.unwrap();
    wal.close().await;
    assert!(wal.status().segments <= 2, "{:?}", wal.status());
    let (_, found) = open(&disk, 150).await.unwrap();
    assert_eq!(found[&1], RecoveredGroup { entries: entries(&[(3, "second life")]), ..Default::default() });
}

#[tokio::test]
async fn a_committed_mark_rides_along_and_is_written_at_the_end() {
    let disk = TestDisk::default();
    let (wal, _) = open(&disk, 1000).await.unwrap();
    entry(&wal, 1, 1, "one").await.unwrap();
    wal.save_committed(1, "1".into());
    wal.save_committed(1, "2".into());
    ask(|done| wal.append(9, vec![], done)).await.unwrap().unwrap();
    let appends = disk.content().appends;
    entry(&wal, 2, 1, "of another group").await.unwrap();
    assert_eq!(disk.content().appends, appends + 1);
    let (_, found) = open(&disk.copy(), 1000).await.unwrap();
    assert_eq!(found[&1].committed, Some("2".into()));
    wal.save_committed(1, "3".into());
    drop(wal);
    let last = disk.clone();
    while disk.content().appends < appends + 2 {
        tokio::task::yield_now().await;
    }
    let (_, found) = open(&last, 1000).await.unwrap();
    assert_eq!(found[&1].committed, Some("3".into()));
}

#[tokio::test]
async fn a_closed_log_refuses() {
    let disk = TestDisk::default();
    let (wal, _) = open(&disk, 1000).await.unwrap();
    let before = ask(|done| wal.append(1, entries(&[(1, "one")]), done));
    wal.close().await;
    before.await.unwrap().unwrap();
    assert_eq!(entry(&wal, 1, 2, "two").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    wal.close().await;
    assert_eq!(wal.failed().await, WRITER_GONE);
    assert_eq!(wal.status().queued_bytes, 0);
}
