//! A NAT's mappings, and what each host behind it has of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use super::ports::Block;
use crate::event::Protocol;
use crate::scenario::model::Dependence;

/// Remote endpoints that a mapping's filter remembers; beyond, the one that was first sent to is forgotten.
pub(super) const MAX_REMOTES: usize = 4096;

/// What names a mapping: an external endpoint, and which of those that share it where ports are overloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mapped {
    pub(crate) protocol: Protocol,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    /// 0 but for those that came later to an overloaded port.
    pub(crate) sharer: u16,
}

impl Mapped {
    pub(crate) fn external(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.port)
    }
}

/// What an outgoing packet is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) protocol: Protocol,
    pub(super) internal: SocketAddrV4,
    pub(super) remote: Remote,
}

/// For which destinations a mapping is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Remote {
    All,
    Address(Ipv4Addr),
    Endpoint(SocketAddrV4),
}

impl Remote {
    pub(super) fn of(mapping: Dependence, destination: SocketAddrV4) -> Self {
        match mapping {
            Dependence::EndpointIndependent => Self::All,
            Dependence::AddressDependent => Self::Address(*destination.ip()),
            Dependence::AddressAndPortDependent => Self::Endpoint(destination),
        }
    }

    /// For the event log.
    pub(super) fn in_words(self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Address(address) => Some(address.to_string()),
            Self::Endpoint(endpoint) => Some(endpoint.to_string()),
        }
    }
}

#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) key: Key,
    /// It was asked for, or is there for ever: it lets everybody in, and no packet makes it live longer.
    pub(super) is_forward: bool,
    pub(super) expires_ns: u64,
    /// When [`NatState::expire`](super::NatState::expire) is due for it; other calls were meant for an earlier mapping
    /// of this name.
    pub(super) due_ns: u64,
    /// Where packets were sent to through it, and as how manieth: what filtering goes by.
    sent_to: BTreeMap<SocketAddrV4, u64>,
    sent_to_count: u64,
}

impl Mapping {
    pub(super) fn new(key: Key, is_forward: bool, expires_ns: u64) -> Self {
        Self { key, is_forward, expires_ns, due_ns: expires_ns, sent_to: BTreeMap::new(), sent_to_count: 0 }
    }

    pub(super) fn remember(&mut self, remote: SocketAddrV4) {
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

    pub(super) fn knows(&self, remote: SocketAddrV4) -> bool {
        self.sent_to.contains_key(&remote)
    }

    /// RFC 4787, 5.
    pub(super) fn lets_in(&self, source: SocketAddrV4, filtering: Dependence) -> bool {
        match filtering {
            _ if self.is_forward => true,
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => {
                let ports = SocketAddrV4::new(*source.ip(), 0)..=SocketAddrV4::new(*source.ip(), u16::MAX);
                self.sent_to.range(ports).next().is_some()
            }
            Dependence::AddressAndPortDependent => self.knows(source),
        }
    }
}

/// What a host behind the NAT has, from its first mapping to its last.
#[derive(Debug)]
pub(super) struct Host {
    /// The public address that it is paired with.
    pub(super) address: Ipv4Addr,
    /// Without forwards.
    pub(super) mappings: u32,
    pub(super) forwards: u32,
    pub(super) blocks: Vec<Block>,
}

/// All mappings. They are bounded by the external ports, and by [`Mapped::sharer`] where these are overloaded.
#[derive(Debug, Default)]
pub(super) struct Table {
    mappings: BTreeMap<Mapped, Mapping>,
    by_internal: BTreeMap<Key, Mapped>,
    forwards: BTreeMap<(Protocol, SocketAddrV4), Mapped>,
    pub(super) hosts: BTreeMap<Ipv4Addr, Host>,
    /// How many hosts are paired with each public address.
    pub(super) paired: BTreeMap<Ipv4Addr, u32>,
    /// Ports whose mappings the last rebinding ended: new mappings get others.
    retired: BTreeSet<Mapped>,
}

impl Table {
    /// The mapping that an outgoing packet uses, forwards first.
    pub(super) fn outgoing(&self, key: &Key) -> Option<Mapped> {
        self.forward(key.protocol, key.internal).or_else(|| self.by_internal.get(key).copied())
    }

    pub(super) fn forward(&self, protocol: Protocol, internal: SocketAddrV4) -> Option<Mapped> {
        // Most NATs have none.
        if self.forwards.is_empty() { None } else { self.forwards.get(&(protocol, internal)).copied() }
    }

    /// A host's forwards of one protocol.
    pub(super) fn forwards_of(&self, protocol: Protocol, host: Ipv4Addr) -> Vec<Mapped> {
        let ports = (protocol, SocketAddrV4::new(host, 0))..=(protocol, SocketAddrV4::new(host, u16::MAX));
        self.forwards.range(ports).map(|(_, mapped)| *mapped).collect()
    }

    pub(super) fn get(&self, mapped: &Mapped) -> Option<&Mapping> {
        self.mappings.get(mapped)
    }

    pub(super) fn get_mut(&mut self, mapped: &Mapped) -> Option<&mut Mapping> {
        self.mappings.get_mut(mapped)
    }

    /// Those that have this external endpoint: at most one, but where ports are overloaded.
    pub(super) fn at(&self, protocol: Protocol, external: SocketAddrV4) -> impl Iterator<Item = (&Mapped, &Mapping)> {
        let named = |sharer| Mapped { protocol, address: *external.ip(), port: external.port(), sharer };
        self.mappings.range(named(0)..=named(u16::MAX))
    }

    /// Whether a new mapping may have this endpoint for itself.
    pub(super) fn is_free(&self, mapped: &Mapped) -> bool {
        self.is_unused(mapped) && !self.retired.contains(mapped)
    }

    /// Whether no mapping has this endpoint.
    pub(super) fn is_unused(&self, mapped: &Mapped) -> bool {
        self.at(mapped.protocol, mapped.external()).next().is_none()
    }

    /// Adds a mapping to a host that is there.
    pub(super) fn insert(&mut self, mapped: Mapped, mapping: Mapping) {
        if let Some(host) = self.hosts.get_mut(mapping.key.internal.ip()) {
            let count = if mapping.is_forward { &mut host.forwards } else { &mut host.mappings };
            *count += 1;
            if let Some(block) = host.blocks.iter_mut().find(|block| block.has(mapped)) {
                block.used += 1;
            }
        }
        if mapping.is_forward {
            self.forwards.insert((mapped.protocol, mapping.key.internal), mapped);
        } else {
            self.by_internal.insert(mapping.key, mapped);
        }
        self.mappings.insert(mapped, mapping);
    }

    /// Removes a mapping; with it the host's block, where this was the last in it, and the host, where it has no other.
    pub(super) fn remove(&mut self, mapped: &Mapped) -> Option<(Mapping, Option<Block>)> {
        let mapping = self.mappings.remove(mapped)?;
        if mapping.is_forward {
            self.forwards.remove(&(mapped.protocol, mapping.key.internal));
        } else {
            self.by_internal.remove(&mapping.key);
        }
        let ip = *mapping.key.internal.ip();
        let host = self.hosts.get_mut(&ip)?;
        let count = if mapping.is_forward { &mut host.forwards } else { &mut host.mappings };
        *count -= 1;
        let mut released = None;
        if let Some(at) = host.blocks.iter().position(|block| block.has(*mapped)) {
            host.blocks[at].used -= 1;
            if host.blocks[at].used == 0 {
                released = Some(host.blocks.remove(at));
            }
        }
        self.forget_idle(ip);
        Some((mapping, released))
    }

    /// Forgets a host that has nothing.
    pub(super) fn forget_idle(&mut self, ip: Ipv4Addr) {
        if let Some(host) = self.hosts.get(&ip).filter(|host| host.mappings == 0 && host.forwards == 0) {
            let address = host.address;
            self.hosts.remove(&ip);
            self.paired.entry(address).and_modify(|hosts| *hosts -= 1);
        }
    }

    /// The host's mapping that is due to end first.
    pub(super) fn oldest_of(&self, host: Ipv4Addr) -> Option<Mapped> {
        let of = |protocol| {
            let key = |port, remote| Key { protocol, internal: SocketAddrV4::new(host, port), remote };
            let last = Remote::Endpoint(SocketAddrV4::new(Ipv4Addr::BROADCAST, u16::MAX));
            self.by_internal.range(key(0, Remote::All)..=key(u16::MAX, last)).map(|(_, mapped)| *mapped)
        };
        of(Protocol::Udp)
            .chain(of(Protocol::Tcp))
            .min_by_key(|mapped| (self.mappings.get(mapped).map(|mapping| mapping.expires_ns), *mapped))
    }

    /// The names of all mappings that are not for ever, in order. Until the next call, none of these is
    /// [free](Self::is_free) again.
    pub(super) fn retire(&mut self) -> Vec<Mapped> {
        let ending = |(mapped, mapping): (&Mapped, &Mapping)| (mapping.expires_ns != u64::MAX).then_some(*mapped);
        let all: Vec<Mapped> = self.mappings.iter().filter_map(ending).collect();
        self.retired = all.iter().copied().collect();
        all
    }

    /// What was retired is free again.
    pub(super) fn forget_retired(&mut self) {
        self.retired.clear();
    }
}
