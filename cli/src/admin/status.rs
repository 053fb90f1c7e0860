//! `afdg status`: is the grid well?

use super::{answer, grouped};
use crate::{
    arguments::{EndpointArgs, Format, OutputArgs},
    client::Client,
    output::{Output, Table},
};
use afdg_proto::pb::admin::{GetStatusRequest, GetStatusResponse, ListDeadLettersRequest};
use afdg_runtime::process;
use afdg_types::limits::LIST_DEAD_LETTERS_MAX;
use clap::Args;
use serde_json::json;
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
#[command(after_help = "Exit status 1 means that something is missing: a node, a leader, a replica.

Examples:
  afdg status
  afdg status -o json | jq .healthy")]
pub struct StatusArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: StatusArgs, output: &mut Output) -> anyhow::Result<u8> {
    let client = Client::connect(&args.endpoint).await?;
    let status = fetch(&client).await?;
    let wrong = troubles(&status);
    let dead_letters = count_dead_letters(&client).await;
    match args.output.output {
        Format::Json => output.json(&as_json(&status, &wrong, dead_letters))?,
        Format::Table => print(&status, &wrong, dead_letters, output)?,
    }
    Ok(if wrong.is_empty() { process::EXIT_OK } else { process::EXIT_FAILED })
}

pub async fn fetch(client: &Client) -> anyhow::Result<GetStatusResponse> {
    let status = client.cluster().get_status(GetStatusRequest {}).await;
    answer(status, client, "the grid's status")
}

/// Dead letters that are counted; if there are more, this is what is said.
const DEAD_LETTERS_COUNTED_MAX: u32 = LIST_DEAD_LETTERS_MAX;

/// How many there are, up to the bound; none if it can't be known, as while a region has no leader.
async fn count_dead_letters(client: &Client) -> Option<usize> {
    let end = Instant::now() + DEAD_LETTERS_TIME_MAX;
    let (mut count, mut page_token) = (0, String::new());
    loop {
        let page_size = DEAD_LETTERS_COUNTED_MAX - count as u32;
        let mut request = tonic::Request::new(ListDeadLettersRequest {
            page_size,
            page_token,
            ..ListDeadLettersRequest::default()
        });
        request.set_timeout(end.saturating_duration_since(Instant::now()));
        let page = client.dead_letters().list_dead_letters(request).await.ok()?.into_inner();
        count += page.letters.len().min(page_size as usize);
        // A page of a grid with many regions may be short, or empty, though more follow.
        if page.next_page_token.is_empty() || count >= DEAD_LETTERS_COUNTED_MAX as usize {
            return Some(count);
        }
        page_token = page.next_page_token;
    }
}

/// `afdg status` is for a grid that is not well, too: it does not wait long.
const DEAD_LETTERS_TIME_MAX: Duration = Duration::from_secs(2);

fn dead_letters_shown(count: Option<usize>) -> String {
    match count {
        None => "not known".to_owned(),
        Some(0) => "none".to_owned(),
        Some(count) => {
            let more = if count >= DEAD_LETTERS_COUNTED_MAX as usize { " or more" } else { "" };
            format!("{}{more}; see 'afdg dead-letter list'", grouped(count as u64))
        }
    }
}

/// What is not as it should be, in words.
pub fn troubles(status: &GetStatusResponse) -> Vec<String> {
    let mut wrong = Vec::new();
    if !status.catalog.iter().any(|server| server.leader) {
        wrong.push("the catalog has no leader: no change of the cluster is possible".to_owned());
    }
    if status.nodes_live < status.nodes_known {
        let missing = status.nodes_known - status.nodes_live;
        wrong.push(format!(
            "{missing} of {} region nodes are not live; see 'afdg node list'",
            status.nodes_known
        ));
    }
    if status.regions_with_leader < status.regions {
        let without = status.regions - status.regions_with_leader;
        wrong.push(format!("{without} of {} regions have no leader; see 'afdg region list'", status.regions));
    }
    if status.regions_under_replicated > 0 {
        let fewer = status.regions_under_replicated;
        wrong.push(format!("{fewer} regions have fewer than {} replicas", status.replicas_wanted));
    }
    wrong
}

fn print(
    status: &GetStatusResponse,
    wrong: &[String],
    dead_letters: Option<usize>,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut facts = Table::facts();
    facts.fact("cluster", &status.cluster_id);
    facts.fact("health", if wrong.is_empty() { "all well" } else { "impaired" });
    for what in wrong {
        facts.fact("", what);
    }
    facts.fact("region nodes", format!("{} live of {}", status.nodes_live, status.nodes_known));
    facts.fact(
        "regions",
        format!(
            "{}, {} with a leader, {} with fewer than {} replicas",
            status.regions,
            status.regions_with_leader,
            status.regions_under_replicated,
            status.replicas_wanted
        ),
    );
    facts.fact("agent types", status.types);
    facts.fact("dead letters", dead_letters_shown(dead_letters));
    facts.fact("routing epoch", status.routing_epoch);
    output.table(&facts)?;
    let mut table = Table::new(&["CATALOG", "ADDRESS", "ROLE", "#APPLIED"]);
    for server in &status.catalog {
        let role = if server.leader { "leader" } else { "follower" };
        table.row([
            server.id.to_string(),
            server.address.clone(),
            role.to_owned(),
            // A server knows no other's.
            if server.applied_index == 0 { "-".to_owned() } else { server.applied_index.to_string() },
        ]);
    }
    output.line("")?;
    output.table(&table)?;
    Ok(())
}

fn as_json(status: &GetStatusResponse, wrong: &[String], dead_letters: Option<usize>) -> serde_json::Value {
    let catalog: Vec<_> = status
        .catalog
        .iter()
        .map(|server| {
            let applied_index = (server.applied_index > 0).then_some(server.applied_index);
            json!({"id": server.id, "address": server.address, "leader": server.leader,
                   "applied_index": applied_index})
        })
        .collect();
    json!({
        "cluster_id": status.cluster_id,
        "healthy": wrong.is_empty(),
        "troubles": wrong,
        "routing_epoch": status.routing_epoch,
        "catalog": catalog,
        "nodes_live": status.nodes_live,
        "nodes_known": status.nodes_known,
        "regions": status.regions,
        "regions_with_leader": status.regions_with_leader,
        "regions_under_replicated": status.regions_under_replicated,
        "replicas_wanted": status.replicas_wanted,
        "types": status.types,
        "dead_letters": dead_letters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_proto::pb::admin::CatalogServer;

    #[test]
    fn dead_letters_are_counted_up_to_a_bound() {
        assert_eq!(dead_letters_shown(None), "not known");
        assert_eq!(dead_letters_shown(Some(0)), "none");
        assert_eq!(dead_letters_shown(Some(3)), "3; see 'afdg dead-letter list'");
        assert!(dead_letters_shown(Some(1_000)).starts_with("1,000 or more; "));
    }

    fn well() -> GetStatusResponse {
        GetStatusResponse {
            catalog: vec![CatalogServer { leader: true, ..Default::default() }],
            nodes_live: 3,
            nodes_known: 3,
            regions: 6,
            regions_with_leader: 6,
            replicas_wanted: 3,
            ..Default::default()
        }
    }

    #[test]
    fn every_missing_part_is_named() {
        assert!(troubles(&well()).is_empty());
        assert!(troubles(&GetStatusResponse { nodes_live: 2, ..well() })[0].contains("1 of 3 region nodes"));
        assert!(
            troubles(&GetStatusResponse { regions_with_leader: 5, ..well() })[0].contains("1 of 6 regions")
        );
        assert_eq!(troubles(&GetStatusResponse { regions_under_replicated: 2, ..well() }).len(), 1);
        assert!(troubles(&GetStatusResponse { catalog: Vec::new(), ..well() })[0].contains("no leader"));
    }
}
