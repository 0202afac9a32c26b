//! One direction of a link: rate and queue, then loss, then latency and jitter.

use grenache::net::Rng;

use super::Rule;
use crate::engine::seed;
use crate::scenario::model::Link;

/// No hop takes less, so that time moves with every packet and no loop of packets can stop it.
const SHORTEST_DELAY_NS: u64 = 1_000;

const NS_PER_S: u128 = 1_000_000_000;

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct LinkState {
    latency_ns: u64,
    jitter_ns: u64,
    loss: f64,
    /// Bits a second.
    rate: Option<u64>,
    /// Bytes.
    queue: usize,
    /// When the last packet taken so far has left the queue.
    busy_until_ns: u64,
}

impl LinkState {
    pub(crate) fn new(link: &Link) -> Self {
        let ns = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4);
        Self {
            latency_ns: ns(link.latency),
            jitter_ns: ns(link.jitter),
            loss: link.loss,
            rate: link.rate.filter(|&rate| rate > 0),
            queue: link.queue,
            busy_until_ns: 0,
        }
    }

    /// When a packet of `size` bytes that enters now comes out at the other end, or why it never does.
    ///
    /// A packet that meets an idle line is taken whatever the queue; one that has to wait is dropped if with it more
    /// than the queue's bytes were waiting, what is left of the packet on the line included. Loss strikes on the
    /// line: a lost packet has used its share of the rate.
    pub(crate) fn on_packet(&mut self, now_ns: u64, size: usize, rng: &mut Rng) -> Result<u64, Rule> {
        let mut leaves_ns = now_ns;
        if let Some(rate) = self.rate {
            let wait_ns = self.busy_until_ns.saturating_sub(now_ns);
            if wait_ns > 0 && bytes_in(wait_ns, rate).saturating_add(size) > self.queue {
                return Err(Rule::QueueFull(self.queue));
            }
            self.busy_until_ns = now_ns + wait_ns + time_on_line_ns(size, rate);
            leaves_ns = self.busy_until_ns;
        }
        if self.loss > 0.0 && seed::chance(rng, self.loss) {
            return Err(Rule::Loss(self.loss));
        }
        let mut latency_ns = self.latency_ns;
        if self.jitter_ns > 0 {
            let drawn = seed::below(rng, 2 * self.jitter_ns + 1);
            latency_ns = (latency_ns + drawn).saturating_sub(self.jitter_ns);
        }
        Ok((leaves_ns + latency_ns).max(now_ns + SHORTEST_DELAY_NS))
    }

    /// What waits for the rate, and how long until all of it is on the line; `None` where there is no rate.
    pub(crate) fn queued(&self, now_ns: u64) -> Option<(usize, u64)> {
        let wait_ns = self.busy_until_ns.saturating_sub(now_ns);
        self.rate.map(|rate| (bytes_in(wait_ns, rate), wait_ns))
    }
}

/// How long a packet occupies the line, rounded up.
fn time_on_line_ns(size: usize, rate: u64) -> u64 {
    let ns = (size as u128 * 8 * NS_PER_S).div_ceil(u128::from(rate));
    u64::try_from(ns).unwrap_or(u64::MAX / 4)
}

/// How many bytes go over the line in this time, rounded up.
fn bytes_in(ns: u64, rate: u64) -> usize {
    let bytes = (u128::from(ns) * u128::from(rate)).div_ceil(8 * NS_PER_S);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: u64 = 1_000_000;

    fn link() -> Link {
        Link { latency: Duration::from_millis(20), ..Link::default() }
    }

    fn rng() -> Rng {
        seed::stream(7, &["link"])
    }

    #[test]
    fn latency_is_exact_and_never_zero() {
        let mut plain = LinkState::new(&link());
        assert_eq!(plain.on_packet(123_456_789, 1500, &mut rng()), Ok(123_456_789 + 20 * MS));
        let mut none = LinkState::new(&Link { latency: Duration::ZERO, ..link() });
        assert_eq!(none.on_packet(5, 1500, &mut rng()), Ok(1_005));
    }

    #[test]
    fn packets_queue_behind_each_other_at_the_rate() {
        // 1,250 bytes at 10 Mbit/s take exactly 1 ms.
        let mut line = LinkState::new(&Link { rate: Some(10_000_000), ..link() });
        for nth in 1..=10 {
            assert_eq!(line.on_packet(0, 1_250, &mut rng()), Ok((20 + nth) * MS));
        }
        assert_eq!(line.on_packet(100 * MS, 125, &mut rng()), Ok(120 * MS + MS / 10), "an idle line starts afresh");
    }

    #[test]
    fn a_full_queue_drops_from_the_tail() {
        let mut line = LinkState::new(&Link { rate: Some(10_000_000), queue: 2_500, ..link() });
        assert_eq!(line.on_packet(0, 1_250, &mut rng()), Ok(21 * MS));
        assert_eq!(line.on_packet(0, 1_250, &mut rng()), Ok(22 * MS));
        assert_eq!(line.on_packet(0, 1, &mut rng()), Err(Rule::QueueFull(2_500)));
        assert_eq!(line.on_packet(MS - 1, 1_250, &mut rng()), Err(Rule::QueueFull(2_500)), "a byte too early");
        assert_eq!(line.on_packet(MS, 1_250, &mut rng()), Ok(23 * MS), "room for it");
        let mut none = LinkState::new(&Link { rate: Some(10_000_000), queue: 0, ..link() });
        assert_eq!(none.on_packet(0, 1_250, &mut rng()), Ok(21 * MS), "nothing waits");
        assert_eq!(none.on_packet(0, 1, &mut rng()), Err(Rule::QueueFull(0)));
    }

    #[test]
    fn loss_and_jitter_are_as_asked() {
        let jitter = Duration::from_millis(5);
        let mut line = LinkState::new(&Link { jitter, loss: 0.1, ..link() });
        let mut rng = rng();
        let fates: Vec<_> = (0..10_000).map(|_| line.on_packet(0, 100, &mut rng)).collect();
        let lost = fates.iter().filter(|fate| **fate == Err(Rule::Loss(0.1))).count();
        assert!((900..1_100).contains(&lost), "{lost} of 10,000 lost");
        let times: Vec<u64> = fates.into_iter().flatten().collect();
        assert!(times.iter().all(|at| (15 * MS..=25 * MS).contains(at)));
        assert!(*times.iter().min().unwrap() < 15 * MS + MS / 10 && *times.iter().max().unwrap() > 25 * MS - MS / 10);
        let mean = times.iter().sum::<u64>() / times.len() as u64;
        assert!((19_900_000..20_100_000).contains(&mean), "mean {mean}");
    }
}
