//! SIGSTOP: a leader that does nothing and keeps its connections.

use crate::{GAP_MAX, REGIONS, grid};
use afdg_tests::{cluster::Cluster, load::Load};
use anyhow::Result;
use std::time::Duration;

/// A frozen node closes no connection. So an attempt that it does not answer is left open for 1.5 s before
/// another replica is asked, on top of what a death costs.
const FROZEN_GAP_MAX: Duration = GAP_MAX.saturating_add(Duration::from_millis(1_500));

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_given_up_and_comes_back_as_one_of_many() -> Result<()> {
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoint()?)?;
    let load = Load::start(&grid.endpoints(), 3, REGIONS)?;
    cluster.let_lead_all("node-2").await?;
    load.rounds(2).await?;

    load.forget_gaps();
    grid.freeze("node-2")?;
    load.rounds(3).await?;
    let gap = load.longest_gap();
    assert!(gap <= FROZEN_GAP_MAX, "calls paused for {gap:?} when their leader froze");

    // For a moment it takes itself for the leader still; whatever it does then must have no effect.
    grid.thaw("node-2")?;
    load.rounds(3).await?;
    grid.until_well().await?;
    cluster.let_lead_all("node-2").await?;
    load.rounds(2).await?;
    let acknowledged = load.finish().await?;
    acknowledged.check_sums().await?;
    acknowledged.repeat_last(50).await?;
    acknowledged.check_sums().await?;
    eprintln!("longest gap when the leader of all regions froze: {gap:?}");
    grid.stop().await
}
