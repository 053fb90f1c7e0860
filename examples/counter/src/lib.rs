//! Example agents: a counter, and one that adds to many counters at once.
//!
//! Where to look: the messages and methods in `proto/counter/v1/counter.proto`, the handlers below,
//! and how to test them without a cluster at the end. A program hosts them with
//! `NativeHost::new().with(counter()).with(fanout())`.

use afdg_agent::{AgentError, AgentType, Context, async_trait};
use v1::{
    AddManyRequest, AddManyResponse, AddRequest, Count, CounterAgent, CounterCalls, FanoutAgent, GetRequest,
};

/// The package `counter.v1`: messages, the traits of the agents, and callers.
pub mod v1 {
    afdg_agent::include_agent!("counter.v1");
}

/// The agent type `counter.v1.Counter`, for a host.
pub fn counter() -> AgentType {
    v1::counter_agent(Counter)
}

/// The agent type `counter.v1.Fanout`, for a host.
pub fn fanout() -> AgentType {
    v1::fanout_agent(Fanout)
}

/// Entity that holds the count, an `i64`.
const VALUE: &str = "value";

struct Counter;

#[async_trait]
impl CounterAgent for Counter {
    async fn add(&self, ctx: &mut Context, request: AddRequest) -> Result<Count, AgentError> {
        let before: i64 = ctx.entity(VALUE).value().await?.unwrap_or(0);
        let value = before.checked_add(request.delta).ok_or_else(overflow)?;
        ctx.entity(VALUE).set_value(&value).await?;
        Ok(Count { value })
    }

    async fn get(&self, ctx: &mut Context, _: GetRequest) -> Result<Count, AgentError> {
        let value = ctx.entity(VALUE).value().await?.unwrap_or(0);
        Ok(Count { value })
    }
}

struct Fanout;

#[async_trait]
impl FanoutAgent for Fanout {
    async fn add_many(
        &self,
        ctx: &mut Context,
        request: AddManyRequest,
    ) -> Result<AddManyResponse, AgentError> {
        let add = |counter: &String| {
            CounterCalls::add(counter, AddRequest { delta: request.delta, ..Default::default() })
        };
        let mut sum: i64 = 0;
        for count in ctx.call_all(request.counters.iter().map(add).collect()).await {
            sum = sum.checked_add(count?.value).ok_or_else(overflow)?;
        }
        Ok(AddManyResponse { sum })
    }
}

fn overflow() -> AgentError {
    AgentError::refused("COUNT_OVERFLOW", "the count would not fit 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_agent::testing::TestGrid;
    use v1::FanoutCalls;

    fn add(delta: i64) -> AddRequest {
        AddRequest { delta, ..Default::default() }
    }

    #[tokio::test]
    async fn a_counter_counts_from_0() {
        let grid = TestGrid::new([counter()]);
        let get = || CounterCalls::get("hits", GetRequest::default());
        assert_eq!(grid.call(get()).await.unwrap().value, 0);
        assert_eq!(grid.call(CounterCalls::add("hits", add(5))).await.unwrap().value, 5);
        assert_eq!(grid.call(CounterCalls::add("hits", add(-7))).await.unwrap().value, -2);
        assert_eq!(grid.call(CounterCalls::add("other", add(1))).await.unwrap().value, 1);
        assert_eq!(grid.call(get()).await.unwrap().value, -2);
    }

    #[tokio::test]
    async fn a_counter_refuses_to_overflow() {
        let grid = TestGrid::new([counter()]);
        grid.call(CounterCalls::add("full", add(i64::MAX))).await.unwrap();
        let refused = grid.call(CounterCalls::add("full", add(1))).await.unwrap_err();
        assert_eq!(refused.reason(), "COUNT_OVERFLOW");
        let count = grid.call(CounterCalls::get("full", GetRequest::default())).await.unwrap();
        assert_eq!(count.value, i64::MAX);
    }

    #[tokio::test]
    async fn a_fanout_adds_to_all_its_counters() {
        let grid = TestGrid::new([counter(), fanout()]);
        let counters: Vec<String> = (0..300).map(|number| format!("c{number}")).collect();
        let add_all = |counters| AddManyRequest { counters, delta: 2, ..Default::default() };
        for sum in [600, 1200] {
            let added = grid.call(FanoutCalls::add_many("load", add_all(counters.clone()))).await;
            assert_eq!(added.unwrap().sum, sum);
        }
        let twice = add_all(vec!["c0".to_owned(), "c0".to_owned()]);
        assert_eq!(grid.call(FanoutCalls::add_many("load", twice)).await.unwrap().sum, 6 + 8);
        let none = grid.call(FanoutCalls::add_many("load", add_all(vec![]))).await.unwrap();
        assert_eq!(none.sum, 0);
    }

    #[tokio::test]
    async fn a_fanout_with_a_bad_key_says_so() {
        let grid = TestGrid::new([counter(), fanout()]);
        let request = AddManyRequest { counters: vec![String::new()], delta: 1, ..Default::default() };
        let refused = grid.call(FanoutCalls::add_many("load", request)).await.unwrap_err();
        assert_eq!(refused.reason(), "KEY_MISSING");
    }
}
