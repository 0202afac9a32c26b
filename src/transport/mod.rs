//! One shared UDP socket: µTP streams, punches and other datagrams.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::broadcast;

use crate::net::Net;

/// The shared socket of a process. Cheap to clone; the socket closes with its last handle and stream.
#[derive(Debug, Clone)]
pub struct Endpoint {}

/// Settings of an [`Endpoint`].
#[derive(Debug, Clone, Default)]
pub struct EndpointConfig {}

impl EndpointConfig {
    /// How long a connection attempt may take (default 10 s).
    pub fn connect_timeout(self, _timeout: Duration) -> Self {
        self
    }
}

/// A datagram that is not µTP: a punch or a message.
#[derive(Debug, Clone)]
pub struct Datagram {
    /// Where from.
    pub from: SocketAddr,
    /// The payload.
    pub payload: Bytes,
}

impl Endpoint {
    /// Binds the socket and starts its driver task.
    pub fn bind(_net: &Net, _local: SocketAddr, _config: EndpointConfig) -> io::Result<Self> {
        todo!()
    }
    /// The network it is on.
    pub fn net(&self) -> &Net {
        todo!()
    }
    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }
    /// Connects to a peer. An error is `UTP_ETIMEDOUT` or `UTP_ECONNRESET` in its `Display`.
    pub async fn connect(&self, _peer: SocketAddr) -> io::Result<UtpStream> {
        todo!()
    }
    /// The next connection from a peer; `None` once the endpoint is closed. Each goes to one caller.
    pub async fn accept(&self) -> Option<UtpStream> {
        todo!()
    }
    /// Sends a datagram as it is, behind those already queued; dropped and counted where the queue is full.
    pub fn send_datagram(&self, _to: SocketAddr, _payload: Bytes) {
        todo!()
    }
    /// Every datagram from now on that is not µTP. Each subscriber gets them all; a slow one skips the oldest.
    pub fn datagrams(&self) -> broadcast::Receiver<Datagram> {
        todo!()
    }
    /// Closes every connection (FIN, bounded wait) and the socket.
    pub async fn close(&self) {
        todo!()
    }
}

/// A µTP connection. Dropping it closes it in the background: what was written is still delivered.
#[derive(Debug)]
pub struct UtpStream {}

impl UtpStream {
    /// The other end.
    pub fn peer_addr(&self) -> SocketAddr {
        todo!()
    }
    /// Ends the connection at once: unsent data is lost and the peer gets a RESET.
    pub fn reset(self) {}
}

impl AsyncRead for UtpStream {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}
impl AsyncWrite for UtpStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        todo!()
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}
