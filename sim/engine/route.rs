//! A packet's way: uplink → NATs and their uplinks → internet → NATs inbound → downlink → host.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::hop::{LinkState, Rule};
use super::packet::{Body, HostId, MTU, Packet};
use super::state::{Engine, Event, LOOPBACK_NS};
use super::summary::summarize;
use super::tcp::Effects;
use crate::event::LabEvent;
use crate::scenario::model::Name;

/// A NAT's place in the list of NATs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NatId(pub(crate) u32);

/// A network in which addresses are unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Internet,
    /// Behind this NAT.
    Lan(NatId),
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Host(HostId),
    Nat(NatId),
}

/// Where a packet comes out of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    Network(Place),
    Owner(Owner),
}

/// How a host or NAT is connected to a network.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) place: Place,
    pub(crate) up: Line,
    pub(crate) down: Line,
}

/// One direction of a link, with what it draws from and is called.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) state: LinkState,
    pub(crate) rng: grenache::net::Rng,
    /// `link dsl of laptop, up`.
    pub(crate) name: String,
}

impl Attachment {
    /// To the internet, over links that do nothing, for tests.
    #[cfg(test)]
    pub(crate) fn unlimited() -> Self {
        let line = || Line {
            state: LinkState::new(&super::topology::DEFAULT_LINK),
            rng: super::seed::stream(0, &[]),
            name: String::new(),
        };
        Self { place: Place::Internet, up: line(), down: line() }
    }
}

impl Engine {
    /// A host sends a packet.
    pub(crate) fn send(&mut self, now_ns: u64, host: HostId, source: SocketAddr, destination: SocketAddr, body: Body) {
        self.packets += 1;
        let packet = Packet { id: self.packets, origin: host, source, destination, body };
        if self.observed {
            let at = Some(self.host(host).name.clone());
            let event = LabEvent::PacketSent {
                packet: packet.id,
                protocol: packet.protocol(),
                source,
                destination,
                size: packet.size(),
                summary: summarize(&packet),
            };
            self.record(now_ns, at, event);
        }
        if destination.ip().is_loopback() || self.host(host).addresses.contains(destination.ip()) {
            self.queue.push(now_ns + LOOPBACK_NS, Event::Packet(packet, Stop::Owner(Owner::Host(host))));
        } else if packet.size() > MTU {
            self.drop_at_host(now_ns, host, &packet, &Rule::TooLarge);
        } else {
            self.uplink(now_ns, Owner::Host(host), packet);
        }
    }

    /// A packet came out of a link.
    pub(crate) fn arrive(&mut self, now_ns: u64, stop: Stop, packet: Packet) {
        match stop {
            Stop::Network(place) => self.in_network(now_ns, place, packet),
            Stop::Owner(Owner::Host(host)) => self.deliver(now_ns, host, packet),
            Stop::Owner(Owner::Nat(nat)) => self.enter_lan(now_ns, nat, packet),
        }
    }

    /// What a host's TCP wants done.
    pub(crate) fn apply(&mut self, now_ns: u64, host: HostId, life: u32, effects: Effects) {
        for (source, destination, segment) in effects.segments {
            self.send(now_ns, host, source, destination, Body::Tcp(Box::new(segment)));
        }
        for (due_ns, connection) in effects.timers {
            self.queue.push(due_ns, Event::TcpTimer(host, life, connection));
        }
        self.wakers.extend(effects.wakers);
    }

    pub(super) fn uplink(&mut self, now_ns: u64, from: Owner, packet: Packet) {
        let attachment = self.attachment(from);
        let stop = Stop::Network(attachment.place);
        let fate = attachment.up.state.on_packet(now_ns, packet.size(), &mut attachment.up.rng);
        match fate {
            Ok(at_ns) => self.queue.push(at_ns, Event::Packet(packet, stop)),
            Err(rule) => {
                let hop = |engine: &mut Self| (Some(engine.name(from)), engine.attachment(from).up.name.clone());
                self.drop_packet(now_ns, &packet, hop, &rule);
            }
        }
    }

    fn downlink(&mut self, now_ns: u64, to: Owner, packet: Packet) {
        let attachment = self.attachment(to);
        let fate = attachment.down.state.on_packet(now_ns, packet.size(), &mut attachment.down.rng);
        match fate {
            Ok(at_ns) => self.queue.push(at_ns, Event::Packet(packet, Stop::Owner(to))),
            Err(rule) => {
                let hop = |engine: &mut Self| (Some(engine.name(to)), engine.attachment(to).down.name.clone());
                self.drop_packet(now_ns, &packet, hop, &rule);
            }
        }
    }

    pub(super) fn in_network(&mut self, now_ns: u64, place: Place, packet: Packet) {
        let destination = packet.destination.ip();
        let hop = move |engine: &mut Self| match place {
            Place::Internet => (None, "internet".to_owned()),
            Place::Lan(nat) => (Some(engine.nat(nat).name.clone()), format!("lan of {}", engine.nat(nat).name)),
        };
        match (self.owner(place, destination), place) {
            (Some(owner), _) => {
                if !self.partitions.is_empty()
                    && let Some(host) = self.final_host(owner, &packet)
                    && self.is_partitioned(packet.origin, host)
                {
                    return self.drop_packet(now_ns, &packet, hop, &Rule::Partition);
                }
                self.downlink(now_ns, owner, packet);
            }
            (None, Place::Lan(nat)) if !self.nat(nat).has_in_lan(destination) => self.leave_lan(now_ns, nat, packet),
            (None, Place::Lan(nat)) if self.nat(nat).state.listens_at().is_some_and(|at| at == destination) => {
                self.ask_nat(now_ns, nat, packet);
            }
            (None, _) => self.drop_packet(now_ns, &packet, hop, &Rule::NoHost(destination)),
        }
    }

    fn deliver(&mut self, now_ns: u64, id: HostId, packet: Packet) {
        let seed = self.seed;
        let host = &mut self.hosts[id.0 as usize];
        let (number, packet_id) = (packet.id, packet.id);
        let Some(life) = &mut host.life else {
            return self.drop_at_host(now_ns, id, &packet, &Rule::HostDown);
        };
        let fate = match &packet.body {
            Body::Udp(payload) => {
                let fate = life.udp.deliver(packet.source, packet.destination, payload.clone());
                fate.map(|waker| self.wakers.extend(waker))
            }
            Body::Tcp(segment) => {
                // Unlike a counter, and as RFC 6528 asks, no connection's numbers tell of another's.
                let first = || {
                    let path = ["host", &*host.name, "tcp sequence", &number.to_string()];
                    super::seed::below(&mut super::seed::stream(seed, &path), 1 << 32) as u32
                };
                life.tcp.on_segment(now_ns, packet.source, packet.destination, segment, first)
            }
        };
        match fate {
            Ok(()) => {
                if self.observed {
                    let at = Some(self.host(id).name.clone());
                    self.record(now_ns, at, LabEvent::PacketDelivered { packet: packet_id });
                }
            }
            Err(rule) => self.drop_at_host(now_ns, id, &packet, &rule),
        }
        if matches!(packet.body, Body::Tcp(_))
            && let Some(life) = &mut self.hosts[id.0 as usize].life
        {
            let (number, effects) = (life.number, life.tcp.drain());
            self.apply(now_ns, id, number, effects);
        }
    }

    /// The host that a packet will come to, filters aside.
    fn final_host(&self, mut owner: Owner, packet: &Packet) -> Option<HostId> {
        let mut headers = packet.headers();
        loop {
            match owner {
                Owner::Host(host) => return Some(host),
                Owner::Nat(nat) if packet.destination.is_ipv6() => {
                    owner = self.owner(Place::Lan(nat), packet.destination.ip())?;
                }
                Owner::Nat(nat) => {
                    let headers = headers.as_mut()?;
                    headers.destination = self.nat(nat).state.internal(headers)?;
                    owner = self.owner(Place::Lan(nat), IpAddr::V4(*headers.destination.ip()))?;
                }
            }
        }
    }

    fn is_partitioned(&self, a: HostId, b: HostId) -> bool {
        self.partitions
            .values()
            .any(|(left, right)| (left.contains(&a) && right.contains(&b)) || (left.contains(&b) && right.contains(&a)))
    }

    /// Who takes packets to this address on this network: a host, a NAT, or the router to its own network.
    fn owner(&self, place: Place, address: IpAddr) -> Option<Owner> {
        match address {
            IpAddr::V4(ip) => self.addresses4.get(&(place, ip)).copied(),
            IpAddr::V6(ip) => self.addresses6.get(&(place, ip)).copied().or_else(|| self.router(place, ip)),
        }
    }

    fn router(&self, place: Place, ip: Ipv6Addr) -> Option<Owner> {
        let ((found, _), (network, nat)) = self.routes6.range(..=(place, ip)).next_back()?;
        (*found == place && network.contains(&ip)).then_some(Owner::Nat(*nat))
    }

    pub(super) fn translated(&mut self, now_ns: u64, nat: NatId, packet: &Packet) {
        if self.observed {
            let event = LabEvent::PacketTranslated {
                packet: packet.id,
                source: packet.source,
                destination: packet.destination,
            };
            let at = Some(self.nat(nat).name.clone());
            self.record(now_ns, at, event);
        }
    }

    fn drop_at_host(&mut self, now_ns: u64, host: HostId, packet: &Packet, rule: &Rule) {
        let hop = |engine: &mut Self| {
            let name = engine.host(host).name.clone();
            (Some(name.clone()), format!("host {name}"))
        };
        self.drop_packet(now_ns, packet, hop, rule);
    }

    pub(super) fn drop_at_nat(&mut self, now_ns: u64, nat: NatId, packet: &Packet, rule: &Rule) {
        let hop = |engine: &mut Self| {
            let name = engine.nat(nat).name.clone();
            (Some(name.clone()), format!("nat {name}"))
        };
        self.drop_packet(now_ns, packet, hop, rule);
    }

    pub(super) fn drop_packet(
        &mut self,
        now_ns: u64,
        packet: &Packet,
        hop: impl FnOnce(&mut Self) -> (Option<Name>, String),
        rule: &Rule,
    ) {
        if self.observed {
            let (at, hop) = hop(self);
            self.record(now_ns, at, LabEvent::PacketDropped { packet: packet.id, hop, rule: rule.to_string() });
        }
    }
}
