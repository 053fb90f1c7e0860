//! `afdg type`: the agent types that the grid knows.

use crate::{
    arguments::{EndpointArgs, Format, OutputArgs},
    call::{fetch_types, methods_shown},
    client::Client,
    output::{Output, Table},
};
use afdg_proto::pb::admin::AgentType;
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
    /// One agent type, with its methods and their fields
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
    }
    Ok(process::EXIT_OK)
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
    output.table(&facts)?;
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
    json!({"name": agent_type.name, "version": agent_type.version, "methods": methods})
}
