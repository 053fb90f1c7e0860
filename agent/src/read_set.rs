//! Which rows a turn has read, so that nothing of them is changed while it waits.

use crate::{host::RowWrite, row::RowKey};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// The rows that a turn has asked for, there or not. Keys are relative to the agent.
#[derive(Clone, Debug, Default)]
pub struct ReadSet {
    rows: BTreeSet<Bytes>,
    /// First key (included) to end (excluded); apart from one another.
    ranges: BTreeMap<Bytes, Bytes>,
}

impl ReadSet {
    pub fn row(&mut self, key: &[u8]) {
        if !self.rows.contains(key) {
            self.rows.insert(Bytes::copy_from_slice(key));
        }
    }

    /// The rows with keys in `from..to`, whichever there are.
    pub fn range(&mut self, from: &[u8], to: &[u8]) {
        if from >= to || self.covering(from).is_some_and(|end| to <= end) {
            return;
        }
        let (mut from, mut to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        // All that overlap or touch it become one with it.
        while let Some((first, end)) = self.ranges.range(..=to.clone()).next_back()
            && *end >= from
        {
            let first = first.clone();
            let end = self.ranges.remove(&first).unwrap_or_default();
            (from, to) = (from.min(first), to.max(end));
        }
        self.ranges.insert(from, to);
    }

    /// What a turn asked for with "the last row in `from..=at`", and found: no row may come between.
    pub fn last_at_or_before(&mut self, from: &[u8], at: &[u8], found: Option<&[u8]>) {
        self.range(found.unwrap_or(from), &after(at));
    }

    /// What a turn asked for with "at most `limit` rows in `from..to`", and found.
    pub fn rows_from(&mut self, from: &[u8], to: &[u8], limit: usize, found: usize, last: Option<&[u8]>) {
        match last {
            Some(last) if found >= limit => self.range(from, &after(last)),
            _ if limit > 0 => self.range(from, to),
            _ => {}
        }
    }

    /// The key of the first of the writes that changes what was read.
    pub fn changed_by<'a>(&self, writes: &'a [RowWrite]) -> Option<&'a Bytes> {
        writes.iter().find_map(|write| match write {
            RowWrite::Put(key, _) | RowWrite::Delete(key) => self.holds(key).then_some(key),
            RowWrite::DropPrefix(prefix) => self.holds_any_under(prefix).then_some(prefix),
        })
    }

    fn holds(&self, key: &[u8]) -> bool {
        self.rows.contains(key) || self.covering(key).is_some()
    }

    fn holds_any_under(&self, prefix: &Bytes) -> bool {
        let under = |key: &Bytes| key.starts_with(prefix);
        self.covering(prefix).is_some()
            || self.rows.range(prefix.clone()..).next().is_some_and(under)
            || self.ranges.range(prefix.clone()..).next().is_some_and(|(first, _)| under(first))
    }

    /// The end of the range that holds `key`.
    fn covering(&self, key: &[u8]) -> Option<&Bytes> {
        use std::ops::Bound::{Included, Unbounded};
        let (_, end) = self.ranges.range::<[u8], _>((Unbounded, Included(key))).next_back()?;
        (key < &end[..]).then_some(end)
    }
}

fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The entity that a row is of, for people.
pub fn entity_of(key: &[u8]) -> String {
    match RowKey::parse(key) {
        Ok(RowKey::Head { entity } | RowKey::Page { entity, .. }) => entity.as_str().to_owned(),
        Err(_) => key.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn key(random: &mut StdRng) -> Bytes {
        let length = random.random_range(0..4);
        (0..length).map(|_| [0, b'a', b'b', 0xff][random.random_range(0..4)]).collect::<Vec<u8>>().into()
    }

    fn deletes(key: &Bytes) -> [RowWrite; 1] {
        [RowWrite::Delete(key.clone())]
    }

    #[test]
    fn what_was_read_is_known_whatever_else_was() {
        for seed in 1..=300 {
            let random = &mut StdRng::seed_from_u64(seed);
            let mut set = ReadSet::default();
            let (mut rows, mut ranges) = (Vec::new(), Vec::new());
            for _ in 0..random.random_range(0..12) {
                if random.random_range(0..3) == 0 {
                    let key = key(random);
                    set.row(&key);
                    rows.push(key);
                } else {
                    let (from, to) = (key(random), key(random));
                    set.range(&from, &to);
                    ranges.push((from, to));
                }
            }
            for _ in 0..100 {
                let key = key(random);
                let read = rows.contains(&key) || ranges.iter().any(|(from, to)| *from <= key && key < *to);
                assert_eq!(set.changed_by(&deletes(&key)).is_some(), read, "{key:?} of {set:?}");
                if read {
                    let prefix = key.slice(..random.random_range(0..=key.len()));
                    let dropped = [RowWrite::DropPrefix(prefix)];
                    assert!(set.changed_by(&dropped).is_some(), "{key:?} under {dropped:?} of {set:?}");
                }
            }
            let apart = set.ranges.iter().zip(set.ranges.iter().skip(1));
            assert!(apart.into_iter().all(|((_, end), (next, _))| end < next), "{set:?}");
        }
    }

    #[test]
    fn an_answer_stands_for_what_is_not_there_as_well() {
        let mut set = ReadSet::default();
        set.last_at_or_before(b"c", b"f", Some(b"d"));
        set.rows_from(b"m", b"z", 2, 2, Some(b"p"));
        set.rows_from(b"A", b"C", 9, 1, Some(b"A"));
        let read = |key: &str| set.changed_by(&deletes(&Bytes::copy_from_slice(key.as_bytes()))).is_some();
        assert!(!read("c") && read("d") && read("e") && read("f") && !read("fa"));
        assert!(read("m") && read("p") && !read("pa") && !read("y"));
        assert!(read("A") && read("B") && !read("C"));
    }
}
