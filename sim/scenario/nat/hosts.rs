//! What of a NAT concerns the hosts behind it, once all have their addresses.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

use toml::Spanned;

use super::super::error::{Problems, suggestion};
use super::super::model::{Forward, Name};
use super::super::raw::{File, Text};
use super::super::topology::{Topology, shared};
use super::super::units::Endpoint;
use super::NatTable;

/// The addresses of the hosts and NATs that are behind a NAT, and on no network further in: hosts first, in the file's
/// order.
fn behind(file: &File, topology: &Topology, nat: &Name) -> Vec<(Text, Ipv4Addr)> {
    let nodes = file.nodes.iter().filter_map(|(name, _)| {
        let node = topology.nodes.get(name.get_ref().as_str())?;
        (node.behind.as_ref() == Some(nat)).then(|| (name.clone(), node.address))
    });
    let nats = file.nats.iter().filter_map(|(name, _)| {
        let inner = topology.nats.get(name.get_ref().as_str())?;
        (inner.behind.as_ref() == Some(nat)).then(|| (name.clone(), inner.address))
    });
    nodes.chain(nats).collect()
}

/// Resolves the forwards of each NAT.
pub(in super::super) fn forwards(problems: &mut Problems, file: &File, topology: &mut Topology) {
    for (name, table) in file.nats.iter().filter(|(_, table)| !table.forward.is_empty()) {
        let name = shared(name);
        let hosts = behind(file, topology, &name);
        let forwards = of_one(problems, table, &name, &hosts, topology);
        if let Some(nat) = topology.nats.get_mut(&name) {
            nat.forwards = forwards;
        }
    }
}

fn of_one(
    problems: &mut Problems,
    table: &NatTable,
    nat: &Name,
    hosts: &[(Text, Ipv4Addr)],
    topology: &Topology,
) -> Vec<Forward> {
    let mut forwards: Vec<Forward> = Vec::new();
    let mut seen: BTreeMap<Forward, Range<usize>> = BTreeMap::new();
    for written in &table.forward {
        let forward = written.get_ref();
        let Some(to) = target(problems, &forward.to, nat, hosts, topology) else { continue };
        let forward = Forward { protocol: forward.protocol.into(), port: forward.port.get_ref().port(), to };
        let same = |other: &&Forward| {
            other.protocol == forward.protocol && (other.port == forward.port || other.to == forward.to)
        };
        if let Some(other) = forwards.iter().find(same) {
            let what = if other.port == forward.port {
                format!("port {} of `{nat}` is forwarded twice", forward.port)
            } else {
                format!("two ports of `{nat}` are forwarded to {to}: its packets could leave with one only")
            };
            problems
                .add(written.span(), what)
                .label("again")
                .also(seen.get(other).cloned().unwrap_or_default(), "forwarded here already");
            continue;
        }
        seen.insert(forward, written.span());
        forwards.push(forward);
    }
    forwards
}

/// Where a forward leads: to who is behind the NAT itself.
fn target(
    problems: &mut Problems,
    to: &Spanned<Endpoint>,
    nat: &Name,
    hosts: &[(Text, Ipv4Addr)],
    topology: &Topology,
) -> Option<SocketAddrV4> {
    match to.get_ref() {
        Endpoint::Address(address) => {
            let lan = topology.nats.get(nat)?.lan;
            if !lan.contains(address.ip()) {
                problems
                    .add(to.span(), format!("{} is not in the LAN {lan} of `{nat}`", address.ip()))
                    .label("outside of the LAN")
                    .help("a NAT forwards ports to hosts behind it");
                return None;
            }
            Some(*address)
        }
        Endpoint::Node(name, port) => {
            let found = hosts.iter().find(|(host, _)| host.get_ref() == name);
            if found.is_none() {
                let names: Vec<&str> = hosts.iter().map(|(host, _)| host.get_ref().as_str()).collect();
                problems
                    .add(to.span(), format!("`{name}` is not behind `{nat}` itself"))
                    .label("not there")
                    .help(suggestion(&format!("behind `{nat}`"), name, &names));
            }
            found.map(|(_, address)| SocketAddrV4::new(*address, *port))
        }
    }
}

/// Gives each host behind a one-to-one NAT a public address: those written, in order, or else free ones.
pub(in super::super) fn one_to_one(
    problems: &mut Problems,
    file: &File,
    topology: &mut Topology,
    mut free: impl FnMut(&mut Problems, &Text, Option<Name>) -> Ipv4Addr,
) {
    for (written, table) in file.nats.iter().filter(|(_, table)| table.is_one_to_one()) {
        let name = shared(written);
        let hosts = behind(file, topology, &name);
        let Some(nat) = topology.nats.get_mut(&name) else { continue };
        let mut public: Vec<Ipv4Addr> = nat.addresses().collect();
        if table.written_addresses().next().is_none() {
            while public.len() < hosts.len() {
                public.push(free(problems, written, nat.behind.clone()));
            }
        } else if public.len() < hosts.len() {
            let span = table.written_addresses().last().map_or(written.span(), Spanned::span);
            problems
                .add(span, format!("{} hosts are behind `{name}`, which has {} addresses", hosts.len(), public.len()))
                .help("write an address for each in `addresses`, or none at all for free ones");
        }
        nat.more_addresses = public[1..].to_vec();
        nat.one_to_one = hosts.iter().map(|(_, internal)| *internal).zip(public).collect();
    }
}
