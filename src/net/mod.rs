//! The seam between the stack and the world: UDP, TCP, tasks, randomness and events.
//!
//! Everything above speaks to a [`Network`]. [`HostNetwork`] is the operating system's; the `grenache-sim` crate
//! brings one that is simulated. Time is `tokio::time`, which a simulator virtualises, so it is not in the trait.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::event::Event;

mod host;
mod hyper_http;
mod pause;

pub use host::HostNetwork;
pub use hyper_http::HyperHttp;
pub use pause::MAX_RECEIVE_ERRORS;
pub(crate) use pause::ReceivePause;

/// A future that a trait object can return and a task can own.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A stream of random numbers. Portable: the same seed gives the same numbers on every machine and in every release.
pub type Rng = rand_chacha::ChaCha8Rng;

/// A shared handle on a network: what every part of the stack is given.
pub type Net = Arc<dyn Network>;

/// A connected TCP stream.
pub trait TcpStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> TcpStream for T {}

/// One host's view of a network.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Binds a UDP socket. Port 0 asks for any free port.
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn UdpSocket>>;

    /// The address that this host sends from to `remote`: what tells whether there is a NAT in between.
    ///
    /// # Errors
    /// Where there is no route, or the network cannot tell, which is the default.
    fn local_ip(&self, _remote: SocketAddr) -> io::Result<IpAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Connects a TCP stream.
    fn connect_tcp(&self, remote: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>>;

    /// Listens for TCP connections. Port 0 asks for any free port.
    fn listen_tcp(&self, local: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpListener>>>;

    /// A client for plain HTTP requests to Grapes.
    fn http(&self) -> Arc<dyn HttpClient>;

    /// An independent stream of random numbers for the part of the stack called `name`.
    ///
    /// On a simulated network the stream follows from the scenario's seed, the host's name, `name`, and how often
    /// this host has asked for `name` before.
    fn rng(&self, name: &str) -> Rng;

    /// Runs a task that belongs to this host: it ends when the host does.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Task;

    /// Takes note of something that happened. Called from the task that did it, in order.
    fn emit(&self, event: Event);

    /// Whether events that only show how connections do are wanted too, as [`Event::UtpSample`]. Asked when an endpoint
    /// is bound.
    fn wants_samples(&self) -> bool {
        false
    }
}

/// A task started with [`Network::spawn`]. Dropping it ends the task.
#[derive(Debug)]
#[must_use = "dropping a Task ends it"]
pub struct Task {
    handle: tokio::task::AbortHandle,
    detached: bool,
}

impl Task {
    /// Takes charge of a spawned tokio task.
    pub fn new(handle: tokio::task::AbortHandle) -> Self {
        Self { handle, detached: false }
    }

    /// Lets the task run on by itself, until it returns or its host ends.
    pub fn detach(mut self) {
        // Not forgotten: the handle counts among what keeps the task's memory.
        self.detached = true;
    }

    /// Whether the task has returned or was ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.detached {
            self.handle.abort();
        }
    }
}

/// Datagrams to send to one destination: one, or several of equal size back to back.
#[derive(Debug, Clone, Copy)]
pub struct Transmit<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// The payload of one datagram, or of several back to back.
    pub contents: &'a [u8],
    /// The size of each datagram in `contents` (the last may be shorter); `None` for a single one.
    pub segment_size: Option<usize>,
}

/// What was received into one buffer: one datagram, or several of equal size back to back.
#[derive(Debug, Clone, Copy)]
pub struct RecvMeta {
    /// Where from.
    pub source: SocketAddr,
    /// Bytes filled.
    pub len: usize,
    /// The size of each datagram (the last may be shorter).
    pub stride: usize,
}

impl Default for RecvMeta {
    fn default() -> Self {
        Self { source: SocketAddr::from(([0, 0, 0, 0], 0)), len: 0, stride: 0 }
    }
}

/// A bound UDP socket that sends and receives in batches.
///
/// One task receives and one sends: of several, only the last to wait is woken.
pub trait UdpSocket: fmt::Debug + Send + Sync + 'static {
    /// The bound address, with the port that was given.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Sends now, or registers the waker and returns `Pending` where the socket's send buffer is full.
    ///
    /// `transmit` holds at most [`max_transmit_segments`](Self::max_transmit_segments) datagrams. Errors that speak
    /// of one destination (unreachable, refused) are not the socket's end.
    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>>;

    /// Receives into as many of `buffers` as there is something for; returns how many were filled, at least one.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>>;

    /// How many datagrams one [`Transmit`] may hold. 1 where there is no segmentation offload.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    /// How many datagrams one receive buffer may be filled with; buffers should hold this many times 2048 bytes.
    fn max_receive_segments(&self) -> usize {
        1
    }

    /// The socket's granted (send, receive) buffer sizes in bytes.
    fn buffer_sizes(&self) -> io::Result<(usize, usize)>;
}

/// A listening TCP socket.
pub trait TcpListener: fmt::Debug + Send + 'static {
    /// The bound address, with the port that was given.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Waits for the next connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn TcpStream>, SocketAddr)>>;
}

/// Posts a body over HTTP/1.1 and reads the answer. One implementation for each network.
pub trait HttpClient: fmt::Debug + Send + Sync + 'static {
    /// Posts `body` (JSON) to `http://<server><path>`; gives the status code and the body of the answer.
    ///
    /// The answer's body is limited to [`MAX_HTTP_ANSWER`] bytes. There is no timeout here: drop the future.
    fn post(&self, server: SocketAddr, path: &str, body: Bytes) -> BoxFuture<'static, io::Result<(u16, Bytes)>>;
}

/// The largest HTTP answer that is read, in bytes: 100 addresses or a value of 1000 bytes fit many times over.
pub const MAX_HTTP_ANSWER: usize = 1 << 20;

/// The longest time that a setting can ask for; longer ones count as this, since clocks cannot reach beyond.
pub const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 60 * 60);
