//! What stands in a packet's way: links, NATs and firewalls, each a state machine without I/O.
//!
//! A hop is told the time and the packet, and answers with the packet's fate. It keeps no clock and starts nothing,
//! so that the same code can stand between simulated hosts or between real ones.

mod firewall;
mod link;
mod nat;

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

pub(crate) use firewall::{FirewallRule, FirewallState};
pub(crate) use link::LinkState;
pub(crate) use nat::{Headers, Mapped, NatState, Note, PMP_PORT};

use super::packet::MTU;
use crate::scenario::model::Dependence;

/// The rule by which a hop dropped a packet. Its `Display` is the event log's wording.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rule {
    /// The link's random loss, as a probability.
    Loss(f64),
    /// The link's queue, of this many bytes, is full.
    QueueFull(usize),
    /// The NAT has no mapping with this external port.
    NoMapping(u16),
    /// The NAT's filtering refuses this sender at this external port.
    Filtered { source: SocketAddr, port: u16, filtering: Dependence },
    /// The NAT does not hairpin.
    NoHairpinning,
    /// The NAT has no external port left.
    NoFreePort,
    /// Nobody has the destination address.
    NoHost(IpAddr),
    /// There is no way there from this LAN: its router has no IPv6.
    NoIpv6,
    /// No socket takes packets to this port.
    NoSocket(u16),
    /// The socket's receive buffer, of this many bytes, is full.
    BufferFull(usize),
    /// The listener has this many connections that nobody accepted.
    BacklogFull(usize),
    /// The packet does not fit on the link.
    TooLarge,
    /// A partition separates sender and receiver.
    Partition,
    /// A fault holds the link down.
    LinkDown,
    /// The NAT reboots.
    NatReboots,
    /// The host had this address, and has moved.
    Moved(IpAddr),
    /// The firewall refuses it.
    Firewall(FirewallRule),
    /// The receiving host is down.
    HostDown,
    /// Another host behind the NAT has sent there from the overloaded port.
    PortOverloaded { port: u16, remote: SocketAddrV4 },
    /// The host has as many of the NAT's mappings as it may.
    TooManyMappings(u32),
    /// The host's blocks of ports, which are as many as it may have, are full.
    BlocksFull(u16),
    /// The NAT translates addresses one to one, and has none for this host.
    NoPublicAddress,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Rounded to a millionth of a percent: 0.07 × 100 is not quite 7.
            Self::Loss(probability) => write!(f, "random loss of {}%", (probability * 1e8).round() / 1e6),
            Self::QueueFull(bytes) => write!(f, "queue full ({})", Bytes(*bytes)),
            Self::NoMapping(port) => write!(f, "no mapping for port {port}"),
            Self::Filtered { source, port, filtering } => {
                let (who, kind) = match filtering {
                    Dependence::AddressAndPortDependent => (source.to_string(), "address-and-port-dependent"),
                    _ => (source.ip().to_string(), "address-dependent"),
                };
                write!(f, "filtered: nothing was sent from port {port} to {who} ({kind})")
            }
            Self::NoHairpinning => f.write_str("no hairpinning"),
            Self::NoFreePort => f.write_str("no free port"),
            Self::NoHost(address) => write!(f, "no host at {address}"),
            Self::NoIpv6 => f.write_str("no route: the router has no IPv6"),
            Self::NoSocket(port) => write!(f, "no socket on port {port}"),
            Self::BufferFull(bytes) => write!(f, "receive buffer full ({})", Bytes(*bytes)),
            Self::BacklogFull(connections) => write!(f, "backlog full ({connections} connections)"),
            Self::TooLarge => write!(f, "larger than the MTU of {MTU}"),
            Self::Partition => f.write_str("partition"),
            Self::LinkDown => f.write_str("link is down"),
            Self::NatReboots => f.write_str("nat reboots"),
            Self::Moved(address) => write!(f, "host is no longer at {address}"),
            Self::Firewall(rule) => rule.fmt(f),
            Self::HostDown => f.write_str("host is down"),
            Self::PortOverloaded { port, remote } => write!(f, "another host has sent from port {port} to {remote}"),
            Self::TooManyMappings(limit) => write!(f, "limit of {limit} mappings per host"),
            Self::BlocksFull(blocks) => write!(f, "no free port in the host's {blocks} blocks"),
            Self::NoPublicAddress => f.write_str("no public address for this host"),
        }
    }
}

/// A number of bytes as people write it.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n > 0 && n % (1 << 20) == 0 => write!(f, "{} MiB", n >> 20),
            n if n > 0 && n % (1 << 10) == 0 => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{n} B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_well() {
        let source = "203.0.113.5:80".parse().unwrap();
        for (rule, text) in [
            (Rule::Loss(0.07), "random loss of 7%"),
            (Rule::Loss(0.005), "random loss of 0.5%"),
            (Rule::QueueFull(256 << 10), "queue full (256 KiB)"),
            (Rule::QueueFull(1000), "queue full (1000 B)"),
            (Rule::BufferFull(4 << 20), "receive buffer full (4 MiB)"),
            (
                Rule::Filtered { source, port: 4000, filtering: Dependence::AddressDependent },
                "filtered: nothing was sent from port 4000 to 203.0.113.5 (address-dependent)",
            ),
        ] {
            assert_eq!(rule.to_string(), text);
        }
    }
}
