//! A NAT in RFC 4787's terms: mapping, filtering, port assignment, binding lifetime, hairpinning.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use grenache::net::Rng;

use super::Rule;
use crate::engine::packet::Packet;
use crate::engine::seed;
use crate::event::Protocol;
use crate::scenario::model::{Dependence, Nat, PortAssignment};

/// How long a TCP mapping lives unused: the least that RFC 5382, REQ-5 allows (2 hours 4 minutes).
const TCP_TIMEOUT: Duration = Duration::from_secs(124 * 60);

/// External ports are assigned from here up, unless an internal port below is preserved (RFC 4787, 4.2.2).
const LOWEST_PORT: u16 = 1024;

/// Remote endpoints that a mapping's filter remembers; beyond, the one that was first sent to is forgotten.
const MAX_REMOTES: usize = 4096;

/// A NAT's state. Mappings are bounded by the external ports: one each.
#[derive(Debug)]
pub(crate) struct NatState {
    address: Ipv4Addr,
    mapping: Dependence,
    filtering: Dependence,
    ports: PortAssignment,
    udp_timeout: Duration,
    hairpinning: bool,
    mappings: BTreeMap<Mapped, Mapping>,
    by_internal: BTreeMap<Key, Mapped>,
    /// Ports whose mappings the last rebinding ended: new mappings get others.
    retired: BTreeSet<Mapped>,
    /// The port given out last for each protocol, where ports are contiguous.
    last_given: BTreeMap<Protocol, u16>,
}

/// An external port in use: what names a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mapped {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// What an outgoing packet is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    protocol: Protocol,
    internal: SocketAddrV4,
    remote: Remote,
}

/// For which destinations a mapping is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Remote {
    All,
    Address(Ipv4Addr),
    Endpoint(SocketAddrV4),
}

#[derive(Debug)]
struct Mapping {
    key: Key,
    expires_ns: u64,
    /// When [`NatState::expire`] is due for it; other calls were meant for an earlier mapping with this port.
    due_ns: u64,
    /// Where packets were sent to through it, and as how manieth: what filtering goes by.
    sent_to: BTreeMap<SocketAddrV4, u64>,
    sent_to_count: u64,
}

/// Something a NAT did beside forwarding, in order.
#[derive(Debug, PartialEq)]
pub(crate) enum Note {
    /// A mapping was made. It is due to be looked at by [`NatState::expire`] at the given time.
    Created { mapped: Mapped, internal: SocketAddrV4, remote: Option<String>, expires_ns: u64 },
    /// A mapping ended.
    Removed { mapped: Mapped, internal: SocketAddrV4, reason: String },
}

impl NatState {
    pub(crate) fn new(nat: &Nat) -> Self {
        Self {
            address: nat.address,
            mapping: nat.mapping,
            filtering: nat.filtering,
            ports: nat.ports,
            udp_timeout: nat.udp_timeout,
            hairpinning: nat.hairpinning,
            mappings: BTreeMap::new(),
            by_internal: BTreeMap::new(),
            retired: BTreeSet::new(),
            last_given: BTreeMap::new(),
        }
    }

    /// The public address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Translates a packet from the inside: its source becomes external. `true` where it is to be turned around at
    /// once because it is for this NAT's own address (RFC 4787, REQ-9): hand it to [`inbound`](Self::inbound), whose
    /// filtering then sees the external source.
    ///
    /// An outgoing packet keeps its mapping alive (RFC 4787, REQ-6); an incoming one does not.
    pub(crate) fn outbound(
        &mut self,
        now_ns: u64,
        packet: &mut Packet,
        rng: &mut Rng,
        notes: &mut Vec<Note>,
    ) -> Result<bool, Rule> {
        let hairpin = *packet.destination.ip() == self.address;
        if hairpin && !self.hairpinning {
            return Err(Rule::NoHairpinning);
        }
        let remote = match self.mapping {
            Dependence::EndpointIndependent => Remote::All,
            Dependence::AddressDependent => Remote::Address(*packet.destination.ip()),
            Dependence::AddressAndPortDependent => Remote::Endpoint(packet.destination),
        };
        let key = Key { protocol: packet.protocol(), internal: packet.source, remote };
        let mut found = self.by_internal.get(&key).copied();
        if found.is_some_and(|mapped| self.remove_if_idle(now_ns, mapped, notes)) {
            found = None;
        }
        let expires_ns = now_ns.saturating_add(self.timeout_ns(key.protocol));
        let mapped = match found {
            Some(mapped) => mapped,
            None => {
                let mapped = self.free_port(key, rng).ok_or(Rule::NoFreePort)?;
                self.by_internal.insert(key, mapped);
                let mapping =
                    Mapping { key, expires_ns, due_ns: expires_ns, sent_to: BTreeMap::new(), sent_to_count: 0 };
                self.mappings.insert(mapped, mapping);
                let remote = match remote {
                    Remote::All => None,
                    Remote::Address(address) => Some(address.to_string()),
                    Remote::Endpoint(endpoint) => Some(endpoint.to_string()),
                };
                notes.push(Note::Created { mapped, internal: key.internal, remote, expires_ns });
                mapped
            }
        };
        let mapping = self.mappings.get_mut(&mapped).expect("the index names mappings that exist");
        mapping.expires_ns = expires_ns;
        mapping.remember(packet.destination);
        packet.source = SocketAddrV4::new(self.address, mapped.port);
        Ok(hairpin)
    }

    /// Translates a packet from the outside: its destination becomes internal.
    pub(crate) fn inbound(&mut self, now_ns: u64, packet: &mut Packet, notes: &mut Vec<Note>) -> Result<(), Rule> {
        let mapped = Mapped { protocol: packet.protocol(), port: packet.destination.port() };
        self.remove_if_idle(now_ns, mapped, notes);
        let mapping = self.mappings.get(&mapped).ok_or(Rule::NoMapping(mapped.port))?;
        let passes = match self.filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => mapping.knows_address(*packet.source.ip()),
            Dependence::AddressAndPortDependent => mapping.sent_to.contains_key(&packet.source),
        };
        if !passes {
            return Err(Rule::Filtered { source: packet.source, port: mapped.port, filtering: self.filtering });
        }
        packet.destination = mapping.key.internal;
        Ok(())
    }

    /// Where a packet to this external port would go, filtering aside.
    pub(crate) fn internal(&self, mapped: Mapped) -> Option<SocketAddrV4> {
        self.mappings.get(&mapped).map(|mapping| mapping.key.internal)
    }

    /// Looks at a mapping that may have been idle for long enough: removes it, or says when to look again.
    pub(crate) fn expire(&mut self, now_ns: u64, mapped: Mapped, notes: &mut Vec<Note>) -> Option<u64> {
        if self.remove_if_idle(now_ns, mapped, notes) {
            return None;
        }
        let mapping = self.mappings.get_mut(&mapped).filter(|mapping| mapping.due_ns == now_ns)?;
        mapping.due_ns = mapping.expires_ns;
        Some(mapping.due_ns)
    }

    /// Forgets every mapping. Until the next rebinding, new ones get other ports than those that were in use now.
    pub(crate) fn rebind(&mut self, notes: &mut Vec<Note>) {
        self.by_internal.clear();
        let forgotten = std::mem::take(&mut self.mappings);
        for (mapped, mapping) in &forgotten {
            let reason = "rebinding".to_owned();
            notes.push(Note::Removed { mapped: *mapped, internal: mapping.key.internal, reason });
        }
        self.retired = forgotten.into_keys().collect();
    }

    fn timeout(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Udp => self.udp_timeout,
            Protocol::Tcp => TCP_TIMEOUT,
        }
    }

    fn timeout_ns(&self, protocol: Protocol) -> u64 {
        u64::try_from(self.timeout(protocol).as_nanos()).unwrap_or(u64::MAX)
    }

    /// A mapping ends at the very moment at which it has been idle for the timeout.
    fn remove_if_idle(&mut self, now_ns: u64, mapped: Mapped, notes: &mut Vec<Note>) -> bool {
        let idle = self.mappings.get(&mapped).is_some_and(|mapping| mapping.expires_ns <= now_ns);
        if idle && let Some(mapping) = self.mappings.remove(&mapped) {
            self.by_internal.remove(&mapping.key);
            let reason = format!("idle for {:?}", self.timeout(mapped.protocol));
            notes.push(Note::Removed { mapped, internal: mapping.key.internal, reason });
        }
        idle
    }

    /// The external port for a new mapping. No two mappings share one ("port overloading", RFC 4787, REQ-3).
    fn free_port(&mut self, key: Key, rng: &mut Rng) -> Option<Mapped> {
        let span = u16::MAX - LOWEST_PORT;
        let first = match self.ports {
            PortAssignment::Preserving => key.internal.port(),
            // Where it begins is as random as where a NAT's counter stands that one comes upon.
            PortAssignment::Contiguous => match self.last_given.get(&key.protocol) {
                Some(last) => last.checked_add(1).unwrap_or(LOWEST_PORT),
                None => random_port(rng),
            },
            PortAssignment::Random => random_port(rng),
        };
        let next = (0..=span).map(|step| {
            let offset = (u32::from(first.max(LOWEST_PORT) - LOWEST_PORT) + u32::from(step)) % (u32::from(span) + 1);
            LOWEST_PORT + u16::try_from(offset).unwrap_or(span)
        });
        let free = std::iter::once(first)
            .filter(|&port| port != 0)
            .chain(next)
            .map(|port| Mapped { protocol: key.protocol, port })
            .find(|mapped| !self.mappings.contains_key(mapped) && !self.retired.contains(mapped))?;
        if self.ports == PortAssignment::Contiguous {
            self.last_given.insert(free.protocol, free.port);
        }
        Some(free)
    }
}

/// One of the ports from [`LOWEST_PORT`] up.
fn random_port(rng: &mut Rng) -> u16 {
    let span = u16::MAX - LOWEST_PORT;
    LOWEST_PORT + u16::try_from(seed::below(rng, u64::from(span) + 1)).unwrap_or(span)
}

impl Mapping {
    fn remember(&mut self, remote: SocketAddrV4) {
        if self.sent_to.contains_key(&remote) {
            return;
        }
        if self.sent_to.len() >= MAX_REMOTES {
            let oldest = self.sent_to.iter().min_by_key(|(_, nth)| **nth).map(|(remote, _)| *remote);
            oldest.map(|oldest| self.sent_to.remove(&oldest));
        }
        self.sent_to.insert(remote, self.sent_to_count);
        self.sent_to_count += 1;
    }

    fn knows_address(&self, address: Ipv4Addr) -> bool {
        let ports = SocketAddrV4::new(address, 0)..=SocketAddrV4::new(address, u16::MAX);
        self.sent_to.range(ports).next().is_some()
    }
}

#[cfg(test)]
mod tests;
