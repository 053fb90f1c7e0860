//! Who gets a scatter, how often, and how many at a time.

use afdg_example_counter::v1::{AddRequest, Count};
use afdg_proto::pb::v1::{CallRequest, ScatterRequest, scatter_result};
use afdg_tests::counters::{COUNTER, Counters, keys, next, reason};
use afdg_tests::mail::v1::{Letter, Letters, ReadRequest};
use anyhow::Result;
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

fn of(keys: &[String], value: i64) -> BTreeMap<String, i64> {
    keys.iter().map(|key| (key.clone(), value)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_agents_of_a_type_get_it_once_and_no_others() -> Result<()> {
    let counters = Counters::open(5, Duration::ZERO).await?;
    let all = [keys(0..200, "de-"), keys(0..100, "fr-"), vec!["*".to_owned(), "de*".to_owned()]].concat();
    counters.make(COUNTER, "Add", &all).await?;
    counters.make("mail.v1.Box", "Receive", &keys(0..100, "de-")).await?;
    let runs = counters.watch.runs();

    // Every one once; the same key again: the same answers, and no turn.
    for _ in 0..3 {
        let mut request = counters.add("", "k1");
        request.parallel_max = 64;
        assert_eq!(counters.all(request).await?, of(&all, 1));
        assert_eq!(counters.watch.runs(), runs + all.len());
    }
    // The message of one of them is the one that it gets by itself under that key.
    let call = CallRequest {
        agent: format!("{COUNTER}/fr-7"),
        method: "Add".to_owned(),
        request: counters.add("", "").request,
        idempotency_key: "k1".to_owned(),
        ..CallRequest::default()
    };
    let response = counters.service().call(call).await?.into_inner().response;
    assert_eq!(Count::decode(response)?.value, 1);

    let german = all.iter().filter(|key| key.starts_with("de-1")).cloned().collect::<Vec<_>>();
    assert_eq!(counters.all(counters.add("de-1", "k2")).await?, of(&german, 2));
    // A star in a key is a character like others.
    assert_eq!(counters.all(counters.add("*", "k3")).await?, of(&["*".to_owned()], 2));
    assert_eq!(counters.all(counters.add("none", "k4")).await?, BTreeMap::new());
    for (key, value) in [("de-1", 2), ("de-2", 1), ("fr-1", 1), ("*", 2), ("de*", 1)] {
        assert_eq!(counters.value(key).await?, value, "{key}");
    }
    // Another request under the key of before is refused by each agent for itself.
    let mut other = counters.add("fr-", "k1");
    other.request = AddRequest { delta: 9, ..Default::default() }.encode_to_vec().into();
    let mut pages = counters.scatter(other).await?;
    let mut refused = 0;
    while let Some(page) = next(&mut pages).await? {
        for result in page.results {
            let Some(scatter_result::Result::Error(error)) = result.result else { panic!("{result:?}") };
            assert!(error.message.contains("used before with another request"), "{}", error.message);
            refused += 1;
        }
    }
    assert_eq!(refused, 100);
    counters.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_with_a_tag_asks_the_agents_of_the_tag() -> Result<()> {
    let counters = Counters::open(3, Duration::ZERO).await?;
    let tagged = keys(0..50, "{de}/");
    counters
        .make(COUNTER, "Add", &[tagged.clone(), keys(0..50, "{fr}/"), keys(0..50, "de/")].concat())
        .await?;
    assert_eq!(counters.all(counters.add("{de}", "k")).await?, of(&tagged, 1));
    counters.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_agents_are_called_at_the_same_time_than_asked_for() -> Result<()> {
    let counters = Counters::open(3, Duration::from_millis(3)).await?;
    let all = keys(0..300, "c");
    counters.make(COUNTER, "Add", &all).await?;
    for parallel_max in [1, 2, 12] {
        counters.watch.take_most();
        let mut request = counters.add("", &format!("k{parallel_max}"));
        request.parallel_max = parallel_max;
        let mut pages = counters.scatter(request).await?;
        let (mut results, mut page_count) = (0, 0);
        while let Some(page) = next(&mut pages).await? {
            results += page.results.len();
            page_count += 1;
        }
        assert_eq!(results, all.len());
        let most = counters.watch.take_most();
        assert!((1..=parallel_max as usize).contains(&most), "{most} of {parallel_max}");
        assert!(parallel_max < 12 || most > 3, "{most} side by side in 3 regions");
        // Results come as they are ready.
        assert!(page_count >= all.len() / 256 + 3, "{page_count} pages");
    }
    counters.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_agent_may_refuse_by_itself_and_messages_may_be_left_for_later() -> Result<()> {
    let counters = Counters::open(3, Duration::ZERO).await?;
    let boxes = keys(0..60, "b");
    counters.make("mail.v1.Box", "Receive", &boxes).await?;
    let letter = |number, refused_until_ms| ScatterRequest {
        r#type: "mail.v1.Box".to_owned(),
        method: "Receive".to_owned(),
        request: Letter { number, refused_until_ms, ..Letter::default() }.encode_to_vec().into(),
        idempotency_key: format!("k{number}"),
        ..ScatterRequest::default()
    };
    let mut refusals = BTreeSet::new();
    let mut pages = counters.scatter(letter(1, u64::MAX)).await?;
    while let Some(page) = next(&mut pages).await? {
        for result in page.results {
            let Some(scatter_result::Result::Error(error)) = result.result else { panic!("{result:?}") };
            assert_eq!(error.message, "the letter is refused for now");
            assert!(refusals.insert(result.agent));
        }
    }
    assert_eq!(refusals.len(), boxes.len());

    let mut accepted = BTreeSet::new();
    for _ in 0..2 {
        let mut pages = counters.scatter(ScatterRequest { send: true, ..letter(2, 0) }).await?;
        while let Some(page) = next(&mut pages).await? {
            for result in page.results {
                let empty = Some(scatter_result::Result::Response(Default::default()));
                assert_eq!(result.result, empty, "{}", result.agent);
                accepted.insert(result.agent);
            }
        }
    }
    assert_eq!(accepted.len(), boxes.len());
    for key in boxes {
        let give_up = tokio::time::Instant::now() + afdg_tests::PATIENCE;
        loop {
            let request = ReadRequest { r#box: key.clone() };
            let letters: Letters = counters.client.call("/mail.v1.Box/Read", request).await?;
            let numbers: Vec<_> = letters.letters.into_iter().map(|letter| letter.number).collect();
            if numbers == [0, 2] {
                break;
            }
            assert!(numbers == [0] && tokio::time::Instant::now() < give_up, "{key} has {numbers:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    counters.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_scattered_is_refused() -> Result<()> {
    let counters = Counters::open(1, Duration::ZERO).await?;
    let request = |agent_type: &str, method: &str, key_prefix: &str| ScatterRequest {
        r#type: agent_type.to_owned(),
        method: method.to_owned(),
        key_prefix: key_prefix.to_owned(),
        ..ScatterRequest::default()
    };
    for (request, refusal) in [
        (request("counter.v1.None", "Add", ""), "UNKNOWN_TYPE"),
        (request(COUNTER, "Burn", ""), "UNKNOWN_METHOD"),
        (request(COUNTER, "Add", "a\nb"), "INVALID_REQUEST"),
    ] {
        assert_eq!(reason(&counters.scatter(request).await.unwrap_err()), refusal);
    }
    counters.grid.stop().await;
    Ok(())
}
