//! One connection: two directions with bytes on their way.

use super::{Arrival, ConnectionId, HostId, Network, Shared};
use crate::clock::HostClock;
use bytes::{Buf, Bytes};
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one side may have sent that the other has not read: the windows of both.
const WINDOW_BYTES: usize = 1 << 20;

/// Towards side `to` of a connection; the connecting side is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    pub connection: ConnectionId,
    pub to: usize,
}

pub struct ConnectionState {
    pub hosts: [HostId; 2],
    /// Where it was connected to.
    pub address: String,
    pub connected: Option<Result<(), io::ErrorKind>>,
    pub connect_waker: Option<Waker>,
    /// By the side that they lead to.
    pub halves: [Half; 2],
    /// Whether a process holds the side's stream.
    pub open: [bool; 2],
    /// Whether the side died without a word.
    pub silent: [bool; 2],
}

#[derive(Default)]
pub struct Half {
    pub received: VecDeque<Bytes>,
    /// Sent and not read.
    pub unread_bytes: usize,
    pub finished: bool,
    pub reset: bool,
    pub read_waker: Option<Waker>,
    pub write_waker: Option<Waker>,
    pub last_arrival_ns: u64,
    /// What waits for a cut link to heal.
    pub held: VecDeque<Arrival>,
}

impl ConnectionState {
    pub fn new(from: HostId, to: HostId, address: String) -> Self {
        Self {
            hosts: [from, to],
            address,
            connected: None,
            connect_waker: None,
            halves: Default::default(),
            open: [true, false],
            silent: [false, false],
        }
    }
}

impl Shared {
    pub(super) fn arrive(&mut self, arrival: Arrival, now_ns: u64, wakers: &mut Vec<Waker>) {
        let direction = match &arrival {
            Arrival::Connect(connection) => Direction { connection: *connection, to: 1 },
            Arrival::Connected(connection, _) => Direction { connection: *connection, to: 0 },
            Arrival::Segment(direction, _)
            | Arrival::Finish(direction)
            | Arrival::Resume(direction)
            | Arrival::Reset(direction) => *direction,
        };
        let Some(connection) = self.connections.get_mut(&direction.connection) else { return };
        let (from, to) = (connection.hosts[1 - direction.to], connection.hosts[direction.to]);
        let half = &mut connection.halves[direction.to];
        let is_cut = self.links.is_cut(from, to);
        match arrival {
            Arrival::Resume(_) if is_cut => {}
            Arrival::Resume(_) => {
                for held in std::mem::take(&mut half.held) {
                    self.take_in(direction, held, now_ns, wakers);
                }
            }
            arrival if is_cut || !half.held.is_empty() => half.held.push_back(arrival),
            arrival => self.take_in(direction, arrival, now_ns, wakers),
        }
    }

    fn take_in(&mut self, direction: Direction, arrival: Arrival, now_ns: u64, wakers: &mut Vec<Waker>) {
        let Some(connection) = self.connections.get_mut(&direction.connection) else { return };
        let half = &mut connection.halves[direction.to];
        match arrival {
            Arrival::Resume(_) => {}
            Arrival::Connect(id) => self.connect_arrives(id, now_ns, wakers),
            Arrival::Connected(_, result) => {
                connection.connected = Some(result);
                wakers.extend(connection.connect_waker.take());
            }
            Arrival::Segment(_, bytes) if connection.open[direction.to] => {
                half.received.push_back(bytes);
                wakers.extend(half.read_waker.take());
            }
            Arrival::Segment(..) => self.unwanted(direction, now_ns),
            Arrival::Finish(_) => {
                half.finished = true;
                wakers.extend(half.read_waker.take());
                self.forget_if_closed(direction.connection);
            }
            Arrival::Reset(_) => {
                for half in &mut connection.halves {
                    half.reset = true;
                    wakers.extend(half.read_waker.take());
                    wakers.extend(half.write_waker.take());
                }
                if connection.connected.is_none() {
                    connection.connected = Some(Err(io::ErrorKind::ConnectionReset));
                    wakers.extend(connection.connect_waker.take());
                }
                self.forget_if_closed(direction.connection);
            }
        }
    }

    fn connect_arrives(&mut self, id: ConnectionId, now_ns: u64, wakers: &mut Vec<Waker>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let host = connection.hosts[1];
        let result = match self.listeners.get_mut(&connection.address) {
            Some(listener) if listener.host == host => {
                connection.open[1] = true;
                listener.accepted.push_back(id);
                wakers.extend(listener.waker.take());
                Ok(())
            }
            _ if self.hosts[host].up => Err(io::ErrorKind::ConnectionRefused),
            // Nobody is there to refuse: the connecting side waits for its own limit.
            _ => return,
        };
        self.send(Direction { connection: id, to: 0 }, Arrival::Connected(id, result), now_ns);
    }

    /// Bytes for a stream that nobody holds: its host resets it, if it is up.
    fn unwanted(&mut self, direction: Direction, now_ns: u64) {
        let Some(connection) = self.connections.get(&direction.connection) else { return };
        if self.hosts[connection.hosts[direction.to]].up {
            let back = Direction { to: 1 - direction.to, ..direction };
            self.send(back, Arrival::Reset(back), now_ns);
        }
    }

    /// A side lets go of its stream; `told` if the other side hears of it.
    pub(super) fn close_side(&mut self, id: ConnectionId, side: usize, now_ns: u64, told: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !std::mem::replace(&mut connection.open[side], false) {
            return;
        }
        connection.silent[side] = !told;
        // What the other side sends now is for nobody.
        connection.halves[side].received.clear();
        let unread = connection.halves[side].unread_bytes > 0;
        let other = Direction { connection: id, to: 1 - side };
        if told {
            // As TCP does: closing with unread bytes resets.
            let arrival = if unread { Arrival::Reset(other) } else { Arrival::Finish(other) };
            self.send(other, arrival, now_ns);
        }
        self.forget_if_closed(id);
    }

    fn forget_if_closed(&mut self, id: ConnectionId) {
        let closed = self.connections.get(&id).is_some_and(|connection| {
            let done = |side: usize| {
                let half = &connection.halves[1 - side];
                !connection.open[side] && (half.finished || half.reset || connection.silent[side])
            };
            done(0) && done(1)
        });
        if closed {
            self.connections.remove(&id);
        }
    }
}

/// One side's stream.
pub struct SimStream {
    network: Network,
    connection: ConnectionId,
    side: usize,
    clock: HostClock,
}

impl SimStream {
    pub fn new(network: Network, connection: ConnectionId, side: usize, clock: HostClock) -> Self {
        Self { network, connection, side, clock }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.network.lock().close_side(self.connection, self.side, self.clock.now_ns(), true);
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.network.lock();
        let Some(connection) = shared.connections.get_mut(&self.connection) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let half = &mut connection.halves[self.side];
        if half.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let before = buffer.filled().len();
        while let Some(first) = half.received.front_mut() {
            let taken = first.len().min(buffer.remaining());
            if taken == 0 {
                break;
            }
            buffer.put_slice(&first[..taken]);
            first.advance(taken);
            if first.is_empty() {
                half.received.pop_front();
            }
        }
        let read = buffer.filled().len() - before;
        if read > 0 {
            half.unread_bytes -= read;
            if let Some(waker) = half.write_waker.take() {
                waker.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if half.finished {
            return Poll::Ready(Ok(()));
        }
        half.read_waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let now = self.clock.now_ns();
        let direction = Direction { connection: self.connection, to: 1 - self.side };
        let mut shared = self.network.lock();
        let Some(connection) = shared.connections.get_mut(&self.connection) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let half = &mut connection.halves[direction.to];
        if half.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(half.unread_bytes);
        if room == 0 {
            half.write_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = room.min(bytes.len());
        half.unread_bytes += taken;
        shared.send(direction, Arrival::Segment(direction, Bytes::copy_from_slice(&bytes[..taken])), now);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = self.clock.now_ns();
        let direction = Direction { connection: self.connection, to: 1 - self.side };
        self.network.lock().send(direction, Arrival::Finish(direction), now);
        Poll::Ready(Ok(()))
    }
}
