//! Our Grape and our link with the originals: `grenache-grape` and `grenache-nodejs-link` from npm; our peers, brokers and
//! µTP with peers on libutp, which `utp-native` from npm brings along.
//!
//! `grenache-nodejs-utp` is not on npm. `peer.js` and `broker.js` do on the wire what it and its examples do: a packet is
//! read as one JSON text, a message is one write, a worker punches one client a round.
//!
//! These tests need Node.js and the packages (`npm ci --prefix tests/interop`), those with a NAT also root, iproute2
//! and nftables. `cargo test --test interop -- --ignored` runs them all, and with `--nocapture` shows what worked
//! with what.

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
