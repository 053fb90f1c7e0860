//! Calls that nobody waits for any more are cut short, the last of a chain first; what was done before stays, and
//! what their callers do about it gets through.

use crate::whereabouts::{Home, eventually, home_of, until_settled};
use afdg_agent::{AgentError, AgentRef, Context, NativeHost, async_trait};
use afdg_dev_grid::DevGrid;
use afdg_example_counter::v1::{
    AddManyRequest, AddManyResponse, AddRequest, Count, CounterCalls, FanoutAgent, FanoutCalls, GetRequest,
    fanout_agent,
};
use afdg_proto::pb::{
    admin::{ListBlockedAgentsRequest, agents_client::AgentsClient},
    v1::{CallRequest, PipeRequest, call_result, grid_client::GridClient, pipe_request},
};
use afdg_tests::{client::Client, grid};
use anyhow::{Context as _, Result};
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Duration, Instant},
};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

const TYPE: &str = "counter.v1.Fanout";
/// Of calls that nothing but a cancel ends in time.
const LONG: Duration = Duration::from_secs(300);
/// A cancel takes a second at most on a machine that is not busy.
const CUT_WITHIN: Duration = Duration::from_secs(10);
/// Asks a handler to make good what it has done before its call was cut.
const COMPENSATE: i64 = 1;
/// Asks a handler to call all that are named, side by side, with half a second for them.
const ALL_WITHIN: i64 = 2;

/// What the handlers of all nodes share with their test.
#[derive(Default)]
struct Board {
    /// Agents whose turns wait until their door is open.
    doors: BTreeMap<String, watch::Sender<bool>>,
    /// In the order in which it happened.
    log: Mutex<Vec<String>>,
}

impl Board {
    fn note(&self, what: String) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self, key: &str) {
        self.doors[key].send_replace(true);
    }
}

/// Adds to a counter of its own, then calls the first of those named with the rest.
struct Chained(Arc<Board>);

#[async_trait]
impl FanoutAgent for Chained {
    async fn add_many(
        &self,
        ctx: &mut Context,
        request: AddManyRequest,
    ) -> Result<AddManyResponse, AgentError> {
        let AddManyRequest { mut counters, delta, .. } = request;
        let (board, key) = (&self.0, ctx.key().to_owned());
        if counters.is_empty() {
            board.note(format!("{key} begins"));
            if let Some(door) = board.doors.get(&key) {
                let _ = door.subscribe().wait_for(|open| *open).await;
            }
            return Ok(AddManyResponse { sum: 1 });
        }
        if delta == ALL_WITHIN {
            let calls = counters.iter().map(|next| FanoutCalls::add_many(next, AddManyRequest::default()));
            let answers = ctx.call_all_within(Duration::from_millis(500), calls.collect()).await;
            let told =
                answers.iter().map(|answer| answer.as_ref().map_or_else(|error| error.reason(), |_| "done"));
            board.note(format!("{key} hears {}", told.collect::<Vec<_>>().join(", ")));
            return Ok(AddManyResponse { sum: answers.iter().flatten().map(|answer| answer.sum).sum() });
        }
        let add = |what: String| CounterCalls::add(&what, AddRequest { delta: 1, ..Default::default() });
        ctx.call(add(format!("done-{key}"))).await?;
        let next = counters.remove(0);
        let rest = AddManyRequest { counters, delta, ..Default::default() };
        match ctx.call(FanoutCalls::add_many(&next, rest)).await {
            Ok(answer) => {
                board.note(format!("{key} hears an answer"));
                Ok(answer)
            }
            Err(error) if delta == COMPENSATE => {
                board.note(format!("{key} makes good"));
                // The one who makes good waits for its turn, too.
                ctx.call(FanoutCalls::add_many("undo", AddManyRequest::default())).await?;
                ctx.call(add(format!("undone-{key}"))).await?;
                board.note(format!("{key} has made good"));
                Err(error.into())
            }
            Err(error) => {
                board.note(format!("{key} hears {}", error.reason()));
                Err(error.into())
            }
        }
    }
}

struct Stage {
    grid: DevGrid,
    client: Client,
    board: Arc<Board>,
    _folder: TempDir,
}

impl Stage {
    /// A grid where each of `busy` takes a turn that ends when its door is opened.
    async fn with_busy(busy: &[&str]) -> Result<Self> {
        let doors = busy.iter().map(|key| ((*key).to_owned(), watch::Sender::new(false))).collect();
        let board = Arc::new(Board { doors, log: Mutex::default() });
        let fanout = fanout_agent(Chained(Arc::clone(&board)));
        let host = Arc::new(NativeHost::new().with(afdg_example_counter::counter()).with(fanout));
        let (grid, folder) = grid(|options| options.agents = host).await?;
        let client = Client::connect(&grid.endpoint()).await?;
        let stage = Self { grid, client, board, _folder: folder };
        // A turn that has called nobody is lost with its leader: the lead must not move to where it belongs.
        for key in busy {
            until_settled(&stage.grid, &stage.home(key).await?).await?;
            stage.call(&[key], 0, None);
            stage.heard(&format!("{key} begins")).await?;
        }
        Ok(stage)
    }

    /// A call of the first with the others, which waits for [`LONG`].
    fn call(&self, chain: &[&str], delta: i64, key: Option<&str>) -> JoinHandle<Result<i64, Status>> {
        let mut request = Request::new(request(chain, delta));
        request.set_timeout(LONG);
        if let Some(key) = key.and_then(|key| key.parse().ok()) {
            request.metadata_mut().insert("afdg-idempotency-key", key);
        }
        let client = self.client.clone();
        tokio::spawn(async move {
            let answer: AddManyResponse = client.request("/counter.v1.Fanout/AddMany", request).await?;
            Ok(answer.sum)
        })
    }

    /// Waits until so many agents wait for others.
    async fn blocked(&self, count: usize) -> Result<()> {
        eventually(&format!("{count} agents wait"), async || {
            let request = ListBlockedAgentsRequest::default();
            let found = AgentsClient::new(self.client.channel()).list_blocked_agents(request).await?;
            Ok(found.into_inner().agents.len() == count)
        })
        .await
    }

    async fn heard(&self, what: &str) -> Result<()> {
        eventually(what, async || Ok(self.board.log().iter().any(|line| line == what))).await
    }

    /// What has been heard since, but for what `busy` agents do.
    fn log(&self) -> Vec<String> {
        self.board.log().into_iter().filter(|line| !line.ends_with(" begins")).collect()
    }

    fn begun(&self, key: &str) -> usize {
        let line = format!("{key} begins");
        self.board.log().iter().filter(|known| **known == line).count()
    }

    async fn count(&self, counter: &str) -> Result<i64> {
        let request = GetRequest { counter: counter.to_owned() };
        Ok(self.client.call::<_, Count>("/counter.v1.Counter/Get", request).await?.value)
    }

    async fn home(&self, key: &str) -> Result<Home> {
        home_of(&self.client, &AgentRef::new(TYPE, key)?).await
    }

    /// An agent whose region is led by other nodes than those.
    async fn led_elsewhere(&self, prefix: &str, homes: &[&Home]) -> Result<String> {
        for number in 0..1_000 {
            let key = format!("{prefix}{number}");
            let home = self.home(&key).await?;
            if homes.iter().all(|other| other.preferred != home.preferred) {
                return Ok(key);
            }
        }
        anyhow::bail!("there is no region elsewhere than {homes:?}")
    }

    /// Opens the door of the busy one and sees that nothing of the calls to it has run that were cut.
    async fn ran_once(&self, key: &str) -> Result<()> {
        self.board.open(key);
        assert_eq!(self.call(&[key], 0, None).await??, 1);
        assert_eq!(self.begun(key), 2, "{:?}", self.board.log());
        Ok(())
    }
}

fn request(chain: &[&str], delta: i64) -> AddManyRequest {
    let counters = chain[1..].iter().map(|key| (*key).to_owned()).collect();
    AddManyRequest { fanout: chain[0].to_owned(), counters, delta }
}

fn grid_call(chain: &[&str], key: &str, timeout: Duration) -> CallRequest {
    CallRequest {
        agent: format!("{TYPE}/{}", chain[0]),
        method: "AddMany".to_owned(),
        request: request(chain, 0).encode_to_vec().into(),
        idempotency_key: key.to_owned(),
        timeout_ms: timeout.as_millis() as u64,
    }
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

const CUT: [&str; 3] = ["c hears CALL_CANCELLED", "b hears CALL_CANCELLED", "a hears CALL_CANCELLED"];

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_cuts_the_chain_from_its_end_and_what_was_done_stays() -> Result<()> {
    const CHAIN: [&str; 4] = ["a", "b", "c", "d"];
    let stage = Stage::with_busy(&["d"]).await?;
    // The grid's own deadline: the transport's is none.
    let timeout = Duration::from_secs(4);
    let mut grid = GridClient::new(stage.client.channel());
    let began = Instant::now();
    let late = grid.call(grid_call(&CHAIN, "late", timeout)).await.unwrap_err();
    assert_eq!(reason_of(&late), "DEADLINE_OUTCOME_UNKNOWN", "{late:?}");
    stage.heard(CUT[2]).await?;
    let took = began.elapsed().saturating_sub(timeout);
    println!("a chain of four was cut {} ms after its deadline", took.as_millis());
    assert!(took < CUT_WITHIN, "it took {took:?}");
    assert_eq!(stage.log(), CUT);
    for done in ["done-a", "done-b", "done-c"] {
        assert_eq!(stage.count(done).await?, 1, "{done}");
    }
    // It has ended like that for good: a repeat is told so, and does nothing again.
    let repeated = grid.call(grid_call(&CHAIN, "late", LONG)).await.unwrap_err();
    assert_eq!(
        (repeated.code(), &*reason_of(&repeated)),
        (Code::Cancelled, "CALL_CANCELLED"),
        "{repeated:?}"
    );
    stage.ran_once("d").await?;
    assert_eq!(stage.count("done-a").await?, 1);
    stage.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_cuts_what_only_it_waited_for() -> Result<()> {
    let stage = Stage::with_busy(&["d"]).await?;
    let caller = stage.call(&["a", "b", "c", "d"], 0, None);
    stage.blocked(3).await?;
    // One that waits for its turn behind it goes as well: it never runs.
    let behind = stage.call(&["a"], 0, None);
    caller.abort();
    behind.abort();
    let began = Instant::now();
    stage.heard(CUT[2]).await?;
    println!("a chain of four was cut {} ms after its client went", began.elapsed().as_millis());
    assert!(began.elapsed() < CUT_WITHIN, "it took {:?}", began.elapsed());
    assert_eq!(stage.log(), CUT);
    stage.ran_once("d").await?;
    stage.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_under_the_same_key_keeps_the_call() -> Result<()> {
    let stage = Stage::with_busy(&["d"]).await?;
    let first = stage.call(&["a", "b", "c", "d"], 0, Some("shared"));
    stage.blocked(3).await?;
    let neighbour = neighbour_of("a", &stage).await?;
    // By the answer of the second request of a pipe the first has arrived where both go.
    let requests = [grid_call(&["a", "b", "c", "d"], "shared", LONG), grid_call(&[&neighbour], "", LONG)];
    let requests = (1..)
        .zip(requests)
        .map(|(id, call)| PipeRequest { id, message: Some(pipe_request::Message::Call(call)) });
    let requests = futures::StreamExt::chain(
        futures::stream::iter(requests.collect::<Vec<_>>()),
        futures::stream::pending(),
    );
    let mut answers = GridClient::new(stage.client.channel()).pipe(requests).await?.into_inner();
    assert_eq!(answers.message().await?.context("the neighbour answers")?.id, 2);

    let alone = stage.call(&["x", "d"], 0, None);
    stage.blocked(4).await?;
    first.abort();
    assert!(first.await.is_err_and(|error| error.is_cancelled()));
    alone.abort();
    stage.heard("x hears CALL_CANCELLED").await?;
    // Others would have been cut by the same looks.
    let again = stage.call(&["x", "d"], 0, None);
    stage.blocked(4).await?;
    again.abort();
    eventually("the next one is cut", async || Ok(stage.log().len() >= 2)).await?;
    assert_eq!(stage.log(), ["x hears CALL_CANCELLED"; 2]);

    stage.board.open("d");
    let answer = answers.message().await?.context("the second caller is answered")?;
    assert_eq!(answer.id, 1);
    let result = answer.result.and_then(|result| result.result);
    assert!(matches!(result, Some(call_result::Result::Response(_))), "{result:?}");
    stage.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_does_about_a_cut_is_not_cut() -> Result<()> {
    let stage = Stage::with_busy(&["d", "undo"]).await?;
    let caller = stage.call(&["a", "d"], COMPENSATE, None);
    stage.blocked(1).await?;
    caller.abort();
    stage.heard("a makes good").await?;
    stage.blocked(1).await?;
    // Looks go on meanwhile: they cut others.
    for key in ["x", "y", "z"] {
        let other = stage.call(&[key, "d"], 0, None);
        stage.blocked(2).await?;
        other.abort();
        stage.heard(&format!("{key} hears CALL_CANCELLED")).await?;
        // Or it would be taken for the next one, which would go away before it has come.
        stage.blocked(1).await?;
    }
    stage.board.open("undo");
    stage.heard("a has made good").await?;
    assert_eq!((stage.count("done-a").await?, stage.count("undone-a").await?), (1, 1));
    stage.ran_once("d").await?;
    stage.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_for_calls_side_by_side_returns_what_is_done_and_cuts_the_rest() -> Result<()> {
    let stage = Stage::with_busy(&["d"]).await?;
    let call = stage.call(&["a", "x", "d", "y"], ALL_WITHIN, Some("within"));
    assert_eq!(call.await??, 2);
    assert_eq!(stage.log(), ["a hears done, CALL_CANCELLED, done"]);
    stage.ran_once("d").await?;
    // What was cut stays so.
    let again = stage.call(&["a", "x", "d", "y"], ALL_WITHIN, Some("within"));
    assert_eq!(again.await??, 2);
    assert_eq!((stage.begun("x"), stage.begun("d"), stage.begun("y")), (1, 2, 1));
    stage.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_cut_past_a_leader_that_changed() -> Result<()> {
    let mut stage = Stage::with_busy(&["d"]).await?;
    let busy = stage.home("d").await?;
    let lost = stage.led_elsewhere("b", &[&busy]).await?;
    let of_lost = stage.home(&lost).await?;
    let (first, third) =
        (stage.led_elsewhere("a", &[&of_lost]).await?, stage.led_elsewhere("c", &[&of_lost]).await?);
    for home in [&busy, &of_lost, &stage.home(&first).await?, &stage.home(&third).await?] {
        until_settled(&stage.grid, home).await?;
    }
    let caller = stage.call(&[&first, &lost, &third, "d"], 0, None);
    stage.blocked(3).await?;
    stage.grid.stop_node(&of_lost.preferred).await?;
    // The next leader runs the turn in the middle again, and that waits for the same call.
    stage.blocked(3).await?;
    caller.abort();
    let heard = |key: &str| format!("{key} hears CALL_CANCELLED");
    stage.heard(&heard(&first)).await?;
    assert_eq!(stage.log(), [heard(&third), heard(&lost), heard(&first)]);
    for key in [&first, &lost, &third] {
        assert_eq!(stage.count(&format!("done-{key}")).await?, 1, "{key}");
    }
    stage.ran_once("d").await?;
    stage.grid.stop().await;
    Ok(())
}

/// Another agent of the same region.
async fn neighbour_of(key: &str, stage: &Stage) -> Result<String> {
    let home = stage.home(key).await?;
    for number in 0..1_000 {
        let neighbour = format!("n{number}");
        if stage.home(&neighbour).await?.region == home.region {
            return Ok(neighbour);
        }
    }
    anyhow::bail!("{key} is alone in region {}", home.region)
}
