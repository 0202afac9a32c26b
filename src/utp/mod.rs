//! µTP (BEP 29) as libutp speaks it, as a state machine: no socket, task, clock or random numbers of its own.
//!
//! # How to drive a [`Connection`]
//!
//! Change it, then drain it: after any of [`handle_datagram`](Connection::handle_datagram),
//! [`handle_timeout`](Connection::handle_timeout), [`write`](Connection::write), [`read`](Connection::read),
//! [`finish`](Connection::finish), [`reset`](Connection::reset) and [`orphan`](Connection::orphan) (several of them
//! may come first, such as all datagrams of one batch, which are then acked by one packet: all but those after a loss,
//! whose acks [`poll_ack`](Connection::poll_ack) gives after each),
//!
//! 1. send what [`poll_transmit`](Connection::poll_transmit) gives until it gives nothing,
//! 2. take what [`poll_event`](Connection::poll_event) gives until it gives nothing,
//! 3. wait until [`poll_timeout`](Connection::poll_timeout) or the next change.
//!
//! # What goes on the wire
//!
//! A write while nothing is pending that fits one packet goes out as one datagram at once: there is no Nagle delay,
//! and peers exist that take a packet for a message. Full packets of a burst have one size, for segmentation offload.
//! Either side may finish first; the other may still write.

pub mod config;
pub mod congestion;
pub mod wire;

mod arrive;
mod connection;
mod error;
mod ledbat;
mod receive;
mod reset;
mod rtt;
mod send;
mod seq;
mod transmit;

pub use config::Config;
pub use connection::{Connection, Event};
pub use error::Error;
pub use ledbat::Ledbat;
pub use reset::{MAX_RESETS, ResetLimiter};
pub use seq::Seq;
pub use transmit::{Batch, Transmit};
