//! What one turn sees: its agent's uncommitted rows over the node's cache over the replica's rows, and
//! the way to other agents.

use super::{overlay::Overlay, reentry::Reentry};
use crate::{cache::RowCache, executor::calls::Calls};
use afdg_agent::{
    host::{TurnFailure, TurnView},
    read_set::ReadSet,
    row::Row,
};
use afdg_region_machine::table::entities;
use afdg_replication::{Found, RowStore};
use afdg_types::{AgentRef, CallError, RegionId, Rows, RowsError};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

/// Where an agent's committed rows are read.
#[derive(Clone)]
pub struct AgentRows {
    pub region: RegionId,
    pub agent: AgentRef,
    pub rows: Arc<RowStore>,
    pub cache: Arc<RowCache>,
}

/// A row that waits in memory for a checkpoint is cached as well if it is so long that decoding it costs
/// more than keeping the cache in step with its changes.
const DECODED_BYTES_MIN: usize = 1_024;

fn storage(error: impl std::fmt::Display) -> TurnFailure {
    TurnFailure::Storage(error.to_string())
}

fn decode(bytes: &[u8]) -> Result<Arc<Row>, TurnFailure> {
    Row::decode(bytes).map(Arc::new).map_err(storage)
}

impl AgentRows {
    fn row(&self, key: &[u8]) -> Result<Option<Arc<Row>>, TurnFailure> {
        let stored_key = entities::key(&self.agent, key);
        if let Some(row) = self.cache.get(self.region, &stored_key) {
            return Ok(row);
        }
        let load = self.cache.begin_load(&stored_key);
        let (stored, found) = self.rows.get_from(&stored_key).map_err(storage)?;
        let row = stored.as_deref().map(decode).transpose()?;
        if found == Found::InTree || stored.is_some_and(|stored| stored.len() >= DECODED_BYTES_MIN) {
            self.cache.end_load(&load, self.region, stored_key, row.clone());
        }
        Ok(row)
    }

    /// Past the cache.
    fn stored_row(&self, key: &[u8]) -> Result<Option<Arc<Row>>, TurnFailure> {
        let stored = self.rows.get(&entities::key(&self.agent, key)).map_err(storage)?;
        stored.map(|bytes| decode(&bytes)).transpose()
    }

    fn last_at_or_before(&self, from: &[u8], at: &[u8]) -> Result<Option<(Bytes, Arc<Row>)>, TurnFailure> {
        let (from, at) = (entities::key(&self.agent, from), entities::key(&self.agent, at));
        let found = self.rows.last_at_or_before(&from, &at).map_err(storage)?;
        found.map(|(key, row)| Ok((self.own_key(&key)?, decode(&row)?))).transpose()
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Arc<Row>)>, TurnFailure> {
        let (from, to) = (entities::key(&self.agent, from), entities::key(&self.agent, to));
        let found = self.rows.scan(&from, Some(&to), limit).map_err(storage)?;
        found.into_iter().map(|(key, row)| Ok((self.own_key(&key)?, decode(&row)?))).collect()
    }

    fn own_key(&self, stored_key: &Bytes) -> Result<Bytes, TurnFailure> {
        match entities::parse(stored_key) {
            Some((agent, own)) if agent == self.agent => Ok(stored_key.slice_ref(own)),
            _ => Err(storage(RowsError(format!("the key {stored_key:?} is not of agent {}", self.agent)))),
        }
    }
}

/// One read of a turn that reads committed state only, with its answer: kept to check that all answers
/// stood there at one instant.
enum Read {
    Row(Bytes, Option<Arc<Row>>),
    Last(Bytes, Bytes, Option<(Bytes, Arc<Row>)>),
    Range(Bytes, Bytes, usize, Vec<(Bytes, Arc<Row>)>),
}

/// Times that the check itself is tried while entries are applied beside it.
const FIT_CHECKS_MAX: u32 = 8;

/// One turn's view.
pub struct View {
    rows: AgentRows,
    overlay: Overlay,
    calls: Calls,
    reads: Option<Mutex<Vec<Read>>>,
    /// Of a turn of a type that lets messages of its call chain enter.
    reentry: Option<Arc<Reentry>>,
    /// The rows' version when the turn began.
    version: u64,
}

/// For a turn after an inner one has entered: by then all that came before the turn is committed.
static NOTHING: LazyLock<Overlay> = LazyLock::new(Overlay::default);

impl View {
    /// For a turn of the agent's own: it sees what its predecessors wrote, committed or not.
    pub fn of_turn(rows: AgentRows, overlay: Overlay, calls: Calls) -> Self {
        let version = rows.rows.version();
        Self { rows, overlay, calls, reads: None, reentry: None, version }
    }

    /// Lets messages of the turn's call chain enter.
    pub fn with_reentry(self, reentry: Option<Arc<Reentry>>) -> Self {
        Self { reentry, ..self }
    }

    /// For a read-only turn beside others: it sees committed rows only.
    pub fn of_read(rows: AgentRows, calls: Calls) -> Self {
        let version = rows.rows.version();
        let reads = Some(Mutex::default());
        Self { rows, overlay: Overlay::default(), calls, reads, reentry: None, version }
    }

    /// Whether all that was read stood there at one instant. If not, the turn has to run again.
    pub fn reads_fit_together(&self) -> Result<bool, TurnFailure> {
        let Some(reads) = &self.reads else { return Ok(true) };
        let reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
        // One answer is always as of one instant; and if nothing was applied since the turn began, so are all.
        if reads.len() <= 1 || self.rows.rows.version() == self.version {
            return Ok(true);
        }
        for _ in 0..FIT_CHECKS_MAX {
            let before = self.rows.rows.version();
            for read in reads.iter() {
                if !self.stands(read)? {
                    return Ok(false);
                }
            }
            if self.rows.rows.version() == before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the replica's rows give the same answer now.
    fn stands(&self, read: &Read) -> Result<bool, TurnFailure> {
        Ok(match read {
            Read::Row(key, seen) => self.rows.stored_row(key)?.as_deref() == seen.as_deref(),
            Read::Last(from, at, seen) => self.rows.last_at_or_before(from, at)? == *seen,
            Read::Range(from, to, limit, seen) => self.rows.scan(from, to, *limit)? == *seen,
        })
    }

    fn note(&self, read: impl FnOnce() -> Read) {
        if let Some(reads) = &self.reads {
            reads.lock().unwrap_or_else(PoisonError::into_inner).push(read());
        }
    }

    /// What of the turn's predecessors is not committed.
    fn overlay(&self, entered: bool) -> &Overlay {
        if entered { &NOTHING } else { &self.overlay }
    }

    fn row_over(&self, overlay: &Overlay, key: &[u8]) -> Result<Option<Arc<Row>>, TurnFailure> {
        if let Some(row) = overlay.get(key) {
            return Ok(row);
        }
        let row = self.rows.row(key)?;
        self.note(|| Read::Row(Bytes::copy_from_slice(key), row.clone()));
        Ok(row)
    }

    fn last_over(
        &self,
        overlay: &Overlay,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Bytes, Arc<Row>)>, TurnFailure> {
        let stored = self.last_under_overlay(overlay, from, at)?;
        self.note(|| Read::Last(Bytes::copy_from_slice(from), Bytes::copy_from_slice(at), stored.clone()));
        if overlay.is_empty() {
            return Ok(stored);
        }
        // One past `at`, so that `at` itself is in the range.
        let mut end = at.to_vec();
        end.push(0);
        let newer = overlay.range(from, &end).filter_map(|(key, row)| Some((key, row?))).next_back();
        Ok(match (stored, newer) {
            (Some((stored_key, stored)), Some((key, _))) if stored_key >= *key => Some((stored_key, stored)),
            (_, Some((key, row))) => Some((key.clone(), Arc::clone(row))),
            (stored, None) => stored,
        })
    }

    fn rows_over(
        &self,
        overlay: &Overlay,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Arc<Row>)>, TurnFailure> {
        // Rows that are deleted in the overlay take no place in the answer.
        let extra = overlay.range(from, to).count();
        let stored = self.rows.scan(from, to, limit.saturating_add(extra))?;
        self.note(|| {
            Read::Range(Bytes::copy_from_slice(from), Bytes::copy_from_slice(to), limit, stored.clone())
        });
        if extra == 0 {
            return Ok(stored);
        }
        // Past the last stored row of a full answer the rows below are not known.
        let complete = stored.len() < limit.saturating_add(extra);
        let horizon = if complete { None } else { stored.last().map(|(key, _)| key.clone()) };
        let mut merged: BTreeMap<Bytes, Arc<Row>> = stored.into_iter().collect();
        for (key, row) in overlay.range(from, to) {
            if horizon.as_ref().is_some_and(|horizon| key > horizon) {
                break;
            }
            match row {
                Some(row) => merged.insert(key.clone(), Arc::clone(row)),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }

    fn last_under_overlay(
        &self,
        overlay: &Overlay,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Bytes, Arc<Row>)>, TurnFailure> {
        let mut at = at.to_vec();
        loop {
            let Some((key, row)) = self.rows.last_at_or_before(from, &at)? else { return Ok(None) };
            match overlay.get(&key) {
                None => return Ok(Some((key, row))),
                Some(Some(newer)) => return Ok(Some((key, newer))),
                // Deleted and not committed yet: look further down, past the greatest key below it.
                Some(None) => match before(&key) {
                    Some(below) if below.as_slice() >= from => at = below,
                    _ => return Ok(None),
                },
            }
        }
    }
}

/// A key below `key` with no stored row between: row keys have at most a few hundred bytes, so the
/// padding puts it above every other key that is smaller.
fn before(key: &[u8]) -> Option<Vec<u8>> {
    const PADDING: usize = 600;
    let (last, rest) = key.split_last()?;
    if *last == 0 {
        return Some(rest.to_vec());
    }
    let mut below = rest.to_vec();
    below.push(last - 1);
    below.resize(below.len() + PADDING, u8::MAX);
    Some(below)
}

#[async_trait]
impl TurnView for View {
    async fn row(&self, key: &[u8]) -> Result<Option<Arc<Row>>, TurnFailure> {
        let Some(reentry) = &self.reentry else { return self.row_over(&self.overlay, key) };
        let read = |entered, reads: &mut ReadSet| {
            reads.row(key);
            self.row_over(self.overlay(entered), key)
        };
        reentry.read(read).await
    }

    async fn last_row_at_or_before(
        &self,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Bytes, Arc<Row>)>, TurnFailure> {
        let Some(reentry) = &self.reentry else { return self.last_over(&self.overlay, from, at) };
        let read = |entered, reads: &mut ReadSet| {
            let last = self.last_over(self.overlay(entered), from, at)?;
            reads.last_at_or_before(from, at, last.as_ref().map(|(key, _)| &key[..]));
            Ok(last)
        };
        reentry.read(read).await
    }

    async fn rows(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Arc<Row>)>, TurnFailure> {
        let Some(reentry) = &self.reentry else { return self.rows_over(&self.overlay, from, to, limit) };
        let read = |entered, reads: &mut ReadSet| {
            let rows = self.rows_over(self.overlay(entered), from, to, limit)?;
            reads.rows_from(from, to, limit, rows.len(), rows.last().map(|(key, _)| &key[..]));
            Ok(rows)
        };
        reentry.read(read).await
    }

    async fn call(
        &self,
        ordinal: u32,
        agent: AgentRef,
        method: &str,
        request: Bytes,
    ) -> Result<Bytes, CallError> {
        self.calls.call(ordinal, agent, method, request, None).await
    }

    async fn call_until(
        &self,
        ordinal: u32,
        agent: AgentRef,
        method: &str,
        request: Bytes,
        until_ms: u64,
    ) -> Result<Bytes, CallError> {
        self.calls.call(ordinal, agent, method, request, Some(until_ms)).await
    }
}

#[cfg(test)]
mod tests;
