//! Finding the catalog's leader, and asking it.

use afdg_proto::{
    peer_auth::{PeerToken, ShowToken},
    status::to_call_error,
};
use afdg_runtime::{Net, channel_to};
use afdg_types::{CallError, GridError, Reason, Retry};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Response, Status, service::interceptor::InterceptedService, transport::Channel};

/// One connection attempt.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Pause before a further attempt: doubles from the least to the most.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// After which it is logged that a request still waits.
const TOLD_AFTER: Duration = Duration::from_secs(4);
/// Hints to the leader that are followed without a pause; past it, servers disagree and need time.
const REDIRECTS_MAX: u32 = 3;
/// Metadata of a `NOT_LEADER` error.
const LEADER_ADDRESS: &str = "leader_address";
/// Metadata of an admin action that was recorded and then failed: asking again would be another action.
const AUDIT_INDEX: &str = "audit_index";

/// Asks the catalog. Cheap to clone; clones share connections and what is known of the leader.
#[derive(Clone)]
pub struct CatalogClient {
    inner: Arc<Inner>,
}

struct Inner {
    net: Arc<dyn Net>,
    token: PeerToken,
    addresses: Vec<String>,
    known: Mutex<Known>,
}

struct Known {
    /// Of every configured address, and of one that a server has named as the leader's.
    channels: BTreeMap<String, Channel>,
    leader: Option<String>,
    /// Place in `addresses` of the server to try while no leader is known.
    next: usize,
}

/// A channel that shows the peer token.
pub(crate) type PeerChannel = InterceptedService<Channel, ShowToken>;

/// The addresses given can't be those of catalog servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the catalog's addresses are wrong: {0}")]
pub struct InvalidAddresses(String);

/// Whether a request whose outcome is not known may be made again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice is as good as once.
    Always,
    /// Only when it certainly had no effect.
    Unapplied,
}

impl CatalogClient {
    /// `addresses` (`host:port`) are the catalog's servers: all of them, or at least one that is up.
    pub fn new(
        net: Arc<dyn Net>,
        addresses: Vec<String>,
        token: PeerToken,
    ) -> Result<Self, InvalidAddresses> {
        if addresses.is_empty() {
            return Err(InvalidAddresses("no catalog server is given".to_owned()));
        }
        let channels: Result<BTreeMap<_, _>, _> = addresses
            .iter()
            .map(|address| match channel_to(&net, address, CONNECT_LIMIT) {
                Ok(channel) => Ok((address.clone(), channel)),
                Err(error) => Err(InvalidAddresses(error.to_string())),
            })
            .collect();
        let known = Mutex::new(Known { channels: channels?, leader: None, next: 0 });
        Ok(Self { inner: Arc::new(Inner { net, token, addresses, known }) })
    }

    /// The configured address at `place`, counted around, with its channel.
    pub(crate) fn server(&self, place: usize) -> Option<(String, PeerChannel)> {
        let address = self.inner.addresses.get(place % self.inner.addresses.len().max(1))?;
        let channel = self.known().channels.get(address)?.clone();
        Some((address.clone(), self.shown(channel)))
    }

    /// Makes one request of the leader, wherever it is, until it is answered or `within` has passed.
    /// `attempt_limit` bounds one attempt.
    pub(crate) async fn ask_leader<T, F, Fut>(
        &self,
        within: Duration,
        attempt_limit: Duration,
        repeat: Repeat,
        ask: F,
    ) -> Result<T, GridError>
    where
        F: Fn(PeerChannel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let began = Instant::now();
        let deadline = began + within;
        let mut pause = PAUSE_MIN;
        let mut redirects = 0;
        let mut told = false;
        loop {
            let (address, channel) = self.pick()?;
            let limit = attempt_limit.min(deadline.saturating_duration_since(Instant::now()));
            let error = match tokio::time::timeout(limit, ask(channel)).await {
                Ok(Ok(response)) => {
                    self.known().leader = Some(address);
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => read_status(&status, &address),
                Err(_) => GridError::new(
                    Reason::OutcomeUnknown,
                    format!("the catalog server {address} has not answered within {} ms", limit.as_millis()),
                ),
            };
            let recorded = error.metadata.contains_key(AUDIT_INDEX);
            let again = match error.retry() {
                _ if recorded && repeat == Repeat::Unapplied => false,
                Retry::Never => false,
                Retry::Same | Retry::Elsewhere => true,
                Retry::Unknown => repeat == Repeat::Always,
            };
            if !again {
                return Err(error);
            }
            if self.look_elsewhere(&error, &address) && redirects < REDIRECTS_MAX {
                redirects += 1;
                continue;
            }
            redirects = 0;
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            // A catalog that has just started elects its leader first.
            if began.elapsed() > TOLD_AFTER && !told {
                told = true;
                tracing::warn!(%error, "the catalog has not done what it was asked; asking on");
            }
        }
    }

    /// The leader as far as it is known, or the next of the configured servers.
    fn pick(&self) -> Result<(String, PeerChannel), GridError> {
        let mut known = self.known();
        let next = self.inner.addresses.get(known.next % self.inner.addresses.len().max(1)).cloned();
        let Some(address) = known.leader.clone().or(next) else {
            return Err(GridError::new(Reason::Internal, "no catalog server is configured"));
        };
        if let Some(channel) = known.channels.get(&address) {
            return Ok((address, self.shown(channel.clone())));
        }
        // Named by a server. Only one such is kept, so that wrong names can't pile up.
        let channel = match channel_to(&self.inner.net, &address, CONNECT_LIMIT) {
            Ok(channel) => channel,
            Err(error) => {
                known.leader = None;
                return Err(GridError::new(
                    Reason::NoLeader,
                    format!("the leader's address is wrong: {error}"),
                ));
            }
        };
        known.channels.retain(|address, _| self.inner.addresses.contains(address));
        known.channels.insert(address.clone(), channel.clone());
        Ok((address, self.shown(channel)))
    }

    /// Decides whom to ask next after `address` has failed; true if it has named the leader.
    fn look_elsewhere(&self, error: &GridError, address: &str) -> bool {
        let mut known = self.known();
        if error.reason == Reason::NotReady {
            // The leader itself says so.
            return false;
        }
        let named = error.metadata.get(LEADER_ADDRESS).filter(|named| !named.is_empty() && *named != address);
        known.leader = named.cloned();
        if let Some(place) = self.inner.addresses.iter().position(|a| a == address) {
            known.next = place + 1;
        }
        named.is_some()
    }

    fn shown(&self, channel: Channel) -> PeerChannel {
        InterceptedService::new(channel, ShowToken(self.inner.token.clone()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is held, and what it holds is only a memory of where to ask.
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a failed attempt means: a connection that was never made had no effect.
fn read_status(status: &Status, address: &str) -> GridError {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            let message = format!("no connection to the catalog server {address}: {error}");
            return GridError::new(Reason::Unreachable, message);
        }
        source = error.source();
    }
    match to_call_error(status) {
        CallError::Grid(error) => error,
        CallError::Agent(error) => GridError::new(Reason::Internal, error.message),
    }
}
