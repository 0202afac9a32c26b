//! Carries a streamed call over its connection: frames in, frames out, and who has to know how it ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{oneshot, watch};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::body::{DROPPED, Intent, Sink, Source};
use super::error::{DISPLACED, StreamError};
use super::frame::{HEADER, Header, Kind, abort, frame, read_header, read_payload};
use super::pace::{Pace, Wait};
use super::places::Displaced;
use super::report::Report;
use crate::rpc::error::RpcError;
use crate::rpc::message::ReplyMessage;
use crate::transport::UtpStream;

/// How long a peer has to end its body once this side's application is gone. Then the connection is reset.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// The most bytes of a body that are sent in one frame, and read at once. The peer must take as many within the idle
/// timeout.
pub const CHUNK: usize = 32 << 10;

/// One side of a streamed call, once the heads' exchange has begun.
pub(super) struct Call {
    pub(super) stream: UtpStream,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    pub(super) limits: Limits,
    pub(super) report: Report,
    pub(super) peer: Peer,
}

/// How a server sees to it that its calls move on; a client does not.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Where it is noted how fast the peer is.
    pub(super) pace: Option<Arc<Mutex<Pace>>>,
    /// Resolves to [`Displaced`] where the call has to leave for another.
    pub(super) displaced: Option<oneshot::Receiver<Displaced>>,
}

/// What this side sends.
pub(super) struct Outgoing {
    /// The reply's head, which the application gives; `None` where the head was sent already.
    pub(super) head: Option<oneshot::Receiver<Bytes>>,
    pub(super) body: Source,
}

/// What this side receives.
pub(super) struct Incoming {
    /// Who waits for the reply's head; `None` where the head was received already.
    pub(super) head: Option<oneshot::Sender<Result<Value, RpcError>>>,
    pub(super) body: Sink,
}

/// What a side waits for, and takes.
pub(super) struct Limits {
    pub(super) idle: Duration,
    pub(super) reply: Duration,
    pub(super) max_head: usize,
}

/// How far a call is.
#[derive(Debug)]
struct Progress {
    /// When a byte was last sent or received.
    moved: Instant,
    /// When this side's body was ended or aborted.
    sent: Option<Instant>,
    /// Whether the peer's body was.
    received: bool,
    /// Whether the peer wants no more of this side's body.
    stopped: bool,
    /// Whether this side's application wants no more of the peer's body.
    unread: bool,
    /// Whether the call has to leave for another.
    displaced: bool,
    bytes_sent: u64,
    bytes_received: u64,
    /// What first kept a body from its end, where the connection did not.
    trouble: Option<StreamError>,
}

impl Progress {
    /// Whether both bodies have come to an end.
    fn is_complete(&self) -> bool {
        self.sent.is_some() && self.received
    }
}

/// Runs until both bodies have ended, or the call has failed: then its connection is reset.
pub(super) async fn carry(call: Call) -> Result<(), StreamError> {
    let Call { stream, mut outgoing, mut incoming, limits, mut report, peer } = call;
    let progress = watch::Sender::new(Progress {
        moved: Instant::now(),
        sent: None,
        received: false,
        stopped: false,
        unread: false,
        displaced: false,
        bytes_sent: 0,
        bytes_received: 0,
        trouble: None,
    });
    let carrier = Carrier { progress: &progress, limits: &limits, pace: peer.pace.as_deref() };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let reader_gone = incoming.body.gone.take();
    let writer_gone = outgoing.body.gone.take();
    let intent = outgoing.body.intent.clone();
    let outcome = {
        let mut complete = pin!(carrier.until(Progress::is_complete));
        let mut reading = pin!(carrier.read(&mut reader, &mut incoming));
        let mut writing = pin!(carrier.write(&mut writer, &mut outgoing));
        let mut displaced = pin!(carrier.displaced(peer.displaced));
        let mut farewell = pin!(carrier.farewell(reader_gone, writer_gone, &intent));
        // In this order, so that a run repeats; an end comes before what follows it on the connection.
        poll_fn(|cx| {
            if complete.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(error) = displaced.as_mut().poll(cx) {
                return Poll::Ready(Err(error));
            }
            if let Poll::Ready(error) = reading.as_mut().poll(cx) {
                return Poll::Ready(Err(error));
            }
            if let Poll::Ready(error) = writing.as_mut().poll(cx) {
                return Poll::Ready(Err(error));
            }
            farewell.as_mut().poll(cx).map(Err)
        })
        .await
    };
    {
        let progress = progress.borrow();
        report.counted(progress.bytes_sent, progress.bytes_received);
        report.ended(progress.trouble.as_ref().or(outcome.as_ref().err()));
    }
    if let Err(error) = outcome.clone() {
        if let Some(head) = incoming.head.take() {
            let _ = head.send(Err(error.clone().into()));
        }
        incoming.body.finish(Err(error.clone()));
        outgoing.body.finish(Err(error));
        reader.unsplit(writer).reset();
    }
    // Its bodies may have come to an end all the same.
    if progress.borrow().displaced { Err(StreamError::Displaced) } else { outcome }
}

/// The two directions of a call, which know of each other by its progress.
struct Carrier<'a> {
    progress: &'a watch::Sender<Progress>,
    limits: &'a Limits,
    pace: Option<&'a Mutex<Pace>>,
}

impl Carrier<'_> {
    /// Waits until the call is so far.
    async fn until(&self, such: impl FnMut(&Progress) -> bool) {
        // The sender is there as long as this borrows it.
        let _ = self.progress.subscribe().wait_for(such).await;
    }

    /// Notes a step that others wait for.
    fn step(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    /// Notes bytes that moved, without waking anybody.
    fn moved(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_if_modified(|progress| {
            progress.moved = Instant::now();
            change(progress);
            false
        });
    }

    /// Notes how the peer does, where anybody wants to know.
    fn pace(&self, note: impl FnOnce(&mut Pace, Instant)) {
        if let Some(pace) = self.pace {
            note(&mut pace.lock().expect("no panic while locked"), Instant::now());
        }
    }

    /// Hands out what comes; gives why nothing more does.
    async fn read<R: AsyncRead + Unpin>(&self, reader: &mut R, incoming: &mut Incoming) -> StreamError {
        let mut chunk = vec![0; CHUNK].into_boxed_slice();
        let mut displaced = pin!(self.until(|p| p.displaced));
        loop {
            match select(displaced.as_mut(), pin!(self.read_frame(reader, incoming, &mut chunk))).await {
                Either::Left(_) => break,
                Either::Right((Ok(()), _)) => {}
                Either::Right((Err(error), _)) => return error,
            }
            let complete = self.progress.borrow().is_complete();
            if complete {
                // The peer may close the connection now: that is no error.
                std::future::pending::<()>().await;
            }
        }
        incoming.body.finish(Err(StreamError::Displaced));
        // What still comes is for nobody, but the peer shall hear what it is told before the connection ends.
        while reader.read(&mut chunk).await.is_ok_and(|len| len > 0) {
            consume_budget().await;
        }
        StreamError::Displaced
    }

    async fn read_frame<R: AsyncRead + Unpin>(
        &self,
        reader: &mut R,
        incoming: &mut Incoming,
        chunk: &mut [u8],
    ) -> Result<(), StreamError> {
        let headless = incoming.head.is_some();
        let (received, stopped) = {
            let progress = self.progress.borrow();
            (progress.received, progress.stopped)
        };
        let header = self.owed(headless, read_header(reader, self.limits.max_head)).await?;
        match header.kind {
            Kind::Head if headless => {
                let text = self.owed(headless, read_payload(reader, header)).await?;
                let reply = ReplyMessage::parse(&text)
                    .map_err(|e| StreamError::Protocol(format!("the reply's head: {}", e.reason)))?;
                self.moved(|_| {});
                if let Some(head) = incoming.head.take() {
                    let _ = head.send(reply.result.map_err(RpcError::Remote));
                }
            }
            Kind::Data if !headless && !received => self.read_data(reader, header.len, incoming, chunk).await?,
            Kind::End if !headless && !received => {
                incoming.body.finish(Ok(()));
                self.step(|progress| progress.received = true);
            }
            Kind::Abort if !received => {
                let reason = self.owed(headless, read_payload(reader, header)).await?;
                let error = StreamError::Aborted(String::from_utf8_lossy(&reason).into_owned());
                if let Some(head) = incoming.head.take() {
                    let _ = head.send(Err(error.clone().into()));
                }
                incoming.body.finish(Err(error.clone()));
                self.step(|progress| {
                    progress.received = true;
                    progress.trouble.get_or_insert(error);
                });
            }
            Kind::Stop if !stopped => self.step(|progress| progress.stopped = true),
            kind => return Err(StreamError::Protocol(format!("a {kind:?} frame out of its place"))),
        }
        Ok(())
    }

    async fn read_data<R: AsyncRead + Unpin>(
        &self,
        reader: &mut R,
        mut left: usize,
        incoming: &mut Incoming,
        chunk: &mut [u8],
    ) -> Result<(), StreamError> {
        while left > 0 {
            let most = left.min(chunk.len());
            let reading = async { reader.read(&mut chunk[..most]).await.map_err(|e| StreamError::from(&e)) };
            let len = self.owed(false, reading).await?;
            if len == 0 {
                return Err(StreamError::Truncated);
            }
            left -= len;
            // What is thrown away comes without a wait, and would keep this task from its other half.
            consume_budget().await;
            self.moved(|progress| progress.bytes_received += len as u64);
            self.pace(|pace, now| pace.count(now, len as u64));
            // What nobody reads is thrown away, until the peer has heard that.
            if let Some(pipe) = &mut incoming.body.pipe
                && pipe.write_all(&chunk[..len]).await.is_err()
            {
                incoming.body.pipe = None;
            }
            // Where the application took its time, the peer has all of its own.
            self.moved(|_| {});
        }
        Ok(())
    }

    /// Waits for what the peer sends next, for as long as it owes something.
    async fn owed<T>(
        &self,
        headless: bool,
        work: impl Future<Output = Result<T, StreamError>>,
    ) -> Result<T, StreamError> {
        let mut work = pin!(work);
        let mut steps = self.progress.subscribe();
        let owes = !self.progress.borrow().received;
        self.pace(|pace, now| pace.wait(now, Wait::Send, owes));
        let result = loop {
            let deadline = {
                let progress = steps.borrow_and_update();
                match progress.sent {
                    None if headless => None,
                    _ if progress.received => None,
                    Some(sent) if headless => Some((sent + self.limits.reply, StreamError::Timeout)),
                    _ => Some((progress.moved + self.limits.idle, StreamError::Idle(self.limits.idle))),
                }
            };
            let expired = async {
                match deadline {
                    Some((at, _)) if at > Instant::now() => {
                        sleep_until(at).await;
                        None
                    }
                    Some((_, error)) => Some(error),
                    None => std::future::pending().await,
                }
            };
            match select(work.as_mut(), select(pin!(steps.changed()), pin!(expired))).await {
                Either::Left((result, _)) => break result,
                Either::Right((Either::Right((Some(error), _)), _)) => break Err(error),
                Either::Right(_) => {}
            }
        };
        self.pace(|pace, now| pace.wait(now, Wait::Send, false));
        result
    }

    /// Sends what the application gives; gives why no more can be sent.
    async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut W, outgoing: &mut Outgoing) -> StreamError {
        let mut chunk = vec![0; HEADER + CHUNK].into_boxed_slice();
        let mut stop_sent = false;
        loop {
            if let Err(error) = self.write_frame(writer, outgoing, &mut stop_sent, &mut chunk).await {
                return error;
            }
        }
    }

    async fn write_frame<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        outgoing: &mut Outgoing,
        stop_sent: &mut bool,
        chunk: &mut [u8],
    ) -> Result<(), StreamError> {
        let Outgoing { head, body } = outgoing;
        let open = self.progress.borrow().sent.is_none();
        let next = async {
            match (head.as_mut(), body.pipe.as_mut()) {
                (Some(head), _) => Next::Head(head.await.ok()),
                (None, Some(pipe)) => Next::Body(pipe.read(&mut chunk[HEADER..]).await.unwrap_or(0)),
                (None, None) => std::future::pending().await,
            }
        };
        let next = {
            let mut unread = pin!(self.until(|p| p.unread && !p.received));
            let mut displaced = pin!(self.until(|p| p.displaced));
            let mut stopped = pin!(self.until(|p| p.stopped));
            let mut next = pin!(next);
            poll_fn(|cx| {
                if !*stop_sent && unread.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Next::Stop);
                }
                if open && displaced.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Next::Displaced);
                }
                if open && stopped.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Next::Stopped);
                }
                if open { next.as_mut().poll(cx) } else { Poll::Pending }
            })
            .await
        };
        match next {
            Next::Stop => {
                *stop_sent = true;
                self.send(writer, &frame(Kind::Stop, &[])).await?;
            }
            Next::Stopped => {
                body.finish(Err(StreamError::Stopped));
                self.give_up(writer, "stopped by its reader", StreamError::Stopped).await?;
            }
            Next::Displaced => {
                *head = None;
                body.finish(Err(StreamError::Displaced));
                self.give_up(writer, DISPLACED, StreamError::Displaced).await?;
            }
            Next::Head(text) => {
                *head = None;
                if let Some(text) = text {
                    self.send(writer, &frame(Kind::Head, &text)).await?;
                }
            }
            Next::Body(0) => {
                let given_up = |reason: &str| StreamError::Aborted(reason.to_owned());
                match body.intent.get() {
                    Some(Intent::End) => self.end(writer, &frame(Kind::End, &[])).await?,
                    Some(Intent::Abort(reason)) => self.give_up(writer, reason, given_up(reason)).await?,
                    None => self.give_up(writer, DROPPED, given_up(DROPPED)).await?,
                }
                body.finish(Ok(()));
            }
            Next::Body(len) => {
                chunk[..HEADER].copy_from_slice(&Header { kind: Kind::Data, len }.encode());
                let mut sending = pin!(self.send(writer, &chunk[..HEADER + len]));
                match select(sending.as_mut(), pin!(self.until(|p| p.displaced))).await {
                    Either::Left((sent, _)) => sent?,
                    Either::Right(_) => {
                        // The application need not wait for a peer that takes nothing.
                        body.finish(Err(StreamError::Displaced));
                        sending.await?;
                    }
                }
                self.pace(|pace, now| pace.count(now, len as u64));
                self.moved(|progress| progress.bytes_sent += len as u64);
            }
        }
        Ok(())
    }

    /// Sends the last frame of this side's body.
    async fn end<W: AsyncWrite + Unpin>(&self, writer: &mut W, last: &[u8]) -> Result<(), StreamError> {
        self.send(writer, last).await?;
        self.step(|progress| progress.sent = Some(Instant::now()));
        Ok(())
    }

    /// Sends that this side's body is not going to be complete.
    async fn give_up<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        reason: &str,
        trouble: StreamError,
    ) -> Result<(), StreamError> {
        self.moved(|progress| _ = progress.trouble.get_or_insert(trouble));
        self.end(writer, &abort(reason)).await
    }

    /// Writes a frame, for which the peer has the idle timeout altogether: a window that is shut lets a packet through
    /// now and then, which is no sign of a reader.
    async fn send<W: AsyncWrite + Unpin>(&self, writer: &mut W, frame: &[u8]) -> Result<(), StreamError> {
        self.pace(|pace, now| pace.wait(now, Wait::Take, true));
        let written = timeout(self.limits.idle, writer.write_all(frame)).await;
        self.pace(|pace, now| pace.wait(now, Wait::Take, false));
        written.map_err(|_| StreamError::Idle(self.limits.idle))?.map_err(|e| StreamError::from(&e))?;
        self.moved(|_| {});
        Ok(())
    }

    /// Has both bodies given up once the call has to leave, and resolves when the peer has had its time to hear of it.
    async fn displaced(&self, displaced: Option<oneshot::Receiver<Displaced>>) -> StreamError {
        let told = async { displaced?.await.ok() };
        if told.await.is_none() {
            std::future::pending::<()>().await;
        }
        self.step(|progress| (progress.displaced, progress.unread) = (true, true));
        sleep(FAREWELL).await;
        StreamError::Displaced
    }

    /// Resolves when the application has left and the peer has not ended its body since. A body that the application
    /// has ended itself is sent before that.
    async fn farewell(
        &self,
        reader_gone: Option<oneshot::Receiver<Infallible>>,
        writer_gone: Option<oneshot::Receiver<Infallible>>,
        intent: &OnceLock<Intent>,
    ) -> StreamError {
        if let Some(gone) = reader_gone {
            let _ = gone.await;
        }
        self.step(|progress| progress.unread = true);
        if let Some(gone) = writer_gone {
            let _ = gone.await;
        }
        if matches!(intent.get(), Some(Intent::End)) {
            self.until(|p| p.sent.is_some()).await;
        }
        sleep(FAREWELL).await;
        StreamError::Aborted(format!("dropped on this side, and not ended by the peer for {FAREWELL:?}"))
    }
}

/// What is to be sent next.
enum Next {
    /// That this side reads no more.
    Stop,
    /// The end of a body whose call has to leave.
    Displaced,
    /// The end of a body that the peer reads no more.
    Stopped,
    /// A reply's head, unless its replier is gone, which ends the body too.
    Head(Option<Bytes>),
    /// So many bytes of the body; none where it has ended.
    Body(usize),
}
