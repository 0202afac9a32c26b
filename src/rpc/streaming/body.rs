//! The application's ends of a body, and the call's ends of the same.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::oneshot;

use super::error::StreamError;

/// How many bytes of a body are kept between the application and the connection, each way on each side. µTP's windows
/// come on top.
pub const BODY_BUFFER: usize = 64 << 10;

/// What the peer is told of a body whose writer was dropped before its end.
pub(super) const DROPPED: &str = "the sender dropped the body before its end";

/// Why no more of a body comes.
type Outcome = Result<(), StreamError>;

/// How the application has ended its body.
#[derive(Debug)]
pub(super) enum Intent {
    /// It is complete.
    End,
    /// It is not going to be.
    Abort(String),
}

/// A body on its way to the peer.
///
/// It must be ended with [`shutdown`](tokio::io::AsyncWriteExt::shutdown), or the peer does not take it for complete:
/// dropped before, it is aborted. Writing waits where the peer does not read. Errors hold a [`StreamError`].
#[derive(Debug)]
pub struct BodyWriter {
    pipe: DuplexStream,
    intent: Arc<OnceLock<Intent>>,
    done: Verdict,
    #[expect(dead_code, reason = "its drop is the signal")]
    gone: oneshot::Sender<Infallible>,
}

/// A body as it comes from the peer.
///
/// It ends where the peer has ended it, and fails where it was cut off. Dropped before, the peer is told to stop. Errors
/// hold a [`StreamError`].
#[derive(Debug)]
pub struct BodyReader {
    pipe: DuplexStream,
    done: Verdict,
    #[expect(dead_code, reason = "its drop is the signal")]
    gone: oneshot::Sender<Infallible>,
}

/// What a call has of the body that its application writes.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) intent: Arc<OnceLock<Intent>>,
    /// Set before the pipe is dropped, so that the application never sees the one without the other.
    pub(super) done: Option<oneshot::Sender<Outcome>>,
    pub(super) pipe: Option<DuplexStream>,
    /// Resolves when the application's end is dropped.
    pub(super) gone: Option<oneshot::Receiver<Infallible>>,
}

/// What a call has of the body that its application reads.
#[derive(Debug)]
pub(super) struct Sink {
    done: Option<oneshot::Sender<Outcome>>,
    pub(super) pipe: Option<DuplexStream>,
    /// Resolves when the application's end is dropped.
    pub(super) gone: Option<oneshot::Receiver<Infallible>>,
}

/// A body that this side's application writes.
pub(super) fn outgoing() -> (BodyWriter, Source) {
    let (near, far) = duplex(BODY_BUFFER);
    let (done, verdict) = oneshot::channel();
    let (gone, is_gone) = oneshot::channel();
    let intent = Arc::new(OnceLock::new());
    let writer = BodyWriter { pipe: near, intent: intent.clone(), done: Verdict::Awaited(verdict), gone };
    (writer, Source { intent, done: Some(done), pipe: Some(far), gone: Some(is_gone) })
}

/// A body that this side's application reads.
pub(super) fn incoming() -> (Sink, BodyReader) {
    let (near, far) = duplex(BODY_BUFFER);
    let (done, verdict) = oneshot::channel();
    let (gone, is_gone) = oneshot::channel();
    let reader = BodyReader { pipe: near, done: Verdict::Awaited(verdict), gone };
    (Sink { done: Some(done), pipe: Some(far), gone: Some(is_gone) }, reader)
}

impl Source {
    /// Tells the application how its body fared; only the first time counts.
    pub(super) fn finish(&mut self, outcome: Outcome) {
        if let Some(done) = self.done.take() {
            // Whoever has dropped the writer does not want to know.
            let _ = done.send(outcome);
        }
        self.pipe = None;
    }
}

impl Sink {
    /// Tells the application that nothing more comes, and why; only the first time counts.
    pub(super) fn finish(&mut self, outcome: Outcome) {
        if let Some(done) = self.done.take() {
            let _ = done.send(outcome);
        }
        self.pipe = None;
    }
}

impl BodyWriter {
    /// Gives the body up: the peer's reader fails with [`StreamError::Aborted`] and this reason, after what was written
    /// so far. Cut at [`MAX_REASON`](super::MAX_REASON) bytes.
    pub fn abort(self, reason: &str) {
        let _ = self.intent.set(Intent::Abort(reason.to_owned()));
    }

    /// Marks a body that has not been written to as complete.
    pub(super) fn complete(self) {
        let _ = self.intent.set(Intent::End);
    }
}

impl AsyncWrite for BodyWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.pipe).poll_write(cx, bytes)) {
            Ok(len) => Poll::Ready(Ok(len)),
            Err(_) => Poll::Ready(Err(ready!(self.done.poll(cx)).err().unwrap_or_else(StreamError::gone).into())),
        }
    }

    /// Done at once: what was written is sent without being asked to.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the body. Done when all of it was handed to the connection, whose endpoint then delivers it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = self.intent.set(Intent::End);
        ready!(Pin::new(&mut self.pipe).poll_shutdown(cx))?;
        self.done.poll(cx).map_err(io::Error::from)
    }
}

impl AsyncRead for BodyReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(cx, out))?;
        if out.filled().len() > before || out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.done.poll(cx).map_err(io::Error::from)
    }
}

/// How a body ended, as soon as that is known.
#[derive(Debug)]
enum Verdict {
    Awaited(oneshot::Receiver<Outcome>),
    Known(Outcome),
}

impl Verdict {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Self::Awaited(verdict) = self {
            let outcome = ready!(Pin::new(verdict).poll(cx)).unwrap_or_else(|_| Err(StreamError::gone()));
            *self = Self::Known(outcome);
        }
        match self {
            Self::Known(outcome) => Poll::Ready(outcome.clone()),
            Self::Awaited(_) => Poll::Pending,
        }
    }
}
