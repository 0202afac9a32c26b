//! What can go wrong, and when.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::scenario::model::Name;

/// Something that goes wrong, once or again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// When it begins.
    pub at: Duration,
    /// When it ends by itself, from its beginning; `None` is never, or at once where it is of a moment.
    pub lasts: Option<Duration>,
    /// When it begins again, from its beginning.
    pub every: Option<Duration>,
    /// How often it begins in all, where `every` is there; `None` is without end.
    pub times: Option<u32>,
    /// What it is.
    pub kind: FaultKind,
}

/// One time that a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occurrence {
    /// When it begins.
    pub begins: Duration,
    /// When it ends; `None` is never.
    pub ends: Option<Duration>,
}

/// The faults that a simulation can have. Those that last compose: each ends only what it brought about.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// No packet passes between nodes of the two groups.
    Partition(Vec<Name>, Vec<Name>),
    /// A NAT forgets its mappings; new ones get other ports.
    Rebind(Name),
    /// A node loses everything; it starts again when the fault ends.
    Crash(Name),
    /// A node that crashed starts again.
    Restart(Name),
    /// The link of a node or NAT takes no packet, in both directions. What is on it already arrives.
    Down(Name),
    /// The link of a node or NAT is worse than it was, in both directions.
    Degrade(Name, Degradation),
    /// A node's tasks do not run. Its timers go off and packets fill its sockets' buffers: it learns of both afterwards.
    Pause(Name),
    /// The clock of a node that µTP's timestamps are taken from is `skew_us` microseconds ahead (behind, where
    /// negative), and gains `drift_ppm` microseconds a second from the fault's beginning on.
    Clock {
        /// The node.
        node: Name,
        /// Microseconds ahead at the beginning.
        skew_us: i64,
        /// Microseconds gained a second.
        drift_ppm: i64,
    },
    /// A NAT and its firewall forget everything; until the fault ends, no packet passes it.
    Reboot(Name),
    /// A node is elsewhere, or has another address, until the fault ends.
    Move(Move),
    /// The program `grape` on a node is not there, until the fault ends.
    GrapeOutage(Name),
}

/// What is worse about a link. It stands behind the link as a second one: latencies add up, each loses packets on its
/// own, and the lower rate is what gets through.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Degradation {
    /// More of it, one way.
    pub latency: Duration,
    /// Spreads that latency, as a link's does.
    pub jitter: Duration,
    /// The probability of losing a packet on top of the link's.
    pub loss: f64,
    /// Bits a second; `None` is no other limit than the link's. What waits for it is at most 256 KiB.
    pub rate: Option<u64>,
}

/// Where a node is while it is not at home. Its sockets stay bound: those to all addresses send from the new one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Move {
    /// The node.
    pub node: Name,
    /// The NAT that it is behind; `None` is the internet.
    pub behind: Option<Name>,
    /// Its IPv4 address there; `None` is the one it had there before, or the next free one. A node without IPv4 gets none.
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address there; `None` is the one it had there before, or the next free one of a NAT with IPv6.
    pub address6: Option<Ipv6Addr>,
    /// Its link there; `None` is its own.
    pub link: Option<Name>,
}

impl Fault {
    /// One that begins once, and where it lasts never ends.
    pub fn new(at: Duration, kind: FaultKind) -> Self {
        Self { at, lasts: None, every: None, times: None, kind }
    }

    /// The same, ending so long after its beginning.
    #[must_use]
    pub fn lasting(self, lasts: Duration) -> Self {
        Self { lasts: Some(lasts), ..self }
    }

    /// The same, beginning again this long after its beginning, `times` times in all.
    #[must_use]
    pub fn every(self, every: Duration, times: u32) -> Self {
        Self { every: Some(every), times: Some(times), ..self }
    }

    /// The times that it happens, of which those that begin at `limit` or later are left out.
    pub fn occurrences(&self, limit: Duration) -> impl Iterator<Item = Occurrence> + use<> {
        let (at, lasts) = (self.at, self.lasts);
        let every = self.every.filter(|every| !every.is_zero());
        let times = if every.is_some() { self.times.unwrap_or(u32::MAX) } else { 1 };
        (0..times)
            .map_while(move |nth| at.checked_add(every.unwrap_or_default().checked_mul(nth)?))
            .take_while(move |begins| *begins < limit)
            .map(move |begins| Occurrence { begins, ends: lasts.and_then(|lasts| begins.checked_add(lasts)) })
    }
}

impl FaultKind {
    /// Whether it is over as soon as it has begun.
    pub fn is_of_a_moment(&self) -> bool {
        matches!(self, Self::Rebind(_) | Self::Restart(_))
    }
}

/// In words: `partition of a from b`, `crash of server`.
impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(a, b) => write!(f, "partition of {} from {}", a.join(", "), b.join(", ")),
            Self::Rebind(nat) => write!(f, "rebinding of {nat}"),
            Self::Crash(node) => write!(f, "crash of {node}"),
            Self::Restart(node) => write!(f, "restart of {node}"),
            Self::Down(name) => write!(f, "link of {name} down"),
            Self::Degrade(name, change) => write!(f, "link of {name} degraded by {change}"),
            Self::Pause(node) => write!(f, "pause of {node}"),
            Self::Clock { node, skew_us, drift_ppm } => {
                write!(f, "clock of {node} {} ms ahead", *skew_us as f64 / 1e3)?;
                if *drift_ppm == 0 { Ok(()) } else { write!(f, ", gaining {drift_ppm} ppm") }
            }
            Self::Reboot(nat) => write!(f, "reboot of {nat}"),
            Self::Move(Move { node, behind, .. }) => {
                write!(
                    f,
                    "move of {node} to {}",
                    behind.as_deref().map_or("the internet".into(), |nat| format!("the LAN of {nat}"))
                )
            }
            Self::GrapeOutage(node) => write!(f, "outage of the Grape on {node}"),
        }
    }
}

/// In words: `50ms, a loss of 5% and a rate of 1000 bit/s`.
impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.latency.is_zero() {
            parts.push(format!("{:?}", self.latency));
        }
        if !self.jitter.is_zero() {
            parts.push(format!("a jitter of {:?}", self.jitter));
        }
        if self.loss > 0.0 {
            // Rounded to a millionth of a percent: 0.07 × 100 is not quite 7.
            parts.push(format!("a loss of {}%", (self.loss * 1e8).round() / 1e6));
        }
        if let Some(rate) = self.rate {
            parts.push(format!("a rate of {rate} bit/s"));
        }
        if parts.is_empty() { f.write_str("nothing") } else { f.write_str(&parts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_fault_happens_again_and_again() {
        let fault = Fault::new(2 * S, FaultKind::Down("a".into())).lasting(S).every(3 * S, 3);
        let times = |limit: Duration| fault.occurrences(limit).map(|each| each.begins).collect::<Vec<_>>();
        assert_eq!(times(60 * S), [2 * S, 5 * S, 8 * S]);
        assert_eq!(times(8 * S), [2 * S, 5 * S]);
        assert_eq!(fault.occurrences(60 * S).last().unwrap().ends, Some(9 * S));
        let endless = Fault { times: None, ..fault };
        assert_eq!(endless.occurrences(60 * S).count(), 20);
        let once = Fault::new(2 * S, FaultKind::Pause("a".into()));
        assert_eq!(once.occurrences(60 * S).collect::<Vec<_>>(), [Occurrence { begins: 2 * S, ends: None }]);
    }

    #[test]
    fn faults_read_well() {
        let change = Degradation { latency: S / 20, loss: 0.05, rate: Some(1000), ..Degradation::default() };
        for (kind, text) in [
            (FaultKind::Degrade("a".into(), change), "link of a degraded by 50ms, a loss of 5%, a rate of 1000 bit/s"),
            (
                FaultKind::Clock { node: "a".into(), skew_us: -250_000, drift_ppm: 100 },
                "clock of a -250 ms ahead, gaining 100 ppm",
            ),
            (
                FaultKind::Move(Move { node: "a".into(), behind: Some("b".into()), ..Move::default() }),
                "move of a to the LAN of b",
            ),
        ] {
            assert_eq!(kind.to_string(), text);
        }
    }
}
