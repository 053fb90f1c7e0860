//! Many times the load that a grid can take, and whether it goes on: what it gets done meanwhile, what that does
//! to the calls of another agent type, how much memory it takes, and how soon it is well again.
//!
//! ```text
//! cargo run --release -p afdg-tests --bin overload -- --seconds 60 --times 10
//! ```
//!
//! A development grid runs as a process of its own. What it can take is measured first, by as many calls as it
//! answers; with `--limit N` the catalog lets in `N` messages a second of the type in each region, so that the
//! grid and not this program is short of something. Then calls are sent at so many times that rate, whether
//! earlier ones are answered or not. This program, the clients, runs on the same machine: it says how much of
//! the processors it took itself. Exits with 0 if all bounds held, 1 if one did not, 2 if there was no run.

mod grid;
mod sender;

use afdg_tests::afdg;
use anyhow::{Context, ensure};
use clap::Parser;
use grid::Grid;
use sender::{Counts, Sender};
use std::{
    io::Write,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const EXIT_BOUND_PASSED: u8 = 1;
const EXIT_NO_RUN: u8 = 2;
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// How often another type's call is made, one after the other.
const NEIGHBOUR_EVERY: Duration = Duration::from_millis(10);

/// Sends a grid many times the load that it can take, and checks what becomes of it.
#[derive(Debug, Parser)]
#[command(name = "overload")]
struct Arguments {
    /// How long the overload lasts, seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many times what the grid can take is sent.
    #[arg(long, default_value_t = 10)]
    times: u64,
    /// Messages a second that each region admits of the type that is sent; 0 for as many as it can.
    #[arg(long, default_value_t = 500)]
    limit: u64,
    /// Milliseconds that messages of the type may wait for a region, in the mean; by default as the grid has it.
    #[arg(long)]
    wait_ms: Option<u64>,
    /// Bytes that the grid's process may have resident in memory, MiB: what its queues, caches and logs may hold.
    #[arg(long, default_value_t = 2_048)]
    memory_mib: u64,
    /// How long each measurement without overload takes, seconds.
    #[arg(long, default_value_t = 10)]
    calm_seconds: u64,
    /// What has to get done under overload, of the best.
    #[arg(long, default_value_t = 0.7)]
    goodput_min: f64,
    /// How many times as long as alone another type's calls may take beside the overload, at their p99.
    #[arg(long, default_value_t = 2.0)]
    neighbour_times_max: f64,
    /// The program `afdg`; by default the one beside this one, which is built if need be.
    #[arg(long)]
    afdg: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_BOUND_PASSED),
        Err(error) => {
            say(format_args!("error: {error:#}"));
            ExitCode::from(EXIT_NO_RUN)
        }
    }
}

fn say(line: std::fmt::Arguments<'_>) {
    // A closed pipe harms nobody.
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let grid = Grid::start(&afdg::find(arguments.afdg.as_deref())?).await?;
    let rate = (arguments.limit > 0).then_some(("turns_per_second_max", arguments.limit));
    let wait = arguments.wait_ms.map(|wait_ms| ("wait_ms_max", wait_ms));
    grid.limit(rate.into_iter().chain(wait)).await?;
    let sender = Sender::connect(&grid.endpoint).await?;
    let calm = Duration::from_secs(arguments.calm_seconds);
    let (alone, _) = beside(&grid, tokio::time::sleep(calm)).await?;
    let best = sender.answered_in(calm).await?.done as f64 / calm.as_secs_f64();
    ensure!(best > 0.0, "the grid answered no call");
    // What the neighbour has to bear from a type that sends as much as may be and no more.
    let (busy, _) = beside(&grid, sender.send_at(best as u64, calm)).await?;
    let offered = best as u64 * arguments.times;
    let seconds = Duration::from_secs(arguments.seconds);
    say(format_args!("the grid answers {best:.0} calls a second; now {offered} a second are sent"));
    let (watched, before) = (grid.watch_memory(), grid.cpu());
    let started = Instant::now();
    let (overload, counts) = beside(&grid, sender.send_at(offered, seconds)).await?;
    let began = Instant::now();
    let (memory, after) = (watched.highest(), grid.cpu());
    let took = began.duration_since(started).as_secs_f64();
    let recovery = recovery(&sender, best).await?;
    let counts = counts?;
    let goodput = counts.done as f64 / seconds.as_secs_f64();
    say(format_args!(
        "sent        {} in {} s ({:.1} times what it can take)",
        counts.sent,
        arguments.seconds,
        counts.sent as f64 / seconds.as_secs_f64() / best
    ));
    say(format_args!(
        "done        {} ({goodput:.0} a second, {:.0} % of the best)",
        counts.done,
        100.0 * goodput / best
    ));
    say(format_args!(
        "refused     {} with a pause to wait, {} otherwise, {} without an answer",
        counts.refused, counts.failed, counts.unanswered
    ));
    if let Some(failure) = &counts.first_failure {
        say(format_args!("            otherwise: {failure}"));
    }
    say(format_args!(
        "neighbour   p99 {:.1} ms alone, {:.1} ms beside what may be, {:.1} ms beside the overload",
        alone.p99_ms, busy.p99_ms, overload.p99_ms
    ));
    say(format_args!(
        "            {:.1} times as long as alone, {:.1} times as long as beside what may be",
        overload.p99_ms / alone.p99_ms,
        overload.p99_ms / busy.p99_ms
    ));
    say(format_args!(
        "            p50 {:.1} ms alone, {:.1} ms beside what may be, {:.1} ms beside the overload",
        alone.p50_ms, busy.p50_ms, overload.p50_ms
    ));
    say(format_args!(
        "processors  {:.2} by the grid, {:.2} by the clients",
        (after.grid - before.grid).as_secs_f64() / took,
        (after.here - before.here).as_secs_f64() / took
    ));
    say(format_args!("memory      {} MiB at most; {} may be", memory >> 20, arguments.memory_mib));
    match recovery {
        Some(at) => say(format_args!("well again  after {:.1} s", at.duration_since(began).as_secs_f64())),
        None => say(format_args!("well again  not within {} s", RECOVERY_MAX.as_secs())),
    }
    grid.stop().await?;
    let bounds = [
        ("goodput", goodput >= arguments.goodput_min * best),
        ("another type's time", overload.p99_ms <= arguments.neighbour_times_max * alone.p99_ms),
        ("memory", memory >> 20 <= arguments.memory_mib),
        ("recovery", recovery.is_some()),
        ("refusals with a hint", counts.failed == 0),
        ("an answer for each call", counts.unanswered == 0),
    ];
    for (bound, _) in bounds.iter().filter(|(_, held)| !held) {
        say(format_args!("NOT KEPT: {bound}"));
    }
    Ok(bounds.iter().all(|(_, held)| *held))
}

/// How long a neighbour's calls took.
struct Latency {
    p50_ms: f64,
    p99_ms: f64,
}

/// The neighbour's calls as long as `load` goes on.
async fn beside<T>(grid: &Grid, load: impl Future<Output = T>) -> anyhow::Result<(Latency, T)> {
    let stop = Arc::<AtomicBool>::default();
    let (told, neighbour) = (Arc::clone(&stop), grid.neighbour().await?);
    let calls = tokio::spawn(async move {
        let mut times = Vec::new();
        while !told.load(Relaxed) {
            let began = Instant::now();
            neighbour.call().await?;
            times.push(began.elapsed());
            tokio::time::sleep(NEIGHBOUR_EVERY).await;
        }
        anyhow::Ok(times)
    });
    let result = load.await;
    stop.store(true, Relaxed);
    let mut times = calls.await??;
    times.sort_unstable();
    let ms =
        |percent| times.get(times.len() * percent / 100).map(|time: &Duration| time.as_secs_f64() * 1_000.0);
    let latency = ms(50).zip(ms(99)).map(|(p50_ms, p99_ms)| Latency { p50_ms, p99_ms });
    Ok((latency.context("the neighbour called nobody")?, result))
}

/// When half of what the grid can take is answered without a refusal again, for a second.
async fn recovery(sender: &Sender, best: f64) -> anyhow::Result<Option<Instant>> {
    let end = Instant::now() + RECOVERY_MAX;
    while Instant::now() < end {
        let began = Instant::now();
        let Counts { sent, done, .. } = sender.send_at(best as u64 / 2, Duration::from_secs(1)).await?;
        if sent == done {
            return Ok(Some(began));
        }
    }
    Ok(None)
}
