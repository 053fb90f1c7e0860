//! A handler that is run again and makes another call than before, since it takes its facts from elsewhere than
//! its context: the call is refused, with what differs, and does nothing a second time.

use crate::whereabouts::{Home, eventually, home_of, until_settled};
use afdg_agent::{AgentError, AgentRef, Context, NativeHost, async_trait};
use afdg_example_counter::v1::{
    AddManyRequest, AddManyResponse, AddRequest, Count, CounterCalls, FanoutAgent, GetRequest, fanout_agent,
};
use afdg_tests::{
    PATIENCE,
    client::{Client, with_key},
    grid,
};
use anyhow::{Context as _, Result};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::watch,
    time::{Duration, timeout},
};
use tonic::Status;
use tonic_types::StatusExt;

const FANOUT: &str = "counter.v1.Fanout";
const DEADLINE: Duration = Duration::from_secs(120);
/// What differs the second time, by what `delta` says.
const SAME: i64 = 1;
const REQUEST: i64 = 2;
const METHOD: i64 = 3;
const AGENT: i64 = 4;

/// Adds 10 to its first counter. Its first run never ends; the others do what the first did, or something else.
struct Fickle {
    /// By the agent's key, its runs so far: shared by all nodes, as no fact that a handler goes by may be.
    runs: Mutex<BTreeMap<String, u32>>,
    /// First runs that have made their call.
    called: watch::Sender<usize>,
}

#[async_trait]
impl FanoutAgent for Fickle {
    async fn add_many(
        &self,
        ctx: &mut Context,
        request: AddManyRequest,
    ) -> Result<AddManyResponse, AgentError> {
        let run = {
            let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            let run = runs.entry(ctx.key().to_owned()).or_default();
            *run += 1;
            *run
        };
        let [first, second] = &request.counters[..] else {
            return Err(AgentError::refused("COUNTERS", "two counters are needed"));
        };
        let add = |key: &str, delta: i64| CounterCalls::add(key, AddRequest { delta, ..Default::default() });
        let again = run > 1;
        let value = match request.delta {
            REQUEST if again => ctx.call(add(first, 20)).await?.value,
            METHOD if again => ctx.call(CounterCalls::get(first, GetRequest::default())).await?.value,
            AGENT if again => ctx.call(add(second, 10)).await?.value,
            _ => ctx.call(add(first, 10)).await?.value,
        };
        if !again {
            self.called.send_modify(|called| *called += 1);
            std::future::pending::<()>().await;
        }
        Ok(AddManyResponse { sum: value })
    }
}

/// Keys of a type by whether their home fits, as many as are wanted.
async fn keys(
    client: &Client,
    agent_type: &str,
    count: usize,
    fits: impl Fn(&Home) -> bool,
) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for number in 0..10_000 {
        let key = format!("k{number}");
        if fits(&home_of(client, &AgentRef::new(agent_type, &key)?).await?) {
            keys.push(key);
        }
        if keys.len() == count {
            return Ok(keys);
        }
    }
    anyhow::bail!("there are only {keys:?}")
}

async fn value(client: &Client, counter: &str) -> Result<i64> {
    let get = GetRequest { counter: counter.to_owned() };
    Ok(client.call::<_, Count>("/counter.v1.Counter/Get", get).await?.value)
}

async fn run(client: Client, fanout: String, counters: [String; 2], delta: i64) -> Result<i64, Status> {
    let request = AddManyRequest { fanout, counters: counters.to_vec(), delta };
    let mut request = with_key(request, "once")?;
    request.set_timeout(DEADLINE);
    let answer: AddManyResponse = client.request("/counter.v1.Fanout/AddMany", request).await?;
    Ok(answer.sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_run_again_and_calls_otherwise_is_refused_with_what_differs() -> Result<()> {
    let fickle = Fickle { runs: Mutex::default(), called: watch::Sender::new(0) };
    let mut called = fickle.called.subscribe();
    let host = NativeHost::new().with(afdg_example_counter::counter()).with(fanout_agent(fickle));
    let (mut grid, _folder) = grid(|options| {
        options.agents = Arc::new(host);
        options.size.regions = Some(3);
    })
    .await?;
    let client = Client::connect(&grid.endpoint()).await?;
    let home = home_of(&client, &AgentRef::new(FANOUT, "k0")?).await?;
    until_settled(&grid, &home).await?;
    let fanouts = keys(&client, FANOUT, 4, |found| *found == home).await?;
    // Counters in two other regions, which keep their leaders: who is called otherwise is called elsewhere.
    let counters = "counter.v1.Counter";
    let is_elsewhere = |found: &Home| found.region != home.region && found.preferred != home.preferred;
    let some = keys(&client, counters, 1, is_elsewhere).await?;
    let region = home_of(&client, &AgentRef::new(counters, &some[0])?).await?.region;
    let first = keys(&client, counters, 4, |found| found.region == region).await?;
    let second = keys(&client, counters, 4, |found| is_elsewhere(found) && found.region != region).await?;

    let ways = [SAME, REQUEST, METHOD, AGENT];
    let turns = ways.iter().enumerate().map(|(place, way)| {
        let counters = [first[place].clone(), second[place].clone()];
        tokio::spawn(run(client.clone(), fanouts[place].clone(), counters, *way))
    });
    let turns: Vec<_> = turns.collect();
    timeout(PATIENCE, called.wait_for(|called| *called == ways.len())).await??;
    grid.stop_node(&home.preferred).await?;

    for (place, (turn, way)) in turns.into_iter().zip(ways).enumerate() {
        let answer = turn.await?;
        if way == SAME {
            assert_eq!(answer?, 10);
            continue;
        }
        let refused = answer.unwrap_err();
        let info = refused.get_details_error_info().context("a refusal has its facts")?;
        assert_eq!((&*info.reason, &*info.domain), ("ID_REUSED", FANOUT), "{refused:?}");
        let whose = format!("on {FANOUT}/{}", fanouts[place]);
        for part in ["call or send number 1 of the turn of message", &*whose, "its Context only"] {
            assert!(refused.message().contains(part), "{refused:?}");
        }
        let differs = match way {
            REQUEST => "what differs: request",
            METHOD => "what differs: method",
            _ => "what differs: agent, request; it called an agent of slot",
        };
        assert!(refused.message().contains(differs), "{refused:?}");
        // The next run of the message gets the same.
        let counters = [first[place].clone(), second[place].clone()];
        let again = run(client.clone(), fanouts[place].clone(), counters, way).await.unwrap_err();
        assert_eq!(again.message(), refused.message());
    }
    // The first call took effect once, whatever came after it.
    for place in 0..ways.len() {
        eventually("the counters can be read", async || Ok(value(&client, &second[place]).await.is_ok()))
            .await?;
        assert_eq!((value(&client, &first[place]).await?, value(&client, &second[place]).await?), (10, 0));
    }
    grid.stop().await;
    Ok(())
}
