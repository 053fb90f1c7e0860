//! Grids of real processes: servers are killed, frozen and stopped, and nothing acknowledged is lost or
//! done twice.
//!
//! They stand in this package because cargo builds `afdg` for its tests, and tells where it is.

mod catalog_down;
mod catch_up;
mod demo;
mod frozen;
mod kill;
mod refusals;
mod terminate;
mod transfers;

use afdg_tests::processes::{Options, Processes};
use std::time::Duration;

const AFDG: &str = env!("CARGO_BIN_EXE_afdg");
const REGIONS: u16 = 6;

/// How long calls may pause when a region's leader is gone: 3 s are promised, of a grid that has the CPU
/// that it needs. Here eight processes without optimisation, their clients and a process that starts anew
/// share two cores, so what takes milliseconds of CPU there (elections, the new leader's reading of its
/// rows) takes a second here.
const GAP_MAX: Duration = Duration::from_millis(3_000 + 1_000);

async fn grid() -> anyhow::Result<Processes> {
    Processes::start(AFDG, Options { regions: REGIONS, ..Options::default() }).await
}
