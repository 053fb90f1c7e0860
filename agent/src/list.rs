//! An entity's list of items as bytes, over the rows of [`crate::row`].

use crate::{
    host::TurnFailure,
    row::{EntityKey, Head, Page, Row, head_key, page_key, page_prefix, paginate},
    store::Store,
};
use bytes::Bytes;

/// Appends an item. Writes the head and at most one page.
pub(crate) async fn push(store: &mut Store, entity: EntityKey<'_>, item: Bytes) -> Result<(), TurnFailure> {
    let mut head = store.head(entity).await?;
    let Some(length) = head.length.checked_add(1) else {
        return Err(TurnFailure::TooLarge(format!("entity '{entity}' holds no more items")));
    };
    head.length = length;
    head.tail.push(item);
    put_head(store, entity, head)
}

pub(crate) async fn get(
    store: &Store,
    entity: EntityKey<'_>,
    index: u64,
) -> Result<Option<Bytes>, TurnFailure> {
    let head = store.head(entity).await?;
    Ok(run_at(store, entity, &head, index).await?.and_then(|run| run.into_iter().next()))
}

/// The items from `index` to the end of their row, at least one; none past the end of the list.
pub(crate) async fn run_at(
    store: &Store,
    entity: EntityKey<'_>,
    head: &Head,
    index: u64,
) -> Result<Option<Vec<Bytes>>, TurnFailure> {
    if index >= head.length {
        return Ok(None);
    }
    if index >= head.tail_first {
        return Ok(Some(head.tail[(index - head.tail_first) as usize..].to_vec()));
    }
    let (first, page) = store.page_at(entity, head, index).await?;
    Ok(Some(page.items()[(index - first) as usize..].to_vec()))
}

/// Replaces an item; false if there is none of that number. Writes one row, or as many as the row's
/// items have to be split over when the item has grown.
pub(crate) async fn set(
    store: &mut Store,
    entity: EntityKey<'_>,
    index: u64,
    item: Bytes,
) -> Result<bool, TurnFailure> {
    let mut head = store.head(entity).await?;
    if index >= head.length {
        return Ok(false);
    }
    if index >= head.tail_first {
        let place = (index - head.tail_first) as usize;
        head.tail[place] = item;
        put_head(store, entity, head)?;
        return Ok(true);
    }
    let (first, page) = store.page_at(entity, &head, index).await?;
    let mut items = page.items().to_vec();
    items[(index - first) as usize] = item;
    put_pages(store, entity, head.generation, first, paginate(items))?;
    Ok(true)
}

/// Keeps the first `length` items. Writes one deletion for each page past them, so that a turn's
/// bound on effects bounds it; [`clear`] has no such bound.
pub(crate) async fn truncate(
    store: &mut Store,
    entity: EntityKey<'_>,
    length: u64,
) -> Result<(), TurnFailure> {
    let mut head = store.head(entity).await?;
    if length >= head.length {
        return Ok(());
    }
    if length == 0 && head.generation < u32::MAX {
        return clear_head(store, entity, head);
    }
    if length >= head.tail_first {
        head.tail.truncate((length - head.tail_first) as usize);
    } else {
        // What is kept of the first page that is cut becomes the tail.
        let (mut index, mut tail) = (length, Vec::new());
        while index < head.tail_first {
            let (first, page) = store.page_at(entity, &head, index).await?;
            if first < length {
                tail = page.items()[..(length - first) as usize].to_vec();
            }
            store.delete(page_key(entity, head.generation, first))?;
            index = first + page.items().len() as u64;
        }
        head.tail_first = length - tail.len() as u64;
        head.tail = tail;
    }
    head.length = length;
    put_head(store, entity, head)
}

/// Makes the list one of this item only.
pub(crate) async fn replace(
    store: &mut Store,
    entity: EntityKey<'_>,
    item: Bytes,
) -> Result<(), TurnFailure> {
    let head = store.head(entity).await?;
    if head.length > 1 {
        clear(store, entity).await?;
    }
    match head.length {
        1 => set(store, entity, 0, item).await.map(|_| ()),
        _ => push(store, entity, item).await,
    }
}

/// Empties the list in one or two writes, whatever its length.
pub(crate) async fn clear(store: &mut Store, entity: EntityKey<'_>) -> Result<(), TurnFailure> {
    truncate(store, entity, 0).await
}

fn clear_head(store: &mut Store, entity: EntityKey<'_>, head: Head) -> Result<(), TurnFailure> {
    let had_pages = head.tail_first > 0;
    if had_pages {
        store.drop_prefix(page_prefix(entity, head.generation))?;
    }
    // Rows of a dropped generation go in the background, so its number must not be used again: a head
    // that knows of one stays.
    match head.generation + u32::from(had_pages) {
        0 => store.delete(head_key(entity)),
        generation => put_head(store, entity, Head { generation, ..Head::default() }),
    }
}

/// Seals what is full of the tail and stores the head.
fn put_head(store: &mut Store, entity: EntityKey<'_>, mut head: Head) -> Result<(), TurnFailure> {
    let mut pages = paginate(std::mem::take(&mut head.tail));
    head.tail = pages.pop().unwrap_or_default();
    put_pages(store, entity, head.generation, head.tail_first, pages)?;
    head.tail_first = head.length - head.tail.len() as u64;
    store.put(head_key(entity), Row::Head(head))
}

fn put_pages(
    store: &mut Store,
    entity: EntityKey<'_>,
    generation: u32,
    mut first: u64,
    pages: Vec<Vec<Bytes>>,
) -> Result<(), TurnFailure> {
    for items in pages {
        let count = items.len() as u64;
        store.put(page_key(entity, generation, first), Row::Page(Page { items }))?;
        first += count;
    }
    Ok(())
}
