//! The demonstration, while the region nodes die under it.

use crate::grid;
use afdg_example_shop::v1::{GetSummaryRequest, Summary};
use afdg_tests::{persistent::Persistent, processes::Processes};
use anyhow::{Context, Result, ensure};
use std::{fmt::Write, time::Duration};
use tokio::time::Instant;

const CUSTOMERS: u32 = 1_200;
const PURCHASES_EACH: u32 = 4;
const LIMIT: Duration = Duration::from_secs(90);

/// As the demonstration reads them. All customers buy equally often, so they are served in this order.
fn purchases() -> String {
    let mut text = "ID,Date,Amount\n".to_owned();
    for row in 0..CUSTOMERS * PURCHASES_EACH {
        let (customer, cents) = (row / PURCHASES_EACH, row.wrapping_mul(7_919) % 10_000);
        // Writing to a String does not fail.
        let _ = writeln!(text, "{customer},2025{:02}15,{}.{:02}", row % 12 + 1, cents / 100, cents % 100);
    }
    text
}

/// Waits until the demonstration is where this part of the customers has been recorded.
async fn is_at(calls: &Persistent, part: f64) -> Result<()> {
    let customer = format!("run/{}", (f64::from(CUSTOMERS) * part) as u32);
    let give_up = Instant::now() + LIMIT;
    loop {
        let request = GetSummaryRequest { customer: customer.clone() };
        let summary: Summary = calls.read("/shop.v1.Customer/GetSummary", request).await?;
        if summary.count > 0 {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "nothing was recorded of {customer} within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Kills a node and starts it again while the demonstration runs.
async fn die_and_return(grid: &mut Processes, calls: &Persistent, name: &str, part: f64) -> Result<()> {
    is_at(calls, part).await?;
    grid.check_runs("demo").context("too early: the death has to meet it")?;
    grid.kill(name)?;
    is_at(calls, part + 0.1).await?;
    grid.restart(name)?;
    // It is held meanwhile, or it could be done before the last death.
    grid.freeze("demo")?;
    grid.until_well().await?;
    grid.thaw("demo")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_is_exact_while_each_region_node_dies() -> Result<()> {
    let mut grid = grid().await?;
    std::fs::write(grid.folder().join("purchases.csv"), purchases())?;
    let calls = Persistent::new(&grid.endpoints(), 1)?;
    let endpoint = grid.endpoints()[0].clone();
    let arguments = ["--endpoint", &endpoint, "--file", "purchases.csv", "--key-prefix", "run"];
    grid.run("demo", &[&["demo", "--in-flight", "64"], &arguments[..]].concat())?;
    for (name, part) in grid.names_of("node").iter().zip([0.2, 0.45, 0.7]) {
        die_and_return(&mut grid, &calls, name, part).await?;
    }
    let status = grid.ended("demo", LIMIT).await?;
    ensure!(status.code() == Some(0), "the demonstration found a mistake: {status}");
    grid.finish()
}
