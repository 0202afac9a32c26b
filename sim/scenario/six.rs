//! IPv6 in scenarios: which networks and addresses there are, and who can run what on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use ipnet::Ipv6Net;
use toml::Spanned;

use super::error::Problems;
use super::model::{Name, Node};
use super::raw::{File, ProgramTable};
use super::topology::{Topology, defined};
use super::units::AnyEndpoint;

/// The addresses that hosts can have: global unicast (RFC 4291, 2.4; assigned by IANA), documentation's among them.
const GLOBAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Gives every NAT its IPv6 network and every node its IPv6 address: the one written, or the next free one in the
/// network of the NAT that it is behind.
pub(super) fn fill_in(problems: &mut Problems, file: &File, topology: &mut Topology) {
    networks(problems, file, topology);
    let mut taken = BTreeMap::new();
    for (name, table) in &file.nodes {
        let Some(written) = &table.address6 else { continue };
        let Some(node) = topology.nodes.get(name.get_ref().as_str()) else { continue };
        let (address, span) = (written.get_ref().0, written.span());
        if let Some(problem) = misplaced(topology, node, address) {
            problems.add(span.clone(), problem.0).help(problem.1);
            continue;
        }
        if let Some((other, first)) = taken.insert(address, (name.get_ref().clone(), span.clone())) {
            let first: Range<usize> = first;
            problems
                .add(
                    span,
                    format!("{address} is used twice: by the node `{other}` and by the node `{}`", name.get_ref()),
                )
                .label("used again")
                .also(first, "used here already");
        }
        if let Some(node) = topology.nodes.get_mut(name.get_ref().as_str()) {
            node.address6 = Some(address);
        }
    }
    let mut used: BTreeSet<Ipv6Addr> = taken.into_keys().collect();
    let parts: Vec<Ipv6Net> =
        topology.nats.values().filter(|nat| nat.behind.is_some()).filter_map(|nat| nat.lan6).collect();
    let mut next: BTreeMap<Name, u128> = BTreeMap::new();
    for (name, _) in file.nodes.iter().filter(|(_, table)| table.address6.is_none()) {
        let Some(node) = topology.nodes.get_mut(name.get_ref().as_str()) else { continue };
        let Some((nat, lan6)) =
            node.behind.clone().and_then(|nat| topology.nats.get(&nat)?.lan6.map(|lan6| (nat, lan6)))
        else {
            continue;
        };
        let nested = |address: &Ipv6Addr| {
            parts.iter().any(|part| *part != lan6 && lan6.contains(part) && part.contains(address))
        };
        let from = next.entry(nat).or_insert(2);
        // The first address of a network is its router's, by custom.
        let free = (*from..).map(|host| Ipv6Addr::from_bits(lan6.network().to_bits() + host));
        let free = free
            .take_while(|address| lan6.contains(address))
            .find(|address| !used.contains(address) && !nested(address));
        let Some(address) = free else {
            problems
                .add(name.span(), format!("there is no free address in {lan6} for `{}`", name.get_ref()))
                .help("write its `address6`");
            continue;
        };
        *from = address.to_bits() - lan6.network().to_bits() + 1;
        used.insert(address);
        node.address6 = Some(address);
    }
}

/// Reads the NATs' `lan6`.
fn networks(problems: &mut Problems, file: &File, topology: &mut Topology) {
    for (name, table) in &file.nats {
        let (Some(written), Some(nat)) = (&table.lan6, topology.nats.get_mut(name.get_ref().as_str())) else {
            continue;
        };
        let lan6 = written.get_ref().0;
        if !GLOBAL.contains(&lan6) || lan6.prefix_len() > 64 {
            problems
                .add(
                    written.span(),
                    format!("{lan6} cannot be a LAN: it is a part of {GLOBAL} with a prefix of /64 or less"),
                )
                .help("write one such as \"2001:db8:1::/64\"");
            continue;
        }
        nat.lan6 = Some(lan6);
    }
    let mut known: Vec<(&str, Ipv6Net, Range<usize>)> = Vec::new();
    for (name, table) in &file.nats {
        let Some(nat) = topology.nats.get(name.get_ref().as_str()) else { continue };
        let (Some(lan6), Some(written)) = (nat.lan6, &table.lan6) else { continue };
        let outer = nat.behind.as_ref().and_then(|outer| Some((outer, topology.nats.get(outer)?)));
        if let Some((outer_name, outer)) = outer
            && !outer.lan6.is_some_and(|outer6| outer6 != lan6 && outer6.contains(&lan6))
        {
            let what = match outer.lan6 {
                Some(outer6) => {
                    format!("{lan6} is not a part of {outer6}, the `lan6` of `{outer_name}`, which it is behind")
                }
                None => format!("`{}` has IPv6, but `{outer_name}`, which it is behind, has not", name.get_ref()),
            };
            problems.add(written.span(), what).help(
                "a router behind another has a part of that one's network, such as a /64 of its /56 (RFC 8415, 6.3)",
            );
        }
        let beside = |other: &str| topology.nats.get(other).is_some_and(|other| other.behind == nat.behind);
        let overlaps = |other: &Ipv6Net| other.contains(&lan6) || lan6.contains(other);
        if let Some((other, other6, first)) = known.iter().find(|(other, other6, _)| beside(other) && overlaps(other6))
        {
            problems
                .add(
                    written.span(),
                    format!("the network {lan6} of `{}` overlaps {other6} of `{other}`", name.get_ref()),
                )
                .help("IPv6 is not translated: every network has addresses of its own")
                .also(first.clone(), "the other");
        }
        known.push((name.get_ref(), lan6, written.span()));
    }
}

/// Why a node cannot have this address, and what to do.
fn misplaced(topology: &Topology, node: &Node, address: Ipv6Addr) -> Option<(String, String)> {
    if !GLOBAL.contains(&address) {
        let help = "give it a global one such as \"2001:db8::1\"".to_owned();
        return Some((format!("{address} cannot be a host's address here"), help));
    }
    let behind = node.behind.as_ref().and_then(|nat| Some((nat, topology.nats.get(nat)?)));
    if let Some((nat, table)) = behind {
        let Some(lan6) = table.lan6 else {
            let help = format!("give `{nat}` a `lan6` such as \"2001:db8:1::/64\", or leave `address6` out");
            return Some((format!("`{nat}`, which the node is behind, has no IPv6"), help));
        };
        if !lan6.contains(&address) {
            let help = "leave `address6` out for the next free one".to_owned();
            return Some((format!("{address} is not an address in the LAN {lan6} of `{nat}`"), help));
        }
    }
    let inner = topology
        .nats
        .iter()
        .find(|(_, nat)| nat.behind == node.behind && nat.lan6.is_some_and(|l| l.contains(&address)));
    inner.map(|(name, _)| {
        (format!("{address} is in the LAN behind `{name}`"), format!("write another address, or `behind = \"{name}\"`"))
    })
}

/// Programs run on nodes that have addresses of their kind.
pub(super) fn check_programs(problems: &mut Problems, file: &File, topology: &Topology) {
    for program in &file.programs {
        let table = program.get_ref();
        let Some(node) = topology.nodes.get(table.node().get_ref().as_str()) else { continue };
        let six = match table {
            ProgramTable::Worker(worker) => worker.ipv6.as_ref().filter(|ipv6| *ipv6.get_ref()).map(Spanned::span),
            ProgramTable::Client(client) => client
                .at
                .as_ref()
                .filter(|at| matches!(at.get_ref(), AnyEndpoint::Address(SocketAddr::V6(_)) | AnyEndpoint::Node(..)))
                .map(Spanned::span),
            _ => None,
        };
        let name = table.node().get_ref();
        if let (Some(span), None) = (&six, node.address6)
            && !matches!(table, ProgramTable::Client(client) if client.at.as_ref().is_some_and(|at| matches!(at.get_ref(), AnyEndpoint::Node(..))))
        {
            problems
                .add(span.clone(), format!("`{name}` has no IPv6 address"))
                .help("write its `address6`, or the `lan6` of the NAT that it is behind");
        }
        if six.is_none() && node.address.is_unspecified() && node.address6.is_some() {
            problems
                .add(table.node().span(), format!("`{name}` has no IPv4 address, which this program needs: the DHT is of IPv4"))
                .help("write an `address` beside `address6`; without one run a worker with `ipv6 = true`, or a client with `at`");
        }
    }
}

/// The address that a client's `at` means: of a node with IPv6, where the client has it as well, its IPv6 address.
pub(super) fn endpoint(
    problems: &mut Problems,
    topology: &Topology,
    viewer: &Name,
    written: &Spanned<AnyEndpoint>,
) -> Option<SocketAddr> {
    let (name, port) = match written.get_ref() {
        AnyEndpoint::Address(address) => return Some(*address),
        AnyEndpoint::Node(name, port) => (Spanned::new(written.span(), name.clone()), *port),
    };
    let target = defined(problems, "node", &name, &topology.nodes)?;
    let six = |node: &Name| topology.nodes.get(node).and_then(|node| node.address6);
    if let (Some(address), Some(_)) = (six(&target), six(viewer)) {
        return Some(SocketAddr::new(address.into(), port));
    }
    let four = |node: &Name| topology.nodes.get(node).is_some_and(|node| !node.address.is_unspecified());
    if !four(viewer) || !four(&target) {
        problems
            .add(written.span(), format!("`{viewer}` and `{target}` have no kind of address in common"))
            .help("one has only IPv4, the other only IPv6: give one of them both");
        return None;
    }
    Some(SocketAddr::new(IpAddr::V4(topology.address_seen(viewer, &target)), port))
}
