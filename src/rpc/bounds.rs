//! What bounds a server beyond one connection's messages: unfinished requests, requests in flight and replies that are
//! not read, of all connections and of those from one source.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::source::{Source, source};

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

/// One connection's share of its source's [`Budget`] and of everybody's.
#[derive(Debug)]
pub(super) struct Share {
    budgets: [Arc<Budget>; 2],
    used: usize,
}

impl Share {
    pub(super) fn of(source: &Arc<Budget>, all: &Arc<Budget>) -> Self {
        Self { budgets: [source.clone(), all.clone()], used: 0 }
    }

    /// Takes what an unfinished text of `held` bytes needs, or gives back what it no longer does. `false` where that is
    /// more than is left.
    pub(super) fn set(&mut self, held: usize) -> bool {
        let needed = held.saturating_sub(FREE);
        if needed <= self.used {
            self.give_back(self.used - needed);
            self.used = needed;
            return true;
        }
        let more = needed - self.used;
        self.used = needed;
        // Of both, whichever has no room.
        let take = |budget: &Arc<Budget>| budget.used.fetch_add(more, Ordering::Relaxed) + more <= budget.limit;
        let [source, all] = self.budgets.each_ref().map(take);
        source && all
    }

    fn give_back(&self, bytes: usize) {
        for budget in &self.budgets {
            budget.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.used);
    }
}

/// The replies that were not taken yet: of a connection, of a source's connections, or of all.
#[derive(Debug)]
pub(super) struct Unsent {
    bytes: AtomicUsize,
    limit: usize,
    below: Notify,
}

impl Unsent {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), limit, below: Notify::new() })
    }

    pub(super) fn is_below(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.limit
    }

    /// Waits until there are fewer bytes than the limit.
    pub(super) async fn below(&self) {
        loop {
            // Before the look, so that no change goes by in between.
            let below = self.below.notified();
            if self.is_below() {
                return;
            }
            below.await;
        }
    }

    fn less(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.limit && before - bytes < self.limit {
            self.below.notify_waiters();
        }
    }
}

/// A reply that counts for as long as it lives, in each of these.
#[derive(Debug)]
pub(super) struct UnsentReply {
    of: [Arc<Unsent>; 3],
    bytes: usize,
}

impl UnsentReply {
    pub(super) fn new(of: &[Arc<Unsent>; 3], bytes: usize) -> Self {
        for unsent in of {
            unsent.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Self { of: of.clone(), bytes }
    }
}

impl Drop for UnsentReply {
    fn drop(&mut self) {
        for unsent in &self.of {
            unsent.less(self.bytes);
        }
    }
}

/// What all connections of a server may hold together, or those from one source.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) unfinished: Arc<Budget>,
    pub(super) in_flight: Arc<Semaphore>,
    pub(super) unsent: Arc<Unsent>,
}

/// How much [`Held`] may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    pub(super) unfinished: usize,
    pub(super) in_flight: u32,
    pub(super) unsent: usize,
}

impl Most {
    /// What one source may have: half.
    pub(super) fn of_source(self) -> Self {
        Self { unfinished: self.unfinished / 2, in_flight: self.in_flight.div_ceil(2), unsent: self.unsent.div_ceil(2) }
    }
}

impl Held {
    pub(super) fn new(most: Most) -> Self {
        Self {
            unfinished: Budget::new(most.unfinished),
            in_flight: Arc::new(Semaphore::new(most.in_flight as usize)),
            unsent: Unsent::new(most.unsent),
        }
    }
}

/// What each source holds, for as long as it has a connection or a request in flight.
#[derive(Debug)]
pub(super) struct Sources {
    most: Most,
    held: Mutex<BTreeMap<Source, Weak<Held>>>,
}

impl Sources {
    pub(super) fn new(most: Most) -> Self {
        Self { most, held: Mutex::default() }
    }

    pub(super) fn of(&self, address: IpAddr) -> Arc<Held> {
        let source = source(address);
        let mut all = self.held.lock().expect("no panic while locked");
        if let Some(held) = all.get(&source).and_then(Weak::upgrade) {
            return held;
        }
        all.retain(|_, held| held.strong_count() > 0);
        let held = Arc::new(Held::new(self.most));
        all.insert(source, Arc::downgrade(&held));
        held
    }
}

/// A request's place among those in flight: on its connection, of its source, and of all.
#[derive(Debug)]
#[expect(dead_code, reason = "they count while they live")]
pub(super) struct InFlight {
    pub(super) places: [OwnedSemaphorePermit; 3],
    /// Knows the source for as long as it has requests in flight, even where its connection has gone.
    pub(super) source: Arc<Held>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_given_back() {
        let (budget, sources) = (Budget::new(100), [Budget::new(100), Budget::new(100)]);
        let [mut one, mut two] = sources.each_ref().map(|source| Share::of(source, &budget));
        assert!(one.set(FREE), "that much is free");
        assert!(one.set(FREE + 60) && two.set(FREE + 40));
        assert!(!two.set(FREE + 41), "a byte too many");
        drop(two);
        assert!(one.set(FREE + 100) && one.set(0));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        let small = Budget::new(50);
        assert!(!Share::of(&small, &budget).set(FREE + 51), "more than a source's");
        assert_eq!([&budget, &small].map(|budget| budget.used.load(Ordering::Relaxed)), [0, 0]);
    }

    #[test]
    fn a_source_is_known_while_it_holds_something() {
        let sources = Sources::new(Most { unfinished: 1, in_flight: 1, unsent: 1 });
        let [one, same, other] = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let held = sources.of(one);
        assert!(Arc::ptr_eq(&held, &sources.of(same)));
        drop(held);
        let _other = sources.of(other);
        assert_eq!(sources.held.lock().unwrap().len(), 1, "the first is forgotten");
    }

    #[test]
    fn a_source_is_one_whichever_address_of_its_network_it_takes() {
        let sources = Sources::new(Most { unfinished: 1, in_flight: 1, unsent: 1 });
        let of = |text: &str| sources.of(text.parse().unwrap());
        let held = ["2001:db8::1", "192.0.2.1"].map(of);
        assert!(Arc::ptr_eq(&held[0], &of("2001:db8::ffff:1")));
        assert!(Arc::ptr_eq(&held[1], &of("::ffff:192.0.2.1")));
        assert!(!Arc::ptr_eq(&held[0], &of("2001:db8:0:1::1")));
    }

    #[test]
    fn a_slow_path_is_given_the_time_that_a_large_text_takes_on_it() {
        assert_eq!(text_time(0), TEXT_TIME);
        assert_eq!(text_time(16 << 20), TEXT_TIME + Duration::from_secs(2048));
    }
}
