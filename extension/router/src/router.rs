//! The router: what every message passes.

use crate::{
    OutgoingMessage,
    admission::{Admission, Admitted},
    backoff::{Backoff, RetryBudget},
    find::SEARCHES_MAX,
    journey::Journey,
    leaving::{LEAVING_MAX, Leaving},
    rates::Rates,
    table::{Region, Table},
};
use afdg_catalog_client::{Routes, TypeInfo};
use afdg_region_client::{RegionClient, RegionClients};
use afdg_runtime::{Clock, Entropy, World};
use afdg_types::{
    AgentRef, CallError, GridError, MessageId, NodeId, Purpose, Reason, RegionId,
    limits::{MESSAGE_BYTES_MAX, RECORDED_TURN_MS_MAX},
};
use bytes::Bytes;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

/// How long a message waits for the first usable routing table.
const READY_WAIT_MS_MAX: u64 = 10_000;
/// Hint for a caller that came before it.
const NOT_READY_RETRY_AFTER_MS: u64 = 500;

/// Resolves, forwards and replies. Cheap to clone; one a process.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    routes: watch::Receiver<Arc<Routes>>,
    /// Made of the newest routes by the first message that needs it.
    table: RwLock<Arc<Table>>,
    clients: RegionClients,
    clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    admission: Admission,
    pub(crate) budget: RetryBudget,
    pub(crate) rates: Rates,
    searches: Semaphore,
    /// Places for callers that go away and say so.
    pub(crate) leaving: Arc<Semaphore>,
}

impl Router {
    pub fn new(routes: watch::Receiver<Arc<Routes>>, clients: RegionClients, world: &World) -> Self {
        let first = Arc::clone(&routes.borrow());
        let table = RwLock::new(Arc::new(Table::new(first, &clients, None)));
        let inner = Inner {
            routes,
            table,
            clients,
            clock: Arc::clone(&world.clock),
            entropy: Arc::clone(&world.entropy),
            admission: Admission::default(),
            budget: RetryBudget::default(),
            rates: Rates::default(),
            searches: Semaphore::new(SEARCHES_MAX),
            leaving: Arc::new(Semaphore::new(LEAVING_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Delivers the message and returns the agent's response, its refusal, or why there is neither; for a
    /// send nothing, once it was accepted.
    ///
    /// With a deadline, an overload is returned at once; without one it is retried, too. Dropping the
    /// future ends the retries, and tells the region of a client's call that this caller waits no more; what
    /// was delivered may still take effect.
    pub async fn call(&self, message: OutgoingMessage) -> Result<Bytes, CallError> {
        let inner = &*self.inner;
        let bytes = message.request.len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(too_large(bytes).into());
        }
        let recorded_turn_end = || Instant::now() + Duration::from_millis(RECORDED_TURN_MS_MAX);
        let deadline = message.deadline.unwrap_or_else(recorded_turn_end);
        let _admitted = inner.admit(&message, deadline).await?;
        let until = if message.deadline.is_some() { deadline.min(ready_wait_end()) } else { deadline };
        let table = inner.table_with_type(message.agent.agent_type(), until).await?;
        let info = table.routes.types.get(message.agent.agent_type());
        if let Some(info) = info.filter(|_| matches!(message.purpose, Purpose::Call | Purpose::Send(_))) {
            check_method(info, &message.method)?;
        }
        let leaving = Leaving::of(self, &message);
        let result = Journey::new(inner, &message, leaving.caller(), table, deadline).forward().await;
        leaving.stays();
        result
    }

    /// An id for a message whose caller chose no idempotency key.
    pub fn new_message_id(&self) -> MessageId {
        MessageId::from_router(self.inner.clock.now_ms(), self.inner.entropy.random_u128())
    }

    /// This process's time, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.inner.clock.now_ms()
    }

    /// The newest routes.
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.inner.routes.borrow())
    }

    /// What is known of an agent type. Waits for the first routing table, until `until` at most.
    pub async fn agent_type(&self, name: &str, until: Instant) -> Result<Arc<TypeInfo>, GridError> {
        if let Some(info) = self.inner.routes.borrow().types.get(name) {
            return Ok(Arc::clone(info));
        }
        let table = self.inner.table_with_type(name, until.min(ready_wait_end())).await?;
        table.routes.types.get(name).cloned().ok_or_else(|| unknown_type(name))
    }

    /// Waits for the first routing table by which calls can succeed, until `until`.
    pub async fn ready(&self, until: Instant) -> bool {
        let mut routes = self.inner.routes.clone();
        let ready = async { routes.wait_for(|routes| routes.ready).await.is_ok() };
        tokio::time::timeout_at(until, ready).await.unwrap_or(false)
    }

    /// The region that owns the agent's slot.
    pub fn region_of(&self, agent: &AgentRef) -> Option<RegionId> {
        self.inner.table().resolve(agent).map(|region| region.id)
    }

    /// The replicas of a region, who is said to lead first; empty if there is no such region.
    pub fn replicas_of(&self, region: RegionId) -> Vec<(NodeId, RegionClient)> {
        let table = self.inner.table();
        let Some(region) = table.region(region) else {
            return Vec::new();
        };
        let leader = region.leader();
        let in_order = |region: &Region| {
            let others = (0..region.replicas.len()).filter(move |index| Some(*index) != leader);
            leader.into_iter().chain(others).collect::<Vec<_>>()
        };
        (in_order(region).into_iter())
            .filter_map(|index| region.replicas.get(index))
            .map(|replica| (replica.node, replica.client.clone()))
            .collect()
    }

    pub(crate) fn random_u64(&self) -> u64 {
        self.inner.entropy.random_u64()
    }

    pub(crate) fn leaving(&self) -> &Arc<Semaphore> {
        &self.inner.leaving
    }

    /// Places for searches of all regions.
    pub(crate) fn searches(&self) -> &Semaphore {
        &self.inner.searches
    }

    /// Messages in flight, for metrics and the drain.
    pub fn messages_in_flight(&self) -> usize {
        self.inner.admission.messages_in_flight()
    }
}

impl Inner {
    /// The table of the newest routes.
    pub(crate) fn table(&self) -> Arc<Table> {
        let newest = {
            let newest = self.routes.borrow();
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            if Arc::ptr_eq(&table.routes, &newest) {
                return Arc::clone(&table);
            }
            Arc::clone(&newest)
        };
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&table.routes, &newest) {
            *table = Arc::new(Table::new(newest, &self.clients, Some(&table)));
        }
        Arc::clone(&table)
    }

    /// Waits for a table that is not `known`; of a later epoch if `later_epoch`.
    pub(crate) async fn newer_table(
        &self,
        known: &Table,
        later_epoch: bool,
        until: Instant,
    ) -> Option<Arc<Table>> {
        let mut routes = self.routes.clone();
        let is_newer = |routes: &Arc<Routes>| {
            if later_epoch { routes.epoch > known.routes.epoch } else { !Arc::ptr_eq(routes, &known.routes) }
        };
        let newer = async { routes.wait_for(is_newer).await.is_ok() };
        match tokio::time::timeout_at(until, newer).await {
            Ok(true) => Some(self.table()),
            Ok(false) => {
                // Nobody watches the catalog any more: there will be no newer table.
                tokio::time::sleep_until(until).await;
                None
            }
            Err(_) => None,
        }
    }

    /// Takes room for the message. One of a recorded turn waits for it.
    async fn admit(&self, message: &OutgoingMessage, deadline: Instant) -> Result<Admitted<'_>, GridError> {
        let mut backoff = Backoff::default();
        loop {
            match self.admission.admit(message.request.len()) {
                Ok(admitted) => return Ok(admitted),
                Err(error) if message.deadline.is_some() || Instant::now() >= deadline => return Err(error),
                Err(error) => {
                    tokio::time::sleep(backoff.pause(&*self.entropy, error.retry_after_ms)).await;
                }
            }
        }
    }

    /// The first table that knows the agent type. A type is only said to be unknown once the cluster is
    /// up, since types come with the nodes that run them.
    async fn table_with_type(&self, agent_type: &str, until: Instant) -> Result<Arc<Table>, GridError> {
        let mut table = self.table();
        loop {
            if table.routes.types.contains_key(agent_type) {
                return Ok(table);
            }
            if table.routes.ready {
                return Err(unknown_type(agent_type));
            }
            table = self.newer_table(&table, false, until).await.ok_or_else(not_ready)?;
        }
    }
}

fn ready_wait_end() -> Instant {
    Instant::now() + Duration::from_millis(READY_WAIT_MS_MAX)
}

fn check_method(agent_type: &TypeInfo, method: &str) -> Result<(), GridError> {
    if agent_type.methods.contains_key(method) { Ok(()) } else { Err(unknown_method(agent_type, method)) }
}

/// The error for a method that the type does not have.
pub fn unknown_method(agent_type: &TypeInfo, method: &str) -> GridError {
    let shown = method.chars().take(80).collect::<String>().escape_debug().to_string();
    let known = agent_type.methods.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    GridError::new(
        Reason::UnknownMethod,
        format!("{} has no method '{shown}'; it has {known}", agent_type.name),
    )
    .with("resource_type", "method")
    .with("resource_name", format!("{}/{shown}", agent_type.name))
}

/// The error for a type that no node offers.
pub fn unknown_type(agent_type: &str) -> GridError {
    let shown = agent_type.chars().take(255).collect::<String>().escape_debug().to_string();
    GridError::new(
        Reason::UnknownType,
        format!("no region node offers the agent type '{shown}'; is a node with it running and registered?"),
    )
    .with("resource_type", "agent type")
    .with("resource_name", shown)
}

fn not_ready() -> GridError {
    GridError::new(
        Reason::NotReady,
        "the routing table has not been received from the catalog yet; try again shortly",
    )
    .retry_after_ms(NOT_READY_RETRY_AFTER_MS)
}

/// The error for a request past the limit.
pub fn too_large(bytes: usize) -> GridError {
    GridError::new(
        Reason::MessageTooLarge,
        format!("the request has {bytes} bytes; at most {MESSAGE_BYTES_MAX} are allowed"),
    )
    .with("bytes", bytes)
    .with("bytes_max", MESSAGE_BYTES_MAX)
}
