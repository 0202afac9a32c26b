//! So many at once of all, and so many of one source.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::source::{Source, source};

/// Who has how many places.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<BTreeMap<Source, usize>>);

/// Why there is no further place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken.
    All,
    /// The source has as many as it may.
    Source,
}

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    source: Source,
}

impl Places {
    /// A place for who is at `address`, of `most` and of `most_per_source` for each source.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, most: usize, most_per_source: usize) -> Result<Place, Full> {
        let source = source(address);
        let mut taken = self.taken();
        if taken.values().sum::<usize>() >= most {
            return Err(Full::All);
        }
        let of_source = taken.get(&source).copied().unwrap_or(0);
        if of_source >= most_per_source {
            return Err(Full::Source);
        }
        taken.insert(source, of_source + 1);
        Ok(Place { places: self.clone(), source })
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.taken().is_empty()
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<Source, usize>> {
        self.0.lock().expect("no panic while locked")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_has_one_sources_places() {
        let places = Arc::<Places>::default();
        let take = |text: &str| places.take(text.parse().unwrap(), 5, 2);
        let mut held = ["2001:db8::1", "2001:db8::2"].map(|text| take(text).unwrap()).into_iter().collect::<Vec<_>>();
        assert_eq!(take("2001:db8::3").unwrap_err(), Full::Source);
        held.push(take("2001:db8:0:1::3").unwrap());
        held.extend(["192.0.2.1", "::ffff:192.0.2.1"].map(|text| take(text).unwrap()));
        assert_eq!(take("192.0.2.2").unwrap_err(), Full::All);
        drop(held);
        assert!(places.is_empty());
    }
}
