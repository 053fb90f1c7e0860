//! A scatter while its leaders freeze and die, and while the extension that runs it dies.

use crate::grid;
use afdg_example_counter::v1::AddRequest;
use afdg_proto::pb::v1::{
    CallManyRequest, CallRequest, ScatterRequest, ScatterResponse, grid_client::GridClient,
};
use afdg_tests::{
    cluster::Cluster,
    counters::{COUNTER, add_counts, keys, next},
};
use anyhow::{Context, Result, ensure};
use prost::Message;
use std::collections::BTreeMap;
use tonic::{Streaming, transport::Channel};

const AGENTS: usize = 1_200;

async fn service(endpoint: &str) -> Result<GridClient<Channel>> {
    Ok(GridClient::new(Channel::from_shared(endpoint.to_owned())?.connect().await?))
}

fn add(idempotency_key: &str) -> ScatterRequest {
    ScatterRequest {
        r#type: COUNTER.to_owned(),
        key_prefix: "scattered-".to_owned(),
        method: "Add".to_owned(),
        request: AddRequest { delta: 1, ..AddRequest::default() }.encode_to_vec().into(),
        idempotency_key: idempotency_key.to_owned(),
        timeout_ms: 120_000,
        // Slowly, so that something is left when a process dies.
        parallel_max: 3,
        ..ScatterRequest::default()
    }
}

async fn make(endpoint: &str, all: &[String]) -> Result<()> {
    for part in all.chunks(1_000) {
        let calls = part.iter().map(|key| CallRequest {
            agent: format!("{COUNTER}/{key}"),
            method: "Add".to_owned(),
            ..CallRequest::default()
        });
        let request = CallManyRequest { calls: calls.collect(), ..CallManyRequest::default() };
        service(endpoint).await?.call_many(request).await?;
    }
    Ok(())
}

/// Some of the results, and what is left of the stream.
async fn begin(
    endpoint: &str,
    key: &str,
) -> Result<(BTreeMap<String, i64>, Streaming<ScatterResponse>, Vec<u8>)> {
    let mut pages = service(endpoint).await?.scatter(add(key)).await?.into_inner();
    let (mut counts, mut token) = (BTreeMap::new(), Vec::new());
    while counts.len() < AGENTS / 10 {
        let page = next(&mut pages).await?.context("the stream ended before its time")?;
        token = page.resume_token.to_vec();
        add_counts(&mut counts, page.results)?;
    }
    ensure!(counts.len() < AGENTS / 2, "too little is left to be interrupted");
    Ok((counts, pages, token))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scatter_reaches_everyone_once_whichever_process_freezes_or_dies() -> Result<()> {
    let mut grid = grid().await?;
    let endpoints = grid.endpoints();
    let cluster = Cluster::new(&endpoints[0])?;
    let all = keys(0..AGENTS, "scattered-");
    let of = |value: i64| all.iter().map(|key| (key.clone(), value)).collect::<BTreeMap<_, _>>();
    make(&endpoints[0], &all).await?;

    // A frozen leader closes no connection.
    cluster.let_lead_all("node-2").await?;
    let (mut counts, mut pages, _) = begin(&endpoints[0], "k1").await?;
    grid.freeze("node-2")?;
    while let Some(page) = next(&mut pages).await? {
        add_counts(&mut counts, page.results)?;
    }
    ensure!(counts == of(1), "not everyone was reached once while the leader was frozen");
    grid.thaw("node-2")?;
    grid.until_well().await?;

    // A leader without the others takes itself for one for a while, and can end nothing.
    cluster.let_lead_all("node-1").await?;
    let (mut counts, mut pages, _) = begin(&endpoints[0], "k1b").await?;
    for name in ["node-2", "node-3"] {
        grid.freeze(name)?;
    }
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    // What was committed by then still comes.
    while let Ok(page) = tokio::time::timeout_at(until, pages.message()).await {
        add_counts(&mut counts, page?.context("the stream ended without a majority")?.results)?;
    }
    for name in ["node-2", "node-3"] {
        grid.thaw(name)?;
    }
    while let Some(page) = next(&mut pages).await? {
        add_counts(&mut counts, page.results)?;
    }
    ensure!(counts == of(2), "not everyone was reached once while there was no majority");
    grid.until_well().await?;

    cluster.let_lead_all("node-1").await?;
    let (mut counts, mut pages, _) = begin(&endpoints[0], "k2").await?;
    grid.kill("node-1")?;
    while let Some(page) = next(&mut pages).await? {
        add_counts(&mut counts, page.results)?;
    }
    ensure!(counts == of(3), "not everyone was reached once while the leader died");
    grid.restart("node-1")?;
    grid.until_well().await?;

    // The extension dies: its stream goes on through the other one.
    let (mut counts, mut pages, mut token) = begin(&endpoints[0], "k3").await?;
    let extension = grid.names_of("extension").into_iter().next().context("there is no extension")?;
    grid.kill(&extension)?;
    // What had come by then may be read still.
    while let Ok(Some(page)) = next(&mut pages).await {
        token = page.resume_token.to_vec();
        add_counts(&mut counts, page.results)?;
    }
    ensure!(counts.len() < AGENTS, "the stream was not broken");
    let resume = ScatterRequest { resume_token: token.into(), ..add("k3") };
    let mut pages = service(&endpoints[1]).await?.scatter(resume).await?.into_inner();
    let mut rest = BTreeMap::new();
    while let Some(page) = next(&mut pages).await? {
        add_counts(&mut rest, page.results)?;
    }
    let again = counts.iter().filter(|(key, value)| rest.get(*key) == Some(*value)).count();
    grid.tell(format_args!(
        "{} results before and {} after, {again} of them again",
        counts.len(),
        rest.len()
    ));
    ensure!(again <= 3 * 256, "{again} results came again");
    rest.extend(counts);
    ensure!(rest == of(4), "not everyone was reached once while the extension died");

    // Once in effect as well.
    let get = ScatterRequest { method: "Get".to_owned(), request: Default::default(), ..add("") };
    let mut pages = service(&endpoints[1]).await?.scatter(get).await?.into_inner();
    let mut counts = BTreeMap::new();
    while let Some(page) = next(&mut pages).await? {
        add_counts(&mut counts, page.results)?;
    }
    ensure!(counts == of(4), "the counters are not what they should be");
    grid.finish()
}
