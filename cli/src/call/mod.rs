//! `afdg call`, `afdg send`, `afdg attach`: one message to one agent or to many, in JSON.

pub mod attach;
mod input;
mod letter;
mod many;
pub mod send;
mod transcode;

pub use transcode::{Types, methods_shown, reentrancy};

use crate::{
    arguments::{EndpointArgs, OutputArgs, duration},
    client::{CallFailure, Client, LetterKnown},
    failure::usage,
    output::Output,
};
use afdg_extension::SCATTER_PARALLEL_MAX;
use afdg_proto::pb::{admin::ListTypesRequest, v1::CallRequest};
use afdg_runtime::{Entropy, SystemEntropy, process};
use afdg_types::{MessageId, Reason, limits::IDEMPOTENCY_KEY_BYTES_MAX};
use anyhow::Context;
use clap::Args;
use many::{Message, Recipient};
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
  afdg call 'bank.v1.Account/*' GetBalance
  afdg call 'bank.v1.Account/de-*' Deposit '{\"cents\":5}' --parallel 64 --timeout 5m

A '*' at the end of the key, in quotes, calls every agent of the type that has data and whose key
begins so: a line for each as it answers (with -o json one JSON value each), a count on standard
error, exit status 1 if any failed. With the same --idempotency-key nothing takes effect twice.

Numbers of 64 bits are printed as JSON strings, as protobuf's JSON mapping says; both are read.
With -o json an error is JSON as well, on standard error.
'afdg type list' shows the agent types, 'afdg type describe TYPE' their methods and fields.")]
pub struct CallArgs {
    /// The agent's type and key, such as bank.v1.Account/alice; 'TYPE/*' and 'TYPE/PREFIX*' stand for many
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
    /// How long the call may take, or all of them
    #[arg(long, default_value = "30s", value_parser = duration, allow_hyphen_values = true)]
    timeout: Duration,
    #[command(flatten)]
    many: ManyArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// For commands that take a pattern in place of an agent's key.
#[derive(Args, Debug)]
struct ManyArgs {
    #[arg(
        long,
        value_name = "N",
        help = format!("How many agents are called at the same time, where there are many: 1 to {SCATTER_PARALLEL_MAX} [default: 256]"),
        value_parser = parallel,
        allow_hyphen_values = true,
    )]
    parallel: Option<u32>,
    /// Takes the key as it stands, even with a '*' in it
    #[arg(long)]
    exact: bool,
}

fn parallel(text: &str) -> Result<u32, String> {
    let within = text.parse().ok().filter(|number| (1..=SCATTER_PARALLEL_MAX).contains(number));
    within.ok_or_else(|| format!("a whole number from 1 to {SCATTER_PARALLEL_MAX} is wanted"))
}

impl ManyArgs {
    fn recipient(&self, agent: &str) -> anyhow::Result<Recipient> {
        let recipient = Recipient::parse(agent, self.exact)?;
        match (&recipient, self.parallel) {
            (Recipient::One(_), Some(_)) => {
                usage("--parallel goes with a pattern of agents, such as 'TYPE/*'")
            }
            _ => Ok(recipient),
        }
    }
}

pub async fn run(args: CallArgs, output: &mut Output) -> anyhow::Result<u8> {
    let recipient = args.many.recipient(&args.agent)?;
    check_idempotency_key(args.idempotency_key.as_deref())?;
    let json = input::read(&args.json)?;
    let agent = match recipient {
        Recipient::One(agent) => agent,
        Recipient::Many(pattern) => {
            let message = Message {
                pattern: &pattern,
                method: &args.method,
                json: &json,
                idempotency_key: args.idempotency_key,
                timeout: args.timeout,
                parallel_max: args.many.parallel.unwrap_or(0),
                send: false,
            };
            return many::run(message, &args.endpoint, args.output.output, output).await;
        }
    };
    let client = Client::connect(&args.endpoint).await?;
    let method = look_up(&client, agent.agent_type(), &args.method, args.timeout).await?;
    let request = method.encode(agent.key(), &json)?;

    // With a key of its own, a call with an unknown outcome can be repeated safely. Reads need none.
    let is_repeatable = args.idempotency_key.is_some();
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
            let is_other = failure.reason == Reason::IdReused.as_str();
            if is_repeatable && !is_other {
                // The message may have been sent under the key before, and given up.
                let id = MessageId::from_idempotency_key(&agent, &key).to_string();
                letter::look_for(&client, agent.as_str(), &id, &mut failure).await;
                failure.letter = failure.letter.filter(|letter| matches!(letter, LetterKnown::Is(_)));
            }
            Err(failure.into())
        }
    }
}

fn check_idempotency_key(key: Option<&str>) -> anyhow::Result<()> {
    match key {
        Some(key) if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX => {
            usage(format!("--idempotency-key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"))
        }
        _ => Ok(()),
    }
}

/// The method as the grid describes it.
async fn look_up(
    client: &Client,
    agent_type: &str,
    method: &str,
    timeout: Duration,
) -> anyhow::Result<Method> {
    let types = tokio::time::timeout(timeout, fetch_types(client)).await.map_err(|_| {
        let (endpoint, ms) = (client.endpoint(), timeout.as_millis());
        anyhow::anyhow!("{endpoint} has not told its agent types within {ms} ms; nothing was sent")
    })?;
    let types = types.context("nothing was done yet")?;
    types.method(agent_type, method)
}

/// The agent types that the grid knows.
pub async fn fetch_types(client: &Client) -> anyhow::Result<Types> {
    let listed = client.cluster().list_types(ListTypesRequest {}).await;
    let listed = listed.map_err(|status| CallFailure::of_read(&status));
    let types = listed.with_context(|| format!("the agent types of {} can't be read", client.endpoint()))?;
    Types::new(types.into_inner().types)
}
