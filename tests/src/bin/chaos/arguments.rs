//! The command line.

use crate::nemesis::Kind;
use clap::Parser;
use std::{path::PathBuf, time::Duration};

/// Calls a grid of real processes while they are killed, frozen, cut off and misled, and checks that every
/// answer fits one order of the calls. Exits with 0 only if nothing was wrong.
#[derive(Clone, Debug, Parser)]
#[command(name = "chaos")]
pub struct Arguments {
    /// How long faults go on; start, last reads and checks come on top.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Faults and calls are drawn from it. How they fall together is up to the machine.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only these faults, with commas.
    #[arg(long, value_delimiter = ',')]
    pub nemesis: Vec<Kind>,
    /// Where reports go, and the grid's files while it runs.
    #[arg(long, default_value = "target/chaos")]
    pub report: PathBuf,
    /// The program `afdg`; otherwise the one beside this, built if it is not there.
    #[arg(long)]
    pub afdg: Option<PathBuf>,
}

impl Arguments {
    pub fn time(&self) -> Duration {
        Duration::try_from_secs_f64(self.minutes * 60.0).unwrap_or_default()
    }
}
