//! The connections of an endpoint: who gets a packet, who is due, who has something to send.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng as _;
use tokio::sync::mpsc;

use super::{EndpointStats, MAX_CONNECTIONS, MAX_HALF_OPEN};
use crate::event::Event;
use crate::net::{Net, Rng};
use crate::utp::{Config, Connection, Kind, Packet, Seq};

/// At most so many RESETs are sent for strangers' packets in [`RESET_PERIOD`].
const MAX_RESETS: usize = 100;

/// How long a stranger's connection is remembered after a RESET: within it there is no second one.
const RESET_PERIOD: Duration = Duration::from_secs(1);

/// How often a free connection id is drawn before the peer counts as having too many connections.
const ID_DRAWS: usize = 64;

/// Names a connection for as long as the endpoint lives.
pub(super) type ConnectionId = u64;

#[derive(Debug)]
pub(super) struct State {
    pub(super) rng: Rng,
    /// The zero of timestamps.
    pub(super) epoch: Instant,
    connections: BTreeMap<ConnectionId, Entry>,
    /// By the peer's address and the id in its packets.
    by_peer: BTreeMap<(SocketAddr, u16), ConnectionId>,
    next_id: ConnectionId,
    timers: BTreeSet<(Instant, ConnectionId)>,
    /// Connections that may have something to send, each once.
    dirty: VecDeque<ConnectionId>,
    half_open: usize,
    accepted: Option<mpsc::Sender<ConnectionId>>,
    /// Datagrams to send as they are.
    pub(super) datagrams: VecDeque<(SocketAddr, Bytes)>,
    /// RESETs to send.
    pub(super) resets: VecDeque<(SocketAddr, Packet<'static>)>,
    /// Whom a RESET was sent for, and when.
    recent_resets: VecDeque<(Instant, SocketAddr, u16)>,
    pub(super) stats: EndpointStats,
    /// No handle is left: the driver ends with the last connection.
    pub(super) closing: bool,
    /// The driver has ended.
    pub(super) ended: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) peer: SocketAddr,
    pub(super) connection: Connection,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    timer: Option<Instant>,
    dirty: bool,
    half_open: bool,
    /// `UtpConnected` was reported.
    reported: bool,
    /// A stream holds it, or it waits to be accepted: it stays when it is closed, for its error to be read.
    pub(super) held: bool,
}

impl State {
    pub(super) fn new(rng: Rng, epoch: Instant, accepted: mpsc::Sender<ConnectionId>) -> Self {
        Self {
            rng,
            epoch,
            connections: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            next_id: 0,
            timers: BTreeSet::new(),
            dirty: VecDeque::new(),
            half_open: 0,
            accepted: Some(accepted),
            datagrams: VecDeque::new(),
            resets: VecDeque::new(),
            recent_resets: VecDeque::new(),
            stats: EndpointStats::default(),
            closing: false,
            ended: false,
        }
    }

    /// A receive id that no connection with this peer has.
    pub(super) fn free_id(&mut self, peer: SocketAddr) -> io::Result<u16> {
        if self.closing || self.ended {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the endpoint is closed"));
        }
        let draws = if self.connections.len() < MAX_CONNECTIONS { ID_DRAWS } else { 0 };
        for _ in 0..draws {
            let id = self.rng.next_u32() as u16;
            if !self.by_peer.contains_key(&(peer, id)) {
                return Ok(id);
            }
        }
        Err(io::Error::other("ERR_TOO_MANY_CONNECTIONS: close some before opening more"))
    }

    /// Takes a connection in; it is held by the caller.
    pub(super) fn insert(&mut self, peer: SocketAddr, connection: Connection) -> ConnectionId {
        let id = self.next_id;
        self.next_id += 1;
        let half_open = !connection.is_initiator();
        self.half_open += usize::from(half_open);
        self.by_peer.insert((peer, connection.receive_id()), id);
        let held = connection.is_initiator();
        let entry = Entry {
            peer,
            connection,
            reader: None,
            writer: None,
            timer: None,
            dirty: false,
            half_open,
            reported: false,
            held,
        };
        self.connections.insert(id, entry);
        self.stats.connections = self.connections.len();
        self.touch(id);
        id
    }

    pub(super) fn peer(&self, id: ConnectionId) -> Option<SocketAddr> {
        self.connections.get(&id).map(|entry| entry.peer)
    }

    pub(super) fn entry(&mut self, id: ConnectionId) -> Option<&mut Entry> {
        self.connections.get_mut(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Takes a packet from the socket.
    pub(super) fn on_packet(&mut self, net: &Net, config: &Config, now: Instant, from: SocketAddr, packet: &Packet<'_>) {
        // A SYN carries the initiator's id; this side's is the next.
        let id = if packet.kind == Kind::Syn { packet.id.wrapping_add(1) } else { packet.id };
        let known = self.by_peer.get(&(from, id)).copied();
        match (known, packet.kind) {
            (Some(known), Kind::Syn) if self.is_superseded(known, now) => {
                self.abort(known);
                self.settle(net, known, now);
                self.forget(known);
                self.on_syn(config, now, from, packet);
            }
            (Some(known), _) => self.hand_over(net, known, now, packet),
            (None, Kind::Syn) => self.on_syn(config, now, from, packet),
            (None, Kind::Reset) => {
                if let Some(known) = self.by_send_id(from, packet.id) {
                    self.hand_over(net, known, now, packet);
                }
            }
            (None, _) => self.refuse(now, from, packet),
        }
    }

    fn hand_over(&mut self, net: &Net, id: ConnectionId, now: Instant, packet: &Packet<'_>) {
        if let Some(entry) = self.connections.get_mut(&id) {
            entry.connection.handle_packet(now, packet);
            self.settle(net, id, now);
        }
    }

    fn is_superseded(&self, id: ConnectionId, now: Instant) -> bool {
        self.connections.get(&id).is_some_and(|entry| entry.connection.is_superseded(now))
    }

    /// libutp's RESET carries the id of the packet that it answers: this side's send id.
    fn by_send_id(&self, from: SocketAddr, send_id: u16) -> Option<ConnectionId> {
        [send_id.wrapping_sub(1), send_id.wrapping_add(1)]
            .into_iter()
            .filter_map(|id| self.by_peer.get(&(from, id)).copied())
            .find(|id| self.connections.get(id).is_some_and(|entry| entry.connection.send_id() == send_id))
    }

    fn on_syn(&mut self, config: &Config, now: Instant, from: SocketAddr, syn: &Packet<'_>) {
        let full = self.half_open >= MAX_HALF_OPEN || self.connections.len() >= MAX_CONNECTIONS;
        if full || self.closing {
            self.stats.syns_ignored += 1;
            return;
        }
        let seq = Seq(self.rng.next_u32() as u16);
        if let Some(connection) = Connection::accept(now, config.clone(), syn, seq, self.epoch) {
            self.insert(from, connection);
        }
    }

    /// Answers a packet of no connection, once a second for each, and a limited number of times for all.
    fn refuse(&mut self, now: Instant, from: SocketAddr, packet: &Packet<'_>) {
        while self.recent_resets.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) >= RESET_PERIOD) {
            self.recent_resets.pop_front();
        }
        let known = self.recent_resets.iter().any(|(_, address, id)| (*address, *id) == (from, packet.id));
        if !known && self.recent_resets.len() < MAX_RESETS {
            self.recent_resets.push_back((now, from, packet.id));
            let reset = packet.reset(Seq(self.rng.next_u32() as u16));
            self.resets.push_back((from, reset));
            self.stats.resets_sent += 1;
        }
    }

    /// Handles every timer that is due.
    pub(super) fn on_timers(&mut self, net: &Net, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(entry) = self.connections.get_mut(&id) {
                entry.timer = None;
                entry.connection.handle_timeout(now);
                self.settle(net, id, now);
            }
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Marks a connection as having something to send, and to be settled by the driver.
    pub(super) fn touch(&mut self, id: ConnectionId) {
        if let Some(entry) = self.connections.get_mut(&id)
            && !entry.dirty
        {
            entry.dirty = true;
            self.dirty.push_back(id);
        }
    }

    /// The next connection that may have something to send.
    pub(super) fn next_dirty(&mut self) -> Option<ConnectionId> {
        let id = self.dirty.pop_front()?;
        if let Some(entry) = self.connections.get_mut(&id) {
            entry.dirty = false;
        }
        Some(id)
    }

    /// After a connection was given something: wakes whom it concerns, reports, and sets its timer.
    pub(super) fn settle(&mut self, net: &Net, id: ConnectionId, now: Instant) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        let connection = &entry.connection;
        let closed = connection.is_closed();
        if connection.is_connected() && !entry.reported {
            entry.reported = true;
            net.emit(Event::UtpConnected { peer: entry.peer, initiator: connection.is_initiator() });
            if entry.half_open {
                entry.half_open = false;
                self.half_open -= 1;
                entry.held = self.accepted.as_ref().is_some_and(|accepted| accepted.try_send(id).is_ok());
                if !entry.held {
                    entry.connection.abort();
                }
            }
        }
        let connection = &entry.connection;
        if connection.readable() > 0 || connection.is_at_end() || closed || connection.is_connected() {
            entry.reader.take().inspect(Waker::wake_by_ref);
        }
        if connection.writable() > 0 || connection.is_finished() || closed {
            entry.writer.take().inspect(Waker::wake_by_ref);
        }
        self.set_timer(id, now);
        self.touch(id);
    }

    /// Sets a connection's timer anew.
    pub(super) fn set_timer(&mut self, id: ConnectionId, now: Instant) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        let next = entry.connection.next_timeout().map(|at| at.max(now));
        if next != entry.timer {
            if let Some(old) = entry.timer {
                self.timers.remove(&(old, id));
            }
            self.timers.extend(next.map(|at| (at, id)));
            entry.timer = next;
        }
    }

    /// Removes a connection that is over, once nobody asks for it any more. It is reported when it is over.
    pub(super) fn reap(&mut self, net: &Net, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        if !entry.connection.is_closed() {
            return;
        }
        if entry.reported {
            entry.reported = false;
            let reason = entry.connection.error().map_or_else(|| "closed".to_owned(), |error| error.to_string());
            net.emit(Event::UtpClosed { peer: entry.peer, reason });
        }
        if entry.held {
            let key = (entry.peer, entry.connection.receive_id());
            if self.by_peer.get(&key) == Some(&id) {
                self.by_peer.remove(&key);
            }
        } else {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(entry) = self.connections.remove(&id) else { return };
        let key = (entry.peer, entry.connection.receive_id());
        if self.by_peer.get(&key) == Some(&id) {
            self.by_peer.remove(&key);
        }
        self.half_open -= usize::from(entry.half_open);
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, id));
        }
        self.stats.connections = self.connections.len();
    }

    /// The stream is gone: what it wrote is delivered in the background.
    pub(super) fn abandon(&mut self, id: ConnectionId, now: Instant) {
        if let Some(entry) = self.connections.get_mut(&id) {
            entry.held = false;
            entry.connection.abandon(now);
            // What is still to be reported, the driver reports.
            if entry.connection.is_closed() && !entry.reported {
                self.forget(id);
            } else {
                self.touch(id);
            }
        }
    }

    pub(super) fn abort(&mut self, id: ConnectionId) {
        if let Some(entry) = self.connections.get_mut(&id) {
            entry.connection.abort();
            self.touch(id);
        }
    }

    /// No new connections; the present ones end in order.
    pub(super) fn begin_close(&mut self, now: Instant) {
        self.closing = true;
        self.accepted = None;
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            self.abandon(id, now);
        }
    }

    pub(super) fn abort_all(&mut self) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            self.abort(id);
        }
    }
}
