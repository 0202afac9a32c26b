//! What events mean for expectations: facts, which take more than one event to see.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use grenache::connect::Rung;
use grenache::event::Event as StackEvent;
use serde_json::Value;

use crate::event::{Event, LabEvent, Record};
use crate::scenario::model::{Measure, Name, ProgramKind, Scenario, Way};

/// How many requests, packets, punches and ways are remembered, of each; the oldest are forgotten first.
const REMEMBERED: usize = 65_536;

/// Something that expectations ask for.
#[derive(Debug)]
pub(super) enum Fact<'a> {
    /// A client's request ended in a reply.
    Reply { to: &'a Name, from: Option<&'a Name>, address: SocketAddr, way: Way, value: &'a Value },
    /// A client's request ended in an error; `from` is who sent it, where it is not this side's.
    Failure { to: &'a Name, from: Option<&'a Name>, way: Option<Way>, error: &'a str },
    /// A punch arrived.
    Punch { at: &'a Name, from: SocketAddr },
    /// A lookup ended.
    Found { at: &'a Name, service: &'a str, addresses: &'a [SocketAddr] },
    /// A measure was taken.
    Took { at: &'a Name, measure: Measure, time: Duration },
    /// A packet passed through a node or a NAT.
    Passed { through: &'a Name, packet: u64, size: usize },
}

/// What is remembered of a run to tell facts.
#[derive(Debug)]
pub(super) struct Facts {
    /// Which node answered a request, by its id.
    answered_by: Recent<String, Name>,
    /// When and where to a request was sent, by its id: first when, last where to.
    sent: Recent<String, (u64, SocketAddr)>,
    /// The size of a packet, by its number: what stays on a host is none.
    sizes: Recent<u64, usize>,
    /// The ways that connectors found, by node and address.
    ways: Recent<(Name, SocketAddr), Rung>,
    /// Who was punched from where.
    punches: Recent<(Name, SocketAddr), ()>,
    /// When a node's first client started.
    started: BTreeMap<Name, u64>,
    /// Who has found a way already.
    connected: BTreeSet<Name>,
    /// The public addresses that a node's packets can come from.
    addresses: BTreeMap<Name, Vec<IpAddr>>,
    /// What the clients on a node ask for: their requests to a broker are not meant.
    services: BTreeMap<Name, BTreeSet<String>>,
    /// Whether any expectation asks for bytes.
    counts_bytes: bool,
}

impl Facts {
    pub(super) fn new(scenario: &Scenario, counts_bytes: bool) -> Self {
        let addresses = scenario.nodes.keys().map(|name| (name.clone(), seen_from(scenario, name))).collect();
        let mut services: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for program in &scenario.programs {
            if let ProgramKind::Client(client) = &program.kind {
                services.entry(program.node.clone()).or_default().insert(client.service.clone());
            }
        }
        Self {
            answered_by: Recent::default(),
            sent: Recent::default(),
            sizes: Recent::default(),
            ways: Recent::default(),
            punches: Recent::default(),
            started: BTreeMap::new(),
            connected: BTreeSet::new(),
            addresses,
            services,
            counts_bytes,
        }
    }

    /// The public addresses that a node's packets can come from.
    pub(super) fn addresses(&self, node: &Name) -> &[IpAddr] {
        self.addresses.get(node).map_or(&[], Vec::as_slice)
    }

    /// Shows `see` what an event means, and remembers what later ones need.
    pub(super) fn tell(&mut self, record: &Record, see: &mut dyn FnMut(&Self, &Fact<'_>)) {
        let Some(at) = &record.at else { return };
        match &record.event {
            Event::Lab(event) => self.tell_lab(at, record.at_ns, event, see),
            Event::Stack(event) => self.tell_stack(at, record.at_ns, event, see),
        }
    }

    fn tell_lab(&mut self, at: &Name, at_ns: u64, event: &LabEvent, see: &mut dyn FnMut(&Self, &Fact<'_>)) {
        let (packet, size) = match event {
            LabEvent::ProgramStarted { program } if program == "client" => {
                self.started.entry(at.clone()).or_insert(at_ns);
                return;
            }
            _ if !self.counts_bytes => return,
            LabEvent::PacketSent { packet, source, destination, size, .. } => {
                let inside = destination.ip().is_loopback() || destination.ip() == source.ip();
                let size = if inside { 0 } else { *size };
                self.sizes.insert(*packet, size);
                (*packet, size)
            }
            LabEvent::PacketTranslated { packet, .. } | LabEvent::PacketDelivered { packet } => {
                (*packet, self.sizes.get(packet).copied().unwrap_or_default())
            }
            _ => return,
        };
        if size > 0 {
            see(self, &Fact::Passed { through: at, packet, size });
        }
    }

    fn tell_stack(&mut self, at: &Name, at_ns: u64, event: &StackEvent, see: &mut dyn FnMut(&Self, &Fact<'_>)) {
        match event {
            StackEvent::RequestSent { rid, key, to } if self.asks(at, key) => {
                let first = self.sent.get(rid).map_or(at_ns, |(first, _)| *first);
                self.sent.insert(rid.clone(), (first, *to));
            }
            StackEvent::ReplySent { rid, .. } => self.answered_by.insert(rid.clone(), at.clone()),
            StackEvent::ReplyReceived { rid, key, from: address, value } if self.asks(at, key) => {
                let (from, way) = (self.answered_by.get(rid), self.way(at, *address));
                see(self, &Fact::Reply { to: at, from, address: *address, way, value });
                if let Some((sent_ns, _)) = self.sent.get(rid) {
                    self.took(at, Measure::Latency, *sent_ns, at_ns, see);
                }
                if let Some(started_ns) = self.started.get(at) {
                    self.took(at, Measure::Answer, *started_ns, at_ns, see);
                }
            }
            StackEvent::RequestFailed { rid, key, error } if self.asks(at, key) => {
                let way = self.sent.get(rid).map(|(_, to)| self.way(at, *to));
                see(self, &Fact::Failure { to: at, from: self.answered_by.get(rid), way, error });
            }
            StackEvent::Punched { from } => {
                self.punches.insert((at.clone(), *from), ());
                see(self, &Fact::Punch { at, from: *from });
            }
            StackEvent::LookedUp { name, addresses } => see(self, &Fact::Found { at, service: name, addresses }),
            StackEvent::Connected { to, rung, .. } => {
                self.ways.insert((at.clone(), *to), *rung);
                let first = self.connected.insert(at.clone());
                if let (true, Some(started_ns)) = (first, self.started.get(at)) {
                    self.took(at, Measure::Connect, *started_ns, at_ns, see);
                }
            }
            _ => {}
        }
    }

    fn took(&self, at: &Name, measure: Measure, from_ns: u64, to_ns: u64, see: &mut dyn FnMut(&Self, &Fact<'_>)) {
        let time = Duration::from_nanos(to_ns.saturating_sub(from_ns));
        see(self, &Fact::Took { at, measure, time });
    }

    fn asks(&self, node: &Name, key: &str) -> bool {
        self.services.get(node).is_some_and(|services| services.contains(key))
    }

    /// By which way a node's requests to an address go.
    fn way(&self, node: &Name, to: SocketAddr) -> Way {
        let place = (node.clone(), to);
        match self.ways.get(&place) {
            Some(Rung::Direct) => Way::Direct,
            Some(Rung::Relay) => Way::Relayed,
            Some(_) => Way::Punched,
            None if self.punches.get(&place).is_some() => Way::Punched,
            None => Way::Direct,
        }
    }
}

/// The addresses that a node's packets can come from: its own, and those of the NATs that it is behind.
fn seen_from(scenario: &Scenario, node: &Name) -> Vec<IpAddr> {
    let Some(node) = scenario.nodes.get(node) else { return Vec::new() };
    let mut addresses = vec![IpAddr::V4(node.address)];
    addresses.extend(node.address6.map(IpAddr::V6));
    let mut behind = node.behind.as_ref();
    while let Some(nat) = behind.and_then(|name| scenario.nats.get(name)) {
        addresses.push(IpAddr::V4(nat.address));
        behind = nat.behind.as_ref();
    }
    addresses
}

/// A map of the last [`REMEMBERED`] keys.
#[derive(Debug)]
struct Recent<K, V> {
    map: BTreeMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<K: Ord + Clone, V> Recent<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_some() {
            return;
        }
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(&oldest);
        }
        self.order.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recent = Recent::default();
        (0..=REMEMBERED).for_each(|key| recent.insert(key, ()));
        assert!(recent.get(&0).is_none() && recent.get(&1).is_some() && recent.get(&REMEMBERED).is_some());
        recent.insert(1, ());
        assert_eq!((recent.map.len(), recent.order.len()), (REMEMBERED, REMEMBERED));
    }
}
