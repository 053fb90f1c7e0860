//! Random histories against a map.

use super::{
    tests::{Place, bytes},
    *,
};
use afdg_types::{Rows, RowsMut};
use std::collections::BTreeMap;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn key(&mut self) -> Bytes {
        let length = self.below(4) as usize;
        (0..length).map(|_| [0, b'a', b'b', 0xff][self.below(4) as usize]).collect::<Vec<u8>>().into()
    }
}

/// The rows and the mark at one moment.
#[derive(Clone, Default)]
struct Moment {
    rows: BTreeMap<Bytes, Bytes>,
    mark: Option<Bytes>,
}

struct Run {
    random: Random,
    store: Arc<dyn CheckpointStore>,
    rows: Arc<RowStore>,
    now: Moment,
    checkpointed: Moment,
    running: Option<(Checkpoint, Moment)>,
    snapshots: Vec<(RowSnapshot, Moment)>,
    batches: u64,
}

impl Run {
    fn new(place: &Place, seed: u64) -> Self {
        let store = place.open();
        let rows = Arc::new(RowStore::open(store.tree(1).unwrap()).unwrap());
        let (now, checkpointed) = (Moment::default(), Moment::default());
        let random = Random(seed * 0x9e37_79b9);
        Run { random, store, rows, now, checkpointed, running: None, snapshots: vec![], batches: 0 }
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0..18 => self.write(),
            18..22 => self.begin_checkpoint(),
            22..27 => self.end_checkpoint(),
            27..29 if self.snapshots.len() < 3 => {
                self.snapshots.push((self.rows.snapshot(), self.now.clone()));
            }
            29..33 if !self.snapshots.is_empty() => self.read_snapshot(),
            33 => self.replace(),
            _ => check_reads(&mut self.random, &*self.rows, &self.now.rows),
        }
        assert_eq!(self.rows.mark(), self.now.mark);
        assert_eq!(self.rows.checkpoint_mark(), self.checkpointed.mark);
        assert_eq!(self.rows.snapshots() == 0, self.snapshots.is_empty());
    }

    fn write(&mut self) {
        self.batches += 1;
        let mark = bytes(self.batches);
        let large = if self.random.below(10) == 0 { 200 } else { 6 };
        let mut writer = RowWriter::new(&self.rows);
        let mut model = self.now.rows.clone();
        for _ in 0..self.random.below(large) {
            let key = self.random.key();
            if self.random.below(3) == 0 {
                writer.delete(key.clone());
                model.delete(key);
            } else {
                let value = bytes(self.random.below(1000));
                writer.put(key.clone(), value.clone());
                model.put(key, value);
            }
        }
        check_reads(&mut self.random, &writer, &model);
        if self.random.below(8) > 0 {
            writer.commit(mark.clone());
            self.now = Moment { rows: model, mark: Some(mark) };
        }
    }

    fn begin_checkpoint(&mut self) {
        let possible = self.running.is_none() && self.snapshots.is_empty();
        let dirty = self.rows.dirty_rows() > 0 || self.now.mark != self.checkpointed.mark;
        let begun = self.rows.begin_checkpoint();
        assert_eq!(begun.is_some(), possible && dirty);
        if let Some(begun) = begun {
            assert_eq!(Some(begun.mark()), self.now.mark.as_ref());
            self.running = Some((begun, self.now.clone()));
        }
    }

    fn end_checkpoint(&mut self) {
        let Some((running, moment)) = self.running.take() else { return };
        // Some never reach the tree, some reach it and are not finished.
        if self.random.below(5) == 0 {
            return;
        }
        running.write().unwrap();
        check_reads(&mut self.random, &*self.rows, &self.now.rows);
        if self.random.below(5) > 0 {
            self.store.make_durable().unwrap();
            assert_eq!(running.finish(), moment.mark);
            self.checkpointed = moment;
        }
    }

    fn read_snapshot(&mut self) {
        let at = self.random.below(self.snapshots.len() as u64) as usize;
        let (mut snapshot, moment) = self.snapshots.swap_remove(at);
        assert_eq!(snapshot.mark(), moment.mark.as_ref());
        let mut found = Vec::new();
        loop {
            let chunk = snapshot.next_rows(self.random.below(300) as usize).unwrap();
            if chunk.is_empty() {
                break;
            }
            found.extend(chunk);
        }
        assert!(found.into_iter().eq(moment.rows));
    }

    fn replace(&mut self) {
        self.end_checkpoint();
        self.read_all_snapshots();
        self.batches += 1;
        let rows: BTreeMap<Bytes, Bytes> =
            (0..self.random.below(100)).map(|n| (self.random.key(), bytes(n))).collect();
        if self.random.below(3) == 0 {
            let mut unfinished = self.rows.begin_replacement().unwrap();
            unfinished.put_rows(rows.into_iter().collect()).unwrap();
            return;
        }
        let mark = bytes(self.batches);
        self.rows.replace_all(rows.clone(), mark.clone()).unwrap();
        self.now = Moment { rows, mark: Some(mark) };
        self.checkpointed = self.now.clone();
    }

    fn read_all_snapshots(&mut self) {
        while !self.snapshots.is_empty() {
            self.read_snapshot();
        }
    }
}

fn check_reads(random: &mut Random, rows: &dyn Rows, model: &BTreeMap<Bytes, Bytes>) {
    for _ in 0..4 {
        let (from, to) = (random.key(), random.key());
        let to = (random.below(4) > 0).then_some(&to[..]);
        let limit = random.below(12) as usize;
        assert_eq!(rows.scan(&from, to, limit).unwrap(), model.scan(&from, to, limit).unwrap());
        let at = random.key();
        let last = rows.last_at_or_before(&from, &at).unwrap();
        assert_eq!(last, model.last_at_or_before(&from, &at).unwrap());
        assert_eq!(rows.get(&at).unwrap(), model.get(&at).cloned());
    }
    let all = rows.scan(b"", None, usize::MAX).unwrap();
    assert!(all.into_iter().eq(model.clone()));
}

#[test]
fn random_histories_read_as_a_map_does() {
    for seed in 1..=12 {
        for place in Place::both() {
            let mut run = Run::new(&place, seed);
            for _ in 0..4 {
                for _ in 0..100 {
                    run.step();
                }
                // What the tree holds after a checkpoint that was written and not finished is as right
                // as what it held before; it is finished here, so that there is one answer.
                run.read_all_snapshots();
                run.running = None;
                run.begin_checkpoint();
                while run.running.is_some() || run.checkpointed.mark != run.now.mark {
                    run.end_checkpoint();
                    run.begin_checkpoint();
                }
                run.write();
                let expected = run.checkpointed.clone();
                let Run { random, batches, store, rows, .. } = run;
                drop((store, rows));
                run = Run::new(&place, seed);
                (run.random, run.batches) = (random, batches);
                assert_eq!(run.rows.mark(), expected.mark, "seed {seed}");
                let found = run.rows.scan(b"", None, usize::MAX).unwrap();
                assert!(found.into_iter().eq(expected.rows.clone()), "seed {seed}");
                run.now = expected.clone();
                run.checkpointed = expected;
            }
        }
    }
}
