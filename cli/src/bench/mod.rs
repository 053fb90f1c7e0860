//! `afdg bench`: how many calls a grid answers, how fast, and what they cost.
//!
//! Closed loop: so many calls in flight, the next sent when one is answered. Each run warms up first;
//! what happens then is not counted, but an error then is. A run with any error is marked as not valid.

mod child;
mod cpu;
mod pipe;
mod recorder;
mod unary;
mod workload;

use crate::{
    arguments::{Format, OutputArgs},
    client::Client,
    environment,
    failure::tell,
    output::{Output, Table},
};
use afdg_runtime::process;
use afdg_types::limits::PIPE_IN_FLIGHT_CALLS_MAX;
use child::ChildGrid;
use clap::{Args, ValueEnum};
use cpu::Used;
use recorder::{Recorder, Run, Window};
use std::time::Duration;
use workload::{Targets, WorkloadKind};

/// What is in flight where the whole matrix is run.
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];
/// How long each run warms up.
const WARM_UP_MS: u64 = 1_000;

#[derive(Args, Debug)]
#[command(after_help = "Without --workload, --transport or --in-flight, all of them are run.
Without --endpoint, bench starts a development grid as a process of its own and measures its
CPU too. With -o json, each run is one line. Exit status 1 means that a run had errors.

Examples:
  afdg bench
  afdg bench --workload update --transport pipe --in-flight 64 --seconds 10
  afdg bench --endpoint http://127.0.0.1:7400 --server-pid 4711 -o json | jq .rate_per_s")]
pub struct BenchArgs {
    /// What is called: all, unless told
    #[arg(long, value_enum)]
    workload: Option<WorkloadKind>,
    /// How it is called: both ways, unless told
    #[arg(long, value_enum)]
    transport: Option<Transport>,
    /// Calls in flight: 1, 16, 64 and 256 one after the other, unless told
    #[arg(long, value_parser = in_flight)]
    in_flight: Option<usize>,
    /// How long each run lasts, after a second of warm-up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Seed of the random keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measure this grid instead of one started for it, such as http://127.0.0.1:7400
    #[arg(long, env = environment::ENDPOINT, value_name = "URL")]
    endpoint: Option<String>,
    /// Regions of the grid that is started: with few cores, fewer regions share more fsyncs
    #[arg(long, default_value_t = 1, conflicts_with = "endpoint", value_parser = clap::value_parser!(u16).range(1..=256))]
    regions: u16,
    /// A process of the grid at --endpoint, whose CPU time is to be measured; may be repeated
    #[arg(long, value_name = "PID", requires = "endpoint")]
    server_pid: Vec<u32>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Stock gRPC, one call at a time, as any client makes it
    Unary,
    /// The stream afdg.v1.Grid/Pipe
    Pipe,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Pipe => "pipe",
        }
    }
}

fn in_flight(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=PIPE_IN_FLIGHT_CALLS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("a number from 1 to {PIPE_IN_FLIGHT_CALLS_MAX} is wanted")),
    }
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
struct Plan {
    workload: WorkloadKind,
    transport: Transport,
    in_flight: usize,
}

impl BenchArgs {
    fn plans(&self) -> Vec<Plan> {
        let workloads =
            self.workload.map_or_else(|| WorkloadKind::value_variants().to_vec(), |one| vec![one]);
        let transports = self.transport.map_or_else(|| Transport::value_variants().to_vec(), |one| vec![one]);
        let loads = self.in_flight.map_or_else(|| IN_FLIGHT.to_vec(), |one| vec![one]);
        let mut plans = Vec::new();
        for workload in workloads {
            for &transport in &transports {
                plans.extend(loads.iter().map(|&in_flight| Plan { workload, transport, in_flight }));
            }
        }
        plans
    }
}

pub async fn run(args: BenchArgs, output: &mut Output) -> anyhow::Result<u8> {
    let (child, endpoint, server_pids) = match &args.endpoint {
        Some(endpoint) => (None, endpoint.clone(), args.server_pid.clone()),
        None => {
            tell("starting a development grid ...");
            let child = tokio::select! {
                started = ChildGrid::start(args.regions) => started?,
                signal = process::termination() => {
                    signal?;
                    anyhow::bail!("stopped by a signal; nothing was measured");
                }
            };
            let (endpoint, pids) = (child.endpoint().to_owned(), vec![child.pid()]);
            (Some(child), endpoint, pids)
        }
    };
    let result = tokio::select! {
        result = measure(&args, &endpoint, &server_pids, output) => result,
        signal = process::termination() => signal.map_err(anyhow::Error::from).and_then(|()| {
            anyhow::bail!("stopped by a signal; the runs so far are above")
        }),
    };
    if let Some(child) = child {
        child.stop().await;
    }
    result
}

async fn measure(
    args: &BenchArgs,
    endpoint: &str,
    server_pids: &[u32],
    output: &mut Output,
) -> anyhow::Result<u8> {
    let mut runs = Vec::new();
    let ended = run_all(args, endpoint, server_pids, &mut runs, output).await;
    if args.output.output == Format::Table && !runs.is_empty() {
        output.table(&table(&runs))?;
    }
    ended?;
    let invalid = runs.iter().filter(|run| !run.valid).count();
    if invalid > 0 {
        tell(format_args!("error: {invalid} of {} runs had errors; their figures are not valid", runs.len()));
        return Ok(process::EXIT_FAILED);
    }
    Ok(process::EXIT_OK)
}

/// Runs until all are done, one can't be made, or nobody reads on.
async fn run_all(
    args: &BenchArgs,
    endpoint: &str,
    server_pids: &[u32],
    runs: &mut Vec<Run>,
    output: &mut Output,
) -> anyhow::Result<()> {
    let client = Client::connect_to(endpoint).await?;
    let mut filled = false;
    for plan in args.plans() {
        if output.is_closed() {
            break;
        }
        if plan.workload == WorkloadKind::Read && !filled {
            workload::fill(&client).await?;
            filled = true;
        }
        let run = one_run(&client, plan, args, server_pids).await?;
        tell(run.summary());
        if args.output.output == Format::Json {
            output.json_line(&run)?;
        }
        runs.push(run);
    }
    Ok(())
}

async fn one_run(client: &Client, plan: Plan, args: &BenchArgs, server_pids: &[u32]) -> anyhow::Result<Run> {
    let targets = Targets::of(plan.workload, args.seed);
    let window = Window::after(Duration::from_millis(WARM_UP_MS), Duration::from_secs(args.seconds));
    let cpu = tokio::spawn(cpu::over(window, server_pids.to_vec()));
    let recorder: Recorder = match plan.transport {
        Transport::Unary => unary::load(client, targets, plan.in_flight, window).await?,
        Transport::Pipe => pipe::load(client, targets, plan.in_flight, window).await?,
    };
    // A server that has died is told by the calls that failed; its CPU time is then not known.
    let used = cpu.await?.unwrap_or_else(|error| {
        tell(format_args!("no CPU time for this run: {error:#}"));
        Used { client: None, server: None }
    });
    Ok(recorder.into_run(plan.workload.name(), plan.transport.name(), plan.in_flight, used))
}

fn table(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "WORKLOAD",
        "TRANSPORT",
        "#IN FLIGHT",
        "#CALLS/S",
        "#P50 us",
        "#P99 us",
        "#CLIENT CPU us",
        "#SERVER CPU us",
        "#ERRORS",
        "VALID",
    ]);
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
    for run in runs {
        table.row([
            run.workload.to_owned(),
            run.transport.to_owned(),
            run.in_flight.to_string(),
            crate::admin::grouped(run.rate_per_s.round() as u64),
            crate::admin::grouped(run.p50_us),
            crate::admin::grouped(run.p99_us),
            number(run.client_cpu_us_per_op),
            number(run.server_cpu_us_per_op),
            run.errors.to_string(),
            if run.valid { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    table
}
