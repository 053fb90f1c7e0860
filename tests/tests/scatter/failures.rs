//! A scatter while leaders stop and clients go.

use afdg_proto::pb::v1::{CallRequest, PipeRequest, ScatterRequest, call_result, pipe_request};
use afdg_tests::counters::{COUNTER, Counters, add_counts, keys, next, reason};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_half_way_costs_no_agent_its_turn_and_none_two() -> Result<()> {
    const AGENTS: usize = 600;
    let mut counters = Counters::open(5, Duration::from_millis(10)).await?;
    let all = keys(0..AGENTS, "c");
    counters.make(COUNTER, "Add", &all).await?;
    let request = ScatterRequest { parallel_max: 10, ..counters.add("", "k") };
    let mut counts = BTreeMap::new();
    let mut pages = counters.scatter(request).await?;
    while counts.len() < AGENTS / 4 {
        let page = next(&mut pages).await?.context("the stream ended before its time")?;
        add_counts(&mut counts, page.results)?;
    }
    let (leader, leads) = counters.grid.busiest_node().context("nobody leads")?;
    ensure!(leads > 0 && counts.len() < AGENTS, "nothing is left to be interrupted");
    counters.grid.stop_node(&leader).await?;
    while let Some(page) = next(&mut pages).await? {
        add_counts(&mut counts, page.results)?;
    }
    // Once in the results, and once in effect.
    assert_eq!(counts, all.iter().map(|key| (key.clone(), 1)).collect());
    let get =
        ScatterRequest { method: "Get".to_owned(), request: Default::default(), ..counters.add("", "") };
    assert_eq!(counters.all(get).await?, counts);
    counters.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_the_work() -> Result<()> {
    const AGENTS: usize = 2_000;
    let counters = Counters::open(3, Duration::from_millis(20)).await?;
    counters.make(COUNTER, "Add", &keys(0..AGENTS, "c")).await?;
    let before = counters.watch.runs();
    let mut pages = counters.scatter(ScatterRequest { parallel_max: 6, ..counters.add("", "k") }).await?;
    next(&mut pages).await?.context("the stream ended before its time")?;
    drop(pages);
    // The number of turns comes to a stand, far from all.
    let give_up = Instant::now() + afdg_tests::PATIENCE;
    let (mut runs, mut since) = (counters.watch.runs(), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        ensure!(Instant::now() < give_up, "agents are called on and on");
        tokio::time::sleep(Duration::from_millis(20)).await;
        if counters.watch.runs() != runs {
            (runs, since) = (counters.watch.runs(), Instant::now());
        }
    }
    assert!(runs - before < AGENTS / 4, "{} agents were called for nobody", runs - before);
    counters.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_goes_on_from_its_token_and_nothing_takes_effect_twice() -> Result<()> {
    const AGENTS: usize = 300;
    let counters = Counters::open(3, Duration::from_millis(5)).await?;
    let all = keys(0..AGENTS, "c");
    counters.make(COUNTER, "Add", &all).await?;
    let (mut counts, mut token, mut again, mut streams) = (BTreeMap::new(), Vec::new(), 0, 0);
    // Without a key of its own: the token has one.
    let request = ScatterRequest { parallel_max: 9, ..counters.add("", "") };
    loop {
        streams += 1;
        let resume = ScatterRequest { resume_token: token.clone().into(), ..request.clone() };
        let mut pages = counters.scatter(resume).await?;
        // Each stream breaks after a few pages.
        let mut ended = false;
        for _ in 0..10 {
            let Some(page) = next(&mut pages).await? else {
                ended = true;
                break;
            };
            token = page.resume_token.to_vec();
            for result in page.results {
                let mut one = BTreeMap::new();
                add_counts(&mut one, vec![result])?;
                for (key, value) in one {
                    if let Some(known) = counts.insert(key.clone(), value) {
                        ensure!(known == value, "{key} answered {known} and then {value}");
                        again += 1;
                    }
                }
            }
        }
        if ended {
            break;
        }
    }
    assert_eq!(counts, all.iter().map(|key| (key.clone(), 1)).collect());
    assert!(streams > 3 && again <= streams * 9, "{streams} streams, {again} results came again");
    counters.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_a_full_queue_is_called_again_until_it_has_room() -> Result<()> {
    let counters = Counters::open(1, Duration::ZERO).await?;
    counters.make(COUNTER, "Add", &["full".to_owned(), "idle".to_owned()]).await?;
    counters.watch.hold(true);
    let call = CallRequest {
        agent: format!("{COUNTER}/full"),
        method: "Add".to_owned(),
        request: counters.add("", "").request,
        timeout_ms: 60_000,
        ..CallRequest::default()
    };
    let call = move |id| PipeRequest { id, message: Some(pipe_request::Message::Call(call.clone())) };
    let mut answers =
        counters.service().pipe(futures::stream::iter((0..1_100).map(call))).await?.into_inner();
    // The first answer is that there is no room.
    let first = tokio::time::timeout(afdg_tests::PATIENCE, answers.message()).await??;
    let first = first.and_then(|answer| answer.result).and_then(|result| result.result);
    let Some(call_result::Result::Error(full)) = first else { panic!("{first:?}") };
    ensure!(full.message.contains("as many messages wait for the agent as may"), "{}", full.message);

    // As long as there is none, the agent has no outcome: that of an overload is none.
    let request = ScatterRequest { timeout_ms: 1_000, ..counters.add("", "k") };
    let mut pages = counters.scatter(request.clone()).await?;
    let ended = loop {
        match next(&mut pages).await {
            Ok(Some(page)) => ensure!(page.results.is_empty(), "{page:?}"),
            Ok(None) => panic!("the stream ended well"),
            Err(error) => break error.downcast::<tonic::Status>()?,
        }
    };
    assert_eq!(reason(&ended), "DEADLINE_OUTCOME_UNKNOWN", "{ended:?}");

    counters.watch.hold(false);
    let mut added = 0;
    while let Some(answer) = tokio::time::timeout(afdg_tests::PATIENCE, answers.message()).await?? {
        let result = answer.result.and_then(|result| result.result);
        added += i64::from(matches!(result, Some(call_result::Result::Response(_))));
    }
    let counts = counters.all(ScatterRequest { timeout_ms: 60_000, ..request }).await?;
    assert_eq!(counts.len(), 2);
    assert_eq!((counters.value("full").await?, counters.value("idle").await?), (added + 1, 1));
    counters.grid.stop().await;
    Ok(())
}
