//! How a request can fail.

use std::io;
use std::time::Duration;

use super::streaming::StreamError;
use crate::link::LinkError;

/// Why a request has no result.
///
/// A request that is not dropped ends exactly once: in its reply, in its handler's error ([`Remote`](Self::Remote)), in
/// [`Timeout`](Self::Timeout) at its deadline, or, before that and after all its retries, in a failure of the transport
/// or of the lookup. All are ends: after a failure nothing more comes of the request, but, unlike after a reply, nobody
/// knows whether the peer has handled it. `tests/nothing_lost` holds it to that over losses, crashes and rebindings.
///
/// The `Display` of the first variants is what peers of the original implementation show for the same failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// No reply within the request's timeout.
    #[error("ERR_TIMEOUT")]
    Timeout,
    /// The peer ended the connection before it replied.
    #[error("ERR_TRANSPORT_CLOSE")]
    TransportClose,
    /// No connection within the connect timeout, or the peer fell silent.
    #[error("UTP_ETIMEDOUT")]
    UtpTimedOut,
    /// The peer knows of no such connection, or refused it.
    #[error("UTP_ECONNRESET")]
    UtpReset,
    /// Another failure of the connection.
    #[error("ERR_TRANSPORT: {0}")]
    Transport(String),
    /// The lookup of the key failed; `ERR_GRAPE_LOOKUP_EMPTY` where nobody has announced it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The handler's error message.
    #[error("{0}")]
    Remote(String),
    /// The reply cannot be read but for its id.
    #[error("ERR_REPLY_PARSE: {0}")]
    MalformedReply(String),
    /// The request is over the client's size limit; nothing was sent.
    #[error("ERR_REQUEST_SIZE: the request has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Bytes of the request.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The payload cannot be written as JSON; nothing was sent.
    #[error("ERR_REQUEST_TYPE: {0}")]
    RequestType(String),
    /// The result does not fit the type that was asked for. The peer has handled the request.
    #[error("ERR_REPLY_TYPE: {0}")]
    ReplyType(String),
    /// The client was stopped; nothing was sent.
    #[error("ERR_STOPPED: the client was stopped; make a new one")]
    Stopped,
    /// Too many requests wait for a connection to this destination; nothing was sent.
    #[error("ERR_QUEUE_FULL: {0} requests wait for this destination already")]
    QueueFull(usize),
    /// A request by key from a client without a link; nothing was sent.
    #[error("ERR_NO_LINK: give the client a link, or request at an address")]
    NoLink,
    /// A streamed call failed in a way that plain requests cannot.
    #[error(transparent)]
    Stream(StreamError),
}

impl RpcError {
    /// Whether the connection failed, so that another try may go better. The peer may or may not have handled the
    /// request.
    pub fn is_transport(&self) -> bool {
        matches!(self, Self::TransportClose | Self::UtpTimedOut | Self::UtpReset | Self::Transport(_))
    }
}

impl From<&io::Error> for RpcError {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::UtpTimedOut,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused => Self::UtpReset,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => Self::TransportClose,
            _ => Self::Transport(error.to_string()),
        }
    }
}

impl From<io::Error> for RpcError {
    /// What failed a body keeps its reason.
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<StreamError>()) {
            Some(reason) => reason.clone().into(),
            None => Self::from(&error),
        }
    }
}

/// For how long a connection must have been silent before the end of an unanswered request takes it out of service.
pub(super) const SILENCE: Duration = Duration::from_secs(1);
