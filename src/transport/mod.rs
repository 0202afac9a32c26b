//! One shared UDP socket: µTP streams, punches and other datagrams.
//!
//! An [`Endpoint`] owns a socket and a driver task. The task receives in batches and tells datagrams apart: what is
//! µTP goes to its connection, everything else to every subscriber of [`Endpoint::datagrams`]. Sharing the socket is
//! what makes NATs passable: the mapping that a punch opens is the one that connections then use.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use rand::Rng as _;
use tokio::sync::{Mutex, Notify, broadcast, mpsc};
use tokio::time::{Instant, timeout};

use crate::net::{Net, UdpSocket};
use crate::utp::{Config, Connection, Seq};

mod driver;
mod state;
mod stream;

use driver::Driver;
use state::{ConnectionId, State};
pub use stream::UtpStream;

/// How many datagrams a slow subscriber may be behind; it skips the oldest beyond.
const DATAGRAM_BACKLOG: usize = 1024;

/// How many datagrams may wait for the socket; more are dropped, as a network would.
const MAX_QUEUED_DATAGRAMS: usize = 1024;

/// The most connections of an endpoint, both ways; more are refused with `ERR_TOO_MANY_CONNECTIONS`, and SYNs ignored.
pub const MAX_CONNECTIONS: usize = 65_536;

/// The most connections whose initiator has not shown that it exists; further SYNs are ignored, and come again.
pub const MAX_HALF_OPEN: usize = 1024;

/// The most connections that wait for [`Endpoint::accept`]; further ones are reset.
pub const ACCEPT_BACKLOG: usize = 1024;

/// How long [`Endpoint::close`] lets connections end in order before it resets them.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of an [`Endpoint`].
#[derive(Debug, Clone, Default)]
pub struct EndpointConfig {
    utp: Config,
}

impl EndpointConfig {
    /// How long a connection attempt may take (default 10 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.utp = self.utp.connect_timeout(timeout);
        self
    }

    /// The settings of every connection (default [`Config::default`]).
    pub fn utp(mut self, config: Config) -> Self {
        self.utp = config;
        self
    }
}

/// A datagram that is not µTP: a punch or a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Where from.
    pub from: SocketAddr,
    /// The payload.
    pub payload: Bytes,
}

/// The shared socket of a process. Cheap to clone.
///
/// The socket closes with the last clone and stream, after what they wrote was delivered.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use std::sync::Arc;
/// use grenache::net::{HostNetwork, Net};
/// use grenache::transport::{Endpoint, EndpointConfig};
///
/// let net: Net = Arc::new(HostNetwork::new()?);
/// let endpoint = Endpoint::bind(&net, "0.0.0.0:0".parse().unwrap(), EndpointConfig::default())?;
/// let stream = endpoint.connect("203.0.113.5:1337".parse().unwrap()).await?;
/// # drop(stream);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Endpoint {
    handle: Arc<Handle>,
}

/// What endpoints and streams share with each other, but not with the driver: the last one ends it.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    accepted: Mutex<mpsc::Receiver<ConnectionId>>,
}

/// What handles share with the driver.
#[derive(Debug)]
struct Shared {
    net: Net,
    socket: Arc<dyn UdpSocket>,
    local: SocketAddr,
    config: Config,
    datagrams: broadcast::Sender<Datagram>,
    state: std::sync::Mutex<State>,
    /// Wakes the driver.
    driver: AtomicWaker,
    /// Rung when the driver has ended.
    ended: Notify,
}

impl Endpoint {
    /// Binds the socket and starts its driver task.
    ///
    /// # Errors
    /// Where the address is taken, or is none of this host's.
    pub fn bind(net: &Net, local: SocketAddr, config: EndpointConfig) -> io::Result<Self> {
        let socket = net.bind_udp(local)?;
        let (accepted_sender, accepted) = mpsc::channel(ACCEPT_BACKLOG);
        let shared = Arc::new(Shared {
            net: net.clone(),
            local: socket.local_addr()?,
            socket,
            config: config.utp,
            datagrams: broadcast::Sender::new(DATAGRAM_BACKLOG),
            state: std::sync::Mutex::new(State::new(net.rng("utp"), Instant::now().into_std(), accepted_sender)),
            driver: AtomicWaker::new(),
            ended: Notify::new(),
        });
        net.spawn(Box::pin(Driver::new(shared.clone()))).detach();
        Ok(Self { handle: Arc::new(Handle { shared, accepted: Mutex::new(accepted) }) })
    }

    /// The network it is on.
    pub fn net(&self) -> &Net {
        &self.shared().net
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().local
    }

    /// Connects to a peer.
    ///
    /// # Errors
    /// [`ConnectionError`](crate::utp::ConnectionError) inside, with `UTP_ETIMEDOUT` or `UTP_ECONNRESET` in its text.
    pub async fn connect(&self, peer: SocketAddr) -> io::Result<UtpStream> {
        let id = {
            let mut state = self.shared().state();
            let receive_id = state.free_id(peer)?;
            let seq = Seq(state.rng.next_u32() as u16);
            let now = Instant::now().into_std();
            let connection = Connection::connect(now, self.shared().config.clone(), receive_id, seq, state.epoch);
            state.insert(peer, connection)
        };
        self.shared().driver.wake();
        let mut stream = UtpStream::new(self.handle.clone(), id, peer);
        stream.connected().await?;
        Ok(stream)
    }

    /// The next connection from a peer; `None` once the endpoint is closed. Each goes to one caller.
    pub async fn accept(&self) -> Option<UtpStream> {
        loop {
            let id = self.handle.accepted.lock().await.recv().await?;
            // It may have ended while it waited.
            let peer = self.shared().state().peer(id);
            if let Some(peer) = peer {
                return Some(UtpStream::new(self.handle.clone(), id, peer));
            }
        }
    }

    /// Sends a datagram as it is, behind those already queued; dropped and counted where the queue is full.
    pub fn send_datagram(&self, to: SocketAddr, payload: Bytes) {
        {
            let mut state = self.shared().state();
            if state.datagrams.len() < MAX_QUEUED_DATAGRAMS {
                state.datagrams.push_back((to, payload));
            } else {
                state.stats.datagrams_dropped += 1;
            }
        }
        self.shared().driver.wake();
    }

    /// Every datagram from now on that is not µTP. Each subscriber gets them all; a slow one skips the oldest.
    pub fn datagrams(&self) -> broadcast::Receiver<Datagram> {
        self.shared().datagrams.subscribe()
    }

    /// What the endpoint counted so far.
    pub fn stats(&self) -> EndpointStats {
        self.shared().state().stats
    }

    /// Closes every connection and the socket: in order where the peers answer within five seconds, else by a RESET.
    pub async fn close(&self) {
        self.shared().state().begin_close(Instant::now().into_std());
        self.shared().driver.wake();
        if timeout(CLOSE_TIMEOUT, self.ended()).await.is_err() {
            self.shared().state().abort_all();
            self.shared().driver.wake();
            self.ended().await;
        }
    }

    async fn ended(&self) {
        loop {
            let ended = self.shared().ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.shared().state().ended {
                return;
            }
            ended.await;
        }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

/// What an [`Endpoint`] counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Connections now, both ways, those that are closing included.
    pub connections: usize,
    /// Datagrams that looked like µTP and were malformed.
    pub malformed: u64,
    /// RESETs sent for packets of no connection.
    pub resets_sent: u64,
    /// Datagrams to send that were dropped because the queue was full.
    pub datagrams_dropped: u64,
    /// SYNs that were ignored because there are too many connections, or half-open ones.
    pub syns_ignored: u64,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Ok(mut state) = self.shared.state.lock() {
            state.begin_close(Instant::now().into_std());
        }
        self.shared.driver.wake();
    }
}
