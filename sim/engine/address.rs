//! A host's addresses, and which of them a socket uses: as on Linux.
//!
//! A socket that is bound to `0.0.0.0` is for IPv4 only. One that is bound to `[::]` is for both (`IPV6_V6ONLY` is
//! off, RFC 3493, 3.7 and 5.3): what comes to it over IPv4 has an IPv4-mapped source (`::ffff:192.0.2.1`), and it
//! sends over IPv4 to an IPv4 or IPv4-mapped destination.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The addresses of a host's one interface: at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// Whether the host has this address, loopback aside.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4 == Some(ip),
            IpAddr::V6(ip) => self.v6 == Some(ip),
        }
    }

    /// The source of what a socket bound to `bound` sends to `to`. Both are canonical: no IPv4-mapped addresses.
    pub(crate) fn source(&self, bound: IpAddr, to: IpAddr) -> io::Result<IpAddr> {
        if bound.is_ipv4() && to.is_ipv6() {
            return Err(io::Error::new(
                ErrorKind::Unsupported,
                format!("a socket bound to {bound} is for IPv4: bind one to [::] to reach {to}"),
            ));
        }
        if bound.is_unspecified() {
            return match to {
                IpAddr::V4(to) if to.is_loopback() => Ok(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(to) if to.is_loopback() => Ok(Ipv6Addr::LOCALHOST.into()),
                IpAddr::V4(_) => self.v4.map(IpAddr::V4).ok_or_else(|| unreachable(to)),
                IpAddr::V6(_) => self.v6.map(IpAddr::V6).ok_or_else(|| unreachable(to)),
            };
        }
        if bound.is_ipv6() && to.is_ipv4() {
            return Err(unreachable(to));
        }
        if bound.is_loopback() && !to.is_loopback() && !self.contains(to) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a loopback socket reaches only its own host"));
        }
        // A socket that was bound to an address keeps it, though the host may have moved since.
        Ok(bound)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.v4, self.v6) {
            (Some(v4), Some(v6)) => write!(f, "{v4} and {v6}"),
            (Some(v4), None) => v4.fmt(f),
            (None, Some(v6)) => v6.fmt(f),
            (None, None) => f.write_str("none"),
        }
    }
}

/// IPv4-mapped addresses become IPv4; flow labels and scopes go.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(address) => SocketAddr::new(address.ip().to_canonical(), address.port()),
    }
}

/// A peer's address as a socket bound to `local` tells it: IPv4-mapped on one for IPv6.
pub(crate) fn told(local: &SocketAddr, peer: SocketAddr) -> SocketAddr {
    match (local, peer) {
        (SocketAddr::V6(_), SocketAddr::V4(peer)) => SocketAddr::new(peer.ip().to_ipv6_mapped().into(), peer.port()),
        _ => peer,
    }
}

/// Whether two sockets cannot be bound to one port with these addresses.
pub(crate) fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b || takes(a, b) || takes(b, a)
}

/// Whether a socket bound to `bound` is for what comes to `to`.
pub(crate) fn takes(bound: IpAddr, to: IpAddr) -> bool {
    match bound {
        IpAddr::V4(ip) if ip.is_unspecified() => to.is_ipv4(),
        IpAddr::V6(ip) if ip.is_unspecified() => true,
        _ => bound == to,
    }
}

fn unreachable(to: IpAddr) -> io::Error {
    let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
    io::Error::new(ErrorKind::NetworkUnreachable, format!("this host has no {family} address to reach {to} from"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_source_is_of_the_destinations_family() {
        let dual = Addresses { v4: Some(Ipv4Addr::new(203, 0, 113, 1)), v6: Some("2001:db8::1".parse().unwrap()) };
        let source = |bound, to| dual.source(ip(bound), ip(to)).map(|source| source.to_string());
        assert_eq!(source("0.0.0.0", "198.51.100.1").unwrap(), "203.0.113.1");
        assert_eq!(source("::", "198.51.100.1").unwrap(), "203.0.113.1");
        assert_eq!(source("::", "2001:db8::2").unwrap(), "2001:db8::1");
        assert_eq!(source("::", "::1").unwrap(), "::1");
        assert_eq!(source("0.0.0.0", "2001:db8::2").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(source("2001:db8::1", "198.51.100.1").unwrap_err().kind(), ErrorKind::NetworkUnreachable);
        let six = Addresses { v4: None, ..dual };
        assert_eq!(six.source(ip("::"), ip("198.51.100.1")).unwrap_err().kind(), ErrorKind::NetworkUnreachable);
    }

    #[test]
    fn a_dual_socket_overlaps_both_families() {
        for (a, b, expected) in [
            ("::", "0.0.0.0", true),
            ("::", "10.0.0.1", true),
            ("::", "::1", true),
            ("0.0.0.0", "::1", false),
            ("0.0.0.0", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
        ] {
            assert_eq!(overlap(ip(a), ip(b)), expected, "{a} and {b}");
            assert_eq!(overlap(ip(b), ip(a)), expected, "{b} and {a}");
        }
    }
}
