//! A call that would wait for itself is refused at once, wherever the agents in its chain live.

use crate::whereabouts::home_of;
use afdg_agent::{AgentError, AgentRef, AgentType, Context, NativeHost, async_trait};
use afdg_example_counter::v1::{AddManyRequest, AddManyResponse, FanoutAgent, FanoutCalls, fanout_agent};
use afdg_tests::{client::Client, grid};
use anyhow::{Context as _, Result};
use std::{collections::BTreeSet, sync::Arc};
use tokio::time::{Duration, Instant};
use tonic::{Request, Status};
use tonic_types::StatusExt;

const TYPE: &str = "counter.v1.Fanout";
/// Far from what a refusal takes, and far from when a call that waits would be given up.
const AT_ONCE: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(60);

/// A fanout that calls the first of those named, with the rest: a chain of agents that wait.
struct Chained;

#[async_trait]
impl FanoutAgent for Chained {
    async fn add_many(
        &self,
        ctx: &mut Context,
        request: AddManyRequest,
    ) -> Result<AddManyResponse, AgentError> {
        let AddManyRequest { mut counters, delta, .. } = request;
        if counters.is_empty() {
            return Ok(AddManyResponse { sum: delta });
        }
        let next = counters.remove(0);
        let rest = AddManyRequest { counters, delta, ..Default::default() };
        let answer = ctx.call(FanoutCalls::add_many(&next, rest)).await?;
        Ok(AddManyResponse { sum: answer.sum + delta })
    }
}

fn chained() -> AgentType {
    fanout_agent(Chained)
}

/// The sum along a chain, or the refusal that it met.
async fn along(client: &Client, chain: &[&str]) -> Result<i64, Status> {
    let counters = chain[1..].iter().map(|key| (*key).to_owned()).collect();
    let request = AddManyRequest { fanout: chain[0].to_owned(), counters, delta: 1 };
    let mut request = Request::new(request);
    request.set_timeout(DEADLINE);
    let answer: AddManyResponse = client.request("/counter.v1.Fanout/AddMany", request).await?;
    Ok(answer.sum)
}

/// One agent for each region.
async fn everywhere(client: &Client, regions: usize) -> Result<Vec<String>> {
    let (mut keys, mut found) = (Vec::new(), BTreeSet::new());
    for number in 0.. {
        let key = format!("f{number}");
        if found.insert(home_of(client, &AgentRef::new(TYPE, &key)?).await?.region) {
            keys.push(key);
        }
        if keys.len() == regions {
            break;
        }
    }
    Ok(keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_of_calls_across_regions_is_refused_at_once_with_its_way() -> Result<()> {
    let agents = NativeHost::new().with(afdg_example_counter::counter()).with(chained());
    let (grid, _folder) = grid(|options| options.agents = Arc::new(agents)).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    let keys = everywhere(&client, usize::from(grid.layout().regions)).await?;
    let [a, b, c] = [&*keys[0], &*keys[1], &*keys[2]];
    assert_eq!(along(&client, &[a, b, c]).await?, 3);

    for (chain, cycle) in [
        (&[a, a][..], &[a, a][..]),
        (&[a, b, a], &[a, b, a]),
        (&[a, b, c, a], &[a, b, c, a]),
        (&[a, b, c, b], &[a, b, c, b]),
    ] {
        let began = Instant::now();
        let refused = along(&client, chain).await.unwrap_err();
        assert!(began.elapsed() < AT_ONCE, "{chain:?} took {:?}", began.elapsed());
        let way = cycle.iter().map(|key| format!("{TYPE}/{key}")).collect::<Vec<_>>().join(" -> ");
        let info = refused.get_details_error_info().context("a refusal has its facts")?;
        assert_eq!(info.reason, "CALL_CYCLE", "{chain:?}: {refused:?}");
        assert!(refused.message().contains(&way), "{chain:?}: {refused:?}");
        assert_eq!(info.metadata.get("chain"), Some(&way), "{chain:?}: {refused:?}");
        assert!(refused.message().contains("option (afdg.reentrant) = CALL_CHAIN"), "{refused:?}");
        // Nobody waits for anybody afterwards.
        assert_eq!(along(&client, &[c, b, a]).await?, 3);
    }
    grid.stop().await;
    Ok(())
}
