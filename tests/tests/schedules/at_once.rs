//! Many schedules that are due at the same moment.

use crate::alarms::{Alarms, every, now_ms};
use afdg_tests::{
    PATIENCE,
    alarm::v1::SetRequest,
    cluster::Cluster,
    mail::v1::{Letters, ReadRequest, Spread, SpreadRequest},
    stalls::{Stalls, crowding},
};
use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt};

const ALARMS: usize = 400;
const EACH: u32 = 25;
const SCHEDULES: usize = ALARMS * EACH as usize;
/// How late the last may be on a machine that does nothing else: 2 s, and twice that without optimisation.
const LATE_MS_MAX: u64 = if cfg!(debug_assertions) { 4_000 } else { 2_000 };
/// Of the longest that the machine kept a thread waiting, so much is added to a limit.
const STALLS_TOLERATED: u64 = 30;
/// Beside that: until the others have noticed that a leader is gone, elected one, and it has begun.
const FAILOVER_MS: u64 = 4_000;

/// Sets all of them for one moment, and returns it.
async fn set(alarms: &Alarms) -> Result<u64> {
    let due_ms = now_ms() + 15_000;
    let set = |number: usize| {
        let request = SetRequest { count: EACH, start_ms: due_ms, ..every(86_400_000) };
        async move { alarms.set(&format!("a-{number}"), request).await }
    };
    futures::stream::iter(0..ALARMS).map(set).buffer_unordered(64).try_collect::<Vec<_>>().await?;
    ensure!(now_ms() < due_ms, "the machine is too slow for this test to tell anything");
    Ok(due_ms)
}

/// All ring, once each; how late the last is.
async fn ring(alarms: &Alarms, due_ms: u64) -> Result<u64> {
    let mut latest = 0;
    for number in 0..ALARMS {
        let alarm = format!("a-{number}");
        let rings = alarms.rung(&alarm, EACH as usize).await?;
        let mut names: Vec<_> = rings.iter().map(|ring| &ring.name).collect();
        names.sort();
        names.dedup();
        ensure!((rings.len(), names.len()) == (EACH as usize, EACH as usize), "{alarm}: {rings:?}");
        for ring in &rings {
            // The clocks of the client and the nodes are one here.
            ensure!(ring.at_ms >= due_ms, "{ring:?} is {} ms early", due_ms - ring.at_ms);
            latest = latest.max(ring.at_ms - due_ms);
        }
    }
    Ok(latest)
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_are_due_at_once_all_ring_in_time() -> Result<()> {
    let alarms = Alarms::open_alone(3).await?;
    let due_ms = set(&alarms).await?;
    let stalls = Stalls::watch();
    let latest = ring(&alarms, due_ms).await?;
    let limit_ms =
        (LATE_MS_MAX as f64 * crowding()) as u64 + STALLS_TOLERATED * stalls.longest().as_millis() as u64;
    println!("the last of {SCHEDULES} was {latest} ms late; {limit_ms} ms are let pass");
    assert!(latest < limit_ms, "the last was {latest} ms late");
    alarms.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_are_due_at_once_all_ring_once_while_a_leader_dies() -> Result<()> {
    let mut alarms = Alarms::open_alone(3).await?;
    let cluster = Cluster::new(&alarms.grid.endpoint())?;
    let due_ms = set(&alarms).await?;
    let (leader, leads) = cluster.busiest(&alarms.grid.node_names()).await?;
    assert!(leads > 0);
    let stalls = Stalls::watch();
    // In the midst of them.
    while now_ms() < due_ms + 50 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    alarms.grid.stop_node(&leader).await?;
    let latest = ring(&alarms, due_ms).await?;
    let limit_ms = ((LATE_MS_MAX + FAILOVER_MS) as f64 * crowding()) as u64
        + STALLS_TOLERATED * stalls.longest().as_millis() as u64;
    println!("the last of {SCHEDULES} was {latest} ms late, {leads} leads moved; {limit_ms} ms are let pass");
    assert!(latest < limit_ms, "the last was {latest} ms late");
    alarms.grid.start_node(&leader).await?;
    alarms.grid.until_well(PATIENCE).await?;
    // Nothing rings a second time because a node is back.
    ring(&alarms, due_ms).await?;
    alarms.grid.stop().await;
    Ok(())
}

/// Entries of the grid's only region, once no more come: it is told about once a second.
async fn entries(cluster: &Cluster) -> Result<u64> {
    let (mut seen, mut unchanged) = (0, 0);
    while unchanged < 30 {
        let applied: u64 = cluster.regions().await?.iter().map(|region| region.applied_index).sum();
        unchanged = if applied == seen { unchanged + 1 } else { 0 };
        seen = applied;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_due_schedule_takes_no_more_entries_than_a_send() -> Result<()> {
    const AGENTS: usize = 20;
    const MESSAGES: u32 = 50;
    let alarms = Alarms::open_alone(1).await?;
    let cluster = Cluster::new(&alarms.grid.endpoint())?;
    let due_ms = now_ms() + 12_000;
    for number in 0..AGENTS {
        let request = SetRequest { count: MESSAGES, start_ms: due_ms, ..every(86_400_000) };
        alarms.set(&format!("c-{number}"), request).await?;
    }
    let before = entries(&cluster).await?;
    ensure!(now_ms() < due_ms, "the machine is too slow for this test to tell anything");
    for number in 0..AGENTS {
        alarms.rung(&format!("c-{number}"), MESSAGES as usize).await?;
    }
    let of_schedules = entries(&cluster).await? - before;

    // As many messages of as many agents to themselves, that turns send. The turns are counted, too: few.
    let before = entries(&cluster).await?;
    let spread = (0..AGENTS).map(|number| {
        let key = format!("c-{number}");
        let to = vec![key.clone()];
        let request = SpreadRequest { r#box: key, to, count: MESSAGES.into(), ..SpreadRequest::default() };
        alarms.client.call::<_, Spread>("/mail.v1.Box/Spread", request)
    });
    futures::future::try_join_all(spread).await?;
    for number in 0..AGENTS {
        let request = ReadRequest { r#box: format!("c-{number}") };
        while alarms.client.call::<_, Letters>("/mail.v1.Box/Read", request.clone()).await?.letters.len()
            < MESSAGES as usize
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    let of_sends = entries(&cluster).await? - before;
    let messages = AGENTS * MESSAGES as usize;
    println!("{messages} due schedules took {of_schedules} entries, {messages} sends {of_sends}");
    // How many share an entry is a matter of chance; one more for each agent would still be nothing for each
    // message.
    assert!(of_schedules > 0 && of_schedules <= of_sends + AGENTS as u64);
    alarms.grid.stop().await;
    Ok(())
}
