//! One shared UDP socket: µTP streams, punches and other datagrams.
//!
//! [`Endpoint::bind`] starts one task, the driver. It owns the socket: it receives in batches, hands each packet to
//! its connection, sends what the connections have to send in batches of equal packets, and keeps their timers.
//! Streams share their connection's state with it. Whatever is not µTP goes to the subscribers of
//! [`Endpoint::datagrams`].

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::limits::{Limit, LimitCounts};
use crate::net::{Net, UdpSocket};

mod config;
mod cookie;
mod driver;
mod receive;
mod shared;
mod stream;

pub use config::EndpointConfig;
pub use stream::UtpStream;

use driver::Driver;
use shared::Shared;

/// How many datagrams a subscriber may be behind; then it skips the oldest.
pub const DATAGRAM_BACKLOG: usize = 1024;

/// How many datagrams may wait to be sent; more are dropped and counted.
pub const DATAGRAM_QUEUE: usize = 1024;

/// How often a connection is sampled at most, where [`Network::wants_samples`](crate::net::Network::wants_samples).
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);

/// The longest datagram that is not µTP that subscribers are given, in bytes: longer than any path without jumbo frames
/// carries in one piece. Longer ones are dropped and counted.
pub const MAX_MESSAGE: usize = 2048;

/// Why an [`Endpoint`] refuses a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The endpoint was closed or its host has ended.
    #[error("the endpoint is closed; bind a new one")]
    Closed,
    /// [`EndpointConfig::max_connections`] is reached.
    #[error("the endpoint has as many connections as it may; close some or raise the limit")]
    TooManyConnections,
}

impl From<EndpointError> for io::Error {
    fn from(error: EndpointError) -> Self {
        let kind = match error {
            EndpointError::Closed => io::ErrorKind::NotConnected,
            EndpointError::TooManyConnections => io::ErrorKind::QuotaExceeded,
        };
        io::Error::new(kind, error)
    }
}

/// The shared socket of a process. Cheap to clone; the socket closes with its last handle and stream.
#[derive(Clone)]
pub struct Endpoint {
    handle: Arc<Handle>,
}

/// What the clones of an endpoint share; streams do not hold it.
struct Handle {
    shared: Arc<Shared>,
    buffer_sizes: (usize, usize),
}

/// A datagram that is not µTP: a punch or a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Where from.
    pub from: SocketAddr,
    /// The payload.
    pub payload: Bytes,
}

impl Endpoint {
    /// Binds the socket and starts its driver task.
    ///
    /// # Errors
    /// What the network says of the address.
    pub fn bind(net: &Net, local: SocketAddr, config: EndpointConfig) -> io::Result<Self> {
        Self::over(net, net.bind_udp(local)?, config)
    }

    /// Starts a driver task for a socket that is bound already, and over which something was sent: a punched hole is
    /// the socket's that punched it.
    ///
    /// # Errors
    /// Where the socket does not tell its address or buffers.
    pub fn over(net: &Net, socket: Arc<dyn UdpSocket>, config: EndpointConfig) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(net.clone(), socket.local_addr()?, config));
        let buffer_sizes = socket.buffer_sizes()?;
        net.spawn(Box::pin(Driver::new(shared.clone(), socket))).detach();
        Ok(Self { handle: Arc::new(Handle { shared, buffer_sizes }) })
    }

    /// Binds to a port on every IPv4 address, with the default settings; port 0 asks for any free one.
    ///
    /// # Errors
    /// As those of [`bind`](Self::bind).
    pub fn listen(net: &Net, port: u16) -> io::Result<Self> {
        Self::bind(net, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), EndpointConfig::default())
    }

    /// The settings that it was bound with.
    pub fn config(&self) -> &EndpointConfig {
        &self.handle.shared.config
    }

    /// How many connections it has, established or not.
    pub fn connections(&self) -> usize {
        self.handle.shared.inner().connections.len()
    }

    /// How many of them are to this address.
    pub fn connections_to(&self, to: SocketAddr) -> usize {
        self.handle.shared.inner().connections.keys().filter(|(remote, _)| *remote == to).count()
    }

    /// The network it is on.
    pub fn net(&self) -> &Net {
        &self.handle.shared.net
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.shared.local
    }

    /// The socket's granted (send, receive) buffer sizes in bytes: the throughput of one burst depends on them.
    pub fn buffer_sizes(&self) -> (usize, usize) {
        self.handle.buffer_sizes
    }

    /// Connects to a peer. Dropping the future ends the attempt.
    ///
    /// # Errors
    /// `UTP_ETIMEDOUT` or `UTP_ECONNRESET` in its `Display`, or an [`EndpointError`].
    pub async fn connect(&self, peer: SocketAddr) -> io::Result<UtpStream> {
        let stream = shared::open(&self.handle.shared, peer)?;
        match stream.connected().await {
            // The id may collide with the id of a connection from that peer: once more with another.
            Err(crate::utp::Error::Reset) => {
                let stream = shared::open(&self.handle.shared, peer)?;
                stream.connected().await?;
                Ok(stream)
            }
            Err(error) => Err(error.into()),
            Ok(()) => Ok(stream),
        }
    }

    /// The next connection from a peer; `None` once the endpoint is closed. Each goes to one caller.
    ///
    /// A connection is there when the peer has shown that it got our answer.
    pub async fn accept(&self) -> Option<UtpStream> {
        let shared = &self.handle.shared;
        loop {
            let notified = shared.accepted.notified();
            {
                let mut inner = shared.inner();
                if let Some(conn) = inner.backlog.pop_front() {
                    let window = inner.config_for(conn.peer, &shared.config).window();
                    drop(inner);
                    let update = conn.state().core.open_window(window);
                    if update {
                        shared.changed(&conn);
                    }
                    return Some(UtpStream::new(shared.clone(), conn));
                }
                if inner.closing || inner.ended {
                    return None;
                }
            }
            notified.await;
        }
    }

    /// Sends a datagram as it is, behind those already queued; dropped and counted where the queue is full.
    pub fn send_datagram(&self, to: SocketAddr, payload: Bytes) {
        let mut inner = self.handle.shared.inner();
        if inner.outgoing.len() >= DATAGRAM_QUEUE || inner.ended {
            inner.dropped_datagrams += 1;
            drop(inner);
            return self.limits().reached(Limit::DatagramQueue, None);
        }
        inner.outgoing.push_back((to, payload));
        drop(inner);
        self.handle.shared.driver.wake();
    }

    /// How many datagrams [`send_datagram`](Self::send_datagram) has dropped.
    pub fn dropped_datagrams(&self) -> u64 {
        self.handle.shared.inner().dropped_datagrams
    }

    /// How often peers have reached which limit, of the endpoint and of what is on it.
    pub fn limits(&self) -> &Arc<LimitCounts> {
        &self.handle.shared.limits
    }

    /// How many datagrams looked like µTP and were malformed; they were dropped.
    pub fn malformed(&self) -> u64 {
        self.handle.shared.inner().malformed
    }

    /// Every datagram from now on that is not µTP. Each subscriber gets them all; a slow one skips the oldest.
    pub fn datagrams(&self) -> broadcast::Receiver<Datagram> {
        self.handle.shared.datagrams.subscribe()
    }

    /// Closes every connection (FIN, bounded wait) and the socket. Calls on it fail from now on.
    pub async fn close(&self) {
        let shared = &self.handle.shared;
        shared.inner().closing = true;
        shared.accepted.notify_waiters();
        shared.driver.wake();
        loop {
            let notified = shared.ended.notified();
            if shared.inner().ended {
                return;
            }
            notified.await;
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("local", &self.local_addr()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.inner().unheld = true;
        self.shared.driver.wake();
    }
}
