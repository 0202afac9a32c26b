//! What a new connection of a server is for: plain requests, or a streamed call where the server offers that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use super::body::{incoming, outgoing};
use super::carry::{Call, FAREWELL, Incoming, Limits, Outgoing, Peer, carry};
use super::error::StreamError;
use super::frame::{Kind, read_header, read_payload};
use super::places::{Place, Places};
use super::report::Report;
use super::server::{StreamReplier, StreamRequest, Taker};
use super::{ASK, BUSY, StreamConfig, YES};
use crate::event::Event;
use crate::net::Net;
use crate::rpc::connection::Connection;
use crate::rpc::message::RequestMessage;
use crate::rpc::server::Shared;
use crate::transport::UtpStream;

/// What a server offers at the moment: nothing, until the application asks for streamed calls.
#[derive(Debug, Default)]
pub(in crate::rpc) struct Offers(Mutex<Option<Arc<Offer>>>);

/// An application that takes streamed calls.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) config: StreamConfig,
    pub(super) taker: Taker,
    /// Those of the streamed calls that there are.
    places: Arc<Places>,
}

impl Offers {
    /// Offers streams from now on, in place of an earlier offer.
    pub(super) fn make(&self, config: StreamConfig, taker: Taker) {
        *self.current() = Some(Arc::new(Offer { config, taker, places: Arc::default() }));
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Offer>>> {
        self.0.lock().expect("no panic while locked")
    }
}

impl Offer {
    fn place(&self, address: IpAddr) -> Option<Place> {
        self.places.take(Instant::now(), address, &self.config)
    }
}

/// Runs a connection to its end, as what its first bytes say that it is.
pub(in crate::rpc) async fn route(shared: Arc<Shared>, mut stream: UtpStream, from: SocketAddr) {
    let Some(_inside) = shared.gate().enter() else { return };
    let first = timeout(shared.idle_timeout(), first_bytes(&mut stream));
    let Some(first) = shared.gate().unless_closed(first).await else { return };
    match first {
        Ok(Ok(First::Plain(first))) => Connection::run(shared, Begun { first, rest: stream }, from).await,
        Ok(Ok(First::Asks)) => {
            let offer = shared.offers().current().clone();
            match offer.filter(|offer| offer.taker.is_there()) {
                Some(offer) => serve(shared.net(), offer, stream, from).await,
                None => shared.net().emit(Event::StreamRefused { from, reason: "not offered" }),
            }
        }
        // Nothing was asked.
        Ok(Err(_)) | Err(_) => {}
    }
}

/// What a connection begins with.
enum First {
    /// A client that asks for a streamed call.
    Asks,
    /// These bytes of something else.
    Plain(Bytes),
}

/// Reads no further than the question is long, and only as long as it can be the question.
async fn first_bytes(stream: &mut UtpStream) -> io::Result<First> {
    let mut bytes = [0; ASK.len()];
    let mut len = 0;
    loop {
        let more = stream.read(&mut bytes[len..]).await?;
        len += more;
        if more == 0 || !ASK.starts_with(&bytes[..len]) {
            return Ok(First::Plain(Bytes::copy_from_slice(&bytes[..len])));
        }
        if len == ASK.len() {
            return Ok(First::Asks);
        }
    }
}

/// Answers the question, and hands the call to the application.
async fn serve(net: &Net, offer: Arc<Offer>, mut stream: UtpStream, from: SocketAddr) {
    let Some(mut place) = offer.place(from.ip()) else {
        net.emit(Event::StreamRefused { from, reason: "as many streams as there may be" });
        // The connection ends all the same where this cannot be written.
        let _ = timeout(offer.config.head_timeout, stream.write_all(BUSY)).await;
        return;
    };
    let head = async {
        stream.write_all(YES).await.map_err(|e| StreamError::from(&e))?;
        let header = read_header(&mut stream, offer.config.max_head).await?;
        if header.kind != Kind::Head {
            return Err(StreamError::Protocol(format!("a {:?} frame before the head", header.kind)));
        }
        let text = read_payload(&mut stream, header).await?;
        RequestMessage::parse(&text).map_err(|e| StreamError::Protocol(format!("the request's head: {}", e.reason)))
    };
    let RequestMessage { rid, key, payload } = match timeout(offer.config.head_timeout, head).await {
        Ok(Ok(head)) => head,
        Ok(Err(error)) => {
            if let StreamError::Protocol(reason) = error {
                net.emit(Event::Malformed { layer: "rpc", from, reason });
            }
            stream.reset();
            return;
        }
        Err(_) => {
            net.emit(Event::StreamRefused { from, reason: "no head in time" });
            stream.reset();
            return;
        }
    };
    let report = Report::start(net, &rid, &key, from, false);
    let (writer, source) = outgoing();
    let (sink, reader) = incoming();
    let (replier, head) = StreamReplier::new(&rid, writer);
    let limits = Limits {
        idle: offer.config.idle_timeout,
        // Only clients wait for a reply.
        reply: offer.config.idle_timeout,
        max_head: offer.config.max_head,
    };
    let at_work = offer.taker.take(net, StreamRequest { rid, key, payload, from, body: reader, replier });
    let outgoing = Outgoing { head: Some(head), body: source };
    let incoming = Incoming { head: None, body: sink };
    let peer = Peer { pace: Some(place.pace.clone()), displaced: place.displaced.take() };
    let ended = carry(Call { stream, outgoing, incoming, limits, report, peer }).await;
    // It may have more to do than the call. It ends with this task, and so with the server.
    match at_work {
        // Its place is another's: there would be no limit on such handlers.
        Some(at_work) if ended == Err(StreamError::Displaced) => {
            let _ = timeout(FAREWELL, at_work.ended()).await;
        }
        Some(at_work) => at_work.ended().await,
        None => {}
    }
}

/// A stream of which something was read already.
#[derive(Debug)]
struct Begun<S> {
    first: Bytes,
    rest: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.rest).poll_read(cx, out);
        }
        let len = self.first.len().min(out.remaining());
        out.put_slice(&self.first[..len]);
        self.first.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(cx)
    }
}
