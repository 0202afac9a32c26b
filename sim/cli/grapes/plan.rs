//! Which Grapes `grenache grapes up` starts: their names, kinds and ports.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use grenache_sim::grapes::{GrapeKind, GrapeSpec, ports};
use thiserror::Error;

use super::{Kinds, UpArgs};

/// The first DHT port, as in the original's documentation.
const DHT_PORT: u16 = 20001;

/// The first API ports, as in the original's documentation; the others follow the last.
const API_PORTS: [u16; 3] = [30001, 40001, 50001];

/// Why the Grapes that are asked for cannot have their ports.
#[derive(Debug, Error)]
pub(super) enum PlanError {
    #[error("{protocol} port {port} is in use: choose another with {flag}, or leave {flag} out to take what is free")]
    Taken { protocol: &'static str, port: u16, flag: &'static str },
    #[error("there are not enough {protocol} ports from {port} on: choose a lower one with {flag}")]
    NoneLeft { protocol: &'static str, port: u16, flag: &'static str },
}

/// What to start.
pub(super) fn plan(args: &UpArgs) -> Result<Vec<GrapeSpec>, PlanError> {
    let udp_is_free = |kind, port| {
        // The original's DHT node listens on every address, whatever its `-b` says.
        let address = if kind == GrapeKind::Node { Ipv4Addr::UNSPECIFIED } else { args.bind };
        ports::udp_is_free(address, port)
    };
    plan_with(args, udp_is_free, |port| ports::tcp_is_free(args.bind, port))
}

fn plan_with(
    args: &UpArgs,
    udp_is_free: impl Fn(GrapeKind, u16) -> bool,
    tcp_is_free: impl Fn(u16) -> bool,
) -> Result<Vec<GrapeSpec>, PlanError> {
    let mut dht = Ports { protocol: "UDP", flag: "--dht-port", first: args.dht_port, taken: BTreeSet::new() };
    let mut api = Ports { protocol: "TCP", flag: "--api-port", first: args.api_port, taken: BTreeSet::new() };
    let mut grapes = Vec::new();
    for index in 0..args.count {
        let kind = match args.kind {
            Kinds::Rust => GrapeKind::Rust,
            Kinds::Node => GrapeKind::Node,
            Kinds::Mixed if index % 2 == 0 => GrapeKind::Rust,
            Kinds::Mixed => GrapeKind::Node,
        };
        let last = API_PORTS.len() - 1;
        let usual_api = API_PORTS.get(usize::from(index)).copied();
        let usual_api = usual_api.unwrap_or(API_PORTS[last] + index - last as u16);
        let dht_port = dht.choose(index, DHT_PORT + index, |port| udp_is_free(kind, port))?;
        let api_port = api.choose(index, usual_api, &tcp_is_free)?;
        let spec = GrapeSpec::new(&format!("{}-{}", args.name, index + 1), kind, dht_port, api_port).quiet();
        // The original would take `-b 0.0.0.0` for the address of its own services.
        grapes.push(if args.bind.is_unspecified() { spec } else { spec.bind(args.bind) });
    }
    let nodes: Vec<SocketAddrV4> = grapes.iter().map(GrapeSpec::dht).collect();
    for (index, grape) in grapes.iter_mut().enumerate() {
        grape.bootstrap = nodes.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, node)| *node).collect();
    }
    Ok(grapes)
}

/// Hands out ports of one protocol.
struct Ports {
    protocol: &'static str,
    flag: &'static str,
    /// Where the command line says.
    first: Option<u16>,
    /// Handed out already.
    taken: BTreeSet<u16>,
}

impl Ports {
    /// The port of the Grape at `index`: what the command line says, or the first free one from `usual` on.
    fn choose(&mut self, index: u16, usual: u16, is_free: impl Fn(u16) -> bool) -> Result<u16, PlanError> {
        let (protocol, flag) = (self.protocol, self.flag);
        let port = match self.first {
            Some(first) => {
                let port = first.checked_add(index).ok_or(PlanError::NoneLeft { protocol, port: first, flag })?;
                if !is_free(port) {
                    return Err(PlanError::Taken { protocol, port, flag });
                }
                port
            }
            None => {
                let mut from_usual = usual..=u16::MAX;
                let port = from_usual.find(|port| !self.taken.contains(port) && is_free(*port));
                port.ok_or(PlanError::NoneLeft { protocol, port: usual, flag })?
            }
        };
        self.taken.insert(port);
        Ok(port)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Place;
    use super::*;

    fn args(count: u16) -> UpArgs {
        UpArgs {
            count,
            kind: Kinds::Mixed,
            on: Place::Process,
            dht_port: None,
            api_port: None,
            bind: Ipv4Addr::LOCALHOST,
            name: "grape".to_owned(),
            timeout: Duration::from_secs(1),
            json: false,
        }
    }

    fn ports(grapes: &[GrapeSpec]) -> Vec<(u16, u16)> {
        grapes.iter().map(|grape| (grape.dht_port, grape.api_port)).collect()
    }

    #[test]
    fn ports_are_those_of_the_originals_documentation() {
        let grapes = plan_with(&args(5), |_, _| true, |_| true).expect("all is free");
        let expected = [(20001, 30001), (20002, 40001), (20003, 50001), (20004, 50002), (20005, 50003)];
        assert_eq!(ports(&grapes), expected);
        let first = &grapes[0];
        assert_eq!((first.name.as_str(), first.kind, first.bind), ("grape-1", GrapeKind::Rust, Some(args(1).bind)));
        assert_eq!(grapes[1].kind, GrapeKind::Node);
        let others: Vec<u16> = first.bootstrap.iter().map(SocketAddrV4::port).collect();
        assert_eq!(others, [20002, 20003, 20004, 20005], "each starts from all others");
    }

    #[test]
    fn the_next_free_port_is_taken_unless_one_is_asked_for() {
        let udp = |_, port| !matches!(port, 20001 | 20003);
        let tcp = |port| port != 40001;
        let grapes = plan_with(&args(3), udp, tcp).expect("enough is free");
        assert_eq!(ports(&grapes), [(20002, 30001), (20004, 40002), (20005, 50001)]);

        let asked = UpArgs { dht_port: Some(20000), api_port: Some(8000), ..args(3) };
        let error = plan_with(&asked, udp, tcp).expect_err("20001 is in use").to_string();
        assert!(error.starts_with("UDP port 20001 is in use: choose another with --dht-port"), "{error}");
        let free = plan_with(&asked, |_, _| true, |_| true).expect("all is free");
        assert_eq!(ports(&free), [(20000, 8000), (20001, 8001), (20002, 8002)]);
        let too_high = UpArgs { api_port: Some(65534), ..args(3) };
        let error = plan_with(&too_high, |_, _| true, |_| true).expect_err("there is no port 65536").to_string();
        assert!(error.starts_with("there are not enough TCP ports from 65534 on"), "{error}");
    }

    #[test]
    fn the_original_needs_its_port_on_every_address() {
        // Somebody has it on another address.
        let other = std::net::UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).expect("there are free ports");
        let port = other.local_addr().expect("it is bound").port();
        let kind = |kind| plan(&UpArgs { kind, dht_port: Some(port), ..args(1) });
        assert!(kind(Kinds::Rust).is_ok());
        assert!(matches!(kind(Kinds::Node), Err(PlanError::Taken { .. })));
    }

    #[test]
    fn every_address_is_no_address_to_bind() {
        let every = UpArgs { bind: Ipv4Addr::UNSPECIFIED, ..args(2) };
        let grapes = plan_with(&every, |_, _| true, |_| true).expect("all is free");
        assert_eq!(grapes[0].bind, None);
        assert_eq!(grapes[0].bootstrap, [SocketAddrV4::new(Ipv4Addr::LOCALHOST, 20002)]);
    }
}
