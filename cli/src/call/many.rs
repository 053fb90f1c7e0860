//! `afdg call 'TYPE/*'`, `afdg send 'TYPE/*'`: one message to all agents of a type, or to those whose keys begin
//! with a text.

use super::{ANSWER_GRACE_MS, look_up, transcode::Method};
use crate::{
    admin::grouped,
    arguments::{EndpointArgs, Format},
    client::{CallFailure, Client, status_of},
    failure::{Usage, tell, usage},
    output::{Output, plain},
};
use afdg_proto::pb::v1::{ScatterRequest, ScatterResult, scatter_result};
use afdg_runtime::{Entropy, SystemEntropy, process};
use afdg_types::{AgentRef, MessageId, Retry};
use anyhow::Context;
use serde_json::json;
use std::time::Duration;
use tonic::Request;

/// Whom a command is for.
#[derive(Debug, PartialEq)]
pub enum Recipient {
    One(AgentRef),
    Many(Pattern),
}

/// `bank.v1.Account/de-*`.
#[derive(Debug, PartialEq)]
pub struct Pattern {
    pub agent_type: String,
    pub key_prefix: String,
}

impl Recipient {
    /// Reads `TYPE/KEY`; a `*` at the end of the key stands for any end, unless it is meant as it stands.
    pub fn parse(text: &str, exact: bool) -> anyhow::Result<Self> {
        let one = || text.parse().map_err(|error| Usage(format!("{error}")));
        let Some((agent_type, key)) = text.split_once('/').filter(|(_, key)| !exact && key.contains('*'))
        else {
            return Ok(Self::One(one()?));
        };
        match key.strip_suffix('*').filter(|prefix| !prefix.contains('*')) {
            Some(prefix) => {
                // As an address it shows whether type and prefix may be.
                one()?;
                Ok(Self::Many(Pattern { agent_type: agent_type.to_owned(), key_prefix: prefix.to_owned() }))
            }
            None => usage(format!(
                "'{}': a '*' stands for any end of a key, so it can only be the last character; with --exact the \
                 key is taken as it stands",
                text.escape_debug()
            )),
        }
    }
}

/// What all of them get.
pub struct Message<'a> {
    pub pattern: &'a Pattern,
    pub method: &'a str,
    pub json: &'a str,
    pub idempotency_key: Option<String>,
    pub timeout: Duration,
    /// 0 leaves it to the grid.
    pub parallel_max: u32,
    /// Nobody waits for their turns.
    pub send: bool,
}

/// Prints each agent's result as it comes, and counts them at the end.
pub async fn run(
    message: Message<'_>,
    endpoint: &EndpointArgs,
    format: Format,
    output: &mut Output,
) -> anyhow::Result<u8> {
    let Pattern { agent_type, key_prefix } = message.pattern;
    let client = Client::connect(endpoint).await?;
    let method = look_up(&client, agent_type, message.method, message.timeout).await?;
    let key = match message.idempotency_key {
        Some(key) => key,
        None if method.read_only() && !message.send => String::new(),
        None => format!("cli-{}", SystemEntropy.random_name()),
    };
    let mut request = Request::new(ScatterRequest {
        r#type: agent_type.clone(),
        key_prefix: key_prefix.clone(),
        method: method.name().to_owned(),
        request: method.encode_for_many(message.json)?.into(),
        idempotency_key: key.clone(),
        timeout_ms: message.timeout.as_millis() as u64,
        parallel_max: message.parallel_max,
        send: message.send,
        ..ScatterRequest::default()
    });
    request.set_timeout(message.timeout + Duration::from_millis(ANSWER_GRACE_MS));
    let mut report = Report { method, sent_with: message.send.then_some(&*key), format, ok: 0, failed: 0 };
    let (begun, ended) = match client.grid().scatter(request).await {
        Ok(pages) => (true, report.print_all(pages.into_inner(), output).await?),
        Err(status) => (false, Err(status)),
    };
    if output.is_closed() {
        // The reader has seen enough; with it goes the stream, and no more agents are called.
        return Ok(process::EXIT_OK);
    }
    report.summary(&format!("{agent_type}/{key_prefix}*"));
    if let Err(status) = ended {
        let mut failure = CallFailure::of_status(&status);
        // The status is about the rest, of which some may have begun; what was done before it stays.
        if begun && !key.is_empty() && failure.retry != Retry::Never {
            failure.retry = Retry::Unknown;
        }
        failure.repeat_with = (!key.is_empty()).then(|| format!("--idempotency-key {key}"));
        return Err(failure.into());
    }
    Ok(if report.failed == 0 { process::EXIT_OK } else { process::EXIT_FAILED })
}

struct Report<'a> {
    method: Method,
    /// The idempotency key of a message that nobody waits for.
    sent_with: Option<&'a str>,
    format: Format,
    ok: u64,
    failed: u64,
}

impl Report<'_> {
    /// Until the end of the stream, which is returned, or of whoever reads.
    async fn print_all(
        &mut self,
        mut pages: tonic::Streaming<afdg_proto::pb::v1::ScatterResponse>,
        output: &mut Output,
    ) -> anyhow::Result<Result<(), tonic::Status>> {
        loop {
            let page = match pages.message().await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(Ok(())),
                Err(status) => return Ok(Err(status)),
            };
            for result in page.results {
                self.print(result, output)?;
            }
            if output.is_closed() {
                return Ok(Ok(()));
            }
        }
    }

    fn print(&mut self, result: ScatterResult, output: &mut Output) -> anyhow::Result<()> {
        let agent = result.agent;
        match result.result {
            Some(scatter_result::Result::Response(response)) => {
                self.ok += 1;
                if let Some(key) = self.sent_with {
                    return accepted(&agent, key, self.format, output);
                }
                let response = self.method.decode_line(&response)?;
                match self.format {
                    Format::Table => output.line(format_args!("{agent}  {response}"))?,
                    // The response is JSON already.
                    Format::Json => {
                        let agent = serde_json::to_string(&agent)?;
                        output.line(format_args!("{{\"agent\":{agent},\"response\":{response}}}"))?;
                    }
                }
            }
            Some(scatter_result::Result::Error(error)) => {
                self.failed += 1;
                let failure = CallFailure::of_status(&status_of(&error));
                match self.format {
                    Format::Table => {
                        let (reason, message) = (&failure.reason, plain(&failure.message));
                        output.line(format_args!("{agent}  error: {reason}: {message}"))?;
                    }
                    Format::Json => {
                        output.json_line(&json!({"agent": agent, "error": failure.to_json()}))?;
                    }
                }
            }
            None => anyhow::bail!("the grid answered for {agent} with neither response nor error"),
        }
        Ok(())
    }

    fn summary(&self, pattern: &str) {
        let (ok, failed) = (grouped(self.ok), grouped(self.failed));
        match self.ok + self.failed {
            0 => tell(format_args!("no agent answered to {pattern}")),
            1 => tell(format_args!("1 agent: {ok} ok, {failed} failed")),
            all => tell(format_args!("{} agents: {ok} ok, {failed} failed", grouped(all))),
        }
    }
}

/// Each agent's message has an id of its own, which is made of the agent and the key.
fn accepted(agent: &str, key: &str, format: Format, output: &mut Output) -> anyhow::Result<()> {
    let to: AgentRef = agent.parse().with_context(|| format!("the grid sent to {agent}"))?;
    let id = MessageId::from_idempotency_key(&to, key).to_string();
    match format {
        Format::Table => output.line(format_args!("{agent}  {id}"))?,
        Format::Json => output.json_line(&json!({"agent": agent, "accepted": true, "message_id": id}))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(text: &str) -> Option<(String, String)> {
        match Recipient::parse(text, false).unwrap() {
            Recipient::Many(pattern) => Some((pattern.agent_type, pattern.key_prefix)),
            Recipient::One(_) => None,
        }
    }

    #[test]
    fn a_star_at_the_end_is_a_pattern_and_elsewhere_an_error() {
        let pattern = |prefix: &str| Some(("bank.v1.Account".to_owned(), prefix.to_owned()));
        assert_eq!(many("bank.v1.Account/*"), pattern(""));
        assert_eq!(many("bank.v1.Account/de-*"), pattern("de-"));
        assert_eq!(many("bank.v1.Account/de/x*"), pattern("de/x"));
        assert_eq!(many("bank.v1.Account/alice"), None);
        for wrong in ["a.B/*x", "a.B/x*y*", "a.B/**", "a.*/x", "*/x", "*", "a.B/", "nonsense*"] {
            let error = Recipient::parse(wrong, false).unwrap_err();
            assert_eq!(crate::failure::exit_code(&error), process::EXIT_USAGE, "{wrong}");
        }
        for key in ["*", "x*", "*x", "x*y*"] {
            let text = format!("a.B/{key}");
            let one = Recipient::One(text.parse().unwrap());
            assert_eq!(Recipient::parse(&text, true).unwrap(), one);
        }
    }
}
