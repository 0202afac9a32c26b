//! TCP for simulated hosts: the connections of one host's life, and the packets that they exchange.
//!
//! [`Connection`] is the state machine of one end, [`Stack`] a host's table of them, [`stream`] what a task holds.
//! Segments travel as packets through the same links and NATs as UDP does.

mod connection;
mod segment;
mod stack;
pub(crate) mod stream;

pub(crate) use connection::{Connection, Read, Write};
pub(crate) use segment::Segment;
pub(crate) use stack::{ConnectionId, Effects, ListenerId, Stack};
