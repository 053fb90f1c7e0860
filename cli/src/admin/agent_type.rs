//! `afdg type`: the agent types that the grid knows.

use super::{grouped, outcome};
use crate::{
    arguments::{ActorArgs, EndpointArgs, Format, OutputArgs},
    call::{fetch_types, methods_shown, reentrancy},
    client::{CallFailure, Client},
    failure::usage,
    output::{Output, Table},
};
use afdg_proto::pb::admin::{AgentType, SetTypeLimitsRequest, TypeLimit};
use afdg_runtime::process;
use clap::{Args, Subcommand};
use serde_json::json;

#[derive(Args, Debug)]
pub struct TypeArgs {
    #[command(subcommand)]
    command: TypeCommand,
}

#[derive(Subcommand, Debug)]
enum TypeCommand {
    /// All agent types
    List {
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// One agent type, with its limits, its methods and their fields
    #[command(after_help = "Example:\n  afdg type describe bank.v1.Account")]
    Describe {
        /// The type's name, such as bank.v1.Account
        #[arg(value_name = "TYPE")]
        name: String,
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Sets limits of an agent type, for all nodes, while the grid runs
    #[command(
        after_help = "Examples:\n  afdg type limit bank.v1.Account turns_per_second_max=500 --reason 'a flood of deposits'\n  \
                      afdg type limit bank.v1.Account turns_per_second_max=default --reason 'the flood is over'\n\n\
                      'afdg type describe' shows all limits, what they mean and what they can be."
    )]
    Limit(LimitArgs),
}

#[derive(Args, Debug)]
struct LimitArgs {
    /// The type's name, such as bank.v1.Account
    #[arg(value_name = "TYPE")]
    name: String,
    /// A limit and its new value, or 'default'
    #[arg(value_name = "LIMIT=VALUE", required = true, value_parser = setting)]
    settings: Vec<(String, Option<u64>)>,
    #[command(flatten)]
    actor: ActorArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn setting(text: &str) -> Result<(String, Option<u64>), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("write it as limit=value, such as turn_ms_max=500, or limit=default".to_owned());
    };
    let limit: afdg_types::TypeLimit =
        name.parse().map_err(|error: afdg_types::UnknownLimit| error.to_string())?;
    if value == "default" {
        return Ok((name.to_owned(), None));
    }
    let number = whole_number(value)
        .ok_or_else(|| format!("'{value}' is no whole number such as 1000 or 1,000, nor 'default'"))?;
    limit.check(number).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), Some(number)))
}

/// Digits, or groups of three with commas between them as they are printed: `1,5` is not 15.
fn whole_number(text: &str) -> Option<u64> {
    let digits = text.replace(',', "");
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    (text == digits || text == grouped(number)).then_some(number)
}

pub async fn run(args: TypeArgs, output: &mut Output) -> anyhow::Result<u8> {
    match args.command {
        TypeCommand::List { endpoint, output: OutputArgs { output: format } } => {
            let types = fetch_types(&Client::connect(&endpoint).await?).await?;
            match format {
                Format::Json => output.json(&types.all().iter().map(as_json).collect::<Vec<_>>())?,
                Format::Table => output.table(&table(types.all()))?,
            }
        }
        TypeCommand::Describe { name, endpoint, output: OutputArgs { output: format } } => {
            let types = fetch_types(&Client::connect(&endpoint).await?).await?;
            let found = types.named(&name)?;
            match format {
                Format::Json => output.json(&as_json(found))?,
                Format::Table => describe(found, output)?,
            }
        }
        TypeCommand::Limit(args) => limit(args, output).await?,
    }
    Ok(process::EXIT_OK)
}

async fn limit(args: LimitArgs, output: &mut Output) -> anyhow::Result<()> {
    let (actor, reason) = args.actor.checked()?;
    let mut request = SetTypeLimitsRequest { r#type: args.name.clone(), actor, reason, ..Default::default() };
    for (name, value) in args.settings {
        let twice = request.set.contains_key(&name) || request.reset.contains(&name);
        if twice {
            return usage(format!("{name} is given twice"));
        }
        match value {
            Some(value) => drop(request.set.insert(name, value)),
            None => request.reset.push(name),
        }
    }
    let client = Client::connect(&args.endpoint).await?;
    fetch_types(&client).await?.named(&args.name)?;
    let done = client.cluster().set_type_limits(request).await;
    let done = done.map_err(|status| CallFailure::of_status(&status));
    let limits = outcome(done, &client, format_args!("limits of {}", args.name))?.limits;
    match args.output.output {
        Format::Json => output.json(&limits.iter().map(limit_json).collect::<Vec<_>>())?,
        Format::Table => {
            output.table(&limits_table(&limits))?;
            output.line(MARK_MEANING)?;
        }
    }
    Ok(())
}

/// A limit that is set stays as it is when the default changes with the program, even where both are the same now.
const MARK_MEANING: &str =
    "* set with 'afdg type limit', be it to the default's value; LIMIT=default undoes it";

/// Those that were set are marked.
fn limits_table(limits: &[TypeLimit]) -> Table {
    let mut table = Table::new(&["LIMIT", "#VALUE", "#DEFAULT", "#CAN BE", "MEANING"]);
    for limit in limits {
        let mark = if limit.set { "* " } else { "" };
        let value = format!("{mark}{}", grouped(limit.value));
        let range = format!("{} to {}", grouped(limit.min), grouped(limit.max));
        table.row([limit.name.clone(), value, grouped(limit.default), range, limit.meaning.clone()]);
    }
    table
}

fn limit_json(limit: &TypeLimit) -> serde_json::Value {
    json!({"name": limit.name, "value": limit.value, "default": limit.default, "min": limit.min, "max": limit.max,
           "set": limit.set, "meaning": limit.meaning})
}

fn table(types: &[AgentType]) -> Table {
    let mut table = Table::new(&["TYPE", "VERSION", "METHODS"]);
    for agent_type in types {
        let methods: Vec<_> = agent_type.methods.iter().map(|method| method.name.as_str()).collect();
        table.row([agent_type.name.clone(), short(&agent_type.version), methods.join(", ")]);
    }
    table
}

fn describe(agent_type: &AgentType, output: &mut Output) -> anyhow::Result<()> {
    let mut facts = Table::facts();
    facts.fact("type", &agent_type.name).fact("version", &agent_type.version);
    if let Some(reentrancy) = reentrancy(agent_type)? {
        facts.fact("reentrant", reentrancy);
    }
    output.table(&facts)?;
    output.line(format_args!("\nlimits ({MARK_MEANING})"))?;
    output.table(&limits_table(&agent_type.limits))?;
    for method in methods_shown(agent_type)? {
        let read_only = if method.read_only { "   read-only" } else { "" };
        let mut facts = Table::facts();
        facts.fact("  request", method.request).fact("  response", method.response);
        output.line(format_args!("\n{}{read_only}", method.name))?;
        output.table(&facts)?;
    }
    Ok(())
}

/// Enough of a hash to tell versions apart.
fn short(version: &str) -> String {
    version.chars().take(12).collect()
}

fn as_json(agent_type: &AgentType) -> serde_json::Value {
    let methods: Vec<_> = agent_type
        .methods
        .iter()
        .map(|method| {
            json!({"name": method.name, "read_only": method.read_only, "request": method.request,
                   "response": method.response})
        })
        .collect();
    let limits: Vec<_> = agent_type.limits.iter().map(limit_json).collect();
    let reentrant = reentrancy(agent_type).ok().flatten();
    json!({"name": agent_type.name, "version": agent_type.version, "reentrant": reentrant, "methods": methods,
           "limits": limits})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limits_value_is_a_whole_number_as_it_is_printed() {
        for (text, number) in [("0", 0), ("1024", 1_024), ("1,024", 1_024), ("10,000,000", 10_000_000)] {
            assert_eq!(whole_number(text), Some(number), "{text}");
        }
        for wrong in
            ["", ",", "1,5", "1,0000", ",100", "1e3", "+1", "-1", "1.0", "1_000", "99999999999999999999"]
        {
            assert_eq!(whole_number(wrong), None, "{wrong}");
        }
        let told = setting("turn_ms_max=1e3").unwrap_err();
        assert_eq!(told, "'1e3' is no whole number such as 1000 or 1,000, nor 'default'");
    }
}
