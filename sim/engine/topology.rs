//! From the scenario's nodes, NATs and links to the engine's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::address::Addresses;
use super::capture::Watch;
use super::hop::{FirewallState, LinkState, NatState};
use super::host::Host;
use super::packet::HostId;
use super::queue::Queue;
use super::route::{Attachment, Line, NatId, Owner, Place};
use super::seed;
use super::state::{Engine, NatNode};
use crate::scenario::model::{Link, Name, Nat, Node};

/// The link of a node or NAT that names none: 1 ms each way, and nothing else.
pub(crate) const DEFAULT_LINK: Link =
    Link { latency: Duration::from_millis(1), jitter: Duration::ZERO, loss: 0.0, rate: None, queue: 0 };

/// Where public hosts without an address get one (TEST-NET-3, RFC 5737).
pub(crate) const NODE_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24);

/// Where NATs without an address get one (TEST-NET-2, RFC 5737).
pub(crate) const NAT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24);

/// Why a topology cannot be simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// A name that is not defined.
    #[error("{user} names the {kind} {name}, which is not defined: define it, or correct the name")]
    Undefined {
        /// `node NAME` or `nat NAME`.
        user: String,
        /// `link` or `nat`.
        kind: &'static str,
        /// The undefined name.
        name: Name,
    },
    /// Two with the same address in one network.
    #[error("{second} has the address {address} of {first}: give it another one")]
    AddressTaken {
        /// Who has it.
        first: String,
        /// Who wants it too.
        second: String,
        /// The address.
        address: IpAddr,
    },
    /// An address that is not of the network behind the NAT.
    #[error("{user} is behind the nat {nat}, but its address {address} is not in {lan}: give it one that is")]
    OutsideLan {
        /// `node NAME` or `nat NAME`.
        user: String,
        /// The NAT.
        nat: Name,
        /// The address.
        address: IpAddr,
        /// The NAT's network of that family.
        lan: IpNet,
    },
    /// No address is left for who has none.
    #[error("there is no free address in {network} for {user}: give it one")]
    NoFreeAddress {
        /// `node NAME` or `nat NAME`.
        user: String,
        /// The network.
        network: Ipv4Net,
    },
    /// A node without an address.
    #[error("{user} has neither an IPv4 nor an IPv6 address: give it one")]
    NoAddress {
        /// `node NAME`.
        user: String,
    },
    /// An IPv6 address or network behind a NAT that routes no IPv6.
    #[error("{user} has IPv6, but the nat {nat} that it is behind has not: give the nat an IPv6 network")]
    NoIpv6 {
        /// `node NAME` or `nat NAME`.
        user: String,
        /// The NAT.
        nat: Name,
    },
    /// An IPv6 network that is not within that of the NAT in front, or one that two share.
    #[error("the IPv6 network {lan6} of {user} {problem}")]
    Lan6 {
        /// `nat NAME`.
        user: String,
        /// Its network.
        lan6: Ipv6Net,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A NAT that is behind itself.
    #[error("the nat {nat} is behind itself: name another one, or none")]
    Cycle {
        /// The NAT.
        nat: Name,
    },
}

pub(crate) fn build(
    seed: u64,
    nats: &BTreeMap<Name, Nat>,
    links: &BTreeMap<Name, Link>,
    nodes: &BTreeMap<Name, Node>,
) -> Result<Engine, SimError> {
    let nat_ids: BTreeMap<Name, NatId> = nats.keys().cloned().zip((0..).map(NatId)).collect();
    let host_ids: BTreeMap<Name, HostId> = nodes.keys().cloned().zip((0..).map(HostId)).collect();
    let mut builder = Builder {
        seed,
        nats,
        links,
        nat_ids: &nat_ids,
        addresses4: BTreeMap::new(),
        addresses6: BTreeMap::new(),
        routes6: BTreeMap::new(),
    };
    for name in nats.keys() {
        builder.refuse_cycle(name)?;
    }
    for (name, nat) in nats {
        builder.route6(name, nat)?;
    }
    let nat_nodes = nats.iter().map(|(name, nat)| builder.nat(name, nat)).collect::<Result<_, _>>()?;
    let hosts = nodes.iter().zip((0..).map(HostId)).map(|((name, node), id)| builder.host(id, name, node));
    let hosts = hosts.collect::<Result<_, _>>()?;
    let leases4 = leases(&builder.addresses4);
    let leases6 = leases(&builder.addresses6);
    let addresses4 = builder.addresses4.into_iter().map(|(at, (owner, _))| (at, owner)).collect();
    let addresses6 = builder.addresses6.into_iter().map(|(at, (owner, _))| (at, owner)).collect();
    let routes6 = builder.routes6;
    Ok(Engine {
        seed,
        queue: Queue::new(),
        hosts,
        nats: nat_nodes,
        addresses4,
        addresses6,
        routes6,
        host_ids,
        nat_ids,
        faults: BTreeMap::new(),
        faults_begun: 0,
        fault_words: BTreeMap::new(),
        partitions: 0,
        leases4,
        leases6,
        links: links.clone(),
        packets: 0,
        observed: false,
        watch: Watch::default(),
        records: Vec::new(),
        wakers: Vec::new(),
        notes: Vec::new(),
        now_ns: 0,
        sleeping_until_ns: 0,
        ended: false,
    })
}

struct Builder<'a> {
    seed: u64,
    nats: &'a BTreeMap<Name, Nat>,
    links: &'a BTreeMap<Name, Link>,
    nat_ids: &'a BTreeMap<Name, NatId>,
    /// With who has each, in words.
    addresses4: BTreeMap<(Place, Ipv4Addr), (Owner, String)>,
    addresses6: BTreeMap<(Place, Ipv6Addr), (Owner, String)>,
    routes6: BTreeMap<(Place, Ipv6Addr), (Ipv6Net, NatId)>,
}

impl Builder<'_> {
    fn nat(&mut self, name: &Name, nat: &Nat) -> Result<NatNode, SimError> {
        let user = format!("nat {name}");
        let attachment = self.attach(&user, name, nat.behind.as_ref(), nat.link.as_ref(), nat.address)?;
        let public = match nat.one_to_one.is_empty() {
            true => nat.addresses().collect(),
            false => nat.one_to_one.values().copied().collect::<Vec<_>>(),
        };
        let owner = Owner::Nat(self.nat_ids[name]);
        for address in public {
            self.attach(&user, name, nat.behind.as_ref(), nat.link.as_ref(), address)?;
            claim(&mut self.addresses4, attachment.place, address, owner, user.clone())?;
        }
        let rng = seed::stream(self.seed, &["nat", name]);
        let state = NatState::new(nat, |purpose| seed::stream(self.seed, &["nat", name, purpose]));
        Ok(NatNode {
            name: name.clone(),
            lan: nat.lan,
            lan6: nat.lan6,
            state,
            firewall: nat.firewall.as_ref().map(FirewallState::new),
            rng,
            rebooting: 0,
            attachment,
        })
    }

    fn host(&mut self, id: HostId, name: &Name, node: &Node) -> Result<Host, SimError> {
        let user = format!("node {name}");
        let addresses = Addresses { v4: (!node.address.is_unspecified()).then_some(node.address), v6: node.address6 };
        if addresses.v4.is_none() && addresses.v6.is_none() {
            return Err(SimError::NoAddress { user });
        }
        let attachment = self.attach(&user, name, node.behind.as_ref(), node.link.as_ref(), node.address)?;
        if let Some(address) = addresses.v4 {
            claim(&mut self.addresses4, attachment.place, address, Owner::Host(id), user.clone())?;
        }
        if let Some(address) = addresses.v6 {
            self.check6(&user, node.behind.as_ref(), attachment.place, address)?;
            claim(&mut self.addresses6, attachment.place, address, Owner::Host(id), user)?;
        }
        let mut host = Host::new(name.clone(), addresses, attachment);
        host.firewall = node.firewall.as_ref().map(FirewallState::new);
        Ok(host)
    }

    fn attach(
        &self,
        user: &str,
        name: &Name,
        behind: Option<&Name>,
        link: Option<&Name>,
        address: Ipv4Addr,
    ) -> Result<Attachment, SimError> {
        let undefined = |kind, name: &Name| SimError::Undefined { user: user.to_owned(), kind, name: name.clone() };
        let place = match behind {
            None => Place::Internet,
            Some(nat) => {
                let lan = self.nats.get(nat).ok_or_else(|| undefined("nat", nat))?.lan;
                if !lan.contains(&address) && !address.is_unspecified() {
                    return Err(SimError::OutsideLan {
                        user: user.to_owned(),
                        nat: nat.clone(),
                        address: address.into(),
                        lan: lan.into(),
                    });
                }
                Place::Lan(self.nat_ids[nat])
            }
        };
        let model = match link {
            None => &DEFAULT_LINK,
            Some(link) => self.links.get(link).ok_or_else(|| undefined("link", link))?,
        };
        let line = |direction: &str| Line {
            state: LinkState::new(model),
            rng: seed::stream(self.seed, &["link", user, direction]),
            name: match link {
                None => format!("link of {name}, {direction}"),
                Some(link) => format!("link {link} of {name}, {direction}"),
            },
            sample_due_ns: 0,
        };
        Ok(Attachment::new(place, line("up"), line("down")))
    }

    /// Enters the route to a NAT's IPv6 network into the network that the NAT is on. It is a part of the network in
    /// front, as delegated prefixes are (RFC 8415, 6.3), so that the routes further out lead there as well.
    fn route6(&mut self, name: &Name, nat: &Nat) -> Result<(), SimError> {
        let Some(lan6) = nat.lan6 else { return Ok(()) };
        let user = format!("nat {name}");
        let problem = |problem: String| SimError::Lan6 { user: user.clone(), lan6, problem };
        let place = match nat.behind.as_ref() {
            None => Place::Internet,
            Some(outer) => {
                let undefined = || SimError::Undefined { user: user.clone(), kind: "nat", name: outer.clone() };
                match self.nats.get(outer).ok_or_else(undefined)?.lan6 {
                    None => return Err(SimError::NoIpv6 { user, nat: outer.clone() }),
                    Some(outer6) if !outer6.contains(&lan6) || outer6 == lan6 => {
                        return Err(problem(format!("is not a part of {outer6}, that of nat {outer}: give it one")));
                    }
                    Some(_) => Place::Lan(self.nat_ids[outer]),
                }
            }
        };
        // None of those there overlaps another, so that only the neighbours can overlap this one.
        let before = self.routes6.range(..=(place, lan6.network())).next_back();
        let after = self.routes6.range((place, lan6.network())..).next();
        let mut others = before.into_iter().chain(after).filter(|((at, _), _)| *at == place);
        if let Some((_, (other, _))) = others.find(|(_, (other, _))| other.contains(&lan6) || lan6.contains(other)) {
            return Err(problem(format!("overlaps {other}, that of another nat: give it one of its own")));
        }
        self.routes6.insert((place, lan6.network()), (lan6, self.nat_ids[name]));
        Ok(())
    }

    /// A node's IPv6 address is of the network it is on, and not of one behind a NAT there.
    fn check6(&self, user: &str, behind: Option<&Name>, place: Place, address: Ipv6Addr) -> Result<(), SimError> {
        if let Some(nat) = behind {
            let Some(lan6) = self.nats[nat].lan6 else {
                return Err(SimError::NoIpv6 { user: user.to_owned(), nat: nat.clone() });
            };
            if !lan6.contains(&address) {
                return Err(SimError::OutsideLan {
                    user: user.to_owned(),
                    nat: nat.clone(),
                    address: address.into(),
                    lan: lan6.into(),
                });
            }
        }
        let route = self.routes6.range(..=(place, address)).next_back();
        if let Some(((at, _), (lan6, nat))) = route
            && *at == place
            && lan6.contains(&address)
        {
            let nat = self.nat_ids.iter().find(|(_, id)| *id == nat).map_or("", |(name, _)| name);
            return Err(SimError::AddressTaken {
                first: format!("the network {lan6} behind nat {nat}"),
                second: user.to_owned(),
                address: address.into(),
            });
        }
        Ok(())
    }

    fn refuse_cycle(&self, start: &Name) -> Result<(), SimError> {
        let mut at = start;
        for _ in 0..self.nats.len() {
            match self.nats.get(at).and_then(|nat| nat.behind.as_ref()) {
                Some(next) => at = next,
                None => return Ok(()),
            }
        }
        Err(SimError::Cycle { nat: start.clone() })
    }
}

fn claim<A: Ord + Copy + Into<IpAddr>>(
    addresses: &mut BTreeMap<(Place, A), (Owner, String)>,
    place: Place,
    address: A,
    owner: Owner,
    user: String,
) -> Result<(), SimError> {
    if let Some((_, first)) = addresses.get(&(place, address)) {
        return Err(SimError::AddressTaken { first: first.clone(), second: user, address: address.into() });
    }
    addresses.insert((place, address), (owner, user));
    Ok(())
}

/// The hosts' addresses.
fn leases<A: Ord + Copy>(addresses: &BTreeMap<(Place, A), (Owner, String)>) -> BTreeMap<(Place, A), HostId> {
    let hosts = addresses.iter().filter_map(|(at, (owner, _))| match owner {
        Owner::Host(host) => Some((*at, *host)),
        Owner::Nat(_) => None,
    });
    hosts.collect()
}

/// The next free address of a network, from its second host on: the first is its router's, by custom.
pub(crate) fn free_address(network: Ipv4Net, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    network.hosts().skip(1).find(|address| !taken(*address))
}

/// The same of an IPv6 network.
pub(crate) fn free_address6(network: Ipv6Net, taken: impl Fn(Ipv6Addr) -> bool) -> Option<Ipv6Addr> {
    let first = network.network().to_bits();
    let hosts = (2_u128..).map(|host| Ipv6Addr::from_bits(first + host));
    hosts.take_while(|address| network.contains(address)).find(|address| !taken(*address))
}
