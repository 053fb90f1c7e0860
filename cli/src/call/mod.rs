//! `afdg call`, `afdg send`, `afdg attach`: one message to one agent, in JSON.

pub mod attach;
mod input;
pub mod send;
mod transcode;

pub use transcode::{Types, methods_shown};

use crate::{
    arguments::{EndpointArgs, OutputArgs, duration},
    client::{CallFailure, Client},
    failure::{Usage, tell_error},
    output::Output,
};
use afdg_proto::pb::{admin::ListTypesRequest, v1::CallRequest};
use afdg_runtime::{Entropy, SystemEntropy, process};
use afdg_types::{AgentRef, limits::IDEMPOTENCY_KEY_BYTES_MAX};
use anyhow::Context;
use clap::Args;
use std::time::Duration;
use tonic::Request;
use transcode::Method;

/// How much longer than the call's own limit its answer is waited for.
const ANSWER_GRACE_MS: u64 = 2_000;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  afdg call bank.v1.Account/alice Deposit '{\"cents\":500}'
  afdg call bank.v1.Account/alice GetBalance
  afdg call bank.v1.Account/alice Deposit @deposit.json --idempotency-key order-17
  echo '{\"cents\":500}' | afdg call bank.v1.Account/alice Deposit -

Numbers of 64 bits are printed as JSON strings, as protobuf's JSON mapping says; both are read.
With -o json an error is JSON as well, on standard error.
'afdg type list' shows the agent types, 'afdg type describe TYPE' their methods and fields.")]
pub struct CallArgs {
    /// The agent's type and key, such as bank.v1.Account/alice
    #[arg(value_name = "TYPE/KEY")]
    agent: String,
    /// One of the type's methods, such as Deposit
    method: String,
    /// The request; '-' reads standard input, '@FILE' a file
    #[arg(default_value = "{}")]
    json: String,
    /// Repeating a call with the same key and request has no second effect [default: a new one]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long the call may take
    #[arg(long, default_value = "30s", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: CallArgs, output: &mut Output) -> anyhow::Result<u8> {
    let agent: AgentRef = args.agent.parse().map_err(|error| Usage(format!("{error}")))?;
    check_idempotency_key(args.idempotency_key.as_deref())?;
    let json = input::read(&args.json)?;
    let client = Client::connect(&args.endpoint).await?;
    let method = look_up(&client, &agent, &args.method, args.timeout).await?;
    let request = method.encode(agent.key(), &json)?;

    // With a key of its own, a call with an unknown outcome can be repeated safely. Reads need none.
    let key = match args.idempotency_key {
        Some(key) => key,
        None if method.read_only() => String::new(),
        None => format!("cli-{}", SystemEntropy.random_name()),
    };
    let mut call = Request::new(CallRequest {
        agent: agent.to_string(),
        method: method.name().to_owned(),
        request: request.into(),
        idempotency_key: key.clone(),
        timeout_ms: args.timeout.as_millis() as u64,
    });
    call.set_timeout(args.timeout + Duration::from_millis(ANSWER_GRACE_MS));
    match client.grid().call(call).await {
        Ok(response) => {
            output.line(method.decode(&response.into_inner().response)?)?;
            Ok(process::EXIT_OK)
        }
        Err(status) => {
            let mut failure = CallFailure::of_status(&status);
            failure.repeat_with = (!key.is_empty()).then(|| format!("--idempotency-key {key}"));
            tell_error(&failure.into(), args.output.output);
            Ok(process::EXIT_FAILED)
        }
    }
}

fn check_idempotency_key(key: Option<&str>) -> anyhow::Result<()> {
    match key {
        Some(key) if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX => {
            crate::failure::usage(format!("--idempotency-key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"))
        }
        _ => Ok(()),
    }
}

/// The method as the grid describes it.
async fn look_up(
    client: &Client,
    agent: &AgentRef,
    method: &str,
    timeout: Duration,
) -> anyhow::Result<Method> {
    let types = tokio::time::timeout(timeout, fetch_types(client)).await.map_err(|_| {
        let (endpoint, ms) = (client.endpoint(), timeout.as_millis());
        anyhow::anyhow!("{endpoint} has not told its agent types within {ms} ms; nothing was sent")
    })??;
    types.method(agent.agent_type(), method)
}

/// The agent types that the grid knows.
pub async fn fetch_types(client: &Client) -> anyhow::Result<Types> {
    let listed = client.cluster().list_types(ListTypesRequest {}).await;
    let listed = listed.map_err(|status| CallFailure::of_read(&status));
    let types = listed.with_context(|| format!("the agent types of {} can't be read", client.endpoint()))?;
    Types::new(types.into_inner().types)
}
