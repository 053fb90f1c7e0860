//! Entities: the agent's own data, as lists of typed items.

use crate::{context::Context, host::TurnFailure, list, row::EntityKey};
use afdg_types::{AgentError, Code, limits::ITEM_BYTES_MAX};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::ops::Range;

/// A list of items under one key of the agent. A single value is a list of one.
///
/// Items are stored as MessagePack with field names, at most [`ITEM_BYTES_MAX`] bytes each. Appending
/// and looking up cost the same on a list of ten items as on a list of a million.
///
/// Errors: what the grid can't do (storage, a limit, a write in a read-only method) fails the whole
/// turn. `ITEM_UNREADABLE` (DATA_LOSS) and `ITEM_UNWRITABLE` (INTERNAL) say that an item does not fit
/// the type. Both are given as [`AgentError`] for `?`.
pub struct Entity<'a> {
    context: &'a mut Context,
    key: &'a str,
}

impl<'a> Entity<'a> {
    pub(crate) fn new(context: &'a mut Context, key: &'a str) -> Self {
        Self { context, key }
    }

    /// Number of items.
    pub async fn len(&mut self) -> Result<u64, AgentError> {
        let entity = self.key()?;
        let head = self.context.store.head(entity).await;
        Ok(self.checked(head)?.length)
    }

    pub async fn is_empty(&mut self) -> Result<bool, AgentError> {
        Ok(self.len().await? == 0)
    }

    /// The item of that number, from 0; none past the end.
    pub async fn get<T: DeserializeOwned>(&mut self, index: u64) -> Result<Option<T>, AgentError> {
        let entity = self.key()?;
        let item = list::get(&self.context.store, entity, index).await;
        let item = self.checked(item)?;
        item.map(|item| self.decode(index, &item)).transpose()
    }

    /// The items of those numbers; what is past the end is left out. All of them are held in memory:
    /// read a long list in parts.
    pub async fn range<T: DeserializeOwned>(&mut self, range: Range<u64>) -> Result<Vec<T>, AgentError> {
        let entity = self.key()?;
        let head = self.context.store.head(entity).await;
        let head = self.checked(head)?;
        let (mut index, end) = (range.start, range.end.min(head.length));
        let mut items = Vec::new();
        while index < end {
            let run = list::run_at(&self.context.store, entity, &head, index).await;
            for item in self.checked(run)?.unwrap_or_default() {
                if index == end {
                    break;
                }
                items.push(self.decode(index, &item)?);
                index += 1;
            }
        }
        Ok(items)
    }

    /// Appends an item.
    pub async fn push<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), AgentError> {
        let (entity, item) = self.writing(item)?;
        let done = list::push(&mut self.context.store, entity, item).await;
        self.checked(done)
    }

    /// Replaces the item of that number. `INDEX_OUT_OF_RANGE` (OUT_OF_RANGE) if there is none.
    pub async fn set<T: Serialize + ?Sized>(&mut self, index: u64, item: &T) -> Result<(), AgentError> {
        let (entity, item) = self.writing(item)?;
        let done = list::set(&mut self.context.store, entity, index, item).await;
        match self.checked(done)? {
            true => Ok(()),
            false => Err(AgentError::new(
                Code::OutOfRange,
                "INDEX_OUT_OF_RANGE",
                format!("entity '{}' has no item {index}", self.key),
            )),
        }
    }

    /// Keeps the first `length` items; does nothing if there are no more. What is cut off counts
    /// towards the turn's bound on effects with some 30 bytes for each page of up to 16 items.
    pub async fn truncate(&mut self, length: u64) -> Result<(), AgentError> {
        self.context.check_writable()?;
        let entity = self.key()?;
        let done = list::truncate(&mut self.context.store, entity, length).await;
        self.checked(done)
    }

    /// Removes all items, however many, at the cost of one write.
    pub async fn clear(&mut self) -> Result<(), AgentError> {
        self.context.check_writable()?;
        let entity = self.key()?;
        let done = list::clear(&mut self.context.store, entity).await;
        self.checked(done)
    }

    /// The single value: the first item, if any.
    pub async fn value<T: DeserializeOwned>(&mut self) -> Result<Option<T>, AgentError> {
        self.get(0).await
    }

    /// Makes the entity a list of this one value.
    pub async fn set_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), AgentError> {
        let (entity, item) = self.writing(value)?;
        let done = list::replace(&mut self.context.store, entity, item).await;
        self.checked(done)
    }

    fn key(&mut self) -> Result<EntityKey<'a>, AgentError> {
        let key = EntityKey::new(self.key);
        key.map_err(|error| self.context.fail(TurnFailure::TooLarge(error.to_string())))
    }

    fn checked<T>(&mut self, result: Result<T, TurnFailure>) -> Result<T, AgentError> {
        result.map_err(|failure| self.context.fail(failure))
    }

    fn writing<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(EntityKey<'a>, Bytes), AgentError> {
        self.context.check_writable()?;
        let entity = self.key()?;
        let bytes = rmp_serde::to_vec_named(item).map_err(|error| {
            let message = format!("an item of entity '{entity}' can't be stored: {error}");
            AgentError::new(Code::Internal, "ITEM_UNWRITABLE", message)
        })?;
        if bytes.len() > ITEM_BYTES_MAX {
            return Err(self.context.fail(TurnFailure::TooLarge(format!(
                "an item of entity '{entity}' has {} bytes; at most {ITEM_BYTES_MAX}",
                bytes.len()
            ))));
        }
        Ok((entity, bytes.into()))
    }

    fn decode<T: DeserializeOwned>(&mut self, index: u64, item: &[u8]) -> Result<T, AgentError> {
        let given = self.context.store.give(item.len());
        self.checked(given)?;
        rmp_serde::from_slice(item).map_err(|error| {
            let message = format!(
                "item {index} of entity '{}' is no {}: {error}",
                self.key,
                std::any::type_name::<T>()
            );
            AgentError::new(Code::DataLoss, "ITEM_UNREADABLE", message)
        })
    }
}
