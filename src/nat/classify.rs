//! From what brokers saw to what the NAT does: no I/O.

use std::net::SocketAddr;

use super::{Behaviour, Filtering, MAX_STEP, Mapping, Ports};

/// How many fresh sockets have to be seen before the port assignment is told.
const MIN_SAMPLES: usize = 3;

/// The ports that NATs give out: RFC 4787, 4.2.2 keeps the well-known ones apart.
const FIRST_PORT: i32 = 1024;
const PORTS: i32 = 65_536 - FIRST_PORT;

/// A fresh socket's first mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The socket's own port.
    pub local_port: u16,
    /// What the first broker saw.
    pub mapped: SocketAddr,
}

/// What brokers saw of this host's sockets; `None` and empty where nobody was asked, or nobody could be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    /// Fresh sockets as the first broker saw them, in the order in which they were made. The first is the one that the
    /// next two speak of.
    pub samples: Vec<Sample>,
    /// The first socket, as the first broker saw it at its other port.
    pub at_other_port: Option<SocketAddr>,
    /// The first socket, as a broker with another address saw it.
    pub at_other_address: Option<SocketAddr>,
    /// The address that this host itself has towards the first broker.
    pub own_address: Option<std::net::IpAddr>,
    /// Whether an answer came in from a port of the broker's that nothing was sent to.
    pub lets_other_ports_in: Option<bool>,
    /// Whether one came in from an address that nothing was sent to.
    pub lets_other_addresses_in: Option<bool>,
}

impl Observations {
    /// What the NAT does. What too little was seen of is unknown.
    pub fn classify(&self) -> Behaviour {
        let mapping = self.mapping();
        let ports = if mapping == Mapping::NoNat { Ports::Preserving } else { self.ports() };
        Behaviour { mapping, filtering: self.filtering(), ports }
    }

    /// RFC 5780, 4.3.
    fn mapping(&self) -> Mapping {
        let Some(first) = self.samples.first() else { return Mapping::Unknown };
        let own = self.own_address.map(|ip| SocketAddr::new(ip, first.local_port));
        if own == Some(first.mapped)
            && [self.at_other_port, self.at_other_address].iter().flatten().all(|a| Some(*a) == own)
        {
            return Mapping::NoNat;
        }
        let same = |seen: Option<SocketAddr>| seen.map(|seen| seen == first.mapped);
        match (same(self.at_other_port), same(self.at_other_address)) {
            (Some(false), _) => Mapping::AddressAndPortDependent,
            (_, Some(true)) => Mapping::EndpointIndependent,
            (Some(true), Some(false)) => Mapping::AddressDependent,
            (None, Some(false)) | (_, None) => Mapping::Unknown,
        }
    }

    /// RFC 5780, 4.4.
    fn filtering(&self) -> Filtering {
        match (self.lets_other_addresses_in, self.lets_other_ports_in) {
            (Some(true), _) => Filtering::EndpointIndependent,
            (Some(false), Some(true)) => Filtering::AddressDependent,
            (_, Some(false)) => Filtering::AddressAndPortDependent,
            (Some(false), None) | (None, Some(true) | None) => Filtering::Unknown,
        }
    }

    /// Preserved where most are, contiguous where each follows closely on the one before.
    fn ports(&self) -> Ports {
        if self.samples.len() < MIN_SAMPLES {
            return Ports::Unknown;
        }
        let preserved = self.samples.iter().filter(|sample| sample.local_port == sample.mapped.port()).count();
        if preserved * 2 > self.samples.len() {
            return Ports::Preserving;
        }
        let mut steps = self.samples.windows(2).map(|pair| distance(pair[0].mapped.port(), pair[1].mapped.port()));
        let smallest = steps.clone().min_by_key(|step| step.abs()).unwrap_or(0);
        // Others behind the NAT take ports meanwhile: the smallest step is the NAT's own.
        if steps.all(|step| step != 0 && step.abs() <= MAX_STEP && step.signum() == smallest.signum()) {
            Ports::Contiguous(smallest)
        } else {
            Ports::Random
        }
    }
}

/// How many ports `to` is after `from` (before it where negative), where the first port follows the last.
fn distance(from: u16, to: u16) -> i32 {
    let ahead = (i32::from(to) - i32::from(from)).rem_euclid(PORTS);
    if ahead > PORTS / 2 { ahead - PORTS } else { ahead }
}

/// The port that is `steps` steps after `port`, where the first port follows the last.
pub(crate) fn port_after(port: u16, step: i32, steps: i32) -> u16 {
    let offset = (i32::from(port) - FIRST_PORT + step * steps).rem_euclid(PORTS);
    u16::try_from(FIRST_PORT + offset).unwrap_or(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn samples(ports: &[(u16, u16)]) -> Vec<Sample> {
        let sample = |&(local_port, mapped): &(u16, u16)| Sample {
            local_port,
            mapped: SocketAddr::from(([198, 51, 100, 1], mapped)),
        };
        ports.iter().map(sample).collect()
    }

    fn seen(ports: &[(u16, u16)]) -> Observations {
        Observations { samples: samples(ports), ..Observations::default() }
    }

    #[test]
    fn rfc_5780_4_3_mapping() {
        let same = Some(at("198.51.100.1:5000"));
        let other = Some(at("198.51.100.1:5001"));
        for (at_other_port, at_other_address, expected) in [
            (same, same, Mapping::EndpointIndependent),
            (None, same, Mapping::EndpointIndependent),
            (same, other, Mapping::AddressDependent),
            (other, other, Mapping::AddressAndPortDependent),
            (other, None, Mapping::AddressAndPortDependent),
            (same, None, Mapping::Unknown),
            (None, other, Mapping::Unknown),
            (None, None, Mapping::Unknown),
        ] {
            let seen = Observations { at_other_port, at_other_address, ..seen(&[(9, 5000)]) };
            assert_eq!(seen.classify().mapping, expected, "{seen:?}");
        }
        assert_eq!(Observations::default().classify(), Behaviour::UNKNOWN);
    }

    #[test]
    fn there_is_no_nat_where_all_see_the_hosts_own_address() {
        let own_address = Some("198.51.100.1".parse().unwrap());
        let open = Observations { own_address, ..seen(&[(5000, 5000)]) };
        assert_eq!(open.classify().mapping, Mapping::NoNat);
        let elsewhere = Observations { at_other_address: Some(at("198.51.100.1:6")), ..open.clone() };
        assert_eq!(elsewhere.classify().mapping, Mapping::Unknown);
        let private = Observations { own_address: Some("192.168.1.2".parse().unwrap()), ..open };
        assert_eq!(private.classify().mapping, Mapping::Unknown, "a NAT that preserves the port");
    }

    #[test]
    fn rfc_5780_4_4_filtering() {
        for (lets_other_addresses_in, lets_other_ports_in, expected) in [
            (Some(true), Some(true), Filtering::EndpointIndependent),
            (Some(true), None, Filtering::EndpointIndependent),
            (Some(false), Some(true), Filtering::AddressDependent),
            (Some(false), Some(false), Filtering::AddressAndPortDependent),
            (None, Some(false), Filtering::AddressAndPortDependent),
            (None, Some(true), Filtering::Unknown),
            (Some(false), None, Filtering::Unknown),
        ] {
            let seen = Observations { lets_other_addresses_in, lets_other_ports_in, ..Observations::default() };
            assert_eq!(seen.classify().filtering, expected, "{seen:?}");
        }
    }

    #[test]
    fn port_assignment_takes_three_samples_and_bears_with_others_behind_the_nat() {
        for (ports, expected) in [
            (&[(7, 7), (8, 8)][..], Ports::Unknown),
            (&[(7, 7), (8, 8), (9, 9)], Ports::Preserving),
            (&[(7, 7), (8, 5000), (9, 9), (10, 10)], Ports::Preserving),
            (&[(7, 2000), (8, 2001), (9, 2002)], Ports::Contiguous(1)),
            (&[(7, 2000), (8, 2005), (9, 2007)], Ports::Contiguous(2)),
            (&[(7, 2000), (8, 1998), (9, 1996)], Ports::Contiguous(-2)),
            (&[(7, 65535), (8, 1024), (9, 1025)], Ports::Contiguous(1)),
            (&[(7, 2000), (8, 2016), (9, 2032)], Ports::Contiguous(16)),
            (&[(7, 2000), (8, 2017), (9, 2033)], Ports::Random),
            (&[(7, 2000), (8, 2001), (9, 2000)], Ports::Random),
            (&[(7, 2000), (8, 2000), (9, 2000)], Ports::Random),
            (&[(7, 31_000), (8, 2001), (9, 52_000)], Ports::Random),
        ] {
            assert_eq!(seen(ports).classify().ports, expected, "{ports:?}");
        }
    }

    #[test]
    fn ports_wrap_where_nats_wrap_them() {
        assert_eq!(port_after(65_535, 1, 1), 1024);
        assert_eq!(port_after(1024, -2, 1), 65_534);
        assert_eq!(port_after(5000, 2, 3), 5006);
        assert_eq!((distance(65_535, 1024), distance(1024, 65_535), distance(5, 5)), (1, -1, 0));
    }
}
