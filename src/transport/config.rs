//! Settings of an endpoint.

use std::time::Duration;

use crate::utp::Config;

/// Settings of an [`Endpoint`](super::Endpoint).
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    pub(super) utp: Config,
    pub(super) max_connections: usize,
    pub(super) max_half_open: usize,
    pub(super) accept_backlog: usize,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self { utp: Config::default(), max_connections: 16_384, max_half_open: 1024, accept_backlog: 1024 }
    }
}

impl EndpointConfig {
    /// How long a connection attempt may take (default 10 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.utp = self.utp.connect_timeout(timeout);
        self
    }

    /// The settings of every connection (default [`Config::default`]). Replaces an earlier
    /// [`connect_timeout`](Self::connect_timeout).
    pub fn utp(mut self, config: Config) -> Self {
        self.utp = config;
        self
    }

    /// How many connections there may be at once, in both directions (default 16384). Beyond it, a peer's SYN goes
    /// unanswered and [`connect`](super::Endpoint::connect) fails.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.max_connections = count;
        self
    }

    /// How many of the peers' connections may wait for their handshake to complete (default 1024). Beyond it, a SYN
    /// goes unanswered: a flood of SYNs from false addresses costs no more than this.
    pub fn max_half_open(mut self, count: usize) -> Self {
        self.max_half_open = count;
        self
    }

    /// How many complete connections may wait for [`accept`](super::Endpoint::accept) (default 1024). Beyond it, a SYN
    /// goes unanswered.
    pub fn accept_backlog(mut self, count: usize) -> Self {
        self.accept_backlog = count;
        self
    }
}
