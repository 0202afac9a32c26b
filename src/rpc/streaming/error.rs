//! How a streamed call can fail.

use std::io;
use std::time::Duration;

use super::super::error::RpcError;

/// What a client is told whose call had to give up its place.
pub(super) const DISPLACED: &str = "too slow, and another call needed its place; try again later";

/// Why a streamed call, or one of its bodies, came to no end of its own.
///
/// The bodies' [`io::Error`]s hold it: `error.get_ref()` and `downcast_ref::<StreamError>()` give it back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer did not answer the question for streams. Nothing but the question was sent to it.
    #[error("ERR_STREAM_UNSUPPORTED: the peer offers no streams; send a plain request, or ask another peer")]
    Unsupported,
    /// The peer has as many streams as it takes. Nothing but the question was sent to it.
    #[error("ERR_STREAM_BUSY: the peer has as many streams as it takes; try again later")]
    Busy,
    /// The peer gave the body up, and says why.
    #[error("ERR_STREAM_ABORTED: {0}")]
    Aborted(String),
    /// The peer reads no more of this body.
    #[error("ERR_STREAM_STOPPED: the peer reads no more of this body")]
    Stopped,
    /// The connection ended before the body did.
    #[error("ERR_STREAM_TRUNCATED: the connection ended before the body did")]
    Truncated,
    /// For this long nothing of the body owed came, or no [`CHUNK`](super::CHUNK) of the body sent was taken.
    #[error("ERR_STREAM_IDLE: nothing moved for {0:?}")]
    Idle(Duration),
    /// The call moved less than [`StreamConfig::least_progress`](super::StreamConfig::least_progress), and another one
    /// has got its place. Its client is told the same by [`Aborted`](Self::Aborted).
    #[error("ERR_STREAM_DISPLACED: {DISPLACED}")]
    Displaced,
    /// No head of the reply in time.
    #[error("ERR_TIMEOUT")]
    Timeout,
    /// The peer sent what is no frame, or not in its place.
    #[error("ERR_STREAM_PROTOCOL: {0}")]
    Protocol(String),
    /// The connection failed, or this side's end of the call is gone.
    #[error("{text}")]
    Connection {
        /// How it failed.
        kind: io::ErrorKind,
        /// What was said of it.
        text: String,
    },
}

impl StreamError {
    /// This side's end of the call is gone: its server or its host has ended.
    pub(super) fn gone() -> Self {
        Self::Connection { kind: io::ErrorKind::BrokenPipe, text: RpcError::TransportClose.to_string() }
    }
}

impl From<&io::Error> for StreamError {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            kind => Self::Connection { kind, text: RpcError::from(error).to_string() },
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Unsupported => io::ErrorKind::Unsupported,
            StreamError::Busy => io::ErrorKind::QuotaExceeded,
            StreamError::Aborted(_) | StreamError::Displaced => io::ErrorKind::ConnectionAborted,
            StreamError::Stopped => io::ErrorKind::BrokenPipe,
            StreamError::Truncated => io::ErrorKind::UnexpectedEof,
            StreamError::Idle(_) | StreamError::Timeout => io::ErrorKind::TimedOut,
            StreamError::Protocol(_) => io::ErrorKind::InvalidData,
            StreamError::Connection { kind, .. } => *kind,
        };
        io::Error::new(kind, error)
    }
}

impl From<StreamError> for RpcError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Timeout => Self::Timeout,
            StreamError::Connection { kind, text } => Self::from(&io::Error::new(kind, text)),
            error => Self::Stream(error),
        }
    }
}
