//! What clients of every kind get from an extension, good and bad ones, with a node and a catalog that
//! answer as the test tells them to.

#![allow(clippy::unwrap_used)]

use afdg_extension::{ExtensionConfig, ExtensionServer, Running};
use afdg_proto::{
    pb::{
        admin::{InspectAgentRequest, ListAgentsRequest, agents_client::AgentsClient},
        internal::{
            Forwarded, HeartbeatRequest, HeartbeatResponse, RecordActionRequest, RecordActionResponse,
            RegisterNodeRequest, RegisterNodeResponse, RouteNode, RouteRegion, RoutingTable, SlotSpan,
            TypeDescriptor, TypeMethod, WatchRequest,
            catalog_server::{Catalog, CatalogServer},
            outcome,
        },
        v1::{CallManyRequest, CallRequest, PipeRequest, call_result, grid_client::GridClient, pipe_request},
    },
    peer_auth::PeerToken,
    status::{to_call_error, to_wire},
};
use afdg_region_client::testing::FakeNode;
use afdg_runtime::{Incoming, Net, TcpNet, World};
use afdg_types::{AgentError, CallError, MessageId, Reason, Slot, limits::MESSAGE_BYTES_MAX};
use futures::{Stream, StreamExt};
use std::{collections::BTreeSet, pin::Pin, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tonic::{Code, Request, Response, Status, client::Grpc, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

#[path = "gateway/call_many.rs"]
mod call_many;
#[path = "gateway/scatter.rs"]
mod scatter;

struct FakeCatalog(RoutingTable);

#[tonic::async_trait]
impl Catalog for FakeCatalog {
    async fn register_node(
        &self,
        _: Request<RegisterNodeRequest>,
    ) -> Result<Response<RegisterNodeResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn record_action(
        &self,
        _: Request<RecordActionRequest>,
    ) -> Result<Response<RecordActionResponse>, Status> {
        Ok(Response::new(RecordActionResponse { index: 1 }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<RoutingTable, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let table = self.0.clone();
        let tables = futures::stream::unfold(true, move |first| {
            let table = table.clone();
            async move {
                if !first {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Some((Ok(table), false))
            }
        });
        Ok(Response::new(Box::pin(tables)))
    }
}

fn table(node: &str) -> RoutingTable {
    let method =
        |name: &str, key_field| TypeMethod { name: name.to_owned(), key_field, ..Default::default() };
    RoutingTable {
        cluster_id: "test".to_owned(),
        epoch: 1,
        ready: true,
        nodes: vec![RouteNode { id: 1, name: "node-1".to_owned(), address: node.to_owned(), live: true }],
        regions: vec![RouteRegion {
            id: 1,
            slots: vec![SlotSpan { first: 0, last: 16_383 }],
            replicas: vec![1],
            leader: 1,
            term: 1,
            creating: false,
        }],
        types: vec![TypeDescriptor {
            name: "bank.v1.Account".to_owned(),
            descriptors: afdg_proto::PUBLIC_DESCRIPTORS.into(),
            limits: Default::default(),
            methods: vec![method("Deposit", 1), method("Ping", 0)],
        }],
        types_included: true,
    }
}

struct Grid {
    node: FakeNode,
    running: Running,
    channel: Channel,
}

fn echo(message: &Forwarded) -> Option<outcome::Result> {
    Some(outcome::Result::Response(message.request.clone()))
}

async fn grid() -> Grid {
    let node = FakeNode::start(echo).await.unwrap();
    let listener = TcpNet.bind("127.0.0.1:0").await.unwrap();
    let catalog = listener.local_address().unwrap().to_string();
    let service = CatalogServer::new(FakeCatalog(table(&node.address)));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(Incoming::new(listener)));
    let config = ExtensionConfig {
        name: "extension-1".to_owned(),
        listen: "127.0.0.1:0".to_owned(),
        health_listen: Some("127.0.0.1:0".to_owned()),
        catalog_addresses: vec![catalog],
        peer_token: PeerToken::new("secret").unwrap(),
    };
    let running = ExtensionServer::start(config, World::real()).await.unwrap();
    assert!(running.ready(Instant::now() + Duration::from_secs(10)).await);
    let channel = Channel::from_shared(format!("http://{}", running.local_address())).unwrap();
    Grid { node, channel: channel.connect_lazy(), running }
}

/// A request whose field 1 is the key. `CallRequest` has the shape of any such message.
fn deposit(key: &str) -> CallRequest {
    CallRequest { agent: key.to_owned(), timeout_ms: 500, ..CallRequest::default() }
}

impl Grid {
    /// A stock unary call.
    async fn unary(
        &self,
        path: &str,
        request: Request<CallRequest>,
    ) -> Result<Response<CallRequest>, Status> {
        let mut client = Grpc::new(self.channel.clone()).max_encoding_message_size(usize::MAX);
        client.ready().await.unwrap();
        client.unary(request, path.parse().unwrap(), ProstCodec::default()).await
    }

    async fn refused(&self, path: &str, request: Request<CallRequest>) -> (Code, Reason) {
        code_and_reason(self.unary(path, request).await.unwrap_err())
    }
}

fn code_and_reason(status: Status) -> (Code, Reason) {
    match to_call_error(&status) {
        CallError::Grid(error) => (status.code(), error.reason),
        CallError::Agent(error) => panic!("{error:?}"),
    }
}

fn with(request: CallRequest, metadata: &[(&'static str, &str)]) -> Request<CallRequest> {
    let mut request = Request::new(request);
    for (key, value) in metadata {
        request.metadata_mut().append(*key, value.parse().unwrap());
    }
    request
}

const DEPOSIT: &str = "/bank.v1.Account/Deposit";

#[tokio::test]
async fn a_stock_call_reaches_its_agent_unchanged() {
    let grid = grid().await;
    let metadata = [("afdg-idempotency-key", "order-1"), ("grpc-timeout", "2S")];
    let response = grid.unary(DEPOSIT, with(deposit("alice"), &metadata)).await.unwrap();
    let agent = "bank.v1.Account/alice".parse().unwrap();
    let id = MessageId::from_idempotency_key(&agent, "order-1");
    assert_eq!(response.metadata().get("afdg-message-id").unwrap(), &id.to_string());
    assert_eq!(response.into_inner(), deposit("alice"));
    let received = grid.node.received();
    assert_eq!((received[0].r#type.as_str(), received[0].key.as_str()), ("bank.v1.Account", "alice"));
    assert_eq!(
        (received[0].method.as_str(), received[0].message_id.as_ref()),
        ("Deposit", &id.as_bytes()[..])
    );
    assert!((1..=2_000).contains(&received[0].timeout_ms));

    let by_metadata = with(deposit(""), &[("afdg-key", "x%2Fy")]);
    grid.unary("/bank.v1.Account/Ping", by_metadata).await.unwrap();
    assert_eq!(grid.node.received()[1].key, "x/y");
}

#[tokio::test]
async fn a_refusal_comes_with_its_reason_and_metadata() {
    let grid = grid().await;
    let refusal = AgentError::refused("BALANCE_SHORT", "short by 3").with("cents", 3);
    let wire = to_wire(refusal.clone().into(), 0);
    grid.node.answer(move |_| Some(wire.clone()));
    let status = grid.unary(DEPOSIT, Request::new(deposit("alice"))).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.metadata().contains_key("afdg-message-id"));
    assert_eq!(to_call_error(&status), CallError::Agent(refusal));
}

#[tokio::test]
async fn wrong_requests_are_refused_with_a_reason() {
    let grid = grid().await;
    let plain = || Request::new(deposit("alice"));
    let key = |metadata| with(deposit("alice"), metadata);
    for (path, request, code, reason) in [
        ("/bank.v1.Nothing/Deposit", plain(), Code::NotFound, Reason::UnknownType),
        ("/", plain(), Code::NotFound, Reason::UnknownType),
        ("/bank.v1.Account/Burn", plain(), Code::Unimplemented, Reason::UnknownMethod),
        ("/afdg.v1.Grid/Burn", plain(), Code::Unimplemented, Reason::UnknownMethod),
        (DEPOSIT, Request::new(deposit("")), Code::InvalidArgument, Reason::KeyMissing),
        ("/bank.v1.Account/Ping", plain(), Code::InvalidArgument, Reason::KeyMissing),
        (DEPOSIT, Request::new(deposit("a\nb")), Code::InvalidArgument, Reason::KeyMalformed),
        (DEPOSIT, key(&[("afdg-key", "bob")]), Code::InvalidArgument, Reason::KeyMalformed),
        (DEPOSIT, key(&[("afdg-key", "%zz")]), Code::InvalidArgument, Reason::KeyMalformed),
        (DEPOSIT, key(&[("grpc-timeout", "soon")]), Code::InvalidArgument, Reason::RequestMalformed),
        (DEPOSIT, key(&[("afdg-idempotency-key", "")]), Code::InvalidArgument, Reason::RequestMalformed),
        (DEPOSIT, key(&[("afdg-mode", "shout")]), Code::InvalidArgument, Reason::RequestMalformed),
        (DEPOSIT, key(&[("afdg-delay", "5s")]), Code::InvalidArgument, Reason::RequestMalformed),
    ] {
        assert_eq!(grid.refused(path, request).await, (code, reason), "{path}");
    }
    assert!(grid.node.received().is_empty());
}

#[tokio::test]
async fn a_message_past_the_limit_is_refused_everywhere() {
    let grid = grid().await;
    let large = |bytes: usize| CallRequest { request: vec![0; bytes].into(), ..deposit("alice") };
    let too_large = (Code::ResourceExhausted, Reason::MessageTooLarge);
    for bytes in [MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX * 2] {
        assert_eq!(grid.refused(DEPOSIT, Request::new(large(bytes))).await, too_large);
    }
    let mut client = GridClient::new(grid.channel.clone());
    for bytes in [MESSAGE_BYTES_MAX + 1, MESSAGE_BYTES_MAX * 2] {
        let agent = "bank.v1.Account/alice".to_owned();
        let call = CallRequest { agent, method: "Ping".to_owned(), ..large(bytes) };
        assert_eq!(code_and_reason(client.call(call).await.unwrap_err()), too_large);
    }
}

#[tokio::test]
async fn more_or_fewer_messages_than_one_are_refused() {
    let grid = grid().await;
    for requests in [vec![], vec![deposit("alice"), deposit("alice")]] {
        let mut client = Grpc::new(grid.channel.clone());
        client.ready().await.unwrap();
        let codec: ProstCodec<CallRequest, CallRequest> = ProstCodec::default();
        let requests = Request::new(futures::stream::iter(requests));
        let result = client.client_streaming(requests, DEPOSIT.parse().unwrap(), codec).await;
        let refused = code_and_reason(result.unwrap_err());
        assert_eq!(refused, (Code::InvalidArgument, Reason::RequestMalformed));
    }
    assert!(grid.node.received().is_empty());
}

#[tokio::test]
async fn a_silent_node_is_a_deadline_with_an_unknown_outcome() {
    let grid = grid().await;
    grid.node.answer(|_| None);
    // tonic's client looks at the deadline too, and gives up by itself if it is the first to.
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        let request = with(deposit("alice"), &[("grpc-timeout", "100m")]);
        let refused = grid.refused(DEPOSIT, request).await;
        if refused.0 != Code::Cancelled {
            return assert_eq!(refused, (Code::DeadlineExceeded, Reason::DeadlineOutcomeUnknown));
        }
    }
    panic!("the client was faster {TRIES} times");
}

fn call(key: &str, request: &CallRequest) -> CallRequest {
    CallRequest {
        agent: format!("bank.v1.Account/{key}"),
        method: "Deposit".to_owned(),
        request: prost::Message::encode_to_vec(request).into(),
        ..CallRequest::default()
    }
}

#[tokio::test]
async fn the_generic_call_fills_in_an_empty_key() {
    let grid = grid().await;
    let mut client = GridClient::new(grid.channel.clone());
    for request in [deposit(""), deposit("alice")] {
        let response = client.call(call("alice", &request)).await.unwrap().into_inner();
        let handled: CallRequest = prost::Message::decode(response.response).unwrap();
        assert_eq!(handled, deposit("alice"));
        assert!(response.message_id.parse::<MessageId>().is_ok());
    }
    for (bad, reason) in [
        (call("bob", &deposit("alice")), Reason::KeyMalformed),
        (call("", &deposit("")), Reason::KeyMissing),
        (CallRequest { agent: "alice".to_owned(), ..Default::default() }, Reason::RequestMalformed),
        (CallRequest { request: "\x0f".into(), ..call("alice", &deposit("")) }, Reason::RequestMalformed),
        (
            CallRequest { idempotency_key: "x".repeat(257), ..call("a", &deposit("")) },
            Reason::RequestMalformed,
        ),
    ] {
        let refused = code_and_reason(client.call(bad).await.unwrap_err());
        assert_eq!(refused, (Code::InvalidArgument, reason));
    }
}

#[tokio::test]
async fn many_calls_come_back_in_order_each_by_itself() {
    let grid = grid().await;
    let mut client = GridClient::new(grid.channel.clone());
    let mut calls: Vec<_> = (0..1_000).map(|n| call(&n.to_string(), &deposit(""))).collect();
    calls[7].method = "Burn".to_owned();
    let results = client
        .call_many(CallManyRequest { calls: calls.clone(), ..Default::default() })
        .await
        .unwrap()
        .into_inner()
        .results;
    assert_eq!(results.len(), 1_000);
    for (n, result) in results.into_iter().enumerate() {
        match result.result.unwrap() {
            call_result::Result::Response(response) => {
                let handled: CallRequest = prost::Message::decode(response.response).unwrap();
                assert_eq!(handled, deposit(&n.to_string()));
            }
            call_result::Result::Error(error) => assert_eq!((n, error.code), (7, Code::Unimplemented as i32)),
        }
    }
    calls.push(calls[0].clone());
    let refused = client.call_many(CallManyRequest { calls, ..Default::default() }).await.unwrap_err();
    assert_eq!(code_and_reason(refused), (Code::InvalidArgument, Reason::InvalidRequest));
}

#[tokio::test]
async fn a_pipe_answers_every_call_once_past_its_bound_too() {
    const CALLS: u64 = 10_000;
    let grid = grid().await;
    let mut client = GridClient::new(grid.channel.clone());
    let requests = (0..CALLS).map(|id| match id % 100 {
        99 => PipeRequest { id, message: None },
        _ => PipeRequest {
            id,
            message: Some(pipe_request::Message::Call(call(&id.to_string(), &deposit("")))),
        },
    });
    let mut responses = client.pipe(futures::stream::iter(requests)).await.unwrap().into_inner();
    let (mut ids, mut errors) = (BTreeSet::new(), 0);
    while let Some(response) = responses.message().await.unwrap() {
        assert!(ids.insert(response.id), "{} was answered twice", response.id);
        let result = response.result.unwrap().result.unwrap();
        errors += u64::from(matches!(result, call_result::Result::Error(_)));
    }
    assert_eq!((ids.len() as u64, errors), (CALLS, CALLS / 100));
}

#[tokio::test]
async fn reflection_tells_of_the_agent_types() {
    let grid = grid().await;
    let mut client = ServerReflectionClient::new(grid.channel.clone());
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let requests = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("afdg.v1.Grid".to_owned()),
        MessageRequest::FileByFilename("nothing.proto".to_owned()),
    ];
    let requests = futures::stream::iter(requests.map(ask));
    let responses = client.server_reflection_info(requests).await.unwrap().into_inner();
    let responses: Vec<_> =
        responses.map(|response| response.unwrap().message_response.unwrap()).collect().await;
    let MessageResponse::ListServicesResponse(list) = &responses[0] else { panic!() };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "afdg.v1.Grid",
            "bank.v1.Account",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection"
        ]
    );
    let MessageResponse::FileDescriptorResponse(files) = &responses[1] else { panic!() };
    assert!(files.file_descriptor_proto.len() >= 2);
    let MessageResponse::ErrorResponse(error) = &responses[2] else { panic!() };
    assert_eq!(error.error_code, Code::NotFound as i32);
}

#[tokio::test]
async fn operators_see_agents_through_the_nodes() {
    let grid = grid().await;
    let mut client = AgentsClient::new(grid.channel.clone());
    let list = ListAgentsRequest { r#type: "bank.v1.Account".to_owned(), ..Default::default() };
    let page = client.list_agents(list.clone()).await.unwrap().into_inner();
    assert_eq!(
        (page.agents, page.next_page_token),
        (vec!["bank.v1.Account/of-region-1".to_owned()], String::new())
    );
    let bad = ListAgentsRequest { page_token: "x".to_owned(), ..list };
    let refused = code_and_reason(client.list_agents(bad).await.unwrap_err());
    assert_eq!(refused, (Code::InvalidArgument, Reason::InvalidRequest));
    let inspect = InspectAgentRequest { agent: "bank.v1.Account/alice".to_owned(), items_max: 0 };
    let found = client.inspect_agent(inspect).await.unwrap().into_inner();
    let slot = u32::from(Slot::of(&"bank.v1.Account/alice".parse().unwrap()).0);
    assert_eq!((found.slot, found.region, found.leader, found.activity.as_str()), (slot, 1, 1, "idle"));
}

async fn health(address: std::net::SocketAddr) -> Result<i32, Status> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let request = HealthCheckRequest { service: String::new() };
    Ok(HealthClient::new(channel).check(request).await?.into_inner().status)
}

#[tokio::test]
async fn health_is_served_on_both_ports_and_nothing_else_on_its_own() {
    let grid = grid().await;
    let own = grid.running.health_address().unwrap();
    let serving = async || {
        while health(own).await.unwrap() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), serving()).await.unwrap();
    assert_eq!(health(grid.running.local_address()).await.unwrap(), 1);
    let channel = Channel::from_shared(format!("http://{own}")).unwrap().connect_lazy();
    let refused = GridClient::new(channel).call(call("alice", &deposit(""))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn other_protocols_get_an_answer_in_words_and_break_nothing() {
    let grid = grid().await;
    let say = async |bytes: &[u8]| {
        let mut socket = tokio::net::TcpStream::connect(grid.running.local_address()).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 505") && answer.contains("gRPC over HTTP/2"), "{answer}");
    say(b"\x16\x03\x01\x00\x05hello\r\n\r\n").await;
    say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff").await;
    assert!(grid.unary(DEPOSIT, Request::new(deposit("alice"))).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_finishes_what_is_in_flight() {
    let grid = grid().await;
    let (sender, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let (release, released) = tokio::sync::watch::channel(false);
    grid.node.answer(move |message| {
        let _ = sender.send(());
        // The fake node answers in order, so holding this one up is enough.
        while !*released.borrow() {
            std::thread::sleep(Duration::from_millis(1));
        }
        echo(message)
    });
    let channel = grid.channel.clone();
    let in_flight =
        tokio::spawn(async move { GridClient::new(channel).call(call("alice", &deposit(""))).await });
    tokio::task::spawn_blocking(move || begun.blocking_recv()).await.unwrap();
    let drain = tokio::spawn(grid.running.drain());
    tokio::time::sleep(Duration::from_millis(50)).await;
    release.send_replace(true);
    assert!(in_flight.await.unwrap().is_ok());
    assert!(drain.await.unwrap());
    assert!(GridClient::new(grid.channel).call(call("alice", &deposit(""))).await.is_err());
}
