//! Where services are: peers by name, ageing in generations.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;

use super::krpc::Key;
use crate::fair::FairMap;
use crate::net::Rng;
use crate::source::source;

/// How many peers one name may have; beyond it the one that was announced longest ago goes, of those at the same IP
/// address where that has half of them.
const MAX_PEERS: usize = 256;

/// Peers by name. A peer is dropped when its generation and the next are over: it lives for between one and two maximum
/// ages after its last announce.
#[derive(Debug)]
pub(super) struct PeerStore {
    max_age: Duration,
    born: Instant,
    generation: u64,
    /// A name's peers are in the order of their last announce.
    names: FairMap<Key, VecDeque<Peer>>,
    /// How many peers there are, of all names.
    count: usize,
    /// How many peers had to make room so far.
    evicted: u64,
}

#[derive(Debug)]
struct Peer {
    address: SocketAddrV4,
    generation: u64,
}

impl PeerStore {
    /// A store of up to `max_names` names; beyond it the one that was announced longest ago goes, of those that the same
    /// source announced where that has half of them.
    pub(super) fn new(now: Instant, max_age: Duration, max_names: NonZeroUsize) -> Self {
        let max_age = max_age.max(Duration::from_millis(1));
        Self { max_age, born: now, generation: 0, names: FairMap::new(max_names), count: 0, evicted: 0 }
    }

    /// Stores a peer, or makes it young again.
    pub(super) fn insert(&mut self, now: Instant, name: &Key, address: SocketAddrV4) {
        self.expire(now);
        let (peers, displaced) = self.names.entry(name, source(*address.ip()), VecDeque::new);
        if let Some(at) = peers.iter().position(|peer| peer.address == address) {
            peers.remove(at);
            self.count -= 1;
        } else if peers.len() >= MAX_PEERS {
            let same_host = |peer: &Peer| peer.address.ip() == address.ip();
            let crowded = peers.iter().filter(|peer| same_host(peer)).count() >= MAX_PEERS / 2;
            let oldest = if crowded { peers.iter().position(same_host).unwrap_or(0) } else { 0 };
            peers.remove(oldest);
            self.count -= 1;
            self.evicted += 1;
        }
        peers.push_back(Peer { address, generation: self.generation });
        self.count += 1;
        let displaced = displaced.map_or(0, |peers| peers.len());
        self.count -= displaced;
        self.evicted += displaced as u64;
    }

    /// Up to `most` peers of a name: all of them, the youngest first, or a random choice where there are more.
    pub(super) fn peers(&mut self, now: Instant, rng: &mut Rng, name: &Key, most: usize) -> Vec<SocketAddrV4> {
        self.expire(now);
        let Some(peers) = self.names.get(name) else { return Vec::new() };
        let mut addresses: Vec<_> = peers.iter().rev().map(|peer| peer.address).collect();
        if addresses.len() > most {
            let (chosen, _) = addresses.partial_shuffle(rng, most);
            return chosen.to_vec();
        }
        addresses
    }

    /// How many names have peers.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// How many peers there are, of all names.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many peers had to make room so far.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn expire(&mut self, now: Instant) {
        let generation = now.saturating_duration_since(self.born).as_nanos() / self.max_age.as_nanos();
        let generation = u64::try_from(generation).unwrap_or(u64::MAX);
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        let count = &mut self.count;
        self.names.retain(|_, peers| {
            while peers.front().is_some_and(|oldest| oldest.generation + 1 < generation) {
                peers.pop_front();
                *count -= 1;
            }
            !peers.is_empty()
        });
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use std::net::Ipv4Addr;

    use rand::SeedableRng;

    use super::*;

    const AGE: Duration = Duration::from_secs(120);

    fn store(names: usize) -> (Instant, Rng, PeerStore) {
        let now = Instant::now();
        (now, Rng::seed_from_u64(1), PeerStore::new(now, AGE, NonZeroUsize::new(names).unwrap()))
    }

    fn peer(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), port)
    }

    fn key(name: &str) -> Key {
        Key::new(name.as_bytes()).unwrap()
    }

    #[test]
    fn a_peer_lives_for_one_to_two_maximum_ages() {
        let (start, mut rng, mut store) = store(10);
        let name = key("rpc_test");
        store.insert(start, &name, peer(1));
        store.insert(start + AGE / 2, &name, peer(2));
        let mut ports = |at| store.peers(at, &mut rng, &name, 100).iter().map(SocketAddrV4::port).collect::<Vec<_>>();
        assert_eq!(ports(start + 2 * AGE - Duration::from_nanos(1)), [2, 1]);
        assert!(ports(start + 2 * AGE).is_empty());
        assert_eq!(store.len(), 0, "a name without peers is forgotten");
    }

    #[test]
    fn an_announce_makes_a_peer_young_again() {
        let (start, mut rng, mut store) = store(10);
        let name = key("rpc_test");
        store.insert(start, &name, peer(1));
        store.insert(start + AGE, &name, peer(1));
        assert_eq!(store.peers(start + 3 * AGE - Duration::from_nanos(1), &mut rng, &name, 100), [peer(1)]);
        assert!(store.peers(start + 3 * AGE, &mut rng, &name, 100).is_empty());
    }

    #[test]
    fn the_oldest_go_at_the_limits() {
        let (start, mut rng, mut store) = store(2);
        for name in ["a", "b", "a", "c"] {
            store.insert(start, &key(name), peer(1));
        }
        assert!(store.peers(start, &mut rng, &key("b"), 1).is_empty());
        assert_eq!((store.len(), store.peers(start, &mut rng, &key("a"), 1)), (2, vec![peer(1)]));

        for port in 1..=u16::try_from(MAX_PEERS).unwrap() + 1 {
            store.insert(start, &key("many"), peer(port));
        }
        let all = store.peers(start, &mut rng, &key("many"), usize::MAX);
        assert_eq!((all.len(), all.contains(&peer(1)), all.contains(&peer(2))), (MAX_PEERS, false, true));
        assert_eq!((store.count(), store.evicted()), (MAX_PEERS + 1, 3));
        let mut some = store.peers(start, &mut rng, &key("many"), 100);
        some.sort_unstable();
        some.dedup();
        assert_eq!(some.len(), 100);
    }

    #[test]
    fn one_host_can_have_half_of_a_names_peers_where_others_are_there() {
        let (start, mut rng, mut store) = store(2);
        let (name, other) = (key("rpc_test"), |port| SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), port));
        for port in 1..=200 {
            store.insert(start, &name, other(port));
        }
        for port in 1..=1000 {
            store.insert(start, &name, peer(port));
        }
        let all = store.peers(start, &mut rng, &name, usize::MAX);
        let others = all.iter().filter(|address| address.ip() == other(1).ip()).count();
        assert_eq!((all.len(), others), (MAX_PEERS, MAX_PEERS / 2));
        assert!(all.contains(&peer(1000)) && all.contains(&other(200)), "the youngest of both are there");
    }
}
