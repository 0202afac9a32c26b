//! The TCP of one host's life: its connections and listeners.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};

use super::{Connection, Read, Segment, Write};
use crate::engine::address::{overlap, takes};
use crate::engine::hop::Rule;
use crate::engine::host::EphemeralPorts;

/// Connections that wait to be accepted, those in their handshake included; a SYN beyond is ignored.
const BACKLOG: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListenerId(u64);

/// Every connection and listener of a host's life.
#[derive(Debug)]
pub(crate) struct Stack {
    connections: BTreeMap<ConnectionId, Entry>,
    by_endpoints: BTreeMap<(SocketAddr, SocketAddr), ConnectionId>,
    listeners: BTreeMap<ListenerId, Listener>,
    ports: EphemeralPorts,
    next_id: u64,
    /// What the calls since the last [`drain`](Self::drain) brought about.
    effects: Effects,
}

/// What is to be done outside: in this order, each in order.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// To send, with source and destination.
    pub(crate) segments: Vec<(SocketAddr, SocketAddr, Segment)>,
    /// To call [`Stack::on_timer`] for, and when.
    pub(crate) timers: Vec<(u64, ConnectionId)>,
    /// To wake.
    pub(crate) wakers: Vec<Waker>,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The listener that made it, until it is accepted.
    listener: Option<ListenerId>,
    /// The earliest timer that was asked for and has not come.
    scheduled_ns: Option<u64>,
}

#[derive(Debug)]
struct Listener {
    local: SocketAddr,
    ready: VecDeque<ConnectionId>,
    waiting: usize,
    waker: Option<Waker>,
}

impl Stack {
    pub(crate) fn new(ports: EphemeralPorts) -> Self {
        Self {
            connections: BTreeMap::new(),
            by_endpoints: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ports,
            next_id: 0,
            effects: Effects::default(),
        }
    }

    /// How many listeners and connections are held by a program or wait to be accepted.
    pub(crate) fn sockets(&self) -> usize {
        self.connections.values().filter(|entry| entry.connection.is_held()).count() + self.listeners.len()
    }

    /// What is to be done now.
    pub(crate) fn drain(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Starts to listen; `local` may be unspecified, and its port 0.
    pub(crate) fn listen(&mut self, mut local: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        if local.port() == 0 {
            local.set_port(self.free_port()?);
        }
        let overlaps = |other: &Listener| other.local.port() == local.port() && overlap(other.local.ip(), local.ip());
        if self.listeners.values().any(overlaps) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let id = ListenerId(self.take_id());
        self.listeners.insert(id, Listener { local, ready: VecDeque::new(), waiting: 0, waker: None });
        Ok((id, local))
    }

    /// Starts to connect from `ip`; `first` is the initial sequence number.
    pub(crate) fn connect(
        &mut self,
        now_ns: u64,
        ip: IpAddr,
        remote: SocketAddr,
        first: u32,
    ) -> io::Result<ConnectionId> {
        let local = SocketAddr::new(ip, self.free_port()?);
        let id = self.insert(Connection::connect(local, remote, first), None);
        self.flush(now_ns, id);
        Ok(id)
    }

    /// Takes a segment from the network. An error tells that nobody was there for it; the peer gets a reset.
    pub(crate) fn on_segment(
        &mut self,
        now_ns: u64,
        remote: SocketAddr,
        local: SocketAddr,
        segment: &Segment,
        first: impl FnOnce() -> u32,
    ) -> Result<(), Rule> {
        if let Some(&id) = self.by_endpoints.get(&(local, remote)) {
            let entry = self.connections.get_mut(&id).expect("the index names connections that exist");
            entry.connection.on_segment(now_ns, segment);
            self.flush(now_ns, id);
            return Ok(());
        }
        let opens = segment.syn && segment.ack.is_none() && !segment.reset;
        let serves =
            |listener: &Listener| listener.local.port() == local.port() && takes(listener.local.ip(), local.ip());
        let listener = self.listeners.iter_mut().find(|(_, listener)| opens && serves(listener));
        if let Some((&listener_id, listener)) = listener {
            if listener.waiting >= BACKLOG {
                return Err(Rule::BacklogFull(BACKLOG));
            }
            listener.waiting += 1;
            let id = self.insert(Connection::accept(local, remote, first(), segment), Some(listener_id));
            self.flush(now_ns, id);
            return Ok(());
        }
        if !segment.reset {
            // RFC 9293, 3.10.7.1.
            let (seq, ack) = match segment.ack {
                Some(ack) => (ack, None),
                None => (0, Some(segment.seq + segment.length())),
            };
            self.effects.segments.push((local, remote, Segment { reset: true, seq, ack, ..Segment::default() }));
        }
        Err(Rule::NoSocket(local.port()))
    }

    pub(crate) fn on_timer(&mut self, now_ns: u64, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        if entry.scheduled_ns.is_some_and(|at| at <= now_ns) {
            entry.scheduled_ns = None;
        }
        entry.connection.on_timer(now_ns);
        self.flush(now_ns, id);
    }

    /// Whether the handshake is over.
    pub(crate) fn poll_connected(&mut self, id: ConnectionId, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let entry = self.entry(id);
        match entry.connection.connected() {
            Some(result) => Poll::Ready(result.map_err(io::Error::from)),
            None => {
                entry.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(crate) fn poll_accept(
        &mut self,
        listener: ListenerId,
        cx: &Context<'_>,
    ) -> Poll<io::Result<(ConnectionId, SocketAddr)>> {
        let Some(listener) = self.listeners.get_mut(&listener) else {
            return Poll::Ready(Err(ErrorKind::NotConnected.into()));
        };
        let Some(id) = listener.ready.pop_front() else {
            listener.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        listener.waiting -= 1;
        let entry = self.entry(id);
        entry.listener = None;
        Poll::Ready(Ok((id, entry.connection.remote)))
    }

    pub(crate) fn poll_read(
        &mut self,
        now_ns: u64,
        id: ConnectionId,
        cx: &Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let entry = self.entry(id);
        let result = match entry.connection.read(buffer) {
            Read::Bytes(count) => Poll::Ready(Ok(count)),
            Read::End => Poll::Ready(Ok(0)),
            Read::Failed(error) => Poll::Ready(Err(error.into())),
            Read::Wait => {
                entry.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        };
        self.transmit(now_ns, id);
        result
    }

    pub(crate) fn poll_write(
        &mut self,
        now_ns: u64,
        id: ConnectionId,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let entry = self.entry(id);
        let result = match entry.connection.write(bytes) {
            Write::Bytes(count) => Poll::Ready(Ok(count)),
            Write::Failed(error) => Poll::Ready(Err(error.into())),
            Write::Wait => {
                entry.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
        };
        self.transmit(now_ns, id);
        result
    }

    pub(crate) fn shutdown(&mut self, now_ns: u64, id: ConnectionId) {
        self.entry(id).connection.shutdown();
        self.transmit(now_ns, id);
    }

    /// The stream was dropped.
    pub(crate) fn release(&mut self, now_ns: u64, id: ConnectionId) {
        let connection = &mut self.entry(id).connection;
        let (local, remote) = (connection.local, connection.remote);
        if let Some(reset) = connection.release(now_ns) {
            self.effects.segments.push((local, remote, reset));
        }
        self.flush(now_ns, id);
    }

    /// Stops listening; connections that were not accepted are reset.
    pub(crate) fn close_listener(&mut self, id: ListenerId) {
        self.listeners.remove(&id);
        let orphans: Vec<_> =
            self.connections.iter().filter(|(_, entry)| entry.listener == Some(id)).map(|(id, _)| *id).collect();
        for orphan in orphans {
            let connection = &mut self.entry(orphan).connection;
            let (local, remote) = (connection.local, connection.remote);
            let reset = connection.abort();
            self.effects.segments.push((local, remote, reset));
            self.remove(orphan);
        }
    }

    fn insert(&mut self, connection: Connection, listener: Option<ListenerId>) -> ConnectionId {
        let id = ConnectionId(self.take_id());
        self.by_endpoints.insert((connection.local, connection.remote), id);
        self.connections.insert(id, Entry { connection, reader: None, writer: None, listener, scheduled_ns: None });
        id
    }

    fn entry(&mut self, id: ConnectionId) -> &mut Entry {
        self.connections.get_mut(&id).expect("a connection lives as long as its stream")
    }

    fn remove(&mut self, id: ConnectionId) {
        if let Some(entry) = self.connections.remove(&id) {
            self.by_endpoints.remove(&(entry.connection.local, entry.connection.remote));
        }
    }

    /// After the network or time changed a connection: tells whoever waits for it, and sends.
    fn flush(&mut self, now_ns: u64, id: ConnectionId) {
        self.transmit(now_ns, id);
        let Some(entry) = self.connections.get_mut(&id) else { return };
        self.effects.wakers.extend(entry.reader.take().into_iter().chain(entry.writer.take()));
        let connected = entry.connection.connected();
        if let (Some(listener), Some(result)) = (entry.listener, connected)
            && let Some(listener) = self.listeners.get_mut(&listener)
        {
            match result {
                Ok(()) if !listener.ready.contains(&id) => {
                    listener.ready.push_back(id);
                    self.effects.wakers.extend(listener.waker.take());
                }
                Ok(()) => {}
                Err(_) => {
                    listener.waiting -= 1;
                    listener.ready.retain(|ready| *ready != id);
                    self.remove(id);
                    return;
                }
            }
        }
        if self.entry(id).connection.is_over() {
            self.remove(id);
        }
    }

    fn transmit(&mut self, now_ns: u64, id: ConnectionId) {
        let entry = self.connections.get_mut(&id).expect("callers hold an id that exists");
        let connection = &mut entry.connection;
        while let Some(segment) = connection.poll_transmit(now_ns) {
            self.effects.segments.push((connection.local, connection.remote, segment));
        }
        if let Some(due) = connection.timer_ns()
            && entry.scheduled_ns.is_none_or(|scheduled| due < scheduled)
        {
            entry.scheduled_ns = Some(due);
            self.effects.timers.push((due, id));
        }
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn free_port(&mut self) -> io::Result<u16> {
        let (connections, listeners) = (&self.by_endpoints, &self.listeners);
        let taken = |port| {
            connections.keys().any(|(local, _)| local.port() == port)
                || listeners.values().any(|listener| listener.local.port() == port)
        };
        self.ports.next_free(taken).ok_or_else(|| ErrorKind::AddrInUse.into())
    }
}
