//! SIGKILL: of each process in turn, and of all at once.

use crate::{GAP_MAX, NO_GAP_MAX, grid};
use afdg_tests::{cluster::Cluster, load::Load};
use anyhow::Result;

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_any_process_loses_nothing_and_repeats_nothing() -> Result<()> {
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoints()[0])?;
    let load = Load::start(&grid.endpoints(), &cluster.regions().await?)?;
    for name in grid.names() {
        let is_node = name.starts_with("node-");
        if is_node {
            // The worst case: all regions lose their leader.
            cluster.let_lead_all(&name).await?;
        }
        load.go_on(5).await?;
        load.forget_gaps();
        grid.kill(&name)?;
        load.go_on(5).await?;
        let gap_max = if is_node { GAP_MAX } else { NO_GAP_MAX };
        load.check_gap(gap_max, &format!("the death of {name}"))?;
        grid.restart(&name)?;
        grid.until_well().await?;
        if is_node {
            // It is back when it has all that went on without it.
            cluster.let_lead_all(&name).await?;
            load.go_on(5).await?;
        }
    }
    let acknowledged = load.finish().await?;
    acknowledged.check(20).await?;
    grid.tell(format_args!("{} additions were acknowledged", acknowledged.count()));
    grid.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_all_processes_at_once_loses_nothing_and_repeats_nothing() -> Result<()> {
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoints()[0])?;
    let load = Load::start(&grid.endpoints(), &cluster.regions().await?)?;
    for _ in 0..2 {
        load.go_on(10).await?;
        grid.kill_together(&grid.names())?;
        grid.start_all()?;
        grid.until_well().await?;
    }
    load.go_on(5).await?;
    let acknowledged = load.finish().await?;
    // Repeats from before and after the deaths.
    acknowledged.check(usize::MAX).await?;
    grid.tell(format_args!("{} additions were acknowledged", acknowledged.count()));
    grid.finish()
}
