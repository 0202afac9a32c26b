//! A bounded map that no single source can have for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use crate::source::Source;

/// Entries by key; each belongs to the source that touched it last.
///
/// At the limit the entry that was touched longest ago goes, whoever's it is. Only a source that has half of the map or
/// more takes the room from itself: its own oldest entry goes. So whoever floods the map ends up flooding its own half.
#[derive(Debug)]
pub(crate) struct FairMap<K, V> {
    limit: usize,
    entries: BTreeMap<K, Entry<V>>,
    /// By touch, the oldest first.
    order: BTreeMap<u64, K>,
    /// Each source's touches.
    shares: BTreeMap<Source, BTreeSet<u64>>,
    last: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    touched: u64,
    source: Source,
}

impl<K: Ord + Clone, V> FairMap<K, V> {
    pub(crate) fn new(limit: NonZeroUsize) -> Self {
        Self {
            limit: limit.get(),
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            shares: BTreeMap::new(),
            last: 0,
            evicted: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many entries had to make room so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Every entry, in the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// Every value, in the order of the keys.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut().map(|entry| &mut entry.value)
    }

    /// As [`get`](Self::get), and makes the entry the youngest; it stays its source's.
    pub(crate) fn touch(&mut self, key: &K) -> Option<&V> {
        let source = self.entries.get(key)?.source;
        self.move_to(key, source);
        self.get(key)
    }

    /// The entry, or a new one, as the youngest and `source`'s; and what had to make room for it.
    pub(crate) fn entry(&mut self, key: &K, source: Source, new: impl FnOnce() -> V) -> (&mut V, Option<V>) {
        let mut displaced = None;
        if self.entries.contains_key(key) {
            self.move_to(key, source);
        } else {
            if self.entries.len() >= self.limit {
                displaced = self.make_room(source);
            }
            let touched = self.next_touch(key, source);
            self.entries.insert(key.clone(), Entry { value: new(), touched, source });
        }
        let entry = self.entries.get_mut(key).expect("it was there, or has just been put there");
        (&mut entry.value, displaced)
    }

    /// Keeps the entries that `keep` says yes to.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let (order, shares) = (&mut self.order, &mut self.shares);
        self.entries.retain(|key, entry| {
            let kept = keep(key, &mut entry.value);
            if !kept {
                order.remove(&entry.touched);
                leave(shares, entry.source, entry.touched);
            }
            kept
        });
    }

    fn make_room(&mut self, source: Source) -> Option<V> {
        let own = self.shares.get(&source).filter(|share| share.len() >= self.limit.div_ceil(2));
        let oldest = match own {
            Some(share) => *share.first()?,
            None => *self.order.first_key_value()?.0,
        };
        let key = self.order.remove(&oldest)?;
        let entry = self.entries.remove(&key)?;
        leave(&mut self.shares, entry.source, oldest);
        self.evicted += 1;
        Some(entry.value)
    }

    fn move_to(&mut self, key: &K, source: Source) {
        let touched = self.next_touch(key, source);
        let Some(entry) = self.entries.get_mut(key) else { return };
        let before = std::mem::replace(&mut entry.touched, touched);
        let owner = std::mem::replace(&mut entry.source, source);
        self.order.remove(&before);
        leave(&mut self.shares, owner, before);
    }

    fn next_touch(&mut self, key: &K, source: Source) -> u64 {
        self.last += 1;
        self.order.insert(self.last, key.clone());
        self.shares.entry(source).or_default().insert(self.last);
        self.last
    }
}

fn leave(shares: &mut BTreeMap<Source, BTreeSet<u64>>, source: Source, touched: u64) {
    if let Some(share) = shares.get_mut(&source) {
        share.remove(&touched);
        if share.is_empty() {
            shares.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn source(host: u8) -> Source {
        crate::source::source(Ipv4Addr::new(192, 0, 2, host))
    }

    fn map(limit: usize) -> FairMap<u32, u32> {
        FairMap::new(NonZeroUsize::new(limit).unwrap())
    }

    fn put(map: &mut FairMap<u32, u32>, host: u8, key: u32) -> Option<u32> {
        map.entry(&key, source(host), || key).1
    }

    fn keys(map: &FairMap<u32, u32>) -> Vec<u32> {
        map.entries.keys().copied().collect()
    }

    #[test]
    fn the_oldest_goes_at_the_limit_and_a_touch_makes_young() {
        let mut map = map(4);
        for (host, key) in [(1, 10), (2, 20), (3, 30), (4, 40)] {
            assert_eq!(put(&mut map, host, key), None);
        }
        assert_eq!(map.touch(&10), Some(&10));
        assert_eq!(put(&mut map, 5, 50), Some(20));
        assert_eq!((keys(&map), map.evicted()), (vec![10, 30, 40, 50], 1));
    }

    #[test]
    fn one_source_may_have_all_of_it_while_nobody_else_comes() {
        let mut map = map(100);
        for key in 0..150 {
            put(&mut map, 1, key);
        }
        assert_eq!(keys(&map), (50..150).collect::<Vec<_>>());
    }

    #[test]
    fn a_flood_displaces_the_flooders_own_entries_once_it_has_half() {
        let mut map = map(100);
        for key in 0..60 {
            put(&mut map, 2, key);
        }
        for key in 1000..2000 {
            put(&mut map, 1, key);
        }
        let others = keys(&map).into_iter().filter(|key| *key < 1000).count();
        assert_eq!((map.len(), others), (100, 50));
        // The others get their room back from the flooder where theirs is not the oldest.
        for key in 0..10 {
            put(&mut map, 2, key);
        }
        assert_eq!(map.len(), 100);
        assert!((0..10).all(|key| map.get(&key).is_some()));
    }

    #[test]
    fn an_entry_is_its_last_announcers_and_what_is_removed_leaves_nothing_behind() {
        let mut map = map(10);
        put(&mut map, 1, 1);
        put(&mut map, 2, 1);
        assert_eq!(map.shares.keys().collect::<Vec<_>>(), [&source(2)]);
        map.retain(|_, _| false);
        assert_eq!((map.len(), map.order.len(), map.shares.len(), map.evicted()), (0, 0, 0, 0));
    }
}
