//! How a call to a Grape can fail.

use crate::grape::krpc::ValueError;

/// Why a call to a Grape failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nobody has announced the name.
    #[error("ERR_GRAPE_LOOKUP_EMPTY")]
    LookupEmpty,
    /// No answer within the timeout, in any try.
    #[error("ERR_TIMEOUT")]
    Timeout,
    /// No connection to the Grape, or a broken one, in the last try.
    #[error("ERR_GRAPE_UNREACHABLE: {0}")]
    Unreachable(String),
    /// The Grape's own message: `No nodes to query`, `ERR_GRAPE_SERVICE_PORT`, ….
    #[error("{0}")]
    Refused(String),
    /// A mutable put expected another sequence number than is stored (BEP 44): get the value, and decide again.
    #[error("301 CAS mismatch, re-read and try again")]
    CasMismatch,
    /// A mutable value is stored that is newer, or another one of the same sequence number (BEP 44): sign with a larger
    /// one than a get gives.
    #[error("302 sequence number less than current")]
    Stale,
    /// What was put is no value: nothing was sent.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A value does not fit the hash or the signature that it came with: it was changed on the way, or is no text.
    #[error("ERR_GRAPE_VALUE: the value does not fit its hash or its signature; ask another Grape")]
    Forged,
    /// An answer that is not what the call gives; is it a Grape?
    #[error("ERR_GRAPE_ANSWER: status {status}, {shown}")]
    Malformed {
        /// The HTTP status.
        status: u16,
        /// The answer's beginning.
        shown: String,
    },
}

impl LinkError {
    /// Whether the Grape was not reached, so that another try or another Grape may do better.
    pub fn is_unreached(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unreachable(_))
    }
}
