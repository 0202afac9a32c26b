//! What peers can make grow, and what happens at each limit.
//!
//! What a peer's packets fill, a queue, a table or a buffer, has a limit of its own. Those that are settings have a
//! default; the others are constants. Those that are a [`Limit`] too are counted by [`LimitCounts`] where a peer reaches
//! one, and, at most once a second for each, an [`Event::LimitReached`] tells so.
//!
//! A *source* is an IPv4 address, or the /64 network of an IPv6 address: a host can have any address of that network.
//!
//! An address is *proven* once it has sent back a number that only a packet of ours could have told it. Before that,
//! no more bytes are sent to it than have come from it: one SYN-ACK a SYN (both of 20 bytes), one RESET of 20 bytes for
//! a µTP packet, two bytes for two by [`Puncher::punch_back`](crate::punch::Puncher::punch_back). Not so for a Grape's
//! DHT: BEP 5 has nodes answer any query at once, and an answer with nodes or peers is several times as long.
//!
//! The last column of the tables names the tests that hit the limit: `limits::syns` is `tests/limits/syns.rs`, others are files of `tests/`, or
//! tests in the module itself.
//!
//! # One UDP socket: [`transport`](crate::transport), [`utp`](crate::utp), [`punch`](crate::punch)
//!
//! | limit | default | at the limit | test |
//! |---|---|---|---|
//! | [`max_connections`](crate::transport::EndpointConfig::max_connections), both directions | 16,384 | a SYN takes the place of the oldest half-open one, or goes unanswered; `connect` fails | `limits::syns` |
//! | [`max_connections_per_source`](crate::transport::EndpointConfig::max_connections_per_source), accepted from one source | 1024 | a SYN takes the place of its oldest half-open one, or goes unanswered | `limits::syns` |
//! | [`max_half_open`](crate::transport::EndpointConfig::max_half_open) | 1024 | the oldest is forgotten; it comes back where its peer goes on, by the number in our SYN-ACK | `limits::syns` |
//! | bytes to an unproven address | what came from it | nothing is sent: a SYN-ACK is not repeated, but for a repeated SYN | `limits::syns` |
//! | half-open for [`connect_timeout`](crate::transport::EndpointConfig::connect_timeout) | 10 s | forgotten | `limits::syns` |
//! | [`accept_backlog`](crate::transport::EndpointConfig::accept_backlog), complete and not accepted | 1024 | further ones are reset | `limits::syns` |
//! | [`unaccepted_window`](crate::transport::EndpointConfig::unaccepted_window), unread bytes of each of those; twice that is kept | 16 KiB | the peer's window is closed | `limits::syns` |
//! | [`receive_window`](crate::utp::Config::receive_window), unread bytes of a connection; twice that is kept | 1 MiB | the peer's window is closed | `utp::receive`, `utp_connection` |
//! | packets ahead of a gap that a connection keeps | 8191 | they are dropped | `utp::receive` |
//! | [`send_buffer`](crate::utp::Config::send_buffer), unacked bytes of a connection | 1 MiB | writing waits | `utp_properties` |
//! | [`give_up_after`](crate::utp::Config::give_up_after), [`idle_timeout`](crate::utp::Config::idle_timeout), [`linger`](crate::utp::Config::linger) | 30 s, 10 min, 60 s | the connection ends | `utp_connection`, `utp_properties` |
//! | [`MAX_RESETS`](crate::utp::MAX_RESETS) in 10 s; one for the same packet | 1000 | no further RESET | `limits::syns` |
//! | [`MAX_MESSAGE`](crate::transport::MAX_MESSAGE), bytes of a datagram that is not µTP | 2048 | it is dropped | `limits::datagrams` |
//! | [`DATAGRAM_BACKLOG`](crate::transport::DATAGRAM_BACKLOG), [`MAX_BEHIND`](crate::punch::MAX_BEHIND), datagrams for a subscriber | 1024 | it skips the oldest | `limits::datagrams` |
//! | [`DATAGRAM_QUEUE`](crate::transport::DATAGRAM_QUEUE), datagrams to be sent | 1024 | further ones are dropped | `limits::sockets` |
//! | [`MAX_RECEIVE_ERRORS`](crate::net::MAX_RECEIVE_ERRORS) of a UDP socket in a row, a Grape's too | 16 | receiving pauses, 10 ms up to 1 s | `limits::sockets` |
//! | [`PUNCH_RATE`](crate::punch::PUNCH_RATE) of one source | 512, then 128 a second | further punches are not reported | `limits::datagrams` |
//! | [`PUNCH_BACK_RATE`](crate::punch::PUNCH_BACK_RATE) to one source | 10, then 5 a second | no further punch is answered | `limits::datagrams` |
//! | [`MAX_SOURCES`] whose rates are known; [`MAX_COUNTED`](crate::punch::MAX_COUNTED) punchers | 1024; 500 | the one unheard for longest is forgotten | `limits`, `limits::datagrams` |
//! | `MAX_NARROW_PATHS`, addresses whose path takes small packets only | 256 | the oldest is forgotten, and found out anew | `transport::shared` |
//!
//! # Requests: [`rpc`](crate::rpc)
//!
//! | limit | default | at the limit | test |
//! |---|---|---|---|
//! | [`ServerConfig::max_connections`](crate::rpc::ServerConfig::max_connections), on all of its endpoints | 4096 | further ones are reset | `limits::requests` |
//! | `max_message` of [server](crate::rpc::ServerConfig::max_message) and [client](crate::rpc::ClientConfig::max_message), bytes | 16 MiB | a request gets `ERR_REQUEST_SIZE`; the connection ends | `limits::requests`, `rpc::tests` |
//! | [`MAX_DEPTH`](crate::rpc::framing::MAX_DEPTH) of nested JSON | 127 | a request gets `ERR_REQUEST_SIZE`; the connection ends | `limits::requests` |
//! | [`TEXT_TIME`](crate::rpc::TEXT_TIME) for a text's bytes to arrive, and a second more for each [`TEXT_RATE`](crate::rpc::TEXT_RATE) of them | 30 s, 8 KiB | a request gets `ERR_REQUEST_TIME`; the connection ends | `limits::requests` |
//! | [`max_unfinished`](crate::rpc::ServerConfig::max_unfinished), bytes of unfinished requests of all connections; half of it from one source | 256 MiB | the connection that needs more gets `ERR_REQUEST_SIZE` and ends | `limits::requests` |
//! | bytes of a request's id | 128 | the text counts as malformed | `rpc::message` |
//! | [`MAX_MALFORMED`](crate::rpc::MAX_MALFORMED) texts of a connection | 100 | it ends | `limits::requests` |
//! | [`max_in_flight`](crate::rpc::ServerConfig::max_in_flight) requests of a connection; 16 KiB count as one | 1024 | no more is read from it | `limits::requests` |
//! | [`max_in_flight_total`](crate::rpc::ServerConfig::max_in_flight_total) of all connections; half of it from one source | 32,768 | no more is read | `limits::requests` |
//! | [`max_queue`](crate::rpc::ServerConfig::max_queue), requests that wait for `Requests::next` | 1024 | no more is read | `limits::requests` |
//! | [`max_unsent`](crate::rpc::ServerConfig::max_unsent), bytes of replies that a connection does not take | 16 MiB | no more is read from it; what is in flight is still answered | `limits::requests` |
//! | [`max_unsent_total`](crate::rpc::ServerConfig::max_unsent_total), those of all connections; half of it from one source | 256 MiB | no more is read; what is in flight is still answered | `limits::requests` |
//! | [`write_timeout`](crate::rpc::ServerConfig::write_timeout) for a reply to be taken, and a second more for each [`TEXT_RATE`](crate::rpc::TEXT_RATE) bytes | 60 s, 8 KiB | the connection is closed | `limits::requests` |
//! | [`idle_timeout`](crate::rpc::ServerConfig::idle_timeout) without a request | 180 s | the connection is closed | `rpc::tests` |
//! | [`ClientConfig::transports`](crate::rpc::ClientConfig::transports), [`pipeline`](crate::rpc::ClientConfig::pipeline), waiting for one destination | 3, unlimited, 65,536 | requests wait; then they fail with `ERR_QUEUE_FULL` | `rpc::pool` |
//! | [`max_streams`](crate::rpc::streaming::StreamConfig::max_streams), [`max_streams_per_source`](crate::rpc::streaming::StreamConfig::max_streams_per_source) | 128, 16 | a slow call gives up its place, else the client is told that there are too many | `rpc_streams_limits`, `rpc_streams_slow` |
//! | [`least_progress`](crate::rpc::streaming::StreamConfig::least_progress), bytes that a call moves in [`PROGRESS_TIME`](crate::rpc::streaming::PROGRESS_TIME) to be sure of its place | 64 KiB, 60 s | it gives it up where another call needs it | `rpc_streams_slow` |
//! | [`max_head`](crate::rpc::streaming::StreamConfig::max_head), [`head_timeout`](crate::rpc::streaming::StreamConfig::head_timeout), [`idle_timeout`](crate::rpc::streaming::StreamConfig::idle_timeout) of a streamed call | 64 KiB, 10 s, 60 s | the call ends | `rpc_streams_limits` |
//! | [`MAX_CHUNK`](crate::rpc::streaming::MAX_CHUNK), [`MAX_REASON`](crate::rpc::streaming::MAX_REASON) bytes of a frame of a streamed call | 64 KiB, 1 KiB | the call ends | `rpc_streams_limits` |
//! | [`FAREWELL`](crate::rpc::streaming::FAREWELL) for the peer to end its body once the application is gone | 5 s | the connection is reset | `rpc_streams` |
//!
//! # A broker: [`broker`](crate::broker)
//!
//! | limit | default | at the limit | test |
//! |---|---|---|---|
//! | [`MAX_REQUEST`](crate::broker::MAX_REQUEST) bytes of a request | 64 KiB | it gets `ERR_REQUEST_SIZE`; the connection ends | `broker` |
//! | [`MAX_ENTRIES`](crate::broker::registry::MAX_ENTRIES) registered peers | 500 | the one unrenewed for longest goes, of a source that has half of all its own | `broker::registry` |
//! | [`ENTRY_LIFETIME`](crate::broker::registry::ENTRY_LIFETIME) without a renewal | 15 s | the entry goes | `broker::registry` |
//! | [`MAX_SERVICE`](crate::broker::registry::MAX_SERVICE) bytes of a name | 256 | it is not registered | `broker::registry` |
//! | [`MAX_SIGNALS`](crate::broker::registry::MAX_SIGNALS) that wait for a peer | 16 | the oldest is lost | `broker::registry` |
//! | [`MAX_SIGNALS_PER_SOURCE`](crate::broker::registry::MAX_SIGNALS_PER_SOURCE), those of one source | 8 | its own oldest is lost | `broker::registry` |
//! | [`MAX_SIGNAL`](crate::broker::MAX_SIGNAL) bytes of JSON | 1024 | it is refused | `broker::extension` |
//! | [`MAX_WAIT`](crate::broker::MAX_WAIT) for a signal to come | 5 s | the answer is given without | `broker::extension` |
//! | [`sessions`](crate::broker::RelayConfig::sessions) of a relay, [`sessions_per_source`](crate::broker::RelayConfig::sessions_per_source) | 64, 8 | a further one is refused | `broker::relay` |
//! | [`bytes_per_second`](crate::broker::RelayConfig::bytes_per_second), [`datagrams_per_second`](crate::broker::RelayConfig::datagrams_per_second) of a session | 1 MiB, 2000 | what is beyond is dropped | `broker::relay` |
//! | [`total_bytes`](crate::broker::RelayConfig::total_bytes), [`idle_timeout`](crate::broker::RelayConfig::idle_timeout) of a session | 256 MiB, 60 s | it ends | `broker::relay` |
//!
//! # Reaching peers: [`connect`](crate::connect), [`nat`](crate::nat)
//!
//! | limit | default | at the limit | test |
//! |---|---|---|---|
//! | [`MAX_ATTEMPTS`](crate::connect::MAX_ATTEMPTS) at once, [`MAX_ATTEMPTS_PER_SOURCE`](crate::connect::MAX_ATTEMPTS_PER_SOURCE) from one source, callers that are helped | 16, 4 | the caller is refused; of those, [`MAX_REFUSALS`](crate::connect::MAX_REFUSALS) (16) at once are told so | `connect::places` |
//! | [`MAX_VOLLEYS`](crate::connect::MAX_VOLLEYS), many sockets opened at once, of [`ConnectConfig::sockets`](crate::connect::ConnectConfig::sockets) each | 1 | the caller is refused | `connect::places` |
//! | [`MANY_PORTS_BURST`](crate::connect::MANY_PORTS_BURST) of one source, then one each [`MANY_PORTS_EVERY`](crate::connect::MANY_PORTS_EVERY) | 4, 10 s | the caller is refused | `connect::places` |
//! | [`MANY_PORTS_TOTAL_BURST`](crate::connect::MANY_PORTS_TOTAL_BURST) of all, then one each [`MANY_PORTS_TOTAL_EVERY`](crate::connect::MANY_PORTS_TOTAL_EVERY) | 16, 1 s | the caller is refused | `connect::places` |
//! | [`MAX_KEPT`](crate::connect::MAX_KEPT) fresh sockets and relays for callers that were helped | 256 | of the source that has most, one without connections is closed, else its oldest | `connect::places` |
//! | [`ConnectConfig::peers`](crate::connect::ConnectConfig::peers) that are tried one after the other, [`ConnectConfig::timeout`](crate::connect::ConnectConfig::timeout) of it all | 4, 35 s | the attempt fails | `sim/tests/nat` |
//! | [`MAX_BROKERS`](crate::connect::MAX_BROKERS) that a service registers with; [those asked](crate::nat::MAX_BROKERS) about a NAT | 4; 8 | the others are left out | `connect` |
//! | [`MAX_PUNCHED`](crate::broker::MAX_PUNCHED) addresses of a broker's answer | 100 | the others are not punched | `broker` |
//! | claims of a place in a relay whose other side is not there | 100, in 5 s | the relay is given up | `connect::relayed` |
//! | [`PROBE_BYTES`](crate::nat::probe::PROBE_BYTES) of a NAT probe; its answer is no longer | 192 | a shorter one is not answered | `nat::probe` |
//!
//! # A Grape and its client: [`grape`](crate::grape), [`link`](crate::link)
//!
//! | limit | default | at the limit | test |
//! |---|---|---|---|
//! | [`max_payload`](crate::grape::GrapeConfig::max_payload), bytes of an HTTP request's body | 8192 | `413`, `ERR_GRAPE_PAYLOAD_SIZE` | `grape` |
//! | [`MAX_HTTP_CONNECTIONS`](crate::grape::MAX_HTTP_CONNECTIONS); [`HTTP_TIMEOUT`](crate::grape::HTTP_TIMEOUT) for a request's head, and for its body | 1024; 30 s | further ones wait to be accepted; the connection ends | `limits::http` |
//! | [`max_tables`](crate::grape::GrapeConfig::max_tables) names, [`max_values`](crate::grape::GrapeConfig::max_values) values | 5000 | the oldest goes, of a source that has half of all its own | `grape_hostile` |
//! | peers of a name, of one host where others are there; [`MAX_PEERS_LISTED`](crate::grape::node::MAX_PEERS_LISTED) of them in an answer | 256, 128; 100 | the oldest goes; a random choice is told | `grape::peers`; `grape_node` |
//! | nodes of one host in a bucket of the routing table | 10 | it is not taken | `grape_hostile` |
//! | nodes that a search asks in all | 128 | it ends | `grape::search` |
//! | depth of nested bencode | 16 | the datagram is dropped | `grape::bencode` |
//! | [`concurrency`](crate::grape::GrapeConfig::concurrency) queries of a search under way | 24 | the others wait | `grape_node`, `grape::search` |
//! | [`MAX_OPERATIONS`](crate::grape::node::MAX_OPERATIONS), [`MAX_TRANSMITS`](crate::grape::node::MAX_TRANSMITS), datagrams of [`MAX_DATAGRAM`](crate::grape::krpc::MAX_DATAGRAM) bytes | 1024, 4096, 2048 | refused; dropped; dropped | `grape_node`; `grape_hostile`; `grape_hostile`, `krpc` |
//! | [`MAX_HTTP_ANSWER`](crate::net::MAX_HTTP_ANSWER) bytes of a Grape's answer | 1 MiB | the call fails | `net::hyper_http` |
//! | [`MAX_ADDRESSES`](crate::link::MAX_ADDRESSES) of a lookup, [`MAX_CACHED`](crate::link::MAX_CACHED) names | 256, 2500 | the rest is left out; the one unused for longest goes | `link`, `link::call` |
//!
//! # Without a test of their own
//!
//! What one attempt to connect takes from its peer: 4 addresses that are tried directly, 8 that are met at, 64 signals that wait to be looked at, 256 calls that are remembered, 500
//! addresses whose punches are. In a Grape: 256 calls that wait for its node, 32 batches that wait for the socket, 256 each
//! of candidates and of answers that a search keeps.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lru::LruCache;
use serde::Serialize;

use crate::event::Event;
use crate::net::Net;
use crate::source::{Source, source};

/// Of how many sources a [`Rate`] is kept account. At the limit the one unheard for longest is forgotten, so that it
/// begins anew: whoever can forge many addresses is held by the limits that do not go by source.
pub const MAX_SOURCES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// How often the same limit is told of at most.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// A limit that a peer can reach. The [module](self) says what each one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Limit {
    /// `EndpointConfig::max_connections`.
    Connections,
    /// `EndpointConfig::max_connections_per_source`.
    ConnectionsPerSource,
    /// `EndpointConfig::max_half_open`.
    HalfOpen,
    /// `EndpointConfig::accept_backlog`.
    AcceptBacklog,
    /// `utp::MAX_RESETS`, or a second RESET for the same packet.
    Resets,
    /// `transport::MAX_MESSAGE`.
    DatagramSize,
    /// `transport::DATAGRAM_QUEUE`.
    DatagramQueue,
    /// `net::MAX_RECEIVE_ERRORS`.
    ReceiveErrors,
    /// `punch::PUNCH_RATE`.
    PunchRate,
    /// `punch::PUNCH_BACK_RATE`.
    PunchBackRate,
    /// `transport::DATAGRAM_BACKLOG`, of a puncher.
    DatagramBacklog,
    /// `ServerConfig::max_connections`.
    ServerConnections,
    /// `max_message`.
    MessageSize,
    /// `rpc::framing::MAX_DEPTH`.
    MessageDepth,
    /// `rpc::TEXT_TIME` and `rpc::TEXT_RATE`.
    MessageTime,
    /// `ServerConfig::max_unfinished`, or a source's half of it.
    Unfinished,
    /// `rpc::MAX_MALFORMED`.
    Malformed,
    /// `ServerConfig::max_in_flight`.
    InFlight,
    /// `ServerConfig::max_in_flight_total`, or a source's half of it.
    InFlightTotal,
    /// `ServerConfig::max_unsent`.
    Unsent,
    /// `ServerConfig::max_unsent_total`, or a source's half of it.
    UnsentTotal,
    /// `ServerConfig::write_timeout`.
    WriteTimeout,
}

/// How many limits there are.
const LIMITS: usize = Limit::WriteTimeout as usize + 1;

/// How often peers have reached which limit of an [`Endpoint`](crate::transport::Endpoint) and of all that is on it.
#[derive(Debug)]
pub struct LimitCounts {
    net: Net,
    reached: Mutex<[Reached; LIMITS]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    times: u64,
    untold: u64,
    told: Option<Instant>,
}

impl LimitCounts {
    pub(crate) fn new(net: &Net) -> Self {
        Self { net: net.clone(), reached: Mutex::new([Reached::default(); LIMITS]) }
    }

    /// How often a limit was reached.
    pub fn times(&self, limit: Limit) -> u64 {
        self.reached.lock().expect("no panic while locked")[limit as usize].times
    }

    /// Counts, and tells where it is time to. To be called without a lock that an observer of events might want.
    pub(crate) fn reached(&self, limit: Limit, from: Option<SocketAddr>) {
        let now = tokio::time::Instant::now().into_std();
        let times = {
            let mut all = self.reached.lock().expect("no panic while locked");
            let reached = &mut all[limit as usize];
            reached.times += 1;
            reached.untold += 1;
            if reached.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_EVERY) {
                return;
            }
            reached.told = Some(now);
            std::mem::take(&mut reached.untold)
        };
        self.net.emit(Event::LimitReached { limit, from, times });
    }
}

/// So many at once, and so many a second from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// A second.
    pub per_second: u32,
}

/// Holds each source to a [`Rate`].
#[derive(Debug)]
pub(crate) struct SourceRates {
    burst: u32,
    /// One more in this time.
    one: Duration,
    /// When the source's bucket would be full.
    full_at: LruCache<Source, Instant>,
}

impl SourceRates {
    pub(crate) fn new(rate: Rate) -> Self {
        Self::slow(rate.burst, Duration::from_secs(1) / rate.per_second.max(1))
    }

    /// So many at once, and from then on one in `one`.
    pub(crate) fn slow(burst: u32, one: Duration) -> Self {
        Self { burst, one, full_at: LruCache::new(MAX_SOURCES) }
    }

    /// Whether one more of this address's source is within its rate; if so, it counts.
    pub(crate) fn allows(&mut self, now: Instant, address: IpAddr) -> bool {
        let one = self.one;
        let full_at = self.full_at.get_or_insert_mut(source(address), || now);
        let next = (*full_at).max(now) + one;
        let within = next.saturating_duration_since(now) <= one * self.burst.max(1);
        if within {
            *full_at = next;
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_burst_and_then_its_rate() {
        let now = tokio::time::Instant::now().into_std();
        let mut rates = SourceRates::new(Rate { burst: 10, per_second: 5 });
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let mut allowed = |now, source, asked: usize| (0..asked).filter(|_| rates.allows(now, source)).count();
        assert_eq!(allowed(now, one, 100), 10);
        assert_eq!(allowed(now, other, 3), 3, "another has its own");
        assert_eq!(allowed(now + Duration::from_secs(1), one, 100), 5);
        assert_eq!(allowed(now + Duration::from_secs(60), one, 100), 10, "it is no more than a burst");
        // The table is bounded: many other sources make it forget.
        let many = (0..MAX_SOURCES.get() as u32).map(|nth| IpAddr::from((0x0a00_0000 + nth).to_be_bytes()));
        assert!(many.into_iter().all(|source| rates.allows(now, source)));
        assert_eq!(rates.full_at.len(), MAX_SOURCES.get());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_rate() {
        let now = tokio::time::Instant::now().into_std();
        let mut rates = SourceRates::new(Rate { burst: 10, per_second: 5 });
        let mut allowed = |network: u16| {
            let hosts = (0..100).map(|host| IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]));
            hosts.into_iter().filter(|host| rates.allows(now, *host)).count()
        };
        assert_eq!([allowed(1), allowed(2), allowed(1)], [10, 10, 0]);
    }
}
