//! Which Grape to ask first: bookkeeping without I/O.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// For how long a Grape that was not reached is asked after those that were.
pub const GRAPE_REST: Duration = Duration::from_secs(30);

/// Grapes in the order of preference, with until when each rests.
#[derive(Debug)]
pub(super) struct Grapes(Vec<(SocketAddr, Option<Instant>)>);

impl Grapes {
    pub(super) fn new(grapes: Vec<SocketAddr>) -> Self {
        Self(grapes.into_iter().map(|grape| (grape, None)).collect())
    }

    /// All of them, those that rest behind the others.
    pub(super) fn order(&self, now: Instant) -> Vec<SocketAddr> {
        let rests = |until: &Option<Instant>| until.is_some_and(|until| now < until);
        let (resting, ready): (Vec<_>, Vec<_>) = self.0.iter().partition(|(_, until)| rests(until));
        ready.into_iter().chain(resting).map(|(grape, _)| grape).collect()
    }

    /// Notes whether a Grape was reached.
    pub(super) fn note(&mut self, now: Instant, grape: SocketAddr, reached: bool) {
        for (_, until) in self.0.iter_mut().filter(|(address, _)| *address == grape) {
            *until = (!reached).then(|| now + GRAPE_REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_not_reached_comes_last_for_a_while() {
        let [a, b, c] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let now = tokio::time::Instant::now().into_std();
        let mut grapes = Grapes::new(vec![a, b, c]);
        assert_eq!(grapes.order(now), [a, b, c]);
        grapes.note(now, a, false);
        assert_eq!(grapes.order(now), [b, c, a]);
        grapes.note(now, b, false);
        assert_eq!(grapes.order(now + GRAPE_REST - Duration::from_nanos(1)), [c, a, b]);
        assert_eq!(grapes.order(now + GRAPE_REST), [a, b, c], "the rest is over");
        grapes.note(now, a, true);
        assert_eq!(grapes.order(now), [a, c, b], "reached again");
    }
}
