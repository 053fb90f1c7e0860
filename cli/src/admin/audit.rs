//! `afdg audit`: who changed what in the cluster, and why.

use super::{answer, utc};
use crate::{
    arguments::{EndpointArgs, Format, OutputArgs},
    client::Client,
    output::{Output, Table},
};
use afdg_proto::pb::admin::{AuditRecord, ListAuditRequest};
use afdg_runtime::process;
use clap::{Args, Subcommand};
use serde_json::json;

#[derive(Args, Debug)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Subcommand, Debug)]
enum AuditCommand {
    /// The latest admin actions, newest first
    List {
        /// Show at most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub async fn run(args: AuditArgs, output: &mut Output) -> anyhow::Result<u8> {
    let AuditCommand::List { limit, endpoint, output: OutputArgs { output: format } } = args.command;
    let client = Client::connect(&endpoint).await?;
    let listed = client.cluster().list_audit(ListAuditRequest { limit }).await;
    let records = answer(listed, &client, "the audit log")?.records;
    match format {
        Format::Json => output.json(&records.iter().map(as_json).collect::<Vec<_>>())?,
        Format::Table => {
            let mut table = Table::new(&["#INDEX", "AT (UTC)", "ACTOR", "ACTION", "REASON"]);
            for record in records {
                let at = utc(record.at_ms);
                table.row([record.index.to_string(), at, record.actor, record.action, record.reason]);
            }
            output.table(&table)?;
        }
    }
    Ok(process::EXIT_OK)
}

fn as_json(record: &AuditRecord) -> serde_json::Value {
    json!({
        "index": record.index, "at_ms": record.at_ms, "at": utc(record.at_ms), "actor": record.actor,
        "action": record.action, "reason": record.reason,
    })
}
