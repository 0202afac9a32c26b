//! What passes each side of each hop, for captures: nothing is kept and nothing is made where nobody asked.

use std::net::SocketAddr;

use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, TcpHeader};

use super::packet::{Body, HostId, Packet};
use super::route::{NatId, Owner};
use super::state::Engine;
use super::tcp::Segment;
use crate::event::LabEvent;
use crate::scenario::model::Name;

/// How often a link's queue is sampled at most.
const SAMPLE_INTERVAL_NS: u64 = 5_000_000;

/// What packets set out with.
const TIME_TO_LIVE: u8 = 64;

/// A packet that passed one side of a host or NAT. Cheap to clone: payloads are shared.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// Nanoseconds since the run began.
    pub at_ns: u64,
    /// Where.
    pub side: Side,
    /// Whether it came or went.
    pub direction: Direction,
    /// The packet's number, as in the events.
    pub packet: u64,
    /// Source, as it is on this side.
    pub source: SocketAddr,
    /// Destination, as it is on this side.
    pub destination: SocketAddr,
    body: Body,
}

/// A place where packets are seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// A host's interface.
    Host(Name),
    /// A NAT's side towards its LAN.
    Inside(Name),
    /// A NAT's side towards the internet.
    Outside(Name),
}

impl Side {
    /// The host or NAT.
    pub fn name(&self) -> &Name {
        match self {
            Self::Host(name) | Self::Inside(name) | Self::Outside(name) => name,
        }
    }
}

/// Which way a packet passed a side, seen from the host or NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It came.
    In,
    /// It went.
    Out,
}

impl Sighting {
    /// The packet's bytes, from the IP header on, with right lengths and checksums.
    ///
    /// TCP windows beyond 65,535 bytes are written as that: the simulated TCP has no options.
    pub fn to_bytes(&self) -> Vec<u8> {
        let transport = match self.body {
            Body::Udp(_) => IpNumber::UDP,
            Body::Tcp(_) => IpNumber::TCP,
        };
        let builder = PacketBuilder::ip(self.ip_header(transport));
        let (source, destination) = (self.source.port(), self.destination.port());
        let mut bytes = Vec::new();
        let written = match &self.body {
            Body::Udp(payload) => builder.udp(source, destination).write(&mut bytes, payload),
            Body::Tcp(segment) => {
                builder.tcp_header(tcp_header(source, destination, segment)).write(&mut bytes, &segment.payload)
            }
        };
        written.expect("packets are smaller than what IP can carry, and a Vec takes all");
        bytes
    }

    /// Lengths and checksums are the builder's.
    fn ip_header(&self, transport: IpNumber) -> IpHeaders {
        match (self.source, self.destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                let (source, destination) = (source.ip().octets(), destination.ip().octets());
                let mut header = Ipv4Header::new(0, TIME_TO_LIVE, transport, source, destination)
                    .expect("an empty payload is not too long");
                header.identification = self.packet as u16;
                IpHeaders::Ipv4(header, Default::default())
            }
            (source, destination) => {
                let octets = |address: SocketAddr| match address {
                    SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
                    SocketAddr::V6(address) => address.ip().octets(),
                };
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: transport,
                    hop_limit: TIME_TO_LIVE,
                    source: octets(source),
                    destination: octets(destination),
                };
                IpHeaders::Ipv6(header, Default::default())
            }
        }
    }
}

fn tcp_header(source: u16, destination: u16, segment: &Segment) -> TcpHeader {
    let window = u16::try_from(segment.window).unwrap_or(u16::MAX);
    // The wire carries the lower halves.
    let mut header = TcpHeader::new(source, destination, segment.seq as u32, window);
    (header.syn, header.fin, header.rst) = (segment.syn, segment.fin, segment.reset);
    header.psh = !segment.payload.is_empty();
    if let Some(ack) = segment.ack {
        header.ack = true;
        header.acknowledgment_number = ack as u32;
    }
    header
}

/// What the engine is asked to show besides its events.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Whether anybody captures.
    pub(crate) captured: bool,
    /// What those who capture have not seen yet.
    pub(crate) sightings: Vec<Sighting>,
    /// Whether anybody wants samples of queues and connections.
    pub(crate) sampled: bool,
}

impl Engine {
    /// A packet passes a host's interface. What a host sends to itself passes once, when it is sent.
    pub(crate) fn sight_at_host(&mut self, now_ns: u64, host: HostId, direction: Direction, packet: &Packet) {
        if self.watch.captured {
            let is_own = packet.source.ip() == packet.destination.ip() || packet.destination.ip().is_loopback();
            if direction == Direction::Out || !is_own {
                let side = Side::Host(self.host(host).name.clone());
                self.sight(now_ns, side, direction, packet);
            }
        }
    }

    /// A packet passes a NAT's side towards its LAN.
    pub(crate) fn sight_inside(&mut self, now_ns: u64, nat: NatId, direction: Direction, packet: &Packet) {
        if self.watch.captured {
            let side = Side::Inside(self.nat(nat).name.clone());
            self.sight(now_ns, side, direction, packet);
        }
    }

    /// A packet passes a NAT's side towards the internet.
    pub(crate) fn sight_outside(&mut self, now_ns: u64, nat: NatId, direction: Direction, packet: &Packet) {
        if self.watch.captured {
            let side = Side::Outside(self.nat(nat).name.clone());
            self.sight(now_ns, side, direction, packet);
        }
    }

    /// Tells what waits in a link's queue, where it has a rate and it is time to tell.
    pub(crate) fn sample_queue(&mut self, now_ns: u64, owner: Owner, up: bool) {
        if !self.watch.sampled {
            return;
        }
        let attachment = self.attachment(owner);
        let line = if up { &mut attachment.up } else { &mut attachment.down };
        let Some((bytes, wait_ns)) = line.state.queued(now_ns) else { return };
        if line.sample_due_ns > now_ns {
            return;
        }
        line.sample_due_ns = now_ns + SAMPLE_INTERVAL_NS;
        let event = LabEvent::QueueSample { link: line.name.clone(), bytes, wait_ns };
        let name = self.name(owner);
        self.record(now_ns, Some(name), event);
    }

    fn sight(&mut self, at_ns: u64, side: Side, direction: Direction, packet: &Packet) {
        if self.ended {
            return;
        }
        self.watch.sightings.push(Sighting {
            at_ns,
            side,
            direction,
            packet: packet.id,
            source: packet.source,
            destination: packet.destination,
            body: packet.body.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    use super::*;

    fn sighting(source: &str, destination: &str, body: Body) -> Sighting {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let side = Side::Host("a".into());
        Sighting { at_ns: 0, side, direction: Direction::Out, packet: 65_537, source, destination, body }
    }

    #[test]
    fn an_ipv4_datagram_has_right_lengths_and_checksums() {
        let bytes = sighting("10.0.0.2:5", "203.0.113.9:6", Body::Udp(Bytes::from_static(b"hello"))).to_bytes();
        assert_eq!(bytes.len(), 20 + 8 + 5);
        let read = PacketHeaders::from_ip_slice(&bytes).unwrap();
        let Some(NetHeaders::Ipv4(ip, _)) = read.net else { panic!("no IPv4 header") };
        let Some(TransportHeader::Udp(udp)) = read.transport else { panic!("no UDP header") };
        assert_eq!((ip.total_len, ip.identification, ip.time_to_live), (33, 1, 64));
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        assert_eq!((udp.source_port, udp.destination_port, udp.length), (5, 6, 13));
        assert_eq!(udp.checksum, udp.calc_checksum_ipv4(&ip, b"hello").unwrap());
    }

    #[test]
    fn an_ipv6_datagram_has_right_lengths_and_checksums() {
        let bytes = sighting("[fd00::2]:5", "[2001:db8::9]:6", Body::Udp(Bytes::from_static(b"hi"))).to_bytes();
        assert_eq!(bytes.len(), 40 + 8 + 2);
        let read = PacketHeaders::from_ip_slice(&bytes).unwrap();
        let Some(NetHeaders::Ipv6(ip, _)) = read.net else { panic!("no IPv6 header") };
        let Some(TransportHeader::Udp(udp)) = read.transport else { panic!("no UDP header") };
        assert_eq!(ip.payload_length, 10);
        assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&ip, b"hi").unwrap());
    }

    #[test]
    fn a_segment_has_its_flags_and_the_lower_halves_of_its_numbers() {
        let payload = Bytes::from_static(b"GET /");
        let segment = Segment {
            fin: true,
            seq: (7 << 32) | 8,
            ack: Some((1 << 32) | 9),
            window: 1 << 20,
            payload,
            ..Segment::default()
        };
        let bytes = sighting("10.0.0.2:5", "10.0.0.3:80", Body::Tcp(Box::new(segment))).to_bytes();
        let read = PacketHeaders::from_ip_slice(&bytes).unwrap();
        let Some(NetHeaders::Ipv4(ip, _)) = read.net else { panic!("no IPv4 header") };
        let Some(TransportHeader::Tcp(tcp)) = read.transport else { panic!("no TCP header") };
        assert_eq!((tcp.sequence_number, tcp.acknowledgment_number, tcp.window_size), (8, 9, u16::MAX));
        assert_eq!((tcp.syn, tcp.fin, tcp.rst, tcp.ack), (false, true, false, true));
        assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, b"GET /").unwrap());
    }
}
