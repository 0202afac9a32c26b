//! What is measured of clients' requests, and what its percentiles may be.

use std::time::Duration;

/// What is measured of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// From its first transmission to its reply.
    Latency,
    /// From the start of the node's first client to its reply: with lookups, punches and retries.
    Answer,
    /// From the start of the node's first client to the first way that its connector found.
    Connect,
}

impl Measure {
    /// As files and reports say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Answer => "answer",
            Self::Connect => "connect",
        }
    }
}

/// A percentile, by the nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Percentile {
    /// The median.
    P50,
    /// Of 75 %.
    P75,
    /// Of 90 %.
    P90,
    /// Of 95 %.
    P95,
    /// Of 99 %.
    P99,
    /// Of 99.9 %.
    P999,
    /// The largest.
    Max,
}

impl Percentile {
    /// As files and reports say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P75 => "p75",
            Self::P90 => "p90",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::P999 => "p999",
            Self::Max => "max",
        }
    }

    /// How many of `all` values are not above it, itself among them: at least 1 where there is one.
    pub fn rank(self, all: usize) -> usize {
        let per_mille = match self {
            Self::P50 => 500,
            Self::P75 => 750,
            Self::P90 => 900,
            Self::P95 => 950,
            Self::P99 => 990,
            Self::P999 => 999,
            Self::Max => 1000,
        };
        (all * per_mille).div_ceil(1000)
    }
}

/// The most that percentiles may be; at least one.
pub type Limits = Vec<(Percentile, Duration)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let cases =
            [(Percentile::P50, 1, 1), (Percentile::P50, 2, 1), (Percentile::P50, 3, 2), (Percentile::P95, 20, 19)];
        for (percentile, all, rank) in cases {
            assert_eq!(percentile.rank(all), rank, "{percentile:?} of {all}");
        }
        assert_eq!((Percentile::P95.rank(200), Percentile::P999.rank(200), Percentile::Max.rank(7)), (190, 200, 7));
    }
}
