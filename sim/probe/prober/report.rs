//! What a prober found, in RFC 4787's terms.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use grenache::nat::{Filtering, Mapping, Ports};
use serde::Serialize;

/// What the NAT in front of a host does, as far as it shows from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NatReport {
    /// Which destinations share a mapping (RFC 4787, 4.1). Where ports are overloaded they all do, whatever the NAT
    /// makes of it inside.
    pub mapping: Mapping,
    /// Whose packets come in (RFC 4787, 5).
    pub filtering: Filtering,
    /// Which port a mapping gets (RFC 4787, 4.2.1).
    pub ports: Ports,
    /// Whether a port that is not preserved is even where the socket's is, and odd where that is (RFC 4787, 4.2.2);
    /// `None` where all were preserved.
    pub parity: Option<bool>,
    /// Whether two hosts were given one external endpoint (RFC 4787, 4.2.1); `None` where there was no companion, or
    /// they got different addresses.
    pub overloading: Option<bool>,
    /// The public addresses that were seen: several where pooling is arbitrary (RFC 4787, 4.1).
    pub public_addresses: BTreeSet<IpAddr>,
    /// What becomes of packets to the host's own public address (RFC 4787, 6).
    pub hairpinning: Hairpin,
    /// How long a mapping lives unused (RFC 4787, 4.3).
    pub lifetime: Lifetime,
    /// What keeps it alive (RFC 4787, 4.3).
    pub refresh: Refreshed,
}

/// What becomes of packets to the host's own public address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hairpin {
    /// They come back from the public address.
    ExternalSource,
    /// They come back from the host's internal address.
    InternalSource,
    /// They do not come back.
    None,
    /// None came back, but the filter would have let none in either.
    Unknown,
}

/// How long a mapping lives unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifetime {
    /// Longer than the first, and not as long as the second.
    Between(Duration, Duration),
    /// As long as was waited at least.
    AtLeast(Duration),
    /// It was not asked for, or no mapping could be watched.
    Unknown,
}

/// What keeps a mapping alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refreshed {
    /// Packets that leave.
    Outbound,
    /// Packets that come in.
    Inbound,
    /// Both.
    Both,
    /// It lived too long to tell.
    Unknown,
}

impl fmt::Display for NatReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.public_addresses.iter().map(IpAddr::to_string).collect();
        let maybe = |yes: Option<bool>| match yes {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        writeln!(f, "public addresses: {}", addresses.join(", "))?;
        writeln!(f, "mapping: {}", self.mapping)?;
        writeln!(f, "filtering: {}", self.filtering)?;
        writeln!(f, "ports: {}", self.ports)?;
        writeln!(f, "parity kept: {}", maybe(self.parity))?;
        writeln!(f, "ports overloaded: {}", maybe(self.overloading))?;
        writeln!(f, "hairpinning: {}", self.hairpinning)?;
        writeln!(f, "binding lifetime: {}", self.lifetime)?;
        write!(f, "refreshed: {}", self.refresh)
    }
}

impl fmt::Display for Hairpin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExternalSource => "external source",
            Self::InternalSource => "internal source",
            Self::None => "none",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Between(low, high) => write!(f, "{:.1} s to {:.1} s", low.as_secs_f64(), high.as_secs_f64()),
            Self::AtLeast(least) => write!(f, "at least {:.1} s", least.as_secs_f64()),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Refreshed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outbound => "by outbound packets",
            Self::Inbound => "by inbound packets",
            Self::Both => "by outbound and by inbound packets",
            Self::Unknown => "unknown",
        })
    }
}
