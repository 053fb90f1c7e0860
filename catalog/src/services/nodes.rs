//! `afdg.internal.v1.Catalog`: registration and heartbeats of nodes, and the watched routing table.

use super::Core;
use crate::{
    hints::Hint,
    soft::{Report, Seen},
    table::Published,
};
use afdg_catalog_machine::{AgentType, Command, Method, RegisterNode, Reply};
use afdg_proto::{
    pb::internal::{
        HeartbeatRequest, HeartbeatResponse, RecordActionRequest, RecordActionResponse, RegisterNodeRequest,
        RegisterNodeResponse, RoutingTable, TypeDescriptor, WatchRequest, catalog_server::Catalog,
    },
    status::of_grid_error,
};
use afdg_types::{ClusterId, Epoch, GridError, NodeId, Reason, RegionId, Term};
use futures::Stream;
use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use xxhash_rust::xxh3::xxh3_128;

/// Streams of the routing table that one server sends at the same time.
const WATCHERS_MAX: usize = 1_024;
/// The table is sent at least this often, as a sign of life.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// A server that has heard of no leader for this long may be cut off, and its table out of date: it sends
/// its watchers on, each to the next server.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);

pub(crate) struct NodesService {
    core: Arc<Core>,
    published: watch::Receiver<Arc<Published>>,
    watchers: Arc<Semaphore>,
    draining: CancellationToken,
}

impl NodesService {
    pub(crate) fn new(
        core: Arc<Core>,
        published: watch::Receiver<Arc<Published>>,
        draining: CancellationToken,
    ) -> Self {
        Self { core, published, watchers: Arc::new(Semaphore::new(WATCHERS_MAX)), draining }
    }

    async fn register(&self, request: RegisterNodeRequest) -> Result<RegisterNodeResponse, GridError> {
        let term = self.core.confirm_lead().await?;
        let command = Command::RegisterNode(RegisterNode {
            cluster: Some(ClusterId(request.cluster_id)).filter(|id| !id.0.is_empty()),
            node: Some(NodeId(request.node_id)).filter(|id| id.0 > 0),
            name: request.name,
            incarnation: request.incarnation,
            address: request.address,
            zone: request.zone,
            types: request.types.into_iter().map(agent_type).collect(),
            at_ms: self.core.world.clock.now_ms(),
        });
        match self.core.propose(&command).await? {
            Reply::Registered { node, cluster } => {
                self.core.soft.registered(term, node, Instant::now());
                Ok(RegisterNodeResponse { node_id: node.0, cluster_id: cluster.0 })
            }
            reply => Err(GridError::new(Reason::Internal, format!("a registration ended as {reply:?}"))),
        }
    }

    async fn heartbeat(&self, request: HeartbeatRequest) -> Result<HeartbeatResponse, GridError> {
        let at = Instant::now();
        let term = self.core.confirm_lead().await?;
        let id = NodeId(request.node_id);
        let state = self.core.state();
        let refused = |message: String| GridError::new(Reason::WrongCluster, message).with("node", id);
        let Some(node) = state.nodes.get(&id) else {
            return Err(refused(format!("the catalog knows no node {id}: it has to register first")));
        };
        if let Some(by) = node.replaced_by {
            let name = &node.name;
            return Err(refused(format!(
                "node {id} was replaced by node {by}, which registered as '{name}'"
            )));
        }
        // Only of regions that the node holds, so that what is kept stays bounded by the state.
        let holds =
            |region: &RegionId| state.regions.get(region).is_some_and(|region| region.replicas.contains(&id));
        let replicas: BTreeMap<RegionId, Report> = request
            .replicas
            .iter()
            .map(|report| (RegionId(report.region), Report::from(report)))
            .filter(|(region, _)| holds(region))
            .collect();
        let leads = replicas.iter().filter(|(_, report)| report.leads && report.term > Term(0));
        self.core
            .hints
            .merge(leads.map(|(region, report)| (*region, Hint { term: report.term, leader: id })));
        self.core.soft.heard(term, id, Seen { at, wal_bytes: request.wal_bytes, replicas });
        let lease_ms = u64::try_from(self.core.lease.as_millis()).unwrap_or(u64::MAX);
        Ok(HeartbeatResponse { lease_ms })
    }
}

fn agent_type(wire: TypeDescriptor) -> AgentType {
    let methods = wire.methods.into_iter().map(|method| Method {
        name: method.name,
        read_only: method.read_only,
        key_field: method.key_field,
        request: method.request,
        response: method.response,
    });
    AgentType {
        name: wire.name,
        version: format!("{:032x}", xxh3_128(&wire.descriptors)),
        descriptors: wire.descriptors,
        methods: methods.collect(),
    }
}

#[tonic::async_trait]
impl Catalog for NodesService {
    async fn register_node(
        &self,
        request: Request<RegisterNodeRequest>,
    ) -> Result<Response<RegisterNodeResponse>, Status> {
        let response = self.register(request.into_inner()).await;
        response.map(Response::new).map_err(|error| of_grid_error(&error))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let response = self.heartbeat(request.into_inner()).await;
        response.map(Response::new).map_err(|error| of_grid_error(&error))
    }

    async fn record_action(
        &self,
        request: Request<RecordActionRequest>,
    ) -> Result<Response<RecordActionResponse>, Status> {
        let recorded = self.core.record_action(request.into_inner()).await;
        let recorded = recorded.map_err(|error| of_grid_error(&error))?;
        Ok(Response::new(RecordActionResponse { index: recorded }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<RoutingTable, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let Ok(permit) = Arc::clone(&self.watchers).try_acquire_owned() else {
            let message = format!("this catalog server has {WATCHERS_MAX} watchers already");
            let error = GridError::new(Reason::Overloaded, message).retry_after_ms(1_000);
            return Err(of_grid_error(&error));
        };
        tracing::debug!(watcher = %request.get_ref().watcher.escape_debug(), "a watcher has come");
        let watcher = Watcher {
            published: self.published.clone(),
            seen_types: None,
            core: Arc::clone(&self.core),
            led_at: Instant::now(),
            draining: self.draining.clone(),
            _permit: permit,
        };
        // Pulled by the transport: while a watcher is slow nothing is made for it, and then the latest.
        let tables = futures::stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(Some(table)) => Some((Ok(table), Some(watcher))),
                Ok(None) => None,
                Err(error) => Some((Err(of_grid_error(&error)), None)),
            }
        });
        Ok(Response::new(Box::pin(tables)))
    }
}

/// One stream of the routing table.
struct Watcher {
    published: watch::Receiver<Arc<Published>>,
    /// The types sent last; none before the first table.
    seen_types: Option<Epoch>,
    core: Arc<Core>,
    /// When this server last knew a leader.
    led_at: Instant,
    draining: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next table: at once at first, then when it changes, and every second. None when the server
    /// stops.
    async fn next(&mut self) -> Result<Option<RoutingTable>, GridError> {
        if self.seen_types.is_some() {
            tokio::select! {
                () = self.draining.cancelled() => return Ok(None),
                changed = self.published.changed() => if changed.is_err() { return Ok(None) },
                () = sleep(SEND_EVERY) => {}
            }
        }
        if self.core.lead().leader.is_some() {
            self.led_at = Instant::now();
        } else if self.led_at.elapsed() >= LEADERLESS_MAX {
            return Err(GridError::new(
                Reason::NoLeader,
                "this catalog server knows no leader; another may know more",
            ));
        }
        let published = Arc::clone(&self.published.borrow_and_update());
        let table = published.for_watcher(self.seen_types);
        self.seen_types = Some(published.types_epoch);
        Ok(Some(table))
    }
}
