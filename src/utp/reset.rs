//! Which packets of unknown connections are answered with a RESET.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::seq::Seq;

/// For how long the same packet gets no second RESET.
const MEMORY: Duration = Duration::from_secs(10);

/// How many RESETs are sent in 10 s at most; what comes beyond goes unanswered.
pub const MAX_RESETS: usize = 1000;

type Key = (SocketAddr, u16, u16);

/// Remembers the RESETs of the last seconds: each only once, and not too many.
#[derive(Debug, Default)]
pub struct ResetLimiter {
    sent: VecDeque<(Instant, Key)>,
    known: BTreeSet<Key>,
}

impl ResetLimiter {
    /// Whether to answer a packet `seq` with connection id `id` from `peer`; if so, it is remembered.
    pub fn allows(&mut self, now: Instant, peer: SocketAddr, id: u16, seq: Seq) -> bool {
        while let Some((at, key)) = self.sent.front() {
            if now.saturating_duration_since(*at) < MEMORY {
                break;
            }
            self.known.remove(key);
            self.sent.pop_front();
        }
        let key = (peer, id, seq.0);
        if self.sent.len() >= MAX_RESETS || !self.known.insert(key) {
            return false;
        }
        self.sent.push_back((now, key));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reset_a_packet_and_not_too_many() {
        let now = tokio::time::Instant::now().into_std();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut limiter = ResetLimiter::default();
        assert!(limiter.allows(now, peer, 1, Seq(1)));
        assert!(!limiter.allows(now, peer, 1, Seq(1)));
        for seq in 2..=MAX_RESETS as u16 {
            assert!(limiter.allows(now, peer, 1, Seq(seq)));
        }
        assert!(!limiter.allows(now, peer, 2, Seq(0)), "the limit");
        assert!(limiter.allows(now + MEMORY, peer, 1, Seq(1)), "forgotten after a while");
    }
}
