//! What both ends of a connection do: read texts, write messages.

use std::io;
use std::sync::Weak;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::bounds::{InFlight, Share, UnsentReply, size_time, text_time};
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
    pub(super) permit: Option<InFlight>,
    /// Counts it among what waits to be written.
    #[expect(dead_code, reason = "it counts while it lives")]
    pub(super) unsent: Option<UnsentReply>,
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
    /// Since when a text is unfinished.
    since: Option<Instant>,
    share: Option<Share>,
}

impl<R: AsyncRead + Unpin> TextReader<R> {
    pub(super) fn new(reader: R, max_message: usize) -> Self {
        Self { reader, splitter: Splitter::new(max_message), received: vec![0; READ].into(), since: None, share: None }
    }

    /// Whose unfinished texts count towards a budget.
    pub(super) fn within(self, share: Share) -> Self {
        Self { share: Some(share), ..self }
    }

    /// Whether a text has begun to arrive.
    pub(super) fn is_unfinished(&self) -> bool {
        self.splitter.held() > 0
    }

    /// The next text, or what came instead; `None` at the end of the stream. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Result<Bytes, FramingError>>> {
        loop {
            if let Some(text) = self.splitter.next_text() {
                self.since = None;
                return Ok(Some(text));
            }
            let held = self.splitter.held();
            if self.share.as_mut().is_some_and(|share| !share.set(held)) {
                let head = self.splitter.abandon();
                return Ok(Some(Err(FramingError::NoRoom { held, head })));
            }
            let reading = self.reader.read(&mut self.received);
            let len = if held == 0 {
                reading.await?
            } else {
                let time = text_time(held);
                let since = *self.since.get_or_insert_with(Instant::now);
                match timeout_at(since + time, reading).await {
                    Ok(read) => read?,
                    Err(_) => {
                        let head = self.splitter.abandon();
                        return Ok(Some(Err(FramingError::TooSlow { seconds: time.as_secs(), head })));
                    }
                }
            };
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
    writer: W,
    messages: mpsc::UnboundedReceiver<Outgoing>,
) -> io::Result<()> {
    write_within(writer, messages, None).await
}

/// As [`write_all`]; fails with `TimedOut` where what is written at once is not taken in this time and what its size
/// gives it. A peer that takes a few bytes now and then is no better than one that takes none.
pub(super) async fn write_within<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut messages: mpsc::UnboundedReceiver<Outgoing>,
    patience: Option<Duration>,
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
        let mut rest = alone.as_ref().map_or(&batch[..], |first| &first.text[..]);
        let deadline = patience.map(|patience| Instant::now() + patience + size_time(rest.len()));
        while !rest.is_empty() {
            match until(deadline, writer.write(rest)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => rest = &rest[written..],
            }
        }
        writer.flush().await?;
        held.clear();
    }
    // A peer that is gone never acknowledges the end: from then on the stream sees to it, without anybody who waits.
    timeout(CLOSE_TIMEOUT, writer.shutdown()).await.unwrap_or(Ok(()))
}

async fn until<T>(deadline: Option<Instant>, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await?,
        None => work.await,
    }
}
