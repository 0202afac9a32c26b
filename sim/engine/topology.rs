//! From the scenario's nodes, NATs and links to the engine's.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::hop::{LinkState, NatState};
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
        address: Ipv4Addr,
    },
    /// An address that is not of the network behind the NAT.
    #[error("{user} is behind the nat {nat}, but its address {address} is not in {lan}: give it one that is")]
    OutsideLan {
        /// `node NAME` or `nat NAME`.
        user: String,
        /// The NAT.
        nat: Name,
        /// The address.
        address: Ipv4Addr,
        /// The NAT's network.
        lan: ipnet::Ipv4Net,
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
    let mut builder = Builder { seed, nats, links, nat_ids: &nat_ids, addresses: BTreeMap::new() };
    for name in nats.keys() {
        builder.refuse_cycle(name)?;
    }
    let nat_nodes = nats.iter().map(|(name, nat)| builder.nat(name, nat)).collect::<Result<_, _>>()?;
    let hosts = nodes.iter().zip((0..).map(HostId)).map(|((name, node), id)| builder.host(id, name, node));
    let hosts = hosts.collect::<Result<_, _>>()?;
    let addresses = builder.addresses.into_iter().map(|(at, (owner, _))| (at, owner)).collect();
    Ok(Engine {
        seed,
        queue: Queue::new(),
        hosts,
        nats: nat_nodes,
        addresses,
        host_ids,
        nat_ids,
        partitions: BTreeMap::new(),
        partitions_made: 0,
        packets: 0,
        observed: false,
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
    addresses: BTreeMap<(Place, Ipv4Addr), (Owner, String)>,
}

impl Builder<'_> {
    fn nat(&mut self, name: &Name, nat: &Nat) -> Result<NatNode, SimError> {
        let user = format!("nat {name}");
        let attachment = self.attach(&user, name, nat.behind.as_ref(), nat.link.as_ref(), nat.address)?;
        let public = match nat.one_to_one.is_empty() {
            true => nat.addresses().collect(),
            false => nat.one_to_one.values().copied().collect::<Vec<_>>(),
        };
        for address in public {
            self.claim(attachment.place, address, Owner::Nat(self.nat_ids[name]), user.clone())?;
        }
        let rng = seed::stream(self.seed, &["nat", name]);
        let state = NatState::new(nat, |purpose| seed::stream(self.seed, &["nat", name, purpose]));
        Ok(NatNode { name: name.clone(), lan: nat.lan, state, rng, attachment })
    }

    fn host(&mut self, id: HostId, name: &Name, node: &Node) -> Result<Host, SimError> {
        let user = format!("node {name}");
        let attachment = self.attach(&user, name, node.behind.as_ref(), node.link.as_ref(), node.address)?;
        self.claim(attachment.place, node.address, Owner::Host(id), user)?;
        Ok(Host::new(name.clone(), node.address, attachment))
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
                if !lan.contains(&address) {
                    return Err(SimError::OutsideLan { user: user.to_owned(), nat: nat.clone(), address, lan });
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
        };
        Ok(Attachment { place, up: line("up"), down: line("down") })
    }

    fn claim(&mut self, place: Place, address: Ipv4Addr, owner: Owner, user: String) -> Result<(), SimError> {
        if let Some((_, first)) = self.addresses.get(&(place, address)) {
            return Err(SimError::AddressTaken { first: first.clone(), second: user, address });
        }
        self.addresses.insert((place, address), (owner, user));
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
