//! SIGTERM: a region node hands over what it leads before it goes.

use crate::{REGIONS, grid};
use afdg_tests::{cluster::Cluster, load::Load};
use anyhow::Result;
use std::time::Duration;

/// How long a region node may take to end.
const END_LIMIT: Duration = Duration::from_secs(15);
/// Less than the shortest time after which replicas look for a new leader by themselves (0.6 s) and an
/// election: the lead was handed over, nobody waited for it to be missed. With the noise of a small
/// machine without optimisation.
const GAP_MAX: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread")]
async fn a_region_node_that_is_told_to_end_fails_no_call() -> Result<()> {
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoint()?)?;
    let load = Load::start(&grid.endpoints(), 3, REGIONS)?;
    for name in grid.names_of("region-node") {
        cluster.let_lead_all(&name).await?;
        load.rounds(2).await?;
        load.forget_gaps();
        grid.terminate(&name)?;
        let status = grid.ended(&name, END_LIMIT).await?;
        load.rounds(2).await?;
        let gap = load.longest_gap();
        eprintln!("longest gap when {name} was told to end: {gap:?}");
        assert_eq!(status.code(), Some(0), "{name} ended with {status}");
        assert!(gap <= GAP_MAX, "calls paused for {gap:?} when {name} was told to end");
        grid.restart(&name)?;
        grid.until_well().await?;
    }
    assert_eq!(load.repeats(), 0, "clients had to repeat calls that the grid should have");
    let acknowledged = load.finish().await?;
    acknowledged.check_sums().await?;
    grid.stop().await
}
