//! Which punches are answered: no I/O.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

/// How soon a second punch of the same address is answered. Each further answer takes twice as long, or two that answer each
/// other would go on for ever: one packet with a forged source address would be enough.
const FIRST_PAUSE: Duration = Duration::from_millis(40);

/// After how long without an answer an address begins anew: no round trip takes as long.
const ANEW: Duration = Duration::from_secs(5);

/// How many addresses' punches are remembered for that.
const MAX_ECHOED: NonZeroUsize = NonZeroUsize::new(500).expect("not zero");

/// Who was answered when.
#[derive(Debug)]
pub(super) struct Echo(LruCache<SocketAddr, Answered>);

#[derive(Debug)]
struct Answered {
    at: Instant,
    pause: Duration,
}

impl Echo {
    pub(super) fn new() -> Self {
        Self(LruCache::new(MAX_ECHOED))
    }

    /// Whether a punch is answered; if so, it counts.
    pub(super) fn answers(&mut self, now: Instant, from: SocketAddr) -> bool {
        let pause = match self.0.get(&from) {
            Some(last) if now >= last.at + ANEW => FIRST_PAUSE,
            Some(last) if now >= last.at + last.pause => last.pause * 2,
            Some(_) => return false,
            None => FIRST_PAUSE,
        };
        self.0.put(from, Answered { at: now, pause });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn two_that_answer_each_other_come_to_an_end() {
        let [a, b]: [SocketAddr; 2] = ["192.0.2.1:1", "192.0.2.2:2"].map(|at| at.parse().unwrap());
        for one_way_ms in [0, 1, 10, 20, 50, 100, 500, 2000] {
            let (mut echoes, mut now, mut answers) = ([Echo::new(), Echo::new()], start(), 0);
            // One punch that claims to be from `b` arrives at `a`.
            while echoes[answers % 2].answers(now, [b, a][answers % 2]) {
                now += Duration::from_millis(one_way_ms);
                answers += 1;
                assert!(answers < 20, "{one_way_ms} ms");
            }
        }
    }

    #[test]
    fn who_punches_a_few_times_and_again_later_is_answered() {
        let (mut echo, start, from) = (Echo::new(), start(), "192.0.2.1:1".parse().unwrap());
        let mut answered = |ms| echo.answers(start + Duration::from_millis(ms), from);
        let times = [0, 10, 50, 100, 200, 400, 800, 1200, 1600];
        assert_eq!(times.map(&mut answered), [true, false, true, false, true, true, true, false, true]);
        // A peer that punches every 2 s for as long as it likes.
        assert!((1..100).filter(|nth| answered(10_000 + 2000 * nth)).count() >= 30);
    }
}
