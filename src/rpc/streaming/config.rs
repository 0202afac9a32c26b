//! Settings of streamed calls.

use std::time::Duration;

use crate::net::LONGEST_WAIT;

/// The default of the limits on a head's size, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// The default of the time for which nothing may move.
const IDLE: Duration = Duration::from_secs(60);

/// How a client makes one streamed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    pub(super) offer_timeout: Duration,
    pub(super) reply_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) max_head: usize,
    pub(super) retries: u32,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            offer_timeout: Duration::from_secs(5),
            reply_timeout: Duration::from_secs(60),
            idle_timeout: IDLE,
            max_head: MAX_HEAD,
            retries: 1,
        }
    }
}

impl StreamOptions {
    /// How long a connected peer has to say that it offers streams (default 5 s, at most a year). How long the
    /// connecting may take is the endpoint's:
    /// [`EndpointConfig::connect_timeout`](crate::transport::EndpointConfig::connect_timeout).
    pub fn offer_timeout(self, offer_timeout: Duration) -> Self {
        Self { offer_timeout: offer_timeout.min(LONGEST_WAIT), ..self }
    }

    /// How long the head of the reply may take, from the end of the request's body on (default 60 s, at most a year).
    pub fn reply_timeout(self, reply_timeout: Duration) -> Self {
        Self { reply_timeout: reply_timeout.min(LONGEST_WAIT), ..self }
    }

    /// How long neither body may move while the peer owes data, and how long the peer may need to take
    /// [`CHUNK`](super::CHUNK) bytes of what there is to send (default 60 s, at most a year). Then the call fails with
    /// [`StreamError::Idle`](super::StreamError::Idle).
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout: idle_timeout.min(LONGEST_WAIT), ..self }
    }

    /// The largest head of the request and of the reply, in bytes of JSON (default 64 KiB). A larger request fails
    /// unsent, a larger reply ends its call.
    pub fn max_head(self, max_head: usize) -> Self {
        Self { max_head, ..self }
    }

    /// At how many further addresses of a key the call is tried where a peer cannot be reached, offers no streams or
    /// has too many (default 1). Each time nothing of the call was sent yet.
    pub fn retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }
}

/// How a server takes streamed calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamConfig {
    pub(super) max_streams: usize,
    pub(super) max_streams_per_source: usize,
    pub(super) least_progress: u64,
    pub(super) max_head: usize,
    pub(super) head_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            max_streams: 128,
            max_streams_per_source: 16,
            least_progress: 64 << 10,
            max_head: MAX_HEAD,
            head_timeout: Duration::from_secs(10),
            idle_timeout: IDLE,
        }
    }
}

impl StreamConfig {
    /// How many streamed calls there may be at once (default 128, at least 1). Further clients are told
    /// [`StreamError::Busy`](super::StreamError::Busy), unless one is slow ([`least_progress`](Self::least_progress)).
    /// Each may hold as much memory as µTP's two windows.
    pub fn max_streams(self, max_streams: usize) -> Self {
        Self { max_streams: max_streams.max(1), ..self }
    }

    /// How many of them may come from one source ([`limits`](crate::limits), default 16, at least 1). Beyond it the same is told.
    pub fn max_streams_per_source(self, max_streams_per_source: usize) -> Self {
        Self { max_streams_per_source: max_streams_per_source.max(1), ..self }
    }

    /// How many bytes of both bodies together a call has to move in [`PROGRESS_TIME`](super::PROGRESS_TIME), a minute,
    /// to be sure of its place (default 64 KiB; with 0 every call is).
    ///
    /// While there is room a call may be as slow as the idle timeout allows. Where all places are taken, or all of one
    /// source, and a new call asks for one, the slowest call that has moved less gives up its place, of that source in
    /// the second case: its bodies fail with [`StreamError::Displaced`](super::StreamError::Displaced), and its client
    /// is told so. Without one that is so slow the new call is refused.
    pub fn least_progress(self, bytes: u64) -> Self {
        Self { least_progress: bytes, ..self }
    }

    /// The largest head of a request, in bytes of JSON (default 64 KiB). A larger one ends its call.
    pub fn max_head(self, max_head: usize) -> Self {
        Self { max_head, ..self }
    }

    /// How long the head of a request may take once streams were offered (default 10 s, at most a year).
    pub fn head_timeout(self, head_timeout: Duration) -> Self {
        Self { head_timeout: head_timeout.min(LONGEST_WAIT), ..self }
    }

    /// How long neither body may move while the peer owes data, and how long the peer may need to take
    /// [`CHUNK`](super::CHUNK) bytes of what there is to send (default 60 s, at most a year). Then the call fails with
    /// [`StreamError::Idle`](super::StreamError::Idle). There is no limit on how long a reply's head may take.
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout: idle_timeout.min(LONGEST_WAIT), ..self }
    }
}
