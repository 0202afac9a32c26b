//! Requests and replies over µTP streams.
//!
//! A request is the JSON text `[rid, key, payload]`, its reply `[rid, error or null, result]`. A stream carries them
//! back to back, any number in flight, replies in any order; see [`framing`] and [`message`].

pub mod framing;
pub mod message;
mod server;
mod stream;

pub use server::{
    ERR_NO_REPLY, ERR_REQUEST_PARSE, ERR_REQUEST_SIZE, MAX_MALFORMED, PeerRpcServer, Request, RequestParts, Requests,
    ServerConfig,
};
