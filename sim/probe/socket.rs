//! A UDP socket as the programs here use it: one datagram at a time.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use grenache::net::{Net, RecvMeta, Rng, Transmit, UdpSocket};
use rand::RngExt as _;

/// The largest datagram that is received whole: nothing here sends a larger one.
const BUFFER: usize = 2048;

/// How often another random port is tried where one is taken, before the system may choose.
const BIND_TRIES: usize = 8;

/// The ports that fresh sockets are bound to (RFC 6335, 6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// A bound socket.
#[derive(Debug)]
pub(super) struct Socket {
    socket: Arc<dyn UdpSocket>,
    pub(super) local_port: u16,
    /// Received together with what was asked for last. As many as one buffer holds.
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
}

impl Socket {
    /// On a port of all of this host's addresses of the family of `towards`; 0 is any.
    pub(super) fn bind(net: &Net, port: u16, towards: IpAddr) -> io::Result<Self> {
        let any: IpAddr = if towards.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = net.bind_udp(SocketAddr::new(any, port))?;
        let local_port = socket.local_addr()?.port();
        Ok(Self { socket, local_port, waiting: VecDeque::new() })
    }

    /// On a random port: where a NAT preserves ports, neighbours would be in each other's way.
    pub(super) fn fresh(net: &Net, rng: &mut Rng, towards: IpAddr) -> io::Result<Self> {
        for _ in 0..BIND_TRIES {
            if let Ok(socket) = Self::bind(net, rng.random_range(EPHEMERAL), towards) {
                return Ok(socket);
            }
        }
        Self::bind(net, 0, towards)
    }

    pub(super) async fn send(&self, destination: SocketAddr, contents: &[u8]) -> io::Result<()> {
        let transmit = Transmit { destination, contents, segment_size: None };
        poll_fn(|cx| self.socket.poll_send(cx, &transmit)).await
    }

    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(SocketAddr, Vec<u8>)>> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return Poll::Ready(Ok(next));
            }
            let (mut buffer, mut meta) = ([0; BUFFER], [RecvMeta::default()]);
            ready!(self.socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta))?;
            let RecvMeta { source, len, stride } = meta[0];
            let datagrams = buffer[..len.min(BUFFER)].chunks(stride.max(1));
            self.waiting.extend(datagrams.map(|datagram| (source, datagram.to_vec())));
        }
    }

    pub(super) async fn receive(&mut self) -> io::Result<(SocketAddr, Vec<u8>)> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }
}
