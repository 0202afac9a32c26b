//! How many callers an acceptor helps, how often, and what it keeps for them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::ladder::Opener;
use super::presence::Plan;
use crate::limits::SourceRates;
use crate::net::Task;
use crate::places::{self, Places};
use crate::source::{Source, source};

/// How many callers are helped at once; further ones are refused.
pub const MAX_ATTEMPTS: usize = 16;

/// How many of them from one source ([`limits`](crate::limits)).
pub const MAX_ATTEMPTS_PER_SOURCE: usize = 4;

/// How many refused callers are told so at once; others' time runs out.
pub const MAX_REFUSALS: usize = 16;

/// For how many callers many sockets are open at once, so that descriptors do not run out; further ones are refused.
pub const MAX_VOLLEYS: usize = 1;

/// How often one source may have many ports tried at once ...
pub const MANY_PORTS_BURST: u32 = 4;

/// ... and how soon once more from then on. Further calls are refused.
pub const MANY_PORTS_EVERY: Duration = Duration::from_secs(10);

/// How often all callers together may ...
pub const MANY_PORTS_TOTAL_BURST: u32 = 16;

/// ... and how soon once more from then on.
pub const MANY_PORTS_TOTAL_EVERY: Duration = Duration::from_secs(1);

/// How many fresh sockets and relays are kept for callers that were helped. At the limit one goes of the source
/// ([`limits`](crate::limits)) that has most: one without connections, or its oldest where all have some.
pub const MAX_KEPT: usize = 256;

/// What was done for callers and goes on by itself.
#[derive(Debug, Default)]
pub(super) struct Kept(VecDeque<Keep>);

#[derive(Debug)]
struct Keep {
    task: Task,
    /// The caller's.
    source: Source,
    in_use: watch::Receiver<bool>,
}

impl Kept {
    pub(super) fn push(&mut self, task: Task, address: IpAddr, in_use: watch::Receiver<bool>) {
        let source = source(address);
        self.0.retain(|kept| !kept.task.is_finished());
        if self.0.len() >= MAX_KEPT {
            let mut counts = BTreeMap::from([(source, 1)]);
            self.0.iter().for_each(|kept| *counts.entry(kept.source).or_insert(0) += 1);
            // By the count first: one source's sockets, in use or not, are not pushed out by another's.
            let worth = |kept: &Keep| (Reverse(counts[&kept.source]), *kept.in_use.borrow());
            let least = (0..self.0.len()).min_by_key(|nth| worth(&self.0[*nth]));
            least.and_then(|nth| self.0.remove(nth));
        }
        self.0.push_back(Keep { task, source, in_use });
    }
}

/// Whose calls are being answered.
#[derive(Debug)]
pub(super) struct Busy {
    callers: Arc<Places>,
    volleys: Arc<Semaphore>,
    /// How often many ports are tried: of one source, and of all.
    rates: Mutex<[SourceRates; 2]>,
}

impl Default for Busy {
    fn default() -> Self {
        let own = SourceRates::slow(MANY_PORTS_BURST, MANY_PORTS_EVERY);
        let total = SourceRates::slow(MANY_PORTS_TOTAL_BURST, MANY_PORTS_TOTAL_EVERY);
        Self {
            callers: Arc::default(),
            volleys: Arc::new(Semaphore::new(MAX_VOLLEYS)),
            rates: Mutex::new([own, total]),
        }
    }
}

/// A caller's place among them.
#[derive(Debug)]
pub(super) struct Place {
    _place: places::Place,
    /// For as long as many sockets are open.
    pub(super) volley: Option<OwnedSemaphorePermit>,
}

impl Busy {
    /// A place for a caller, or why there is none.
    pub(super) fn take(&self, source: IpAddr, plan: Plan, now: Instant) -> Result<Place, &'static str> {
        let place = self.callers.take(source, MAX_ATTEMPTS, MAX_ATTEMPTS_PER_SOURCE);
        let place = place.map_err(|_| "busy with other callers")?;
        let volley = match plan {
            Plan::ManyPorts(Opener::Peer) => {
                let volley = self.volleys.clone().try_acquire_owned();
                Some(volley.map_err(|_| "busy with another caller's many ports; try again in some seconds")?)
            }
            _ => None,
        };
        if let Plan::ManyPorts(_) = plan {
            let [of_source, total] = &mut *self.rates.lock().expect("no panic while locked");
            // All are one source to the second.
            let all = Ipv4Addr::UNSPECIFIED.into();
            if !of_source.allows(now, source) || !total.allows(now, all) {
                return Err("many ports were tried too often lately; try again in 10 s");
            }
        }
        Ok(Place { _place: place, volley })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn source(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn callers_are_limited_in_total_and_per_source() {
        let busy = Busy::default();
        let take = |n| busy.take(source(n), Plan::Punch, now());
        let mut places: Vec<Place> = (0..MAX_ATTEMPTS_PER_SOURCE).map(|_| take(1).unwrap()).collect();
        assert!(take(1).is_err());
        for n in 2.. {
            let Ok(place) = take(n) else { break };
            places.push(place);
        }
        assert_eq!(places.len(), MAX_ATTEMPTS);
        places.remove(0);
        assert!(take(99).is_ok());
        drop(places);
        assert!(busy.callers.is_empty());
    }

    #[test]
    fn many_sockets_are_open_for_one_caller_at_a_time() {
        let busy = Busy::default();
        let take = |n, opener| busy.take(source(n), Plan::ManyPorts(opener), now());
        let mut first = take(1, Opener::Peer).unwrap();
        assert!(take(1, Opener::Peer).unwrap_err().contains("another caller's many ports"));
        assert!(take(2, Opener::Peer).is_err());
        assert!(take(2, Opener::Caller).is_ok(), "for that one socket is enough");
        first.volley = None;
        assert!(take(2, Opener::Peer).is_ok());
    }

    #[test]
    fn many_ports_have_a_rate_for_each_source_and_one_for_all() {
        let (busy, now) = (Busy::default(), now());
        let many = Plan::ManyPorts(Opener::Caller);
        let allowed = |at, n| (0..50).filter(|_| busy.take(source(n), many, at).is_ok()).count();
        assert_eq!(allowed(now, 1), MANY_PORTS_BURST as usize);
        assert_eq!(
            (2..20).map(|n| allowed(now, n)).sum::<usize>(),
            (MANY_PORTS_TOTAL_BURST - MANY_PORTS_BURST) as usize
        );
        assert_eq!(allowed(now + MANY_PORTS_EVERY, 1), 1);
        assert!(busy.take(source(1), Plan::Punch, now).is_ok(), "a punch costs little");
    }

    #[tokio::test]
    async fn what_is_unused_makes_room_before_what_is_in_use() {
        let (net, mut kept) = (crate::net::HostNetwork::new(), Kept::default());
        let net: crate::net::Net = Arc::new(net);
        let mut push = |used| {
            let (keep, in_use) = watch::channel(used);
            kept.push(net.spawn(Box::pin(std::future::pending())), source(1), in_use);
            drop(keep);
            kept.0.iter().filter(|kept| *kept.in_use.borrow()).count()
        };
        for nth in 1..=MAX_KEPT - 1 {
            assert_eq!(push(true), nth);
        }
        assert_eq!(push(false), MAX_KEPT - 1);
        for _ in 0..10 {
            assert_eq!(push(false), MAX_KEPT - 1, "it takes an unused one's place");
        }
        assert_eq!(push(true), MAX_KEPT);
        assert_eq!(push(true), MAX_KEPT, "then the oldest goes");
    }

    #[tokio::test]
    async fn one_sources_sockets_do_not_push_out_anothers() {
        let (net, mut kept) = (crate::net::HostNetwork::new(), Kept::default());
        let net: crate::net::Net = Arc::new(net);
        let mut push = |n, used| {
            let (keep, in_use) = watch::channel(used);
            kept.push(net.spawn(Box::pin(std::future::pending())), source(n), in_use);
            drop(keep);
            let of = |n| kept.0.iter().filter(|kept| kept.source == crate::source::source(source(n))).count();
            (of(1), of(2))
        };
        push(2, true);
        // Its caller is about to connect, or has just done so.
        push(2, false);
        for _ in 0..2 * MAX_KEPT {
            push(1, true);
        }
        assert_eq!(push(1, true), (MAX_KEPT - 2, 2), "its own go, though all are in use");
        for _ in 0..MAX_KEPT {
            push(2, true);
        }
        assert_eq!(push(2, true), (MAX_KEPT / 2, MAX_KEPT / 2));
    }
}
