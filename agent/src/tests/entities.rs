//! Entities against a plain list.

use super::{Stored, turn, writes};
use crate::{
    Context,
    host::RowWrite,
    inspect,
    row::{EntityKey, Row, RowKey, head_key},
};
use afdg_types::{Code, Rows};
use std::{collections::BTreeMap, sync::Arc};

type Model = BTreeMap<&'static str, Vec<String>>;

const ENTITIES: [&str; 3] = ["a", "ab", "b"];

/// SplitMix64 through the context that has it.
struct Random(Context);

impl Random {
    fn new(seed: u64) -> Self {
        let mut turn = turn("Random", false);
        turn.seed = seed;
        Self(Context::new(&turn, Stored::default().view()))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0.random_u64() % bound
    }

    fn item(&mut self) -> String {
        let bytes = match self.below(20) {
            0 => self.below(6_000),
            1 => 0,
            _ => self.below(300),
        };
        format!("{}{}", self.below(1_000), "x".repeat(bytes as usize))
    }
}

/// One operation on an entity and on the list that it should equal.
async fn step(random: &mut Random, context: &mut Context, key: &'static str, list: &mut Vec<String>) {
    let mut entity = context.entity(key);
    let near = list.len() as u64 + 2;
    match random.below(100) {
        0..55 => {
            let item = random.item();
            entity.push(&item).await.unwrap();
            list.push(item);
        }
        55..72 => {
            let (index, item) = (random.below(near), random.item());
            let done = entity.set(index, &item).await;
            match list.get_mut(index as usize) {
                Some(place) => *place = done.map(|()| item).unwrap(),
                None => assert_eq!(done.unwrap_err().code, Code::OutOfRange),
            }
        }
        72..84 => {
            let index = random.below(near);
            assert_eq!(entity.get::<String>(index).await.unwrap().as_ref(), list.get(index as usize));
        }
        84..93 => {
            let (from, to) = (random.below(near), random.below(near));
            let items: Vec<String> = entity.range(from..to).await.unwrap();
            let to = (to as usize).min(list.len());
            assert_eq!(items, list.get(from as usize..to).unwrap_or_default());
        }
        93..97 => {
            let length = near.saturating_sub(random.below(40));
            entity.truncate(length).await.unwrap();
            list.truncate(length as usize);
        }
        97 => {
            entity.clear().await.unwrap();
            list.clear();
        }
        98 => {
            entity.truncate(0).await.unwrap();
            list.clear();
        }
        _ => {
            let item = random.item();
            entity.set_value(&item).await.unwrap();
            *list = vec![item];
        }
    }
}

async fn check_equal(stored: &Stored, model: &Model) {
    let mut context = stored.turn();
    let mut keys = Vec::new();
    for (key, list) in model {
        let mut entity = context.entity(key);
        assert_eq!(entity.len().await.unwrap(), list.len() as u64);
        assert_eq!(&entity.range::<String>(0..u64::MAX).await.unwrap(), list, "{key}");
        assert_eq!(entity.value::<String>().await.unwrap().as_ref(), list.first());
        keys.extend((!list.is_empty()).then_some(*key));
    }
    assert_eq!(context.entities("").await.unwrap(), keys);
    check_rows(stored);
}

/// What `row` promises: pages of the head's generation, one after the other up to the tail, and no others.
fn check_rows(stored: &Stored) {
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for (key, row) in stored.rows.iter() {
        if let (RowKey::Page { entity, generation, first }, Row::Page(page)) =
            (RowKey::parse(key).unwrap(), Row::decode(row).unwrap())
        {
            let head = Rows::get(&*stored.rows, &head_key(entity)).unwrap().expect("pages have a head");
            let Row::Head(head) = Row::decode(&head).unwrap() else { panic!("not a head") };
            let end = ends.entry(entity.to_string()).or_default();
            assert_eq!((first, generation), (*end, head.generation), "{entity} {head:?}");
            assert!(!page.items.is_empty() && page.items.len() <= 16);
            *end += page.items.len() as u64;
            assert!(*end <= head.tail_first, "{entity}: page to {end}, {head:?}");
        }
    }
    for (key, row) in stored.rows.iter() {
        if let (RowKey::Head { entity }, Row::Head(head)) =
            (RowKey::parse(key).unwrap(), Row::decode(row).unwrap())
        {
            assert_eq!(ends.remove(entity.as_str()).unwrap_or(0), head.tail_first, "{entity} {head:?}");
        }
    }
    assert!(ends.is_empty());
}

#[tokio::test]
async fn entities_equal_plain_lists_whatever_is_done_to_them() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut stored = Stored::default();
        let mut model: Model = ENTITIES.map(|key| (key, Vec::new())).into();
        for _ in 0..40 {
            let mut context = stored.turn();
            let mut after = model.clone();
            for _ in 0..=random.below(30) {
                let key = ENTITIES[random.below(3) as usize];
                step(&mut random, &mut context, key, after.get_mut(key).unwrap()).await;
            }
            if random.below(5) == 0 {
                let refused = crate::AgentError::refused("NO", "no");
                let output = context.finish(Err(refused)).unwrap();
                assert!(output.reply.is_err() && output.writes.is_empty());
            } else {
                stored.commit(context);
                model = after;
            }
            check_equal(&stored, &model).await;
        }
    }
}

#[tokio::test]
async fn an_append_costs_the_same_on_a_long_list() {
    let mut stored = Stored::default();
    let mut most = [0; 2];
    for thousand in 0..100 {
        let mut context = stored.turn();
        for number in 0..1_000_u64 {
            context.entity("log").push(&(thousand * 1_000 + number)).await.unwrap();
        }
        stored.commit(context);
        if thousand == 0 || thousand == 99 {
            for _ in 0..100 {
                let mut context = stored.turn();
                context.entity("log").push(&u64::MAX).await.unwrap();
                let bytes = stored.commit(context);
                let most = &mut most[usize::from(thousand > 0)];
                *most = bytes.max(*most);
            }
        }
    }
    // A sealed page and a head of 16 numbers of 9 bytes each, with their lengths, keys and counts.
    assert!(most[0] <= 220 && most[1] <= most[0] + 4, "bytes written by one append: {most:?}");
    let mut context = stored.turn();
    assert_eq!(context.entity("log").len().await.unwrap(), 100_200);
    assert_eq!(context.entity("log").get::<u64>(50_100).await.unwrap(), Some(50_000));
    assert!(writes(context).is_empty());
}

#[tokio::test]
async fn a_single_value_of_any_size_is_one_row() {
    let mut stored = Stored::default();
    for bytes in [0, 5_000, 100_000, 10] {
        let mut context = stored.turn();
        context.entity("value").set_value(&"v".repeat(bytes)).await.unwrap();
        context.entity("value").set_value(&"w".repeat(bytes)).await.unwrap();
        assert_eq!(writes(context).len(), 1);
        let mut context = stored.turn();
        context.entity("value").set_value(&"v".repeat(bytes)).await.unwrap();
        stored.commit(context);
        assert_eq!(stored.rows.len(), 1);
    }
}

#[tokio::test]
async fn clearing_a_long_list_is_two_writes_and_an_emptied_short_one_leaves_nothing() {
    let mut stored = Stored::default();
    let mut context = stored.turn();
    for number in 0..1_000 {
        context.entity("long").push(&number).await.unwrap();
    }
    context.entity("short").push(&1).await.unwrap();
    stored.commit(context);

    let mut context = stored.turn();
    context.entity("long").clear().await.unwrap();
    context.entity("short").clear().await.unwrap();
    context.entity("never").clear().await.unwrap();
    let writes = writes(context);
    assert!(
        matches!(&writes[..], [RowWrite::DropPrefix(_), RowWrite::Put(_, head), RowWrite::Delete(_)]
            if matches!(&**head, Row::Head(head) if head.generation == 1 && head.length == 0)),
        "{writes:?}"
    );
    crate::testing::apply(Arc::make_mut(&mut stored.rows), writes);
    assert_eq!(stored.rows.len(), 1);
    let mut context = stored.turn();
    assert_eq!(context.entities("").await.unwrap(), Vec::<String>::new());
    context.entity("long").push(&7).await.unwrap();
    assert_eq!(context.entity("long").range::<i32>(0..9).await.unwrap(), [7]);
}

#[tokio::test]
async fn a_generation_that_can_grow_no_more_is_cleared_page_by_page() {
    let mut stored = Stored::default();
    let entity = EntityKey::new("worn").unwrap();
    let head = Row::Head(crate::row::Head { generation: u32::MAX, ..Default::default() });
    Arc::make_mut(&mut stored.rows).insert(head_key(entity), head.encode());
    let mut context = stored.turn();
    for number in 0..100 {
        context.entity("worn").push(&number.to_string()).await.unwrap();
    }
    stored.commit(context);
    let mut context = stored.turn();
    context.entity("worn").clear().await.unwrap();
    context.entity("worn").push("1").await.unwrap();
    stored.commit(context);
    assert_eq!(stored.rows.len(), 1);
    check_equal(&stored, &Model::from([("worn", vec!["1".to_owned()])])).await;
}

#[tokio::test]
async fn entities_are_found_by_prefix_and_shown_as_json() {
    let mut stored = Stored::default();
    let mut context = stored.turn();
    let names: Vec<String> = (0..40).map(|n| format!("order/{n}")).collect();
    let long = "z".repeat(255);
    for key in names.iter().map(String::as_str).chain(["order", "orderly", "o", "p", "ünï", &long]) {
        for number in 0..50 {
            context.entity(key).push(&BTreeMap::from([("number", number)])).await.unwrap();
        }
    }
    // The turn sees its own entities at once, and those of others after they are committed.
    for round in 0..2 {
        let mut sorted = names.clone();
        sorted.sort_unstable();
        assert_eq!(context.entities("order/").await.unwrap(), sorted, "round {round}");
        assert_eq!(context.entities("order").await.unwrap().len(), 42);
        assert_eq!(context.entities("").await.unwrap().len(), 46);
        assert_eq!(context.entities(&long).await.unwrap(), std::slice::from_ref(&long));
        assert_eq!(context.entities("q").await.unwrap(), Vec::<String>::new());
        assert_eq!(context.entities(&"z".repeat(256)).await.unwrap(), Vec::<String>::new());
        stored.commit(std::mem::replace(&mut context, stored.turn()));
        context = stored.turn();
    }
    context.entity("order/7").clear().await.unwrap();
    assert_eq!(context.entities("order/").await.unwrap().len(), 39);

    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = inspect::entities(stored.view(), "", after.as_deref(), 7).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        found.extend(page.into_iter().map(|entity| (entity.key, entity.length)));
    }
    assert_eq!(found.len(), 46);
    assert!(found.is_sorted_by_key(|(key, _)| (key.len(), key.clone())) && found.iter().all(|f| f.1 == 50));
    let items = inspect::items(stored.view(), "order/7", 30, 5).await.unwrap();
    assert_eq!((items.length, items.next), (50, Some(35)));
    assert_eq!(items.items[0].to_string(), r#"{"number":30}"#);
    let rest = inspect::items(stored.view(), "order/7", 48, 5).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (2, None));
    let none = inspect::items(stored.view(), "nobody", 0, 5).await.unwrap();
    assert_eq!((none.length, none.items.len(), none.next), (0, 0, None));
    assert!(inspect::items(stored.view(), "", 0, 5).await.is_err());
}

#[tokio::test]
async fn an_item_of_another_type_is_an_error_of_its_own() {
    let mut stored = Stored::default();
    let mut context = stored.turn();
    context.entity("value").set_value("text").await.unwrap();
    let error = context.entity("value").value::<u64>().await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (Code::DataLoss, "ITEM_UNREADABLE"));
    // The handler may live with it.
    stored.commit(context);
    assert_eq!(stored.rows.len(), 1);
}
