//! So many at once of all, and so many of one source.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// Who has how many places.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<BTreeMap<IpAddr, usize>>);

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
    source: IpAddr,
}

impl Places {
    /// A place for `source`, an IP address, of `most` and of `most_per_source` for each.
    pub(crate) fn take(self: &Arc<Self>, source: IpAddr, most: usize, most_per_source: usize) -> Result<Place, Full> {
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

    fn taken(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
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
