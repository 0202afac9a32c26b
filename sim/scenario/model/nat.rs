//! What a NAT is: RFC 4787's axes, each with the value that most home routers have as its default.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Firewall, Name};
use crate::event::Protocol;

/// The network behind a NAT that names none.
const DEFAULT_LAN: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 1, 0), 24);

/// How long a NAT's UDP mapping lives unused: the least that RFC 4787 (4.3, REQ-5) allows.
const DEFAULT_UDP_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a TCP mapping lives unused: the least that RFC 5382, REQ-5 allows (2 hours 4 minutes).
const DEFAULT_TCP_TIMEOUT: Duration = Duration::from_secs(124 * 60);

/// A NAT in RFC 4787's terms, with the network behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Nat {
    /// Its public address; the first of several.
    pub address: Ipv4Addr,
    /// Its other public addresses.
    pub more_addresses: Vec<Ipv4Addr>,
    /// The network behind it. Two NATs may have the same.
    pub lan: Ipv4Net,
    /// The NAT that this one is behind.
    pub behind: Option<Name>,
    /// Its uplink.
    pub link: Option<Name>,
    /// RFC 4787, 4.1.
    pub mapping: Dependence,
    /// RFC 4787, 5.
    pub filtering: Dependence,
    /// RFC 4787, 4.2.1.
    pub ports: PortAssignment,
    /// The external ports that mappings get. `None` is 1024–65535, and a port below where it is preserved.
    pub port_range: Option<RangeInclusive<u16>>,
    /// Whether an external port is even where the internal one is, and odd where that is (RFC 4787, 4.2.2).
    pub parity: bool,
    /// Whether the external port is below 1024 where the internal one is, and only there (RFC 4787, REQ-3).
    pub keeps_port_range: bool,
    /// Which of several public addresses a mapping gets (RFC 4787, 4.1).
    pub pooling: Pooling,
    /// How long a UDP mapping lives unused (RFC 4787, 4.3).
    pub udp_timeout: Duration,
    /// How long a TCP mapping lives unused (RFC 5382, 5).
    pub tcp_timeout: Duration,
    /// Which packets use a mapping, so that it lives on (RFC 4787, 4.3).
    pub refresh: Refresh,
    /// Whether and how two hosts behind it reach each other by their public addresses (RFC 4787, 6).
    pub hairpinning: Hairpinning,
    /// How many mappings a host may have at once; `None` is as many as there are ports (RFC 6888, REQ-4).
    pub mappings_per_host: Option<u32>,
    /// What happens to a host's next mapping where it has as many as it may.
    pub when_full: WhenFull,
    /// Hosts get their ports in blocks (RFC 6888, REQ-14; RFC 7422).
    pub port_blocks: Option<PortBlocks>,
    /// Ports that are forwarded for ever.
    pub forwards: Vec<Forward>,
    /// Whether hosts can ask it for forwards (RFC 6886), and how many and how long.
    pub nat_pmp: Option<NatPmp>,
    /// Static address translation: the public address that each of these internal ones has for itself. Where there is
    /// one, the NAT translates addresses and nothing else: hosts without one reach nobody.
    pub one_to_one: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// The IPv6 network behind it, to which it routes without translation (RFC 4864); `None` is no IPv6. Where it is
    /// behind another NAT, it is a part of that one's.
    pub lan6: Option<Ipv6Net>,
    /// The firewall between the LAN and the rest: it sees the addresses of the inside.
    pub firewall: Option<Firewall>,
}

impl Nat {
    /// All its public addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        std::iter::once(self.address).chain(self.more_addresses.iter().copied())
    }

    /// Where hosts behind it reach the NAT itself: the first address of its network, by custom.
    pub fn gateway(&self) -> Ipv4Addr {
        self.lan.hosts().next().unwrap_or(self.lan.network())
    }
}

impl Default for Nat {
    /// A port-restricted cone NAT in front of 192.168.1.0/24, without an address.
    fn default() -> Self {
        Self {
            address: Ipv4Addr::UNSPECIFIED,
            more_addresses: Vec::new(),
            lan: DEFAULT_LAN,
            behind: None,
            link: None,
            mapping: Dependence::EndpointIndependent,
            filtering: Dependence::AddressAndPortDependent,
            ports: PortAssignment::Preserving,
            port_range: None,
            parity: false,
            keeps_port_range: false,
            pooling: Pooling::Paired,
            udp_timeout: DEFAULT_UDP_TIMEOUT,
            tcp_timeout: DEFAULT_TCP_TIMEOUT,
            refresh: Refresh::Outbound,
            hairpinning: Hairpinning::None,
            mappings_per_host: None,
            when_full: WhenFull::Refuse,
            port_blocks: None,
            forwards: Vec::new(),
            nat_pmp: None,
            one_to_one: BTreeMap::new(),
            lan6: None,
            firewall: None,
        }
    }
}

/// What a NAT's mapping or filtering depends on (RFC 4787, 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// Nothing but the internal address and port.
    EndpointIndependent,
    /// Also the remote address.
    AddressDependent,
    /// Also the remote address and port.
    AddressAndPortDependent,
}

/// How a NAT picks a mapping's external port (RFC 4787, 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortAssignment {
    /// The internal port where it is free, else the next free one.
    Preserving,
    /// The one after the last that was given out, or the next free one after it; after 65535 comes 1024.
    Contiguous,
    /// A random free one of 1024–65535.
    Random,
    /// The internal port, even where another mapping has it: an answer is for who sent there ("port overloading"). Two
    /// that send to the same remote endpoint from one port are in each other's way; the second one's packet is dropped.
    Overloading,
}

/// Which of its public addresses a NAT gives to a mapping (RFC 4787, 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pooling {
    /// A host has one for all its mappings: that with the fewest hosts when it makes its first.
    Paired,
    /// A random one each time.
    Arbitrary,
}

/// Which packets use a mapping, so that it lives on (RFC 4787, 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refresh {
    /// Those that leave (REQ-6 asks for these at least).
    Outbound,
    /// Those that come in and pass the filter.
    Inbound,
    /// All.
    Both,
}

/// What a NAT does with packets from the inside to its own public addresses (RFC 4787, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hairpinning {
    /// It drops them.
    None,
    /// It turns them around with their sender's public address as the source (REQ-9).
    ExternalSource,
    /// It turns them around with their sender's internal address as the source: answers then go past the NAT.
    InternalSource,
}

/// What becomes of a mapping that a host may not have any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WhenFull {
    /// Its packet is dropped.
    Refuse,
    /// It takes the place of the host's mapping that is due to end first.
    ReplaceOldest,
}

/// Blocks of external ports (RFC 6888, REQ-14).
///
/// The port range is cut into blocks. A host's mappings get ports of its blocks only; it gets its first block with its
/// first mapping and another one, at random, when all are full; a block without mappings is free for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortBlocks {
    /// Ports of a block, at least 1.
    pub size: u16,
    /// Blocks that a host may have at once, at least 1.
    pub per_host: u16,
}

/// A port that is forwarded to a host behind the NAT: whoever sends there gets through, and the host's packets from
/// there leave with that port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Forward {
    /// UDP or TCP.
    pub protocol: Protocol,
    /// The port of the NAT's (first) public address.
    pub port: u16,
    /// Where to.
    pub to: SocketAddrV4,
}

/// What a NAT grants to hosts that ask for forwards by NAT-PMP (RFC 6886), at port 5351 of [`Nat::gateway`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatPmp {
    /// How many forwards a host may have at once.
    pub per_host: u32,
    /// The longest that one lives without being asked for again.
    pub lifetime: Duration,
}

impl Default for NatPmp {
    /// 32 forwards, for up to 2 hours: the lifetime that RFC 6886, 3.3 recommends to ask for.
    fn default() -> Self {
        Self { per_host: 32, lifetime: Duration::from_secs(7200) }
    }
}
