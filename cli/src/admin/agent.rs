//! `afdg agent`: the agents that have data.

use super::{activity, answer, check_names, grouped, utc};
use crate::{
    arguments::{EndpointArgs, Format, OutputArgs, duration},
    client::{CallFailure, Client},
    failure::{Usage, tell},
    output::{Output, Table},
};
use afdg_proto::pb::admin::{
    InspectAgentRequest, InspectAgentResponse, ListAgentsRequest, ListBlockedAgentsRequest,
};
use afdg_runtime::process;
use afdg_types::{
    AgentRef, Reason,
    limits::{INSPECT_ITEMS_MAX, LIST_AGENTS_MAX, LIST_BLOCKED_AGENTS_MAX},
};
use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Args, Debug)]
pub struct AgentArgs {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Subcommand, Debug)]
enum AgentCommand {
    /// Agents that have data, region by region
    #[command(after_help = "Examples:
  afdg agent list --type bank.v1.Account
  afdg agent list --limit 0 | wc -l

With -o json, each agent is one JSON string on a line.")]
    List {
        /// Only agents of this type
        #[arg(long = "type", value_name = "TYPE", default_value = "")]
        agent_type: String,
        /// Show at most so many; 0 shows all
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Where an agent lives, what it is doing and what it holds, without the items
    Describe(OneArgs),
    /// Agents that wait for calls to other agents, the longest waits first
    #[command(after_help = "Examples:
  afdg agent blocked
  afdg agent blocked --type bank.v1.Account --min 5s --limit 10

Each region is asked at its own moment, and tells of the agents that take turns: calls that a read-only
method makes are not shown.")]
    Blocked {
        /// Only agents of this type
        #[arg(long = "type", value_name = "TYPE", default_value = "")]
        agent_type: String,
        /// Only those that have waited for so long
        #[arg(long, default_value = "1s", value_parser = duration, allow_hyphen_values = true)]
        min: Duration,
        /// Show at most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIST_BLOCKED_AGENTS_MAX)))]
        limit: u32,
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Where an agent lives, what it is doing and everything that it holds, items as JSON
    #[command(after_help = "Example:\n  afdg agent inspect bank.v1.Account/alice")]
    Inspect {
        /// Items shown of each entity, from its start
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(INSPECT_ITEMS_MAX)))]
        items: u32,
        #[command(flatten)]
        one: OneArgs,
    },
}

#[derive(Args, Debug)]
struct OneArgs {
    /// The agent's type and key, such as bank.v1.Account/alice
    #[arg(value_name = "TYPE/KEY")]
    agent: String,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: AgentArgs, output: &mut Output) -> anyhow::Result<u8> {
    match args.command {
        AgentCommand::List { agent_type, limit, endpoint, output: OutputArgs { output: format } } => {
            let client = Client::connect(&endpoint).await?;
            list(&client, &agent_type, limit, format, output).await?;
        }
        AgentCommand::Blocked { agent_type, min, limit, endpoint, output: OutputArgs { output: format } } => {
            let client = Client::connect(&endpoint).await?;
            let waiting_ms_min = min.as_millis() as u64;
            let request = ListBlockedAgentsRequest { r#type: agent_type.clone(), waiting_ms_min, limit };
            let asked = client.agents().list_blocked_agents(request).await;
            let found = answer(asked, &client, "the agents that wait for others")?;
            if found.agents.is_empty() {
                check_names(&client, "", &agent_type, "").await?;
            }
            activity::print_blocked(&found, min, format, output)?;
        }
        AgentCommand::Describe(one) => {
            let found = fetch(&one, 1).await?;
            match one.output.output {
                Format::Json => output.json(&as_json(&found, false)?)?,
                Format::Table => describe(&found, output)?,
            }
        }
        AgentCommand::Inspect { items, one } => {
            let found = fetch(&one, items).await?;
            match one.output.output {
                Format::Json => output.json(&as_json(&found, true)?)?,
                Format::Table => {
                    describe(&found, output)?;
                    print_items(&found, output)?;
                }
            }
        }
    }
    Ok(process::EXIT_OK)
}

async fn list(
    client: &Client,
    agent_type: &str,
    limit: usize,
    format: Format,
    output: &mut Output,
) -> anyhow::Result<()> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut shown = 0;
    let mut page_token = String::new();
    loop {
        let page_size = limit.saturating_sub(shown).clamp(1, LIST_AGENTS_MAX as usize) as u32;
        let request = ListAgentsRequest { r#type: agent_type.to_owned(), page_token, page_size };
        let page = answer(client.agents().list_agents(request).await, client, "the agents")?;
        for agent in page.agents.iter().take(limit - shown) {
            match format {
                Format::Json => output.json_line(agent)?,
                Format::Table => output.line(crate::output::plain(agent))?,
            }
            shown += 1;
        }
        if shown == 0 && page.next_page_token.is_empty() {
            check_names(client, "", agent_type, "").await?;
        }
        if output.is_closed() || page.next_page_token.is_empty() {
            return Ok(());
        }
        if shown >= limit {
            tell(format_args!("the first {} are shown; --limit 0 shows all", grouped(shown as u64)));
            return Ok(());
        }
        page_token = page.next_page_token;
    }
}

async fn fetch(one: &OneArgs, items_max: u32) -> anyhow::Result<InspectAgentResponse> {
    let agent: AgentRef = one.agent.parse().map_err(|error| Usage(format!("{error}")))?;
    let client = Client::connect(&one.endpoint).await?;
    let request = InspectAgentRequest { agent: agent.to_string(), items_max };
    let found = client.agents().inspect_agent(request).await;
    let is_unknown = |status| CallFailure::of_read(status).reason == Reason::UnknownType.as_str();
    if found.as_ref().is_err_and(is_unknown) {
        check_names(&client, agent.as_str(), "", "").await?;
    }
    answer(found, &client, format_args!("the agent {agent}"))
}

fn describe(found: &InspectAgentResponse, output: &mut Output) -> anyhow::Result<()> {
    let mut facts = Table::facts();
    facts.fact("agent", &found.agent).fact("slot", found.slot).fact("region", found.region);
    facts.fact("leader", if found.leader == 0 { "unknown".into() } else { format!("node {}", found.leader) });
    facts.fact("activity", &found.activity);
    activity::facts(found, &mut facts);
    facts.fact("accepted sends", sends_shown(found));
    facts.fact("schedules", schedules_shown(found));
    output.table(&facts)?;
    activity::print_waits(found, output)?;
    output.line("")?;
    if found.entities.is_empty() {
        output.line("it has no data")?;
        return Ok(());
    }
    let mut table = Table::new(&["ENTITY", "#ITEMS"]);
    for entity in &found.entities {
        table.row([entity.key.clone(), grouped(entity.length)]);
    }
    output.table(&table)?;
    Ok(())
}

fn schedules_shown(found: &InspectAgentResponse) -> String {
    match found.schedules {
        0 => "none".to_owned(),
        count => format!("{}; see 'afdg schedule list --agent {}'", grouped(count.into()), found.agent),
    }
}

fn sends_shown(found: &InspectAgentResponse) -> String {
    let count = grouped(found.sends.into());
    match (found.sends, found.next_due_ms) {
        (0, _) => "none".to_owned(),
        (_, 0) => count,
        (_, due_ms) => format!("{count}, the first due at {}", utc(due_ms)),
    }
}

fn print_items(found: &InspectAgentResponse, output: &mut Output) -> anyhow::Result<()> {
    for entity in &found.entities {
        let items = items(&entity.items_json)?;
        output.line(format_args!("\n{}", crate::output::plain(&entity.key)))?;
        for (place, item) in items.iter().enumerate() {
            output.line(format_args!("  {place}: {item}"))?;
        }
        let more = entity.length.saturating_sub(items.len() as u64);
        if more > 0 {
            output.line(format_args!("  and {} more; see --items", grouped(more)))?;
        }
    }
    Ok(())
}

fn items(json: &str) -> anyhow::Result<Vec<Value>> {
    serde_json::from_str(json).context("the grid sent items that are no JSON list")
}

fn as_json(found: &InspectAgentResponse, with_items: bool) -> anyhow::Result<Value> {
    let mut entities = Vec::new();
    for entity in &found.entities {
        let mut shown = json!({"key": entity.key, "length": entity.length});
        if with_items {
            shown["items"] = items(&entity.items_json)?.into();
        }
        entities.push(shown);
    }
    Ok(json!({
        "agent": found.agent, "slot": found.slot, "region": found.region,
        "leader": (found.leader != 0).then_some(found.leader), "activity": found.activity,
        "turn": found.turn.as_ref().map(activity::turn_as_json),
        "waiting": found.waiting, "held": found.held,
        "next": found.next.iter().map(activity::queued_as_json).collect::<Vec<_>>(), "sends": found.sends,
        "next_due_ms": (found.next_due_ms != 0).then_some(found.next_due_ms), "schedules": found.schedules, "entities": entities,
    }))
}
