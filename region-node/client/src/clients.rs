//! The pool: one client an address.

use crate::{
    ForwardError, ForwardResult, InFlight, ScatterPages,
    link::{CONNECT_MS_MAX, Link, NodeClient},
};
use afdg_proto::{
    pb::internal::{
        CancelSchedulesRequest, CancelSchedulesResponse, FindMessageRequest, FindMessageResponse, Forwarded,
        InspectAgentRequest, InspectAgentResponse, ListAgentsRequest, ListAgentsResponse,
        ListBlockedAgentsRequest, ListBlockedAgentsResponse, ListDeadLettersRequest, ListDeadLettersResponse,
        ListSchedulesRequest, ListSchedulesResponse, ScatterStart, SettleDeadLettersRequest,
        SettleDeadLettersResponse, TransferLeaderRequest, TransferLeaderResponse,
    },
    peer_auth::PeerToken,
    status::to_call_error,
};
use afdg_runtime::{Net, Tasks, channel_to};
use afdg_types::{CallError, GridError, Reason};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Response, Status};

/// Clients of all region nodes. Cheap to clone; connections end with the last clone.
#[derive(Clone)]
pub struct RegionClients {
    pool: Arc<Pool>,
}

struct Pool {
    net: Arc<dyn Net>,
    token: PeerToken,
    tasks: Tasks,
    /// As many as the routing table has nodes, see [`RegionClients::retain`].
    clients: RwLock<BTreeMap<String, RegionClient>>,
}

impl RegionClients {
    pub fn new(net: Arc<dyn Net>, token: PeerToken, tasks: Tasks) -> Self {
        Self { pool: Arc::new(Pool { net, token, tasks, clients: RwLock::default() }) }
    }

    /// The client of the node at `address` (`host:port`). Connects when first used.
    pub fn node(&self, address: &str) -> Result<RegionClient, ForwardError> {
        let clients = self.pool.clients.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(address) {
            return Ok(client.clone());
        }
        drop(clients);
        let channel = channel_to(&self.pool.net, address, Duration::from_millis(CONNECT_MS_MAX))
            .map_err(|error| ForwardError::NotSent(error.to_string()))?;
        let mut clients = self.pool.clients.write().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(address.to_owned()).or_insert_with(|| {
            let link = Link::new(address, channel, self.pool.token.clone(), self.pool.tasks.clone());
            RegionClient { handle: Arc::new(Handle { link: Arc::new(link) }) }
        });
        Ok(client.clone())
    }

    /// Hands one message to the node at `address` and waits for its answer until `until`.
    pub async fn forward(&self, address: &str, message: Forwarded, until: Instant) -> ForwardResult {
        self.node(address)?.forward(message, until).await
    }

    /// Lets go of all nodes but those at `addresses`; what is in flight to them is still answered.
    pub fn retain(&self, addresses: &BTreeSet<&str>) {
        let mut clients = self.pool.clients.write().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|address, client| {
            let keep = addresses.contains(address.as_str());
            if !keep {
                client.handle.link.close();
            }
            keep
        });
    }
}

/// Client of one region node. Cheap to clone; its connection ends with the last clone, once what is in
/// flight is answered.
#[derive(Clone)]
pub struct RegionClient {
    handle: Arc<Handle>,
}

/// The connection's task holds the link too, so the link itself can't tell when nobody uses it.
struct Handle {
    link: Arc<Link>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl RegionClient {
    pub fn address(&self) -> &str {
        self.handle.link.address()
    }

    /// Hands the message over without waiting. Its `request_id` is set here.
    pub fn start(&self, message: Forwarded) -> Result<InFlight, ForwardError> {
        self.handle.link.start(message)
    }

    /// Hands the message over and waits for the answer until `until`.
    pub async fn forward(&self, message: Forwarded, until: Instant) -> ForwardResult {
        let mut in_flight = self.start(message)?;
        match tokio::time::timeout_at(until, &mut in_flight).await {
            Ok(result) => result,
            Err(_) => in_flight.give_up("the node has not answered in time"),
        }
    }

    /// What is stored of one agent; the node must lead its region.
    pub async fn inspect_agent(
        &self,
        request: InspectAgentRequest,
        timeout: Duration,
    ) -> Result<InspectAgentResponse, CallError> {
        self.ask(timeout, async |mut node| node.inspect_agent(request).await).await
    }

    /// Agents of one region that have data; the node must lead it.
    pub async fn list_agents(
        &self,
        request: ListAgentsRequest,
        timeout: Duration,
    ) -> Result<ListAgentsResponse, CallError> {
        self.ask(timeout, async |mut node| node.list_agents(request).await).await
    }

    /// Agents of one region that wait for others; the node must lead it.
    pub async fn list_blocked_agents(
        &self,
        request: ListBlockedAgentsRequest,
        timeout: Duration,
    ) -> Result<ListBlockedAgentsResponse, CallError> {
        self.ask(timeout, async |mut node| node.list_blocked_agents(request).await).await
    }

    /// Dead letters of one region; the node must lead it.
    pub async fn list_dead_letters(
        &self,
        request: ListDeadLettersRequest,
        timeout: Duration,
    ) -> Result<ListDeadLettersResponse, CallError> {
        self.ask(timeout, async |mut node| node.list_dead_letters(request).await).await
    }

    /// Has dead letters of one region tried again or dropped; the node must lead it.
    pub async fn settle_dead_letters(
        &self,
        request: SettleDeadLettersRequest,
        timeout: Duration,
    ) -> Result<SettleDeadLettersResponse, CallError> {
        self.ask(timeout, async |mut node| node.settle_dead_letters(request).await).await
    }

    /// Whether a region knows a message of that id, and how it ended; the node must lead it.
    pub async fn find_message(
        &self,
        request: FindMessageRequest,
        timeout: Duration,
    ) -> Result<FindMessageResponse, CallError> {
        self.ask(timeout, async |mut node| node.find_message(request).await).await
    }

    /// Schedules of one region's agents; the node must lead it.
    pub async fn list_schedules(
        &self,
        request: ListSchedulesRequest,
        timeout: Duration,
    ) -> Result<ListSchedulesResponse, CallError> {
        self.ask(timeout, async |mut node| node.list_schedules(request).await).await
    }

    /// Cancels schedules of one region's agents; the node must lead it.
    pub async fn cancel_schedules(
        &self,
        request: CancelSchedulesRequest,
        timeout: Duration,
    ) -> Result<CancelSchedulesResponse, CallError> {
        self.ask(timeout, async |mut node| node.cancel_schedules(request).await).await
    }

    /// Moves the lead of a region away from this node.
    pub async fn transfer_leader(
        &self,
        request: TransferLeaderRequest,
        timeout: Duration,
    ) -> Result<TransferLeaderResponse, CallError> {
        self.ask(timeout, async |mut node| node.transfer_leader(request).await).await
    }

    /// Begins a scatter's part in one region; the node must lead it.
    pub async fn scatter(&self, start: ScatterStart, timeout: Duration) -> Result<ScatterPages, CallError> {
        let open = async |node| ScatterPages::open(node, start).await.map(Response::new);
        self.ask(timeout, open).await
    }

    async fn ask<T, F>(&self, timeout: Duration, ask: impl FnOnce(NodeClient) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        match tokio::time::timeout(timeout, ask(self.handle.link.node_client())).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(to_call_error(&status)),
            Err(_) => Err(GridError::new(
                Reason::DeadlineOutcomeUnknown,
                format!("{} has not answered within {} ms", self.address(), timeout.as_millis()),
            )
            .into()),
        }
    }
}
