//! The catalog is down: what is known goes on.

use crate::{GAP_MAX, REGIONS, grid};
use afdg_tests::{cluster::Cluster, load::Load};
use anyhow::Result;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_catalog_calls_go_on_and_nodes_come_back() -> Result<()> {
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoint()?)?;
    cluster.let_lead_all("node-1").await?;
    let load = Load::start(&grid.endpoints(), 3, REGIONS)?;
    load.rounds(2).await?;

    load.forget_gaps();
    grid.kill_together(&grid.names_of("catalog"))?;
    load.rounds(5).await?;
    let gap = load.longest_gap();
    assert!(gap < Duration::from_millis(1_500), "without a catalog calls paused for {gap:?}");

    load.forget_gaps();
    grid.kill("node-1")?;
    load.rounds(3).await?;
    let gap = load.longest_gap();
    assert!(gap <= GAP_MAX, "without a catalog, after the death of a leader, calls paused for {gap:?}");

    // It is back once its replicas make up a majority with the only others that are left.
    grid.restart("node-1")?;
    grid.kill("node-2")?;
    load.rounds(3).await?;

    grid.start_all()?;
    grid.until_well().await?;
    cluster.let_lead_all("node-2").await?;
    load.rounds(2).await?;
    let acknowledged = load.finish().await?;
    acknowledged.check_sums().await?;
    acknowledged.repeat_last(50).await?;
    acknowledged.check_sums().await?;
    grid.stop().await
}
