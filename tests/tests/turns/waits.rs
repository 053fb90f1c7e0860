//! Who waits for whom is shown while it waits, over all regions.

use crate::whereabouts::{eventually, home_of};
use afdg_agent::{AgentError, AgentRef, Context, NativeHost, async_trait};
use afdg_example_counter::v1::{AddManyRequest, AddManyResponse, FanoutAgent, FanoutCalls, fanout_agent};
use afdg_proto::pb::admin::{
    InspectAgentRequest, InspectAgentResponse, ListBlockedAgentsRequest, ListBlockedAgentsResponse,
    agents_client::AgentsClient,
};
use afdg_tests::{client::Client, grid};
use anyhow::{Context as _, Result};
use std::{collections::BTreeSet, sync::Arc};
use tokio::{sync::watch, time::Duration};
use tonic::{Request, Status};

const TYPE: &str = "counter.v1.Fanout";
const DEADLINE: Duration = Duration::from_secs(120);

/// Calls the first of those named, with the rest; the last waits until the door is open.
struct Chained {
    door: watch::Receiver<bool>,
}

#[async_trait]
impl FanoutAgent for Chained {
    async fn add_many(
        &self,
        ctx: &mut Context,
        request: AddManyRequest,
    ) -> Result<AddManyResponse, AgentError> {
        let AddManyRequest { mut counters, delta, .. } = request;
        if counters.is_empty() {
            let _ = self.door.clone().wait_for(|open| *open).await;
            return Ok(AddManyResponse { sum: 1 });
        }
        let next = counters.remove(0);
        let rest = AddManyRequest { counters, delta, ..Default::default() };
        Ok(ctx.call(FanoutCalls::add_many(&next, rest)).await?)
    }
}

async fn along(client: Client, chain: Vec<String>) -> Result<i64, Status> {
    let request = AddManyRequest { fanout: chain[0].clone(), counters: chain[1..].to_vec(), delta: 0 };
    let mut request = Request::new(request);
    request.set_timeout(DEADLINE);
    let answer: AddManyResponse = client.request("/counter.v1.Fanout/AddMany", request).await?;
    Ok(answer.sum)
}

fn agent(key: &str) -> String {
    format!("{TYPE}/{key}")
}

async fn inspect(client: &Client, key: &str) -> Result<InspectAgentResponse> {
    let request = InspectAgentRequest { agent: agent(key), items_max: 0 };
    Ok(AgentsClient::new(client.channel()).inspect_agent(request).await?.into_inner())
}

async fn blocked(client: &Client, request: ListBlockedAgentsRequest) -> Result<ListBlockedAgentsResponse> {
    Ok(AgentsClient::new(client.channel()).list_blocked_agents(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_whom_is_shown_over_all_regions_until_it_is_over() -> Result<()> {
    let door = watch::Sender::new(false);
    let fanout = fanout_agent(Chained { door: door.subscribe() });
    let host = Arc::new(NativeHost::new().with(afdg_example_counter::counter()).with(fanout));
    let (grid, _folder) = grid(|options| options.agents = host).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    // Three agents in regions of their own.
    let (mut keys, mut regions) = (Vec::new(), BTreeSet::new());
    for number in 0.. {
        let key = format!("w{number}");
        if regions.insert(home_of(&client, &AgentRef::new(TYPE, &key)?).await?.region) {
            keys.push(key);
        }
        if keys.len() == usize::from(grid.layout().regions).min(3) {
            break;
        }
    }
    let [a, b, c] = <[String; 3]>::try_from(keys).ok().context("the grid has three regions")?;
    let idle = inspect(&client, &a).await?;
    assert_eq!((&*idle.activity, idle.turn, idle.waiting), ("idle", None, 0));

    let chain = tokio::spawn(along(client.clone(), vec![a.clone(), b.clone(), c.clone()]));
    let everybody = ListBlockedAgentsRequest::default();
    eventually("a and b wait", async || Ok(blocked(&client, everybody.clone()).await?.agents.len() == 2))
        .await?;
    let behind: Vec<_> = (0..2).map(|_| tokio::spawn(along(client.clone(), vec![b.clone()]))).collect();
    eventually("two wait for b's turn", async || Ok(inspect(&client, &b).await?.waiting == 2)).await?;

    let shown = inspect(&client, &b).await?;
    assert_eq!((&*shown.activity, shown.held, shown.next.len()), ("calling", 0, 2));
    assert!(shown.next.iter().all(|next| next.method == "AddMany" && next.sender.is_empty() && !next.sent));
    let turn = shown.turn.context("b takes a turn")?;
    assert_eq!((&*turn.method, turn.recorded, turn.sender), ("AddMany", true, agent(&a)));
    assert_eq!((turn.calls_count, turn.calls.len()), (1, 1));
    assert_eq!((&turn.calls[0].callee, &*turn.calls[0].method), (&agent(&c), "AddMany"));
    let last = inspect(&client, &c).await?;
    assert_eq!(
        (&*last.activity, last.turn.context("c takes a turn")?.message_id),
        ("running", turn.calls[0].message_id.clone())
    );

    let found = blocked(&client, everybody.clone()).await?;
    assert_eq!((found.more, &found.silent_regions[..]), (false, &[][..]));
    let [first, second] = &found.agents[..] else { panic!("{found:?}") };
    assert_eq!(first.chain, [&a, &b, &c].map(|key| agent(key)), "{found:?}");
    assert_eq!(second.chain, [&b, &c].map(|key| agent(key)), "{found:?}");
    assert_eq!((first.behind, second.behind), (0, 2));
    let waited_ms = second.turn.as_ref().context("b takes a turn")?.calls[0].waiting_ms;

    let one = blocked(&client, ListBlockedAgentsRequest { limit: 1, ..everybody.clone() }).await?;
    assert_eq!((one.agents.len(), one.more, &one.agents[0].agent), (1, true, &agent(&a)));
    let long = ListBlockedAgentsRequest { waiting_ms_min: waited_ms, ..everybody.clone() };
    assert_eq!(blocked(&client, long).await?.agents.len(), 2);
    for nobody in [
        ListBlockedAgentsRequest { waiting_ms_min: 3_600_000, ..everybody.clone() },
        ListBlockedAgentsRequest { r#type: "counter.v1.Counter".to_owned(), ..everybody.clone() },
    ] {
        assert_eq!(blocked(&client, nobody).await?, ListBlockedAgentsResponse::default());
    }

    door.send_replace(true);
    assert_eq!(chain.await??, 1);
    for message in behind {
        assert_eq!(message.await??, 1);
    }
    assert_eq!(blocked(&client, everybody).await?, ListBlockedAgentsResponse::default());
    assert_eq!(inspect(&client, &b).await?.activity, "idle");
    grid.stop().await;
    Ok(())
}
