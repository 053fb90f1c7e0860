//! Grids of real processes: servers are killed, frozen and stopped, and nothing acknowledged is lost or
//! done twice.
//!
//! They stand in this package because cargo builds `afdg` for its tests, and tells where it is. One grid
//! runs at a time.

mod catalog_down;
mod catch_up;
mod demo;
mod frozen;
mod kill;
mod orders;
mod refusals;
mod scatter;
mod terminate;
mod transfers;

use afdg_tests::processes::{Options, Processes};
use std::time::Duration;

const AFDG: &str = env!("CARGO_BIN_EXE_afdg");

/// How long calls may pause when a region's leader is gone.
const GAP_MAX: Duration = Duration::from_secs(3);

/// When a server is gone that no call goes through, calls go on as before, up to the noise of a machine
/// on which it is started again; through an extension that is gone, they are repeated through another.
const NO_GAP_MAX: Duration = Duration::from_millis(1_500);

/// Three catalog servers, three region nodes, two extensions.
async fn grid() -> anyhow::Result<Processes> {
    Processes::start(AFDG, Options::default()).await
}
