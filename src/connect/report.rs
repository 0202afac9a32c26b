//! What came of an attempt to connect.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Rung;
use crate::nat::Behaviour;

/// How a service was reached, or why it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectReport {
    /// The service's name.
    pub service: String,
    /// The rung that worked.
    pub rung: Option<Rung>,
    /// Where requests go to.
    pub to: Option<SocketAddr>,
    /// How long it took, in milliseconds; finding out what the own NAT does included, where that was needed and not known.
    pub elapsed_ms: u64,
    /// What this side's NAT does; [`Behaviour::UNKNOWN`] where that was not needed.
    pub own_nat: Behaviour,
    /// What the NAT does of the peer that was reached, or of the last one that was tried, as it says; `None` from peers of
    /// the original.
    pub peer_nat: Option<Behaviour>,
    /// Why what was tried before did not work, in that order: of each peer the rungs, up to the one at which it turned out
    /// to be gone.
    pub failed: Vec<FailedRung>,
}

/// Why one rung did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRung {
    /// Which one.
    pub rung: Rung,
    /// Where the peer is, as the broker sees it, with whom; `None` where nobody is known there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// Whether it was tried; else theory says that it cannot work, or something that it needs is not there.
    pub tried: bool,
    /// Why it did not work.
    pub reason: String,
    /// How long it was tried, in milliseconds.
    pub took_ms: u64,
}

impl fmt::Display for ConnectReport {
    /// A line for the outcome and one for each rung that did not work.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rung, self.to) {
            (Some(rung), Some(to)) => {
                write!(f, "{}: reached by {rung} at {to} in {} ms", self.service, self.elapsed_ms)?;
            }
            _ => write!(f, "{}: not reached in {} ms", self.service, self.elapsed_ms)?,
        }
        self.failed.iter().try_for_each(|failed| write!(f, "\n  {failed}"))
    }
}

impl fmt::Display for FailedRung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rung, peer, tried, took_ms, .. } = self;
        // What a peer or a broker says is in it, and has no lines of its own.
        let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        let reason: String = self.reason.chars().map(escaped).collect();
        write!(f, "{rung}")?;
        peer.map_or(Ok(()), |peer| write!(f, " to {peer}"))?;
        if *tried { write!(f, ": {reason} ({took_ms} ms)") } else { write!(f, ": not tried: {reason}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_reason_has_no_lines_of_its_own() {
        let reason = "the peer refuses: \u{1b}[2J\n  relay: reached".to_owned();
        let failed = FailedRung { rung: Rung::Direct, peer: None, tried: true, reason, took_ms: 5 };
        assert_eq!(failed.to_string(), r"direct: the peer refuses: \u{1b}[2J\n  relay: reached (5 ms)");
    }

    #[test]
    fn a_report_reads_well_and_is_read_back() {
        let failed = |rung, peer: Option<&str>, tried, reason: &str, took_ms| {
            let peer = peer.map(|peer| peer.parse().unwrap());
            FailedRung { rung, peer, tried, reason: reason.to_owned(), took_ms }
        };
        let report = ConnectReport {
            service: "fibo".to_owned(),
            rung: Some(Rung::Relay),
            to: Some("203.0.113.1:40000".parse().unwrap()),
            elapsed_ms: 2310,
            own_nat: Behaviour::OPEN,
            peer_nat: None,
            failed: vec![
                failed(Rung::Direct, None, false, "the peer's NAT lets in only whom its host has sent to", 0),
                failed(Rung::Punch, Some("198.51.100.10:5000"), true, "no connection within 2 s", 2000),
            ],
        };
        assert_eq!(
            report.to_string(),
            "fibo: reached by relay at 203.0.113.1:40000 in 2310 ms\n\
             \x20 direct: not tried: the peer's NAT lets in only whom its host has sent to\n\
             \x20 punch to 198.51.100.10:5000: no connection within 2 s (2000 ms)"
        );
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ConnectReport>(&json).unwrap(), report);
        let not = ConnectReport { rung: None, to: None, failed: Vec::new(), ..report };
        assert_eq!(not.to_string(), "fibo: not reached in 2310 ms");
    }
}
