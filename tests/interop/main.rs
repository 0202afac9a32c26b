//! Our Grape and our link with the originals: `grenache-grape` and `grenache-nodejs-link` from npm.
//!
//! These tests need Node.js and the packages (`npm ci --prefix tests/interop`), those with a NAT also root, iproute2
//! and nftables. `cargo test --test interop -- --ignored` runs them all, and with `--nocapture` shows the matrix of
//! what worked with what.

#[path = "../common/mod.rs"]
mod common;

mod brokers;
mod grapes;
mod http;
mod links;
mod matrix;
mod mixed;
#[cfg(target_os = "linux")]
mod namespace;
mod nat;
mod original;
mod pairs;
mod peers;
mod punching;
mod rpc;
mod script;
mod streams;
mod table;
