//! µTP (BEP 29, as libutp speaks it) as a state machine: no socket, task, clock or random numbers of its own.
//!
//! [`Connection`] is one connection; [`Packet`] is what travels. Time comes in as `now`, random numbers as arguments.
//! The [`transport`](crate::transport) module puts it onto a socket.

mod config;
mod congestion;
mod connection;
mod receiver;
mod rtt;
mod sender;
mod seq;
mod wire;

pub use config::Config;
pub use congestion::{Congestion, Ledbat};
pub use connection::{Connection, ConnectionError};
pub use seq::Seq;
pub use wire::{HEADER_LEN, Kind, MAX_SACK_LEN, Packet, WireError, is_utp};
