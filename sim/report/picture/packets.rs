//! Which packets are kept: the first ones, the last ones, and those that were dropped.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use serde::Serialize;

use crate::event::{LabEvent, Protocol};

/// How many packets are kept from the beginning on.
pub const FIRST: usize = 3_000;

/// How many packets are kept from the end back, besides the first.
pub const LAST: usize = 1_000;

/// How many dropped packets are kept besides.
pub const DROPPED: usize = 1_000;

/// How many packets may be on their way; of more, the oldest is given up.
pub const ON_ITS_WAY: usize = 100_000;

/// The packets of a run.
#[derive(Debug, Default)]
pub struct Packets {
    on_its_way: BTreeMap<u64, Packet>,
    first: Vec<Packet>,
    dropped: Vec<Packet>,
    last: VecDeque<Packet>,
    counts: Counts,
}

/// How many packets there were, kept or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Sent by hosts.
    pub sent: u64,
    /// That reached a socket.
    pub delivered: u64,
    /// That did not.
    pub dropped: u64,
}

/// A packet and its way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Packet {
    /// Its number in the event log.
    pub id: u64,
    /// What is in it.
    pub kind: Kind,
    /// Source as the host wrote it.
    pub source: SocketAddr,
    /// Destination as the host wrote it.
    pub destination: SocketAddr,
    /// Bytes with headers.
    pub size: usize,
    /// What is in it, in a line.
    pub summary: String,
    /// Where it came by, with when, in nanoseconds: first who sent it, then NATs.
    pub way: Vec<(u64, usize)>,
    /// What NATs made of its addresses: source and destination after each.
    pub rewritten: Vec<(SocketAddr, SocketAddr)>,
    /// When it ended, in nanoseconds, and how; `None` where it was on its way when the run ended.
    pub end: Option<(u64, Ending)>,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// It reached a socket.
    Delivered {
        /// Whose.
        lane: usize,
    },
    /// It was dropped.
    Dropped {
        /// By whom; where it was lost on a link, on its way to whom.
        lane: Option<usize>,
        /// Whether a link or a network lost it, rather than a host or a NAT.
        lost: bool,
        /// The hop.
        hop: String,
        /// The rule.
        rule: String,
    },
}

/// What packets are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// µTP.
    Utp,
    /// A punch.
    Punch,
    /// A DHT message.
    Dht,
    /// TCP: what Grapes are asked over.
    Tcp,
    /// Anything else.
    Other,
}

impl Kind {
    fn of(protocol: Protocol, summary: &str) -> Self {
        match summary.split(' ').next() {
            _ if protocol == Protocol::Tcp => Self::Tcp,
            Some("utp") => Self::Utp,
            Some("punch") => Self::Punch,
            Some("krpc") => Self::Dht,
            _ => Self::Other,
        }
    }
}

impl Packet {
    /// Where it was seen last.
    pub fn lane(&self) -> usize {
        self.way.last().map_or(0, |(_, lane)| *lane)
    }

    /// Its destination as it is now.
    pub fn destination(&self) -> SocketAddr {
        self.rewritten.last().map_or(self.destination, |(_, destination)| *destination)
    }
}

impl Packets {
    /// The kept ones, in the order in which they were sent.
    pub fn kept(&self) -> Vec<&Packet> {
        let all = self.first.iter().chain(&self.dropped).chain(&self.last).chain(self.on_its_way.values());
        let mut all: Vec<&Packet> = all.collect();
        all.sort_by_key(|packet| packet.id);
        all.dedup_by_key(|packet| packet.id);
        all
    }

    /// How many there were.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A packet on its way.
    pub(super) fn on_its_way(&self, id: u64) -> Option<&Packet> {
        self.on_its_way.get(&id)
    }

    /// A host sent a packet: the event is a [`LabEvent::PacketSent`].
    pub(super) fn sent(&mut self, at: u64, lane: usize, event: &LabEvent) {
        let LabEvent::PacketSent { packet, protocol, source, destination, size, summary } = event else { return };
        self.counts.sent += 1;
        let sent = Packet {
            id: *packet,
            kind: Kind::of(*protocol, summary),
            source: *source,
            destination: *destination,
            size: *size,
            summary: summary.clone(),
            way: vec![(at, lane)],
            rewritten: Vec::new(),
            end: None,
        };
        self.on_its_way.insert(*packet, sent);
        if self.on_its_way.len() > ON_ITS_WAY {
            self.on_its_way.pop_first();
        }
    }

    /// A NAT rewrote a packet.
    pub(super) fn translated(&mut self, at: u64, lane: usize, id: u64, source: SocketAddr, destination: SocketAddr) {
        if let Some(packet) = self.on_its_way.get_mut(&id) {
            packet.way.push((at, lane));
            packet.rewritten.push((source, destination));
        }
    }

    /// A packet's way ended; gives it.
    pub(super) fn ended(&mut self, at: u64, id: u64, ending: Ending) -> Option<&Packet> {
        let is_drop = matches!(ending, Ending::Dropped { .. });
        match is_drop {
            true => self.counts.dropped += 1,
            false => self.counts.delivered += 1,
        }
        let mut packet = self.on_its_way.remove(&id)?;
        packet.end = Some((at, ending));
        if self.first.len() < FIRST {
            self.first.push(packet);
            return self.first.last();
        }
        if is_drop && self.dropped.len() < DROPPED {
            self.dropped.push(packet);
            return self.dropped.last();
        }
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(packet);
        self.last.back()
    }
}
