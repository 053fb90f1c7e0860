//! What an agent's turns have written and the region has not committed yet.

use afdg_agent::{host::RowWrite, row::Row};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// Number of a turn among its region's turns of one leadership.
pub type TurnNumber = u64;

/// Newest uncommitted rows of one agent, by the agent's own row keys. Cheap to clone; the next turn of
/// the agent reads through it while the region already changes its own copy.
#[derive(Clone, Default)]
pub struct Overlay {
    rows: Arc<BTreeMap<Bytes, Written>>,
}

/// Which turn wrote a row last, and what; none if it deleted it.
type Written = (TurnNumber, Option<Arc<Row>>);

impl Overlay {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// `Some(None)` says that the row was deleted.
    pub fn get(&self, key: &[u8]) -> Option<Option<Arc<Row>>> {
        self.rows.get(key).map(|(_, row)| row.clone())
    }

    /// The changed rows with keys in `from..to`.
    pub fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&Bytes, Option<&Arc<Row>>)> {
        use std::ops::Bound::{Excluded, Included};
        let range = if from < to { (Included(from), Excluded(to)) } else { (Included(from), Excluded(from)) };
        // An empty range with equal excluded ends would panic in the standard library.
        let empty = from >= to;
        self.rows
            .range::<[u8], _>(if empty { (Included(from), Included(from)) } else { range })
            .filter(move |_| !empty)
            .map(|(key, (_, row))| (key, row.as_ref()))
    }

    /// Takes in what turn `number` wrote.
    pub fn write(&mut self, number: TurnNumber, writes: &[RowWrite]) {
        if writes.is_empty() {
            return;
        }
        let rows = Arc::make_mut(&mut self.rows);
        for write in writes {
            match write {
                RowWrite::Put(key, row) => {
                    rows.insert(key.clone(), (number, Some(Arc::clone(row))));
                }
                RowWrite::Delete(key) => {
                    rows.insert(key.clone(), (number, None));
                }
                // Nobody reads what stands under the prefix.
                RowWrite::DropPrefix(_) => {}
            }
        }
    }

    /// Lets go of what turns up to `number` wrote: it is committed, and read from there.
    pub fn committed(&mut self, number: TurnNumber) {
        if !self.rows.is_empty() {
            Arc::make_mut(&mut self.rows).retain(|_, (written_by, _)| *written_by > number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_agent::row::Page;

    fn put(key: &'static str) -> RowWrite {
        RowWrite::Put(Bytes::from_static(key.as_bytes()), Arc::new(Row::Page(Page { items: Vec::new() })))
    }

    #[test]
    fn rows_stay_until_the_turn_that_wrote_them_last_is_committed() {
        let mut overlay = Overlay::default();
        overlay.write(1, &[put("a"), put("b")]);
        overlay.write(2, &[put("a"), RowWrite::Delete(Bytes::from_static(b"c"))]);
        let earlier = overlay.clone();
        overlay.committed(1);
        assert!(overlay.get(b"a").is_some() && overlay.get(b"b").is_none());
        assert_eq!(overlay.get(b"c"), Some(None));
        assert!(earlier.get(b"b").is_some(), "a copy that a turn holds does not change");
        assert_eq!(overlay.range(b"a", b"z").count(), 2);
        assert_eq!(overlay.range(b"b", b"a").count(), 0);
        overlay.committed(2);
        assert!(overlay.is_empty());
    }
}
