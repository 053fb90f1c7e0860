//! An agent's rows as its turn sees them: its own writes first, the view below.
//!
//! Writes are kept until the turn ends and then leave in one fixed order, so that a turn that is run
//! again leaves the same bytes.

use crate::{
    host::{RowWrite, TurnBounds, TurnFailure, TurnView},
    row::{EntityKey, Head, ROWS_END, Row, RowKey, entity_end, head_key, page_key},
};
use afdg_types::TypeLimit;
use bytes::Bytes;
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// Rows read at once while entities are listed.
const LIST_ROWS_BATCH: usize = 16;

pub(crate) struct Store {
    view: Arc<dyn TurnView>,
    /// None stands for a row that was deleted.
    written: BTreeMap<Bytes, Option<Arc<Row>>>,
    dropped: Vec<Bytes>,
    effect_bytes: usize,
    /// Items and answers that the handler was given. Nothing is taken off when it lets go of them.
    given_bytes: usize,
    bounds: TurnBounds,
}

impl Store {
    pub(crate) fn new(view: Arc<dyn TurnView>, bounds: TurnBounds) -> Self {
        Self { view, written: BTreeMap::new(), dropped: Vec::new(), effect_bytes: 0, given_bytes: 0, bounds }
    }

    /// Counts what the turn is given; fails it past its bound.
    pub(crate) fn give(&mut self, bytes: usize) -> Result<(), TurnFailure> {
        self.given_bytes = self.given_bytes.saturating_add(bytes);
        let max = self.bounds.memory_bytes_max;
        if self.given_bytes.saturating_add(self.effect_bytes) <= max {
            return Ok(());
        }
        Err(TurnFailure::TooLarge(format!(
            "the turn was given more than {max} bytes of items and answers ({}); spread the work over several messages",
            TypeLimit::TurnMemoryBytes
        )))
    }

    pub(crate) fn bounds(&self) -> TurnBounds {
        self.bounds
    }

    pub(crate) fn view(&self) -> &Arc<dyn TurnView> {
        &self.view
    }

    /// Prefixes to drop first, since a generation is dropped as a whole or not at all; then rows by key.
    pub(crate) fn into_writes(self) -> Vec<RowWrite> {
        let dropped = self.dropped.into_iter().map(RowWrite::DropPrefix);
        let written = self.written.into_iter().map(|(key, row)| match row {
            Some(row) => RowWrite::Put(key, row),
            None => RowWrite::Delete(key),
        });
        dropped.chain(written).collect()
    }

    pub(crate) async fn head(&self, entity: EntityKey<'_>) -> Result<Head, TurnFailure> {
        let key = head_key(entity);
        let row = match self.written.get(&key) {
            Some(row) => row.clone(),
            None => self.view.row(&key).await?,
        };
        match row.as_deref() {
            None => Ok(Head::default()),
            Some(Row::Head(head)) => Ok(head.clone()),
            Some(Row::Page(_)) => Err(damaged(entity, "its head's key holds a page")),
        }
    }

    /// The page that holds the item `index`, which is below the head's `tail_first`, and the number of
    /// its first item.
    ///
    /// Pages don't overlap, so the page looked for is either the last written one at or before the
    /// index or, if that one ends too early, untouched by this turn and found in the view. A deleted
    /// page can't come between: it would have overlapped the untouched one.
    pub(crate) async fn page_at(
        &self,
        entity: EntityKey<'_>,
        head: &Head,
        index: u64,
    ) -> Result<(u64, Arc<Row>), TurnFailure> {
        let from = page_key(entity, head.generation, 0);
        let at = page_key(entity, head.generation, index);
        let mut written = self.written.range(from.clone()..=at.clone()).rev();
        let written = written.find_map(|(key, row)| Some((key, row.as_ref()?)));
        if let Some((key, row)) = written
            && let Some(found) = covering(key, row, index)
        {
            return Ok(found);
        }
        match self.view.last_row_at_or_before(&from, &at).await? {
            Some((key, row)) if !self.written.contains_key(&key) => covering(&key, &row, index),
            _ => None,
        }
        .ok_or_else(|| damaged(entity, &format!("no page holds item {index}")))
    }

    pub(crate) fn put(&mut self, key: Bytes, row: Row) -> Result<(), TurnFailure> {
        self.write(key, Some(Arc::new(row)))
    }

    pub(crate) fn delete(&mut self, key: Bytes) -> Result<(), TurnFailure> {
        self.write(key, None)
    }

    /// Forgets all rows whose keys start with `prefix`, written ones included, for good.
    pub(crate) fn drop_prefix(&mut self, prefix: Bytes) -> Result<(), TurnFailure> {
        let under = |key: &Bytes| key.starts_with(&prefix);
        let written: Vec<Bytes> =
            self.written.range(prefix.clone()..).map(|(key, _)| key.clone()).take_while(under).collect();
        for key in written {
            if let Some(row) = self.written.remove(&key) {
                self.effect_bytes -= write_bytes(&key, row.as_deref());
            }
        }
        self.effect_bytes += prefix.len();
        self.dropped.push(prefix);
        self.check_effect_bytes()
    }

    /// Entities that start with `prefix` and have items, in the order of their rows (shorter keys
    /// first), from the first one past `after`, at most `limit`.
    pub(crate) async fn entities(
        &self,
        prefix: &str,
        after: Option<EntityKey<'_>>,
        limit: usize,
    ) -> Result<Vec<(String, Head)>, TurnFailure> {
        let mut found = Vec::new();
        let Some(mut from) = keys_from(prefix.len().max(1), prefix) else { return Ok(found) };
        if let Some(after) = after {
            from = from.max(entity_end(after));
        }
        while found.len() < limit {
            let batch = self.rows(&from, LIST_ROWS_BATCH).await?;
            let Some((last, _)) = batch.last() else { break };
            let mut next = Some(after_key(last));
            for (key, row) in &batch {
                let entity = match RowKey::parse(key) {
                    Ok(RowKey::Head { entity }) => entity,
                    // Pages are passed over in one step, however many there are.
                    Ok(RowKey::Page { entity, .. }) => {
                        next = Some(entity_end(entity));
                        break;
                    }
                    Err(error) => return Err(TurnFailure::Storage(error.to_string())),
                };
                if !entity.as_str().starts_with(prefix) {
                    let length = entity.as_str().len() + usize::from(entity.as_str() > prefix);
                    next = keys_from(length, prefix);
                    break;
                }
                let Row::Head(head) = &**row else {
                    return Err(damaged(entity, "its head's key holds a page"));
                };
                if head.length > 0 {
                    found.push((entity.as_str().to_owned(), head.clone()));
                }
                if found.len() == limit {
                    break;
                }
            }
            let Some(next) = next else { break };
            from = next;
        }
        Ok(found)
    }

    /// Rows from `from` on, written ones over the view's. Not empty while there are rows.
    async fn rows(&self, from: &Bytes, limit: usize) -> Result<Vec<(Bytes, Arc<Row>)>, TurnFailure> {
        let mut from = from.clone();
        loop {
            let below = self.view.rows(&from, &ROWS_END, limit).await?;
            // A full batch tells nothing of what comes after it.
            let complete = below.len() < limit;
            let to = match below.last() {
                Some((last, _)) if !complete => Bound::Included(last.clone()),
                _ => Bound::Unbounded,
            };
            let end = below.last().map(|(last, _)| after_key(last));
            let mut rows: BTreeMap<Bytes, Option<Arc<Row>>> =
                below.into_iter().map(|(key, row)| (key, Some(row))).collect();
            let written = self.written.range((Bound::Included(from.clone()), to));
            rows.extend(written.map(|(key, row)| (key.clone(), row.clone())));
            let rows: Vec<_> = rows.into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
            match end {
                Some(end) if rows.is_empty() && !complete => from = end,
                _ => return Ok(rows),
            }
        }
    }

    fn write(&mut self, key: Bytes, row: Option<Arc<Row>>) -> Result<(), TurnFailure> {
        self.effect_bytes += write_bytes(&key, row.as_deref());
        let before = self.written.insert(key.clone(), row);
        if let Some(before) = before {
            self.effect_bytes -= write_bytes(&key, before.as_deref());
        }
        self.check_effect_bytes()
    }

    fn check_effect_bytes(&mut self) -> Result<(), TurnFailure> {
        let max = self.bounds.effect_bytes_max;
        if self.effect_bytes <= max {
            return self.give(0);
        }
        Err(TurnFailure::TooLarge(format!(
            "the turn writes more than {max} bytes of rows; \
             spread the work over several messages"
        )))
    }
}

/// The number of the page's first item, and the page, if it holds the item `index`.
fn covering(key: &[u8], row: &Arc<Row>, index: u64) -> Option<(u64, Arc<Row>)> {
    let Ok(RowKey::Page { first, .. }) = RowKey::parse(key) else { return None };
    let Row::Page(page) = &**row else { return None };
    let place = usize::try_from(index.checked_sub(first)?).ok()?;
    (place < page.items.len()).then(|| (first, row.clone()))
}

fn write_bytes(key: &Bytes, row: Option<&Row>) -> usize {
    key.len() + row.map_or(0, Row::encoded_bytes)
}

fn damaged(entity: EntityKey<'_>, what: &str) -> TurnFailure {
    TurnFailure::Storage(format!("entity '{entity}' is damaged: {what}"))
}

/// The first key of entities whose keys have `length` bytes or more and start with `prefix`; none if
/// no key is that long.
fn keys_from(length: usize, prefix: &str) -> Option<Bytes> {
    let length = u8::try_from(length).ok()?;
    Some([&[length], prefix.as_bytes()].concat().into())
}

fn after_key(key: &Bytes) -> Bytes {
    [&key[..], &[0]].concat().into()
}
