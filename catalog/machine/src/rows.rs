//! How the state lies in rows.
//!
//! | key | value |
//! | --- | --- |
//! | `state` | everything but types, their limits and audit records |
//! | `type/` and the type's name | one agent type |
//! | `limits/` and the type's name | the type's name and the limits that were set for it |
//! | `audit/` and the record's index, 8 bytes, big end first | one audit record |
//!
//! Every value is postcard behind one byte of format version. Types and audit records have rows of their
//! own because they are large and rarely change, while the state's row is written with every change.

use crate::{AgentType, AuditRecord, CatalogState};
use afdg_types::{Rows, RowsError, RowsMut, TypeLimit, prefix_end};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, sync::Arc};

const VERSION: u8 = 1;
const STATE: &[u8] = b"state";
const TYPE: &[u8] = b"type/";
const LIMITS: &[u8] = b"limits/";
const AUDIT: &[u8] = b"audit/";
const SCAN_ROWS_MAX: usize = 256;

/// Writes what has changed from `old` to `new`.
pub(crate) fn store(old: &CatalogState, new: &CatalogState, rows: &mut dyn RowsMut) -> Result<(), RowsError> {
    for (name, agent_type) in &new.types {
        if old.types.get(name) != Some(agent_type) {
            rows.put(type_key(name), encode(&**agent_type)?);
        }
    }
    for name in old.types.keys().filter(|name| !new.types.contains_key(*name)) {
        rows.delete(type_key(name));
    }
    for (name, limits) in &new.limits {
        if old.limits.get(name) != Some(limits) {
            rows.put(limits_key(name), encode(&(name, limits))?);
        }
    }
    for name in old.limits.keys().filter(|name| !new.limits.contains_key(*name)) {
        rows.delete(limits_key(name));
    }
    let last = old.audit.back().map(|record| record.index);
    for record in new.audit.iter().filter(|record| Some(record.index) > last) {
        rows.put(audit_key(record.index), encode(record)?);
    }
    let first = new.audit.front().map(|record| record.index);
    for record in old.audit.iter().take_while(|record| Some(record.index) < first) {
        rows.delete(audit_key(record.index));
    }
    rows.put(Bytes::from_static(STATE), encode(new)?);
    Ok(())
}

/// Reads the state; the empty one where none was ever stored.
pub(crate) fn load(rows: &dyn Rows) -> Result<CatalogState, RowsError> {
    let Some(row) = rows.get(STATE)? else { return Ok(CatalogState::default()) };
    let mut state: CatalogState = decode(STATE, &row)?;
    scan(rows, TYPE, |agent_type: AgentType| {
        state.types.insert(agent_type.name.clone(), Arc::new(agent_type));
    })?;
    scan(rows, LIMITS, |(name, limits): (String, BTreeMap<TypeLimit, u64>)| {
        state.limits.insert(name, limits);
    })?;
    scan(rows, AUDIT, |record: AuditRecord| state.audit.push_back(record))?;
    state.validate().map_err(|broken| RowsError(broken.to_string()))?;
    Ok(state)
}

fn scan<T: DeserializeOwned>(
    rows: &dyn Rows,
    prefix: &[u8],
    mut each: impl FnMut(T),
) -> Result<(), RowsError> {
    let end = prefix_end(prefix);
    let mut from = prefix.to_vec();
    loop {
        let page = rows.scan(&from, end.as_deref(), SCAN_ROWS_MAX)?;
        for (key, value) in &page {
            each(decode(key, value)?);
        }
        match page.last() {
            Some((key, _)) if page.len() == SCAN_ROWS_MAX => {
                from = key.to_vec();
                from.push(0);
            }
            _ => return Ok(()),
        }
    }
}

fn type_key(name: &str) -> Bytes {
    [TYPE, name.as_bytes()].concat().into()
}

fn limits_key(name: &str) -> Bytes {
    [LIMITS, name.as_bytes()].concat().into()
}

fn audit_key(index: u64) -> Bytes {
    [AUDIT, &index.to_be_bytes()].concat().into()
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes, RowsError> {
    postcard::to_extend(value, vec![VERSION])
        .map(Bytes::from)
        .map_err(|error| RowsError(format!("a row can't be encoded: {error}")))
}

fn decode<T: DeserializeOwned>(key: &[u8], row: &[u8]) -> Result<T, RowsError> {
    let wrong = |what: String| RowsError(format!("the row '{}' {what}", key.escape_ascii()));
    match row.split_first() {
        Some((&VERSION, body)) => {
            postcard::from_bytes(body).map_err(|error| wrong(format!("can't be read: {error}")))
        }
        Some((version, _)) => Err(wrong(format!(
            "is of version {version}, and this server knows version {VERSION}: start a newer one"
        ))),
        None => Err(wrong("is empty".to_owned())),
    }
}
