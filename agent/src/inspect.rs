//! An agent's stored data for people and tools, without the author's code.
//!
//! Works on any [`TurnView`], so a region node passes the same view of committed state that it gives
//! to read-only turns.

pub use crate::json::{JSON_DEPTH_MAX, item_to_json};

use crate::{
    host::{TurnBounds, TurnFailure, TurnView},
    list,
    row::{EntityKey, EntityKeyError},
    store::Store,
};
use afdg_types::limits::INSPECT_ITEMS_MAX;
use serde_json::Value;
use std::sync::Arc;

/// A page of items ends early once it holds this many stored bytes.
pub const INSPECT_BYTES_TARGET: usize = 1024 * 1024;

/// An entity, without its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntitySummary {
    pub key: String,
    /// Number of items, at least one.
    pub length: u64,
}

/// Some of an entity's items.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityItems {
    /// Number of items in the whole entity; 0 if there is no such entity.
    pub length: u64,
    /// Items from the number asked for on.
    pub items: Vec<Value>,
    /// Number of the item to go on with; none at the end.
    pub next: Option<u64>,
}

/// Why an agent's data can't be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    EntityKey(#[from] EntityKeyError),
    #[error(transparent)]
    Rows(#[from] TurnFailure),
}

/// Entities that start with `prefix`, at most `limit` (and [`INSPECT_ITEMS_MAX`]), shorter keys first
/// and then by their bytes. The last one's key is the next page's `after`.
pub async fn entities(
    view: Arc<dyn TurnView>,
    prefix: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<EntitySummary>, InspectError> {
    let after = after.map(EntityKey::new).transpose()?;
    let limit = limit.min(INSPECT_ITEMS_MAX) as usize;
    let found = Store::new(view, TurnBounds::default()).entities(prefix, after, limit).await?;
    Ok(found.into_iter().map(|(key, head)| EntitySummary { key, length: head.length }).collect())
}

/// Items of one entity from number `first` on, at most `limit` (and [`INSPECT_ITEMS_MAX`]), fewer when
/// they are large.
pub async fn items(
    view: Arc<dyn TurnView>,
    entity: &str,
    first: u64,
    limit: u32,
) -> Result<EntityItems, InspectError> {
    let entity = EntityKey::new(entity)?;
    let store = Store::new(view, TurnBounds::default());
    let head = store.head(entity).await?;
    let limit = u64::from(limit.min(INSPECT_ITEMS_MAX));
    let end = head.length.min(first.saturating_add(limit));
    let (mut items, mut bytes, mut index) = (Vec::new(), 0, first);
    while index < end && bytes < INSPECT_BYTES_TARGET {
        for item in list::run_at(&store, entity, &head, index).await?.unwrap_or_default() {
            if index == end || bytes >= INSPECT_BYTES_TARGET {
                break;
            }
            bytes += item.len();
            items.push(item_to_json(&item));
            index += 1;
        }
    }
    Ok(EntityItems { length: head.length, items, next: (index < head.length).then_some(index) })
}
