//! Dispatch by the native host, and agents that call each other in a [`TestGrid`].

use super::{Stored, turn};
use crate::{
    AgentError, AgentType, Call, Context, NativeHost,
    host::{AgentHost, MethodDescription, Reentrancy, SendRetry, Turn, TurnFailure, TypeDescription},
    native::{Handlers, Reply, decode, encode},
    testing::{NOW_MS_DEFAULT, TestGrid},
};
use afdg_types::{AgentRef, limits::MESSAGE_BYTES_MAX};
use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;

/// What the build helper would generate for a service whose messages are single strings.
struct Agent;

impl Agent {
    /// `to` is what is left of a route such as `b>c`; the answer is the agents on it and what they saw.
    async fn relay(&self, ctx: &mut Context, to: String) -> Result<String, AgentError> {
        let visits = ctx.entity("visits").value::<u64>().await?.unwrap_or(0) + 1;
        ctx.entity("visits").set_value(&visits).await?;
        let mut seen = format!("{}:{visits}:{}", ctx.key(), ctx.now_ms() - NOW_MS_DEFAULT);
        if to == "!" {
            return Err(AgentError::refused("STOP", "stop"));
        }
        if let Some((next, rest)) = to.split_once('>') {
            let next = Call::<String>::new("test.v1.Agent", next, "Relay", &rest.to_owned());
            seen += &format!(" {}", ctx.call(next).await?);
        }
        Ok(seen)
    }
}

#[async_trait]
impl Handlers for Agent {
    async fn handle(
        &self,
        context: &mut Context,
        method: &str,
        request: Bytes,
    ) -> Result<Reply, TurnFailure> {
        let request: String = decode(request, "test.v1.Text")?;
        Ok(encode(match method {
            "Relay" => self.relay(context, request).await,
            "Random" => Ok(format!("{} {}", context.random_u64(), context.message_id())),
            "Large" => Ok("x".repeat(MESSAGE_BYTES_MAX)),
            "Peek" => {
                let _ = context.entity("e").push("hidden").await;
                Ok("done".to_owned())
            }
            other => return Err(TurnFailure::UnknownMethod(other.to_owned())),
        }))
    }
}

fn agent() -> AgentType {
    let method = |name: &str| MethodDescription {
        name: name.to_owned(),
        read_only: name == "Peek",
        key_field: None,
        request: "test.v1.Text".to_owned(),
        response: "test.v1.Text".to_owned(),
    };
    let description = TypeDescription {
        name: "test.v1.Agent".to_owned(),
        descriptors: Bytes::new(),
        methods: ["Relay", "Random", "Large", "Peek"].map(method).into(),
        send_retry: SendRetry::default(),
        reentrancy: Reentrancy::None,
    };
    AgentType::new(description, Agent)
}

async fn run(turn: Turn) -> Result<String, TurnFailure> {
    let output = NativeHost::new().with(agent()).run(turn, Stored::default().view()).await?;
    Ok(String::decode(output.reply.unwrap()).unwrap())
}

fn relay(key: &str, to: &str) -> Call<String> {
    Call::new("test.v1.Agent", key, "Relay", &to.to_owned())
}

#[tokio::test]
async fn a_turn_goes_to_its_types_and_methods_handler() {
    let relay = Turn { now_ms: NOW_MS_DEFAULT, ..turn("Relay", false) };
    assert_eq!(run(relay).await.unwrap(), "a:1:0");
    assert_eq!(run(turn("Missing", false)).await, Err(TurnFailure::UnknownMethod("Missing".to_owned())));
    let stranger = Turn { agent: AgentRef::new("other.Type", "a").unwrap(), ..turn("Relay", false) };
    assert_eq!(run(stranger).await, Err(TurnFailure::UnknownType("other.Type".to_owned())));
    let malformed = Turn { request: Bytes::from_static(b"\xff"), ..turn("Relay", false) };
    assert!(matches!(
        run(malformed).await,
        Err(TurnFailure::RequestMalformed { message, .. }) if message == "test.v1.Text"
    ));
    assert!(matches!(run(turn("Large", false)).await, Err(TurnFailure::TooLarge(_))));
    // The description says so, even where the sender didn't.
    assert_eq!(run(turn("Peek", false)).await, Err(TurnFailure::ReadOnly("Peek".to_owned())));
    assert_eq!(NativeHost::new().with(agent()).types()[0].methods.len(), 4);
}

#[test]
#[should_panic(expected = "agent type test.v1.Agent is registered twice")]
fn one_type_has_one_implementation() {
    let _ = NativeHost::new().with(agent()).with(agent());
}

#[tokio::test]
async fn a_turn_that_is_run_again_draws_the_same_numbers() {
    let first = run(turn("Random", false)).await.unwrap();
    assert_eq!(run(turn("Random", false)).await.unwrap(), first);
    // The generator's published numbers for the seed 42.
    assert!(first.starts_with("13679457532755275413 "), "{first}");
    let grid = TestGrid::new([agent()]);
    let draw = || Call::<String>::new("test.v1.Agent", "a", "Random", &String::new());
    let (one, two) = (grid.call(draw()).await.unwrap(), grid.call(draw()).await.unwrap());
    assert_ne!(one, two);
    let again = TestGrid::new([agent()]);
    assert_eq!(again.call(draw()).await.unwrap(), one);
    let other = TestGrid::new([agent()]);
    other.set_seed(1);
    assert_ne!(other.call(draw()).await.unwrap(), one);
}

#[tokio::test]
async fn agents_call_each_other_and_commit_each_their_own() {
    let grid = TestGrid::new([agent()]);
    assert_eq!(grid.call(relay("a", "b>c>")).await.unwrap(), "a:1:0 b:1:0 c:1:0");
    grid.set_now_ms(NOW_MS_DEFAULT + 5);
    assert_eq!(grid.call(relay("c", "a>")).await.unwrap(), "c:2:5 a:2:5");
    let c = AgentRef::new("test.v1.Agent", "c").unwrap();
    assert_eq!(grid.items(&c, "visits").await.unwrap(), [serde_json::json!(2)]);
}

#[tokio::test]
async fn a_refused_turn_changes_nothing_and_its_callers_neither() {
    let grid = TestGrid::new([agent()]);
    let refused = grid.call(relay("a", "b>!")).await.unwrap_err();
    assert_eq!(refused.reason(), "STOP");
    assert_eq!(grid.call(relay("a", "b>")).await.unwrap(), "a:1:0 b:1:0");
}

#[tokio::test]
async fn a_cycle_and_an_endless_chain_are_refused() {
    let grid = TestGrid::new([agent()]);
    let cycle = grid.call(relay("a", "b>c>a>")).await.unwrap_err();
    assert_eq!(cycle.reason(), "CALL_CYCLE");
    assert!(cycle.to_string().contains("test.v1.Agent/c -> test.v1.Agent/a"), "{cycle}");
    let route: String = (0..40).map(|number| format!("k{number}>")).collect();
    assert_eq!(grid.call(relay("a", &route)).await.unwrap_err().reason(), "CALL_CHAIN_TOO_LONG");
}
