//! Round-trip time and retransmission timeout (RFC 6298).

use std::time::Duration;

/// The timeout before the first measurement (RFC 6298, 2.1).
const INITIAL_RTO: Duration = Duration::from_secs(1);

/// The least timeout. RFC 6298 (2.4) says 1 s for TCP's delayed acks; µTP peers ack every drained batch at once.
const MIN_RTO: Duration = Duration::from_millis(500);

/// Up to where backing off doubles the timeout. RFC 6298 (2.5) would allow 60 s: with the time to give up bounded,
/// more tries within it are what makes a connection survive heavy loss.
const BACKOFF_CEILING: Duration = Duration::from_secs(2);

/// What a peer is granted for its ack before the last packet is probed with.
const PROBE_SLACK: Duration = Duration::from_millis(10);

/// Smoothed round-trip time, its variation, and the timeout that follows.
#[derive(Debug, Clone, Default)]
pub(super) struct Rtt {
    measured: Option<Measured>,
    backoff: u32,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    smoothed: Duration,
    variation: Duration,
    least: Duration,
}

impl Rtt {
    /// RFC 6298, 2.2 and 2.3. A packet that was sent again is only to be measured by its timestamp (Karn's algorithm,
    /// section 3, and RFC 7323, 4).
    pub(super) fn sample(&mut self, rtt: Duration) {
        self.measured = Some(match self.measured {
            None => Measured { smoothed: rtt, variation: rtt / 2, least: rtt },
            Some(old) => Measured {
                variation: (old.variation * 3 + old.smoothed.abs_diff(rtt)) / 4,
                smoothed: (old.smoothed * 7 + rtt) / 8,
                least: old.least.min(rtt),
            },
        });
    }

    /// The smoothed round-trip time, once one was measured.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.measured.map(|measured| measured.smoothed)
    }

    /// The least that was measured; zero before.
    pub(super) fn least(&self) -> Duration {
        self.measured.map_or(Duration::ZERO, |measured| measured.least)
    }

    /// How long a packet that others have overtaken may still be on its way: a round trip with its variation, at most
    /// twice a round trip. Zero before the first measurement.
    pub(super) fn patience(&self) -> Duration {
        self.measured.map_or(Duration::ZERO, |m| m.smoothed + (m.variation * 4).min(m.smoothed))
    }

    /// The timeout, backed off.
    pub(super) fn timeout(&self) -> Duration {
        let base = self.measured.map_or(INITIAL_RTO, |m| m.smoothed + m.variation * 4).max(MIN_RTO);
        (base * (1 << self.backoff)).min(base.max(BACKOFF_CEILING))
    }

    /// How long to wait for an ack before the last packet is sent again to draw one (RFC 8985, 7.2), where that is
    /// sooner than the timeout.
    pub(super) fn probe_timeout(&self) -> Option<Duration> {
        let timeout = self.smoothed()? * 2 + PROBE_SLACK;
        (timeout < self.timeout()).then_some(timeout)
    }

    /// RFC 6298, 5.5: the timer has expired.
    pub(super) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(8);
    }

    /// RFC 6298, 5.3: new data was acked.
    pub(super) fn progress(&mut self) {
        self.backoff = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6298_first_and_later_samples() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), INITIAL_RTO);
        rtt.sample(Duration::from_millis(400));
        assert_eq!(rtt.timeout(), Duration::from_millis(400 + 4 * 200));
        rtt.sample(Duration::from_millis(800));
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(450)));
        assert_eq!(rtt.timeout(), Duration::from_millis(450 + 4 * 250));
        assert_eq!(rtt.least(), Duration::from_millis(400));
    }

    #[test]
    fn rfc6298_backing_off_doubles_up_to_the_ceiling() {
        let mut rtt = Rtt::default();
        rtt.sample(Duration::from_millis(1));
        assert_eq!(rtt.timeout(), MIN_RTO);
        for expected in [1000, 2000, 2000, 2000] {
            rtt.back_off();
            assert_eq!(rtt.timeout(), Duration::from_millis(expected));
        }
        rtt.progress();
        assert_eq!(rtt.timeout(), MIN_RTO);
    }

    #[test]
    fn rfc8985_the_probe_comes_after_two_round_trips_or_not_at_all() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.probe_timeout(), None);
        rtt.sample(Duration::from_millis(40));
        assert_eq!(rtt.probe_timeout(), Some(Duration::from_millis(90)));
        let mut rtt = Rtt::default();
        rtt.sample(Duration::from_millis(245));
        for _ in 0..30 {
            rtt.sample(Duration::from_millis(245));
        }
        assert_eq!(rtt.probe_timeout(), None, "500 ms is the timeout itself");
    }

    #[test]
    fn a_long_path_keeps_its_timeout() {
        let mut rtt = Rtt::default();
        rtt.sample(Duration::from_secs(3));
        rtt.back_off();
        assert_eq!(rtt.timeout(), Duration::from_secs(9), "the ceiling never shortens the measured timeout");
    }
}
