//! SIGTERM: a region node hands over what it leads before it goes.

use crate::grid;
use afdg_tests::{cluster::Cluster, load::Load};
use anyhow::Result;
use std::time::Duration;

/// How long a region node may take to end: 5 s to hand over, 5 s for its tasks.
const END_LIMIT: Duration = Duration::from_secs(10);
/// A lead that is handed over is missed by nobody: calls pause for less than it takes replicas to look for
/// a leader by themselves, which is 1.4 s.
const HAND_OVER_GAP_MAX: Duration = Duration::from_millis(1_200);

#[tokio::test(flavor = "multi_thread")]
async fn a_region_node_that_is_told_to_end_fails_no_call() -> Result<()> {
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoints()[0])?;
    let load = Load::start(&grid.endpoints(), &cluster.regions().await?)?;
    for name in grid.names_of("node") {
        cluster.let_lead_all(&name).await?;
        load.go_on(5).await?;
        load.forget_gaps();
        grid.terminate(&name)?;
        let status = grid.ended(&name, END_LIMIT).await?;
        load.go_on(5).await?;
        assert_eq!(status.code(), Some(0), "{name} ended with {status}");
        load.check_gap(HAND_OVER_GAP_MAX, &format!("{name} was told to end"))?;
        grid.restart(&name)?;
        grid.until_well().await?;
    }
    assert_eq!(load.repeats(), 0, "clients had to repeat calls that the grid should have");
    load.finish().await?.check(20).await?;
    // All at once: whoever is left last has nobody to hand over to.
    grid.stop().await
}
