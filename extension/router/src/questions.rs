//! Questions that are asked of the nodes that lead regions, beside messages to agents.

use crate::Router;
use afdg_region_client::RegionClient;
use afdg_types::{CallError, GridError, NodeId, Reason, RegionId, Retry};
use std::time::Duration;
use tokio::time::Instant;

/// Between two rounds of asking all replicas of a region who leads it.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// One question of one node.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);

/// Asks the replicas of a region in turn until one answers as its leader. What is asked
/// must do no harm when it is asked again after an unknown outcome.
pub async fn ask_leader<T, F>(
    router: &Router,
    region: RegionId,
    until: Instant,
    ask: impl Fn(RegionClient, Duration) -> F,
) -> Result<(NodeId, T), CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut last = GridError::new(Reason::NoLeader, format!("region {region} has no replica in the routes"));
    loop {
        for (node, client) in router.replicas_of(region) {
            let left = until.saturating_duration_since(Instant::now());
            match ask(client, left.min(ASK_TIME_MAX)).await {
                Ok(answer) => return Ok((node, answer)),
                Err(CallError::Grid(error)) if error.retry() != Retry::Never => last = error,
                Err(error) => return Err(error),
            }
        }
        if Instant::now() + ROUND_PAUSE >= until {
            return Err(last.into());
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}
