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
//! | [`rpc`] | requests and replies over µTP streams |
//! | [`link`] | the client of a Grape: announce, lookup, put, get |
//! | [`broker`] | who is out there: registration and introductions |
//! | [`grape`] | an embedded Grape: DHT node and HTTP API |
//! | [`event`] | what the stack reports about itself |
//! | [`limits`] | what peers can make grow, and what happens at each limit |
//!
//! Nothing in here reads a clock or draws a random number on its own: time is [`tokio::time`], which a simulator
//! virtualises, and randomness comes from [`net::Network::rng`].

pub mod broker;
pub mod event;
pub mod grape;
pub mod limits;
pub mod link;
pub mod net;
pub mod punch;
pub mod rpc;
pub mod transport;
pub mod utp;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
