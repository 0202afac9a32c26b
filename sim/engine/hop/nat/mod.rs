//! A NAT in RFC 4787's terms: mapping, filtering, port assignment, pooling, binding lifetime, hairpinning; with RFC
//! 6888's limits and port blocks, static address translation, and forwards that are static or asked for (RFC 6886).
//!
//! | module | what it does |
//! |---|---|
//! | `mapping` | the table of mappings, their filters, and what each host has |
//! | `ports` | which external address and port a new mapping gets |
//! | `pmp` | NAT-PMP: what hosts ask for and are told |

mod mapping;
mod pmp;
mod ports;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use grenache::net::Rng;

use super::Rule;
use crate::event::Protocol;
use crate::scenario::model::{Dependence, Hairpinning, Nat, NatPmp, PortAssignment, Refresh, WhenFull};
pub(crate) use mapping::Mapped;
use mapping::{Key, Mapping, Remote, Table};
pub(crate) use pmp::PORT as PMP_PORT;
pub(crate) use ports::Block;
use ports::Ports;

/// What a NAT sees of a packet, and rewrites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) protocol: Protocol,
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
}

/// A NAT's state.
#[derive(Debug)]
pub(crate) struct NatState {
    addresses: Vec<Ipv4Addr>,
    gateway: Ipv4Addr,
    mapping: Dependence,
    filtering: Dependence,
    udp_timeout: Duration,
    tcp_timeout: Duration,
    refresh: Refresh,
    hairpinning: Hairpinning,
    mappings_per_host: Option<u32>,
    when_full: WhenFull,
    pmp: Option<NatPmp>,
    /// Since when it remembers forwards.
    epoch_ns: u64,
    /// Static translation: by internal and by public address. Both are empty, or nothing else is used.
    to_public: BTreeMap<Ipv4Addr, Ipv4Addr>,
    to_internal: BTreeMap<Ipv4Addr, Ipv4Addr>,
    overloading: bool,
    ports: Ports,
    table: Table,
}

/// Something a NAT did beside forwarding, in order.
#[derive(Debug, PartialEq)]
pub(crate) enum Note {
    /// A mapping was made. It is due to be looked at by [`NatState::expire`] at the given time.
    Created { mapped: Mapped, internal: SocketAddrV4, remote: Option<String>, expires_ns: u64 },
    /// A mapping ended.
    Removed { mapped: Mapped, internal: SocketAddrV4, reason: String },
    /// A host got a block of ports.
    BlockAllocated { internal: Ipv4Addr, block: Block },
    /// A host's block of ports is free again.
    BlockReleased { internal: Ipv4Addr, block: Block },
    /// A host asked for a forward and got it, with the time of [`NatState::expire`].
    ForwardCreated { mapped: Mapped, internal: SocketAddrV4, lifetime: Duration, expires_ns: u64 },
    /// A forward ended.
    ForwardRemoved { mapped: Mapped, internal: SocketAddrV4, reason: String },
}

impl NatState {
    /// `stream` gives the random streams of what is drawn beside the NAT's own.
    pub(crate) fn new(nat: &Nat, stream: impl Fn(&str) -> Rng) -> Self {
        let mut state = Self {
            addresses: nat.addresses().chain(nat.one_to_one.values().copied()).collect(),
            gateway: nat.gateway(),
            mapping: nat.mapping,
            filtering: nat.filtering,
            udp_timeout: nat.udp_timeout,
            tcp_timeout: nat.tcp_timeout,
            refresh: nat.refresh,
            hairpinning: nat.hairpinning,
            mappings_per_host: nat.mappings_per_host,
            when_full: nat.when_full,
            pmp: nat.nat_pmp,
            epoch_ns: 0,
            to_public: nat.one_to_one.clone(),
            to_internal: nat.one_to_one.iter().map(|(internal, public)| (*public, *internal)).collect(),
            overloading: nat.ports == PortAssignment::Overloading,
            ports: Ports::new(nat, stream),
            table: Table::default(),
        };
        for forward in &nat.forwards {
            let address = state.ports.pair(&mut state.table, *forward.to.ip());
            let mapped = Mapped { protocol: forward.protocol, address, port: forward.port, sharer: 0 };
            let key = Key { protocol: forward.protocol, internal: forward.to, remote: Remote::All };
            state.table.insert(mapped, Mapping::new(key, true, u64::MAX));
        }
        state
    }

    /// Where hosts behind it reach the NAT itself, where it listens.
    pub(crate) fn listens_at(&self) -> Option<Ipv4Addr> {
        self.pmp.map(|_| self.gateway)
    }

    /// Translates a packet from the inside: its source becomes external. `true` where it is to be turned around at
    /// once because it is for one of this NAT's own addresses (RFC 4787, REQ-9): hand it to
    /// [`inbound`](Self::inbound), whose filtering then sees the external source, and then ask for its
    /// [`hairpin_source`](Self::hairpin_source).
    pub(crate) fn outbound(
        &mut self,
        now_ns: u64,
        packet: &mut Headers,
        rng: &mut Rng,
        notes: &mut Vec<Note>,
    ) -> Result<bool, Rule> {
        let hairpin = self.addresses.contains(packet.destination.ip());
        if hairpin && self.hairpinning == Hairpinning::None {
            return Err(Rule::NoHairpinning);
        }
        if !self.to_public.is_empty() {
            let public = self.to_public.get(packet.source.ip()).ok_or(Rule::NoPublicAddress)?;
            packet.source.set_ip(*public);
            return Ok(hairpin);
        }
        let remote = Remote::of(self.mapping, packet.destination);
        let key = Key { protocol: packet.protocol, internal: packet.source, remote };
        let mut found = self.table.outgoing(&key);
        if found.is_some_and(|mapped| self.remove_if_idle(now_ns, mapped, notes)) {
            // A forward that ended may have hidden a mapping.
            found = self.table.outgoing(&key).filter(|mapped| !self.remove_if_idle(now_ns, *mapped, notes));
        }
        let expires_ns = now_ns.saturating_add(self.timeout_ns(key.protocol));
        let mapped = match found {
            Some(mapped) => mapped,
            None => {
                self.make_room(key, notes)?;
                let mapped = self.ports.assign(&mut self.table, key.protocol, key.internal, rng, notes)?;
                let clash = self.refuse_clash(now_ns, mapped, key.internal, packet.destination, notes);
                if let Err(rule) = clash {
                    self.table.forget_idle(*key.internal.ip());
                    return Err(rule);
                }
                self.table.insert(mapped, Mapping::new(key, false, expires_ns));
                let remote = remote.in_words();
                notes.push(Note::Created { mapped, internal: key.internal, remote, expires_ns });
                mapped
            }
        };
        let knows = self.table.get(&mapped).is_some_and(|mapping| mapping.knows(packet.destination));
        if self.overloading && !knows {
            self.refuse_clash(now_ns, mapped, key.internal, packet.destination, notes)?;
        }
        let mapping = self.table.get_mut(&mapped).expect("the index names mappings that exist");
        if !mapping.is_forward && self.refresh != Refresh::Inbound {
            mapping.expires_ns = expires_ns;
        }
        mapping.remember(packet.destination);
        packet.source = mapped.external();
        Ok(hairpin)
    }

    /// Translates a packet from the outside: its destination becomes internal.
    pub(crate) fn inbound(&mut self, now_ns: u64, packet: &mut Headers, notes: &mut Vec<Note>) -> Result<(), Rule> {
        let port = packet.destination.port();
        if !self.to_internal.is_empty() {
            let internal = self.to_internal.get(packet.destination.ip()).ok_or(Rule::NoMapping(port))?;
            packet.destination.set_ip(*internal);
            return Ok(());
        }
        let (first, others) = {
            let mut here = self.table.at(packet.protocol, packet.destination).map(|(mapped, _)| *mapped);
            (here.next().ok_or(Rule::NoMapping(port))?, here.collect::<Vec<_>>())
        };
        for mapped in std::iter::once(first).chain(others) {
            self.remove_if_idle(now_ns, mapped, notes);
        }
        let (mapped, filtering) = self.recipient(packet).ok_or(Rule::NoMapping(port))?;
        let timeout_ns = self.timeout_ns(mapped.protocol);
        let mapping = self.table.get_mut(&mapped).expect("just found");
        if !mapping.lets_in(packet.source, filtering) {
            return Err(Rule::Filtered { source: packet.source.into(), port, filtering });
        }
        packet.destination = mapping.key.internal;
        if !mapping.is_forward && self.refresh != Refresh::Outbound {
            mapping.expires_ns = now_ns.saturating_add(timeout_ns);
        }
        Ok(())
    }

    /// The source of a packet that was turned around, from the sender's own and its external one (RFC 4787, 6).
    pub(crate) fn hairpin_source(&self, internal: SocketAddrV4, external: SocketAddrV4) -> SocketAddrV4 {
        if self.hairpinning == Hairpinning::InternalSource { internal } else { external }
    }

    /// Where a packet from the outside would go, filtering aside.
    pub(crate) fn internal(&self, packet: &Headers) -> Option<SocketAddrV4> {
        if let Some(internal) = self.to_internal.get(packet.destination.ip()) {
            return Some(SocketAddrV4::new(*internal, packet.destination.port()));
        }
        let (mapped, _) = self.recipient(packet)?;
        self.table.get(&mapped).map(|mapping| mapping.key.internal)
    }

    /// Looks at a mapping that may have been idle for long enough: removes it, or says when to look again.
    pub(crate) fn expire(&mut self, now_ns: u64, mapped: Mapped, notes: &mut Vec<Note>) -> Option<u64> {
        if self.remove_if_idle(now_ns, mapped, notes) {
            return None;
        }
        let mapping = self.table.get_mut(&mapped).filter(|mapping| mapping.due_ns == now_ns)?;
        mapping.due_ns = mapping.expires_ns;
        Some(mapping.due_ns)
    }

    /// Forgets every mapping and every forward that was asked for. Until the next rebinding, new ones get other ports
    /// than those that were in use now, where ports are not overloaded.
    pub(crate) fn rebind(&mut self, now_ns: u64, notes: &mut Vec<Note>) {
        self.epoch_ns = now_ns;
        for mapped in self.table.retire() {
            self.remove(mapped, "rebinding".to_owned(), notes);
        }
    }

    /// Forgets all mappings but those for ever, and which ports they had.
    pub(crate) fn reboot(&mut self, now_ns: u64, notes: &mut Vec<Note>) {
        self.epoch_ns = now_ns;
        for mapped in self.table.retire() {
            self.remove(mapped, "reboot".to_owned(), notes);
        }
        self.table.forget_retired();
        self.ports.last_given.clear();
    }

    /// Whom a packet from the outside is for, and the filtering that it has to pass: where several share the port, the
    /// one that sent to its source, and else only a forward.
    fn recipient(&self, packet: &Headers) -> Option<(Mapped, Dependence)> {
        let mut here = self.table.at(packet.protocol, packet.destination);
        let (first, _) = here.next()?;
        if here.next().is_none() {
            return Some((*first, self.filtering));
        }
        let mut all = self.table.at(packet.protocol, packet.destination);
        let sent = all.find(|(_, mapping)| mapping.knows(packet.source));
        let forward = || self.table.at(packet.protocol, packet.destination).find(|(_, mapping)| mapping.is_forward);
        let mapped = sent.or_else(forward).map_or(*first, |(mapped, _)| *mapped);
        Some((mapped, Dependence::AddressAndPortDependent))
    }

    /// Where ports are overloaded, two hosts cannot send to one endpoint from one port: nobody could tell whom an
    /// answer is for.
    fn refuse_clash(
        &mut self,
        now_ns: u64,
        mapped: Mapped,
        internal: SocketAddrV4,
        remote: SocketAddrV4,
        notes: &mut Vec<Note>,
    ) -> Result<(), Rule> {
        while self.overloading {
            let clash = {
                let mut others = self.table.at(mapped.protocol, mapped.external());
                others.find(|(_, other)| other.key.internal != internal && other.knows(remote)).map(|(other, _)| *other)
            };
            let Some(other) = clash else { break };
            if !self.remove_if_idle(now_ns, other, notes) {
                return Err(Rule::PortOverloaded { port: mapped.port, remote });
            }
        }
        Ok(())
    }

    /// RFC 6888, REQ-4.
    fn make_room(&mut self, key: Key, notes: &mut Vec<Note>) -> Result<(), Rule> {
        let Some(limit) = self.mappings_per_host else { return Ok(()) };
        let ip = *key.internal.ip();
        if self.table.hosts.get(&ip).is_none_or(|host| host.mappings < limit) {
            return Ok(());
        }
        let oldest = match self.when_full {
            WhenFull::Refuse => None,
            WhenFull::ReplaceOldest => self.table.oldest_of(ip),
        };
        let oldest = oldest.ok_or(Rule::TooManyMappings(limit))?;
        self.remove(oldest, format!("limit of {limit} mappings"), notes);
        Ok(())
    }

    fn timeout(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Udp => self.udp_timeout,
            Protocol::Tcp => self.tcp_timeout,
        }
    }

    fn timeout_ns(&self, protocol: Protocol) -> u64 {
        nanos(self.timeout(protocol))
    }

    /// A mapping ends at the very moment at which it has been idle for the timeout.
    fn remove_if_idle(&mut self, now_ns: u64, mapped: Mapped, notes: &mut Vec<Note>) -> bool {
        let Some(mapping) = self.table.get(&mapped).filter(|mapping| mapping.expires_ns <= now_ns) else {
            return false;
        };
        let reason = if mapping.is_forward {
            "its lifetime is over".to_owned()
        } else {
            format!("idle for {:?}", self.timeout(mapped.protocol))
        };
        self.remove(mapped, reason, notes);
        true
    }

    fn remove(&mut self, mapped: Mapped, reason: String, notes: &mut Vec<Note>) {
        let Some((mapping, released)) = self.table.remove(&mapped) else { return };
        let internal = mapping.key.internal;
        notes.push(if mapping.is_forward {
            Note::ForwardRemoved { mapped, internal, reason }
        } else {
            Note::Removed { mapped, internal, reason }
        });
        if let Some(block) = released {
            self.ports.release(&block);
            notes.push(Note::BlockReleased { internal: *internal.ip(), block });
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
