//! The events of a streamed call.

use std::net::SocketAddr;

use super::error::StreamError;
use crate::event::Event;
use crate::net::Net;
use crate::rpc::error::RpcError;

/// Tells the end of a streamed call, whatever way it ends.
#[derive(Debug)]
pub(super) struct Report {
    net: Net,
    rid: String,
    peer: SocketAddr,
    sent: u64,
    received: u64,
    error: Option<String>,
}

impl Report {
    /// Tells the start now, and the end when it is dropped.
    pub(super) fn start(net: &Net, rid: &str, key: &str, peer: SocketAddr, initiator: bool) -> Self {
        net.emit(Event::StreamStarted { rid: rid.to_owned(), key: key.to_owned(), peer, initiator });
        let error = Some(StreamError::gone().to_string());
        Self { net: net.clone(), rid: rid.to_owned(), peer, sent: 0, received: 0, error }
    }

    /// Ends a call that failed before it was carried.
    pub(super) fn failed(mut self, error: &RpcError) {
        self.error = Some(error.to_string());
    }

    /// Notes how many bytes of the bodies were sent and received.
    pub(super) fn counted(&mut self, sent: u64, received: u64) {
        (self.sent, self.received) = (sent, received);
    }

    /// Notes what went wrong, if anything did.
    pub(super) fn ended(&mut self, error: Option<&StreamError>) {
        self.error = error.map(ToString::to_string);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.net.emit(Event::StreamEnded {
            rid: std::mem::take(&mut self.rid),
            peer: self.peer,
            sent: self.sent,
            received: self.received,
            error: self.error.take(),
        });
    }
}
