//! `afdg audit`: who changed what in the cluster, and why.

use super::answer;
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

/// Unix time in milliseconds as `2024-02-29T12:34:56Z`.
fn utc(at_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    // Days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_told_as_dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696_000), "2000-02-29T12:34:56Z");
        assert_eq!(utc(1_735_689_599_999), "2024-12-31T23:59:59Z");
        assert_eq!(utc(1_735_689_600_000), "2025-01-01T00:00:00Z");
    }
}
