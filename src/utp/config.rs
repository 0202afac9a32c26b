//! Settings of connections.

use std::time::Duration;

/// Settings of µTP connections.
#[derive(Debug, Clone)]
pub struct Config {
    pub(super) connect_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) linger: Duration,
    pub(super) max_datagram: usize,
    pub(super) receive_window: usize,
    pub(super) send_buffer: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            idle_timeout: None,
            keep_alive: Some(Duration::from_secs(29)),
            linger: Duration::from_secs(10),
            max_datagram: Self::MAX_DATAGRAM,
            receive_window: 1 << 20,
            send_buffer: 1 << 20,
        }
    }
}

impl Config {
    /// The largest datagram's payload, in bytes: libutp's ceiling, which PPPoE and most tunnels carry.
    pub const MAX_DATAGRAM: usize = 1402;

    /// The smallest one that can be asked for: what every path carries (RFC 791's 576 less headers, as libutp has it).
    pub const MIN_DATAGRAM: usize = 548;

    /// How long a connection attempt may take (default 10 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long data may stay unacked before the connection ends with `UTP_ETIMEDOUT` (default 30 s).
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// How long nothing may arrive before the connection ends with `UTP_ETIMEDOUT`; `None` (default) is for ever.
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How often an idle connection says that it lives, which also keeps NAT mappings (default every 29 s, as libutp).
    pub fn keep_alive(mut self, every: Option<Duration>) -> Self {
        self.keep_alive = every;
        self
    }

    /// How long a closed connection waits for the peer's FIN (default 10 s).
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// The largest datagram's payload in bytes, header included (default and at most 1402, at least 548). Smaller is
    /// needed only on a path whose MTU is below 1430: a segment keeps its size when it is sent again.
    pub fn max_datagram(mut self, bytes: usize) -> Self {
        self.max_datagram = bytes.clamp(Self::MIN_DATAGRAM, Self::MAX_DATAGRAM);
        self
    }

    /// How many bytes are buffered for the reader (default 1 MiB, at least one segment); the peer is told, and stops.
    pub fn receive_window(mut self, bytes: usize) -> Self {
        self.receive_window = bytes.clamp(Self::MAX_DATAGRAM, u32::MAX as usize);
        self
    }

    /// How many written bytes are buffered until they are acked (default 1 MiB); then the writer waits.
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = bytes.max(Self::MAX_DATAGRAM);
        self
    }
}
