//! UDP sockets of simulated hosts.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use grenache::net::{RecvMeta, Transmit, UdpSocket};

use super::address::{canonical, overlap, told};
use super::hop::Rule;
use super::host::EphemeralPorts;
use super::network::HostHandle;
use super::packet::Body;

/// Bytes that wait in a socket, headers included; what comes beyond is dropped.
const RECEIVE_BUFFER: usize = 4 << 20;
/// What a waiting datagram counts for beyond its payload.
const OVERHEAD: usize = 28;
/// Datagrams that one call may send.
const MAX_TRANSMIT_SEGMENTS: usize = 64;
/// Datagrams of one size and source that are received into one buffer, as a host with receive offload does.
const MAX_RECEIVE_SEGMENTS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SocketId(u64);

/// The UDP sockets of one host's life.
#[derive(Debug)]
pub(crate) struct UdpTable {
    sockets: BTreeMap<SocketId, Socket>,
    /// Sockets by port and address, the unspecified one included. One that is bound to `[::]` is in both.
    bound4: BTreeMap<(u16, Ipv4Addr), SocketId>,
    bound6: BTreeMap<(u16, Ipv6Addr), SocketId>,
    ports: EphemeralPorts,
    next_id: u64,
}

#[derive(Debug)]
struct Socket {
    local: SocketAddr,
    queue: VecDeque<(SocketAddr, Bytes)>,
    queued: usize,
    waker: Option<Waker>,
}

impl UdpTable {
    pub(crate) fn new(ports: EphemeralPorts) -> Self {
        Self { sockets: BTreeMap::new(), bound4: BTreeMap::new(), bound6: BTreeMap::new(), ports, next_id: 0 }
    }

    fn bind(&mut self, mut local: SocketAddr) -> io::Result<(SocketId, SocketAddr)> {
        let overlaps = |port| {
            let four = self.bound4.range((port, Ipv4Addr::UNSPECIFIED)..=(port, Ipv4Addr::BROADCAST));
            let six = self.bound6.range((port, Ipv6Addr::UNSPECIFIED)..=(port, Ipv6Addr::from_bits(u128::MAX)));
            let mut others = four.map(|((_, ip), _)| IpAddr::V4(*ip)).chain(six.map(|((_, ip), _)| IpAddr::V6(*ip)));
            others.any(|ip| overlap(ip, local.ip()))
        };
        if local.port() == 0 {
            local.set_port(self.ports.next_free(overlaps).ok_or(ErrorKind::AddrInUse)?);
        } else if overlaps(local.port()) {
            return Err(ErrorKind::AddrInUse.into());
        }
        self.next_id += 1;
        let id = SocketId(self.next_id);
        match local.ip() {
            IpAddr::V4(ip) => {
                self.bound4.insert((local.port(), ip), id);
            }
            IpAddr::V6(ip) => {
                self.bound6.insert((local.port(), ip), id);
                if ip.is_unspecified() {
                    self.bound4.insert((local.port(), Ipv4Addr::UNSPECIFIED), id);
                }
            }
        }
        self.sockets.insert(id, Socket { local, queue: VecDeque::new(), queued: 0, waker: None });
        Ok((id, local))
    }

    /// How many sockets are bound.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    fn close(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.remove(&id) {
            match socket.local.ip() {
                IpAddr::V4(ip) => {
                    self.bound4.remove(&(socket.local.port(), ip));
                }
                IpAddr::V6(ip) => {
                    self.bound6.remove(&(socket.local.port(), ip));
                    if ip.is_unspecified() {
                        self.bound4.remove(&(socket.local.port(), Ipv4Addr::UNSPECIFIED));
                    }
                }
            }
        }
    }

    /// A datagram from the network, for the socket that is bound to its address, or else to all.
    pub(crate) fn deliver(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        payload: Bytes,
    ) -> Result<Option<Waker>, Rule> {
        let port = destination.port();
        let found = match destination.ip() {
            IpAddr::V4(ip) => self.bound4.get(&(port, ip)).or_else(|| self.bound4.get(&(port, Ipv4Addr::UNSPECIFIED))),
            IpAddr::V6(ip) => self.bound6.get(&(port, ip)).or_else(|| self.bound6.get(&(port, Ipv6Addr::UNSPECIFIED))),
        };
        let id = *found.ok_or(Rule::NoSocket(port))?;
        let socket = self.sockets.get_mut(&id).expect("the index names sockets that exist");
        let counts = payload.len() + OVERHEAD;
        if socket.queued + counts > RECEIVE_BUFFER {
            return Err(Rule::BufferFull(RECEIVE_BUFFER));
        }
        socket.queued += counts;
        socket.queue.push_back((source, payload));
        Ok(socket.waker.take())
    }
}

impl Socket {
    /// Fills one buffer with the next datagram, and with those behind it that are alike. What does not fit is cut.
    fn fill(&mut self, buffer: &mut [u8]) -> Option<RecvMeta> {
        let (source, first) = self.pop()?;
        let stride = first.len().min(buffer.len());
        buffer[..stride].copy_from_slice(&first[..stride]);
        let mut len = stride;
        for _ in 1..MAX_RECEIVE_SEGMENTS {
            let alike = |next: &(SocketAddr, Bytes)| {
                next.0 == source && !next.1.is_empty() && next.1.len() <= stride && len + stride <= buffer.len()
            };
            if !self.queue.front().is_some_and(alike) {
                break;
            }
            let Some((_, next)) = self.pop() else { break };
            buffer[len..len + next.len()].copy_from_slice(&next);
            len += next.len();
            if next.len() < stride {
                break;
            }
        }
        Some(RecvMeta { source: told(&self.local, source), len, stride })
    }

    fn pop(&mut self) -> Option<(SocketAddr, Bytes)> {
        let (source, payload) = self.queue.pop_front()?;
        self.queued -= payload.len() + OVERHEAD;
        Some((source, payload))
    }
}

/// What a task holds.
#[derive(Debug)]
pub(crate) struct SimUdp {
    host: HostHandle,
    id: SocketId,
    local: SocketAddr,
}

impl SimUdp {
    pub(crate) fn bind(host: HostHandle, local: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        let (id, local) = host.with_life(|life, _| life.udp.bind(local))??;
        Ok(Arc::new(Self { host, id, local }))
    }
}

impl UdpSocket for SimUdp {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// Never waits: what a link cannot take is dropped there.
    fn poll_send(&self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        let destination = canonical(transmit.destination);
        let contents = Bytes::copy_from_slice(transmit.contents);
        let size = transmit.segment_size.filter(|&size| size > 0).unwrap_or(contents.len());
        if size > 0 && contents.len().div_ceil(size) > MAX_TRANSMIT_SEGMENTS {
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidInput, "at most 64 datagrams fit one call")));
        }
        Poll::Ready(self.host.with_engine(|engine, now_ns| {
            let source = SocketAddr::new(
                engine.addresses(self.host.id).source(self.local.ip(), destination.ip())?,
                self.local.port(),
            );
            let mut start = 0;
            loop {
                let end = (start + size).min(contents.len());
                engine.send(now_ns, self.host.id, source, destination, Body::Udp(contents.slice(start..end)));
                start = end;
                if start >= contents.len() {
                    return Ok(());
                }
            }
        })?)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.host.with_life(|life, _| {
            let socket = life.udp.sockets.get_mut(&self.id).expect("a socket is bound as long as it is held");
            let mut count = 0;
            for (buffer, meta) in buffers.iter_mut().zip(meta) {
                let Some(filled) = socket.fill(buffer) else { break };
                *meta = filled;
                count += 1;
            }
            if count == 0 {
                socket.waker = Some(cx.waker().clone());
            }
            count
        });
        match received {
            Ok(0) => Poll::Pending,
            received => Poll::Ready(received),
        }
    }

    fn max_transmit_segments(&self) -> usize {
        MAX_TRANSMIT_SEGMENTS
    }

    fn max_receive_segments(&self) -> usize {
        MAX_RECEIVE_SEGMENTS
    }

    fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        Ok((RECEIVE_BUFFER, RECEIVE_BUFFER))
    }
}

impl Drop for SimUdp {
    fn drop(&mut self) {
        // In a life that is over there is nothing left to close.
        let _ = self.host.with_life(|life, _| life.udp.close(self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> UdpTable {
        let mut host = crate::engine::host::Host::new(
            "a".into(),
            crate::engine::address::Addresses { v4: Some(Ipv4Addr::new(10, 0, 0, 1)), v6: None },
            crate::engine::route::Attachment::unlimited(),
        );
        host.start(1);
        host.life.unwrap().udp
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_port_is_taken_by_whoever_overlaps() {
        let mut table = table();
        let (first, _) = table.bind(at("127.0.0.1:5000")).unwrap();
        table.bind(at("10.0.0.1:5000")).unwrap();
        let taken = |table: &mut UdpTable, local| table.bind(at(local)).unwrap_err().kind() == ErrorKind::AddrInUse;
        assert!(taken(&mut table, "0.0.0.0:5000") && taken(&mut table, "127.0.0.1:5000"));
        table.close(first);
        table.bind(at("127.0.0.1:5000")).unwrap();
        let (_, ephemeral) = table.bind(at("0.0.0.0:0")).unwrap();
        assert!(ephemeral.port() >= 49_152);
    }

    #[test]
    fn alike_datagrams_share_a_buffer() {
        let mut table = table();
        let (id, local) = table.bind(at("0.0.0.0:5000")).unwrap();
        let (a, b) = (at("10.0.0.2:1"), at("10.0.0.3:1"));
        for (source, payload) in
            [(a, "aaaa"), (a, "bbbb"), (a, "cc"), (a, "dd"), (b, "ee"), (b, ""), (b, "ff"), (b, "ggg")]
        {
            table.deliver(source, local, Bytes::from(payload)).unwrap();
        }
        let socket = table.sockets.get_mut(&id).unwrap();
        let mut received = Vec::new();
        let mut buffer = [0; 16];
        while let Some(meta) = socket.fill(&mut buffer) {
            received.push((String::from_utf8(buffer[..meta.len].to_vec()).unwrap(), meta.stride));
        }
        let expected = [("aaaabbbbcc", 4), ("dd", 2), ("ee", 2), ("", 0), ("ff", 2), ("ggg", 3)];
        assert_eq!(received, expected.map(|(text, stride)| (text.to_owned(), stride)));
        assert_eq!(socket.queued, 0);
    }

    #[test]
    fn a_full_buffer_refuses() {
        let mut table = table();
        let (_, local) = table.bind(at("0.0.0.0:5000")).unwrap();
        let payload = Bytes::from(vec![0; 1024 - OVERHEAD]);
        for _ in 0..RECEIVE_BUFFER / 1024 {
            assert!(table.deliver(local, local, payload.clone()).is_ok());
        }
        assert_eq!(table.deliver(local, local, Bytes::new()).unwrap_err(), Rule::BufferFull(RECEIVE_BUFFER));
        assert_eq!(table.deliver(local, at("1.1.1.1:9"), Bytes::new()).unwrap_err(), Rule::NoSocket(9));
    }
}
