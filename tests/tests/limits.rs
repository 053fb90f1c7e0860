//! Limits of agent types, set while the grid runs, and handlers that would keep everything for themselves: they
//! hurt their own agents, and nobody else's.

use afdg_agent::{AgentError, Context, NativeHost, async_trait};
use afdg_dev_grid::DevGrid;
use afdg_example_counter::v1::{
    AddManyRequest, AddManyResponse, AddRequest, Count, CounterAgent, FanoutAgent, GetRequest, counter_agent,
    fanout_agent,
};
use afdg_proto::{
    pb::admin::{SetTypeLimitsRequest, TypeLimit, cluster_client::ClusterClient},
    status::to_call_error,
};
use afdg_tests::{PATIENCE, client::Client, grid};
use afdg_types::{CallError, GridError, Reason};
use anyhow::{Result, ensure};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};
use tonic::{Request, Status};

const TYPE: &str = "counter.v1.Fanout";

/// What a handler does, given in place of the number to add.
const LOOPS: i64 = -1;
const PANICS: i64 = -2;
const PUSHES: i64 = -3;
const COUNTS: i64 = -4;

/// Does what it is told; from 0 on it takes so many milliseconds.
#[derive(Clone, Default)]
struct Greedy {
    /// Ends the loops.
    stop: Arc<AtomicBool>,
    looping: Arc<AtomicU64>,
    running: Arc<AtomicU64>,
    most_running: Arc<AtomicU64>,
}

#[async_trait]
impl FanoutAgent for Greedy {
    async fn add_many(
        &self,
        ctx: &mut Context,
        request: AddManyRequest,
    ) -> Result<AddManyResponse, AgentError> {
        let sum = match request.delta {
            LOOPS => {
                self.looping.fetch_add(1, SeqCst);
                while !self.stop.load(SeqCst) {
                    std::hint::spin_loop();
                    std::thread::yield_now();
                }
                0
            }
            PANICS => panic!("as it was told"),
            PUSHES => loop {
                ctx.entity("pushed").push(&"x".repeat(1_000)).await?;
            },
            COUNTS => ctx.entity("pushed").len().await? as i64,
            ms => {
                let running = self.running.fetch_add(1, SeqCst) + 1;
                self.most_running.fetch_max(running, SeqCst);
                sleep(Duration::from_millis(ms.unsigned_abs())).await;
                self.running.fetch_sub(1, SeqCst);
                0
            }
        };
        Ok(AddManyResponse { sum })
    }
}

/// Lets go of all loops, however a test ends: the runtime would wait for them.
struct StopsLoops(Arc<AtomicBool>);

impl Drop for StopsLoops {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn host(greedy: &Greedy) -> Arc<NativeHost> {
    Arc::new(NativeHost::new().with(afdg_example_counter::counter()).with(fanout_agent(greedy.clone())))
}

async fn tell(client: &Client, key: &str, what: i64) -> Result<i64, GridError> {
    let mut request =
        Request::new(AddManyRequest { fanout: key.to_owned(), counters: Vec::new(), delta: what });
    request.set_timeout(PATIENCE);
    let answer: Result<AddManyResponse, Status> = client.request("/counter.v1.Fanout/AddMany", request).await;
    answer.map(|answer| answer.sum).map_err(|status| match to_call_error(&status) {
        CallError::Grid(error) => error,
        CallError::Agent(error) => GridError::new(Reason::Internal, error.message),
    })
}

async fn set(client: &Client, set: &[(&str, u64)], reset: &[&str]) -> Result<Vec<TypeLimit>, Status> {
    set_of(client, TYPE, set, reset).await
}

async fn set_of(
    client: &Client,
    agent_type: &str,
    set: &[(&str, u64)],
    reset: &[&str],
) -> Result<Vec<TypeLimit>, Status> {
    let request = SetTypeLimitsRequest {
        r#type: agent_type.to_owned(),
        set: set.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<HashMap<_, _>>(),
        reset: reset.iter().map(|name| (*name).to_owned()).collect(),
        actor: "a test".to_owned(),
        reason: "to see what holds".to_owned(),
    };
    let response = ClusterClient::new(client.channel()).set_type_limits(request).await?;
    Ok(response.into_inner().limits)
}

/// Until `done` says so, since nodes hear of a limit a moment after it was set.
async fn until<F: Future<Output = Result<bool>>>(what: &str, mut done: impl FnMut() -> F) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !done().await? {
        ensure!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn handlers_that_loop_panic_or_write_without_end_hurt_their_own_agents_only() -> Result<()> {
    let greedy = Greedy::default();
    let _stops = StopsLoops(Arc::clone(&greedy.stop));
    let (grid, _folder) = grid(|options| options.agents = host(&greedy)).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    set(&client, &[("turn_ms_max", 300)], &[]).await?;
    let is_short = || async {
        let began = Instant::now();
        let failed = tell(&client, "slow", 2_000).await.is_err();
        Ok(failed && began.elapsed() < Duration::from_millis(1_900))
    };
    until("a turn of 2 s is given up", is_short).await?;

    let panicked = tell(&client, "panics", PANICS).await.unwrap_err();
    assert_eq!(panicked.reason, Reason::HandlerPanicked);
    let too_large = tell(&client, "pushes", PUSHES).await.unwrap_err();
    assert_eq!(too_large.reason, Reason::TurnTooLarge, "{too_large:?}");
    assert_eq!(tell(&client, "pushes", COUNTS).await?, 0, "the agent is as it was");

    // More loops than there are threads, of many agents.
    let loops: Vec<_> = (0..16)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { tell(&client, &format!("loops-{number}"), LOOPS).await })
        })
        .collect();
    until("handlers loop", || async { Ok(greedy.looping.load(SeqCst) >= 4) }).await?;
    for number in 0..50 {
        let add = AddRequest { counter: format!("c-{number}"), delta: 1 };
        let mut request = Request::new(add);
        request.set_timeout(PATIENCE);
        let count: Count = client.request("/counter.v1.Counter/Add", request).await?;
        assert_eq!(count.value, 1);
    }
    let mut timed_out = 0;
    for looped in loops {
        let error = looped.await?.unwrap_err();
        assert_eq!(error.reason, Reason::HandlerTimedOut, "{error:?}");
        timed_out += 1;
    }
    assert_eq!(timed_out, 16, "each caller is told");
    // Their agents take other messages once threads are free; nothing of the loops is left.
    greedy.stop.store(true, SeqCst);
    for number in 0..16 {
        let key = format!("loops-{number}");
        until("the agent goes on", || async { Ok(tell(&client, &key, 0).await.is_ok()) }).await?;
    }
    grid.stop().await;
    Ok(())
}

/// Reads of `c` never end; the grid itself reads others as it starts.
struct LoopingReads(Arc<AtomicBool>);

#[async_trait]
impl CounterAgent for LoopingReads {
    async fn add(&self, _: &mut Context, request: AddRequest) -> Result<Count, AgentError> {
        Ok(Count { value: request.delta })
    }

    async fn get(&self, ctx: &mut Context, _: GetRequest) -> Result<Count, AgentError> {
        while ctx.key() == "c" && !self.0.load(SeqCst) {
            std::hint::spin_loop();
            std::thread::yield_now();
        }
        Ok(Count { value: 0 })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_read_that_loops_is_given_up_and_its_place_goes_to_others() -> Result<()> {
    const COUNTER: &str = "counter.v1.Counter";
    let stop = Arc::<AtomicBool>::default();
    let _stops = StopsLoops(Arc::clone(&stop));
    let host = NativeHost::new().with(counter_agent(LoopingReads(stop)));
    let (grid, _folder) = grid(|options| {
        options.agents = Arc::new(host);
        options.size.regions = Some(1);
    })
    .await?;
    let client = Client::connect(&grid.endpoint()).await?;
    set_of(&client, COUNTER, &[("turn_ms_max", 300), ("turns_concurrent_max", 1)], &[]).await?;
    let call = |method: &'static str| {
        let client = &client;
        async move {
            let mut request = Request::new(AddRequest { counter: "c".to_owned(), delta: 7 });
            request.set_timeout(PATIENCE);
            client.request::<_, Count>(method, request).await
        }
    };
    // Both limits were set in one step, so a region that knows one knows the other.
    let status = call("/counter.v1.Counter/Get").await.unwrap_err();
    let CallError::Grid(error) = to_call_error(&status) else { anyhow::bail!("{status}") };
    assert_eq!(error.reason, Reason::HandlerTimedOut, "{error:?}");
    assert_eq!(call("/counter.v1.Counter/Add").await?.value, 7, "the one place is free again");
    grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_and_given_back_while_the_grid_runs() -> Result<()> {
    let greedy = Greedy::default();
    let (grid, _folder) = grid(|options| options.agents = host(&greedy)).await?;
    let client = Client::connect(&grid.endpoint()).await?;

    // What is wrong is refused, and nothing is changed.
    for (name, value, part) in [
        ("turns_max", 1, "there is no limit 'turns_max'"),
        ("turn_ms_max", 0, "turn_ms_max can be 1 to 60000"),
    ] {
        let refused = set(&client, &[(name, value)], &[]).await.unwrap_err();
        assert!(refused.message().contains(part), "{}", refused.message());
    }
    let shown = set(&client, &[("turns_per_second_max", 5)], &[]).await?;
    let rate = shown.iter().find(|limit| limit.name == "turns_per_second_max").unwrap();
    assert_eq!((rate.value, rate.default, rate.set), (5, 0, true));
    assert_eq!(shown.iter().filter(|limit| limit.set).count(), 1);
    let end = Instant::now() + PATIENCE;
    let refused = loop {
        if let Err(refused) = tell(&client, "fast", 0).await {
            break refused;
        }
        ensure!(Instant::now() < end, "never: a message past the rate is refused");
    };
    assert_eq!(refused.reason, Reason::Overloaded);
    assert_eq!(refused.metadata["limit"], "turns_per_second_max");
    assert!((1..=200).contains(&refused.retry_after_ms.unwrap_or(0)), "{refused:?}");
    let count: Count =
        client.call("/counter.v1.Counter/Add", AddRequest { counter: "c".into(), delta: 1 }).await?;
    assert_eq!(count.value, 1, "another type is let in");

    set(&client, &[("turns_concurrent_max", 1)], &["turns_per_second_max"]).await?;
    // As many at once as before until the nodes have heard; then one after the other in each region.
    let most_at_once = || {
        let (client, greedy) = (&client, &greedy);
        async move {
            greedy.most_running.store(0, SeqCst);
            // One slot, so one region.
            let calls = (0..8).map(|number| {
                let client = client.clone();
                tokio::spawn(async move { tell(&client, &format!("{{one}}-{number}"), 20).await })
            });
            let mut all = true;
            for call in calls.collect::<Vec<_>>() {
                all &= call.await?.is_ok();
            }
            Ok(all && greedy.most_running.load(SeqCst) == 1)
        }
    };
    until("turns run one at a time", most_at_once).await?;

    set(&client, &[("mailbox_messages_max", 2)], &["turns_concurrent_max"]).await?;
    let is_full = || {
        let client = &client;
        async move {
            let calls = (0..8).map(|_| {
                let client = client.clone();
                tokio::spawn(async move { tell(&client, "full", 50).await })
            });
            let mut refused = Vec::new();
            for call in calls.collect::<Vec<_>>() {
                refused.extend(call.await?.err());
            }
            let of_mailbox = |error: &GridError| {
                error.metadata.get("limit").is_some_and(|limit| limit == "mailbox_messages_max")
            };
            ensure!(refused.iter().all(of_mailbox), "{refused:?}");
            // One runs, two wait.
            Ok(refused.len() == 5)
        }
    };
    until("a full mailbox takes no more", is_full).await?;
    let shown = set(&client, &[], &["mailbox_messages_max"]).await?;
    assert!(shown.iter().all(|limit| !limit.set));
    grid.stop().await;
    Ok(())
}

/// Messages that came to a region when it had no room for them, in all regions.
async fn refused_in_regions(grid: &DevGrid) -> Result<u64> {
    let mut sum = 0;
    for address in grid.health_addresses().into_values() {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        ensure!(page.starts_with("HTTP/1.1 200"), "{page}");
        let lines = page.lines().filter(|line| line.starts_with("afdg_region_refused_messages_total{"));
        for line in lines {
            let value = line.rsplit(' ').next().unwrap_or_default();
            sum += value.parse::<u64>()?;
        }
    }
    Ok(sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_hears_little_of_a_flood_past_its_rate_and_lets_in_as_much_as_ever() -> Result<()> {
    const PER_SECOND: u64 = 20;
    const REFUSED: u64 = 3_000;
    let (grid, _folder) = grid(|options| options.agents = host(&Greedy::default())).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    set(&client, &[("turns_per_second_max", PER_SECOND)], &[]).await?;
    until("a message past the rate is refused", || async { Ok(tell(&client, "one", 0).await.is_err()) })
        .await?;
    let (began, before) = (Instant::now(), refused_in_regions(&grid).await?);
    let (done, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (client, done, refused) = (client.clone(), Arc::clone(&done), Arc::clone(&refused));
            tokio::spawn(async move {
                while refused.load(SeqCst) < REFUSED {
                    match tell(&client, "one", 0).await {
                        Ok(_) => done.fetch_add(1, SeqCst),
                        Err(error) => {
                            let text = format!("is at its limit turns_per_second_max = {PER_SECOND} in this");
                            ensure!(error.message.contains(&text), "{error:?}");
                            let pause_ms = error.retry_after_ms.unwrap_or(0);
                            ensure!((1..=1_000).contains(&pause_ms), "{error:?}");
                            refused.fetch_add(1, SeqCst)
                        }
                    };
                }
                Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    let seconds = began.elapsed().as_secs_f64();
    let (done, refused) = (done.load(SeqCst), refused.load(SeqCst));
    let heard = refused_in_regions(&grid).await? - before;
    ensure!(heard < refused / 5, "the region refused {heard} of {refused} itself, in {seconds} s");
    let places = seconds * PER_SECOND as f64;
    ensure!(done as f64 > 0.5 * places - 2.0, "{done} got in within {seconds} s");
    // Who comes after the pause gets in.
    until("a message gets in", || async { Ok(tell(&client, "one", 0).await.is_ok()) }).await?;
    grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_type_whose_messages_wait_for_the_region_fewer_are_taken_on() -> Result<()> {
    // Many times the places that three regions have at least for a wait of 1 ms.
    const AT_ONCE: usize = 3_200;
    let (grid, _folder) = grid(|options| options.agents = host(&Greedy::default())).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    let flood = || async {
        let calls = (0..AT_ONCE).map(|number| {
            let (client, key) = (client.clone(), format!("one-{number}"));
            tokio::spawn(async move { tell(&client, &key, 0).await.err() })
        });
        let mut refusals = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            refusals.extend(call.await?);
        }
        anyhow::Ok(refusals)
    };
    set(&client, &[("wait_ms_max", 1)], &[]).await?;
    until("some of many messages are refused", || async {
        let refusals = flood().await?;
        for error in &refusals {
            ensure!(error.message.contains("is at its limit wait_ms_max = 1 in this region"), "{error:?}");
            ensure!(error.retry_after_ms.is_some_and(|pause_ms| pause_ms > 0), "{error:?}");
        }
        ensure!(refusals.len() < AT_ONCE, "none got in");
        Ok(!refusals.is_empty())
    })
    .await?;
    set(&client, &[("wait_ms_max", 0)], &[]).await?;
    until("all get in, however long they wait", || async { Ok(flood().await?.is_empty()) }).await?;
    grid.stop().await;
    Ok(())
}
