//! Settings of an endpoint.

use std::time::Duration;

use crate::utp::Config;

/// Settings of an [`Endpoint`](super::Endpoint).
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    pub(super) utp: Config,
    pub(super) max_connections: usize,
    pub(super) max_half_open: usize,
    pub(super) max_connections_per_source: usize,
    pub(super) accept_backlog: usize,
    pub(super) unaccepted_window: usize,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            utp: Config::default(),
            max_connections: 16_384,
            max_half_open: 1024,
            max_connections_per_source: 1024,
            accept_backlog: 1024,
            unaccepted_window: 16 << 10,
        }
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

    /// How many connections that peers have opened from one source ([`limits`](crate::limits)) there may be at once (default
    /// 1024, as many peers may share a NAT's address). Beyond it, the oldest half-open one of that source is forgotten, and where there is
    /// none a SYN goes unanswered.
    pub fn max_connections_per_source(mut self, count: usize) -> Self {
        self.max_connections_per_source = count.max(1);
        self
    }

    /// How many of the peers' connections may wait for their handshake to complete (default 1024, at least 1). Beyond
    /// it, the oldest is forgotten, without a word: a flood of SYNs from false addresses costs no more than this. An
    /// honest peer among them is not locked out, whatever the rate: the number in our SYN-ACK tells what is needed to
    /// make its connection again, when it goes on with it.
    pub fn max_half_open(mut self, count: usize) -> Self {
        self.max_half_open = count.max(1);
        self
    }

    /// How many complete connections may wait for [`accept`](super::Endpoint::accept) (default 1024). Beyond it,
    /// they are reset.
    pub fn accept_backlog(mut self, count: usize) -> Self {
        self.accept_backlog = count;
        self
    }

    /// How many received bytes are kept of a connection that waits for [`accept`](super::Endpoint::accept), and so the
    /// window that its peer is told until then (default 16 KiB; at most the receive window). Where nobody accepts, the
    /// backlog costs no more than its length times twice this.
    pub fn unaccepted_window(mut self, bytes: usize) -> Self {
        self.unaccepted_window = bytes;
        self
    }
}
