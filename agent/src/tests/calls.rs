//! Calls of a turn: their ordinals, how many go side by side, their errors.

use super::turn;
use crate::{
    Call, CallError, Context,
    host::{TurnFailure, TurnView},
    row::Row,
};
use afdg_types::{
    AgentRef, GridError, Reason,
    limits::{TURN_CALLS_MAX, TURN_CALLS_PARALLEL_MAX},
};
use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Answers each call with its request, later calls sooner; agents called `down` fail.
#[derive(Default)]
struct Echo {
    started: Mutex<Vec<(u32, String)>>,
    in_flight: AtomicUsize,
    most: AtomicUsize,
    untils: Mutex<Vec<u64>>,
}

#[async_trait]
impl TurnView for Echo {
    async fn row(&self, _: &[u8]) -> Result<Option<Arc<Row>>, TurnFailure> {
        Err(TurnFailure::Storage("no rows here".to_owned()))
    }

    async fn last_row_at_or_before(
        &self,
        _: &[u8],
        _: &[u8],
    ) -> Result<Option<(Bytes, Arc<Row>)>, TurnFailure> {
        Ok(None)
    }

    async fn rows(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<(Bytes, Arc<Row>)>, TurnFailure> {
        Ok(Vec::new())
    }

    async fn call(
        &self,
        ordinal: u32,
        agent: AgentRef,
        _: &str,
        request: Bytes,
    ) -> Result<Bytes, afdg_types::CallError> {
        self.started.lock().unwrap().push((ordinal, agent.key().to_owned()));
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        for _ in 0..1_000_u32.saturating_sub(ordinal) / 100 {
            tokio::task::yield_now().await;
        }
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        match agent.key() {
            "down" => Err(GridError::new(Reason::CallCycle, "a cycle").into()),
            "odd" => Ok(Bytes::from_static(b"\xff")),
            _ => Ok(request),
        }
    }

    async fn call_until(
        &self,
        ordinal: u32,
        agent: AgentRef,
        method: &str,
        request: Bytes,
        until_ms: u64,
    ) -> Result<Bytes, afdg_types::CallError> {
        self.untils.lock().unwrap().push(until_ms);
        self.call(ordinal, agent, method, request).await
    }
}

fn call(key: &str) -> Call<String> {
    Call::new("test.v1.Agent", key, "Echo", &key.to_owned())
}

fn begin() -> (Arc<Echo>, Context) {
    let view = Arc::new(Echo::default());
    let context = Context::new(&turn("Test", false), view.clone());
    (view, context)
}

#[tokio::test]
async fn calls_are_numbered_in_the_order_of_the_handler() {
    let (view, mut context) = begin();
    context.call(call("first")).await.unwrap();
    let keys: Vec<String> = (1..=1_000).map(|number| format!("k{number}")).collect();
    let results = context.call_all(keys.iter().map(|key| call(key)).collect()).await;
    assert_eq!(results, keys.iter().cloned().map(Ok).collect::<Vec<_>>());
    context.call(call("last")).await.unwrap();

    let started = view.started.lock().unwrap().clone();
    let expected = ["first"].into_iter().chain(keys.iter().map(String::as_str)).chain(["last"]);
    let expected: Vec<_> = (0..).zip(expected.map(str::to_owned)).collect();
    assert_eq!(started, expected);
    assert_eq!(view.most.load(Ordering::SeqCst), TURN_CALLS_PARALLEL_MAX);
}

#[tokio::test]
async fn a_limit_on_calls_side_by_side_holds_and_changes_no_result() {
    for (limit, most) in [(0, 1), (1, 1), (7, 7), (usize::MAX, TURN_CALLS_PARALLEL_MAX)] {
        let (view, mut context) = begin();
        let keys: Vec<String> = (0..600).map(|number| format!("k{number}")).collect();
        let results = context.call_all_limited(limit, keys.iter().map(|key| call(key)).collect()).await;
        assert_eq!(results, keys.iter().cloned().map(Ok).collect::<Vec<_>>());
        assert_eq!(view.most.load(Ordering::SeqCst), most, "{limit}");
        let ordinals: Vec<u32> = view.started.lock().unwrap().iter().map(|(ordinal, _)| *ordinal).collect();
        assert_eq!(ordinals, (0..600).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_time_for_all_calls_is_the_turns_time_and_so_long() {
    let (view, mut context) = begin();
    context.call(call("before")).await.unwrap();
    let until_ms = context.now_ms() + 1_500;
    let results = context.call_all_within(Duration::from_millis(1_500), vec![call("a"), call("down")]).await;
    assert_eq!(results[0], Ok("a".to_owned()));
    assert_eq!(results[1].as_ref().unwrap_err().reason(), "CALL_CYCLE");
    let longest = context.call_all_within(Duration::MAX, vec![call("b")]).await;
    assert_eq!(longest, [Ok("b".to_owned())]);
    assert_eq!(*view.untils.lock().unwrap(), [until_ms, until_ms, u64::MAX], "the call alone had none");
    let ordinals: Vec<u32> = view.started.lock().unwrap().iter().map(|(ordinal, _)| *ordinal).collect();
    assert_eq!(ordinals, [0, 1, 2, 3]);
}

#[tokio::test]
async fn each_call_has_its_own_result() {
    let (view, mut context) = begin();
    let results = context.call_all(["a", "down", "", "odd", "b"].map(call).into()).await;
    let told: Vec<&str> = results
        .iter()
        .map(|result| match result {
            Ok(text) => text,
            Err(error) => error.reason(),
        })
        .collect();
    assert_eq!(told, ["a", "CALL_CYCLE", "KEY_MISSING", "INTERNAL", "b"]);
    // A call that never left keeps its number, so that the others have the same whatever it was.
    assert_eq!(view.started.lock().unwrap().last().unwrap(), &(4, "b".to_owned()));
    assert!(context.finish(Ok(Bytes::new())).is_ok(), "an error of a call fails no turn by itself");
}

#[tokio::test]
async fn an_error_of_a_call_becomes_the_callers_refusal() {
    let (_, mut context) = begin();
    let error = context.call(call("down")).await.unwrap_err();
    let refusal = crate::AgentError::from(error);
    assert_eq!((refusal.code, &*refusal.reason), (Reason::CallCycle.code(), "CALL_CYCLE"));
    let own = crate::AgentError::refused("SHORT", "short").with("by", 5);
    assert_eq!(crate::AgentError::from(CallError::Agent(own.clone())), own);
}

#[tokio::test]
async fn a_turn_makes_a_bounded_number_of_calls() {
    let (view, mut context) = begin();
    let many = |count: u32| (0..count).map(|_| call("a")).collect::<Vec<_>>();
    assert!(context.call_all(many(TURN_CALLS_MAX - 1)).await.iter().all(Result::is_ok));
    let refused = context.call_all(many(2)).await;
    assert!(
        refused.len() == 2 && refused.iter().all(|r| r.as_ref().unwrap_err().reason() == "TURN_TOO_LARGE")
    );
    assert_eq!(view.started.lock().unwrap().len(), TURN_CALLS_MAX as usize - 1);
    // The turn has failed: it touches nobody any more, and the handler can't hide it.
    assert!(context.call(call("a")).await.is_err());
    assert_eq!(view.started.lock().unwrap().len(), TURN_CALLS_MAX as usize - 1);
    assert!(matches!(context.finish(Ok(Bytes::new())), Err(TurnFailure::TooLarge(_))));
}

#[tokio::test]
async fn a_storage_error_that_the_handler_ignores_fails_the_turn() {
    let (_, mut context) = begin();
    assert!(context.entity("e").value::<u64>().await.is_err());
    let failure = context.finish(Ok(Bytes::new())).unwrap_err();
    assert_eq!(failure, TurnFailure::Storage("no rows here".to_owned()));
}

#[tokio::test]
async fn a_key_in_the_request_is_filled_in_or_has_to_agree() {
    let keyed = |key: &str, field: &str| {
        Call::<String>::keyed("test.v1.Agent", key, "Echo", field.to_owned(), |request| request)
    };
    let (_, mut context) = begin();
    assert_eq!(context.call(keyed("bob", "")).await.unwrap(), "bob");
    assert_eq!(context.call(keyed("bob", "bob")).await.unwrap(), "bob");
    assert_eq!(context.call(keyed("bob", "eve")).await.unwrap_err().reason(), "KEY_MALFORMED");
    let large = "x".repeat(afdg_types::limits::MESSAGE_BYTES_MAX);
    assert!(large.encoded_len() > large.len());
    let large = Call::<String>::new("test.v1.Agent", "bob", "Echo", &large);
    assert_eq!(context.call(large).await.unwrap_err().reason(), "MESSAGE_TOO_LARGE");
}
