//! Finding the leader and keeping routes fresh, against catalog servers that play a part.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use afdg_catalog_client::{CatalogClient, NodeReport, Registration};
use afdg_proto::{
    pb::internal::{
        HeartbeatRequest, HeartbeatResponse, RecordActionRequest, RecordActionResponse, RegisterNodeRequest,
        RegisterNodeResponse, RoutingTable, WatchRequest,
        catalog_server::{Catalog, CatalogServer},
    },
    peer_auth::{DemandToken, PeerToken},
    status::of_grid_error,
};
use afdg_runtime::{Incoming, Tasks, World};
use afdg_types::{GridError, NodeId, Reason};
use futures::Stream;
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, service::interceptor::InterceptedService};

/// Generous: tests wait for a condition, never for a time.
const WITHIN: Duration = Duration::from_secs(20);

/// A catalog server that answers as it is told.
#[derive(Clone)]
struct Part {
    /// None: it leads. Some: it refuses with this.
    refusal: Arc<Mutex<Option<GridError>>>,
    requests: Arc<AtomicUsize>,
    table: watch::Sender<RoutingTable>,
}

impl Part {
    fn new(refusal: Option<GridError>) -> Self {
        Self {
            refusal: Arc::new(Mutex::new(refusal)),
            requests: Arc::default(),
            table: watch::Sender::new(table("c", 1)),
        }
    }

    fn answer<T>(&self, response: T) -> Result<Response<T>, Status> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        match &*self.refusal.lock().unwrap() {
            None => Ok(Response::new(response)),
            Some(error) => Err(of_grid_error(error)),
        }
    }

    fn refuse(&self, refusal: Option<GridError>) {
        *self.refusal.lock().unwrap() = refusal;
    }
}

#[tonic::async_trait]
impl Catalog for Part {
    async fn register_node(
        &self,
        _: Request<RegisterNodeRequest>,
    ) -> Result<Response<RegisterNodeResponse>, Status> {
        self.answer(RegisterNodeResponse { node_id: 7, cluster_id: "c".to_owned() })
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        self.answer(HeartbeatResponse { lease_ms: 2_000 })
    }

    async fn record_action(
        &self,
        _: Request<RecordActionRequest>,
    ) -> Result<Response<RecordActionResponse>, Status> {
        self.answer(RecordActionResponse { index: 1 })
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<RoutingTable, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let tables = futures::stream::unfold(self.table.subscribe(), |mut tables| async move {
            // The first is there at once; a sender that ends ends the stream.
            let table = tables.borrow_and_update().clone();
            if table.cluster_id == "end" {
                return None;
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), tables.changed()).await;
            Some((Ok(table), tables))
        });
        Ok(Response::new(Box::pin(tables)))
    }
}

fn table(cluster: &str, epoch: u64) -> RoutingTable {
    RoutingTable { cluster_id: cluster.to_owned(), epoch, ..RoutingTable::default() }
}

fn token() -> PeerToken {
    PeerToken::new("s3cret").unwrap()
}

/// Serves `part` on a port of its own; the abort handle ends it.
async fn serve(part: Part) -> (String, tokio::task::AbortHandle) {
    let listener = World::real().net.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap().to_string();
    let service = InterceptedService::new(CatalogServer::new(part), DemandToken(token()));
    let server = tonic::transport::Server::builder().add_service(service);
    let task = tokio::spawn(server.serve_with_incoming(Incoming::new(listener)));
    (address, task.abort_handle())
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = World::real().net.bind("127.0.0.1:0").await.unwrap();
    listener.local_address().unwrap().to_string()
}

fn client(addresses: &[&String]) -> CatalogClient {
    let addresses = addresses.iter().map(|address| (*address).clone()).collect();
    CatalogClient::new(World::real().net, addresses, token()).unwrap()
}

fn not_leader(address: &str) -> GridError {
    GridError::new(Reason::NotLeader, "elsewhere").with("leader_address", address)
}

fn report() -> NodeReport {
    NodeReport { node: NodeId(7), replicas: Vec::new(), wal_bytes: 0 }
}

fn registration() -> Registration {
    Registration {
        name: "a".to_owned(),
        incarnation: "ia".to_owned(),
        address: "a:1".to_owned(),
        zone: String::new(),
        types: Vec::new(),
        known_as: None,
    }
}

#[tokio::test]
async fn the_leader_is_found_past_servers_that_are_down_or_follow() {
    let leader = Part::new(None);
    let (leader_address, _) = serve(leader.clone()).await;
    let follower = Part::new(Some(not_leader(&leader_address)));
    let (follower_address, _) = serve(follower.clone()).await;
    // The leader is not among the configured ones: the follower's hint is enough.
    let client = client(&[&nobody().await, &follower_address]);
    let registered = client.register(registration(), WITHIN).await.unwrap();
    assert_eq!((registered.node, registered.cluster.0.as_str()), (NodeId(7), "c"));
    assert_eq!(follower.requests.load(Ordering::SeqCst), 1);
    for _ in 0..5 {
        assert_eq!(client.heartbeat(report(), WITHIN).await, Ok(Duration::from_secs(2)));
    }
    assert_eq!(follower.requests.load(Ordering::SeqCst), 1, "the leader is remembered");
    assert_eq!(leader.requests.load(Ordering::SeqCst), 6);

    leader.refuse(Some(not_leader(&follower_address)));
    follower.refuse(None);
    client.heartbeat(report(), WITHIN).await.unwrap();
    assert_eq!(follower.requests.load(Ordering::SeqCst), 2, "a new leader is followed");
}

#[tokio::test]
async fn a_leader_that_is_gone_is_looked_for_again() {
    let (one, two) = (Part::new(None), Part::new(None));
    let (one_address, one_server) = serve(one.clone()).await;
    let (two_address, _) = serve(two.clone()).await;
    let client = client(&[&one_address, &two_address]);
    client.heartbeat(report(), WITHIN).await.unwrap();
    assert_eq!(one.requests.load(Ordering::SeqCst), 1);
    one.refuse(Some(GridError::new(Reason::NoLeader, "cut off")));
    one_server.abort();
    client.heartbeat(report(), WITHIN).await.unwrap();
    assert_eq!(two.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_can_not_change_is_told_at_once_and_the_rest_when_time_is_up() {
    let part = Part::new(Some(GridError::new(Reason::WrongCluster, "another cluster's data")));
    let (address, _) = serve(part.clone()).await;
    let error = client(&[&address]).register(registration(), WITHIN).await.unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), (Reason::WrongCluster, "another cluster's data"));
    assert_eq!(part.requests.load(Ordering::SeqCst), 1);

    part.refuse(Some(GridError::new(Reason::NotReady, "not formed")));
    let error = client(&[&address]).register(registration(), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotReady);
    let requests = part.requests.load(Ordering::SeqCst);
    assert!((2..=5).contains(&requests), "{requests} requests: attempts are spaced");

    let other = PeerToken::new("other").unwrap();
    let stranger = CatalogClient::new(World::real().net, vec![address], other).unwrap();
    let error = stranger.heartbeat(report(), WITHIN).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotAPeer);
}

#[tokio::test]
async fn servers_that_point_at_each_other_are_not_hammered() {
    let (one, two) = (Part::new(None), Part::new(None));
    let (one_address, _) = serve(one.clone()).await;
    let (two_address, _) = serve(two.clone()).await;
    one.refuse(Some(not_leader(&two_address)));
    two.refuse(Some(not_leader(&one_address)));
    let client = client(&[&one_address, &two_address]);
    let error = client.heartbeat(report(), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotLeader);
    let requests = one.requests.load(Ordering::SeqCst) + two.requests.load(Ordering::SeqCst);
    assert!((4..=20).contains(&requests), "{requests} requests");
}

#[test]
fn addresses_are_checked() {
    for addresses in [vec![], vec!["no port".to_owned()], vec![":1".to_owned()]] {
        assert!(CatalogClient::new(World::real().net, addresses.clone(), token()).is_err(), "{addresses:?}");
    }
}

#[tokio::test]
async fn routes_are_kept_from_whichever_server_is_up() {
    let (one, two) = (Part::new(None), Part::new(None));
    let (one_address, _) = serve(one.clone()).await;
    let (two_address, _) = serve(two.clone()).await;
    let tasks = Tasks::new();
    let mut routes = client(&[&nobody().await, &one_address, &two_address]).watch_routes(&tasks, "test");
    let mut wait = async |epoch: u64| {
        let heard = routes.wait_for(|routes| routes.epoch.0 >= epoch);
        tokio::time::timeout(WITHIN, heard).await.unwrap().unwrap().clone()
    };
    assert_eq!(wait(1).await.cluster_id.as_ref().unwrap().0, "c");
    one.table.send_replace(table("c", 5));
    two.table.send_replace(table("c", 5));
    wait(5).await;
    // Server one lags from here on, then ends its streams; routes never go back.
    one.table.send_replace(table("c", 2));
    one.table.send_replace(table("end", 0));
    two.table.send_replace(table("c", 6));
    wait(6).await;
    // Server two becomes one of another cluster; one is back.
    two.table.send_replace(table("d", 9));
    one.table.send_replace(table("c", 7));
    let routes = wait(7).await;
    assert_eq!((routes.epoch.0, routes.cluster_id.as_ref().unwrap().0.as_str()), (7, "c"));
    assert!(tasks.drain(WITHIN).await);
}
