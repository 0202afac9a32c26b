//! What happened in a run. The log, the expectations and every report read this one stream.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

/// One event, with when and where. A line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Nanoseconds since the run began.
    pub at_ns: u64,
    /// The node or NAT it happened at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Arc<str>>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Record {
    /// Whether this only shows how something does: it is in pictures, and not in event logs.
    pub fn is_sample(&self) -> bool {
        matches!(
            self.event,
            Event::Lab(LabEvent::QueueSample { .. }) | Event::Stack(grenache::event::Event::UtpSample { .. })
        )
    }
}

/// What happened: in the laboratory, or in the stack on one of its nodes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// The laboratory's own.
    Lab(LabEvent),
    /// Reported by the stack.
    Stack(grenache::event::Event),
}

/// An event of the laboratory.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum LabEvent {
    /// A host sent a packet.
    PacketSent {
        /// Counts up over the run; names the packet in later events.
        packet: u64,
        /// UDP or TCP.
        protocol: Protocol,
        /// Source as the host wrote it.
        source: SocketAddr,
        /// Destination as the host wrote it.
        destination: SocketAddr,
        /// Size in bytes with IP and transport headers.
        size: usize,
        /// What is in it, in a line: `utp SYN id=… seq=… ack=…`, `punch`, `krpc get_peers`, `tcp SYN`.
        summary: String,
    },
    /// A NAT rewrote a packet (at the NAT).
    PacketTranslated {
        /// The packet.
        packet: u64,
        /// Source after.
        source: SocketAddr,
        /// Destination after.
        destination: SocketAddr,
    },
    /// A packet reached a socket (at the receiving host).
    PacketDelivered {
        /// The packet.
        packet: u64,
    },
    /// A packet was lost (at the hop that dropped it).
    PacketDropped {
        /// The packet.
        packet: u64,
        /// The hop: `link dsl of laptop, up` (`link of laptop, up` where none is named), `nat home`, `lan of home`,
        /// `firewall of home`, `host laptop`, `internet`.
        hop: String,
        /// The rule that decided it: `random loss of 2%`, `queue full (256 KiB)`, `no mapping for port 4000`,
        /// `filtered: …`, `no hairpinning`, `no free port`, `no host at 203.0.113.9`, `no socket on port 1337`,
        /// `receive buffer full (4 MiB)`, `backlog full (1024 connections)`, `larger than the MTU of 1500`, `partition`,
        /// `host is down`, `no flow: …`, `UDP is blocked`, `link is down`, `nat reboots`,
        /// `host is no longer at 192.168.1.2`, `another host has sent from port 4000 to 203.0.113.5:80`, `limit of 100 mappings per host`,
        /// `no free port in the host's 4 blocks`, `no public address for this host`.
        rule: String,
    },
    /// A NAT made a mapping (at the NAT).
    MappingCreated {
        /// UDP or TCP.
        protocol: Protocol,
        /// The host's side.
        internal: SocketAddr,
        /// The public side.
        external: SocketAddr,
        /// For whom, where the mapping depends on the destination: `203.0.113.5` or `203.0.113.5:80`.
        #[serde(skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
    },
    /// A NAT's mapping ended (at the NAT).
    MappingRemoved {
        /// UDP or TCP.
        protocol: Protocol,
        /// The host's side.
        internal: SocketAddr,
        /// The public side.
        external: SocketAddr,
        /// `idle for 30s`, `rebinding`, `reboot`, `limit of 100 mappings`, `forwarded`.
        reason: String,
    },
    /// A host behind a NAT got a block of ports (at the NAT).
    PortBlockAllocated {
        /// The host.
        internal: IpAddr,
        /// The public address.
        external: IpAddr,
        /// `1024-1087`.
        ports: String,
    },
    /// A host's block of ports is free again (at the NAT).
    PortBlockReleased {
        /// The host.
        internal: IpAddr,
        /// The public address.
        external: IpAddr,
        /// `1024-1087`.
        ports: String,
    },
    /// A NAT granted a forward that a host asked for, or a shorter life of it (at the NAT).
    ForwardCreated {
        /// UDP or TCP.
        protocol: Protocol,
        /// The host's side.
        internal: SocketAddr,
        /// The public side.
        external: SocketAddr,
        /// `7200s`.
        lifetime: String,
    },
    /// A forward that a host had asked for ended (at the NAT).
    ForwardRemoved {
        /// UDP or TCP.
        protocol: Protocol,
        /// The host's side.
        internal: SocketAddr,
        /// The public side.
        external: SocketAddr,
        /// `its lifetime is over`, `ended by its host`, `rebinding`, `reboot`.
        reason: String,
    },
    /// What waits in a link's queue (at the link's host or NAT). Not in the event log: it is told only to who asks for
    /// samples, and at most every 5 ms for each link and direction.
    QueueSample {
        /// `link dsl of laptop, up`.
        link: String,
        /// Bytes.
        bytes: usize,
        /// How long it takes until all of it is on the line, in nanoseconds.
        wait_ns: u64,
    },
    /// A node was started.
    NodeStarted,
    /// A node crashed: its tasks, sockets and memory are gone, and nobody is told.
    NodeCrashed,
    /// A program started on a node.
    ProgramStarted {
        /// `grape`, `worker`, ….
        program: String,
    },
    /// A program could not start, or gave up.
    ProgramFailed {
        /// `grape`, `worker`, ….
        program: String,
        /// Why.
        error: String,
    },
    /// A prober found out what the NAT in front of its node does (at the node).
    NatProbed {
        /// What.
        report: Box<crate::probe::prober::NatReport>,
    },
    /// A fault began.
    FaultBegan {
        /// In words: `partition of client from server`.
        fault: String,
    },
    /// A fault ended.
    FaultEnded {
        /// In words, as it began.
        fault: String,
    },
    /// An expectation was decided.
    Expectation {
        /// In words, as written in the file.
        expectation: String,
        /// Whether it holds.
        met: bool,
        /// What decided it, where it failed: `not within 5s`.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}
