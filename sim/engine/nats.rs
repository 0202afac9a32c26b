//! Packets at NATs: through them in both directions, turned around, and for the NAT itself.

use std::net::SocketAddr;

use bytes::Bytes;

use super::capture::Direction;
use super::hop::{Mapped, Note, PMP_PORT, Rule};
use super::packet::{Body, Packet};
use super::route::{NatId, Owner, Place};
use super::state::{Engine, Event};
use super::summary::summarize;
use crate::event::LabEvent;

impl Engine {
    /// From a NAT's network to beyond it.
    pub(super) fn leave_lan(&mut self, now_ns: u64, id: NatId, mut packet: Packet) {
        self.sight_inside(now_ns, id, Direction::In, &packet);
        if self.nat(id).rebooting > 0 {
            return self.drop_at_nat(now_ns, id, &packet, &Rule::NatReboots);
        }
        if let Some(firewall) = &mut self.nats[id.0 as usize].firewall
            && let Err(rule) = firewall.outbound(now_ns, &packet)
        {
            return self.drop_at_firewall(now_ns, Owner::Nat(id), &packet, rule);
        }
        let Some(inside) = packet.headers() else { return self.leave_lan6(now_ns, id, packet) };
        let Self { nats, notes, .. } = self;
        let nat = &mut nats[id.0 as usize];
        let mut outside = inside;
        let fate = nat.state.outbound(now_ns, &mut outside, &mut nat.rng, notes);
        packet.rewrite(outside);
        self.apply_notes(now_ns, id);
        match fate {
            Ok(hairpin) => {
                self.translated(now_ns, id, &packet);
                if hairpin {
                    let source = self.nat(id).state.hairpin_source(inside.source, outside.source);
                    if let Some(mut packet) = self.admit(now_ns, id, packet) {
                        packet.source = source.into();
                        self.translated(now_ns, id, &packet);
                        self.pass_into_lan(now_ns, id, packet);
                    }
                } else {
                    self.sight_outside(now_ns, id, Direction::Out, &packet);
                    self.uplink(now_ns, Owner::Nat(id), packet);
                }
            }
            Err(rule) => self.drop_at_nat(now_ns, id, &packet, &rule),
        }
    }

    /// From beyond a NAT into its network.
    pub(super) fn enter_lan(&mut self, now_ns: u64, id: NatId, packet: Packet) {
        if self.nat(id).rebooting > 0 {
            return self.drop_at_nat(now_ns, id, &packet, &Rule::NatReboots);
        }
        if packet.headers().is_none() {
            return self.pass_into_lan(now_ns, id, packet);
        }
        if let Some(packet) = self.admit(now_ns, id, packet) {
            self.translated(now_ns, id, &packet);
            self.pass_into_lan(now_ns, id, packet);
        }
    }

    /// The firewall of a NAT or router sees the addresses of the inside.
    fn pass_into_lan(&mut self, now_ns: u64, id: NatId, packet: Packet) {
        if let Some(firewall) = &mut self.nats[id.0 as usize].firewall
            && let Err(rule) = firewall.inbound(now_ns, &packet)
        {
            return self.drop_at_firewall(now_ns, Owner::Nat(id), &packet, rule);
        }
        self.sight_inside(now_ns, id, Direction::Out, &packet);
        self.in_network(now_ns, Place::Lan(id), packet);
    }

    /// A router forwards IPv6 as it is.
    fn leave_lan6(&mut self, now_ns: u64, id: NatId, packet: Packet) {
        if self.nat(id).lan6.is_none() {
            return self.drop_at_nat(now_ns, id, &packet, &Rule::NoIpv6);
        }
        self.sight_outside(now_ns, id, Direction::Out, &packet);
        self.uplink(now_ns, Owner::Nat(id), packet);
    }

    /// The IPv4 packet as it is inside, where the NAT lets it in.
    fn admit(&mut self, now_ns: u64, id: NatId, mut packet: Packet) -> Option<Packet> {
        let mut headers = packet.headers()?;
        let Self { nats, notes, .. } = self;
        let fate = nats[id.0 as usize].state.inbound(now_ns, &mut headers, notes);
        packet.rewrite(headers);
        self.apply_notes(now_ns, id);
        match fate {
            Ok(()) => Some(packet),
            Err(rule) => {
                self.drop_at_nat(now_ns, id, &packet, &rule);
                None
            }
        }
    }

    /// A packet from a NAT's network for the NAT itself.
    pub(super) fn ask_nat(&mut self, now_ns: u64, id: NatId, packet: Packet) {
        self.sight_inside(now_ns, id, Direction::In, &packet);
        if self.nat(id).rebooting > 0 {
            return self.drop_at_nat(now_ns, id, &packet, &Rule::NatReboots);
        }
        let (payload, from) = match (&packet.body, packet.source) {
            (Body::Udp(payload), SocketAddr::V4(from)) if packet.destination.port() == PMP_PORT => {
                (payload.clone(), from)
            }
            _ => {
                let rule = Rule::NoSocket(packet.destination.port());
                return self.drop_at_nat(now_ns, id, &packet, &rule);
            }
        };
        let name = self.nat(id).name.clone();
        if self.observed {
            self.record(now_ns, Some(name.clone()), LabEvent::PacketDelivered { packet: packet.id });
        }
        let Self { nats, notes, .. } = self;
        let nat = &mut nats[id.0 as usize];
        let answer = nat.state.on_request(now_ns, from, &payload, &mut nat.rng, notes);
        self.apply_notes(now_ns, id);
        let Some(answer) = answer else { return };
        self.packets += 1;
        // No host is its origin: the asker's own lets it through partitions, which do not cut a host off from its NAT.
        let answer = Packet {
            id: self.packets,
            origin: packet.origin,
            source: packet.destination,
            destination: packet.source,
            body: Body::Udp(Bytes::from(answer)),
        };
        if self.observed {
            let event = LabEvent::PacketSent {
                packet: answer.id,
                protocol: answer.protocol(),
                source: answer.source,
                destination: answer.destination,
                size: answer.size(),
                summary: summarize(&answer),
            };
            self.record(now_ns, Some(name), event);
        }
        self.sight_inside(now_ns, id, Direction::Out, &answer);
        self.in_network(now_ns, Place::Lan(id), answer);
    }

    /// What a NAT noted since the last call.
    pub(super) fn apply_notes(&mut self, now_ns: u64, nat: NatId) {
        if self.notes.is_empty() {
            return;
        }
        let mut notes = std::mem::take(&mut self.notes);
        let name = self.nat(nat).name.clone();
        for note in notes.drain(..) {
            let external = |mapped: Mapped| SocketAddr::V4(mapped.external());
            let event = match note {
                Note::Created { mapped, internal, remote, expires_ns } => {
                    self.queue.push(expires_ns, Event::Mapping(nat, mapped));
                    let (protocol, external) = (mapped.protocol, external(mapped));
                    LabEvent::MappingCreated { protocol, internal: internal.into(), external, remote }
                }
                Note::Removed { mapped, internal, reason } => {
                    let (protocol, external) = (mapped.protocol, external(mapped));
                    LabEvent::MappingRemoved { protocol, internal: internal.into(), external, reason }
                }
                Note::BlockAllocated { internal, block } => {
                    let ports = format!("{}-{}", block.first, block.last);
                    let external = block.address.into();
                    LabEvent::PortBlockAllocated { internal: internal.into(), external, ports }
                }
                Note::BlockReleased { internal, block } => {
                    let ports = format!("{}-{}", block.first, block.last);
                    let external = block.address.into();
                    LabEvent::PortBlockReleased { internal: internal.into(), external, ports }
                }
                Note::ForwardCreated { mapped, internal, lifetime, expires_ns } => {
                    self.queue.push(expires_ns, Event::Mapping(nat, mapped));
                    let (protocol, external) = (mapped.protocol, external(mapped));
                    let lifetime = format!("{lifetime:?}");
                    LabEvent::ForwardCreated { protocol, internal: internal.into(), external, lifetime }
                }
                Note::ForwardRemoved { mapped, internal, reason } => {
                    let (protocol, external) = (mapped.protocol, external(mapped));
                    LabEvent::ForwardRemoved { protocol, internal: internal.into(), external, reason }
                }
            };
            self.record(now_ns, Some(name.clone()), event);
        }
        self.notes = notes;
    }
}
