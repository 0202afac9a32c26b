//! What travels: one IPv4 or IPv6 datagram, with its headers as typed fields.

use std::net::SocketAddr;

use bytes::Bytes;

use super::hop::Headers;
use super::tcp::Segment;
use crate::event::Protocol;

/// The largest IP packet that a link takes, in bytes, as on Ethernet.
pub(crate) const MTU: usize = 1500;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;

/// What fits into one TCP segment to an address of this kind, in bytes.
pub(crate) fn max_segment(to: &SocketAddr) -> usize {
    MTU - ip_header(to) - TCP_HEADER
}

/// The size of an IP header to an address of this kind, in bytes.
fn ip_header(to: &SocketAddr) -> usize {
    if to.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER }
}

/// One packet on its way.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Counts up over the run.
    pub(crate) id: u64,
    /// The host that sent it, whatever NATs made of its source since.
    pub(crate) origin: HostId,
    /// Of the same family as `destination`.
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) body: Body,
}

/// A host's place in the list of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostId(pub(crate) u32);

/// What is in a packet.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Udp(Bytes),
    /// On the heap: most packets are UDP, and every packet is moved often.
    Tcp(Box<Segment>),
}

impl Packet {
    pub(crate) fn protocol(&self) -> Protocol {
        self.body.protocol()
    }

    /// What a NAT sees of an IPv4 packet; nothing of an IPv6 one.
    pub(crate) fn headers(&self) -> Option<Headers> {
        match (self.source, self.destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                Some(Headers { protocol: self.protocol(), source, destination })
            }
            _ => None,
        }
    }

    /// What a NAT made of them.
    pub(crate) fn rewrite(&mut self, headers: Headers) {
        (self.source, self.destination) = (headers.source.into(), headers.destination.into());
    }

    /// Bytes with the IP and transport headers.
    pub(crate) fn size(&self) -> usize {
        ip_header(&self.destination)
            + match &self.body {
                Body::Udp(payload) => UDP_HEADER + payload.len(),
                Body::Tcp(segment) => TCP_HEADER + segment.payload.len(),
            }
    }
}

impl Body {
    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Self::Udp(_) => Protocol::Udp,
            Self::Tcp(_) => Protocol::Tcp,
        }
    }
}
