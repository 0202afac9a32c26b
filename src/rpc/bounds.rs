//! What bounds a server beyond one connection's messages: the unfinished requests of all, replies that are not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};

/// How long a text may take from its first byte to its last, beside the time that [`TEXT_RATE`] gives it. Counted from
/// when the reader is ready for it: a server that reads nothing for the moment holds its own slowness against nobody.
pub const TEXT_TIME: Duration = Duration::from_secs(30);

/// For how many bytes a text is given a second more, so that a large one may come over a slow path.
pub const TEXT_RATE: usize = 8 << 10;

/// What each connection may hold of an unfinished text without it counting towards all.
const FREE: usize = 16 << 10;

/// When a text must have arrived of which `held` bytes are there, after its beginning.
pub(super) fn text_time(held: usize) -> Duration {
    TEXT_TIME + size_time(held)
}

/// The time that so many bytes are given on the slowest path.
pub(super) fn size_time(bytes: usize) -> Duration {
    Duration::from_secs(1).mul_f64(bytes as f64 / TEXT_RATE as f64)
}

/// How many bytes the unfinished texts of all connections may have together.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }
}

/// One connection's share of a [`Budget`].
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    used: usize,
}

impl Share {
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: budget.clone(), used: 0 }
    }

    /// Takes what an unfinished text of `held` bytes needs, or gives back what it no longer does. `false` where that is
    /// more than is left.
    pub(super) fn set(&mut self, held: usize) -> bool {
        let needed = held.saturating_sub(FREE);
        if needed <= self.used {
            self.budget.used.fetch_sub(self.used - needed, Ordering::Relaxed);
            self.used = needed;
            return true;
        }
        let more = needed - self.used;
        let before = self.budget.used.fetch_add(more, Ordering::Relaxed);
        self.used = needed;
        before + more <= self.budget.limit
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.used, Ordering::Relaxed);
    }
}

/// The replies of a connection that it has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    bytes: AtomicUsize,
    less: Notify,
}

impl Unsent {
    pub(super) fn add(self: &Arc<Self>, bytes: usize) -> UnsentReply {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        UnsentReply { of: self.clone(), bytes }
    }

    pub(super) fn is_below(&self, limit: usize) -> bool {
        self.bytes.load(Ordering::Relaxed) < limit
    }

    /// Waits until there are fewer bytes than that. For one task.
    pub(super) async fn below(&self, limit: usize) {
        while !self.is_below(limit) {
            self.less.notified().await;
        }
    }
}

/// Counts for as long as it lives.
#[derive(Debug)]
pub(super) struct UnsentReply {
    of: Arc<Unsent>,
    bytes: usize,
}

impl Drop for UnsentReply {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.of.less.notify_one();
    }
}

/// A request's place among those in flight, on its connection and on all.
#[derive(Debug)]
pub(super) struct InFlight {
    #[expect(dead_code, reason = "they count while they live")]
    pub(super) places: [OwnedSemaphorePermit; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_given_back() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (Share::of(&budget), Share::of(&budget));
        assert!(one.set(FREE), "that much is free");
        assert!(one.set(FREE + 60) && two.set(FREE + 40));
        assert!(!two.set(FREE + 41), "a byte too many");
        drop(two);
        assert!(one.set(FREE + 100) && one.set(0));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_slow_path_is_given_the_time_that_a_large_text_takes_on_it() {
        assert_eq!(text_time(0), TEXT_TIME);
        assert_eq!(text_time(16 << 20), TEXT_TIME + Duration::from_secs(2048));
    }
}
