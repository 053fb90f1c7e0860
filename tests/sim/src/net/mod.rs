//! A simulated network: streams like TCP's between hosts that have an address each.
//!
//! Bytes arrive after the latency of their link, in order within a stream and in any order between
//! streams. A lost segment arrives late, as TCP sends it again; behind a cut link everything waits until
//! the link heals, or until one side gives up. A process that dies resets its streams; a machine that dies
//! says nothing, and resets when it is asked again after its start.
//!
//! Nothing arrives sooner than [`LATENCY_NS_MIN`] after it was sent: so hosts can be run one after the
//! other for that long without hearing of each other.

mod links;
mod stream;
#[cfg(test)]
mod tests;

use crate::clock::HostClock;
use afdg_runtime::{BoxIo, Listener, Net};
use async_trait::async_trait;
use bytes::Bytes;
use links::Links;
use rand::{SeedableRng, rngs::StdRng};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};
use stream::{ConnectionState, Direction, SimStream};

pub use links::{LATENCY_NS_MIN, Weather};

/// A host's number.
pub type HostId = usize;

type ConnectionId = u64;

/// All hosts' network. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    links: Links,
    chance: StdRng,
    hosts: Vec<HostState>,
    listeners: BTreeMap<String, ListenerState>,
    connections: BTreeMap<ConnectionId, ConnectionState>,
    last_connection: ConnectionId,
    last_listener: u64,
    /// By time of arrival, then in the order they were sent.
    arrivals: BinaryHeap<Reverse<(u64, u64)>>,
    in_flight: BTreeMap<(u64, u64), Arrival>,
    sent: u64,
}

struct HostState {
    ip: [u8; 4],
    up: bool,
}

struct ListenerState {
    host: HostId,
    number: u64,
    accepted: VecDeque<ConnectionId>,
    waker: Option<Waker>,
}

enum Arrival {
    /// A request to connect, at the listener.
    Connect(ConnectionId),
    /// The answer to it, at the connecting side.
    Connected(ConnectionId, Result<(), io::ErrorKind>),
    Segment(Direction, Bytes),
    Finish(Direction),
    /// A link has healed: what it held back comes now, before anything that was sent later.
    Resume(Direction),
    Reset(Direction),
}

impl Network {
    pub fn new(seed: u64) -> Self {
        let shared = Shared {
            links: Links::default(),
            chance: StdRng::seed_from_u64(seed),
            hosts: Vec::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            last_connection: 0,
            last_listener: 0,
            arrivals: BinaryHeap::new(),
            in_flight: BTreeMap::new(),
            sent: 0,
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add_host(&self) -> HostId {
        let mut shared = self.lock();
        let id = shared.hosts.len();
        let ip = [10, 0, 0, id as u8 + 1];
        shared.hosts.push(HostState { ip, up: false });
        id
    }

    /// The network as a process on `host` sees it.
    pub fn on(&self, host: HostId, clock: HostClock) -> Arc<dyn Net> {
        self.lock().hosts[host].up = true;
        Arc::new(HostNet { network: self.clone(), host, clock })
    }

    /// All that `host` had open is gone. `silently` as when a machine loses power: nobody is told.
    pub fn host_died(&self, host: HostId, now_ns: u64, silently: bool) {
        let mut shared = self.lock();
        shared.hosts[host].up = false;
        shared.listeners.retain(|_, listener| listener.host != host);
        let open: Vec<ConnectionId> = shared
            .connections
            .iter()
            .filter(|(_, connection)| connection.hosts.contains(&host))
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            for side in 0..2 {
                if shared.connections.get(&id).is_some_and(|connection| connection.hosts[side] == host) {
                    shared.close_side(id, side, now_ns, !silently);
                }
            }
        }
    }

    /// Tears one open stream chosen by chance; both sides see a reset.
    pub fn reset_one(&self, now_ns: u64) {
        use rand::Rng;
        let mut shared = self.lock();
        if shared.connections.is_empty() {
            return;
        }
        let open = shared.connections.len();
        let nth = shared.chance.random_range(0..open);
        let Some(id) = shared.connections.keys().nth(nth).copied() else { return };
        for side in 0..2 {
            let direction = Direction { connection: id, to: side };
            shared.send(direction, Arrival::Reset(direction), now_ns);
        }
    }

    /// Changes how links behave, and sends on what a cut has held back.
    pub fn with_links(&self, now_ns: u64, change: impl FnOnce(&mut Links)) {
        let mut shared = self.lock();
        change(&mut shared.links);
        shared.release(now_ns);
    }

    /// Delivers all that has arrived by `now_ns`.
    pub fn deliver(&self, now_ns: u64) {
        let mut wakers = Vec::new();
        {
            let mut shared = self.lock();
            while let Some(Reverse((at, number))) = shared.arrivals.peek().copied() {
                if at > now_ns {
                    break;
                }
                shared.arrivals.pop();
                if let Some(arrival) = shared.in_flight.remove(&(at, number)) {
                    shared.arrive(arrival, now_ns, &mut wakers);
                }
            }
        }
        // Outside the lock: a waker may run into a task that asks the network.
        wakers.into_iter().for_each(Waker::wake);
    }
}

struct HostNet {
    network: Network,
    host: HostId,
    clock: HostClock,
}

#[async_trait]
impl Net for HostNet {
    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        let mut shared = self.network.lock();
        let text = address.to_string();
        if shared.listeners.contains_key(&text) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        shared.last_listener += 1;
        let number = shared.last_listener;
        let state = ListenerState { host: self.host, number, accepted: VecDeque::new(), waker: None };
        shared.listeners.insert(text, state);
        let network = self.network.clone();
        Ok(Box::new(SimListener { network, address, number, clock: self.clock.clone() }))
    }

    async fn connect(&self, address: &str) -> io::Result<BoxIo> {
        let id = {
            let mut shared = self.network.lock();
            let Some(target) = shared.host_at(address) else {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("nobody has {address}")));
            };
            let now = self.clock.now_ns();
            shared.begin_connect(self.host, target, address.to_owned(), now)
        };
        // Dropped before it is connected, it closes what was begun.
        let stream = SimStream::new(self.network.clone(), id, 0, self.clock.clone());
        std::future::poll_fn(|cx| {
            let mut shared = self.network.lock();
            let Some(connection) = shared.connections.get_mut(&id) else {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
            };
            match connection.connected {
                Some(Ok(())) => Poll::Ready(Ok(())),
                Some(Err(kind)) => Poll::Ready(Err(kind.into())),
                None => {
                    connection.connect_waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await?;
        Ok(BoxIo(Box::new(stream)))
    }
}

struct SimListener {
    network: Network,
    address: SocketAddr,
    number: u64,
    clock: HostClock,
}

#[async_trait]
impl Listener for SimListener {
    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    async fn accept(&mut self) -> io::Result<BoxIo> {
        let id = std::future::poll_fn(|cx| {
            let mut shared = self.network.lock();
            let Some(listener) = shared.listeners.get_mut(&self.address.to_string()) else {
                return Poll::Pending;
            };
            match listener.accepted.pop_front() {
                Some(id) => Poll::Ready(id),
                None => {
                    listener.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        Ok(BoxIo(Box::new(SimStream::new(self.network.clone(), id, 1, self.clock.clone()))))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut shared = self.network.lock();
        let address = self.address.to_string();
        if shared.listeners.get(&address).is_some_and(|listener| listener.number == self.number) {
            let waiting = shared.listeners.remove(&address).map(|listener| listener.accepted);
            let now = self.clock.now_ns();
            for id in waiting.into_iter().flatten() {
                shared.close_side(id, 1, now, true);
            }
        }
    }
}

impl Shared {
    fn host_at(&self, address: &str) -> Option<HostId> {
        let address: SocketAddr = address.parse().ok()?;
        self.hosts.iter().position(|host| std::net::IpAddr::from(host.ip) == address.ip())
    }

    fn begin_connect(&mut self, from: HostId, to: HostId, address: String, now_ns: u64) -> ConnectionId {
        self.last_connection += 1;
        let id = self.last_connection;
        self.connections.insert(id, ConnectionState::new(from, to, address));
        let direction = Direction { connection: id, to: 1 };
        self.send(direction, Arrival::Connect(id), now_ns);
        id
    }

    /// Puts something on its way along a connection's direction.
    fn send(&mut self, direction: Direction, arrival: Arrival, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(&direction.connection) else { return };
        let at = now_ns + self.links.delay(&mut self.chance);
        // In order within a stream.
        let half = &mut connection.halves[direction.to];
        let at = at.max(half.last_arrival_ns);
        half.last_arrival_ns = at;
        self.schedule(at, arrival);
    }

    fn schedule(&mut self, at: u64, arrival: Arrival) {
        self.sent += 1;
        self.arrivals.push(Reverse((at, self.sent)));
        self.in_flight.insert((at, self.sent), arrival);
    }

    /// Sends on what links that are no longer cut have held back.
    fn release(&mut self, now_ns: u64) {
        let mut free = Vec::new();
        for (&id, connection) in &self.connections {
            for to in 0..2 {
                let (from, target) = (connection.hosts[1 - to], connection.hosts[to]);
                if !connection.halves[to].held.is_empty() && !self.links.is_cut(from, target) {
                    let at = now_ns + self.links.delay(&mut self.chance);
                    free.push((at, Direction { connection: id, to }));
                }
            }
        }
        for (at, direction) in free {
            self.schedule(at, Arrival::Resume(direction));
        }
    }
}
