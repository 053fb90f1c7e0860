//! What a caller gets while leaders move, nodes freeze, break off or are not there, and routes change.

#![allow(clippy::unwrap_used)]

use afdg_catalog_client::Routes;
use afdg_proto::{
    pb::internal::{
        Forwarded, RouteNode, RouteRegion, RoutingTable, SlotSpan, TypeDescriptor, TypeMethod, outcome,
    },
    peer_auth::PeerToken,
    status::to_wire,
};
use afdg_region_client::{RegionClients, testing::FakeNode};
use afdg_router::{OutgoingMessage, Router};
use afdg_runtime::{Tasks, World};
use afdg_types::{AgentError, CallError, GridError, PER_SECOND, Purpose, Reason};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

const TYPE: &str = "bank.v1.Account";

struct Cluster {
    nodes: Vec<FakeNode>,
    routes: watch::Sender<Arc<Routes>>,
    router: Router,
}

type Answering = fn(&Forwarded) -> Option<outcome::Result>;

fn ok(message: &Forwarded) -> Option<outcome::Result> {
    Some(outcome::Result::Response(message.request.clone()))
}

fn silent(_: &Forwarded) -> Option<outcome::Result> {
    None
}

fn refuse(reason: Reason, leader: u64) -> impl Fn(&Forwarded) -> Option<outcome::Result> + Send + Sync {
    move |_| Some(to_wire(GridError::new(reason, "refused by the test").into(), leader))
}

fn routes(epoch: u64, region: u64, addresses: &[String], leader: u64) -> Routes {
    let node = |(id, address): (u64, &String)| RouteNode {
        id,
        name: format!("node-{id}"),
        address: address.clone(),
        live: true,
    };
    let nodes: Vec<_> = (1..).zip(addresses).map(node).collect();
    let deposit = TypeMethod { name: "Deposit".to_owned(), key_field: 1, ..Default::default() };
    let table = RoutingTable {
        cluster_id: "test".to_owned(),
        epoch,
        ready: true,
        regions: vec![RouteRegion {
            id: region,
            slots: vec![SlotSpan { first: 0, last: 16_383 }],
            replicas: nodes.iter().map(|node| node.id).collect(),
            leader,
            term: 1,
            creating: false,
        }],
        nodes,
        types: vec![TypeDescriptor { name: TYPE.to_owned(), methods: vec![deposit], ..Default::default() }],
        types_included: true,
    };
    Routes::from_table(table).unwrap()
}

fn router_of(routes: Routes) -> (watch::Sender<Arc<Routes>>, Router) {
    let world = World::real();
    let token = PeerToken::new("secret").unwrap();
    let clients = RegionClients::new(Arc::clone(&world.net), token, Tasks::new());
    let (sender, receiver) = watch::channel(Arc::new(routes));
    (sender, Router::new(receiver, clients, &world))
}

async fn cluster(answering: &[Answering]) -> Cluster {
    let mut nodes = Vec::new();
    for answering in answering {
        nodes.push(FakeNode::start(*answering).await.unwrap());
    }
    let addresses: Vec<_> = nodes.iter().map(|node| node.address.clone()).collect();
    let (routes, router) = router_of(routes(1, 1, &addresses, 1));
    Cluster { nodes, routes, router }
}

fn message(router: &Router, ms: u64) -> OutgoingMessage {
    OutgoingMessage {
        purpose: Purpose::Call,
        agent: "bank.v1.Account/alice".parse().unwrap(),
        method: "Deposit".to_owned(),
        request: "5".into(),
        id: router.new_message_id(),
        deadline: Some(Instant::now() + Duration::from_millis(ms)),
        chain: Vec::new(),
        reentries: Vec::new(),
    }
}

impl Cluster {
    async fn call(&self, ms: u64) -> Result<bytes::Bytes, CallError> {
        self.router.call(message(&self.router, ms)).await
    }

    fn received(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.received().len()).collect()
    }
}

fn reason(result: Result<bytes::Bytes, CallError>) -> Reason {
    match result {
        Err(CallError::Grid(error)) => error.reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_hint_leads_straight_to_the_new_leader_which_is_remembered() {
    let cluster = cluster(&[silent, silent, ok]).await;
    cluster.nodes[0].answer(refuse(Reason::NotLeader, 3));
    for _ in 0..3 {
        assert_eq!(cluster.call(5_000).await.unwrap(), "5");
    }
    assert_eq!(cluster.received(), [1, 0, 3]);
    let received = cluster.nodes[2].received();
    assert_eq!((received[0].region, received[0].epoch, received[0].key.as_str()), (1, 1, "alice"));
    assert!((1..=5_000).contains(&received[0].timeout_ms));
}

#[tokio::test]
async fn a_region_without_leader_is_tried_until_it_has_one() {
    let cluster = cluster(&[silent, silent, silent]).await;
    for node in &cluster.nodes {
        node.answer(refuse(Reason::NoLeader, 0));
    }
    assert_eq!(reason(cluster.call(100).await), Reason::DeadlineExceeded);
    let call = tokio::spawn({
        let router = cluster.router.clone();
        async move { router.call(message(&router, 10_000)).await }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    cluster.nodes[1].answer(ok);
    assert_eq!(call.await.unwrap().unwrap(), "5");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_passed_over() {
    let gone = FakeNode::start(ok).await.unwrap().address.clone();
    let there = FakeNode::start(ok).await.unwrap();
    let (_routes, router) = router_of(routes(1, 1, &[gone, there.address.clone()], 1));
    assert_eq!(router.call(message(&router, 5_000)).await.unwrap(), "5");
    assert_eq!(there.received().len(), 1);
}

#[tokio::test]
async fn nobody_there_is_a_deadline_without_effect() {
    let gone = "127.0.0.1:1".to_owned();
    let (_routes, router) = router_of(routes(1, 1, &[gone], 0));
    let error = match router.call(message(&router, 100)).await {
        Err(CallError::Grid(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(error.reason, Reason::DeadlineExceeded);
    assert_eq!(error.metadata["last_reason"], "UNREACHABLE");
}

#[tokio::test]
async fn a_lost_message_is_sent_again_under_the_same_id() {
    let cluster = cluster(&[silent, ok]).await;
    let call = tokio::spawn({
        let router = cluster.router.clone();
        async move { router.call(message(&router, 10_000)).await }
    });
    while cluster.received()[0] == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    cluster.nodes[0].cut();
    assert_eq!(call.await.unwrap().unwrap(), "5");
    assert_eq!(cluster.nodes[0].received()[0].message_id, cluster.nodes[1].received()[0].message_id);
}

#[tokio::test]
async fn a_frozen_node_is_given_up_for_another() {
    let cluster = cluster(&[silent, ok]).await;
    let began = Instant::now();
    assert_eq!(cluster.call(20_000).await.unwrap(), "5");
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
    // Others go straight to the node that answered.
    assert_eq!(cluster.call(20_000).await.unwrap(), "5");
    assert_eq!(cluster.received(), [1, 2]);
}

#[tokio::test]
async fn a_slow_answer_still_counts_while_others_are_asked() {
    let cluster = cluster(&[silent, silent]).await;
    cluster.nodes[1].answer(refuse(Reason::NotLeader, 1));
    assert_eq!(reason(cluster.call(2_500).await), Reason::DeadlineOutcomeUnknown);
    let [leader, other] = cluster.received()[..] else { panic!() };
    assert_eq!(leader, 1, "an open attempt is not repeated at the same node");
    assert!((1..=5).contains(&other), "the follower was asked {other} times");
}

#[tokio::test]
async fn a_deadline_after_delivery_says_that_the_outcome_is_unknown() {
    let cluster = cluster(&[silent]).await;
    assert_eq!(reason(cluster.call(100).await), Reason::DeadlineOutcomeUnknown);
    cluster.nodes[0].answer(refuse(Reason::OutcomeUnknown, 0));
    assert_eq!(reason(cluster.call(100).await), Reason::DeadlineOutcomeUnknown);
    assert!(cluster.received()[0] > 2);
}

#[tokio::test]
async fn what_one_nodes_program_or_clock_lacks_does_not_show_that_nothing_happened() {
    for reason_of_second in [Reason::UnknownType, Reason::UnknownMethod, Reason::ClocksApart] {
        let cluster = cluster(&[silent, silent]).await;
        cluster.nodes[0].answer(refuse(Reason::OutcomeUnknown, 0));
        cluster.nodes[1].answer(refuse(reason_of_second, 0));
        assert_eq!(reason(cluster.call(300).await), Reason::DeadlineOutcomeUnknown, "{reason_of_second}");
    }
    let cluster = cluster(&[silent]).await;
    cluster.nodes[0].answer(refuse(Reason::UnknownType, 0));
    assert_eq!(reason(cluster.call(10_000).await), Reason::UnknownType, "nothing was delivered before");
}

#[tokio::test]
async fn a_stale_route_waits_for_the_newer_table() {
    let cluster = cluster(&[silent, ok]).await;
    cluster.nodes[0].answer(refuse(Reason::StaleRoute, 0));
    let call = tokio::spawn({
        let router = cluster.router.clone();
        async move { router.call(message(&router, 10_000)).await }
    });
    while cluster.received()[0] == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let newer = routes(2, 9, &[cluster.nodes[1].address.clone()], 0);
    cluster.routes.send_replace(Arc::new(newer));
    assert_eq!(call.await.unwrap().unwrap(), "5");
    let received = cluster.nodes[1].received();
    assert_eq!((received[0].region, received[0].epoch), (9, 2));
}

#[tokio::test]
async fn an_overload_is_told_at_once_unless_the_turn_is_recorded() {
    let cluster = cluster(&[silent]).await;
    let count = Arc::new(AtomicUsize::new(0));
    cluster.nodes[0].answer({
        let count = Arc::clone(&count);
        move |message| match count.fetch_add(1, SeqCst) {
            3 => ok(message),
            _ => {
                let error = GridError::new(Reason::Overloaded, "full").retry_after_ms(7);
                Some(to_wire(error.into(), 0))
            }
        }
    });
    let Err(CallError::Grid(error)) = cluster.call(5_000).await else { panic!() };
    assert_eq!((error.reason, error.retry_after_ms), (Reason::Overloaded, Some(7)));
    assert_eq!(count.load(SeqCst), 1);
    let recorded = OutgoingMessage { deadline: None, ..message(&cluster.router, 0) };
    assert_eq!(cluster.router.call(recorded).await.unwrap(), "5");
    assert_eq!(count.load(SeqCst), 4);
    assert_eq!(cluster.nodes[0].received()[1].timeout_ms, 0);
}

#[tokio::test]
async fn what_a_region_refused_for_its_rate_is_not_forwarded_until_there_is_a_place() {
    let cluster = cluster(&[silent]).await;
    let refusal = GridError::new(Reason::Overloaded, "at its limit").with(PER_SECOND, 10).retry_after_ms(700);
    let wire = to_wire(refusal.clone().into(), 0);
    let refused = wire.clone();
    cluster.nodes[0].answer(move |_| Some(refused.clone()));
    assert_eq!(cluster.call(5_000).await, Err(refusal.clone().into()));
    for _ in 0..20 {
        let Err(CallError::Grid(refused)) = cluster.call(5_000).await else { panic!() };
        assert!((1..=1_000).contains(&refused.retry_after_ms.unwrap()), "{refused:?}");
        assert_eq!(refused.retry_after_ms(700), refusal);
    }
    assert_eq!(cluster.received(), [1], "the region hears of none of them");

    cluster.nodes[0].answer(ok);
    let chain = vec!["bank.v1.Account/bob".parse().unwrap()];
    let of_a_turn = OutgoingMessage { chain, ..message(&cluster.router, 5_000) };
    assert_eq!(cluster.router.call(of_a_turn).await.unwrap(), "5", "those who wait get in at any rate");
    // Without a deadline it waits for a place.
    let began = Instant::now();
    let waits = OutgoingMessage { deadline: None, ..message(&cluster.router, 0) };
    assert_eq!(cluster.router.call(waits).await.unwrap(), "5");
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
    assert_eq!(cluster.received(), [3]);
    cluster.nodes[0].answer(move |_| Some(wire.clone()));
    while cluster.received() == [3] {
        assert!(cluster.call(5_000).await.is_err());
    }
    cluster.nodes[0].answer(ok);
    assert!(cluster.call(5_000).await.is_err(), "the pause is not over");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..20 {
        assert!(cluster.call(5_000).await.is_ok(), "it was not refused again for a second");
    }
}

#[tokio::test]
async fn refusals_and_answers_that_stay_come_back_unchanged() {
    let cluster = cluster(&[silent]).await;
    let refusal = AgentError::refused("BALANCE_SHORT", "short by 3").with("cents", 3);
    let wire = to_wire(refusal.clone().into(), 0);
    cluster.nodes[0].answer(move |_| Some(wire.clone()));
    assert_eq!(cluster.call(5_000).await, Err(CallError::Agent(refusal)));
    cluster.nodes[0].answer(refuse(Reason::IdReused, 0));
    assert_eq!(reason(cluster.call(5_000).await), Reason::IdReused);
    assert_eq!(cluster.received(), [2]);
    assert_eq!(cluster.router.messages_in_flight(), 0);
}

#[tokio::test]
async fn what_no_node_could_take_is_refused_here() {
    let cluster = cluster(&[ok]).await;
    let router = &cluster.router;
    let large = vec![0; afdg_types::limits::MESSAGE_BYTES_MAX + 1];
    let large = OutgoingMessage { request: large.into(), ..message(router, 5_000) };
    assert_eq!(reason(router.call(large).await), Reason::MessageTooLarge);
    let other = OutgoingMessage { method: "Burn".to_owned(), ..message(router, 5_000) };
    assert_eq!(reason(router.call(other).await), Reason::UnknownMethod);
    let agent = "bank.v1.Nothing/x".parse().unwrap();
    let other = OutgoingMessage { agent, ..message(router, 5_000) };
    assert_eq!(reason(router.call(other).await), Reason::UnknownType);
    assert_eq!(cluster.received(), [0]);
}

#[tokio::test]
async fn a_message_before_the_first_table_waits_for_it() {
    let node = FakeNode::start(ok).await.unwrap();
    let (sender, router) = router_of(Routes::default());
    assert_eq!(reason(router.call(message(&router, 50)).await), Reason::NotReady);
    let call = tokio::spawn({
        let router = router.clone();
        async move { router.call(message(&router, 5_000)).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    sender.send_replace(Arc::new(routes(1, 1, std::slice::from_ref(&node.address), 1)));
    assert_eq!(call.await.unwrap().unwrap(), "5");
}
