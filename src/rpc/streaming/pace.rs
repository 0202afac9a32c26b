//! How much a call's peer moves in the time that it is waited for.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Over which time a call's progress is looked at where another call needs its place. Only the time counts in which the
/// peer was waited for: to send what it owes, or to take what there is for it. So a call is never slow before it has
/// gone on for so long, and the server's own slowness is held against nobody.
pub const PROGRESS_TIME: Duration = Duration::from_secs(60);

/// What a peer is waited for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The next bytes that it owes.
    Send = 0,
    /// That it takes what there is.
    Take = 1,
}

/// The bytes that have moved lately, each way.
#[derive(Debug)]
pub(super) struct Pace {
    waits: [bool; 2],
    /// For how long the peer had been waited for at `changed`.
    waited: Duration,
    changed: Instant,
    /// Bytes by the second of waiting that they moved in; no more of them than [`PROGRESS_TIME`] has, and one.
    moved: VecDeque<(u64, u64)>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { waits: [false; 2], waited: Duration::ZERO, changed: now, moved: VecDeque::new() }
    }

    /// The peer is waited for from now on, or no longer.
    pub(super) fn wait(&mut self, now: Instant, wait: Wait, waiting: bool) {
        (self.waited, self.changed) = (self.waited(now), now);
        self.waits[wait as usize] = waiting;
    }

    /// Notes bytes of a body.
    pub(super) fn count(&mut self, now: Instant, bytes: u64) {
        let second = self.waited(now).as_secs();
        match self.moved.back_mut() {
            Some((last, moved)) if *last == second => *moved += bytes,
            _ => self.moved.push_back((second, bytes)),
        }
        while self.moved.front().is_some_and(|(first, _)| first + PROGRESS_TIME.as_secs() < second) {
            self.moved.pop_front();
        }
    }

    /// How many bytes moved in the last [`PROGRESS_TIME`]; `None` where the peer was not waited for as long yet.
    pub(super) fn lately(&self, now: Instant) -> Option<u64> {
        let from = self.waited(now).checked_sub(PROGRESS_TIME)?.as_secs();
        Some(self.moved.iter().filter(|(second, _)| *second >= from).map(|(_, bytes)| bytes).sum())
    }

    fn waited(&self, now: Instant) -> Duration {
        match self.waits.contains(&true) {
            true => self.waited + now.saturating_duration_since(self.changed),
            false => self.waited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_lately_is_known_once_the_peer_has_been_waited_for_long_enough() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut pace = Pace::new(begun);
        pace.wait(begun, Wait::Send, true);
        for second in 0..60 {
            assert_eq!(pace.lately(at(second)), None);
            pace.count(at(second), 10);
        }
        assert_eq!(pace.lately(at(60)), Some(600));
        assert_eq!(pace.lately(at(90)), Some(300));
        assert_eq!(pace.lately(at(200)), Some(0));
    }

    #[test]
    fn only_the_peers_time_counts_and_once_where_it_is_waited_for_both_ways() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut pace = Pace::new(begun);
        assert_eq!(pace.lately(at(1000)), None, "the application took its time");
        pace.wait(at(1000), Wait::Send, true);
        pace.wait(at(1010), Wait::Take, true);
        pace.wait(at(1040), Wait::Send, false);
        pace.count(at(1045), 7);
        assert_eq!(pace.lately(at(1059)), None);
        assert_eq!(pace.lately(at(1060)), Some(7));
        pace.wait(at(1060), Wait::Take, false);
        assert_eq!(pace.lately(at(5000)), Some(7), "and it is not the peer's turn since");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        pace.wait(begun, Wait::Send, true);
        for tenth in 0..10_000 {
            pace.count(begun + Duration::from_millis(100 * tenth), 1);
        }
        assert_eq!(pace.moved.len() as u64, PROGRESS_TIME.as_secs() + 1);
    }
}
