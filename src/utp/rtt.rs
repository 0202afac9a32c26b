//! Round-trip times and the retransmission timeout (RFC 6298).

use std::time::Duration;

/// The least retransmission timeout. RFC 6298, 2.4 asks for a second; kernels use less, since acks are not delayed here.
const MIN_RTO: Duration = Duration::from_millis(250);

/// The greatest one, back-off included: a path that comes back is noticed within it.
const MAX_RTO: Duration = Duration::from_secs(8);

/// RFC 6298, 2.1: before the first sample.
const INITIAL_RTO: Duration = Duration::from_secs(1);

/// The clock's granularity (RFC 6298, "G"): that of the timers that drive this.
const GRANULARITY: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Default)]
pub(super) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    backoff: u32,
}

impl Rtt {
    /// RFC 6298, 2.2 and 2.3. Samples of retransmitted packets are not to be given (Karn's algorithm, 3).
    pub(super) fn sample(&mut self, rtt: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The timeout now, with back-off.
    pub(super) fn rto(&self) -> Duration {
        let base = self.smoothed.map_or(INITIAL_RTO, |smoothed| smoothed + (self.variation * 4).max(GRANULARITY));
        (base.max(MIN_RTO) * 2_u32.pow(self.backoff.min(8))).min(MAX_RTO)
    }

    /// RFC 6298, 5.5: doubles the timeout.
    pub(super) fn back_off(&mut self) {
        self.backoff += 1;
    }

    /// New data was acked: the path works.
    pub(super) fn reset_backoff(&mut self) {
        self.backoff = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6298, 2.2, 2.3 and 5.5.
    #[test]
    fn the_timeout_follows_samples_and_backs_off() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto(), INITIAL_RTO);
        rtt.sample(Duration::from_millis(200));
        assert_eq!(rtt.rto(), Duration::from_millis(200 + 4 * 100));
        rtt.sample(Duration::from_millis(200));
        assert_eq!(rtt.rto(), Duration::from_millis(200 + 4 * 75));
        rtt.back_off();
        assert_eq!(rtt.rto(), Duration::from_millis(2 * 500));
        (0..20).for_each(|_| rtt.back_off());
        assert_eq!(rtt.rto(), MAX_RTO);
        rtt.reset_backoff();
        assert_eq!(rtt.rto(), Duration::from_millis(500));
    }
}
