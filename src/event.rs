//! What the stack reports about itself: one typed event for each fact.
//!
//! Events go to [`Network::emit`](crate::net::Network::emit). The operating system's network turns them into
//! `tracing` lines; the simulator writes them to its event log and decides expectations by them.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use serde_json::Value;

use crate::connect::Rung;
use crate::limits::Limit;

/// Something that happened on one host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A punch datagram was sent.
    PunchSent {
        /// Where to.
        to: SocketAddr,
    },
    /// A punch datagram arrived: the sender's NAT has a mapping towards this host.
    Punched {
        /// Where from.
        from: SocketAddr,
    },
    /// A handshake of punches is complete: both directions pass.
    Handshake {
        /// With whom.
        with: SocketAddr,
    },
    /// A µTP connection is established.
    UtpConnected {
        /// The other end.
        peer: SocketAddr,
        /// Whether this side sent the SYN.
        initiator: bool,
    },
    /// How an established µTP connection does. Told only where [`Network::wants_samples`] asks for it, and at most every
    /// [`SAMPLE_INTERVAL`](crate::transport::SAMPLE_INTERVAL) for each connection.
    ///
    /// [`Network::wants_samples`]: crate::net::Network::wants_samples
    UtpSample {
        /// The other end.
        peer: SocketAddr,
        /// The congestion window, in bytes.
        window: usize,
        /// Bytes that were sent and are not acked.
        in_flight: usize,
        /// The smoothed round-trip time in microseconds, once it was measured.
        rtt_us: Option<u64>,
    },
    /// A µTP connection ended.
    UtpClosed {
        /// The other end.
        peer: SocketAddr,
        /// `closed`, or what went wrong.
        reason: String,
    },
    /// A datagram that is neither µTP nor a punch arrived.
    Message {
        /// Where from.
        from: SocketAddr,
        /// Bytes.
        len: usize,
    },
    /// A client sent a request.
    RequestSent {
        /// The request's id.
        rid: String,
        /// The service's name.
        key: String,
        /// Where to.
        to: SocketAddr,
    },
    /// A server received a request.
    RequestReceived {
        /// The request's id.
        rid: String,
        /// The service's name.
        key: String,
        /// Where from.
        from: SocketAddr,
    },
    /// A server answered a request.
    ReplySent {
        /// The request's id.
        rid: String,
        /// Where to.
        to: SocketAddr,
        /// The error message, where it was one.
        error: Option<String>,
    },
    /// A request ended in a reply.
    ReplyReceived {
        /// The request's id.
        rid: String,
        /// The service's name.
        key: String,
        /// Who answered.
        from: SocketAddr,
        /// The result.
        value: Value,
    },
    /// A request ended in an error: the peer's, or ours (`ERR_TIMEOUT`, …).
    RequestFailed {
        /// The request's id.
        rid: String,
        /// The service's name.
        key: String,
        /// The error message.
        error: String,
    },
    /// A streamed call began: a client asked a peer for it, or a server received its head.
    StreamStarted {
        /// The request's id.
        rid: String,
        /// The service's name.
        key: String,
        /// The other end.
        peer: SocketAddr,
        /// Whether this side asked.
        initiator: bool,
    },
    /// A streamed call ended: once for each that began.
    StreamEnded {
        /// The request's id.
        rid: String,
        /// The other end.
        peer: SocketAddr,
        /// Bytes of this side's body that were sent.
        sent: u64,
        /// Bytes of the peer's body that were received.
        received: u64,
        /// What went wrong; `None` where both bodies were ended or given up by their sides.
        error: Option<String>,
    },
    /// A server turned a peer away that asked for a streamed call.
    StreamRefused {
        /// Who asked.
        from: SocketAddr,
        /// Why not.
        reason: &'static str,
    },
    /// A link announced a name through a Grape.
    Announced {
        /// The service's name.
        name: String,
        /// The announced port.
        port: u16,
        /// How many DHT nodes took it.
        nodes: u64,
    },
    /// A link looked a name up through a Grape.
    LookedUp {
        /// The service's name.
        name: String,
        /// Where it is, in the order given.
        addresses: Vec<SocketAddr>,
    },
    /// A call to a Grape failed after all tries.
    LinkFailed {
        /// `announce`, `lookup`, `put` or `get`.
        call: &'static str,
        /// The error message.
        error: String,
    },
    /// A broker noted who is out there.
    Registered {
        /// The service's name.
        service: String,
        /// Whether it is a server.
        server: bool,
        /// The observed address.
        address: SocketAddr,
    },
    /// A broker opened a relay between two peers.
    RelayOpened {
        /// The broker's port for it.
        port: u16,
    },
    /// A relay ended.
    RelayClosed {
        /// The broker's port for it.
        port: u16,
        /// Bytes forwarded.
        bytes: u64,
        /// `idle` or `total bytes`.
        reason: String,
    },
    /// Random ports of an address were punched: one of them may be a hole.
    PortsProbed {
        /// Whose ports.
        address: IpAddr,
        /// How many.
        ports: usize,
    },
    /// A connector found a way to a service, or another one.
    Connected {
        /// The service's name.
        service: String,
        /// Where its requests go to from now on.
        to: SocketAddr,
        /// How: `direct`, `punch`, `predict`, `many-ports`, `relay`.
        rung: Rung,
    },
    /// A connector found no way.
    ConnectFailed {
        /// The service's name.
        service: String,
        /// The error message.
        error: String,
    },
    /// A Grape's DHT node finished its bootstrap.
    GrapeReady {
        /// Its DHT port.
        dht_port: u16,
        /// Its HTTP API's port.
        api_port: u16,
    },
    /// A DHT node took another node into its routing table.
    NodeFound {
        /// Where it is.
        node: SocketAddr,
    },
    /// A DHT node learnt, in a search of its own, where a service is.
    PeerFound {
        /// The service's name, lossily as text.
        name: String,
        /// Where the service is.
        peer: SocketAddr,
        /// The node that told; `None` where this node had it stored itself.
        through: Option<SocketAddr>,
    },
    /// A lookup through a Grape ended its search.
    GrapeLookup {
        /// The service's name, lossily as text.
        name: String,
        /// How many nodes answered.
        nodes: usize,
    },
    /// A DHT node stored a peer that was announced to it.
    PeerStored {
        /// The service's name, lossily as text.
        name: String,
        /// The stored address; `None` where a Grape outside of this process stored it, which does not tell.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<SocketAddr>,
    },
    /// Peers have reached a limit. Told at most once a second for each limit of an endpoint.
    LimitReached {
        /// Which.
        limit: Limit,
        /// Who reached it, where a peer did; with forged addresses, the last of many.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<SocketAddr>,
        /// How often it was reached since it was told of last.
        times: u64,
    },
    /// Something malformed arrived from a peer and was dropped or answered with an error.
    Malformed {
        /// Which layer refused it: `utp`, `rpc`, `krpc`, `http`, `broker`.
        layer: &'static str,
        /// Where from.
        from: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
}
