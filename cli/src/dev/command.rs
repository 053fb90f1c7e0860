//! `afdg dev`: the command.

use super::{Ready, options, start};
use crate::{
    arguments::ENDPOINT_DEFAULT,
    environment,
    failure::{tell, usage},
    output::{Output, Table},
};
use afdg_dev_grid::{DevGrid, DevGridOptions, Size};
use afdg_process::ProcessError;
use afdg_runtime::process;
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;
use tokio::io::AsyncReadExt;

#[derive(Args, Debug)]
#[command(
    after_help = "The grid hosts the example agents: counter.v1.Counter, counter.v1.Fanout, bank.v1.Account,
shop.v1.Customer, and order.v1.Order with its Product, Account and Inbox.

Examples:
  afdg dev
  afdg dev --data ./grid                        keeps the data; start it again the same way
  afdg dev --listen 127.0.0.1:0 --ready-file r  for scripts: the file says where, once calls succeed

ctrl-c or SIGTERM ends it, with 'stopped (SIGTERM)' as its last line on standard error."
)]
pub struct DevArgs {
    /// Where clients call; port 0 picks one
    #[arg(long, default_value = "127.0.0.1:7400", value_name = "HOST:PORT", value_parser = address)]
    listen: String,
    #[arg(
        long,
        help = format!("Region nodes [default: {}]", Size::NODES),
        value_parser = clap::value_parser!(u16).range(1..=16),
    )]
    nodes: Option<u16>,
    #[arg(
        long,
        help = format!("Catalog servers: 1, 3 or 5 [default: {}]", Size::CATALOGS),
        value_parser = catalogs,
    )]
    catalogs: Option<u16>,
    #[arg(
        long,
        help = format!("Regions [default: {}]", Size::REGIONS),
        value_parser = clap::value_parser!(u16).range(1..=256),
    )]
    regions: Option<u16>,
    /// Keep the data here; without it, it is removed at the end
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Written once calls succeed: JSON with the endpoint and the servers
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// What is logged to standard error, as in 'info,afdg_router=debug'
    #[arg(long, env = environment::LOG, default_value = "warn,openraft=off", value_name = "FILTER")]
    log: String,
    /// End when standard input is closed: for programs that start a grid and must not leave it behind
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && is_host(host) => Ok(text.to_owned()),
        _ => Err("host:port is wanted, such as 127.0.0.1:7400".to_owned()),
    }
}

/// An address of IPv6 stands in brackets.
fn is_host(text: &str) -> bool {
    !text.is_empty() && (!text.contains(':') || text.starts_with('[') && text.ends_with(']'))
}

fn catalogs(text: &str) -> Result<u16, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("1, 3 or 5 is wanted".to_owned()),
    }
}

pub async fn run(args: DevArgs, output: &mut Output) -> anyhow::Result<u8> {
    if let Err(why) = process::init_tracing(&args.log, false) {
        return usage(why);
    }
    let options = DevGridOptions {
        listen: args.listen.clone(),
        size: Size { catalogs: args.catalogs, nodes: args.nodes, regions: args.regions },
        data: args.data.clone(),
        ..options()
    };
    if let Some(file) = &args.ready_file {
        // One of an earlier grid would be taken for this one's.
        Ready::remove(file)?;
    }
    let end = ending(args.until_stdin_closes);
    tokio::pin!(end);
    // The servers' tasks end with the process if it is told to stop while they start.
    let grid = tokio::select! {
        grid = start(options) => grid?,
        why = &mut end => return Ok(stopped(why?)),
    };
    if let Some(file) = &args.ready_file {
        let written = Ready::of(&grid).write(file);
        written.with_context(|| format!("the ready file {} can't be written", file.display()))?;
    }
    banner(&grid, output)?;
    let ended = tokio::select! {
        why = &mut end => why,
        why = grid.failed() => Err(ProcessError::Server(why).into()),
    };
    if let Some(file) = &args.ready_file {
        // Gone already, perhaps with the folder that it was in.
        let _ = std::fs::remove_file(file);
    }
    grid.stop().await;
    ended.map(stopped)
}

/// The last word of a grid that was told to end, and of nothing else: a log that has it shows that it was no crash.
fn stopped(why: &str) -> u8 {
    tell(format_args!("stopped ({why})"));
    process::EXIT_OK
}

/// What tells the grid to end.
async fn ending(with_stdin: bool) -> anyhow::Result<&'static str> {
    tokio::select! {
        signal = process::termination_by() => Ok(signal?),
        () = stdin_closed(), if with_stdin => Ok("standard input was closed"),
    }
}

async fn stdin_closed() {
    let mut buffer = [0; 64];
    let mut stdin = tokio::io::stdin();
    // An error is an end as well.
    while matches!(stdin.read(&mut buffer).await, Ok(read) if read > 0) {}
}

fn banner(grid: &DevGrid, output: &mut Output) -> std::io::Result<()> {
    let endpoint = grid.endpoint();
    let (folder, kept) = grid.data();
    let mut facts = Table::facts();
    facts.fact("endpoint", format!("{endpoint}   (gRPC, with reflection)"));
    facts.fact(
        "data",
        format!(
            "{}   ({})",
            folder.display(),
            if kept { "kept" } else { "removed at the end; --data keeps it" }
        ),
    );
    facts.fact("agents", "counter.v1.Counter, counter.v1.Fanout, bank.v1.Account, shop.v1.Customer,");
    facts.fact("", "order.v1.Order, order.v1.Product, order.v1.Account, order.v1.Inbox");
    let at = if endpoint == ENDPOINT_DEFAULT { String::new() } else { format!(" --endpoint {endpoint}") };
    output.line(format_args!("A grid runs: {}\n", grid.size()))?;
    output.table(&facts)?;
    output.line(format_args!(
        "\nThe first call, in another terminal:\n\
         \x20 afdg call bank.v1.Account/alice Deposit '{{\"cents\":500}}'{at}\n\
         More: afdg status{at}; afdg type list{at}; afdg agent list{at}\n\
         ctrl-c ends the grid."
    ))
}
