//! Settings of a connection.

use std::fmt;
use std::time::Duration;

use super::congestion::{self, Factory};
use super::wire::HEADER_LEN;
use crate::net::LONGEST_WAIT;

/// The least that [`Config::max_datagram`] can be set to: what every path is taken to carry, as libutp does.
pub const MIN_DATAGRAM: usize = 576;

/// The default of [`Config::max_datagram`]: libutp's ceiling. With IPv4's and UDP's headers it fits an Ethernet frame
/// with 70 bytes to spare for tunnels.
pub const DEFAULT_DATAGRAM: usize = 1402;

/// The most that [`Config::max_datagram`] can be set to: UDP over IPv4 carries no more.
pub const MAX_DATAGRAM: usize = 65_507;

/// Settings of a connection. Each has a default that suits an unknown peer on the Internet.
#[derive(Clone)]
pub struct Config {
    pub(super) connect_timeout: Duration,
    pub(super) give_up_after: Duration,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) linger: Duration,
    pub(super) max_datagram: usize,
    pub(super) receive_window: usize,
    pub(super) send_buffer: usize,
    pub(super) congestion: Factory,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(30),
            idle_timeout: Some(Duration::from_secs(600)),
            keep_alive: Some(Duration::from_secs(29)),
            linger: Duration::from_secs(60),
            max_datagram: DEFAULT_DATAGRAM,
            receive_window: 1 << 20,
            send_buffer: 1 << 20,
            congestion: congestion::ledbat(),
        }
    }
}

impl Config {
    /// How long a connection attempt may take, and how long a half-open one from a peer is kept (default 10 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(LONGEST_WAIT);
        self
    }

    /// How long packets are retransmitted without any being acked until the peer counts as gone (default 30 s).
    pub fn give_up_after(mut self, timeout: Duration) -> Self {
        self.give_up_after = timeout.min(LONGEST_WAIT);
        self
    }

    /// How long nothing at all may arrive (default 10 min; `None`: for ever). Should be several times the peer's
    /// keep-alive, 29 s for libutp's and ours.
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout.map(|timeout| timeout.min(LONGEST_WAIT));
        self
    }

    /// After how long without sending a keep-alive is sent, which also keeps NAT bindings (default 29 s; `None`: never).
    pub fn keep_alive(mut self, interval: Option<Duration>) -> Self {
        self.keep_alive = interval.map(|interval| interval.min(LONGEST_WAIT));
        self
    }

    /// How long a connection that its user has dropped may go on delivering what was written, until it is ended with
    /// a RESET (default 60 s).
    pub fn linger(mut self, timeout: Duration) -> Self {
        self.linger = timeout.min(LONGEST_WAIT);
        self
    }

    /// The largest datagram that is sent, in bytes of UDP payload (default [`DEFAULT_DATAGRAM`]; held between
    /// [`MIN_DATAGRAM`] and [`MAX_DATAGRAM`]).
    ///
    /// It is not searched for by probes: µTP numbers packets, not bytes, so a probe that is lost can never be cut
    /// smaller. Where a path carries less, [`Connection::path_suspect`](super::Connection::path_suspect) tells so at
    /// the connection's end, and the next one can be given less.
    pub fn max_datagram(mut self, bytes: usize) -> Self {
        self.max_datagram = bytes.clamp(MIN_DATAGRAM, MAX_DATAGRAM);
        self
    }

    /// How many received bytes are kept for a slow reader, and so the window that peers are told (default 1 MiB).
    pub fn receive_window(mut self, bytes: usize) -> Self {
        self.receive_window = bytes.clamp(MIN_DATAGRAM, u32::MAX as usize / 2);
        self
    }

    /// How many written bytes are kept until they are acked (default 1 MiB).
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = bytes.max(1);
        self
    }

    /// The congestion control of new connections (default [`congestion::ledbat`]).
    pub fn congestion(mut self, factory: Factory) -> Self {
        self.congestion = factory;
        self
    }

    /// With a receive window of at most `bytes`.
    pub(crate) fn at_most(mut self, bytes: usize) -> Self {
        self.receive_window = self.receive_window.min(bytes.max(MIN_DATAGRAM));
        self
    }

    /// The receive window.
    pub(crate) fn window(&self) -> usize {
        self.receive_window
    }

    /// The connect timeout.
    pub(crate) fn connecting(&self) -> Duration {
        self.connect_timeout
    }

    pub(super) fn max_payload(&self) -> usize {
        self.max_datagram - HEADER_LEN
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("connect_timeout", &self.connect_timeout)
            .field("give_up_after", &self.give_up_after)
            .field("idle_timeout", &self.idle_timeout)
            .field("keep_alive", &self.keep_alive)
            .field("linger", &self.linger)
            .field("max_datagram", &self.max_datagram)
            .field("receive_window", &self.receive_window)
            .field("send_buffer", &self.send_buffer)
            .finish_non_exhaustive()
    }
}
