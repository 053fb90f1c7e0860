//! All catalog servers are down: what is known goes on.

use crate::{GAP_MAX, NO_GAP_MAX, grid};
use afdg_tests::{cluster::Cluster, load::Load};
use anyhow::{Result, ensure};
use std::time::Duration;

/// A lead is handed back to the preferred leader when that has been in step for 5 s; not without a catalog.
const HANDED_BACK_AFTER: Duration = Duration::from_secs(10);

/// Of a call from the command line, whose own limit is 30 s.
const CALL_LIMIT: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn without_a_catalog_calls_go_on_and_nodes_come_back() -> Result<()> {
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoints()[0])?;
    let regions = cluster.regions().await?;
    let third = cluster.node("node-3").await?.id;
    let load = Load::start(&grid.endpoints(), &regions)?;
    load.go_on(5).await?;

    load.forget_gaps();
    grid.kill_together(&grid.names_of("catalog"))?;
    load.go_on(20).await?;
    load.check_gap(NO_GAP_MAX, "the death of the catalog")?;
    let endpoint = &grid.endpoints()[0];
    let call = ["call", "counter.v1.Counter/hits", "Add", "{\"delta\":1}", "--endpoint", endpoint];
    let (status, printed) = grid.run_to_end(&call, CALL_LIMIT).await?;
    ensure!(status.success() && printed.contains("\"value\""), "the command line: {status}, {printed}");

    load.forget_gaps();
    grid.kill("node-1")?;
    load.go_on(5).await?;
    load.check_gap(GAP_MAX, "the death of a leader without a catalog")?;

    // It comes back as a voter that refuses messages, so it must not be made the leader.
    grid.restart("node-1")?;
    grid.until_printed("node-1", "the catalog can't be reached").await?;
    load.forget_gaps();
    load.go_on_for(HANDED_BACK_AFTER).await?;
    load.check_gap(NO_GAP_MAX, "the return of a node without a catalog")?;

    // And with the only other that is left it makes up a majority.
    grid.kill("node-2")?;
    let led_by_third = |id| regions.iter().any(|region| region.id == id && region.leader == third);
    load.go_on_in(5, led_by_third).await?;

    grid.start_all()?;
    grid.until_well().await?;
    cluster.let_lead_all("node-1").await?;
    load.go_on(5).await?;
    load.finish().await?.check(20).await?;
    grid.finish()
}
