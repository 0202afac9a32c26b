//! When to punch where: no I/O.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::net::Rng;

/// When punches are repeated, after the first one.
const REPEATS_MS: [u64; 8] = [0, 50, 100, 200, 400, 800, 1200, 1600];

/// The ports that NATs give out.
const PORTS: std::ops::RangeInclusive<u16> = 1024..=65_535;

/// How often random ports are tried; as many of them as were due meanwhile.
const TICK: Duration = Duration::from_millis(5);

/// A bounded plan of punches.
#[derive(Debug)]
pub(super) enum Shots {
    /// At a few addresses, a few times.
    Repeat { targets: Vec<SocketAddr>, began: Instant, nth: usize },
    /// At random ports of an address, each once.
    Ports { address: IpAddr, ports: Vec<u16>, fired: usize, began: Instant, interval: Duration },
}

impl Shots {
    pub(super) fn repeat(now: Instant, targets: Vec<SocketAddr>) -> Self {
        Self::Repeat { targets, began: now, nth: 0 }
    }

    /// `count` different ports, one each `interval`.
    pub(super) fn ports(now: Instant, address: IpAddr, count: usize, interval: Duration, rng: &mut Rng) -> Self {
        let mut ports: Vec<u16> = PORTS.collect();
        let count = count.min(ports.len());
        for chosen in 0..count {
            let other = rng.random_range(chosen..ports.len());
            ports.swap(chosen, other);
        }
        ports.truncate(count);
        Self::Ports { address, ports, fired: 0, began: now, interval }
    }

    /// When the next are due; `None` once all are fired.
    pub(super) fn next_at(&self) -> Option<Instant> {
        match self {
            Self::Repeat { began, nth, .. } => REPEATS_MS.get(*nth).map(|ms| *began + Duration::from_millis(*ms)),
            Self::Ports { ports, fired, began, interval, .. } => {
                let pace = (*interval).saturating_mul(u32::try_from(*fired).unwrap_or(u32::MAX));
                (*fired < ports.len()).then(|| *began + pace + if *fired == 0 { Duration::ZERO } else { TICK })
            }
        }
    }

    /// Those that are due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<SocketAddr> {
        if self.next_at().is_none_or(|at| now < at) {
            return Vec::new();
        }
        match self {
            Self::Repeat { targets, nth, .. } => {
                *nth += 1;
                targets.clone()
            }
            Self::Ports { address, ports, fired, began, interval } => {
                let elapsed = now.saturating_duration_since(*began).as_nanos();
                let due = usize::try_from(elapsed / interval.as_nanos().max(1)).unwrap_or(usize::MAX).saturating_add(1);
                let from = *fired;
                *fired = due.clamp(from + 1, ports.len());
                ports[from..*fired].iter().map(|port| SocketAddr::new(*address, *port)).collect()
            }
        }
    }

    /// Fires no more at random ports: one was hit.
    pub(super) fn hit(&mut self) {
        if let Self::Ports { ports, fired, .. } = self {
            *fired = ports.len();
        }
    }

    /// Whether each shot is one of many: those are not events of their own.
    pub(super) fn is_probing(&self) -> bool {
        matches!(self, Self::Ports { .. })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;

    use super::*;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// All shots, with when each was fired.
    fn fire(mut shots: Shots) -> Vec<(Instant, SocketAddr)> {
        let mut fired = Vec::new();
        while let Some(at) = shots.next_at() {
            let due = shots.due(at);
            assert!(!due.is_empty() && shots.due(at).is_empty());
            fired.extend(due.into_iter().map(|target| (at, target)));
        }
        fired
    }

    #[test]
    fn punches_are_repeated_a_few_times() {
        let now = start();
        let target = "198.51.100.1:5".parse().unwrap();
        let fired = fire(Shots::repeat(now, vec![target]));
        assert_eq!(fired.len(), REPEATS_MS.len());
        assert_eq!((fired[0].0, fired[7].0), (now, now + Duration::from_millis(1600)));
    }

    #[test]
    fn random_ports_are_tried_once_each_at_a_steady_pace_up_to_the_bound() {
        let now = start();
        let address = "198.51.100.1".parse().unwrap();
        let shots = |count| Shots::ports(now, address, count, Duration::from_millis(1), &mut Rng::seed_from_u64(1));
        let fired = fire(shots(1000));
        let ports: BTreeSet<u16> = fired.iter().map(|(_, target)| target.port()).collect();
        assert_eq!((fired.len(), ports.len()), (1000, 1000));
        assert!(ports.first().is_some_and(|port| *port >= 1024));
        let last = fired.last().unwrap().0 - now;
        assert!((Duration::from_millis(999)..=Duration::from_millis(1010)).contains(&last), "{last:?}");
        let early = fired.iter().filter(|(at, _)| *at <= now + Duration::from_millis(100)).count();
        assert!((90..=110).contains(&early), "{early}");
        assert_eq!(fire(shots(usize::MAX)).len(), 64_512, "there are no more");
    }

    #[test]
    fn a_hit_ends_the_probing() {
        let address = "198.51.100.1".parse().unwrap();
        let mut shots = Shots::ports(start(), address, 9, Duration::from_millis(1), &mut Rng::seed_from_u64(1));
        shots.hit();
        assert_eq!(shots.next_at(), None);
    }
}
