//! A scenario that holds together: every name is defined, every address is a node's own, every number in range.
//!
//! Made from a file by [`super::load`]; what the backends run.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use serde_json::Value;

pub use super::fault::model::{Degradation, Fault, FaultKind, Move, Occurrence};

mod nat;

pub use super::expectation::{
    Each, Expectation, ExpectationKind, Limits, Measure, Part, Percentile, ReplyValue, Times, Way,
};
pub use nat::{Dependence, Forward, Hairpinning, Nat, NatPmp, Pooling, PortAssignment, PortBlocks, Refresh, WhenFull};

/// A node's, NAT's or link's name in the file.
pub type Name = std::sync::Arc<str>;

/// What a scenario file says. The default is empty: no nodes, and over at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scenario {
    /// The file's name without its extension.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// The seed, where the command line gives none.
    pub seed: u64,
    /// The longest a run may take, in simulated time (real time on other backends).
    pub time_limit: Duration,
    /// The NATs by name.
    pub nats: BTreeMap<Name, Nat>,
    /// The kinds of links by name.
    pub links: BTreeMap<Name, Link>,
    /// The nodes by name.
    pub nodes: BTreeMap<Name, Node>,
    /// What runs, in the file's order.
    pub programs: Vec<Program>,
    /// What goes wrong, in the file's order.
    pub faults: Vec<Fault>,
    /// What must happen, in the file's order.
    pub expectations: Vec<Expectation>,
    /// What it was read from, where nodes are drawn behind their NATs by the seed: see [`Scenario::drawn`].
    pub draws: Option<super::Draws>,
}

/// A stateful firewall: what is inside may send, and answers may come in (RFC 6092).
#[derive(Debug, Clone, PartialEq)]
pub struct Firewall {
    /// What may come in where something was sent from an inside address and port: anything, what comes from the
    /// address that it was sent to, or from that address and port.
    pub filtering: Dependence,
    /// How long a UDP flow lives without a packet.
    pub udp_timeout: Duration,
    /// How long a TCP flow lives without a packet.
    pub tcp_timeout: Duration,
    /// Inside ports, of UDP and TCP, that anybody may send to.
    pub allow: Vec<u16>,
    /// Whether no UDP passes at all, in either direction.
    pub block_udp: bool,
    /// Whether it filters IPv4 as well; else it lets all of that pass.
    pub ipv4: bool,
}

/// As a scenario file's that says nothing: answers from where something was sent to, for the times that RFC 6092
/// (3.2.3 and 3.3.1) asks for at least.
impl Default for Firewall {
    fn default() -> Self {
        Self {
            filtering: Dependence::AddressAndPortDependent,
            udp_timeout: Duration::from_secs(120),
            tcp_timeout: Duration::from_secs(124 * 60),
            allow: Vec::new(),
            block_udp: false,
            ipv4: true,
        }
    }
}

/// What a link does to packets, the same in both directions, each with a state of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// One way, before jitter.
    pub latency: Duration,
    /// A packet's latency is drawn evenly from `latency` ± `jitter`; packets may overtake each other.
    pub jitter: Duration,
    /// The probability of losing a packet, 0.0 to 1.0, each on its own.
    pub loss: f64,
    /// Bits a second; `None` is without limit.
    pub rate: Option<u64>,
    /// Bytes that wait for the rate before packets are dropped from the tail.
    pub queue: usize,
}

/// As a scenario file's that says nothing: no latency, loss or limit, and a queue of 256 KiB for a rate.
impl Default for Link {
    fn default() -> Self {
        Self { latency: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, rate: None, queue: 256 << 10 }
    }
}

/// A host.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its own interface's IPv4 address: public, or in the LAN of the NAT it is behind. `0.0.0.0` is none.
    pub address: Ipv4Addr,
    /// The NAT it is behind.
    pub behind: Option<Name>,
    /// Its link to the internet, or to the NAT's LAN.
    pub link: Option<Name>,
    /// Its own interface's IPv6 address: public, or in the IPv6 network of the NAT it is behind.
    pub address6: Option<Ipv6Addr>,
    /// The firewall between it and its network.
    pub firewall: Option<Firewall>,
}

/// On the internet, without a link of its own. The address is to be given.
impl Default for Node {
    fn default() -> Self {
        Self { address: Ipv4Addr::UNSPECIFIED, behind: None, link: None, address6: None, firewall: None }
    }
}

/// Something that runs on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Where it runs.
    pub node: Name,
    /// When it starts, from the beginning of the run.
    pub start: Duration,
    /// What it is.
    pub kind: ProgramKind,
}

/// The programs that scenarios run: the roles of the original's examples.
#[derive(Debug, Clone, PartialEq)]
pub enum ProgramKind {
    /// A Grape: DHT node and HTTP API.
    Grape {
        /// The DHT's UDP port.
        dht_port: u16,
        /// The HTTP API's TCP port.
        api_port: u16,
        /// Other Grapes' DHT addresses.
        bootstrap: Vec<SocketAddrV4>,
        /// Whose Grape it is.
        kind: GrapeKind,
    },
    /// Announces a name, once a second until a Grape takes it, and then as links do.
    Announce {
        /// The Grape's HTTP API.
        grape: SocketAddrV4,
        /// The service's name.
        service: String,
        /// The port to announce.
        port: u16,
    },
    /// Looks a name up, again every `every` until it is found.
    Lookup {
        /// The Grape's HTTP API.
        grape: SocketAddrV4,
        /// The service's name.
        service: String,
        /// The time between two tries.
        every: Duration,
    },
    /// A broker: keeps who is out there and introduces them.
    Broker {
        /// The Grape's HTTP API.
        grape: SocketAddrV4,
        /// The name it is announced as.
        service: String,
        /// Its UDP port; 0 is any.
        port: u16,
        /// The port of its other socket, from which peers learn what their NATs do.
        alternate_port: Option<u16>,
        /// Whether it relays.
        relay: bool,
    },
    /// Serves requests; punches back whoever punches it.
    Worker(Worker),
    /// Sends requests.
    Client(Client),
    /// Tells whoever asks where they come from (RFC 5780).
    StunServer {
        /// Its UDP port.
        port: u16,
        /// Its other UDP port.
        alternate_port: u16,
        /// The address of the server that answers from another one.
        partner: Option<Ipv4Addr>,
    },
    /// Finds out what the NAT in front of it does (RFC 5780).
    NatProbe(NatProbe),
    /// Asks its NAT for a forward, and keeps it (RFC 6886).
    Forward(NatForward),
}

/// Who finds out what its NAT does, and what it must find.
#[derive(Debug, Clone, PartialEq)]
pub struct NatProbe {
    /// The STUN server.
    pub server: SocketAddrV4,
    /// The longest binding lifetime that is waited for; `None` leaves it alone.
    pub longest_lifetime: Option<Duration>,
    /// The mapping that must be found.
    pub mapping: Option<Dependence>,
    /// The filtering that must be found.
    pub filtering: Option<Dependence>,
    /// The port assignment that must be found; overloaded ports look preserved.
    pub ports: Option<PortAssignment>,
}

/// Who asks its NAT for a forward.
#[derive(Debug, Clone, PartialEq)]
pub struct NatForward {
    /// Where the NAT listens.
    pub gateway: SocketAddrV4,
    /// UDP or TCP.
    pub protocol: crate::event::Protocol,
    /// The node's port.
    pub internal_port: u16,
    /// The public port that would be liked.
    pub external_port: u16,
    /// For how long, again and again.
    pub lifetime: Duration,
}

/// Whose Grape a program is, and in what it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum GrapeKind {
    /// Ours, in the run's own process: on every backend.
    #[default]
    Rust,
    /// The original's, as a process: only over real sockets.
    Node,
    /// The original's, in a container: only over real sockets.
    Container,
}

/// A service.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// The Grape's HTTP API; `None` where it needs none.
    pub grape: Option<SocketAddrV4>,
    /// The service's name.
    pub service: String,
    /// Its UDP port; 0 is any.
    pub port: u16,
    /// How it answers.
    pub answer: Answer,
    /// Whether it announces itself under its name.
    pub announce: bool,
    /// A service that it looks up and punches, every second: it waits for requests over the hole.
    pub punches: Option<String>,
    /// A broker that it registers with, every two seconds, punching the clients that it is told of.
    pub broker: Option<String>,
    /// Whether it does its part of every way to connect, up to a relay.
    pub connect: bool,
    /// Whether its socket is for IPv6 as well (`[::]`), instead of IPv4 alone (`0.0.0.0`).
    pub ipv6: bool,
}

/// How a worker answers a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Always with this.
    Value(Value),
    /// With the payload.
    Echo,
    /// With the payload's first n Fibonacci numbers.
    Fibonacci,
    /// With this error message.
    Error(String),
}

/// Who sends requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// The Grape's HTTP API; `None` where it needs none.
    pub grape: Option<SocketAddrV4>,
    /// The service's name: what it looks up and the requests' key.
    pub service: String,
    /// Its UDP port; 0 is any.
    pub port: u16,
    /// How it comes by the server's address.
    pub reach: Reach,
    /// The requests' payload.
    pub payload: Value,
    /// How many requests it sends, all at once.
    pub requests: u32,
    /// A request's timeout.
    pub timeout: Duration,
    /// How often it tries to reach the service anew after a failure.
    pub retries: u32,
}

/// How a client comes by the address that it sends requests to.
#[derive(Debug, Clone, PartialEq)]
pub enum Reach {
    /// Looks the service up and requests.
    Lookup,
    /// Requests from this address, without a lookup.
    Address(SocketAddr),
    /// Looks the service up, punches it every second, and requests once it is punched back.
    Punch,
    /// Announces itself under this name, and requests from whoever punches it.
    AwaitPunch {
        /// The name it is announced as.
        announce: String,
    },
    /// Finds a way by itself, up to a relay, with all brokers of this name.
    Connect {
        /// The brokers' name.
        broker: String,
    },
    /// Registers with a broker every two seconds, punches the servers it is told of, and requests once it is punched.
    Broker {
        /// The broker's name.
        broker: String,
    },
}
