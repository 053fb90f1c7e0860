//! What a turn may not do, and that a handler can't hide that it did.

use super::{Stored, turn};
use crate::{
    AgentError, Code, Context, ENTITIES_LISTED_MAX, REFUSAL_MESSAGE_BYTES_MAX, REFUSAL_METADATA_BYTES_MAX,
    host::{Turn, TurnBounds, TurnFailure},
};
use afdg_types::limits::{ITEM_BYTES_MAX, MESSAGE_BYTES_MAX, TURN_EFFECT_BYTES_MAX};
use bytes::Bytes;

/// Ends a turn whose handler ignored the error that it was given.
fn failure_behind(error: AgentError, context: Context) -> String {
    let failure = context.finish(Ok(Bytes::new())).expect_err("the turn was committed");
    assert_eq!(error.message, failure.to_string());
    failure.to_string()
}

#[tokio::test]
async fn an_item_has_a_largest_size() {
    let fits = "x".repeat(ITEM_BYTES_MAX - 5);
    let mut context = Stored::default().turn();
    context.entity("e").push(&fits).await.unwrap();
    let error = context.entity("e").push(&format!("{fits}x")).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (Code::ResourceExhausted, "TURN_TOO_LARGE"));
    let text = failure_behind(error, context);
    assert_eq!(text, "an item of entity 'e' has 1048577 bytes; at most 1048576");
}

#[tokio::test]
async fn a_turn_writes_at_most_so_many_bytes() {
    let item = "x".repeat(ITEM_BYTES_MAX - 5);
    let mut context = Stored::default().turn();
    let fitting = TURN_EFFECT_BYTES_MAX / ITEM_BYTES_MAX - 1;
    for _ in 0..fitting {
        context.entity("e").push(&item).await.unwrap();
    }
    // What is overwritten doesn't count, nor does what is cleared.
    for _ in 0..20 {
        context.entity("e").set(0, &item).await.unwrap();
    }
    context.entity("e").clear().await.unwrap();
    for _ in 0..fitting {
        context.entity("e").push(&item).await.unwrap();
    }
    let mut last = Ok(());
    for _ in 0..2 {
        last = context.entity("e").push(&item).await;
    }
    let text = failure_behind(last.unwrap_err(), context);
    assert_eq!(
        text,
        "the turn writes more than 8388608 bytes of rows; spread the work over several messages"
    );
}

#[tokio::test]
async fn a_type_keeps_its_turns_to_less() {
    let bounds = TurnBounds { memory_bytes_max: 10_000, effect_bytes_max: 2_000 };
    let bounded = |stored: &Stored| Context::new(&Turn { bounds, ..turn("Test", false) }, stored.view());
    let mut stored = Stored::default();
    let mut context = bounded(&stored);
    let mut last = Ok(());
    while last.is_ok() {
        last = context.entity("e").push(&"x".repeat(100)).await;
    }
    let text = failure_behind(last.unwrap_err(), context);
    assert_eq!(text, "the turn writes more than 2000 bytes of rows; spread the work over several messages");
    let mut context = bounded(&stored);
    for _ in 0..10 {
        context.entity("e").push(&"x".repeat(100)).await.unwrap();
    }
    stored.commit(context);
    let mut context = bounded(&stored);
    let mut given = 0;
    let error = loop {
        match context.entity("e").range::<String>(0..10).await {
            Ok(items) => given += items.iter().map(String::len).sum::<usize>(),
            Err(error) => break error,
        }
    };
    assert!((8_000..=10_000).contains(&given), "{given} bytes were given");
    assert!(failure_behind(error, context).contains("more than 10000 bytes of items and answers"));
}

#[tokio::test]
async fn an_entity_key_has_1_to_255_bytes() {
    for (key, bytes) in [(String::new(), 0), ("k".repeat(256), 256)] {
        let mut context = Stored::default().turn();
        let error = context.entity(&key).len().await.unwrap_err();
        let text = failure_behind(error, context);
        assert_eq!(text, format!("an entity key has 1 to 255 bytes; this one has {bytes}"));
    }
}

#[tokio::test]
async fn a_listing_holds_a_bounded_number_of_entities() {
    let mut context = Stored::default().turn();
    for number in 0..ENTITIES_LISTED_MAX {
        context.entity(&format!("e{number}")).push(&1).await.unwrap();
    }
    assert_eq!(context.entities("e").await.unwrap().len(), ENTITIES_LISTED_MAX);
    context.entity("e").push(&1).await.unwrap();
    let error = context.entities("e").await.unwrap_err();
    let text = failure_behind(error, context);
    assert_eq!(text, "more than 10000 entities start with 'e'; ask for a longer prefix");
}

#[tokio::test]
async fn a_read_only_method_can_read_but_not_write() {
    let mut stored = Stored::default();
    let mut context = stored.turn();
    context.entity("e").push(&1).await.unwrap();
    stored.commit(context);
    for change in 0..5 {
        let mut context = Context::new(&turn("Peek", true), stored.view());
        let mut entity = context.entity("e");
        assert_eq!(entity.value::<i32>().await.unwrap(), Some(1));
        let error = match change {
            0 => entity.push(&2).await,
            1 => entity.set(0, &2).await,
            2 => entity.set_value(&2).await,
            3 => entity.clear().await,
            _ => entity.truncate(1).await,
        };
        let text = failure_behind(error.unwrap_err(), context);
        assert_eq!(text, "the read-only method Peek tried to change the agent");
    }
}

#[tokio::test]
async fn only_the_first_failure_is_told_and_a_refusal_does_not_hide_it() {
    let mut context = Stored::default().turn();
    let _ = context.entity("").len().await;
    let _ = context.entity("e").push(&"x".repeat(ITEM_BYTES_MAX)).await;
    let failure = context.finish(Err(AgentError::refused("NO", "no"))).unwrap_err();
    assert!(failure.to_string().starts_with("an entity key has"), "{failure}");
}

#[tokio::test]
async fn a_response_has_a_largest_size() {
    let response = |bytes| Stored::default().turn().finish(Ok(Bytes::from(vec![0; bytes])));
    assert!(response(MESSAGE_BYTES_MAX).is_ok());
    assert!(matches!(response(MESSAGE_BYTES_MAX + 1), Err(TurnFailure::TooLarge(_))));
}

#[tokio::test]
async fn a_refusal_is_cut_to_what_headers_can_hold() {
    let mut long = AgentError::refused("LONG", "ü".repeat(REFUSAL_MESSAGE_BYTES_MAX));
    for number in 0..100 {
        long = long.with(format!("{number:03}"), "v".repeat(97));
    }
    let output = Stored::default().turn().finish(Err(long)).unwrap();
    let cut = output.reply.unwrap_err();
    assert!(cut.message.len() <= REFUSAL_MESSAGE_BYTES_MAX && cut.message.ends_with("ü…"));
    assert_eq!(cut.metadata.len(), REFUSAL_METADATA_BYTES_MAX / 100);
    let short = AgentError::refused("SHORT", "short").with("by", 5);
    let output = Stored::default().turn().finish(Err(short.clone())).unwrap();
    assert_eq!(output.reply, Err(short));
}
