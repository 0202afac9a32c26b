//! Requests and replies over µTP streams.
//!
//! A request is the JSON text `[rid, key, payload]`, its reply `[rid, error or null, result]`. A stream carries them
//! back to back, any number in flight, replies in any order; see [`framing`] and [`message`]. What is larger than memory
//! goes as a streamed call, where both sides offer that; see [`streaming`].
//!
//! Server and client of a process share one [`Endpoint`](crate::transport::Endpoint), and with it a UDP port: what a
//! NAT lets through to the one reaches the other. A connection carries the requests of the side that opened it.
//!
//! # Backpressure
//!
//! | what waits | how much of it may | at the limit |
//! |---|---|---|
//! | a client's requests in flight on a connection | [`ClientConfig::pipeline`] | further ones wait for another connection |
//! | its connections to a destination | [`ClientConfig::transports`] | further requests share them or wait |
//! | its requests that wait for a destination | 65,536 | further ones fail with [`RpcError::QueueFull`] |
//! | what is written and not acknowledged | µTP's send buffer ([`utp::Config`](crate::utp::Config)) | the writer waits |
//! | a server's requests unanswered on a connection | [`ServerConfig::max_in_flight`] | nothing more is read from it |
//! | its requests that wait for [`Requests::next`] | [`ServerConfig::max_queue`] | nothing more is read |
//! | its replies that are not taken | [`ServerConfig::max_unsent`], [`ServerConfig::max_unsent_total`] | nothing more is read |
//! | what is received and not read | µTP's receive window | the peer's µTP stops sending |
//! | its connections | [`ServerConfig::max_connections`] | a new one is reset |
//!
//! A caller is held until its request has ended, so that it need not count. Whatever is awaited can be given up by
//! dropping its future: a request is then forgotten and unsent where it still waits; a connection attempt ends.

mod bounds;
mod carrier;
mod client;
mod connection;
mod error;
pub mod framing;
mod gate;
mod map;
pub mod message;
mod pool;
mod server;
mod stream;
pub mod streaming;
#[cfg(test)]
mod tests;
mod typed;

pub use bounds::{TEXT_RATE, TEXT_TIME};
pub use client::{CLOSE_TIMEOUT, ClientConfig, MAX_REFERENCE_MESSAGE, PeerRpcClient, RequestOptions};
pub use connection::MAX_MALFORMED;
pub use error::RpcError;
pub use map::Replies;
pub use server::{
    ERR_NO_REPLY, ERR_REQUEST_PARSE, ERR_REQUEST_SIZE, ERR_REQUEST_TIME, PeerRpcServer, Request, RequestParts,
    Requests, ServerConfig,
};
pub use typed::{ERR_REPLY_TYPE, ERR_REQUEST_TYPE};
