//! What both ends of a connection do: read texts, write messages.

use std::io;
use std::sync::Weak;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::client::CLOSE_TIMEOUT;
use super::framing::{FramingError, Splitter};

/// How many bytes are read at once.
const READ: usize = 16 << 10;

/// Up to how many bytes of waiting messages are put together into one write.
const WRITE: usize = 64 << 10;

/// A message on its way to the stream.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The text.
    pub(super) text: Bytes,
    /// Held until the text has been handed to the stream.
    #[expect(dead_code, reason = "it counts while it lives")]
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// Dead where the message need not be written any more.
    pub(super) wanted: Option<Weak<()>>,
}

impl Outgoing {
    /// Whether the message is still to be written.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.strong_count() > 0)
    }
}

/// Reads JSON texts from a stream.
#[derive(Debug)]
pub(super) struct TextReader<R> {
    reader: R,
    splitter: Splitter,
    /// Read into and copied from: a stream may clear all the room that it is given, however little it has to put
    /// there, so the splitter's own would cost time for its size at each read.
    received: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> TextReader<R> {
    pub(super) fn new(reader: R, max_message: usize) -> Self {
        Self { reader, splitter: Splitter::new(max_message), received: vec![0; READ].into() }
    }

    /// The next text, or what came instead; `None` at the end of the stream. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Result<Bytes, FramingError>>> {
        loop {
            if let Some(text) = self.splitter.next_text() {
                return Ok(Some(text));
            }
            let len = self.reader.read(&mut self.received).await?;
            if len == 0 {
                return Ok(self.splitter.finish());
            }
            self.splitter.push(&self.received[..len]);
        }
    }
}

/// Writes messages until nobody can send any more, and then ends the stream's sending side. Waits for [`CLOSE_TIMEOUT`]
/// at most until the peer has acknowledged that.
///
/// A message that finds the queue empty is one write, so that a small one is one packet, as peers of the original
/// need it; those that queue up meanwhile share the next write.
pub(super) async fn write_all<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut messages: mpsc::UnboundedReceiver<Outgoing>,
) -> io::Result<()> {
    let mut held = Vec::new();
    while let Some(first) = messages.recv().await {
        if !first.is_wanted() {
            continue;
        }
        let mut batch = BytesMut::new();
        let mut alone = Some(first);
        while batch.len() < WRITE {
            let Ok(next) = messages.try_recv() else { break };
            if !next.is_wanted() {
                continue;
            }
            if let Some(first) = alone.take() {
                batch.extend_from_slice(&first.text);
                held.push(first);
            }
            batch.extend_from_slice(&next.text);
            held.push(next);
        }
        match &alone {
            Some(first) => writer.write_all(&first.text).await?,
            None => writer.write_all(&batch).await?,
        }
        writer.flush().await?;
        held.clear();
    }
    // A peer that is gone never acknowledges the end: from then on the stream sees to it, without anybody who waits.
    timeout(CLOSE_TIMEOUT, writer.shutdown()).await.unwrap_or(Ok(()))
}
