//! `afdg region`: the Raft groups that own the slots.

use super::{answer, grouped, ids, node, outcome};
use crate::{
    arguments::{ActorArgs, EndpointArgs, Format, OutputArgs},
    client::{CallFailure, Client},
    failure::usage,
    output::{Output, Table},
};
use afdg_proto::pb::admin::{ListRegionsRequest, Region, TransferLeaderRequest};
use afdg_runtime::process;
use clap::{Args, Subcommand};
use serde_json::json;

#[derive(Args, Debug)]
pub struct RegionArgs {
    #[command(subcommand)]
    command: RegionCommand,
}

#[derive(Subcommand, Debug)]
enum RegionCommand {
    /// All regions, with their slots, replicas and leader
    List {
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// One region
    #[command(after_help = "Example:\n  afdg region describe 3")]
    Describe {
        /// The region's id
        region: u64,
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Moves the lead of a region to another of its replicas
    #[command(
        after_help = "Example:\n  afdg region transfer-leader 3 node-2 --reason 'node-1 gets new disks'"
    )]
    TransferLeader(TransferArgs),
}

#[derive(Args, Debug)]
struct TransferArgs {
    /// The region's id
    region: u64,
    /// The name or id of the region node that shall lead; it has to hold a replica
    node: String,
    #[command(flatten)]
    actor: ActorArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

pub async fn run(args: RegionArgs, output: &mut Output) -> anyhow::Result<u8> {
    match args.command {
        RegionCommand::List { endpoint, output: OutputArgs { output: format } } => {
            let regions = fetch(&Client::connect(&endpoint).await?).await?;
            match format {
                Format::Json => output.json(&regions.iter().map(as_json).collect::<Vec<_>>())?,
                Format::Table => output.table(&table(&regions))?,
            }
        }
        RegionCommand::Describe { region, endpoint, output: OutputArgs { output: format } } => {
            let regions = fetch(&Client::connect(&endpoint).await?).await?;
            let found = with_id(&regions, region)?;
            match format {
                Format::Json => output.json(&as_json(found))?,
                Format::Table => output.table(&facts(found))?,
            }
        }
        RegionCommand::TransferLeader(args) => transfer(args, output).await?,
    }
    Ok(process::EXIT_OK)
}

/// All regions by id.
pub async fn fetch(client: &Client) -> anyhow::Result<Vec<Region>> {
    let listed = client.cluster().list_regions(ListRegionsRequest {}).await;
    let mut regions = answer(listed, client, "the regions")?.regions;
    regions.sort_by_key(|region| region.id);
    Ok(regions)
}

fn with_id(regions: &[Region], id: u64) -> anyhow::Result<&Region> {
    if let Some(found) = regions.iter().find(|known| known.id == id) {
        return Ok(found);
    }
    let known: Vec<_> = regions.iter().map(|known| known.id).collect();
    usage(format!("there is no region {id}; there are: {}", ids(&known)))
}

async fn transfer(args: TransferArgs, output: &mut Output) -> anyhow::Result<()> {
    let (actor, reason) = args.actor.checked()?;
    let client = Client::connect(&args.endpoint).await?;
    with_id(&fetch(&client).await?, args.region)?;
    let nodes = node::fetch(&client).await?;
    let Some(to) = nodes.iter().find(|known| known.name == args.node || known.id.to_string() == args.node)
    else {
        return usage(format!("no region node '{}' is known; see 'afdg node list'", args.node));
    };
    let request = TransferLeaderRequest { region: args.region, to_node: to.id, actor, reason };
    let done = client.cluster().transfer_leader(request).await;
    let done = done.map_err(|status| CallFailure::of_status(&status));
    outcome(done, &client, format_args!("the lead of region {} to node {}", args.region, to.name))?;
    output.line(format_args!(
        "region {} was asked to be led by {} (id {}); 'afdg region list' shows when it is",
        args.region, to.name, to.id
    ))?;
    Ok(())
}

fn slots(region: &Region) -> String {
    let one = |range: &afdg_proto::pb::admin::SlotRange| format!("{}-{}", range.first, range.last);
    region.slots.iter().map(one).collect::<Vec<_>>().join(",")
}

fn leader(region: &Region) -> String {
    if region.leader == 0 { "unknown".to_owned() } else { region.leader.to_string() }
}

fn table(regions: &[Region]) -> Table {
    let mut table =
        Table::new(&["#ID", "STATE", "SLOTS", "REPLICAS", "#LEADER", "#TERM", "#APPLIED", "#ACTIVE AGENTS"]);
    for region in regions {
        table.row([
            region.id.to_string(),
            region.state.clone(),
            slots(region),
            ids(&region.replicas),
            leader(region),
            region.term.to_string(),
            region.applied_index.to_string(),
            grouped(region.agents_active),
        ]);
    }
    table
}

fn facts(region: &Region) -> Table {
    let mut facts = Table::facts();
    facts.fact("id", region.id).fact("state", &region.state).fact("slots", slots(region));
    facts.fact("replicas", ids(&region.replicas)).fact("leader", leader(region));
    facts.fact("term", region.term).fact("applied index", region.applied_index);
    facts.fact("active agents", grouped(region.agents_active));
    facts
}

fn as_json(region: &Region) -> serde_json::Value {
    let slots: Vec<_> =
        region.slots.iter().map(|range| json!({"first": range.first, "last": range.last})).collect();
    json!({
        "id": region.id, "state": region.state, "slots": slots, "replicas": region.replicas,
        "leader": (region.leader != 0).then_some(region.leader), "term": region.term,
        "applied_index": region.applied_index, "agents_active": region.agents_active,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_without_a_leader_says_so() {
        let region = Region {
            id: 3,
            slots: vec![afdg_proto::pb::admin::SlotRange { first: 0, last: 9 }],
            replicas: vec![1, 2],
            state: "ready".into(),
            ..Default::default()
        };
        let shown = table(std::slice::from_ref(&region)).to_string();
        assert!(
            shown.ends_with(" 3  ready  0-9    1,2       unknown     0        0              0\n"),
            "{shown}"
        );
        assert_eq!(as_json(&region)["leader"], serde_json::Value::Null);
    }
}
