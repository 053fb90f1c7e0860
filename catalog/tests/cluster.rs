//! Catalog servers in one process, on loopback.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use afdg_catalog::{Bootstrap, CatalogConfig, CatalogServer, HostError, Running};
use afdg_catalog_client::{
    CatalogClient, MethodInfo, NodeReport, Registered, Registration, ReplicaReport, Routes, TypeInfo,
};
use afdg_proto::{pb::admin, peer_auth::PeerToken};
use afdg_replication::{IdentityError, Timing};
use afdg_runtime::{Listener, Tasks, World};
use afdg_types::{Epoch, NodeId, Reason, RegionId, Slot, Term};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Generous: tests wait for a condition, never for a time.
const WITHIN: Duration = Duration::from_secs(30);
const LEASE_MS: u64 = 600;

fn token() -> PeerToken {
    PeerToken::new("s3cret").unwrap()
}

fn config(id: u64, folder: &Path, servers: &BTreeMap<u64, String>) -> CatalogConfig {
    CatalogConfig {
        id,
        folder: folder.join(format!("catalog-{id}")),
        listen: servers[&id].clone(),
        servers: servers.clone(),
        peer_token: token(),
        bootstrap: Bootstrap { regions: 4, replicas: 3, nodes: 3 },
        lease_ms: LEASE_MS,
        dead_after_ms: 2_000,
        timing: Timing::default(),
        drain_ms_max: 10_000,
        substitutes: Default::default(),
    }
}

struct Catalog {
    folder: tempfile::TempDir,
    servers: BTreeMap<u64, String>,
    running: BTreeMap<u64, Running>,
    tasks: Tasks,
}

impl Catalog {
    async fn start(size: u64) -> Self {
        let world = World::real();
        let mut listeners: BTreeMap<u64, Box<dyn Listener>> = BTreeMap::new();
        for id in 1..=size {
            listeners.insert(id, world.net.bind("127.0.0.1:0").await.unwrap());
        }
        let address = |listener: &dyn Listener| listener.local_address().unwrap().to_string();
        let servers: BTreeMap<u64, String> = listeners.iter().map(|(id, l)| (*id, address(&**l))).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut running = BTreeMap::new();
        for (id, listener) in listeners {
            let config = config(id, folder.path(), &servers);
            running.insert(id, CatalogServer::start_on(config, world.clone(), listener).await.unwrap());
        }
        Self { folder, servers, running, tasks: Tasks::new() }
    }

    async fn restart(&mut self, id: u64) {
        let config = config(id, self.folder.path(), &self.servers);
        let started = Instant::now();
        // The port of a connection that was just closed may be held for a moment.
        let running = loop {
            match CatalogServer::start(config.clone(), World::real()).await {
                Ok(running) => break running,
                Err(HostError::Listen { .. }) if started.elapsed() < WITHIN => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        self.running.insert(id, running);
    }

    async fn stop(&mut self, id: u64) {
        assert!(self.running.remove(&id).unwrap().drain().await, "the drain of {id} took too long");
    }

    fn client(&self) -> CatalogClient {
        CatalogClient::new(World::real().net, self.servers.values().cloned().collect(), token()).unwrap()
    }

    /// The routes as one server tells them.
    fn routes_of(&self, id: u64) -> watch::Receiver<Arc<Routes>> {
        let addresses = vec![self.servers[&id].clone()];
        let client = CatalogClient::new(World::real().net, addresses, token()).unwrap();
        client.watch_routes(&self.tasks, "test")
    }

    async fn leader(&self) -> u64 {
        let status = self.client().status(admin::GetStatusRequest {}, WITHIN).await.unwrap();
        status.catalog.iter().find(|server| server.leader).unwrap().id
    }

    async fn end(mut self) {
        let ids: Vec<u64> = self.running.keys().copied().collect();
        for id in ids {
            self.stop(id).await;
        }
        assert!(self.tasks.drain(WITHIN).await);
    }
}

async fn wait_for(
    routes: &mut watch::Receiver<Arc<Routes>>,
    what: &str,
    holds: impl FnMut(&Arc<Routes>) -> bool,
) -> Arc<Routes> {
    let found = tokio::time::timeout(WITHIN, routes.wait_for(holds)).await;
    if let Ok(found) = found {
        return Arc::clone(&found.unwrap());
    }
    drop(found);
    let last = Arc::clone(&routes.borrow());
    panic!("never: {what}; last epoch {}, nodes {:?}, regions {:?}", last.epoch, last.nodes, last.regions)
}

fn registration(name: &str) -> Registration {
    let method =
        MethodInfo { read_only: true, key_field: Some(1), request: "Q".to_owned(), response: "R".to_owned() };
    let agent_type = TypeInfo {
        name: "bank.v1.Account".to_owned(),
        descriptors: Bytes::from_static(b"descriptors"),
        methods: [("GetBalance".to_owned(), method)].into(),
        limits: Default::default(),
    };
    Registration {
        name: name.to_owned(),
        incarnation: format!("i-{name}"),
        address: format!("{name}:7000"),
        zone: format!("zone-{name}"),
        types: vec![agent_type],
        known_as: None,
    }
}

/// Says that the node leads every region that prefers it.
fn report(node: NodeId, routes: &Routes) -> NodeReport {
    let replicas = routes.regions.values().filter(|region| region.replicas.contains(&node));
    let replicas = replicas.map(|region| ReplicaReport {
        region: region.id,
        term: Term(1),
        leads: region.replicas[0] == node,
        applied_index: 5,
        agents_active: 1,
    });
    NodeReport { node, replicas: replicas.collect(), wal_bytes: 9 }
}

/// A node that sends heartbeats until its token is dropped.
fn keep_alive(
    catalog: &Catalog,
    node: NodeId,
    routes: watch::Receiver<Arc<Routes>>,
) -> tokio::task::AbortHandle {
    let client = catalog.client();
    let task = tokio::spawn(async move {
        loop {
            let report = report(node, &routes.borrow());
            let _ = client.heartbeat(report, Duration::from_secs(5)).await;
            tokio::time::sleep(Duration::from_millis(LEASE_MS / 6)).await;
        }
    });
    task.abort_handle()
}

async fn three_nodes(
    catalog: &Catalog,
) -> (BTreeMap<NodeId, tokio::task::AbortHandle>, watch::Receiver<Arc<Routes>>) {
    let client = catalog.client();
    let mut routes = client.watch_routes(&catalog.tasks, "nodes");
    let mut nodes = BTreeMap::new();
    for name in ["a", "b", "c"] {
        let registered: Registered = client.register(registration(name), WITHIN).await.unwrap();
        nodes.insert(registered.node, keep_alive(catalog, registered.node, routes.clone()));
    }
    wait_for(&mut routes, "ready", |routes| routes.ready).await;
    (nodes, routes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_form_a_cluster_and_tell_the_same_routes() {
    let catalog = Catalog::start(3).await;
    let (nodes, mut routes) = three_nodes(&catalog).await;
    assert_eq!(nodes.keys().map(|node| node.0).collect::<Vec<_>>(), [1, 2, 3]);
    let held = wait_for(&mut routes, "leaders", |r| r.regions.values().all(|r| r.leader.is_some())).await;
    for slot in [0, 4_095, 4_096, 16_383] {
        let region = held.region_of(Slot(slot)).unwrap();
        assert_eq!((region.replicas.len(), region.creating), (3, false));
        assert_eq!(region.leader, Some(region.replicas[0]));
    }
    assert!(held.types["bank.v1.Account"].methods["GetBalance"].read_only);
    for id in 1..=3 {
        let mut theirs = catalog.routes_of(id);
        let same = |theirs: &Arc<Routes>| {
            theirs.epoch == held.epoch && theirs.regions == held.regions && theirs.types == held.types
        };
        wait_for(&mut theirs, &format!("server {id} knows what the leader knows"), same).await;
    }
    let client = catalog.client();
    let status = client.status(admin::GetStatusRequest {}, WITHIN).await.unwrap();
    assert_eq!((status.nodes_live, status.regions, status.regions_with_leader), (3, 4, 4));
    assert_eq!((status.regions_under_replicated, status.types), (0, 1));
    assert_eq!(Some(&status.cluster_id), held.cluster_id.as_ref().map(|id| &id.0));
    let types = client.types(admin::ListTypesRequest {}, WITHIN).await.unwrap().types;
    assert_eq!((types[0].name.as_str(), types[0].version.len()), ("bank.v1.Account", 32));
    // Of another cluster, and of another node.
    let mut stranger = registration("d");
    stranger.known_as = Some(Registered { cluster: afdg_types::ClusterId("x".to_owned()), node: NodeId(1) });
    assert_eq!(client.register(stranger, WITHIN).await.unwrap_err().reason, Reason::WrongCluster);
    let transfer = admin::TransferLeaderRequest {
        region: 1,
        to_node: 2,
        actor: "ann".to_owned(),
        reason: "a test".to_owned(),
    };
    // The nodes of this test listen nowhere; that it was asked for is recorded all the same, once.
    let failed = client.transfer_leader(transfer, WITHIN).await.unwrap_err();
    assert_eq!(failed.reason, Reason::Unreachable);
    let audit = client.audit(admin::ListAuditRequest { limit: 9 }, WITHIN).await.unwrap().records;
    assert_eq!(audit.len(), 1);
    assert_eq!((audit[0].actor.as_str(), audit[0].reason.as_str()), ("ann", "a test"));
    catalog.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_suspected_then_dead_and_comes_back() {
    let catalog = Catalog::start(1).await;
    let (nodes, mut routes) = three_nodes(&catalog).await;
    let client = catalog.client();
    nodes[&NodeId(2)].abort();
    wait_for(&mut routes, "suspect", |routes| !routes.nodes[&NodeId(2)].live).await;
    let state = async || {
        let nodes = client.nodes(admin::ListNodesRequest {}, WITHIN).await.unwrap().nodes;
        nodes.into_iter().map(|node| (node.id, node.state)).collect::<BTreeMap<_, _>>()
    };
    let started = Instant::now();
    while state().await[&2] != "dead" {
        assert!(started.elapsed() < WITHIN, "never dead");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let states = state().await;
    assert_eq!((states[&1].as_str(), states[&3].as_str()), ("live", "live"));
    keep_alive(&catalog, NodeId(2), routes.clone());
    wait_for(&mut routes, "back", |routes| routes.nodes[&NodeId(2)].live).await;
    catalog.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_outlives_its_leader_and_suspects_nobody_for_it() {
    let mut catalog = Catalog::start(3).await;
    let (_nodes, mut routes) = three_nodes(&catalog).await;
    let before = wait_for(&mut routes, "leaders", |r| r.regions.values().all(|r| r.leader.is_some())).await;
    let leader = catalog.leader().await;
    catalog.stop(leader).await;
    let next = catalog.leader().await;
    assert_ne!(next, leader);
    let client = catalog.client();
    let registered = client.register(registration("d"), WITHIN).await.unwrap();
    assert_eq!(registered.node, NodeId(4));
    let node = keep_alive(&catalog, registered.node, routes.clone());
    let after = wait_for(&mut routes, "the new node", |r| r.nodes.contains_key(&NodeId(4))).await;
    assert_eq!(after.epoch, Epoch(before.epoch.0 + 1), "one change, the registration");
    assert_eq!(after.leader_hint(RegionId(1)), before.leader_hint(RegionId(1)));
    catalog.restart(leader).await;
    let mut theirs = catalog.routes_of(leader);
    wait_for(&mut theirs, "the stopped server has caught up", |r| r.nodes.contains_key(&NodeId(4))).await;
    node.abort();
    catalog.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_catalog_comes_back_with_all_it_knew() {
    let mut catalog = Catalog::start(3).await;
    let (nodes, mut routes) = three_nodes(&catalog).await;
    let before = wait_for(&mut routes, "leaders", |r| r.regions.values().all(|r| r.leader.is_some())).await;
    nodes.values().for_each(tokio::task::AbortHandle::abort);
    for id in 1..=3 {
        catalog.stop(id).await;
    }
    assert_eq!(routes.borrow().regions, before.regions, "the last routes stay in use");
    for id in 1..=3 {
        catalog.restart(id).await;
    }
    let client = catalog.client();
    let status = client.status(admin::GetStatusRequest {}, WITHIN).await.unwrap();
    assert_eq!(Some(&status.cluster_id), before.cluster_id.as_ref().map(|id| &id.0));
    assert_eq!((status.nodes_known, status.regions, status.types), (3, 4, 1));
    let again = Registration { known_as: None, ..registration("b") };
    assert_eq!(client.register(again, WITHIN).await.unwrap().node, NodeId(2));
    wait_for(&mut routes, "newer routes", |r| r.epoch > before.epoch && r.nodes[&NodeId(2)].live).await;
    catalog.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_not_start_on_anothers_data() {
    let mut catalog = Catalog::start(1).await;
    catalog.stop(1).await;
    let servers: BTreeMap<u64, String> = (1..=3).map(|id| (id, "127.0.0.1:0".to_owned())).collect();
    let mut other = config(2, catalog.folder.path(), &servers);
    other.folder = catalog.folder.path().join("catalog-1");
    let refused = CatalogServer::start(other, World::real()).await.err().unwrap();
    assert!(matches!(refused, HostError::Identity(IdentityError::OtherServer { .. })), "{refused}");
    let mut wrong = config(1, catalog.folder.path(), &servers);
    wrong.bootstrap.replicas = 2;
    let refused = CatalogServer::start(wrong, World::real()).await.err().unwrap();
    assert_eq!(
        refused.to_string(),
        "the catalog's configuration is wrong: bootstrap.replicas must be 1, 3 or 5; got 2"
    );
    catalog.end().await;
}
