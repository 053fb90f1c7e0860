//! An agent for tests: one value that is overwritten. None of the examples forgets what it held, and a
//! write that takes effect late or a second time shows only where something is forgotten.

use afdg_agent::{AgentError, AgentType, Context, async_trait};
use v1::{
    CompareAndSetRequest, CompareAndSetResponse, ReadRequest, RegisterAgent, Value, WriteRequest,
    WriteResponse,
};

/// The package `register.v1`: messages, the agent's trait, and callers.
pub mod v1 {
    afdg_agent::include_agent!("register.v1");
}

/// The agent type `register.v1.Register`, for a host.
pub fn register() -> AgentType {
    v1::register_agent(Register)
}

const VALUE: &str = "value";

struct Register;

#[async_trait]
impl RegisterAgent for Register {
    async fn write(&self, ctx: &mut Context, request: WriteRequest) -> Result<WriteResponse, AgentError> {
        ctx.entity(VALUE).set_value(&request.value).await?;
        Ok(WriteResponse {})
    }

    async fn read(&self, ctx: &mut Context, _: ReadRequest) -> Result<Value, AgentError> {
        Ok(Value { value: value(ctx).await? })
    }

    async fn compare_and_set(
        &self,
        ctx: &mut Context,
        request: CompareAndSetRequest,
    ) -> Result<CompareAndSetResponse, AgentError> {
        let written = value(ctx).await? == request.expected;
        if written {
            ctx.entity(VALUE).set_value(&request.value).await?;
        }
        Ok(CompareAndSetResponse { written })
    }
}

async fn value(ctx: &mut Context) -> Result<String, AgentError> {
    Ok(ctx.entity(VALUE).value().await?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{v1::RegisterCalls, *};
    use afdg_agent::testing::TestGrid;

    #[tokio::test]
    async fn a_value_is_overwritten_and_set_only_in_place_of_what_is_expected() {
        let grid = TestGrid::new([register()]);
        let write = |value: &str| {
            RegisterCalls::write("r", WriteRequest { value: value.to_owned(), ..Default::default() })
        };
        let set = |expected: &str, value: &str| {
            let (expected, value) = (expected.to_owned(), value.to_owned());
            RegisterCalls::compare_and_set(
                "r",
                CompareAndSetRequest { expected, value, ..Default::default() },
            )
        };
        assert!(grid.call(set("", "a")).await.unwrap().written);
        grid.call(write("b")).await.unwrap();
        assert!(!grid.call(set("a", "c")).await.unwrap().written);
        let read = RegisterCalls::read("r", ReadRequest::default());
        assert_eq!(grid.call(read).await.unwrap().value, "b");
    }
}
