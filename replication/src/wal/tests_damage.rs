//! What comes back after crashes and damage, and what refuses to.

use super::{
    record::Record,
    test_disk::TestDisk,
    tests::{Groups, ask, entry, open},
    *,
};
use std::time::Duration;

/// The indexes of group 1, which is all that these tests write.
fn indexes(found: &Groups) -> Vec<u64> {
    found.get(&1).map(|group| group.entries.iter().map(|(index, _)| *index).collect()).unwrap_or_default()
}

async fn filled(segment_bytes: u64, entries: u64) -> TestDisk {
    let disk = TestDisk::default();
    let (wal, _) = open(&disk, segment_bytes).await.unwrap();
    for index in 1..=entries {
        entry(&wal, 1, index, "some bytes").await.unwrap();
    }
    wal.close().await;
    disk
}

#[tokio::test]
async fn a_full_disk_poisons_and_what_was_acknowledged_stays() {
    for (refuses_changes, written) in [(false, 0), (false, 40), (true, 0), (true, 40), (true, 80)] {
        let disk = filled(1000, 3).await;
        let (wal, _) = open(&disk, 1000).await.unwrap();
        disk.content().append_fails_after = Some(written);
        let first = ask(|done| wal.append(1, vec![(4, "lost".into()), (5, "lost".into())], done));
        disk.content().refuses_changes = refuses_changes;
        let same_batch = ask(|done| wal.save_vote(1, "lost".into(), done));
        assert_eq!(first.await.unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
        same_batch.await.unwrap().unwrap_err();
        let later = entry(&wal, 1, 4, "later").await.unwrap_err();
        assert_eq!(later.kind(), io::ErrorKind::StorageFull);
        assert!(wal.failed().await.contains("failed"), "{}", wal.failed().await);
        wal.close().await;
        assert_eq!(wal.status().queued_bytes, 0);
        disk.content().refuses_changes = false;
        let (wal, found) = open(&disk, 1000).await.unwrap();
        let found = indexes(&found);
        assert!(found.starts_with(&[1, 2, 3]), "{found:?}");
        assert!(found.len() == 3 || refuses_changes && written > 0, "{found:?}");
        entry(&wal, 1, found.len() as u64 + 1, "there is room again").await.unwrap();
    }
}

#[tokio::test]
async fn a_log_whose_last_write_fails_is_closed_all_the_same() {
    let disk = filled(1000, 3).await;
    let (wal, _) = open(&disk, 1000).await.unwrap();
    disk.content().append_fails_after = Some(0);
    let lost = ask(|done| wal.append(1, vec![(4, "lost".into())], done));
    // In one batch with the append.
    tokio::time::timeout(Duration::from_secs(20), wal.close()).await.unwrap();
    lost.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_torn_end_is_cut_off_at_every_byte() {
    let disk = filled(10_000, 3).await;
    let file = disk.last_file();
    let acknowledged = disk.length(&file);
    let (wal, _) = open(&disk, 10_000).await.unwrap();
    ask(|done| wal.append(1, vec![(4, "unanswered".into()), (5, "unanswered".into())], done))
        .await
        .unwrap()
        .unwrap();
    wal.close().await;
    let whole = disk.length(&file);
    let mut seen = std::collections::BTreeSet::new();
    for cut in acknowledged..=whole {
        // The rest of the write is missing, or never left the cache.
        for zeros in [0, whole - cut, 5000] {
            let crashed = disk.copy();
            let mut bytes = crashed.content().files[&file][..cut].to_vec();
            bytes.resize(cut + zeros, 0);
            crashed.content().files.insert(file.clone(), bytes);
            let (wal, found) = open(&crashed, 10_000).await.unwrap();
            let found = indexes(&found);
            assert!((3..=5).contains(&found.len()) && found == (1..=found.len() as u64).collect::<Vec<_>>());
            seen.insert(found.len());
            let next = found.len() as u64 + 1;
            entry(&wal, 1, next, "goes on").await.unwrap();
            wal.close().await;
            let (_, found) = open(&crashed, 10_000).await.unwrap();
            assert_eq!(indexes(&found), (1..=next).collect::<Vec<_>>());
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
}

#[tokio::test]
async fn an_unfinished_segment_is_dropped_at_every_byte() {
    // The tenth entry starts a segment; the one before is full.
    let before = filled(500, 9).await;
    let mut entries = 9;
    let disk = loop {
        entries += 1;
        let disk = filled(500, entries).await;
        if disk.names().len() > before.names().len() {
            break disk;
        }
    };
    let file = disk.last_file();
    for cut in 0..disk.length(&file) {
        let crashed = disk.copy();
        crashed.content().files.get_mut(&file).unwrap().truncate(cut);
        let (wal, found) = open(&crashed, 500).await.unwrap();
        assert_eq!(indexes(&found), (1..entries).collect::<Vec<_>>(), "cut at {cut}");
        entry(&wal, 1, entries, "again").await.unwrap();
        wal.close().await;
        let (_, found) = open(&crashed, 500).await.unwrap();
        assert_eq!(indexes(&found), (1..=entries).collect::<Vec<_>>(), "cut at {cut}");
    }
}

#[tokio::test]
async fn the_very_first_segment_may_be_unfinished() {
    let disk = filled(500, 1).await;
    let file = disk.last_file();
    for cut in 0..disk.length(&file) {
        let crashed = disk.copy();
        crashed.content().files.get_mut(&file).unwrap().truncate(cut);
        let (wal, found) = open(&crashed, 500).await.unwrap();
        assert_eq!(indexes(&found), [0; 0]);
        entry(&wal, 1, 1, "again").await.unwrap();
    }
}

#[tokio::test]
async fn a_flipped_bit_before_the_last_write_refuses() {
    let disk = filled(300, 20).await;
    let files = disk.names();
    assert!(files.len() > 2);
    // Of the last segment only the last write may be damaged: 35 bytes to begin it, and its entry.
    let last_write = 8 + 9 + 16 + 8 + 9 + 8 + "some bytes".len();
    for file in &files {
        let length = disk.length(file) - if *file == disk.last_file() { last_write } else { 0 };
        for at in 0..length {
            let damaged = disk.copy();
            damaged.content().files.get_mut(file).unwrap()[at] ^= 1 << (at % 8);
            let Err(error) = open(&damaged, 300).await else { panic!("{file:?} opened, damaged at {at}") };
            match error {
                WalError::Damaged { file: named, offset, .. } => {
                    assert_eq!(&named, file);
                    assert!(offset <= at as u64);
                }
                other => panic!("{other}"),
            }
        }
    }
    let damaged = disk.copy();
    damaged.content().files.get_mut(&files[1]).unwrap()[60] ^= 1;
    let Err(error) = open(&damaged, 300).await else { panic!("opened") };
    let text = error.to_string();
    assert!(text.contains(files[1].to_str().unwrap()) && text.contains("rebuild"), "{text}");
}

#[tokio::test]
async fn a_missing_segment_refuses() {
    let disk = filled(300, 20).await;
    let files = disk.names();
    assert!(files.len() > 3);
    for missing in &files[..files.len() - 1] {
        let damaged = disk.copy();
        damaged.content().files.remove(missing);
        let Err(error) = open(&damaged, 300).await else { panic!("opened without {missing:?}") };
        match error {
            WalError::MissingSegment { .. } if *missing != files[0] => {}
            WalError::Damaged { found, .. } if *missing == files[0] => {
                assert!(found.contains("stand nowhere"), "{found}");
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_newer_format_refuses() {
    let disk = filled(1000, 1).await;
    let file = disk.last_file();
    let mut header = disk.content().files[&file][..24].to_vec();
    header[8] = 2;
    let checksum = crc32c::crc32c(&header).to_le_bytes();
    disk.content().files.get_mut(&file).unwrap()[..24].copy_from_slice(&header);
    disk.content().files.get_mut(&file).unwrap()[24..28].copy_from_slice(&checksum);
    assert!(matches!(open(&disk, 1000).await, Err(WalError::UnknownVersion { version: 2, .. })));
}

#[tokio::test]
async fn a_record_that_claims_to_be_huge_is_not_allocated() {
    let disk = filled(1000, 2).await;
    let file = disk.last_file();
    disk.content().files.get_mut(&file).unwrap().extend(u32::MAX.to_le_bytes());
    disk.content().files.get_mut(&file).unwrap().extend([0xee; 40]);
    let (_, found) = open(&disk, 1000).await.unwrap();
    assert_eq!(indexes(&found), [1, 2]);
}

/// Never edit the bytes: they stand for logs that exist. A new format gets its own test beside this one.
#[tokio::test]
async fn the_bytes_of_version_1_are_frozen() {
    let disk = TestDisk::default();
    let (wal, _) = open(&disk, 60).await.unwrap();
    let vote = ask(|done| wal.save_vote(0x0102, "vote".into(), done));
    let first = ask(|done| wal.append(0x0102, vec![(7, "seven".into()), (8, "eight".into())], done));
    let truncated = ask(|done| wal.truncate_from(0x0102, 8, done));
    wal.purge(0x0102, 6, "mark".into());
    wal.save_committed(0x0102, "committed".into());
    wal.append(3, vec![(1, "x".into())], Box::new(|_| {}));
    wal.remove_group(3);
    for done in [vote, first, truncated] {
        done.await.unwrap().unwrap();
    }
    entry(&wal, 0x0102, 8, "new segment").await.unwrap();
    wal.close().await;
    let hex = |file: &PathBuf| {
        disk.content().files[file].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let files = disk.names();
    assert_eq!(
        files,
        [PathBuf::from("log/wal-00000000000000000000.log"), "log/wal-00000000000000000009.log".into()]
    );
    assert_eq!(hex(&files[0]), FIRST_SEGMENT_V1);
    assert_eq!(hex(&files[1]), SECOND_SEGMENT_V1);
}

const FIRST_SEGMENT_V1: &str = concat!(
    "414644472d57414c01000000000000000000000000000000d7d4b2be",
    "1900000050426f3007000000000000000000000000000000001c00000000000000",
    "0d000000e871abb6020201000000000000766f7465",
    "160000008ce338770102010000000000000700000000000000736576656e",
    "16000000f0973b9a01020100000000000008000000000000006569676874",
    "11000000b230d3640402010000000000000800000000000000",
    "15000000b737724805020100000000000006000000000000006d61726b",
    "1200000064711e29010300000000000000010000000000000078",
    "0900000098f7ff53060300000000000000",
    "120000000750ade6030201000000000000636f6d6d6974746564",
);
const SECOND_SEGMENT_V1: &str = concat!(
    "414644472d57414c010000000100000009000000000000001a79c484",
    "3f000000de50ff5a0802010000000000000f",
    "04000000766f746509000000636f6d6d69747465640600000000000000040000006d61726b",
    "07000000000000000800000000000000",
    "19000000bba66a730700000000000000000a000000000000006300000000000000",
    "1c000000ad16778b01020100000000000008000000000000006e6577207365676d656e74",
);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The rules of the log once more, without segments.
#[derive(Clone, Default)]
struct Model(Groups);

impl Model {
    fn next(&self, group: u64) -> u64 {
        let Some(group) = self.0.get(&group) else { return 1 };
        let purged = group.purged.as_ref().map_or(0, |(index, _)| *index);
        group.entries.last().map_or(purged, |(index, _)| *index) + 1
    }

    fn step(&mut self, wal: &Wal, random: &mut Random, done: Done) {
        let group = 1 + random.below(3);
        let text = Bytes::from(format!("{:x}", random.below(1 << 40)));
        let next = self.next(group);
        let purged = self.0.get(&group).and_then(|group| group.purged.clone()).map_or(0, |(index, _)| index);
        match random.below(20) {
            0 => {
                wal.remove_group(group);
                self.0.remove(&group);
                self.step(wal, random, done);
            }
            1..4 if next > 1 => {
                let upto = purged + random.below(next - purged + 1);
                wal.purge(group, upto, text.clone());
                let known = self.0.entry(group).or_default();
                if upto > purged || known.purged.is_none() {
                    known.purged = Some((upto, text));
                    known.entries.retain(|(index, _)| *index > upto);
                }
                self.step(wal, random, done);
            }
            4..7 if next > purged + 1 => {
                let from = purged + 1 + random.below(next - purged - 1);
                wal.truncate_from(group, from, done);
                self.0.entry(group).or_default().entries.retain(|(index, _)| *index < from);
            }
            7..9 => {
                wal.save_vote(group, text.clone(), done);
                self.0.entry(group).or_default().vote = Some(text);
            }
            9..11 => {
                wal.save_committed(group, text.clone());
                self.0.entry(group).or_default().committed = Some(text);
                self.step(wal, random, done);
            }
            _ => {
                let entries: Vec<_> =
                    (0..=random.below(3)).map(|n| (next + n, format!("{text:?} {n}").into())).collect();
                wal.append(group, entries.clone(), done);
                self.0.entry(group).or_default().entries.extend(entries);
            }
        }
    }
}

#[tokio::test]
async fn random_histories_come_back_as_a_model_says() {
    for seed in 1..=40 {
        let mut random = Random(seed * 0x9e37_79b9);
        let disk = TestDisk::default();
        let mut model = Model::default();
        for _ in 0..12 {
            let (wal, found) = open(&disk, 256 + random.below(1000)).await.unwrap();
            assert_eq!(found, model.0, "seed {seed}");
            for _ in 0..random.below(25) {
                let waiting: Vec<_> =
                    (0..=random.below(4)).map(|_| ask(|done| model.step(&wal, &mut random, done))).collect();
                for done in waiting {
                    done.await.unwrap().unwrap();
                }
            }
            wal.close().await;
        }
        assert!(disk.names().len() < 60, "seed {seed}: old segments stay");
    }
}

#[tokio::test]
async fn space_reserved_in_older_segments_is_no_damage_and_hides_none() {
    let disk = filled(500, 20).await;
    let names = disk.names();
    assert!(names.len() > 2);
    for file in &names {
        disk.content().files.get_mut(file).unwrap().resize(5_000, 0);
    }
    let (wal, found) = open(&disk, 500).await.unwrap();
    assert_eq!(indexes(&found), (1..=20).collect::<Vec<_>>());
    entry(&wal, 1, 21, "goes on").await.unwrap();
    wal.close().await;
    let (_, found) = open(&disk, 500).await.unwrap();
    assert_eq!(indexes(&found), (1..=21).collect::<Vec<_>>());
    // The second segment's end is gone, as if it had never been written.
    let mut second = disk.content().files[&names[1]].clone();
    let written = second.iter().rposition(|&byte| byte != 0).unwrap();
    let bytes = Bytes::from(second.clone());
    let mut begins = (0..written).filter(|at| Record::find_begin(&bytes, *at) == Some(at + 1));
    let last = begins.next_back().unwrap() + 1;
    second[last..].fill(0);
    disk.content().files.insert(names[1].clone(), second);
    assert!(matches!(open(&disk, 500).await, Err(WalError::MissingSegment { .. })));
}
