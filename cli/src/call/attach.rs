//! `afdg attach`: the result of a message that was sent before.

use super::{ANSWER_GRACE_MS, check_idempotency_key, letter, look_up, transcode::Method};
use crate::{
    arguments::{EndpointArgs, OutputArgs, duration},
    client::{CallFailure, Client},
    failure::{Usage, usage},
    output::Output,
};
use afdg_proto::pb::v1::{AttachRequest, attach_request::Message};
use afdg_runtime::process;
use afdg_types::{AgentRef, MessageId};
use clap::{ArgGroup, Args};
use std::time::Duration;
use tonic::Request;

#[derive(Args, Debug)]
#[command(
    after_help = "Waits until the message has had its turn and prints its response, or how it failed; of one that
was given up, the dead letter that it is.

The id alone is enough; then all regions are asked for it, and the response is read as the method that --as names.

Examples:
  afdg attach bank.v1.Account/alice Deposit 01980a0e-6c1c-7b60-8b1e-0f4d7c1f2a33
  afdg attach bank.v1.Account/alice Deposit --idempotency-key order-17
  afdg attach 01980a0e-6c1c-7b60-8b1e-0f4d7c1f2a33 --as bank.v1.Account/Deposit"
)]
#[command(group(ArgGroup::new("which").args(["message_id", "idempotency_key"])))]
pub struct AttachArgs {
    /// The agent's type and key, such as bank.v1.Account/alice; or the message's id alone
    #[arg(value_name = "TYPE/KEY|ID")]
    agent: String,
    /// The message's method, such as Deposit: its response is read as that
    #[arg(requires = "which")]
    method: Option<String>,
    /// The message's id, as 'afdg send' prints it
    #[arg(value_name = "ID")]
    message_id: Option<String>,
    /// The idempotency key that the message was sent with, in place of its id
    #[arg(long, value_name = "KEY", requires = "method")]
    idempotency_key: Option<String>,
    /// With the id alone: how its response is read, such as bank.v1.Account/Deposit
    #[arg(long = "as", value_name = "TYPE/METHOD", conflicts_with = "method")]
    read_as: Option<String>,
    /// How long to wait
    #[arg(long, default_value = "30s", value_parser = duration, allow_hyphen_values = true)]
    timeout: Duration,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: AttachArgs, output: &mut Output) -> anyhow::Result<u8> {
    check_idempotency_key(args.idempotency_key.as_deref())?;
    if args.method.is_none() && args.agent.contains('/') {
        let agent = args.agent.escape_debug();
        return usage(format!(
            "the message to {agent} is not named: give METHOD, and ID or --idempotency-key"
        ));
    }
    let id_of = |id: &str| {
        id.parse::<MessageId>().map_err(|error| Usage(format!("'{}': {error}", id.escape_debug())))
    };
    let Some(method) = &args.method else {
        let id = id_of(&args.agent)?;
        let read_as = match &args.read_as {
            Some(read_as) => Some(split(read_as)?),
            None => None,
        };
        let client = Client::connect(&args.endpoint).await?;
        let method = match read_as {
            Some((agent_type, method)) => Some(look_up(&client, agent_type, method, args.timeout).await?),
            None => None,
        };
        let message = Message::MessageId(id.to_string());
        return attach(&client, String::new(), message, method, &args, output).await;
    };
    let agent: AgentRef = args.agent.parse().map_err(|error| Usage(format!("{error}")))?;
    let message = match (&args.message_id, &args.idempotency_key) {
        (Some(id), _) => Message::MessageId(id_of(id)?.to_string()),
        (None, key) => Message::IdempotencyKey(key.clone().unwrap_or_default()),
    };
    let client = Client::connect(&args.endpoint).await?;
    let method = look_up(&client, agent.agent_type(), method, args.timeout).await?;
    attach(&client, agent.to_string(), message, Some(method), &args, output).await
}

fn split(read_as: &str) -> anyhow::Result<(&str, &str)> {
    let wrong = || {
        let shown = read_as.escape_debug();
        Usage(format!("'{shown}' is no type and method; write bank.v1.Account/Deposit"))
    };
    Ok(read_as.split_once('/').ok_or_else(wrong)?)
}

async fn attach(
    client: &Client,
    agent: String,
    message: Message,
    method: Option<Method>,
    args: &AttachArgs,
    output: &mut Output,
) -> anyhow::Result<u8> {
    let timeout_ms = args.timeout.as_millis() as u64;
    let of = agent.clone();
    let id = match (&message, agent.parse()) {
        (Message::IdempotencyKey(key), Ok(agent)) => MessageId::from_idempotency_key(&agent, key).to_string(),
        (Message::MessageId(id) | Message::IdempotencyKey(id), _) => id.clone(),
    };
    // Read as another method's, a response would be taken for what it is not.
    let method_name = method.as_ref().map_or("", Method::name).to_owned();
    let mut attach =
        Request::new(AttachRequest { agent, message: Some(message), timeout_ms, method: method_name });
    attach.set_timeout(args.timeout + Duration::from_millis(ANSWER_GRACE_MS));
    match client.grid().attach(attach).await {
        Ok(response) => {
            let response = response.into_inner().response;
            match method {
                // The id does not tell the type: what --as names may be another's method of that name.
                Some(method) if args.read_as.is_some() => output.line(method.decode_strictly(&response)?)?,
                Some(method) => output.line(method.decode(&response)?)?,
                None => output.line(unread(&response))?,
            }
            Ok(process::EXIT_OK)
        }
        Err(status) => {
            let mut failure = CallFailure::of_read(&status);
            letter::look_for(client, &of, &id, &mut failure).await;
            Err(failure.into())
        }
    }
}

/// A response of which nobody said how to read it.
fn unread(response: &[u8]) -> serde_json::Value {
    let hex: String = response.iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::json!({"bytes": response.len(), "hex": hex, "hint": "--as TYPE/METHOD reads it"})
}
