//! `afdg attach`: the result of a message that was sent before.

use super::{ANSWER_GRACE_MS, check_idempotency_key, look_up};
use crate::{
    arguments::{EndpointArgs, OutputArgs, duration},
    client::{CallFailure, Client},
    failure::{Usage, tell_error},
    output::Output,
};
use afdg_proto::pb::v1::{AttachRequest, attach_request::Message};
use afdg_runtime::process;
use afdg_types::{AgentRef, MessageId};
use clap::Args;
use std::time::Duration;
use tonic::Request;

#[derive(Args, Debug)]
#[command(after_help = "Waits until the message has had its turn and prints its response, or how it failed.

Examples:
  afdg attach bank.v1.Account/alice Deposit 01980a0e-6c1c-7b60-8b1e-0f4d7c1f2a33
  afdg attach bank.v1.Account/alice Deposit --idempotency-key order-17")]
pub struct AttachArgs {
    /// The agent's type and key, such as bank.v1.Account/alice
    #[arg(value_name = "TYPE/KEY")]
    agent: String,
    /// The message's method, such as Deposit: its response is read as that
    method: String,
    /// The message's id, as 'afdg send' prints it
    #[arg(
        value_name = "ID",
        required_unless_present = "idempotency_key",
        conflicts_with = "idempotency_key"
    )]
    message_id: Option<String>,
    /// The idempotency key that the message was sent with, in place of its id
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long to wait
    #[arg(long, default_value = "30s", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: AttachArgs, output: &mut Output) -> anyhow::Result<u8> {
    let agent: AgentRef = args.agent.parse().map_err(|error| Usage(format!("{error}")))?;
    check_idempotency_key(args.idempotency_key.as_deref())?;
    if let Some(id) = &args.message_id {
        id.parse::<MessageId>().map_err(|error| Usage(format!("'{}': {error}", id.escape_debug())))?;
    }
    let message = match (args.message_id, args.idempotency_key) {
        (Some(id), _) => Message::MessageId(id),
        (None, key) => Message::IdempotencyKey(key.unwrap_or_default()),
    };
    let client = Client::connect(&args.endpoint).await?;
    let method = look_up(&client, agent.agent_type(), &args.method, args.timeout).await?;
    let mut attach = Request::new(AttachRequest {
        agent: agent.to_string(),
        message: Some(message),
        timeout_ms: args.timeout.as_millis() as u64,
    });
    attach.set_timeout(args.timeout + Duration::from_millis(ANSWER_GRACE_MS));
    match client.grid().attach(attach).await {
        Ok(response) => {
            output.line(method.decode(&response.into_inner().response)?)?;
            Ok(process::EXIT_OK)
        }
        Err(status) => {
            tell_error(&CallFailure::of_read(&status).into(), args.output.output);
            Ok(process::EXIT_FAILED)
        }
    }
}
