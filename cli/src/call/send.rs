//! `afdg send`: one message that nobody waits for.

use super::{
    ANSWER_GRACE_MS, ManyArgs, check_idempotency_key, input, letter, look_up,
    many::{self, Message, Recipient},
};
use crate::{
    arguments::{EndpointArgs, Format, OutputArgs, delay, duration},
    client::{CallFailure, Client},
    failure::usage,
    output::Output,
};
use afdg_proto::pb::v1::SendRequest;
use afdg_runtime::{Entropy, SystemEntropy, process};
use afdg_types::MessageId;
use clap::Args;
use serde_json::json;
use std::time::Duration;
use tonic::Request;

#[derive(Args, Debug)]
#[command(
    after_help = "Prints the message's id once the grid has accepted the message: it takes effect exactly
once, and is tried again if its handler fails. 'afdg attach' waits for its result. If it was given
up, 'afdg attach' and the same 'afdg send' name the dead letter that it is.

Examples:
  afdg send bank.v1.Account/alice Deposit '{\"cents\":500}'
  afdg send bank.v1.Account/alice Deposit '{\"cents\":500}' --delay 10m --idempotency-key order-17
  afdg send 'bank.v1.Account/*' Deposit '{\"cents\":5}'

A '*' at the end of the key, in quotes, sends to every agent of the type that has data and whose key
begins so: a line for each with its message's id (with -o json one JSON value each), a count on standard
error, exit status 1 if any failed."
)]
pub struct SendArgs {
    /// The agent's type and key, such as bank.v1.Account/alice; 'TYPE/*' and 'TYPE/PREFIX*' stand for many
    #[arg(value_name = "TYPE/KEY")]
    agent: String,
    /// One of the type's methods, such as Deposit
    method: String,
    /// The request; '-' reads standard input, '@FILE' a file
    #[arg(default_value = "{}")]
    json: String,
    /// How long the message is held back before it gets its turn, 366d at most
    #[arg(long, value_parser = delay, allow_hyphen_values = true)]
    delay: Option<Duration>,
    /// Repeating a message with the same key and request has no second effect [default: a new one]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long its acceptance may take
    #[arg(long, default_value = "30s", value_parser = duration, allow_hyphen_values = true)]
    timeout: Duration,
    #[command(flatten)]
    many: ManyArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: SendArgs, output: &mut Output) -> anyhow::Result<u8> {
    let recipient = args.many.recipient(&args.agent)?;
    check_idempotency_key(args.idempotency_key.as_deref())?;
    let json = input::read(&args.json)?;
    let agent = match recipient {
        Recipient::One(agent) => agent,
        Recipient::Many(_) if args.delay.is_some() => {
            return usage("--delay goes with one agent, not with a pattern of them");
        }
        Recipient::Many(pattern) => {
            let message = Message {
                pattern: &pattern,
                method: &args.method,
                json: &json,
                idempotency_key: args.idempotency_key,
                timeout: args.timeout,
                parallel_max: args.many.parallel.unwrap_or(0),
                send: true,
            };
            return many::run(message, &args.endpoint, args.output.output, output).await;
        }
    };
    let client = Client::connect(&args.endpoint).await?;
    let method = look_up(&client, agent.agent_type(), &args.method, args.timeout).await?;
    // With a key of its own, a message with an unknown outcome can be repeated safely.
    let key = args.idempotency_key.unwrap_or_else(|| format!("cli-{}", SystemEntropy.random_name()));
    let mut send = Request::new(SendRequest {
        agent: agent.to_string(),
        method: method.name().to_owned(),
        request: method.encode(agent.key(), &json)?.into(),
        idempotency_key: key.clone(),
        timeout_ms: args.timeout.as_millis() as u64,
        delay_ms: args.delay.map_or(0, |delay| delay.as_millis() as u64),
    });
    send.set_timeout(args.timeout + Duration::from_millis(ANSWER_GRACE_MS));
    match client.grid().send(send).await {
        Ok(response) => {
            let id = response.into_inner().message_id;
            match args.output.output {
                Format::Json => output.json(&json!({"message_id": id}))?,
                Format::Table => output.line(id)?,
            }
            Ok(process::EXIT_OK)
        }
        Err(status) => {
            let mut failure = CallFailure::of_status(&status);
            failure.repeat_with = Some(format!("--idempotency-key {key}"));
            // Of a message that was accepted before.
            let id = MessageId::from_idempotency_key(&agent, &key).to_string();
            letter::look_for(&client, agent.as_str(), &id, &mut failure).await;
            Err(failure.into())
        }
    }
}
