//! Settings of a link.

use std::net::SocketAddr;
use std::time::Duration;

use super::DAY;
use crate::net::LONGEST_WAIT;

/// Settings of a [`Link`](super::Link).
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// At least one.
    pub(super) grapes: Vec<SocketAddr>,
    pub(super) cache: Duration,
    pub(super) calls: CallOptions,
}

impl LinkConfig {
    /// The defaults, for the Grape whose HTTP API is at this address.
    pub fn new(grape: SocketAddr) -> Self {
        Self { grapes: vec![grape], cache: Duration::from_secs(10), calls: CallOptions::default() }
    }

    /// One more Grape, which is asked where those before it are not reached (default none). They are asked in their
    /// order, and one that was not reached after the others for [`GRAPE_REST`](super::GRAPE_REST).
    pub fn fallback(mut self, grape: SocketAddr) -> Self {
        self.grapes.push(grape);
        self
    }

    /// How long a lookup's addresses are used again (default 10 s, at most a day; zero turns the cache off).
    pub fn cache(self, cache: Duration) -> Self {
        Self { cache: cache.min(DAY), ..self }
    }

    /// How calls are made (default [`CallOptions::default`]); [`Link::with`](super::Link::with) gives a handle with others.
    /// Replaces an earlier [`timeout`](Self::timeout) and [`tries`](Self::tries).
    pub fn calls(self, calls: CallOptions) -> Self {
        Self { calls, ..self }
    }

    /// As [`CallOptions::timeout`].
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { calls: self.calls.timeout(timeout), ..self }
    }

    /// As [`CallOptions::tries`].
    pub fn tries(self, tries: u32) -> Self {
        Self { calls: self.calls.tries(tries), ..self }
    }
}

/// How calls to Grapes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOptions {
    pub(super) timeout: Duration,
    pub(super) tries: u32,
    pub(super) value_tries: u32,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_millis(2500), tries: 3, value_tries: 1 }
    }
}

impl CallOptions {
    /// How long one try at one Grape may take (default 2500 ms, at most a year). A call takes this at most, times its
    /// tries, times the Grapes, and 100 ms between two tries.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(LONGEST_WAIT), ..self }
    }

    /// How often an announce or a lookup is tried where no Grape is reached (default 3, at least 1). What a Grape
    /// refuses is not tried again.
    pub fn tries(self, tries: u32) -> Self {
        Self { tries: tries.max(1), ..self }
    }

    /// The same for puts and gets (default 1, at least 1). A put whose answer got lost may have been stored: where it is
    /// repeated with `cas`, it can fail with [`LinkError::CasMismatch`](super::LinkError::CasMismatch).
    pub fn value_tries(self, tries: u32) -> Self {
        Self { value_tries: tries.max(1), ..self }
    }
}
