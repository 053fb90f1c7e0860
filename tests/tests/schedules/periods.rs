//! Schedules that are due in every period or by a calendar, while nodes come and go.

use crate::alarms::{Alarms, every, now_ms};
use afdg_tests::{PATIENCE, alarm::v1::SetRequest};
use anyhow::{Result, ensure};
use std::time::Duration;
use tokio::time::Instant;

/// Rings that there are once the last due time has passed.
async fn all_rung(alarms: &Alarms, alarm: &str, count: usize) -> Result<()> {
    let rings = alarms.rung(alarm, count).await?;
    ensure!(rings.len() == count, "{alarm} rang {} times for {count} due times", rings.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_rings_once_for_each_due_time_and_is_gone_after_the_last() -> Result<()> {
    let alarms = Alarms::open(3).await?;
    let start_ms = now_ms() + 500;
    let times = SetRequest { start_ms, until_ms: start_ms + 2_000, missed: "all".to_owned(), ..every(200) };
    alarms.set("own", times.clone()).await?;
    alarms.set("from", SetRequest { to: "to".to_owned(), ..times }).await?;
    for alarm in ["own", "to"] {
        all_rung(&alarms, alarm, 11).await?;
        for (rung, due_ms) in alarms.rings(alarm).await?.iter().zip((start_ms..).step_by(200)) {
            assert!(rung.at_ms >= due_ms, "{rung:?} rang {} ms early", due_ms - rung.at_ms);
        }
    }
    assert!(alarms.rings("from").await?.is_empty());
    alarms.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_due_time_rings_once_while_every_leader_dies() -> Result<()> {
    const ALARMS: usize = 12;
    let mut alarms = Alarms::open(3).await?;
    let start_ms = now_ms() + 1_000;
    for number in 0..ALARMS {
        let to = if number % 2 == 0 { String::new() } else { format!("to-{number}") };
        let request = SetRequest { start_ms, to, missed: "all".to_owned(), ..every(250) };
        alarms.set(&format!("a-{number}"), request).await?;
    }
    for name in alarms.grid.node_names() {
        alarms.grid.stop_node(&name).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        alarms.grid.start_node(&name).await?;
        alarms.grid.until_well(PATIENCE).await?;
    }
    let due = ((now_ms() - start_ms) / 250 + 1) as usize;
    for number in 0..ALARMS {
        let alarm = if number % 2 == 0 { format!("a-{number}") } else { format!("to-{number}") };
        // Ids tell due times apart: that so many rang, and no more than have come, says that each rang once.
        let rings = alarms.rung(&alarm, due).await?;
        let come = ((now_ms() - start_ms) / 250 + 1) as usize;
        assert!(rings.len() <= come, "{alarm} rang {} times for {come} due times", rings.len());
        assert!(rings.iter().all(|ring| ring.from == format!("a-{number}")), "{alarm}: {rings:?}");
    }
    alarms.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn due_times_that_passed_while_all_nodes_were_down_ring_as_the_schedule_says() -> Result<()> {
    let mut alarms = Alarms::open(3).await?;
    let start_ms = now_ms() + 1_000;
    let until_ms = start_ms + 3_000;
    for missed in ["skip", "once", "all"] {
        let request = SetRequest { start_ms, until_ms, missed: missed.to_owned(), ..every(1_000) };
        alarms.set(missed, request).await?;
    }
    let hourly = SetRequest { missed: "once".to_owned(), start_ms: start_ms + 1_000, ..every(3_600_000) };
    alarms.set("hourly", hourly).await?;
    let names = alarms.grid.node_names();
    for name in &names {
        alarms.grid.stop_node(name).await?;
    }
    let rung_before = now_ms() >= start_ms;
    while now_ms() < until_ms + 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for name in &names {
        alarms.grid.start_node(name).await?;
    }
    alarms.grid.until_well(PATIENCE).await?;
    all_rung(&alarms, "all", 4).await?;
    all_rung(&alarms, "hourly", 1).await?;
    for missed in ["once", "skip"] {
        let rings = alarms.rung(missed, 1).await?.len();
        // The latest is a few seconds ago, which is not too late for one that skips. What came before the
        // nodes were down has rung by itself.
        assert!(rings == 1 || (rung_before && rings <= 4), "'{missed}' rang {rings} times");
    }
    alarms.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_set_again_takes_the_place_of_the_first_and_one_that_is_unset_is_gone() -> Result<()> {
    let alarms = Alarms::open(3).await?;
    alarms.set("a", every(200)).await?;
    alarms.rung("a", 2).await?;
    // The same times: the next due time stays, what rings is another message.
    alarms.set("a", SetRequest { mark: 1, ..every(200) }).await?;
    let give_up = Instant::now() + PATIENCE;
    while alarms.rings("a").await?.iter().filter(|ring| ring.mark == 1).count() < 2 {
        ensure!(Instant::now() < give_up, "the second schedule does not ring");
    }
    let rings = alarms.rings("a").await?;
    assert!(rings.is_sorted_by_key(|ring| ring.mark), "the first rang after the second was set: {rings:?}");
    alarms.unset("a", "n").await?;
    let until = alarms.rings("a").await?.len();
    // What was under way has rung by now; a second alarm counts the periods that pass.
    alarms.set("b", every(200)).await?;
    alarms.rung("b", 4).await?;
    let rung = alarms.rings("a").await?.len();
    assert!(rung <= until + 1, "it rang {} times after it was unset", rung - until);
    let refused = alarms.set("c", SetRequest { refuse: true, ..every(100) }).await;
    assert!(refused.is_err());
    alarms.rung("b", 8).await?;
    assert!(alarms.rings("c").await?.is_empty());
    alarms.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_with_a_zone_rings_and_a_wrong_one_is_refused_with_what_is_wrong() -> Result<()> {
    let alarms = Alarms::open(3).await?;
    let cron =
        |cron: &str, zone: &str| SetRequest { cron: cron.to_owned(), zone: zone.to_owned(), ..every(0) };
    alarms.set("a", cron("* * * * * *", "Asia/Kathmandu")).await?;
    for rung in alarms.rung("a", 3).await? {
        assert!(rung.at_ms > 0);
    }
    let wrong = alarms.set("a", cron("0 25 * * *", "UTC")).await.unwrap_err();
    assert!(wrong.message().contains("'0 25 * * *' is no calendar"), "{wrong}");
    let wrong = alarms.set("a", cron("0 9 * * *", "Europe/Atlantis")).await.unwrap_err();
    assert!(wrong.message().contains("'Europe/Atlantis' is no time zone"), "{wrong}");
    let many = SetRequest { count: 65, ..every(60_000) };
    let wrong = alarms.set("many", many).await.unwrap_err();
    assert!(wrong.message().contains("an agent has 64 at most"), "{wrong}");
    alarms.set("many", SetRequest { count: 64, ..every(60_000) }).await?;
    // One more is one too many; another in the place of one of them is not.
    alarms.set("many", SetRequest { name: "other".to_owned(), ..every(60_000) }).await.unwrap_err();
    alarms.set("many", SetRequest { name: "n-3".to_owned(), ..every(50_000) }).await?;
    alarms.unset("many", "n-3").await?;
    alarms.set("many", SetRequest { name: "other".to_owned(), ..every(60_000) }).await?;
    alarms.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_fails_is_tried_again_and_holds_up_those_behind_it() -> Result<()> {
    let alarms = Alarms::open(3).await?;
    let refused_until_ms = now_ms() + 1_500;
    let start_ms = now_ms() + 200;
    let until_ms = start_ms + 400;
    let request = SetRequest { refused_until_ms, start_ms, until_ms, missed: "all".to_owned(), ..every(200) };
    alarms.set("a", request).await?;
    let rings = alarms.rung("a", 3).await?;
    assert_eq!(rings.len(), 3);
    assert!(rings.iter().all(|ring| ring.at_ms >= refused_until_ms), "{rings:?}");
    alarms.grid.stop().await;
    Ok(())
}
