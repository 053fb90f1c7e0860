use super::*;
use crate::executor::testing::{agent, calls_of, rows_of_alice};
use afdg_agent::{host::RowWrite, row::Page};
use std::sync::atomic::{AtomicU64, Ordering};

/// Xorshift: the same numbers for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Short keys of few letters, the least and the greatest among them, so that keys meet.
    fn key(&mut self) -> Bytes {
        let length = [0, 1, 2, 2, 3][self.below(5) as usize];
        (0..length).map(|_| [0, 1, b'a', 0xff][self.below(4) as usize]).collect::<Vec<u8>>().into()
    }
}

fn row(number: u64) -> Arc<Row> {
    Arc::new(Row::Page(Page { items: vec![number.to_string().into()] }))
}

type Merged = BTreeMap<Bytes, Arc<Row>>;

/// Changes committed rows as an applied entry does.
fn commit(rows: &AgentRows, agent: &AgentRef, changes: &[(Bytes, Option<Arc<Row>>)]) {
    static MARK: AtomicU64 = AtomicU64::new(0);
    let changes: Vec<(Bytes, Option<Bytes>)> = changes
        .iter()
        .map(|(key, row)| (entities::key(agent, key), row.as_ref().map(|row| row.encode())))
        .collect();
    let keys: Vec<Bytes> = changes.iter().map(|(key, _)| key.clone()).collect();
    let _change = rows.cache.change(rows.region, &keys);
    rows.rows.write(changes, MARK.fetch_add(1, Ordering::Relaxed).to_string().into());
}

fn checkpoint(rows: &AgentRows) {
    let checkpoint = rows.rows.begin_checkpoint().unwrap();
    checkpoint.write().unwrap();
    checkpoint.finish();
}

/// The view's answers are the merged map's, for random questions.
async fn check(random: &mut Random, view: &View, merged: &Merged) {
    for _ in 0..40 {
        let (from, to) = (random.key(), random.key());
        assert_eq!(view.row(&from).await.unwrap().as_ref(), merged.get(&from), "row {from:?}");

        let last = merged.iter().rfind(|(key, _)| **key >= from && **key <= to);
        let last = last.map(|(key, row)| (key.clone(), Arc::clone(row)));
        let answer = view.last_row_at_or_before(&from, &to).await.unwrap();
        assert_eq!(answer, last, "the last of {from:?}..={to:?}");

        let limit = [0, 1, 2, 5, usize::MAX][random.below(5) as usize];
        let range = merged.iter().filter(|(key, _)| **key >= from && **key < to).take(limit);
        let range: Vec<_> = range.map(|(key, row)| (key.clone(), Arc::clone(row))).collect();
        let answer = view.rows(&from, &to, limit).await.unwrap();
        assert_eq!(answer, range, "{limit} of {from:?}..{to:?}");
    }
}

#[tokio::test]
async fn a_view_is_what_its_agent_has_stored_with_its_uncommitted_changes_over_it() {
    let alice = agent("alice");
    for seed in 1..=60 {
        let random = &mut Random(seed * 0x9e37_79b9);
        let rows = rows_of_alice();
        let (mut overlay, mut merged) = (Overlay::default(), Merged::new());
        // Others before and behind, with the same row keys; those with a tag share alice's slot.
        for other in ["alic", "alicf", "{alice}a", "{alice}z", "alice2"] {
            let changes: Vec<_> = (0..8).map(|number| (random.key(), Some(row(1_000 + number)))).collect();
            commit(&rows, &agent(other), &changes);
        }
        for number in 0..random.below(40) {
            let (key, row) = (random.key(), (random.below(4) > 0).then(|| row(number)));
            commit(&rows, &alice, &[(key.clone(), row.clone())]);
            match row {
                Some(row) => merged.insert(key, row),
                None => merged.remove(&key),
            };
            if random.below(12) == 0 {
                checkpoint(&rows);
            }
        }
        let mut written = Vec::new();
        for number in 0..random.below(25) {
            let key = random.key();
            let write = match random.below(3) {
                0 => {
                    merged.remove(&key);
                    RowWrite::Delete(key)
                }
                _ => {
                    merged.insert(key.clone(), row(100 + number));
                    RowWrite::Put(key, row(100 + number))
                }
            };
            overlay.write(number, std::slice::from_ref(&write));
            written.push(match write {
                RowWrite::Put(key, row) => (key, Some(row)),
                RowWrite::Delete(key) | RowWrite::DropPrefix(key) => (key, None),
            });
        }
        let view = |overlay: &Overlay| View::of_turn(rows.clone(), overlay.clone(), calls_of(&alice));
        check(random, &view(&overlay), &merged).await;
        assert!(view(&overlay).reads_fit_together().unwrap());

        // Committed, the changes are read from below; the overlay may stay a while, or be gone.
        commit(&rows, &alice, &written);
        check(random, &view(&overlay), &merged).await;
        overlay.committed(u64::MAX);
        assert!(overlay.is_empty());
        check(random, &view(&overlay), &merged).await;
        check(random, &View::of_read(rows.clone(), calls_of(&alice)), &merged).await;
    }
}

#[tokio::test]
async fn many_deleted_rows_are_stepped_over() {
    let alice = agent("alice");
    let rows = rows_of_alice();
    let key = |number: u64| Bytes::from(format!("k{number:03}"));
    let stored: Vec<_> = (0..200).map(|number| (key(number), Some(row(number)))).collect();
    commit(&rows, &alice, &stored);
    let mut overlay = Overlay::default();
    let deleted: Vec<_> = (1..199).map(|number| RowWrite::Delete(key(number))).collect();
    overlay.write(1, &deleted);
    let view = View::of_turn(rows, overlay, calls_of(&alice));
    let last = view.last_row_at_or_before(b"k", &key(198)).await.unwrap();
    assert_eq!(last, Some((key(0), row(0))));
    assert_eq!(view.last_row_at_or_before(&key(1), &key(198)).await.unwrap(), None);
    assert_eq!(view.rows(b"k", b"l", 2).await.unwrap(), [(key(0), row(0)), (key(199), row(199))]);
    assert_eq!(view.rows(b"k", b"l", 1).await.unwrap(), [(key(0), row(0))]);
}

#[tokio::test]
async fn right_below_a_deleted_row_nothing_is_overlooked() {
    let alice = agent("alice");
    // Each key, and the greatest of the others below it.
    let neighbours: [(&[u8], &[u8]); 5] =
        [(b"a\0", b"a"), (b"a\0\0", b"a\0"), (b"b", b"a\xff\xff\xff"), (b"\0", b""), (b"a\x01", b"a\0\xff")];
    for (deleted, below) in neighbours {
        let (deleted, below) = (Bytes::from_static(deleted), Bytes::from_static(below));
        let rows = rows_of_alice();
        commit(&rows, &alice, &[(deleted.clone(), Some(row(1))), (below.clone(), Some(row(2)))]);
        let mut overlay = Overlay::default();
        overlay.write(1, &[RowWrite::Delete(deleted.clone())]);
        let view = View::of_turn(rows, overlay, calls_of(&alice));
        let last = view.last_row_at_or_before(b"", &deleted).await.unwrap();
        assert_eq!(last, Some((below.clone(), row(2))), "below {deleted:?}");
        let last = view.last_row_at_or_before(&below, &deleted).await.unwrap();
        assert_eq!(last, Some((below, row(2))), "the range begins at it");
    }
}

#[tokio::test]
async fn a_row_that_can_not_be_decoded_fails_the_turn() {
    let alice = agent("alice");
    let rows = rows_of_alice();
    rows.rows.write(vec![(entities::key(&alice, b"a"), Some(Bytes::from_static(b"\xff")))], "1".into());
    let view = View::of_turn(rows, Overlay::default(), calls_of(&alice));
    assert!(matches!(view.row(b"a").await, Err(TurnFailure::Storage(_))));
    assert!(matches!(view.last_row_at_or_before(b"", b"z").await, Err(TurnFailure::Storage(_))));
    assert!(matches!(view.rows(b"", b"z", 9).await, Err(TurnFailure::Storage(_))));
}

/// A change of committed rows while a reader is under way.
type ToRows = fn(&Reading);

/// Committed rows `b`, `d` and `f`, and a reader.
struct Reading {
    rows: AgentRows,
    view: View,
}

impl Reading {
    fn new() -> Self {
        let rows = rows_of_alice();
        let stored = ["b", "d", "f"].map(|key| (Bytes::from(key), Some(row(1))));
        commit(&rows, &rows.agent, &stored);
        let view = View::of_read(rows.clone(), calls_of(&rows.agent));
        Self { rows, view }
    }

    fn put(&self, key: &'static str, number: u64) {
        commit(&self.rows, &self.rows.agent, &[(key.into(), Some(row(number)))]);
    }

    fn delete(&self, key: &'static str) {
        commit(&self.rows, &self.rows.agent, &[(key.into(), None)]);
    }

    async fn row(&self, key: &str) -> Option<Arc<Row>> {
        self.view.row(key.as_bytes()).await.unwrap()
    }

    fn fits(&self) -> bool {
        self.view.reads_fit_together().unwrap()
    }
}

#[tokio::test]
async fn reads_fit_together_while_nothing_that_was_read_changes() {
    let reading = Reading::new();
    assert!(reading.fits(), "nothing was read");
    reading.row("b").await;
    reading.put("b", 2);
    assert!(reading.fits(), "one answer is as of one instant");

    let reading = Reading::new();
    reading.row("b").await;
    reading.row("d").await;
    reading.row("x").await;
    reading.view.last_row_at_or_before(b"a", b"e").await.unwrap();
    assert_eq!(reading.view.rows(b"a", b"z", 2).await.unwrap().len(), 2);
    assert!(reading.fits(), "nothing changed");
    reading.put("g", 2);
    reading.put("f", 2);
    reading.put("c", 2);
    reading.delete("c");
    assert!(reading.fits(), "rows beside those that were read, and one that is as it was");
}

#[tokio::test]
async fn a_row_that_changed_between_two_reads_does_not_fit() {
    let changes: [(&str, ToRows); 4] = [
        ("a row that was read changed", |reading| reading.put("b", 2)),
        ("it was deleted", |reading| reading.delete("b")),
        ("one came where there was none", |reading| reading.put("a", 2)),
        ("one that was read twice with other answers", |reading| reading.put("d", 2)),
    ];
    for (what, change) in changes {
        let reading = Reading::new();
        for key in ["a", "b", "d"] {
            reading.row(key).await;
        }
        change(&reading);
        let again = reading.row("d").await;
        assert_eq!(again == Some(row(2)), what.starts_with("one that was read twice"), "{what}");
        assert!(!reading.fits(), "{what}");
    }
    let reading = Reading::new();
    reading.row("a").await;
    reading.row("b").await;
    reading.put("b", 2);
    reading.put("b", 1);
    assert!(reading.fits(), "it is again as it was read");
}

#[tokio::test]
async fn a_range_that_changed_does_not_fit() {
    let changes: [(bool, ToRows); 8] = [
        // `last` is `d`, the greatest of `a..=e`; the two first of `a..z` are `b` and `d`.
        (false, |reading| reading.put("e", 2)),
        (false, |reading| reading.put("d", 2)),
        (false, |reading| reading.delete("d")),
        (false, |reading| reading.put("a", 2)),
        (false, |reading| reading.delete("b")),
        (true, |reading| reading.put("f", 2)),
        (true, |reading| reading.delete("f")),
        (true, |reading| reading.put("z", 2)),
    ];
    for (place, (fits, change)) in changes.into_iter().enumerate() {
        let reading = Reading::new();
        let last = reading.view.last_row_at_or_before(b"a", b"e").await.unwrap();
        assert_eq!(last, Some(("d".into(), row(1))));
        assert_eq!(reading.view.rows(b"a", b"z", 2).await.unwrap().len(), 2);
        change(&reading);
        assert_eq!(reading.fits(), fits, "change {place}");
    }
}

#[tokio::test]
async fn rows_that_were_replaced_by_a_snapshot_do_not_fit_with_those_before() {
    for (number, fits) in [(2, false), (1, true)] {
        let reading = Reading::new();
        assert_eq!(reading.row("b").await, Some(row(1)));
        let replaced =
            ["b", "d"].map(|key| (entities::key(&reading.rows.agent, key.as_bytes()), row(number).encode()));
        reading.rows.rows.replace_all(replaced, "snapshot".into()).unwrap();
        reading.rows.cache.forget(reading.rows.region);
        assert_eq!(reading.row("d").await, Some(row(number)));
        assert_eq!(reading.fits(), fits, "rows {number}");
    }
}

#[tokio::test]
async fn a_turn_of_the_agents_own_never_has_to_run_again() {
    let rows = rows_of_alice();
    let view = View::of_turn(rows.clone(), Overlay::default(), calls_of(&rows.agent));
    view.row(b"a").await.unwrap();
    commit(&rows, &rows.agent, &[("a".into(), Some(row(1)))]);
    view.row(b"a").await.unwrap();
    assert!(view.reads_fit_together().unwrap());
}

#[tokio::test]
async fn a_turn_that_was_entered_reads_what_is_committed_by_then() {
    let rows = rows_of_alice();
    let (x, y) = (Bytes::from_static(b"x"), Bytes::from_static(b"y"));
    let mut overlay = Overlay::default();
    overlay.write(1, &[RowWrite::Put(x.clone(), row(1)), RowWrite::Put(y.clone(), row(1))]);
    let reentry = Arc::new(Reentry::default());
    let view = View::of_turn(rows.clone(), overlay, calls_of(&rows.agent));
    let view = view.with_reentry(Some(Arc::clone(&reentry)));
    assert_eq!(view.row(&y).await.unwrap(), Some(row(1)), "its predecessors are not committed");
    commit(&rows, &rows.agent, &[(x.clone(), Some(row(1))), (y.clone(), Some(row(1)))]);

    let changes = |key: &Bytes| [RowWrite::Put(key.clone(), row(2))];
    assert_eq!(reentry.enter(2, &changes(&y)), Err("y".to_owned()), "it has read that");
    assert_eq!(reentry.enter(3, &changes(&x)), Ok(()));
    commit(&rows, &rows.agent, &[(x.clone(), Some(row(2)))]);
    reentry.settle(3);
    assert_eq!(view.row(&x).await.unwrap(), Some(row(2)));
    assert_eq!(view.last_row_at_or_before(b"", &x).await.unwrap(), Some((x.clone(), row(2))));
    assert_eq!(view.rows(b"", b"z", 1).await.unwrap(), [(x.clone(), row(2))]);
    assert_eq!(view.row(&y).await.unwrap(), Some(row(1)));
    // All three were reads of x; of what lies past the last row of a full answer nothing was seen.
    assert_eq!(reentry.enter(4, &changes(&x)), Err("x".to_owned()));
    assert_eq!(reentry.enter(5, &changes(&Bytes::from_static(b"xx"))), Ok(()));
}
