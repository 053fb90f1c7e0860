//! A call that comes back to an agent of its own chain enters while the agent's turn waits for it, if its type says
//! so: what the two turns see of one another, and what becomes of everybody else.

use crate::whereabouts::{Home, eventually, home_of, until_settled};
use afdg_agent::{AgentRef, NativeHost, testing::TestGrid};
use afdg_dev_grid::DevGrid;
use afdg_proto::pb::admin::{SetTypeLimitsRequest, cluster_client::ClusterClient};
use afdg_tests::{
    client::Client,
    grid,
    visit::{
        Doors, closed,
        script::{add, call, call_all, door, hasty, list, look, panic, read, refuse, script, send},
        v1::{OpenCalls, Script, Seen, Step},
    },
};
use anyhow::Result;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::{Request, Status};
use tonic_types::StatusExt;

use afdg_tests::visit::script::{closed as at_closed, open as at_open};

const DEADLINE: Duration = Duration::from_secs(60);
/// Of calls that are not meant to have a turn.
const SHORT: Duration = Duration::from_millis(300);
/// Long enough for calls that wait to be suspected of standing in a ring, several times over.
const SUSPICIOUS: Duration = Duration::from_millis(1_500);

/// A grid with agents that do what a script says.
pub struct Visits {
    pub grid: DevGrid,
    pub client: Client,
    pub doors: Doors,
    _folder: TempDir,
}

pub fn agent(key: &str) -> Result<AgentRef> {
    Ok(AgentRef::new("visit.v1.Open", key)?)
}

impl Visits {
    pub async fn begin() -> Result<Self> {
        let doors = Doors::default();
        let agents = NativeHost::new()
            .with(afdg_example_counter::counter())
            .with(afdg_tests::visit::open(&doors))
            .with(closed(&doors));
        let (grid, folder) = grid(|options| options.agents = Arc::new(agents)).await?;
        let client = Client::connect(&grid.endpoint()).await?;
        Ok(Self { grid, client, doors, _folder: folder })
    }

    /// Has an agent that lets its call chain enter take these steps; what it has seen.
    pub async fn act(&self, key: &str, steps: impl IntoIterator<Item = Step>) -> Result<Vec<String>, Status> {
        act(&self.client, "/visit.v1.Open/Do", script(key, steps), DEADLINE).await
    }

    pub fn acting(
        &self,
        key: &str,
        steps: impl IntoIterator<Item = Step>,
    ) -> JoinHandle<Result<Vec<String>, Status>> {
        let (client, script) = (self.client.clone(), script(key, steps));
        tokio::spawn(async move { act(&client, "/visit.v1.Open/Do", script, DEADLINE).await })
    }

    pub async fn until_reached(&self, door: &str, times: u64) -> Result<()> {
        eventually(&format!("{times} at door {door}"), async || Ok(self.doors.reached(door) >= times)).await
    }

    /// `count` agents of type `visit.v1.Closed` that live neither in the region of the first one's home, nor are
    /// led by its node.
    pub async fn elsewhere(&self, home: &Home, count: usize) -> Result<Vec<(String, Home)>> {
        let mut found = Vec::new();
        for number in 0..10_000 {
            let key = format!("other-{number}");
            let other = home_of(&self.client, &AgentRef::new("visit.v1.Closed", &key)?).await?;
            if other.region != home.region && other.preferred != home.preferred {
                until_settled(&self.grid, &other).await?;
                found.push((key, other));
            }
            if found.len() == count {
                return Ok(found);
            }
        }
        anyhow::bail!("all regions are led by {}", home.preferred)
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

async fn act(client: &Client, path: &str, script: Script, deadline: Duration) -> Result<Vec<String>, Status> {
    let mut request = Request::new(script);
    request.set_timeout(deadline);
    Ok(client.request::<_, Seen>(path, request).await?.lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_the_chain_enters_and_sees_what_was_committed() -> Result<()> {
    let visits = Visits::begin().await?;
    visits.act("a", [add("x", 10)]).await?;

    // From a through another, by the agent itself, and along a chain over all regions.
    let inner = || at_open("a", [read("x"), add("y", 5), read("y")]);
    let ways: [Step; 3] = [
        call(at_closed("b", [call(inner())])),
        call(inner()),
        call(at_closed("b", [call(at_closed("c", [call(at_closed("d", [call(inner())]))]))])),
    ];
    let mut regions = BTreeSet::new();
    for key in ["b", "c", "d", "e", "f"] {
        regions.insert(home_of(&visits.client, &AgentRef::new("visit.v1.Closed", key)?).await?.region);
    }
    assert!(regions.len() > 1, "{regions:?}");
    for (round, way) in (1..).zip(ways) {
        let seen = visits.act("a", [add("x", 1), way, read("y"), read("x"), add("y", 1), read("y")]).await?;
        let (x, y) = (9 + round, 6 * (round - 1) + 5);
        let expected = [
            // The inner turn does not see what the outer one has written.
            format!("a: x={x}"),
            format!("a: y={y}"),
            // The outer one sees what the inner one has, and goes on from there.
            format!("a: y={y}"),
            format!("a: x={}", x + 1),
            format!("a: y={}", y + 1),
        ];
        assert_eq!(seen, expected, "round {round}");
        assert_eq!(visits.act("a", [read("x"), read("y")]).await?, expected[3..]);
    }

    // A method that only reads; and a list of entities, which holds what the inner turn has made.
    let seen = visits
        .act(
            "a",
            [
                add("x", 1),
                add("new", 1),
                call(at_closed(
                    "b",
                    [call(look("a", [list(""), read("x")])), call(at_open("a", [add("z", 1)]))],
                )),
                list(""),
            ],
        )
        .await?;
    assert_eq!(seen, ["a: *=x,y", "a: x=13", "a: *=new,x,y,z"]);

    // A turn that only reads keeps nobody out.
    let looks = script("a", [call(at_closed("b", [call(look("a", [read("x")]))])), read("x")]);
    let seen = act(&visits.client, "/visit.v1.Open/Look", looks, DEADLINE).await?;
    assert_eq!(seen, ["a: x=14", "a: x=14"]);
    visits.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inner_turn_changes_nothing_that_the_outer_one_has_read() -> Result<()> {
    let visits = Visits::begin().await?;
    visits.act("a", [add("x", 1), add("n1", 1)]).await?;
    let through = |steps: Vec<Step>| call(at_closed("b", [call(at_open("a", steps))]));

    let seen = visits
        .act("a", [read("x"), through(vec![add("y", 1), add("x", 5)]), read("x"), add("x", 1), read("y")])
        .await?;
    assert_eq!(seen, ["a: x=1", "b: !REENTRANT_CONFLICT", "a: x=1", "a: y=0"]);
    assert_eq!(visits.act("a", [read("x"), read("y")]).await?, ["a: x=2", "a: y=0"]);

    // What it has only looked for, and has not found, was read as well; so was all that it has listed.
    let seen = visits.act("a", [read("none"), through(vec![add("none", 1)]), list("n")]).await?;
    assert_eq!(seen, ["a: none=0", "b: !REENTRANT_CONFLICT", "a: n*=n1"]);
    let seen = visits.act("a", [list("n"), through(vec![add("n2", 1)]), list("n")]).await?;
    assert_eq!(seen, ["a: n*=n1", "b: !REENTRANT_CONFLICT", "a: n*=n1"]);

    // What the inner turn reads is no matter, nor what it would have changed had it not refused.
    let seen = visits.act("a", [add("x", 1), through(vec![read("x"), add("q", 1)]), read("q")]).await?;
    assert_eq!(seen, ["a: x=2", "a: q=1"]);
    let seen = visits.act("a", [read("x"), through(vec![add("x", 1), refuse("NO")])]).await?;
    assert_eq!(seen, ["a: x=3", "b: !NO"]);

    // Of two that enter one after the other, the later one goes on from the earlier one.
    let twice =
        at_closed("b", [call(at_open("a", [add("q", 1)])), call(at_open("a", [add("q", 1), read("q")]))]);
    assert_eq!(visits.act("a", [call(twice), read("q")]).await?, ["a: q=3", "a: q=3"]);
    visits.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grid_in_memory_lets_calls_enter_as_the_real_one_does() -> Result<()> {
    let visits = Visits::begin().await?;
    let doors = Doors::default();
    let in_memory = TestGrid::new([afdg_tests::visit::open(&doors), closed(&doors)]);
    let through = |steps: Vec<Step>| call(at_closed("b", [call(at_open("a", steps))]));
    let scripts: [Vec<Step>; 9] = [
        vec![add("x", 1), through(vec![read("x"), add("y", 5)]), read("y"), read("x")],
        vec![read("x"), through(vec![add("x", 1)]), read("x"), add("x", 1)],
        vec![read("x"), through(vec![add("x", 1), refuse("NO")]), read("x")],
        vec![list("n"), through(vec![add("n", 1)]), list("n")],
        vec![call(at_open("a", [add("z", 1), list("")])), list("")],
        vec![through(vec![call(at_closed("c", [])), add("z", 1)]), read("z")],
        vec![call(at_closed("b", [call(at_open("c", [call(at_closed("b", []))]))]))],
        vec![
            call(at_closed("b", [call(at_open("a", [add("q", 1)])), call(at_open("a", [add("q", 1)]))])),
            read("q"),
        ],
        vec![through(vec![add("q", 1)]), refuse("LATER")],
    ];
    for steps in scripts {
        let expected = visits.act("a", steps.clone()).await.map_err(|status| reason(&status));
        let seen = in_memory.call(OpenCalls::r#do("a", script("a", steps.clone()))).await;
        let seen = seen.map(|seen| seen.lines).map_err(|error| error.reason().to_owned());
        assert_eq!(seen, expected, "{steps:?}");
        let all = ["x", "y", "z", "q", "n"].map(read);
        let after = in_memory.call(OpenCalls::r#do("a", script("a", all.clone()))).await;
        assert_eq!(after.map(|seen| seen.lines), Ok(visits.act("a", all).await?), "after {steps:?}");
    }
    visits.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_come_back_side_by_side_enter_one_at_a_time() -> Result<()> {
    const CALLS: i64 = 12;
    let visits = Visits::begin().await?;
    let calls =
        (0..CALLS).map(|number| at_closed(&format!("b{number}"), [call(at_open("a", [add("n", 1)]))]));
    let seen = visits.act("a", [call_all(calls), read("n")]).await?;
    assert_eq!(seen, [format!("a: n={CALLS}")]);

    // Who waits behind another one that has entered stands in no ring, however long that takes.
    let first = at_closed("b", [call(at_open("a", [door("first"), add("n", 1)]))]);
    let second = at_closed("c", [door("second"), call(at_open("a", [add("n", 1)]))]);
    let outer = visits.acting("a", [call_all([first, second]), read("n")]);
    visits.until_reached("first", 1).await?;
    visits.doors.open("second");
    tokio::time::sleep(SUSPICIOUS).await;
    visits.doors.open("first");
    assert_eq!(outer.await??, [format!("a: n={}", CALLS + 2)]);
    visits.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_does_not_say_so_lets_nobody_enter() -> Result<()> {
    let visits = Visits::begin().await?;
    // The open one calls back the closed one, whose turn waits.
    let chain = script("c", [call(at_open("a", [call(at_closed("c", [])), add("x", 1)])), read("x")]);
    let seen = act(&visits.client, "/visit.v1.Closed/Do", chain, DEADLINE).await?;
    assert_eq!(seen, ["a: !CALL_CYCLE", "c: x=0"]);
    assert_eq!(visits.act("a", [read("x")]).await?, ["a: x=1"]);

    // Independent calls that close a ring are no call chain, whatever their types.
    let ring = |own: &str, other: &str| visits.acting(own, [door("ring"), call(at_open(other, [read("x")]))]);
    let (one, other) = (ring("r1", "r2"), ring("r2", "r1"));
    visits.until_reached("ring", 2).await?;
    visits.doors.open("ring");
    let mut seen = [one.await??, other.await??].concat();
    seen.sort_unstable();
    let refused: Vec<_> = seen.iter().filter(|line| line.ends_with("!CALL_CYCLE")).collect();
    assert_eq!((refused.len(), seen.len()), (1, 2), "{seen:?}");
    visits.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_chains_wait_for_their_turn() -> Result<()> {
    let visits = Visits::begin().await?;
    let enters = at_closed("b", [door("out"), call(at_open("a", [add("y", 1), read("y")])), door("in")]);
    let outer = visits.acting("a", [read("x"), call(enters), add("x", 1), read("x")]);
    visits.until_reached("out", 1).await?;
    // A client, a chain that begins elsewhere, and a send.
    let client = visits.acting("a", [add("x", 10), read("x")]);
    let chain = visits.acting("z", [call(at_open("a", [add("x", 10), add("y", 1)]))]);
    visits.act("y", [send(at_open("a", [add("x", 10)]))]).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    visits.doors.open("out");
    visits.until_reached("in", 1).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!client.is_finished() && !chain.is_finished(), "another chain has entered");
    visits.doors.open("in");
    assert_eq!(outer.await??, ["a: x=0", "a: y=1", "a: x=1"]);
    let seen = client.await??;
    assert!(["a: x=11", "a: x=21", "a: x=31"].contains(&&*seen[0]), "{seen:?}");
    chain.await??;
    eventually("the send's turn", async || Ok(visits.act("a", [read("x")]).await? == ["a: x=31"])).await?;
    assert_eq!(visits.act("a", [read("y")]).await?, ["a: y=2"]);
    visits.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_keeps_no_call_of_the_chain_out() -> Result<()> {
    let visits = Visits::begin().await?;
    let limits = SetTypeLimitsRequest {
        r#type: "visit.v1.Open".to_owned(),
        set: HashMap::from([("mailbox_messages_max".to_owned(), 1)]),
        actor: "a test".to_owned(),
        reason: "to see who gets in".to_owned(),
        ..SetTypeLimitsRequest::default()
    };
    ClusterClient::new(visits.client.channel()).set_type_limits(limits).await?;
    let enters = at_closed("b", [door("full"), call(at_open("a", [add("y", 1)]))]);
    let outer = visits.acting("a", [call(enters), read("y")]);
    visits.until_reached("full", 1).await?;
    let client = visits.client.clone();
    let waits = tokio::spawn(async move {
        let steps = script("a", [add("x", 1)]);
        // Until then one of those below may have the place.
        while act(&client, "/visit.v1.Open/Do", steps.clone(), DEADLINE).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    eventually("the mailbox is full", async || {
        let late = act(&visits.client, "/visit.v1.Open/Do", script("a", []), SHORT).await;
        Ok(late.is_err_and(|status| reason(&status) == "OVERLOADED"))
    })
    .await?;
    visits.doors.open("full");
    assert_eq!(outer.await??, ["a: y=1"]);
    waits.await?;
    visits.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_inner_turn_can_not_do_its_caller_hears() -> Result<()> {
    let visits = Visits::begin().await?;
    let through = |steps: Vec<Step>| call(at_closed("b", [call(at_open("a", steps))]));
    let seen = visits
        .act(
            "a",
            [
                through(vec![add("x", 1), refuse("NO")]),
                through(vec![add("x", 1), panic("the script says so")]),
                // It calls nobody, and goes on as it likes.
                through(vec![call(at_closed("c", [])), add("x", 2)]),
                read("x"),
            ],
        )
        .await?;
    assert_eq!(seen, ["b: !NO", "b: !HANDLER_PANICKED", "a: !REENTRANT_CALL", "a: x=2"]);

    // It sends, once, also when the outer turn comes to nothing.
    let outer =
        [through(vec![send(at_open("d", [add("got", 1)])), add("x", 1)]), add("x", 1), refuse("LATER")];
    let refused = visits.act("a", outer).await.unwrap_err();
    assert_eq!(reason(&refused), "LATER", "{refused:?}");
    eventually("the inner turn's send", async || Ok(visits.act("d", [read("got")]).await? == ["d: got=1"]))
        .await?;
    assert_eq!(visits.act("a", [read("x")]).await?, ["a: x=3"], "the inner turn's own writes stand");
    visits.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_behind_has_its_turn_after_the_outer_one() -> Result<()> {
    let visits = Visits::begin().await?;
    let entered = at_open("a", [add("y", 1), door("left"), read("y")]);
    let seen =
        visits.act("a", [call(at_closed("b", [hasty("left", entered)])), add("y", 10), read("y")]).await?;
    assert_eq!(seen, ["a: y=10"], "what has not ended is not seen");
    visits.until_reached("left", 2).await?;
    visits.doors.open("left");
    assert_eq!(visits.act("a", [read("y")]).await?, ["a: y=11"]);
    visits.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_cuts_what_has_not_entered() -> Result<()> {
    let visits = Visits::begin().await?;
    let entered = at_closed("b", [call(at_open("a", [door("cut"), add("w", 1)]))]);
    let waits = at_closed("c", [door("wait"), call(at_open("a", [add("y", 1)]))]);
    let steps = script("a", [call_all([entered, waits]), add("ended", 1)]);
    let client = visits.client.clone();
    let outer = tokio::spawn(async move { act(&client, "/visit.v1.Open/Do", steps, DEADLINE).await });
    visits.until_reached("cut", 1).await?;
    visits.doors.open("wait");
    outer.abort();
    assert!(outer.await.is_err_and(|error| error.is_cancelled()), "the outer turn has ended");
    // c hears that its call was cut, and is free; what has entered is left alone.
    act(&visits.client, "/visit.v1.Closed/Do", script("c", []), DEADLINE).await?;
    visits.doors.open("cut");
    let seen = visits.act("a", [read("w"), read("y"), read("ended")]).await?;
    assert_eq!(seen, ["a: w=1", "a: y=0", "a: ended=1"]);
    visits.grid.stop().await;
    Ok(())
}
