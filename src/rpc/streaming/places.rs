//! The places for a server's streamed calls: who gets one, and who has to leave where all are taken.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::StreamConfig;
use super::pace::Pace;
use crate::source::{Source, source};

/// The streamed calls that there are.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    source: Source,
    pace: Arc<Mutex<Pace>>,
    displace: oneshot::Sender<Displaced>,
}

/// That a call has to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Displaced;

/// A call's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// How the call goes on.
    pub(super) pace: Arc<Mutex<Pace>>,
    /// Resolves to [`Displaced`] where another call has got the place.
    pub(super) displaced: Option<oneshot::Receiver<Displaced>>,
}

impl Places {
    /// A place for who is at `address`. Where all are taken, or all of its source, the call of those that has moved
    /// least lately has to leave for it, if that is less than it must.
    pub(super) fn take(self: &Arc<Self>, now: Instant, address: IpAddr, config: &StreamConfig) -> Option<Place> {
        let source = source(address);
        let mut table = self.table();
        let of_source = table.taken.values().filter(|taken| taken.source == source).count();
        if of_source >= config.max_streams_per_source {
            table.displace(now, Some(source), config.least_progress)?;
        } else if table.taken.len() >= config.max_streams {
            table.displace(now, None, config.least_progress)?;
        }
        let number = table.last + 1;
        table.last = number;
        let pace = Arc::new(Mutex::new(Pace::new(now)));
        let (displace, displaced) = oneshot::channel();
        table.taken.insert(number, Taken { source, pace: pace.clone(), displace });
        Some(Place { places: self.clone(), number, pace, displaced: Some(displaced) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("no panic while locked")
    }
}

impl Table {
    /// Has the slowest call leave, the oldest of those that are as slow; `None` where none is slow.
    fn displace(&mut self, now: Instant, of: Option<Source>, least: u64) -> Option<()> {
        let lately = |taken: &Taken| taken.pace.lock().expect("no panic while locked").lately(now);
        let candidates = self.taken.iter().filter(|(_, taken)| of.is_none_or(|source| taken.source == source));
        let slow = candidates.filter_map(|(number, taken)| {
            // A call that has ended keeps its place while its handler has more to do.
            let moved = lately(taken).filter(|moved| *moved < least && !taken.displace.is_closed())?;
            Some((moved, *number))
        });
        let (_, slowest) = slow.min()?;
        let taken = self.taken.remove(&slowest)?;
        // Whoever has stopped listening has ended meanwhile.
        let _ = taken.displace.send(Displaced);
        Some(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::pace::{PROGRESS_TIME, Wait};
    use super::*;

    const CONFIG: fn() -> StreamConfig =
        || StreamConfig::default().max_streams(3).max_streams_per_source(2).least_progress(100);

    fn take(places: &Arc<Places>, now: Instant, host: u8) -> Option<Place> {
        let place = places.take(now, IpAddr::from([192, 0, 2, host]), &CONFIG());
        if let Some(place) = &place {
            place.pace.lock().unwrap().wait(now, Wait::Send, true);
        }
        place
    }

    fn moves(place: &Place, now: Instant, bytes: u64) {
        place.pace.lock().unwrap().count(now, bytes);
    }

    fn is_displaced(place: &mut Place) -> bool {
        place.displaced.as_mut().unwrap().try_recv().is_ok()
    }

    #[test]
    fn the_slowest_leaves_and_nobody_who_moves_enough_or_is_fresh() {
        let (places, begun) = (Arc::<Places>::default(), Instant::now());
        let mut held: Vec<Place> = [1, 2, 3].map(|host| take(&places, begun, host).unwrap()).into();
        let later = begun + PROGRESS_TIME;
        for (place, bytes) in held.iter().zip([100, 99, 50]) {
            moves(place, later, bytes);
        }
        assert!(take(&places, later - Duration::from_millis(1), 4).is_none(), "all of them are fresh");
        held.push(take(&places, later, 4).unwrap());
        held.push(take(&places, later, 5).unwrap());
        assert!(take(&places, later, 6).is_none(), "one moves enough, and two are fresh");
        let displaced: Vec<bool> = held.iter_mut().map(is_displaced).collect();
        assert_eq!(displaced, [false, true, true, false, false]);
        // A displaced one's end frees nobody else's place.
        held.drain(1..3);
        assert!(take(&places, later, 6).is_none());
        held.clear();
        assert!(places.table().taken.is_empty());
    }

    #[test]
    fn a_source_with_all_of_its_places_displaces_its_own() {
        let (places, begun) = (Arc::<Places>::default(), Instant::now());
        let mut other = take(&places, begun, 2).unwrap();
        let mut own = [take(&places, begun, 1).unwrap(), take(&places, begun, 1).unwrap()];
        let later = begun + PROGRESS_TIME;
        moves(&own[0], later, 20);
        moves(&own[1], later, 10);
        let _new = take(&places, later, 1).unwrap();
        assert!(!is_displaced(&mut other), "though it has moved less");
        assert_eq!(own.each_mut().map(is_displaced), [false, true]);
    }

    #[test]
    fn with_nothing_to_be_moved_nobody_is_displaced() {
        let (places, begun) = (Arc::<Places>::default(), Instant::now());
        let config = StreamConfig::default().max_streams(1).least_progress(0);
        let address = IpAddr::from([192, 0, 2, 1]);
        let _place = places.take(begun, address, &config).unwrap();
        assert!(places.take(begun + 10 * PROGRESS_TIME, address, &config).is_none());
    }
}
