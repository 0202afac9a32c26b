//! From tables to networks: who is behind which NAT, with which address.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Range;

use ipnet::Ipv4Net;
use toml::Spanned;

use super::draw;
use super::error::{Problems, suggestion};
use super::model::{Link, Name, Nat, Node};
use super::nat;
use super::raw::{File, Text};
use super::units::Address;

/// Where NATs without an address get one (TEST-NET-2, RFC 5737).
const NAT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24);

/// Where the NATs of populations get their addresses, for which the other pool is too small (RFC 2544).
const MANY_NATS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 0, 0), 16);

/// Where the public nodes of populations get their addresses (RFC 2544).
const MANY_NODES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 16);

/// Where public nodes without an address get one (TEST-NET-3, RFC 5737).
const NODE_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24);

/// The longest name of a node, NAT or link, in characters.
const MAX_NAME: usize = 63;

/// The networks of a scenario. Where the file has problems, what could be made of it.
#[derive(Debug, Default)]
pub(super) struct Topology {
    pub(super) nats: BTreeMap<Name, Nat>,
    pub(super) links: BTreeMap<Name, Link>,
    pub(super) nodes: BTreeMap<Name, Node>,
}

/// Makes networks of the file's tables.
pub(super) fn topology(problems: &mut Problems, file: &File, seed: u64) -> Topology {
    check_names(problems, file);
    draw::check_names(problems, file);
    let mut topology = Topology { links: super::link::links(problems, file), ..Topology::default() };
    let uplink = file.head.uplink.as_ref().and_then(|link| defined(problems, "link", link, &topology.links));
    let nat_names: BTreeMap<Name, ()> = file.nats.iter().map(|(name, _)| (shared(name), ())).collect();
    let mut unnamed = Unnamed::default();
    for (name, table) in &file.nats {
        let nat = Nat {
            behind: table.behind.as_ref().and_then(|behind| defined(problems, "NAT", behind, &nat_names)),
            link: table.link.as_ref().and_then(|link| defined(problems, "link", link, &topology.links)),
            ..nat::nat(problems, table)
        };
        let nat = Nat { link: nat.link.or_else(|| uplink.clone().filter(|_| nat.behind.is_none())), ..nat };
        topology.nats.insert(shared(name), nat);
    }
    nat::break_cycles(problems, file, &mut topology.nats);
    for (name, table) in &file.nodes {
        let behind = table.behind.as_ref().and_then(|behind| draw::behind(problems, seed, name.get_ref(), behind));
        let node = Node {
            address: table.address.as_ref().map_or(Ipv4Addr::UNSPECIFIED, |address| address.get_ref().0),
            behind: behind.and_then(|behind| defined(problems, "NAT", &behind, &topology.nats)),
            link: table.link.as_ref().and_then(|link| defined(problems, "link", link, &topology.links)),
            ..Node::default()
        };
        let node = Node { link: node.link.or_else(|| uplink.clone().filter(|_| node.behind.is_none())), ..node };
        topology.nodes.insert(shared(name), node);
    }
    nat::check_lans(problems, file, &topology.nats);
    unnamed.claim_written(problems, file, &topology);
    unnamed.fill_in(problems, file, &mut topology);
    nat::forwards(problems, file, &mut topology);
    check_reachable(problems, file, &topology);
    super::six::fill_in(problems, file, &mut topology);
    super::firewall::fill_in(problems, file, &mut topology);
    topology
}

/// A text of the file as the name that the model shares.
pub(super) fn shared(name: &Text) -> Name {
    name.get_ref().as_str().into()
}

/// The name that `name` refers to, or a problem where there is none.
pub(super) fn defined<T>(problems: &mut Problems, what: &str, name: &Text, all: &BTreeMap<Name, T>) -> Option<Name> {
    if let Some((name, _)) = all.get_key_value(name.get_ref().as_str()) {
        return Some(name.clone());
    }
    if problems.is_told(&name.span()) {
        return None;
    }
    let member = format!("{}-1", name.get_ref());
    if all.contains_key(member.as_str()) {
        problems
            .add(name.span(), format!("`{}` is a population, and one {what} is meant", name.get_ref()))
            .help(format!("name one of it, such as `{member}`"))
            .label("many");
        return None;
    }
    let names: Vec<&str> = all.keys().map(|name| &**name).collect();
    problems
        .add(name.span(), format!("there is no {what} `{}`", name.get_ref()))
        .help(suggestion(&format!("{what}s in this file"), name.get_ref(), &names))
        .label("not defined");
    None
}

impl Topology {
    /// `target`'s address as `viewer` sees it: its own where both are on one network, else that of the NAT on the
    /// way that is on a network with `viewer` or with a NAT in front of it.
    pub(super) fn address_seen(&self, viewer: &Name, target: &Name) -> Ipv4Addr {
        let Some(node) = self.nodes.get(target) else { return Ipv4Addr::UNSPECIFIED };
        if viewer == target {
            return node.address;
        }
        let viewers = self.nodes.get(viewer).map_or_else(Vec::new, |node| self.networks(node.behind.as_ref()));
        let mut seen = (node.address, node.behind.as_ref());
        while let (_, Some(network)) = seen
            && !viewers.contains(&network)
            && let Some(nat) = self.nats.get(network)
        {
            let public = nat.one_to_one.get(&seen.0).copied();
            seen = (public.unwrap_or(nat.address), nat.behind.as_ref());
        }
        seen.0
    }

    /// The NATs from the one given outwards. There are no cycles any more.
    fn networks<'a>(&'a self, mut behind: Option<&'a Name>) -> Vec<&'a Name> {
        let mut networks = Vec::new();
        while let Some(name) = behind {
            networks.push(name);
            behind = self.nats.get(name).and_then(|nat| nat.behind.as_ref());
        }
        networks
    }
}

fn check_names(problems: &mut Problems, file: &File) {
    let nats = file.nats.iter().map(|(name, _)| ("NAT", name));
    let links = file.links.iter().map(|(name, _)| ("link", name));
    let nodes = file.nodes.iter().map(|(name, _)| ("node", name));
    for (what, name) in nats.chain(links).chain(nodes) {
        let text = name.get_ref();
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(valid) {
            problems
                .add(name.span(), format!("`{text}` cannot be a {what}'s name"))
                .help(format!("names are of letters, digits, `-` and `_`, up to {MAX_NAME} of them"));
        }
    }
    let nats: BTreeMap<&str, &Text> = file.nats.iter().map(|(nat, _)| (nat.get_ref().as_str(), nat)).collect();
    for (node, _) in &file.nodes {
        if let Some(nat) = nats.get(node.get_ref().as_str()) {
            problems
                .add(node.span(), format!("`{}` is a NAT already: a node needs another name", node.get_ref()))
                .label("the node")
                .also(nat.span(), "the NAT");
        }
    }
    if file.nodes.is_empty() {
        problems.add(0..0, "the scenario has no nodes").help("add a [node.NAME]").label("no [node.NAME] in this file");
    }
}

/// Whether a host can have this address at all.
pub(super) fn is_usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240)
}

/// A network: the internet, or a NAT's LAN.
type Network = Option<Name>;

/// Who has which address, and who is still without one.
#[derive(Debug, Default)]
struct Unnamed {
    /// Where the search for a free address goes on.
    next: BTreeMap<(Network, Ipv4Net), u32>,
    taken: BTreeMap<(Network, Ipv4Addr), (String, Range<usize>)>,
}

impl Unnamed {
    /// Takes note of every address that is written in the file, and of problems with them.
    fn claim_written(&mut self, problems: &mut Problems, file: &File, topology: &Topology) {
        for (name, table) in &file.nats {
            let behind = topology.nats.get(name.get_ref().as_str()).and_then(|nat| nat.behind.clone());
            for address in table.written_addresses() {
                let who = format!("the NAT `{}`", name.get_ref());
                self.claim(problems, topology, who, behind.clone(), Some(address));
            }
        }
        for (name, table) in &file.nodes {
            let behind = topology.nodes.get(name.get_ref().as_str()).and_then(|node| node.behind.clone());
            self.claim(problems, topology, format!("the node `{}`", name.get_ref()), behind, table.address.as_ref());
        }
    }

    fn claim(
        &mut self,
        problems: &mut Problems,
        topology: &Topology,
        who: String,
        network: Network,
        address: Option<&Spanned<Address>>,
    ) {
        let Some(written) = address else { return };
        let (address, span) = (written.get_ref().0, written.span());
        if !is_usable(address) {
            let help = if address.is_loopback() {
                "every host has 127.0.0.1 for itself; give it an address that others can reach"
            } else {
                "give it an address such as \"203.0.113.1\""
            };
            problems.add(span, format!("{address} cannot be a host's address")).help(help);
            return;
        }
        if let Some(name) = &network
            && let Some(nat) = topology.nats.get(name)
            && (!nat.lan.contains(&address) || address == nat.lan.network() || address == nat.lan.broadcast())
        {
            problems
                .add(span.clone(), format!("{address} is not a host's address in the LAN {} of `{name}`", nat.lan))
                .label("outside of the LAN")
                .help("leave `address` out for the next free one");
        }
        if let Some(other) = self.taken.get(&(network.clone(), address)) {
            let this = (who, span);
            // NATs come before nodes here, but not always in the file.
            let before = problems.order(&other.1) < problems.order(&this.1);
            let (first, second) = if before { (other, &this) } else { (&this, other) };
            problems
                .add(second.1.clone(), format!("{address} is used twice: by {} and by {}", first.0, second.0))
                .label("used again")
                .also(first.1.clone(), "used here already");
        } else {
            self.taken.insert((network, address), (who, span));
        }
    }

    /// Gives the next free address to whoever has none, in the file's order.
    fn fill_in(&mut self, problems: &mut Problems, file: &File, topology: &mut Topology) {
        let pool = |name: &Text, few, many| match file.populations.of_member(name.get_ref()) {
            Some(_) => many,
            None => few,
        };
        let lans: BTreeMap<Name, Ipv4Net> = topology.nats.iter().map(|(name, nat)| (name.clone(), nat.lan)).collect();
        for (name, _) in file.nats.iter().filter(|(_, table)| table.written_addresses().next().is_none()) {
            if let Some(nat) = topology.nats.get_mut(name.get_ref().as_str()) {
                nat.address =
                    self.next_free(problems, &lans, name, nat.behind.clone(), pool(name, NAT_POOL, MANY_NATS));
            }
        }
        // A node with an IPv6 address alone has no other.
        for (name, _) in file.nodes.iter().filter(|(_, table)| table.address.is_none() && table.address6.is_none()) {
            if let Some(node) = topology.nodes.get_mut(name.get_ref().as_str()) {
                node.address =
                    self.next_free(problems, &lans, name, node.behind.clone(), pool(name, NODE_POOL, MANY_NODES));
            }
        }
        nat::one_to_one(problems, file, topology, |problems, name, behind| {
            self.next_free(problems, &lans, name, behind, NAT_POOL)
        });
    }

    fn next_free(
        &mut self,
        problems: &mut Problems,
        lans: &BTreeMap<Name, Ipv4Net>,
        name: &Text,
        network: Network,
        pool: Ipv4Net,
    ) -> Ipv4Addr {
        let lan = network.as_ref().and_then(|nat| lans.get(nat)).copied();
        let pool = lan.unwrap_or(pool);
        // The first address of a LAN is its router's, by custom.
        let first = u32::from(pool.network()) + 2;
        let next = self.next.entry((network.clone(), pool)).or_insert(first);
        // Addresses are only ever taken: those before the last one given are taken too.
        let mut free = (*next..u32::from(pool.broadcast())).map(Ipv4Addr::from);
        let free = free.find(|address| !self.taken.contains_key(&(network.clone(), *address)));
        *next = free.map_or(u32::from(pool.broadcast()), |address| u32::from(address) + 1);
        let Some(address) = free else {
            if problems.is_told(&name.span()) {
                return Ipv4Addr::UNSPECIFIED;
            }
            let help = match &network {
                Some(nat) => format!("give `{nat}` a larger `lan`, such as \"10.0.0.0/8\", or write the address"),
                None if pool == MANY_NODES || pool == MANY_NATS => {
                    "make populations on the internet smaller, or put some of them behind NATs".to_owned()
                }
                None => "write its `address`".to_owned(),
            };
            problems
                .add(name.span(), format!("there is no free address in {pool} for `{}`", name.get_ref()))
                .help(help);
            return Ipv4Addr::UNSPECIFIED;
        };
        self.taken.insert((network, address), (format!("`{}`", name.get_ref()), name.span()));
        address
    }
}

/// A public address that some LAN has too cannot be reached from that LAN.
fn check_reachable(problems: &mut Problems, file: &File, topology: &Topology) {
    let nats = file.nats.iter().flat_map(|(name, table)| {
        let nat = topology.nats.get(name.get_ref().as_str());
        let places = nat.into_iter().flat_map(|nat| nat.addresses().map(|address| (address, nat.behind.is_none())));
        let written = table.written_addresses().map(Some).chain(std::iter::repeat(None));
        places.zip(written).map(move |(place, written)| (name, written, Some(place)))
    });
    let nodes = file.nodes.iter().map(|(name, table)| {
        let node = topology.nodes.get(name.get_ref().as_str());
        (name, table.address.as_ref(), node.map(|node| (node.address, node.behind.is_none())))
    });
    // Many NATs have the same LAN.
    let mut lans: BTreeMap<Ipv4Net, (&Name, &Nat)> = BTreeMap::new();
    for (name, nat) in &topology.nats {
        lans.entry(nat.lan).or_insert((name, nat));
    }
    for (name, written, place) in nats.chain(nodes) {
        let Some((address, true)) = place else { continue };
        let inside = lans.values().filter(|(_, nat)| nat.lan.contains(&address));
        if let Some((nat_name, nat)) = inside.min_by_key(|(name, _)| *name) {
            let span = written.map_or(name.span(), Spanned::span);
            problems
                .add(
                    span,
                    format!("{address} is on the internet here, but in the LAN {} behind `{nat_name}` too", nat.lan),
                )
                .help(format!(
                    "hosts behind `{nat_name}` could not reach it: write another address, or `behind = \"{nat_name}\"`"
                ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::parse;

    /// Two homes with the same LAN, one of them with an office NAT behind it, and a public server.
    fn nested() -> Topology {
        let text = r#"
            [nat.home]
            address = "198.51.100.1"
            [nat.shed]
            behind = "home"
            lan = "10.0.0.0/24"
            [nat.flat]
            address = "198.51.100.2"
            [node.laptop]
            behind = "home"
            [node.phone]
            behind = "home"
            [node.camera]
            behind = "shed"
            [node.printer]
            behind = "flat"
            [node.server]
            address = "203.0.113.1"
            [[program]]
            node = "server"
            run = "grape"
            dht-port = 20001
            api-port = 30001
        "#;
        let scenario = parse("nested.toml", text).expect("a valid file");
        Topology { nats: scenario.nats, links: scenario.links, nodes: scenario.nodes }
    }

    #[test]
    fn an_address_depends_on_who_looks() {
        let topology = nested();
        let cases = [
            ("laptop", "laptop", "192.168.1.3"),
            ("phone", "laptop", "192.168.1.3"),
            ("server", "laptop", "198.51.100.1"),
            ("printer", "laptop", "198.51.100.1"),
            ("laptop", "server", "203.0.113.1"),
            ("camera", "server", "203.0.113.1"),
            ("camera", "laptop", "192.168.1.3"),
            ("laptop", "camera", "192.168.1.2"),
            ("server", "camera", "198.51.100.1"),
            ("camera", "printer", "198.51.100.2"),
        ];
        for (viewer, target, address) in cases {
            let seen = topology.address_seen(&viewer.into(), &target.into());
            assert_eq!(seen.to_string(), address, "{target} as {viewer} sees it");
        }
    }
}
