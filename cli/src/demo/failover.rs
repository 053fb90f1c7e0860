//! Half-way through the feeding, the region node that leads most regions is stopped; later it is started
//! again. Nothing may be lost, nothing counted twice.

use crate::{dev, failure::tell};
use afdg_dev_grid::DevGrid;
use anyhow::Context;
use serde::Serialize;
use std::fmt;
use tokio::sync::watch;

/// The node is started again once this part of all messages went on without it.
const WITHOUT_PART: u64 = 10;

/// What was done to the grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failover {
    pub node: String,
    /// Regions that it led when it was stopped.
    pub regions_led: usize,
    pub stopped_at_message: u64,
    pub started_again_at_message: Option<u64>,
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grouped = crate::admin::grouped;
        write!(
            f,
            "{}, leader of {} regions, at message {}; ",
            self.node,
            self.regions_led,
            grouped(self.stopped_at_message),
        )?;
        match self.started_again_at_message {
            Some(at) => write!(f, "started again at message {}", grouped(at)),
            None => f.write_str("it could not be started again"),
        }
    }
}

/// Waits until half of `rows` are recorded, then stops the busiest node and starts it again. None if
/// there is no grid to do it to, or if it could not be done, which is told.
pub async fn half_way(
    grid: Option<&mut DevGrid>,
    rows: u64,
    mut recorded: watch::Receiver<u64>,
) -> Option<Failover> {
    let grid = grid?;
    reached(&mut recorded, rows / 2).await;
    let done = stop_and_start(grid, rows, recorded).await;
    done.inspect_err(|error| tell(format_args!("no leader was stopped: {error:#}"))).ok()
}

async fn stop_and_start(
    grid: &mut DevGrid,
    rows: u64,
    mut recorded: watch::Receiver<u64>,
) -> anyhow::Result<Failover> {
    let (node, regions_led) = grid.busiest_node().context("no region node runs")?;
    let stopped_at_message = *recorded.borrow();
    grid.stop_node(&node).await.map_err(dev::failure)?;
    reached(&mut recorded, (stopped_at_message + rows / WITHOUT_PART).min(rows)).await;
    let at = *recorded.borrow();
    let started_again_at_message = match grid.start_node(&node).await {
        Ok(()) => Some(at),
        Err(error) => {
            tell(format_args!("node {node} could not be started again: {error:#}"));
            None
        }
    };
    Ok(Failover { node, regions_led, stopped_at_message, started_again_at_message })
}

/// Waits until `count` messages are recorded, or until no more will be.
async fn reached(recorded: &mut watch::Receiver<u64>, count: u64) {
    // An error means that the feeding has ended.
    let _ = recorded.wait_for(|recorded| *recorded >= count).await;
}
