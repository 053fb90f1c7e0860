//! `afdg node`: the region nodes.

use super::{answer, bytes};
use crate::{
    arguments::{EndpointArgs, Format, OutputArgs},
    client::Client,
    failure::usage,
    output::{Output, Table},
};
use afdg_proto::pb::admin::{ListNodesRequest, Node};
use afdg_runtime::process;
use clap::{Args, Subcommand};
use serde_json::json;

#[derive(Args, Debug)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Subcommand, Debug)]
enum NodeCommand {
    /// All region nodes, with their state and load
    #[command(after_help = "Example:\n  afdg node list -o json | jq '.[] | select(.state != \"live\")'")]
    List {
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// One region node
    #[command(after_help = "Example:\n  afdg node describe node-1")]
    Describe {
        /// The node's name or its id
        node: String,
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub async fn run(args: NodeArgs, output: &mut Output) -> anyhow::Result<u8> {
    match args.command {
        NodeCommand::List { endpoint, output: OutputArgs { output: format } } => {
            let nodes = fetch(&Client::connect(&endpoint).await?).await?;
            match format {
                Format::Json => output.json(&nodes.iter().map(as_json).collect::<Vec<_>>())?,
                Format::Table => output.table(&table(&nodes))?,
            }
        }
        NodeCommand::Describe { node, endpoint, output: OutputArgs { output: format } } => {
            let nodes = fetch(&Client::connect(&endpoint).await?).await?;
            let found = nodes.iter().find(|known| known.name == node || known.id.to_string() == node);
            let Some(found) = found else {
                let known: Vec<_> = nodes.iter().map(|known| known.name.as_str()).collect();
                return usage(format!("no region node '{node}' is known; known are: {}", known.join(", ")));
            };
            match format {
                Format::Json => output.json(&as_json(found))?,
                Format::Table => output.table(&facts(found))?,
            }
        }
    }
    Ok(process::EXIT_OK)
}

/// All region nodes by id.
pub async fn fetch(client: &Client) -> anyhow::Result<Vec<Node>> {
    let listed = client.cluster().list_nodes(ListNodesRequest {}).await;
    let mut nodes = answer(listed, client, "the region nodes")?.nodes;
    nodes.sort_by_key(|node| node.id);
    Ok(nodes)
}

fn seen(node: &Node) -> String {
    node.last_seen_ms.map_or("not yet".to_owned(), |ms| format!("{ms} ms ago"))
}

fn table(nodes: &[Node]) -> Table {
    let mut table =
        Table::new(&["#ID", "NAME", "STATE", "ADDRESS", "ZONE", "#REPLICAS", "#LEADS", "#WAL", "#SEEN"]);
    for node in nodes {
        table.row([
            node.id.to_string(),
            node.name.clone(),
            node.state.clone(),
            node.address.clone(),
            node.zone.clone(),
            node.replicas.to_string(),
            node.leaders.to_string(),
            bytes(node.wal_bytes),
            seen(node),
        ]);
    }
    table
}

fn facts(node: &Node) -> Table {
    let mut facts = Table::facts();
    facts.fact("id", node.id).fact("name", &node.name).fact("state", &node.state);
    facts.fact("address", &node.address).fact("zone", &node.zone);
    facts.fact("replicas", node.replicas).fact("leads", format!("{} regions", node.leaders));
    facts.fact("wal", bytes(node.wal_bytes)).fact("last heartbeat", seen(node));
    facts.fact("agent types", node.types.join(", "));
    facts
}

fn as_json(node: &Node) -> serde_json::Value {
    json!({
        "id": node.id, "name": node.name, "state": node.state, "address": node.address, "zone": node.zone,
        "replicas": node.replicas, "leaders": node.leaders, "last_seen_ms": node.last_seen_ms,
        "wal_bytes": node.wal_bytes, "types": node.types,
    })
}
