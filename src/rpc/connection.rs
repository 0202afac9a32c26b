//! One peer's connection to a server: reads its requests, writes their replies.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};
use tokio::time::timeout;

use super::bounds::{Held, InFlight, Share, Unsent};
use super::framing::FramingError;
use super::message::{MalformedMessage, RequestMessage, readable_rid};
use super::server::{ERR_REQUEST_PARSE, ERR_REQUEST_SIZE, ERR_REQUEST_TIME, Replier, Request, Shared};
use super::stream::{Outgoing, TextReader, write_within};
use crate::event::Event;
use crate::limits::Limit;

/// How many malformed texts a connection may bring before it is closed.
pub const MAX_MALFORMED: usize = 100;

/// For how many bytes a request counts as one more in flight.
const IN_FLIGHT_UNIT: usize = 16 << 10;

/// Why nothing more is read from a connection.
enum End {
    /// The peer has asked all it wants to, or may: what is in flight is still answered.
    OfRequests,
    /// The connection is gone.
    OfConnection,
}

/// One peer's connection.
pub(super) struct Connection {
    shared: Arc<Shared>,
    from: SocketAddr,
    messages: mpsc::UnboundedSender<Outgoing>,
    in_flight: Arc<Semaphore>,
    source: Arc<Held>,
    /// Of this connection, of its source, and of all.
    unsent: [Arc<Unsent>; 3],
}

impl Connection {
    /// Reads and answers requests until either side ends the connection. After the peer's end the requests in
    /// flight are still answered.
    pub(super) async fn run<S>(shared: Arc<Shared>, stream: S, from: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let gate = shared.gate().clone();
        let Some(_inside) = gate.enter() else { return };
        let (reader, writer) = tokio::io::split(stream);
        let source = shared.sources.of(from.ip());
        let share = Share::of(&source.unfinished, &shared.all.unfinished);
        let texts = TextReader::new(reader, shared.config.max_message).within(share);
        let in_flight = Arc::new(Semaphore::new(shared.config.max_in_flight as usize));
        let (messages, outgoing) = mpsc::unbounded_channel();
        let (limits, patience) = (shared.limits.clone(), shared.config.write_timeout);
        let unsent = [Unsent::new(shared.config.max_unsent), source.unsent.clone(), shared.all.unsent.clone()];
        let reading = pin!(Self { shared, from, messages, in_flight, source, unsent }.read(texts));
        let writing = pin!(write_within(writer, outgoing, Some(patience)));
        let written = match select(reading, writing).await {
            Either::Left((End::OfRequests, writing)) => writing.await,
            Either::Left((End::OfConnection, _)) => return,
            Either::Right((written, _)) => written,
        };
        // An error here is the connection's end as well: there is nobody left to tell.
        // One of the transport has its cause inside; that of our own patience has none.
        if written.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut && error.get_ref().is_none()) {
            limits.reached(Limit::WriteTimeout, Some(from));
        }
    }

    /// Waits until the peer, its source and all have taken enough of their replies.
    async fn until_read(&self) {
        const LIMITS: [Limit; 3] = [Limit::Unsent, Limit::UnsentTotal, Limit::UnsentTotal];
        // Anew after each wait, which may have been long.
        while let Some((unsent, limit)) = self.unsent.iter().zip(LIMITS).find(|(unsent, _)| !unsent.is_below()) {
            self.shared.limits.reached(limit, Some(self.from));
            unsent.below().await;
        }
    }

    /// Waits for a place among the requests in flight, on this connection, then of its source, and then of all.
    async fn place(&self, size: usize) -> Option<InFlight> {
        let config = &self.shared.config;
        let most = config.max_in_flight.min(config.most().of_source().in_flight);
        let count = u32::try_from(size / IN_FLIGHT_UNIT + 1).unwrap_or(u32::MAX).min(most);
        let own = self.acquire(&self.in_flight, count, Limit::InFlight).await?;
        let source = self.acquire(&self.source.in_flight, count, Limit::InFlightTotal).await?;
        let total = self.acquire(&self.shared.all.in_flight, count, Limit::InFlightTotal).await?;
        Some(InFlight { places: [own, source, total], source: self.source.clone() })
    }

    async fn acquire(&self, places: &Arc<Semaphore>, count: u32, limit: Limit) -> Option<OwnedSemaphorePermit> {
        match places.clone().try_acquire_many_owned(count) {
            Ok(permit) => Some(permit),
            Err(TryAcquireError::Closed) => None,
            Err(TryAcquireError::NoPermits) => {
                self.shared.limits.reached(limit, Some(self.from));
                places.clone().acquire_many_owned(count).await.ok()
            }
        }
    }

    fn tell_limit(&self, error: &FramingError) {
        let limit = match error {
            FramingError::TooLarge { .. } => Limit::MessageSize,
            FramingError::TooDeep { .. } => Limit::MessageDepth,
            FramingError::TooSlow { .. } => Limit::MessageTime,
            FramingError::NoRoom { .. } => Limit::Unfinished,
            _ => return,
        };
        self.shared.limits.reached(limit, Some(self.from));
    }

    async fn read<R: AsyncRead + Unpin>(self, mut texts: TextReader<R>) -> End {
        let max_in_flight = self.shared.config.max_in_flight as usize;
        let mut malformed = 0;
        loop {
            let next = async {
                self.until_read().await;
                timeout(self.shared.config.idle_timeout, texts.next()).await
            };
            let Some(next) = self.shared.gate().unless_closed(next).await else { return End::OfRequests };
            let text = match next {
                Ok(Ok(Some(text))) => text,
                Ok(Ok(None)) => return End::OfRequests,
                Ok(Err(_)) => return End::OfConnection,
                Err(_) if self.in_flight.available_permits() == max_in_flight && !texts.is_unfinished() => {
                    return End::OfRequests;
                }
                Err(_) => continue,
            };
            let fatal = text.as_ref().is_err_and(FramingError::is_fatal);
            let size = text.as_ref().map_or(0, Bytes::len);
            let slow = matches!(text, Err(FramingError::TooSlow { .. }));
            let request = match text {
                Ok(text) => RequestMessage::parse(&text),
                Err(e) => {
                    self.tell_limit(&e);
                    Err(MalformedMessage { rid: readable_rid(e.head()), reason: e.to_string() })
                }
            };
            let Some(permit) = self.place(size).await else { return End::OfConnection };
            match request {
                Ok(RequestMessage { rid, key, payload }) => {
                    let received = Event::RequestReceived { rid: rid.clone(), key: key.clone(), from: self.from };
                    self.shared.net().emit(received);
                    let replier = self.replier(rid.clone(), permit);
                    let request = Request { rid, key, payload, from: self.from, replier };
                    if self.shared.requests.send(request).await.is_err() {
                        return End::OfRequests;
                    }
                }
                Err(MalformedMessage { rid, reason }) => {
                    self.shared.malformed.fetch_add(1, Ordering::Relaxed);
                    self.shared.net().emit(Event::Malformed { layer: "rpc", from: self.from, reason });
                    if let Some(rid) = rid {
                        let error = match (fatal, slow) {
                            (_, true) => ERR_REQUEST_TIME,
                            (true, false) => ERR_REQUEST_SIZE,
                            (false, false) => ERR_REQUEST_PARSE,
                        };
                        self.replier(rid, permit).reply(&Err(error.to_owned()));
                    }
                    malformed += 1;
                }
            }
            if malformed >= MAX_MALFORMED {
                self.shared.limits.reached(Limit::Malformed, Some(self.from));
            }
            if fatal || malformed >= MAX_MALFORMED {
                return End::OfRequests;
            }
        }
    }

    fn replier(&self, rid: String, permit: InFlight) -> Replier {
        Replier {
            net: self.shared.net().clone(),
            rid,
            to: self.from,
            messages: self.messages.clone(),
            permit: Some(permit),
            unsent: self.unsent.clone(),
        }
    }
}
