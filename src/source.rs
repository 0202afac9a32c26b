//! Whom an address counts for.

use std::net::{IpAddr, Ipv6Addr};

/// The bits of an IPv6 address that tell networks apart: a host can have any of the other 64 (RFC 4291, 2.5.1).
const NETWORK: u128 = !0 << 64;

/// What limits that go by the source count: an IPv4 address, or the /64 network of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source(IpAddr);

/// The source that an address is of. An IPv4 address is the same source on an IPv6 socket, where it is mapped.
pub(crate) fn source(address: impl Into<IpAddr>) -> Source {
    Source(match address.into().to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into(),
        ip => ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Source {
        source(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn an_ipv6_host_is_one_source_whichever_address_of_its_network_it_takes() {
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"), "the bit above is another network's");
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db9:1:2::1"));
    }

    #[test]
    fn an_ipv4_address_is_a_source_whole_mapped_or_not() {
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(of("::ffff:192.0.2.1"), of("::ffff:192.0.2.2"), "no network of IPv6");
        assert_ne!(of("192.0.2.1"), of("::1"));
    }
}
