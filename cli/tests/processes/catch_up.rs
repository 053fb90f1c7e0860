//! A region node that missed more than the others' logs still hold.

use crate::AFDG;
use afdg_tests::{
    cluster::Cluster,
    load::Load,
    processes::{Options, Processes},
};
use anyhow::{Result, ensure};

/// So little that a region is due for a checkpoint whenever it is looked at.
const REGION_DIRTY_BYTES: u64 = 4 * 1024;
/// Of each client while the node is down: several checkpoints, the last but one of which is past all that
/// the node has.
const MISSED: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_missed_what_was_purged_catches_up_by_snapshot() -> Result<()> {
    let options = Options { region_dirty_bytes: Some(REGION_DIRTY_BYTES), ..Options::default() };
    let mut grid = Processes::start(AFDG, options).await?;
    let cluster = Cluster::new(&grid.endpoints()[0])?;
    let regions = cluster.regions().await?;
    let load = Load::start(&grid.endpoints(), &regions)?;
    load.go_on(5).await?;

    grid.kill("node-2")?;
    load.go_on(MISSED).await?;
    grid.restart("node-2")?;
    grid.until_well().await?;
    // It leads once it has all that was acknowledged.
    cluster.let_lead_all("node-2").await?;
    let installed = grid.log("node-2").matches("a peer's snapshot took the place").count();
    ensure!(
        installed >= regions.len(),
        "{installed} of {} regions were caught up by snapshot",
        regions.len()
    );
    load.go_on(5).await?;

    // What came by snapshot is on its disk.
    grid.kill("node-2")?;
    load.go_on(2).await?;
    grid.restart("node-2")?;
    grid.until_well().await?;
    cluster.let_lead_all("node-2").await?;
    load.go_on(5).await?;
    load.finish().await?.check(20).await?;
    grid.finish()
}
