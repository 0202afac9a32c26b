//! What a NAT is: RFC 4787's axes, each with the value that most home routers have as its default.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::Name;

/// The network behind a NAT that names none.
const DEFAULT_LAN: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 1, 0), 24);

/// How long a NAT's mapping lives unused: the least that RFC 4787 (4.3, REQ-5) allows.
const DEFAULT_UDP_TIMEOUT: Duration = Duration::from_secs(120);

/// A NAT in RFC 4787's terms, with the network behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Nat {
    /// Its public address.
    pub address: Ipv4Addr,
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
    /// How long a UDP mapping lives unused (RFC 4787, 4.3).
    pub udp_timeout: Duration,
    /// Whether two hosts behind it can reach each other by their public addresses (RFC 4787, 6).
    pub hairpinning: bool,
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
}

impl Default for Nat {
    /// A port-restricted cone NAT in front of 192.168.1.0/24, without an address.
    fn default() -> Self {
        Self {
            address: Ipv4Addr::UNSPECIFIED,
            lan: DEFAULT_LAN,
            behind: None,
            link: None,
            mapping: Dependence::EndpointIndependent,
            filtering: Dependence::AddressAndPortDependent,
            ports: PortAssignment::Preserving,
            udp_timeout: DEFAULT_UDP_TIMEOUT,
            hairpinning: false,
        }
    }
}
