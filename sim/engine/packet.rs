//! What travels: one IPv4 datagram, with its headers as typed fields.

use std::net::SocketAddrV4;

use bytes::Bytes;

use super::hop::Headers;
use super::tcp::Segment;
use crate::event::Protocol;

/// The largest IP packet that a link takes, in bytes, as on Ethernet.
pub(crate) const MTU: usize = 1500;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
/// What fits into one TCP segment, in bytes.
pub(crate) const MAX_SEGMENT: usize = MTU - IP_HEADER - TCP_HEADER;

/// One packet on its way.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Counts up over the run.
    pub(crate) id: u64,
    /// The host that sent it, whatever NATs made of its source since.
    pub(crate) origin: HostId,
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    pub(crate) body: Body,
}

/// A host's place in the list of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostId(pub(crate) u32);

/// What is in a packet.
#[derive(Debug)]
pub(crate) enum Body {
    Udp(Bytes),
    Tcp(Segment),
}

impl Packet {
    pub(crate) fn protocol(&self) -> Protocol {
        match self.body {
            Body::Udp(_) => Protocol::Udp,
            Body::Tcp(_) => Protocol::Tcp,
        }
    }

    /// What a NAT sees of it.
    pub(crate) fn headers(&self) -> Headers {
        Headers { protocol: self.protocol(), source: self.source, destination: self.destination }
    }

    /// Bytes with the IP and transport headers.
    pub(crate) fn size(&self) -> usize {
        IP_HEADER
            + match &self.body {
                Body::Udp(payload) => UDP_HEADER + payload.len(),
                Body::Tcp(segment) => TCP_HEADER + segment.payload.len(),
            }
    }
}
