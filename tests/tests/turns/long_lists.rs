//! Appending to a list costs the same however long it is.

use afdg_agent::{AgentError, Context, NativeHost, async_trait};
use afdg_example_counter::v1::{AddRequest, Count, CounterAgent, GetRequest, counter_agent};
use afdg_tests::{client::Client, grid};
use anyhow::Result;
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use tonic::Request;

const LONG_ITEMS: i64 = 1_000_000;
const SHORT_ITEMS: i64 = 10;
/// Of one turn, so that the turn stays within what it may write and how long it may take.
const TURN_ITEMS: i64 = 50_000;
/// Appends to each list. One to the long, one to a short, and so on: what else the machine does meets both.
const SAMPLES: usize = 200;
const DEADLINE: Duration = Duration::from_secs(60);

/// A counter that counts by the items of a list.
struct Lists;

const ITEMS: &str = "items";

#[async_trait]
impl CounterAgent for Lists {
    async fn add(&self, ctx: &mut Context, request: AddRequest) -> Result<Count, AgentError> {
        for item in 0..request.delta {
            ctx.entity(ITEMS).push(&item).await?;
        }
        count(ctx).await
    }

    async fn get(&self, ctx: &mut Context, _: GetRequest) -> Result<Count, AgentError> {
        count(ctx).await
    }
}

async fn count(ctx: &mut Context) -> Result<Count, AgentError> {
    let length = ctx.entity(ITEMS).len().await?;
    Ok(Count { value: i64::try_from(length).unwrap_or(i64::MAX) })
}

async fn append(client: &Client, list: &str, items: i64) -> Result<i64> {
    let mut request = Request::new(AddRequest { counter: list.to_owned(), delta: items });
    request.set_timeout(DEADLINE);
    Ok(client.request::<_, Count>("/counter.v1.Counter/Add", request).await?.value)
}

async fn time_of_an_append(client: &Client, list: &str, length: i64) -> Result<Duration> {
    let began = Instant::now();
    assert_eq!(append(client, list, 1).await?, length + 1);
    Ok(began.elapsed())
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// Medians of appends to the long list and to lists that are short.
async fn medians(client: &Client, round: usize) -> Result<(Duration, Duration)> {
    let short = |sample: usize| format!("short-{round}-{sample}");
    let mut filled = JoinSet::new();
    for list in (0..SAMPLES).map(short) {
        let client = client.clone();
        filled.spawn(async move { append(&client, &list, SHORT_ITEMS).await });
    }
    while let Some(filled) = filled.join_next().await {
        assert_eq!(filled??, SHORT_ITEMS);
    }
    let already = i64::try_from(round * SAMPLES)?;
    let (mut on_long, mut on_short) = (Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        let length = LONG_ITEMS + already + i64::try_from(sample)?;
        on_long.push(time_of_an_append(client, "long", length).await?);
        on_short.push(time_of_an_append(client, &short(sample), SHORT_ITEMS).await?);
    }
    Ok((median(on_long), median(on_short)))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_to_a_million_items_takes_no_longer_than_to_ten() -> Result<()> {
    let agents = NativeHost::new().with(counter_agent(Lists));
    let (grid, _folder) = grid(|options| {
        options.agents = Arc::new(agents);
        options.size.regions = Some(1);
    })
    .await?;
    let client = Client::connect(&grid.endpoint()).await?;
    let mut length = 0;
    while length < LONG_ITEMS {
        length = append(&client, "long", TURN_ITEMS).await?;
    }
    assert_eq!(length, LONG_ITEMS);

    // What disturbs a whole round, such as a checkpoint of the long list, is over in the next.
    let mut seen = Vec::new();
    for round in 0..2 {
        let (on_long, on_short) = medians(&client, round).await?;
        if on_long <= 2 * on_short {
            grid.stop().await;
            return Ok(());
        }
        seen.push((on_long, on_short));
    }
    panic!("medians on {LONG_ITEMS} and on {SHORT_ITEMS} items: {seen:?}");
}
