//! What a connection asks of congestion control.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ledbat::Ledbat;

/// An algorithm that says how many bytes may be in flight.
pub trait Congestion: fmt::Debug + Send {
    /// The congestion window in bytes. A connection with nothing in flight may always send one packet.
    fn window(&self) -> usize;

    /// Packets were acked for the first time.
    fn on_ack(&mut self, ack: &Ack);

    /// Packets were found lost by later ones arriving. Called for every such finding: an algorithm that reacts once
    /// a round trip has to keep count. `rtt` is the smoothed round-trip time.
    fn on_loss(&mut self, now: Instant, rtt: Duration);

    /// The retransmission timer expired with `in_flight` bytes in flight.
    fn on_timeout(&mut self, now: Instant, in_flight: usize);
}

/// What an ack brought.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// When it arrived.
    pub now: Instant,
    /// Bytes acked for the first time.
    pub bytes: usize,
    /// Bytes in flight before it.
    pub in_flight: usize,
    /// The peer's measurement of our packets' one-way delay in µs, with the clocks' unknown offset in it, modulo 2^32.
    pub one_way_delay: Option<u32>,
}

/// Makes an algorithm for a new connection, given its largest payload in bytes.
pub type Factory = Arc<dyn Fn(usize) -> Box<dyn Congestion> + Send + Sync>;

/// The default algorithm: LEDBAT (RFC 6817).
pub fn ledbat() -> Factory {
    Arc::new(|max_payload| Box::new(Ledbat::new(max_payload)))
}
