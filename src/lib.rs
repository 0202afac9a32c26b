//! Grenache micro-services over µTP.
//!
//! A service announces its name in a BitTorrent DHT through a *Grape* (a DHT node with a small HTTP API); a client
//! looks the name up and sends JSON requests straight to the service, over µTP on one shared UDP port, so that peers
//! behind NATs are reached by hole punching, introduced by a broker where needed.
//!
//! | module | what it does |
//! |---|---|
//! | [`net`] | the seam: the [`net::Network`] trait and the operating system's implementation of it |
//! | [`utp`] | µTP (BEP 29) as a state machine without I/O |
//! | [`transport`] | one shared UDP socket: µTP streams, punches and other datagrams |
//! | [`punch`] | hole punching |
//! | [`nat`] | what the NAT in front of this host does, and how to find out |
//! | [`rpc`] | requests and replies over µTP streams |
//! | [`link`] | the client of a Grape: announce, lookup, put, get |
//! | [`broker`] | who is out there: registration and introductions |
//! | [`connect`] | the whole way to a service, whatever NATs are in between |
//! | [`grape`] | an embedded Grape: DHT node and HTTP API |
//! | [`event`] | what the stack reports about itself |
//! | [`limits`] | what peers can make grow, and what happens at each limit |
//!
//! For those who come from Node.js:
//!
//! | there | here |
//! |---|---|
//! | `new Link({ grape })`, `link.start()` | [`link::Link::new`], more Grapes with [`link::LinkConfig::fallback`] |
//! | `link.announce`, `link.startAnnouncing`, `link.stopAnnouncing` | [`link::Link::announce`], [`link::Link::start_announcing`], [`link::Announcing::stop`] |
//! | `link.lookup` | [`link::Link::lookup`], past the cache [`link::Link::lookup_fresh`] |
//! | `link.put`, `link.get` | [`link::Link::put`], [`link::Link::get`]; signed values: [`link::Link::put_mutable`], [`link::Link::get_mutable`], [`link::KeyPair`] |
//! | `opts.timeout`, `opts.retry` of a call | [`link::Link::with`], [`rpc::PeerRpcClient::with`] |
//! | `peer.init()`, `peer.transport('server')`, `service.listen()` | [`transport::Endpoint::listen`], [`rpc::PeerRpcServer::serve`] |
//! | `service.on('request', (rid, key, payload, handler, cert, { address, port }))` | the handler of [`rpc::PeerRpcServer::serve`] or [`serve_as`](rpc::PeerRpcServer::serve_as), or [`rpc::Requests::next`] |
//! | `handler.reply(err, result)` | the handler's `Result`, or [`rpc::Request::reply`] |
//! | `peer.request(key, payload)` | [`rpc::PeerRpcClient::request`], [`request_as`](rpc::PeerRpcClient::request_as) |
//! | a request to an address | [`rpc::PeerRpcClient::request_at`], [`request_at_as`](rpc::PeerRpcClient::request_at_as) |
//! | `peer.map(key, payload, { limit })` | [`rpc::PeerRpcClient::map`], as they come [`map_each`](rpc::PeerRpcClient::map_each) |
//! | `maxActiveDestTransports`, `maxActiveKeyDests` | [`rpc::ClientConfig::transports`], [`rpc::ClientConfig::active_destinations`] |
//! | `service.punch(target)` | [`punch::Puncher::punch`], [`punch::Puncher::punch_name`] |
//! | `on('punched')`, `on('handshake')`, `on('message')` | [`punch::Puncher::punched`], [`punch::Puncher::handshakes`], [`punch::Puncher::messages`] |
//! | `peer.stop()`, `service.stop()` | [`rpc::PeerRpcClient::stop`], [`rpc::PeerRpcServer::stop`], [`transport::Endpoint::close`] |
//! | the broker of its examples | [`broker::Broker`], [`broker::BrokerClient`] |
//! | `new Grape(opts)` | [`grape::Grape::start`] |
//!
//! Towards peers of the original implementation set [`rpc::ClientConfig::reference_peers`].
//!
//! Nothing in here reads a clock or draws a random number on its own: time is [`tokio::time`], which a simulator
//! virtualises, and randomness comes from [`net::Network::rng`].

pub mod broker;
pub mod connect;
pub mod event;
mod fair;
pub mod grape;
pub mod limits;
pub mod link;
pub mod nat;
pub mod net;
mod places;
pub mod punch;
pub mod rpc;
mod source;
pub mod transport;
pub mod utp;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
