//! Requests and replies over µTP streams.
//!
//! A request is the JSON text `[rid, key, payload]`, its reply `[rid, error or null, result]`. A stream carries them
//! back to back, any number in flight, replies in any order; see [`framing`] and [`message`]. What is larger than memory
//! goes as a streamed call, where both sides offer that; see [`streaming`].
//!
//! Server and client of a process share one [`Endpoint`](crate::transport::Endpoint), and with it a UDP port: what a
//! NAT lets through to the one reaches the other. A connection carries the requests of the side that opened it.

mod bounds;
mod carrier;
mod client;
mod error;
pub mod framing;
pub mod message;
mod pool;
mod server;
mod stream;
pub mod streaming;
#[cfg(test)]
mod tests;

pub use bounds::{TEXT_RATE, TEXT_TIME};
pub use client::{ClientConfig, PeerRpcClient, RequestOptions};
pub use error::RpcError;
pub use server::{
    ERR_NO_REPLY, ERR_REQUEST_PARSE, ERR_REQUEST_SIZE, ERR_REQUEST_TIME, MAX_MALFORMED, PeerRpcServer, Request,
    RequestParts, Requests, ServerConfig,
};
