//! What a link does to packets.

use std::sync::Arc;
use std::time::Duration;

/// What a link does to packets, the same in both directions unless one has its own, each with a state of its own.
///
/// A packet goes through these, in this order: its size, the queue and the rate, its position, loss, loss in bursts,
/// corruption, the latency, duplication.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// One way, before jitter.
    pub latency: Duration,
    /// How much a packet's latency varies: see `spread`.
    pub jitter: Duration,
    /// The probability of losing a packet, 0.0 to 1.0, each on its own.
    pub loss: f64,
    /// Bits a second; `None` is without limit.
    pub rate: Option<u64>,
    /// Bytes that wait for the rate before packets are dropped from the tail.
    pub queue: usize,
    /// How latencies are drawn.
    pub spread: Spread,
    /// Whether packets may overtake each other where their latencies differ.
    pub reordering: bool,
    /// Loss in bursts, beside `loss`.
    pub bursts: Option<GilbertElliott>,
    /// Which packets are lost, by their place among those that enter this direction, the first of which is 1: ranges
    /// of first and last. They are not drawn.
    pub lose: Vec<(u64, u64)>,
    /// The probability that a packet arrives twice.
    pub duplicate: f64,
    /// The probability that a bit of a packet's payload is flipped.
    pub corrupt: f64,
    /// Whether the receiver checks UDP's checksum, and drops what is corrupt. Without it a corrupt UDP payload is
    /// delivered (RFC 768: a checksum of 0 is none). TCP always has one.
    pub checksums: bool,
    /// How a full queue is kept short.
    pub discipline: Discipline,
    /// How many bytes may go out at once after a time without packets: a token bucket's depth (RFC 2698). 0 is none: a
    /// line that sends at its rate and never faster.
    pub burst: usize,
    /// The largest IP packet that fits, in bytes; `None` is as large as hosts send them (1,500).
    pub mtu: Option<usize>,
    /// Whether an IPv4 packet that does not fit is sent in fragments (RFC 791); else it is dropped, as IPv6 packets
    /// always are (RFC 8200, 5).
    pub fragments: bool,
    /// All of this, but for packets to the network; `None` is the same.
    pub up: Option<Box<Link>>,
    /// All of this, but for packets from the network; `None` is the same.
    pub down: Option<Box<Link>>,
}

/// How a packet's latency is drawn.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Spread {
    /// Evenly from `latency` ± `jitter`.
    #[default]
    Uniform,
    /// From a normal distribution around `latency`, whose standard deviation is `jitter`; none is negative.
    Normal,
    /// `latency` and what a recording says, one packet after the other, and again from its beginning.
    Trace(Arc<[Duration]>),
}

/// Loss in bursts: a channel that is good or bad, and changes with a packet (Gilbert 1960, Elliott 1963). All are
/// probabilities, 0.0 to 1.0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GilbertElliott {
    /// To become bad, for each packet while it is good (p).
    pub enter: f64,
    /// To become good, for each packet while it is bad (r): bad times last 1 / `leave` packets.
    pub leave: f64,
    /// To lose a packet while it is good (1 − k).
    pub good: f64,
    /// To lose a packet while it is bad (1 − h).
    pub bad: f64,
}

impl GilbertElliott {
    /// The share of packets that is lost in the long run.
    pub fn mean(&self) -> f64 {
        let changes = self.enter + self.leave;
        if changes == 0.0 { self.good } else { (self.enter * self.bad + self.leave * self.good) / changes }
    }
}

/// How a queue is kept short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Discipline {
    /// What does not fit is dropped.
    #[default]
    DropTail,
    /// Beside that, packets that waited are dropped one by one while waiting takes more than 5 ms for 100 ms (RFC
    /// 8289), with its target and interval.
    CoDel,
}

/// As a scenario file's that says nothing: no latency, loss or limit, and a queue of 256 KiB for a rate.
impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            rate: None,
            queue: 256 << 10,
            spread: Spread::Uniform,
            reordering: true,
            bursts: None,
            lose: Vec::new(),
            duplicate: 0.0,
            corrupt: 0.0,
            checksums: true,
            discipline: Discipline::DropTail,
            burst: 0,
            mtu: None,
            fragments: false,
            up: None,
            down: None,
        }
    }
}

impl Link {
    /// What it does to packets to the network (`up`) or from it.
    pub fn direction(&self, up: bool) -> &Self {
        let own = if up { &self.up } else { &self.down };
        own.as_deref().unwrap_or(self)
    }
}
