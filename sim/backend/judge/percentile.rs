//! Percentiles of what is measured of requests.
//!
//! That the 95th percentile of 200 requests is at most 1 s is that 190 of them took at most 1 s. So it is decided by the
//! 190th such request, or by the 11th that took longer; those that have not ended by then are slower than all others.

use std::time::Duration;

use super::condition::{Rule, Verdict};
use super::facts::{Fact, Facts};
use crate::scenario::model::{Each, Limits, Measure, Name, Percentile};

/// Counts the requests that are within and beyond each limit.
#[derive(Debug)]
pub(super) struct Percentiles {
    of: Measure,
    nodes: Vec<Name>,
    requests: usize,
    limits: Limits,
    /// What was measured, up to one value a request.
    taken: Vec<Duration>,
}

impl Percentiles {
    pub(super) fn new(of: Measure, to: &Each, requests: usize, limits: &Limits) -> Self {
        Self { of, nodes: to.names.clone(), requests, limits: limits.clone(), taken: Vec::new() }
    }

    /// How many were within a limit.
    fn within(&self, limit: Duration) -> usize {
        self.taken.partition_point(|time| *time <= limit)
    }

    /// Whether a percentile is within its limit; `None` where it is not decided.
    fn standing_of(&self, percentile: Percentile, limit: Duration) -> Option<bool> {
        let (rank, within) = (percentile.rank(self.requests), self.within(limit));
        if within >= rank {
            Some(true)
        } else if self.taken.len() - within > self.requests - rank {
            Some(false)
        } else {
            None
        }
    }

    /// A percentile as it is now; `None` where the requests that have not ended may be it.
    fn value(&self, percentile: Percentile) -> Option<Duration> {
        self.taken.get(percentile.rank(self.requests).checked_sub(1)?).copied()
    }

    fn in_words(&self, percentile: Percentile) -> String {
        let value = self.value(percentile).map_or_else(|| "open".to_owned(), |value| format!("{value:?}"));
        format!("{} is {value}, with {} of {} requests measured", percentile.as_str(), self.taken.len(), self.requests)
    }
}

impl Rule for Percentiles {
    fn see(&mut self, _: &Facts, fact: &Fact<'_>) -> Verdict {
        let Fact::Took { at, measure, time } = fact else { return None };
        if *measure != self.of || self.nodes.binary_search(at).is_err() || self.taken.len() == self.requests {
            return None;
        }
        let place = self.within(*time);
        self.taken.insert(place, *time);
        let told = || format!("a {} of {time:?} at {at}", self.of.as_str());
        for (percentile, limit) in &self.limits {
            match self.standing_of(*percentile, *limit) {
                Some(true) => {}
                Some(false) => {
                    return Some((false, format!("{}: {} > {limit:?}", told(), self.in_words(*percentile))));
                }
                None => return None,
            }
        }
        let all: Vec<String> = self.limits.iter().map(|(percentile, _)| self.in_words(*percentile)).collect();
        Some((true, format!("{}: {}", told(), all.join("; "))))
    }

    fn end(&self) -> bool {
        self.limits.iter().all(|(percentile, limit)| self.standing_of(*percentile, *limit) == Some(true))
    }

    fn standing(&self) -> String {
        let open = self.limits.iter().find(|(percentile, limit)| self.standing_of(*percentile, *limit) != Some(true));
        open.map_or_else(String::new, |(percentile, _)| format!(": {}", self.in_words(*percentile)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn percentiles(requests: usize, limits: &[(Percentile, Duration)], taken: &[u64]) -> Percentiles {
        let taken = taken.iter().copied().map(ms).collect();
        Percentiles { of: Measure::Latency, nodes: Vec::new(), requests, limits: limits.to_vec(), taken }
    }

    #[test]
    fn a_percentile_is_decided_as_soon_as_it_can_be() {
        let cases: [(usize, Percentile, &[u64], Option<bool>); 6] = [
            (4, Percentile::P50, &[10], None),
            (4, Percentile::P50, &[10, 20], Some(true)),
            (4, Percentile::P50, &[200, 300], None),
            (4, Percentile::P50, &[200, 300, 400], Some(false)),
            (4, Percentile::Max, &[10, 20, 30, 40], Some(true)),
            (4, Percentile::Max, &[101], Some(false)),
        ];
        for (requests, percentile, taken, standing) in cases {
            let values = percentiles(requests, &[(percentile, ms(100))], taken);
            assert_eq!(values.standing_of(percentile, ms(100)), standing, "{percentile:?} of {taken:?}");
        }
    }

    #[test]
    fn a_request_that_never_ends_is_the_slowest() {
        let values = percentiles(3, &[(Percentile::Max, ms(100)), (Percentile::P50, ms(100))], &[10, 20]);
        assert!(!values.end());
        assert_eq!(values.standing(), ": max is open, with 2 of 3 requests measured");
        assert_eq!(values.value(Percentile::P50), Some(ms(20)));
    }
}
