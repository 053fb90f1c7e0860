//! SIGSTOP: a leader that does nothing and keeps its connections.

use crate::{GAP_MAX, grid};
use afdg_example_counter::v1::{AddRequest, Count, GetRequest};
use afdg_tests::{
    cluster::Cluster,
    load::{Load, keys_in},
    persistent::Persistent,
};
use anyhow::{Result, ensure};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// A frozen node closes no connection. So an attempt that it does not answer is left open for 1.5 s before
/// another replica is asked, on top of what a death costs.
const FROZEN_GAP_MAX: Duration = GAP_MAX.saturating_add(Duration::from_millis(1_500));

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_given_up_and_comes_back_as_one_of_many() -> Result<()> {
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoints()[0])?;
    let load = Load::start(&grid.endpoints(), &cluster.regions().await?)?;
    cluster.let_lead_all("node-2").await?;
    load.go_on(5).await?;

    load.forget_gaps();
    grid.freeze("node-2")?;
    load.go_on(5).await?;
    load.check_gap(FROZEN_GAP_MAX, "the leader of all regions froze")?;

    // For a moment it takes itself for the leader still; whatever it does then must have no effect.
    grid.thaw("node-2")?;
    load.go_on(5).await?;
    grid.until_well().await?;
    cluster.let_lead_all("node-2").await?;
    load.go_on(5).await?;
    load.finish().await?.check(20).await?;
    grid.finish()
}

/// The second extension has heard nothing of the new leader, because the catalog is frozen too. So its
/// reads lie on the old leader's connections when that wakes up, the leader still as far as it knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_wakes_up_answers_no_read_with_what_was() -> Result<()> {
    const ADD: &str = "/counter.v1.Counter/Add";
    let mut grid = grid().await?;
    let endpoints = grid.endpoints();
    let cluster = Cluster::new(&endpoints[0])?;
    let first = Arc::new(Persistent::new(&endpoints[..1], 0)?);
    let second = Arc::new(Persistent::new(&endpoints[1..], 0)?);
    cluster.let_lead_all("node-2").await?;
    let regions = cluster.regions().await?;
    let counters = regions.iter().flat_map(|region| keys_in(region, "counter.v1.Counter", "read").take(4));
    let counters: Vec<String> = counters.collect();
    let add = |counter: &String| AddRequest { counter: counter.clone(), delta: 1 };
    for counter in &counters {
        // Through both, so that both know the leader.
        let one: Count = second.call(ADD, add(counter), &format!("1-{counter}")).await?;
        let two: Count = first.call(ADD, add(counter), &format!("2-{counter}")).await?;
        ensure!((one.value, two.value) == (1, 2), "{counter} counted {}, {}", one.value, two.value);
    }

    let frozen = [grid.names_of("catalog"), vec!["node-2".to_owned()]].concat();
    for name in &frozen {
        grid.freeze(name)?;
    }
    let mut additions = JoinSet::new();
    for counter in &counters {
        let (first, request, key) = (first.clone(), add(counter), format!("3-{counter}"));
        additions.spawn(async move { first.call::<_, Count>(ADD, request, &key).await });
    }
    while let Some(addition) = additions.join_next().await {
        let three = addition??.value;
        ensure!(three == 3, "a counter counted {three}");
    }
    let mut reads = JoinSet::new();
    for counter in &counters {
        let (second, counter) = (second.clone(), counter.clone());
        reads.spawn(async move {
            let request = GetRequest { counter };
            second.read::<_, Count>("/counter.v1.Counter/Get", request).await
        });
    }
    // Not a wait for anything: the reads shall reach the sockets of the frozen leader first.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for name in &frozen {
        grid.thaw(name)?;
    }
    while let Some(read) = reads.join_next().await {
        let seen = read??.value;
        ensure!(seen == 3, "a read found {seen} after 3 was acknowledged");
    }
    grid.until_well().await?;
    grid.finish()
}
