//! This program as a region node of the tests.

use afdg_agent::NativeHost;
use afdg_example_counter::counter;
use afdg_process::{Settings, read_file, until_end};
use afdg_region_node::{RegionNodeServer, process::resolve};
use afdg_runtime::{Clock, World};
use afdg_tests::relay::{guest, relay};
use anyhow::{Context, Result};
use std::{path::Path, sync::Arc};

/// How far the node's clock is ahead, in milliseconds.
pub const CLOCK_AHEAD_MS: &str = "TEST_CLOCK_AHEAD_MS";
/// Set, if the node hosts guests.
pub const HOSTS_GUESTS: &str = "TEST_HOSTS_GUESTS";

struct Ahead {
    clock: Arc<dyn Clock>,
    by_ms: u64,
}

impl Clock for Ahead {
    fn now_ms(&self) -> u64 {
        self.clock.now_ms() + self.by_ms
    }
}

/// A region node until it is told to end, as `afdg server region-node --config FILE` is one.
pub async fn run(file: Option<&String>) -> Result<()> {
    let file = Path::new(file.context("the file's name is missing")?);
    let environment = |name: &str| std::env::var(name).ok();
    let (config, process) = resolve(read_file(file)?, &mut Settings::new(file, &environment))?;
    process.start_log()?;
    let mut host = NativeHost::new().with(counter()).with(relay());
    if environment(HOSTS_GUESTS).is_some() {
        host = host.with(guest());
    }
    let world = World::real();
    let by_ms = environment(CLOCK_AHEAD_MS).map_or(Ok(0), |text| text.parse())?;
    let clock = Arc::new(Ahead { clock: Arc::clone(&world.clock), by_ms });
    let node = RegionNodeServer::start(config, World { clock, ..world }, Arc::new(host)).await?;
    let end = until_end(node.failed()).await;
    node.drain().await;
    Ok(end?)
}
