//! Simulates whole grids: the real servers, over a simulated network, clock, chance and disk.
//!
//! A process simulates one seed, on one thread, so that nothing of an earlier seed can reach a later one;
//! this program starts as many as there are processors.

mod alarms;
mod clients;
mod clock;
mod cluster;
mod determinism;
mod disk;
mod events;
mod faults;
mod host;
mod invariants;
mod letters;
mod net;
mod referee;
mod runner;
mod simulation;
mod store;
mod witness;

use clap::Parser;
use std::process::ExitCode;

/// Simulates grids from seeds and looks for broken promises.
#[derive(Parser)]
#[command(name = "afdg-sim", version)]
pub struct Arguments {
    /// How many seeds to simulate
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Simulate this seed alone and print what happens in it
    #[arg(long, conflicts_with_all = ["seeds", "first", "twice", "bugs"])]
    seed: Option<u64>,
    /// Simulate each seed twice and compare what happened
    #[arg(long)]
    twice: bool,
    /// Plant each bug in turn and look how many seeds find it
    #[arg(long, conflicts_with = "twice")]
    bugs: bool,
    /// Plant this bug (its names: --bugs)
    #[arg(long, value_name = "NAME", conflicts_with = "bugs")]
    bug: Option<String>,
    /// Processes at the same time [default: as many as processors]
    #[arg(long)]
    jobs: Option<usize>,
    /// Simulate one seed and print its result for the process that started this one
    #[arg(long, hide = true)]
    child: Option<u64>,
}

fn main() -> ExitCode {
    runner::run(&Arguments::parse())
}
