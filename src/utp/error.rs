//! How a connection fails.

use std::io;

/// Why a connection ended, or why a call on it is refused.
///
/// Each `Display` begins with the code that the Node.js peers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No answer within the connect, retransmission or idle timeout.
    #[error("UTP_ETIMEDOUT: the peer does not answer; check that it runs and can be reached, then connect again")]
    TimedOut,
    /// The peer sent a RESET, or started anew.
    #[error("UTP_ECONNRESET: the peer reset the connection; connect again")]
    Reset,
    /// This side ended the connection at once.
    #[error("UTP_ECONNABORTED: the connection was ended on this side; connect again")]
    Aborted,
    /// A write after this side's FIN.
    #[error("UTP_EPIPE: this side has finished sending; write before shutting down")]
    Finished,
}

impl Error {
    /// The code alone, as `UTP_ETIMEDOUT`.
    pub fn code(self) -> &'static str {
        match self {
            Error::TimedOut => "UTP_ETIMEDOUT",
            Error::Reset => "UTP_ECONNRESET",
            Error::Aborted => "UTP_ECONNABORTED",
            Error::Finished => "UTP_EPIPE",
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::TimedOut => io::ErrorKind::TimedOut,
            Error::Reset => io::ErrorKind::ConnectionReset,
            Error::Aborted => io::ErrorKind::ConnectionAborted,
            Error::Finished => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_begin_with_the_code() {
        for error in [Error::TimedOut, Error::Reset, Error::Aborted, Error::Finished] {
            assert!(io::Error::from(error).to_string().starts_with(error.code()));
        }
    }
}
