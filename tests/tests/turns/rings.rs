//! Agents that wait for one another in a ring, each called by somebody else: one call is refused, and all the
//! others go on. Waiting alone is no ring.

use crate::whereabouts::home_of;
use afdg_agent::{AgentError, AgentRef, Context, NativeHost, async_trait};
use afdg_example_counter::v1::{AddManyRequest, AddManyResponse, FanoutAgent, FanoutCalls, fanout_agent};
use afdg_tests::{client::Client, grid, number_of};
use anyhow::Result;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::Barrier,
    time::{Duration, Instant},
};
use tonic::{Request, Status};
use tonic_types::StatusExt;

const TYPE: &str = "counter.v1.Fanout";
const DEADLINE: Duration = Duration::from_secs(60);
/// A ring is broken within 1 s on a machine that is not busy.
const BROKEN_WITHIN: Duration = Duration::from_secs(10);

/// As in `region-node/src/region/rings.rs`.
const SUSPECTED_AFTER: Duration = Duration::from_millis(200);

/// Waits until as many turns as `delta` says are here, and calls all that are named.
struct Meeting {
    barriers: BTreeMap<i64, Arc<Barrier>>,
    /// Calls that agents waited for as long as makes them suspected of standing in a ring.
    long_waits: Arc<AtomicU64>,
}

#[async_trait]
impl FanoutAgent for Meeting {
    async fn add_many(
        &self,
        ctx: &mut Context,
        request: AddManyRequest,
    ) -> Result<AddManyResponse, AgentError> {
        let AddManyRequest { counters, delta, .. } = request;
        if let Some(barrier) = self.barriers.get(&delta) {
            barrier.wait().await;
        } else {
            // How long a turn takes that meets nobody, in milliseconds.
            tokio::time::sleep(Duration::from_millis(delta.unsigned_abs())).await;
        }
        for next in counters {
            let began = Instant::now();
            ctx.call(FanoutCalls::add_many(&next, AddManyRequest::default())).await?;
            if began.elapsed() >= SUSPECTED_AFTER {
                self.long_waits.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(AddManyResponse { sum: 1 })
    }
}

async fn call(client: Client, key: String, counters: Vec<String>, delta: i64) -> Result<i64, Status> {
    let mut request = Request::new(AddManyRequest { fanout: key, counters, delta });
    request.set_timeout(DEADLINE);
    let answer: AddManyResponse = client.request("/counter.v1.Fanout/AddMany", request).await?;
    Ok(answer.sum)
}

fn host(rings: &[usize], long_waits: &Arc<AtomicU64>) -> Arc<NativeHost> {
    let barriers = rings.iter().map(|ring| (*ring as i64, Arc::new(Barrier::new(*ring)))).collect();
    let meeting = fanout_agent(Meeting { barriers, long_waits: Arc::clone(long_waits) });
    Arc::new(NativeHost::new().with(afdg_example_counter::counter()).with(meeting))
}

/// Has agents call one another in a ring; returns how long that took till all were free again.
async fn break_one(client: &Client, ring: usize, time: u64) -> Result<Duration> {
    let keys: Vec<String> = (0..ring).map(|place| format!("ring-{ring}-{time}-{place}")).collect();
    let mut regions = BTreeSet::new();
    for key in &keys {
        regions.insert(home_of(client, &AgentRef::new(TYPE, key)?).await?.region);
    }
    let began = Instant::now();
    let calls = (0..ring).map(|place| {
        let next = vec![keys[(place + 1) % ring].clone()];
        tokio::spawn(call(client.clone(), keys[place].clone(), next, ring as i64))
    });
    let (mut refused, mut answered) = (Vec::new(), 0);
    for call in calls.collect::<Vec<_>>() {
        match call.await? {
            Ok(sum) => answered += sum,
            Err(status) => refused.push(status),
        }
    }
    let took = began.elapsed();
    eprintln!("a ring of {ring} over {} regions took {} ms", regions.len(), took.as_millis());
    assert!(took < BROKEN_WITHIN, "a ring of {ring} took {took:?}");
    assert_eq!((answered, refused.len()), (ring as i64 - 1, 1), "{refused:?}");
    let reason = refused[0].get_details_error_info().map(|info| info.reason);
    assert_eq!(reason.as_deref(), Some("CALL_CYCLE"), "{:?}", refused[0]);
    for key in &keys {
        assert!(refused[0].message().contains(&format!("{TYPE}/{key}")), "{:?}", refused[0]);
    }
    // Nobody waits for anybody afterwards.
    for key in &keys {
        assert_eq!(call(client.clone(), key.clone(), Vec::new(), 0).await?, 1);
    }
    Ok(took)
}

/// `AFDG_RINGS` says how many of each size.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_independent_calls_is_broken_at_one_place() -> Result<()> {
    const RINGS: [usize; 3] = [2, 3, 10];
    let times = number_of("AFDG_RINGS", 1);
    let (grid, _folder) = grid(|options| options.agents = host(&RINGS, &Arc::default())).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    for ring in RINGS {
        let mut took = Vec::new();
        for time in 0..times {
            took.push(break_one(&client, ring, time).await?.as_millis());
        }
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        let (least, median, p90, most) = (at(0), at(50), at(90), at(100));
        println!(
            "{times} rings of {ring}, one victim each: {least} ms at least, {median} at the median, {p90} in nine of ten, {most} at most"
        );
    }
    grid.stop().await;
    Ok(())
}

/// `AFDG_CALLS` says how many.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_long_without_a_ring_is_left_alone() -> Result<()> {
    const AGENTS: u64 = 40;
    const IN_FLIGHT: usize = 64;
    let number = number_of("AFDG_CALLS", 3_000);
    let long_waits = Arc::default();
    let (grid, _folder) = grid(|options| options.agents = host(&[], &long_waits)).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    let permits = Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
    let mut calls = tokio::task::JoinSet::new();
    let mut random = 1_u64;
    let mut below = move |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let began = Instant::now();
    for _ in 0..number {
        // Agents call greater ones only. Some turns take long, so that many others wait for them.
        let first = below(AGENTS - 1);
        let next = (0..1 + below(3)).map(|_| first + 1 + below(AGENTS - 1 - first));
        let (key, next) = (format!("g{first}"), next.map(|number| format!("g{number}")).collect());
        let delta = if below(100) == 0 { 400 } else { 0 };
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let call = call(client.clone(), key, next, delta);
        calls.spawn(async move {
            let _permit = permit;
            call.await
        });
    }
    while let Some(call) = calls.join_next().await {
        assert_eq!(call??, 1);
    }
    let long_waits = long_waits.load(Ordering::Relaxed);
    println!(
        "{number} calls took {:.1} s; agents waited long {long_waits} times",
        began.elapsed().as_secs_f64()
    );
    // Else this has told nothing.
    assert!(long_waits >= number / 100, "agents waited long only {long_waits} times");
    grid.stop().await;
    Ok(())
}
