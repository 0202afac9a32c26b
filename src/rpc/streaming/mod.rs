//! Streamed calls: requests and replies larger than memory. An extension of the original's protocol that both sides
//! must offer.
//!
//! A streamed call has a µTP connection of its own. Its client begins with 22 bytes, `GRENACHE-STREAM/1 ASK\n`, and
//! sends nothing more until the server has answered with 22 bytes as well:
//!
//! | the answer | what it means |
//! |---|---|
//! | `GRENACHE-STREAM/1 YES\n` | go on |
//! | `GRENACHE-STREAM/1 BSY\n` | the server has as many streams as it takes; it closes the connection |
//! | no answer in time, the connection's end, anything else | no streams here: [`StreamError::Unsupported`] |
//!
//! The question is no JSON, so that a server without the extension drops it and never calls its handler. The answer
//! differs from the question, so that a peer that echoes is not taken for one that offers. A server of ours that does
//! not offer streams closes the connection at once, which spares the client its wait.
//!
//! Then each side sends frames: a byte that tells the kind, the payload's length as 4 bytes in network order, the
//! payload.
//!
//! | kind | payload | limit in bytes |
//! |---|---|---|
//! | `H` head | the client's, once and first: `[rid, key, payload]`; the server's: `[rid, error or null, result]` | [`StreamOptions::max_head`], [`StreamConfig::max_head`] |
//! | `D` data | the next bytes of the body, at least one | [`MAX_CHUNK`] |
//! | `E` end | none; the body is complete | 0 |
//! | `A` abort | UTF-8: why the body is not going to be complete | [`MAX_REASON`] |
//! | `S` stop | none; the sender reads no more of the other's body, which should be aborted; once | 0 |
//!
//! Each side sends one body, which ends in `E` or `A`; a connection that ends before has cut the body off. The heads
//! are frames too, so that their size is known before they are read. Both bodies flow at once: a server may answer
//! before the request's body has ended, or without reading it. A side that has sent the end of its body and received
//! the other's closes the connection.
//!
//! Nothing is buffered but [`BODY_BUFFER`] bytes a body and side, two chunks, and µTP's own windows; when they are
//! full, the writer waits. So a slow reader slows the writer down.
//!
//! Dropping a [`BodyWriter`] before its end aborts its body, dropping a [`BodyReader`] stops the other side's, and
//! dropping both cancels the call: the other side's ends fail at once, or, where the connection is blocked,
//! [`FAREWELL`] later with its reset.
//!
//! A call may be slow as long as there is room. Where another one needs its place, a call that is slower than
//! [`StreamConfig::least_progress`] is ended by its server in the same way: `S`, and `A` with the reason where its own
//! body has not ended, or else a reset [`FAREWELL`] later.

mod accept;
mod body;
mod carry;
mod client;
mod config;
mod error;
mod frame;
mod pace;
mod places;
mod report;
mod server;

pub use body::{BODY_BUFFER, BodyReader, BodyWriter};
pub use carry::{CHUNK, FAREWELL};
pub use client::{StreamCall, StreamReply};
pub use config::{StreamConfig, StreamOptions};
pub use error::StreamError;
pub use frame::{MAX_CHUNK, MAX_REASON};
pub use pace::PROGRESS_TIME;
pub use server::{StreamReplier, StreamRequest, StreamRequests};

pub(super) use accept::{Offers, route};

/// What a client asks with.
pub(super) const ASK: &[u8; 22] = b"GRENACHE-STREAM/1 ASK\n";

/// A server's offer.
const YES: &[u8; 22] = b"GRENACHE-STREAM/1 YES\n";

/// The answer of a server that offers streams, but no further one now.
const BUSY: &[u8; 22] = b"GRENACHE-STREAM/1 BSY\n";
