//! `afdg demo`: a shop with thousands of customers, each an agent; every purchase is a message.
//!
//! It reads the purchases, feeds them to a grid, stops the leader of most regions half-way (if the grid
//! is its own), and then asks every agent what it has recorded: count, total and dates have to be
//! exactly what the input says.

mod check;
mod failover;
mod feed;
mod made_up;
mod messages;
mod money;
mod persistent;
mod purchases;
mod report;

use crate::{
    arguments::{Format, OutputArgs},
    client::{Client, Pipe},
    dev, environment,
    failure::{tell, usage},
    output::Output,
};
use afdg_dev_grid::DevGrid;
use afdg_runtime::{Entropy, SystemEntropy, process};
use afdg_types::limits::PIPE_IN_FLIGHT_CALLS_MAX;
use clap::Args;
use feed::Names;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use persistent::Persistent;
use purchases::Purchases;
use report::{Facts, Report};
use std::{fmt, path::PathBuf, time::Instant};
use tokio::sync::watch;

/// Longest `--key-prefix`: with a customer's id behind it, it has to fit an agent's key.
const KEY_PREFIX_BYTES_MAX: usize = 200;

#[derive(Args, Debug)]
#[command(after_help = "The file's columns are ID,Date,Amount: who bought, YYYYMMDD, and 0 to 2 decimals.
Exit status 0 means that every agent's count and total are exactly what the input says.

Examples:
  afdg demo
  afdg demo --file purchases.csv
  afdg demo --customers 20000 --purchases 60000 --seed 7 -o json
  afdg demo --endpoint http://127.0.0.1:7400 --key-prefix monday")]
pub struct DemoArgs {
    /// Purchases to feed; without it they are made up from --seed
    #[arg(long, value_name = "CSV", conflicts_with_all = ["customers", "purchases", "seed"])]
    file: Option<PathBuf>,
    /// Customers that are made up
    #[arg(long, default_value_t = 2_000)]
    customers: u32,
    /// Purchases that are made up
    #[arg(long, default_value_t = 6_000)]
    purchases: u32,
    /// The same seed makes up the same purchases
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages in flight, each to another customer
    #[arg(long, default_value_t = 256, value_parser = in_flight)]
    in_flight: usize,
    /// Stands before the customers' keys, so that runs on one grid don't meet; a run with the prefix and
    /// the input of an earlier one repeats its messages, to no effect [default: a new one]
    #[arg(long, value_name = "TEXT")]
    key_prefix: Option<String>,
    /// Customers shown, by total
    #[arg(long, default_value_t = 5, value_name = "N")]
    top: usize,
    /// Use this grid instead of one started for the demo, such as http://127.0.0.1:7400
    #[arg(long, env = environment::ENDPOINT, value_name = "URL")]
    endpoint: Option<String>,
    /// Leave the grid alone: stop no leader half-way
    #[arg(long)]
    no_failover: bool,
    /// What a grid of the demo's own logs to standard error, as in 'warn,afdg_router=debug'
    #[arg(long, env = environment::LOG, default_value = "error,openraft=off", value_name = "FILTER")]
    log: String,
    #[command(flatten)]
    output: OutputArgs,
}

fn in_flight(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=PIPE_IN_FLIGHT_CALLS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("a number from 1 to {PIPE_IN_FLIGHT_CALLS_MAX} is wanted")),
    }
}

pub async fn run(args: DemoArgs, output: &mut Output) -> anyhow::Result<u8> {
    let (input, purchases) = read_input(&args)?;
    let key_prefix = key_prefix(args.key_prefix.as_deref())?;
    tell(format_args!(
        "{} purchases of {} customers: {input}",
        crate::admin::grouped(u64::from(purchases.rows)),
        crate::admin::grouped(purchases.customers.len() as u64)
    ));
    let work = Work { purchases: &purchases, in_flight: args.in_flight, top: args.top };
    let report = match &args.endpoint {
        Some(endpoint) => {
            let client = Client::connect_to(endpoint).await?;
            tokio::select! {
                report = work.feed_and_check(&client, None, input, key_prefix) => report,
                signal = process::termination() => return signal.map_err(Into::into).and_then(|()| stopped()),
            }
        }
        None => {
            if let Err(why) = process::init_tracing(&args.log, false) {
                return usage(why);
            }
            work.on_own_grid(input, key_prefix, args.no_failover).await?
        }
    };
    // What the report says decides, whether or not someone still reads it.
    match args.output.output {
        Format::Json => output.json(&report)?,
        Format::Table => report.print(output)?,
    }
    Ok(if report.exact { process::EXIT_OK } else { process::EXIT_FAILED })
}

/// What is to be done, whatever the grid.
struct Work<'a> {
    purchases: &'a Purchases,
    in_flight: usize,
    top: usize,
}

impl Work<'_> {
    async fn on_own_grid(
        &self,
        input: String,
        key_prefix: String,
        no_failover: bool,
    ) -> anyhow::Result<Report> {
        tell("starting a development grid ...");
        let mut grid = tokio::select! {
            grid = dev::start(dev::options()) => grid?,
            signal = process::termination() => return signal.map_err(Into::into).and_then(|()| stopped()),
        };
        let size = grid.size();
        let client = Client::connect_to(&grid.endpoint()).await?;
        let own = (!no_failover).then_some(&mut grid);
        let report = tokio::select! {
            report = self.feed_and_check(&client, own, input, key_prefix) => Some(report),
            signal = process::termination() => signal.map(|()| None)?,
        };
        // In any case, so that its data is removed.
        grid.stop().await;
        let Some(mut report) = report else { return stopped() };
        report.grid = format!("its own: {size}");
        Ok(report)
    }

    /// `own` is the grid behind `client`, where its servers may be stopped and started.
    async fn feed_and_check(
        &self,
        client: &Client,
        own: Option<&mut DevGrid>,
        input: String,
        key_prefix: String,
    ) -> Report {
        let names = Names { key_prefix: key_prefix.clone() };
        let calls = Persistent::new(Pipe::new(client));
        let recorded = watch::Sender::new(0);
        let rows = u64::from(self.purchases.rows);
        let watching = tokio::spawn(follow(progress_bar(rows, "recorded"), recorded.subscribe()));
        let half_way = failover::half_way(own, rows, recorded.subscribe());
        let feed = feed::feed(self.purchases, &names, &calls, self.in_flight, recorded);
        let (fed, failover) = tokio::join!(feed, half_way);
        watching.abort();
        let start = Instant::now();
        let checked = check::check(self.purchases, &names, &calls, self.in_flight).await;
        Report::of(Facts {
            grid: client.endpoint().to_owned(),
            input,
            key_prefix,
            purchases: self.purchases,
            fed,
            checked,
            check_elapsed: start.elapsed(),
            retries: calls.retries(),
            unknown_outcomes: calls.unknown_outcomes(),
            failover,
            top: self.top,
        })
    }
}

fn stopped<T>() -> anyhow::Result<T> {
    anyhow::bail!("stopped by a signal; nothing was checked")
}

/// What is fed, in words and as purchases.
fn read_input(args: &DemoArgs) -> anyhow::Result<(String, Purchases)> {
    let Some(file) = &args.file else {
        let csv = made_up::csv(args.customers, args.purchases, args.seed)?;
        let name = format!("made up from seed {}", args.seed);
        let purchases = purchases::read(&name, csv.as_bytes())?;
        return Ok((name, purchases));
    };
    let name = file.display().to_string();
    match std::fs::File::open(file) {
        Ok(opened) => Ok((name.clone(), purchases::read(&name, opened)?)),
        Err(error) => usage(format!("the file {name} can't be opened: {error}")),
    }
}

fn key_prefix(given: Option<&str>) -> anyhow::Result<String> {
    let Some(prefix) = given else {
        return Ok(format!("run-{:08x}", SystemEntropy.random_u64() as u32));
    };
    if prefix.len() > KEY_PREFIX_BYTES_MAX || prefix.chars().any(char::is_control) {
        return usage(format!(
            "--key-prefix has at most {KEY_PREFIX_BYTES_MAX} bytes and no control characters"
        ));
    }
    Ok(prefix.to_owned())
}

/// Shown on standard error, if that is a terminal.
fn progress_bar(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let shape = format!("{{wide_bar}} {{human_pos}}/{{human_len}} {what}, {{rate}}/s, {{eta}} left");
    match ProgressStyle::with_template(&shape) {
        Ok(style) => {
            bar.with_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                // A style can't fail, nor can the text that it is made of.
                let _ = write!(out, "{}", crate::admin::grouped(state.per_sec() as u64));
            }))
        }
        Err(_) => bar,
    }
}

async fn follow(bar: ProgressBar, mut recorded: watch::Receiver<u64>) {
    const LOOK_MS: u64 = 100;
    while recorded.changed().await.is_ok() {
        bar.set_position(*recorded.borrow_and_update());
        tokio::time::sleep(std::time::Duration::from_millis(LOOK_MS)).await;
    }
}

#[cfg(test)]
mod tests;
