//! Grids of real processes: servers are killed, frozen and stopped, and nothing acknowledged is lost or
//! done twice.
//!
//! They stand in this package because cargo builds `afdg` for its tests, and tells where it is. One grid
//! runs at a time.

mod demo;
mod kill;
mod transfers;

use afdg_tests::processes::{Options, Processes};
use std::time::Duration;

const AFDG: &str = env!("CARGO_BIN_EXE_afdg");

/// How long calls may pause when a region's leader is gone.
const GAP_MAX: Duration = Duration::from_secs(3);

/// Three catalog servers, three region nodes, two extensions.
async fn grid() -> anyhow::Result<Processes> {
    Processes::start(AFDG, Options::default()).await
}
