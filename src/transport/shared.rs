//! What the driver, the endpoint's handles and the streams share.
//!
//! Two kinds of locks, never held at once: the endpoint's and a connection's.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use rand::RngExt;
use tokio::sync::{Notify, broadcast};

use super::cookie::Cookies;
use super::{DATAGRAM_BACKLOG, Datagram, EndpointConfig, EndpointError, SAMPLE_INTERVAL, UtpStream};
use crate::event::Event;
use crate::limits::LimitCounts;
use crate::net::{Net, Rng};
use crate::source::{Source, source};
use crate::utp::config::MIN_DATAGRAM;
use crate::utp::{Config, Connection, Seq};

/// How many addresses are remembered whose path seems not to carry full packets; then the oldest is forgotten.
const MAX_NARROW_PATHS: usize = 256;

/// A connection's peer and receive id: what a packet is told by.
pub(super) type Key = (SocketAddr, u16);

/// The clock that connections are given.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(super) struct Shared {
    pub(super) net: Net,
    pub(super) local: SocketAddr,
    pub(super) config: EndpointConfig,
    pub(super) limits: Arc<LimitCounts>,
    pub(super) driver: AtomicWaker,
    pub(super) accepted: Notify,
    pub(super) ended: Notify,
    pub(super) datagrams: broadcast::Sender<Datagram>,
    pub(super) samples: bool,
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    pub(super) connections: BTreeMap<Key, Arc<Conn>>,
    /// Peers' connections whose handshake is not complete, oldest first.
    pub(super) half_open: BTreeMap<u64, Arc<Conn>>,
    /// How many connections peers have opened from each source.
    sources: BTreeMap<Source, usize>,
    pub(super) cookies: Cookies,
    pub(super) backlog: VecDeque<Arc<Conn>>,
    /// Connections that a stream has changed.
    pub(super) changed: Vec<Arc<Conn>>,
    pub(super) outgoing: VecDeque<(SocketAddr, Bytes)>,
    pub(super) dropped_datagrams: u64,
    pub(super) malformed: u64,
    pub(super) narrow_paths: VecDeque<IpAddr>,
    pub(super) rng: Rng,
    next_serial: u64,
    /// [`close`](super::Endpoint::close) was called.
    pub(super) closing: bool,
    /// There is no handle any more.
    pub(super) unheld: bool,
    /// The driver is gone.
    pub(super) ended: bool,
}

/// A connection, as its stream and the driver share it.
pub(super) struct Conn {
    pub(super) peer: SocketAddr,
    /// Distinguishes timers that are due at the same time, in the order of the connections' making.
    pub(super) serial: u64,
    /// Whether the peer has opened it.
    theirs: bool,
    /// Whether it waits to be looked at by the driver already.
    pub(super) queued: AtomicBool,
    state: Mutex<ConnState>,
}

pub(super) struct ConnState {
    pub(super) core: Connection,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) shutter: Option<Waker>,
    /// The stream is gone.
    pub(super) dropped: bool,
    /// The driver's timer.
    pub(super) armed: Option<Instant>,
    /// When the next sample is due.
    pub(super) sample_due: Option<Instant>,
}

impl Shared {
    pub(super) fn new(net: Net, local: SocketAddr, config: EndpointConfig) -> Self {
        let rng = net.rng("utp");
        let inner = Inner {
            connections: BTreeMap::new(),
            half_open: BTreeMap::new(),
            sources: BTreeMap::new(),
            cookies: Cookies::new(now(), &mut net.rng("transport cookies")),
            backlog: VecDeque::new(),
            changed: Vec::new(),
            outgoing: VecDeque::new(),
            dropped_datagrams: 0,
            malformed: 0,
            narrow_paths: VecDeque::new(),
            rng,
            next_serial: 0,
            closing: false,
            unheld: false,
            ended: false,
        };
        let limits = Arc::new(LimitCounts::new(&net));
        Self {
            samples: net.wants_samples(),
            net,
            local,
            config,
            limits,
            driver: AtomicWaker::new(),
            accepted: Notify::new(),
            ended: Notify::new(),
            datagrams: broadcast::Sender::new(DATAGRAM_BACKLOG),
            inner: Mutex::new(inner),
        }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the driver look at a connection.
    pub(super) fn changed(&self, conn: &Arc<Conn>) {
        if !conn.queued.swap(true, Ordering::AcqRel) {
            self.inner().changed.push(conn.clone());
            self.driver.wake();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Inner {
    /// The settings for a connection to `peer`.
    pub(super) fn config_for(&self, peer: SocketAddr, config: &EndpointConfig) -> Config {
        let utp = config.utp.clone();
        if self.narrow_paths.contains(&peer.ip()) { utp.max_datagram(MIN_DATAGRAM) } else { utp }
    }

    /// Notes that full packets seem not to reach `peer`.
    pub(super) fn remember_narrow_path(&mut self, peer: SocketAddr) {
        if !self.narrow_paths.contains(&peer.ip()) {
            self.narrow_paths.push_back(peer.ip());
            if self.narrow_paths.len() > MAX_NARROW_PATHS {
                self.narrow_paths.pop_front();
            }
        }
    }

    pub(super) fn add(&mut self, peer: SocketAddr, core: Connection, queued: bool) -> Arc<Conn> {
        self.next_serial += 1;
        let key = (peer, core.receive_id());
        let theirs = !core.is_initiator();
        let state = ConnState {
            core,
            reader: None,
            writer: None,
            shutter: None,
            dropped: false,
            armed: None,
            sample_due: None,
        };
        let conn = Arc::new(Conn {
            peer,
            serial: self.next_serial,
            theirs,
            queued: AtomicBool::new(queued),
            state: Mutex::new(state),
        });
        self.connections.insert(key, conn.clone());
        if theirs {
            *self.sources.entry(source(peer.ip())).or_default() += 1;
            self.half_open.insert(conn.serial, conn.clone());
        }
        conn
    }

    /// How many connections peers have opened from a source.
    pub(super) fn of_source(&self, source: Source) -> usize {
        self.sources.get(&source).copied().unwrap_or(0)
    }

    /// Takes a connection out, unless another has taken its place.
    pub(super) fn remove(&mut self, key: Key, conn: &Arc<Conn>) {
        if self.connections.get(&key).is_some_and(|found| Arc::ptr_eq(found, conn)) {
            self.connections.remove(&key);
            self.half_open.remove(&conn.serial);
            let source = source(conn.peer.ip());
            if conn.theirs
                && let Some(count) = self.sources.get_mut(&source)
            {
                *count -= 1;
                if *count == 0 {
                    self.sources.remove(&source);
                }
            }
        }
    }

    /// A receive id that no connection with `peer` has. There are fewer connections than ids: one is free, and found
    /// by counting on from a random one. The ids beside it are avoided too where possible, since a RESET may carry one.
    pub(super) fn free_id(&mut self, peer: SocketAddr) -> Option<u16> {
        let start: u16 = self.rng.random();
        let ids = || (0..=u16::MAX).map(|step| start.wrapping_add(step));
        let is_free = |id: u16| !self.connections.contains_key(&(peer, id));
        let is_apart = |id: &u16| is_free(*id) && is_free(id.wrapping_add(1)) && is_free(id.wrapping_sub(1));
        ids().find(is_apart).or_else(|| ids().find(|id| is_free(*id)))
    }

    pub(super) fn random_seq(&mut self) -> Seq {
        Seq(self.rng.random())
    }
}

impl Conn {
    pub(super) fn state(&self) -> MutexGuard<'_, ConnState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnState {
    /// How the connection does, where it is time to tell.
    pub(super) fn sample(&mut self, now: Instant, peer: SocketAddr) -> Option<Event> {
        if !self.core.was_established() || self.sample_due.is_some_and(|due| now < due) {
            return None;
        }
        self.sample_due = Some(now + SAMPLE_INTERVAL);
        Some(Event::UtpSample {
            peer,
            window: self.core.congestion_window(),
            in_flight: self.core.in_flight(),
            rtt_us: self.core.round_trip_time().map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        })
    }

    pub(super) fn wake_all(&mut self) {
        for waker in [self.reader.take(), self.writer.take(), self.shutter.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("peer", &self.peer).field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// Starts a connection to a peer.
pub(super) fn open(shared: &Arc<Shared>, peer: SocketAddr) -> io::Result<UtpStream> {
    let mut inner = shared.inner();
    if inner.closing || inner.ended {
        return Err(EndpointError::Closed.into());
    }
    if inner.connections.len() >= shared.config.max_connections {
        return Err(EndpointError::TooManyConnections.into());
    }
    let id = inner.free_id(peer).ok_or(EndpointError::TooManyConnections)?;
    let initial = inner.random_seq();
    let core = Connection::connect(now(), inner.config_for(peer, &shared.config), id, initial);
    let conn = inner.add(peer, core, false);
    drop(inner);
    shared.changed(&conn);
    Ok(UtpStream::new(shared.clone(), conn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::HostNetwork;

    #[test]
    fn so_many_narrow_paths_are_remembered_and_no_more() {
        let (local, config) = (SocketAddr::from(([127, 0, 0, 1], 1)), EndpointConfig::default());
        let shared = Shared::new(Arc::new(HostNetwork::new()), local, config);
        let peer = |nth: usize| SocketAddr::from(((0x0a00_0000 + nth as u32).to_be_bytes(), 1));
        let mut inner = shared.inner();
        for nth in 0..=MAX_NARROW_PATHS {
            inner.remember_narrow_path(peer(nth));
            inner.remember_narrow_path(peer(nth));
        }
        assert_eq!(inner.narrow_paths.len(), MAX_NARROW_PATHS);
        let is_narrow = |nth| inner.narrow_paths.contains(&peer(nth).ip());
        assert!(!is_narrow(0), "the oldest is forgotten");
        assert!(is_narrow(1) && is_narrow(MAX_NARROW_PATHS));
        assert!(!is_narrow(MAX_NARROW_PATHS + 1));
    }
}
