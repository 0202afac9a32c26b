//! A packet's way: uplink → NATs and their uplinks → internet → NATs inbound → downlink → host.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use super::capture::Direction;
use super::fault::{Degraded, clock_ahead};
use super::hop::{FirewallRule, LinkState, Rule};
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
    /// How many faults hold the link down.
    pub(crate) down_faults: u32,
    /// What makes the link worse, one behind the other.
    pub(crate) degraded: Vec<Degraded>,
    pub(crate) degraded_times: u64,
}

/// One direction of a link, with what it draws from and is called.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) state: LinkState,
    pub(crate) rng: grenache::net::Rng,
    /// `link dsl of laptop, up`.
    pub(crate) name: String,
    /// When the next sample of its queue is due.
    pub(crate) sample_due_ns: u64,
}

impl Attachment {
    pub(crate) fn new(place: Place, up: Line, down: Line) -> Self {
        Self { place, up, down, down_faults: 0, degraded: Vec::new(), degraded_times: 0 }
    }

    /// When a packet of this size that enters the link comes out, or why it never does.
    fn cross(&mut self, up: bool, now_ns: u64, size: usize) -> Result<u64, Rule> {
        if self.down_faults > 0 {
            return Err(Rule::LinkDown);
        }
        let line = if up { &mut self.up } else { &mut self.down };
        let at_ns = line.state.on_packet(now_ns, size, &mut line.rng)?;
        if self.degraded.is_empty() { Ok(at_ns) } else { self.degrade(up, at_ns, size) }
    }

    /// To the internet, over links that do nothing, for tests.
    #[cfg(test)]
    pub(crate) fn unlimited() -> Self {
        let line = || Line {
            state: LinkState::new(&super::topology::DEFAULT_LINK),
            rng: super::seed::stream(0, &[]),
            name: String::new(),
            sample_due_ns: 0,
        };
        Self::new(Place::Internet, line(), line())
    }
}

impl Engine {
    /// A host sends a packet.
    pub(crate) fn send(&mut self, now_ns: u64, host: HostId, source: SocketAddr, destination: SocketAddr, body: Body) {
        self.packets += 1;
        let mut body = body;
        if let (Body::Udp(payload), clock @ [_, ..]) = (&mut body, &*self.hosts[host.0 as usize].clock) {
            shift_clock(payload, clock_ahead(clock, now_ns));
        }
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
        self.sight_at_host(now_ns, host, Direction::Out, &packet);
        if destination.ip().is_loopback() || self.host(host).addresses.contains(destination.ip()) {
            self.queue.push(now_ns + LOOPBACK_NS, Event::Packet(packet, Stop::Owner(Owner::Host(host))));
        } else if packet.size() > MTU {
            self.drop_at_host(now_ns, host, &packet, &Rule::TooLarge);
        } else {
            if let Some(firewall) = &mut self.hosts[host.0 as usize].firewall
                && let Err(rule) = firewall.outbound(now_ns, &packet)
            {
                return self.drop_at_firewall(now_ns, Owner::Host(host), &packet, rule);
            }
            self.uplink(now_ns, Owner::Host(host), packet);
        }
    }

    /// A packet came out of a link.
    pub(crate) fn arrive(&mut self, now_ns: u64, stop: Stop, packet: Packet) {
        match stop {
            Stop::Network(place) => self.in_network(now_ns, place, packet),
            Stop::Owner(Owner::Host(host)) => self.deliver(now_ns, host, packet),
            Stop::Owner(Owner::Nat(nat)) => {
                self.sight_outside(now_ns, nat, Direction::In, &packet);
                self.enter_lan(now_ns, nat, packet);
            }
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
        let fate = attachment.cross(true, now_ns, packet.size());
        self.sample_queue(now_ns, from, true);
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
        let fate = attachment.cross(false, now_ns, packet.size());
        self.sample_queue(now_ns, to, false);
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
                if self.partitions > 0
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
        self.sight_at_host(now_ns, id, Direction::In, &packet);
        let seed = self.seed;
        let host = &mut self.hosts[id.0 as usize];
        let (number, packet_id) = (packet.id, packet.id);
        let to = packet.destination.ip();
        if !to.is_loopback() && !host.addresses.contains(to) {
            return self.drop_at_host(now_ns, id, &packet, &Rule::Moved(to));
        }
        let from_itself = packet.source.ip().is_loopback() || host.addresses.contains(packet.source.ip());
        if let Some(firewall) = host.firewall.as_mut().filter(|_| !from_itself)
            && let Err(rule) = firewall.inbound(now_ns, &packet)
        {
            return self.drop_at_firewall(now_ns, Owner::Host(id), &packet, rule);
        }
        let Some(life) = &mut host.life else {
            return self.drop_at_host(now_ns, id, &packet, &Rule::HostDown);
        };
        let fate = match &packet.body {
            Body::Udp(payload) => {
                let mut payload = payload.clone();
                if !host.clock.is_empty() {
                    // As its own clock would have it: µTP only ever sees differences.
                    shift_clock(&mut payload, clock_ahead(&host.clock, now_ns).wrapping_neg());
                }
                let fate = life.udp.deliver(packet.source, packet.destination, payload);
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

    /// Who takes packets to this address on this network: a host, a NAT, or the router to its own network.
    fn owner(&self, place: Place, address: IpAddr) -> Option<Owner> {
        match address {
            IpAddr::V4(ip) => self.addresses4.get(&(place, ip)).copied(),
            IpAddr::V6(ip) => self.addresses6.get(&(place, ip)).copied().or_else(|| self.router(place, ip)),
        }
    }

    pub(crate) fn router(&self, place: Place, ip: Ipv6Addr) -> Option<Owner> {
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

    pub(super) fn drop_at_firewall(&mut self, now_ns: u64, owner: Owner, packet: &Packet, rule: FirewallRule) {
        let hop = |engine: &mut Self| {
            let name = engine.name(owner);
            (Some(name.clone()), format!("firewall of {name}"))
        };
        self.drop_packet(now_ns, packet, hop, &Rule::Firewall(rule));
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

/// Adds to the timestamp of a µTP packet (BEP 29); 0 stays, which stands for none, and none becomes 0.
fn shift_clock(payload: &mut Bytes, ahead_us: u32) {
    if !super::summary::is_utp(payload) {
        return;
    }
    let Some(field) = payload.get(4..8).and_then(|field| field.first_chunk::<4>()) else { return };
    let stamp = u32::from_be_bytes(*field);
    if stamp == 0 || ahead_us == 0 {
        return;
    }
    let mut shifted = payload.to_vec();
    shifted[4..8].copy_from_slice(&stamp.wrapping_add(ahead_us).max(1).to_be_bytes());
    *payload = shifted.into();
}
