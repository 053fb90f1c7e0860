//! The services on a log in memory.

use super::*;
use crate::{
    config::Bootstrap,
    log::testing::MemoryLog,
    table::{Published, publish},
};
use afdg_catalog_machine::{FormCluster, NodeState, Outcome, PlaceRegions, SetNodeState};
use afdg_proto::{
    pb::{
        admin::{self, cluster_server::Cluster},
        internal::{self, catalog_server::Catalog},
    },
    status::to_call_error,
};
use afdg_types::{CallError, ClusterId, NodeId};
use futures::StreamExt;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

const CLUSTER: &str = "0123456789abcdef0123456789abcdef";
const BOOTSTRAP: Bootstrap = Bootstrap { regions: 2, replicas: 3, nodes: 1 };

struct Fixture {
    log: Arc<MemoryLog>,
    nodes: NodesService,
    cluster: ClusterService,
    draining: CancellationToken,
}

fn fixture() -> Fixture {
    let log = MemoryLog::new();
    let hints = Arc::new(HintTable::new());
    let core = Arc::new(Core {
        log: log.clone(),
        state: log.state.clone(),
        soft: Arc::new(Soft::default()),
        hints: Arc::clone(&hints),
        id: 1,
        servers: [(1, "one:1".to_owned()), (2, "two:2".to_owned()), (3, "three:3".to_owned())].into(),
        world: World::real(),
        peer_token: PeerToken::new("t").unwrap(),
        lease: Duration::from_secs(2),
    });
    let (published, receiver) = watch::channel(Arc::new(Published::default()));
    tokio::spawn(publish(log.state.clone(), hints, published));
    let draining = CancellationToken::new();
    let nodes = NodesService::new(Arc::clone(&core), receiver, draining.clone());
    Fixture { log, nodes, cluster: ClusterService::new(core), draining }
}

impl Fixture {
    fn form(&self) {
        let Bootstrap { regions, replicas, .. } = BOOTSTRAP;
        let cluster = ClusterId(CLUSTER.to_owned());
        self.log.apply(Command::FormCluster(FormCluster { cluster, regions, replicas, at_ms: 1 }));
    }

    fn place(&self) {
        let place = Command::PlaceRegions(PlaceRegions { nodes_min: 1, at_ms: 1 });
        assert!(matches!(self.log.apply(place), Outcome::Done(_)));
    }

    async fn register(&self, name: &str, incarnation: &str) -> Result<u64, GridError> {
        let request = internal::RegisterNodeRequest {
            name: name.to_owned(),
            incarnation: incarnation.to_owned(),
            address: format!("{name}:1"),
            ..Default::default()
        };
        let response = self.nodes.register_node(Request::new(request)).await;
        response.map(|response| response.into_inner().node_id).map_err(grid_error)
    }

    async fn heartbeat(&self, node_id: u64, leads: &[u64]) -> Result<u64, GridError> {
        let replicas = leads.iter().map(|region| internal::ReplicaReport {
            region: *region,
            term: 4,
            leads: true,
            applied_index: 9,
            agents_active: 2,
        });
        let request = internal::HeartbeatRequest { node_id, replicas: replicas.collect(), wal_bytes: 77 };
        let response = Catalog::heartbeat(&self.nodes, Request::new(request)).await;
        response.map(|response| response.into_inner().lease_ms).map_err(grid_error)
    }

    async fn watch(
        &self,
    ) -> impl futures::Stream<Item = Result<internal::RoutingTable, Status>> + Unpin + use<> {
        self.nodes.watch(Request::new(internal::WatchRequest::default())).await.unwrap().into_inner()
    }
}

fn grid_error(status: Status) -> GridError {
    match to_call_error(&status) {
        CallError::Grid(error) => error,
        CallError::Agent(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn nodes_register_and_keep_their_lease() {
    let f = fixture();
    assert_eq!(f.register("a", "ia").await.unwrap_err().reason, Reason::NotReady);
    f.form();
    assert_eq!(f.register("a", "ia").await, Ok(1));
    assert_eq!(f.register("", "ib").await.unwrap_err().metadata["field"], "name");
    assert_eq!(f.heartbeat(1, &[]).await, Ok(2_000));
    assert_eq!(f.heartbeat(9, &[]).await.unwrap_err().reason, Reason::WrongCluster);
    assert_eq!(f.register("a", "another disk").await.unwrap_err().reason, Reason::NotReady);
    let (node, from, to) = (NodeId(1), NodeState::Live, NodeState::Suspect);
    f.log.apply(Command::SetNodeState(SetNodeState { node, from, to, at_ms: 2 }));
    assert_eq!(f.register("a", "another disk").await, Ok(2));
    assert_eq!(f.heartbeat(1, &[]).await.unwrap_err().reason, Reason::WrongCluster);
    assert_eq!(f.heartbeat(2, &[]).await, Ok(2_000));
}

#[tokio::test]
async fn only_the_leader_takes_heartbeats_and_the_others_name_it() {
    let f = fixture();
    f.form();
    f.register("a", "ia").await.unwrap();
    f.log.lead.send_replace(Lead { term: 2, leader: Some(3), is_mine: false });
    for error in [f.heartbeat(1, &[]).await.unwrap_err(), f.register("a", "ia").await.unwrap_err()] {
        assert_eq!((error.reason, error.metadata["leader_address"].as_str()), (Reason::NotLeader, "three:3"));
    }
    let error = grid_error(f.cluster.get_status(Request::new(admin::GetStatusRequest {})).await.unwrap_err());
    assert_eq!(error.reason, Reason::NotLeader);
    f.log.lead.send_replace(Lead { term: 2, leader: None, is_mine: false });
    assert_eq!(f.heartbeat(1, &[]).await.unwrap_err().reason, Reason::NoLeader);
}

#[tokio::test]
async fn operators_see_what_nodes_report() {
    let f = fixture();
    f.form();
    f.register("a", "ia").await.unwrap();
    f.place();
    f.heartbeat(1, &[1, 99]).await.unwrap();
    let status = f.cluster.get_status(Request::new(admin::GetStatusRequest {})).await.unwrap().into_inner();
    assert_eq!(status.cluster_id, CLUSTER);
    assert_eq!((status.nodes_live, status.regions, status.regions_with_leader), (1, 2, 1));
    assert_eq!((status.replicas_wanted, status.regions_under_replicated), (3, 2));
    let leaders: Vec<bool> = status.catalog.iter().map(|server| server.leader).collect();
    assert_eq!(leaders, [true, false, false]);
    let nodes = f.cluster.list_nodes(Request::new(admin::ListNodesRequest {})).await.unwrap().into_inner();
    let node = &nodes.nodes[0];
    assert_eq!((node.state.as_str(), node.replicas, node.leaders, node.wal_bytes), ("live", 2, 1, 77));
    assert!(node.last_seen_ms.is_some());
    let regions = f
        .cluster
        .list_regions(Request::new(admin::ListRegionsRequest {}))
        .await
        .unwrap()
        .into_inner()
        .regions;
    assert_eq!((regions[0].leader, regions[0].term, regions[0].applied_index), (1, 4, 9));
    assert_eq!((regions[1].leader, regions[1].state.as_str()), (0, "creating"));
}

#[tokio::test]
async fn an_admin_action_is_recorded_before_it_is_tried() {
    let f = fixture();
    f.form();
    f.register("a", "ia").await.unwrap();
    f.place();
    let transfer = |actor: &str, region| {
        let (actor, reason) = (actor.to_owned(), "a test".to_owned());
        let request = admin::TransferLeaderRequest { region, to_node: 1, actor, reason };
        f.cluster.transfer_leader(Request::new(request))
    };
    assert_eq!(grid_error(transfer("", 1).await.unwrap_err()).reason, Reason::InvalidRequest);
    assert_eq!(grid_error(transfer("ann", 9).await.unwrap_err()).reason, Reason::NotFound);
    // The node's address leads nowhere.
    assert_eq!(grid_error(transfer("ann", 1).await.unwrap_err()).reason, Reason::Unreachable);
    let audit = |limit| f.cluster.list_audit(Request::new(admin::ListAuditRequest { limit }));
    let records = audit(0).await.unwrap().into_inner().records;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].action, "transfer the lead of region 1 to node 1");
}

#[tokio::test]
async fn a_watcher_gets_the_table_at_once_then_changes_then_signs_of_life() {
    let f = fixture();
    let mut stream = f.watch().await;
    let first = stream.next().await.unwrap().unwrap();
    assert!(first.types_included && first.cluster_id.is_empty());
    f.form();
    f.register("a", "ia").await.unwrap();
    f.place();
    f.heartbeat(1, &[1]).await.unwrap();
    let led = async {
        loop {
            let table = stream.next().await.unwrap().unwrap();
            if table.regions.first().is_some_and(|region| region.leader == 1) {
                return table;
            }
        }
    };
    let led = tokio::time::timeout(Duration::from_secs(10), led).await.unwrap();
    assert!(!led.ready && !led.types_included && led.nodes[0].live);
    let again = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap();
    assert_eq!(again.unwrap().unwrap().epoch, led.epoch, "nothing changed, and yet a sign of life");
    f.draining.cancel();
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn watchers_are_counted() {
    let f = fixture();
    let mut streams = Vec::new();
    for _ in 0..1_024 {
        streams.push(f.watch().await);
    }
    let refused = f.nodes.watch(Request::new(internal::WatchRequest::default())).await;
    assert_eq!(refused.err().map(grid_error).unwrap().reason, Reason::Overloaded);
    streams.pop();
    drop(f.watch().await);
}
