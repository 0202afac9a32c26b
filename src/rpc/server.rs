//! The serving side: accepts connections, reads requests, writes replies.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::framing::{FramingError, MAX_TEXT};
use super::message::{MalformedMessage, ReplyMessage, RequestMessage, readable_rid};
use super::stream::{Outgoing, TextReader, write_all};
use super::streaming;
use crate::event::Event;
use crate::net::{Net, Task};
use crate::transport::Endpoint;

/// How many malformed texts a connection may bring before it is closed.
pub const MAX_MALFORMED: usize = 100;

/// For how many bytes a request counts as one more in flight.
const IN_FLIGHT_UNIT: usize = 16 << 10;

/// The error that a client gets where a [`Request`] was dropped without an answer.
pub const ERR_NO_REPLY: &str = "ERR_NO_REPLY";

/// The error that a client gets for a request that cannot be read but for its id.
pub const ERR_REQUEST_PARSE: &str = "ERR_REQUEST_PARSE";

/// The error that a client gets for a request over the size limit, before the connection is closed.
pub const ERR_REQUEST_SIZE: &str = "ERR_REQUEST_SIZE";

/// Settings of a [`PeerRpcServer`].
#[derive(Debug, Clone)]
pub struct ServerConfig {
    max_message: usize,
    max_in_flight: u32,
    max_connections: usize,
    max_queue: usize,
    idle_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_message: MAX_TEXT,
            max_in_flight: 1024,
            max_connections: 4096,
            max_queue: 1024,
            idle_timeout: Duration::from_secs(180),
        }
    }
}

impl ServerConfig {
    /// The largest request, in bytes (default 16 MiB). A larger one is answered with [`ERR_REQUEST_SIZE`], and its
    /// connection is closed. Each connection may hold that much of a request that is not complete.
    pub fn max_message(self, max_message: usize) -> Self {
        Self { max_message, ..self }
    }

    /// How many requests of one connection may be unanswered (default 1024, at least 1); a large one counts once more
    /// for each 16 KiB. At the limit nothing more is read from it, so that µTP's window slows the peer down.
    pub fn max_in_flight(self, max_in_flight: u32) -> Self {
        Self { max_in_flight: max_in_flight.max(1), ..self }
    }

    /// How many connections may be open (default 4096). Further ones are reset.
    pub fn max_connections(self, max_connections: usize) -> Self {
        Self { max_connections, ..self }
    }

    /// How many requests of all connections may wait for [`Requests::next`] (default 1024, at least 1). At the limit
    /// nothing more is read.
    pub fn max_queue(self, max_queue: usize) -> Self {
        Self { max_queue: max_queue.max(1), ..self }
    }

    /// After how long without a request, and with none unanswered, a connection is closed (default 180 s: longer than
    /// clients keep an unused one).
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }
}

/// A server of requests on a shared [`Endpoint`]. Dropping it closes its connections.
///
/// Of several servers on one endpoint each connection goes to one of them, so there should be one.
///
/// ```no_run
/// use grenache::rpc::{PeerRpcServer, ServerConfig};
/// # async fn example(endpoint: grenache::transport::Endpoint) {
/// let (_server, mut requests) = PeerRpcServer::new(&endpoint, ServerConfig::default());
/// while let Some(request) = requests.next().await {
///     println!("{} asks for {}", request.from, request.payload);
///     request.reply(Ok("world".into()));
/// }
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping a server closes its connections"]
pub struct PeerRpcServer {
    shared: Arc<Shared>,
    _accepting: Task,
    _handling: Option<Task>,
}

/// The requests that arrive at a [`PeerRpcServer`].
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<Request>);

/// A request to be answered, in any order with others.
///
/// Dropping it unanswered answers it with the error [`ERR_NO_REPLY`], so that no client waits for its timeout.
#[derive(Debug)]
pub struct Request {
    /// Its id.
    pub rid: String,
    /// The service's name that the client asked for.
    pub key: String,
    /// What is asked.
    pub payload: Value,
    /// The client's address, as this side sees it.
    pub from: SocketAddr,
    replier: Replier,
}

/// A request as a handler gets it: see [`PeerRpcServer::serve`].
#[derive(Debug, Clone, PartialEq)]
pub struct RequestParts {
    /// Its id.
    pub rid: String,
    /// The service's name that the client asked for.
    pub key: String,
    /// What is asked.
    pub payload: Value,
    /// The client's address, as this side sees it.
    pub from: SocketAddr,
}

impl PeerRpcServer {
    /// Accepts connections from now on; the requests come out of [`Requests`].
    pub fn new(endpoint: &Endpoint, config: ServerConfig) -> (Self, Requests) {
        let (shared, requests) = Shared::new(endpoint.net(), config);
        let accepting = endpoint.net().spawn(Box::pin(accept(endpoint.clone(), shared.clone())));
        (Self { shared, _accepting: accepting, _handling: None }, requests)
    }

    /// Accepts connections from now on and answers each request with what `handler` returns, each in a task of its
    /// own. A handler that panics answers [`ERR_NO_REPLY`].
    ///
    /// ```no_run
    /// use grenache::rpc::{PeerRpcServer, ServerConfig};
    /// # fn example(endpoint: grenache::transport::Endpoint) -> PeerRpcServer {
    /// PeerRpcServer::serve(&endpoint, ServerConfig::default(), |request| async move {
    ///     match request.payload.as_str() {
    ///         Some("hello") => Ok("world".into()),
    ///         _ => Err("ERR_NOT_HELLO".to_owned()),
    ///     }
    /// })
    /// # }
    /// ```
    pub fn serve<H, F>(endpoint: &Endpoint, config: ServerConfig, handler: H) -> Self
    where
        H: Fn(RequestParts) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, String>> + Send + 'static,
    {
        let (mut server, mut requests) = Self::new(endpoint, config);
        let (net, handler) = (endpoint.net().clone(), Arc::new(handler));
        server._handling = Some(endpoint.net().spawn(Box::pin(async move {
            while let Some(request) = requests.next().await {
                let Request { rid, key, payload, from, replier } = request;
                let (parts, handler) = (RequestParts { rid, key, payload, from }, handler.clone());
                net.spawn(Box::pin(async move { replier.reply(&handler(parts).await) })).detach();
            }
        })));
        server
    }

    /// How many malformed texts were received so far.
    pub fn malformed(&self) -> u64 {
        self.shared.malformed.load(Ordering::Relaxed)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Requests {
    /// The next request; `None` once the server is dropped and every request was given out.
    pub async fn next(&mut self) -> Option<Request> {
        self.0.recv().await
    }
}

impl Request {
    /// Answers with a result, or with an error message.
    ///
    /// What can still be sent is; nothing is reported where the connection has ended meanwhile.
    pub fn reply(self, result: Result<Value, String>) {
        self.replier.reply(&result);
    }
}

/// What answers one request.
#[derive(Debug)]
struct Replier {
    net: Net,
    rid: String,
    to: SocketAddr,
    messages: mpsc::UnboundedSender<Outgoing>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Replier {
    fn reply(mut self, result: &Result<Value, String>) {
        self.send(result);
    }

    fn send(&mut self, result: &Result<Value, String>) {
        let Some(permit) = self.permit.take() else { return };
        let text = ReplyMessage::encode(&self.rid, result);
        if self.messages.send(Outgoing { text, permit: Some(permit), wanted: None }).is_ok() {
            let error = result.as_ref().err().cloned();
            self.net.emit(Event::ReplySent { rid: self.rid.clone(), to: self.to, error });
        }
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        self.send(&Err(ERR_NO_REPLY.to_owned()));
    }
}

/// What a server's connections have in common.
#[derive(Debug)]
pub(super) struct Shared {
    net: Net,
    config: ServerConfig,
    requests: mpsc::Sender<Request>,
    pub(super) malformed: AtomicU64,
    offers: streaming::Offers,
}

impl Shared {
    pub(super) fn new(net: &Net, config: ServerConfig) -> (Arc<Self>, Requests) {
        let (requests, received) = mpsc::channel(config.max_queue);
        let (malformed, offers) = (AtomicU64::new(0), streaming::Offers::default());
        (Arc::new(Self { net: net.clone(), config, requests, malformed, offers }), Requests(received))
    }

    pub(super) fn net(&self) -> &Net {
        &self.net
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.config.idle_timeout
    }

    pub(super) fn offers(&self) -> &streaming::Offers {
        &self.offers
    }
}

async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    let mut connections: Vec<Task> = Vec::new();
    while let Some(stream) = endpoint.accept().await {
        if connections.len() >= shared.config.max_connections {
            connections.retain(|connection| !connection.is_finished());
        }
        if connections.len() >= shared.config.max_connections {
            stream.reset();
            continue;
        }
        let from = stream.peer_addr();
        connections.push(shared.net.spawn(Box::pin(streaming::route(shared.clone(), stream, from))));
    }
}

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
}

impl Connection {
    /// Reads and answers requests until either side ends the connection. After the peer's end the requests in
    /// flight are still answered.
    pub(super) async fn run<S>(shared: Arc<Shared>, stream: S, from: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let texts = TextReader::new(reader, shared.config.max_message);
        let in_flight = Arc::new(Semaphore::new(shared.config.max_in_flight as usize));
        let (messages, outgoing) = mpsc::unbounded_channel();
        let reading = pin!(Self { shared, from, messages, in_flight }.read(texts));
        let writing = pin!(write_all(writer, outgoing));
        if let Either::Left((End::OfRequests, writing)) = select(reading, writing).await {
            // An error here is the connection's end as well: there is nobody left to tell.
            let _ = writing.await;
        }
    }

    async fn read<R: AsyncRead + Unpin>(self, mut texts: TextReader<R>) -> End {
        let max_in_flight = self.shared.config.max_in_flight;
        let mut malformed = 0;
        loop {
            let text = match timeout(self.shared.config.idle_timeout, texts.next()).await {
                Ok(Ok(Some(text))) => text,
                Ok(Ok(None)) => return End::OfRequests,
                Ok(Err(_)) => return End::OfConnection,
                Err(_) if self.in_flight.available_permits() == max_in_flight as usize => return End::OfRequests,
                Err(_) => continue,
            };
            let fatal = text.as_ref().is_err_and(FramingError::is_fatal);
            let size = text.as_ref().map_or(0, |text| text.len() / IN_FLIGHT_UNIT);
            let permits = u32::try_from(size + 1).unwrap_or(u32::MAX).min(max_in_flight);
            let request = match text {
                Ok(text) => RequestMessage::parse(&text),
                Err(e) => Err(MalformedMessage { rid: readable_rid(e.head()), reason: e.to_string() }),
            };
            let Ok(permit) = self.in_flight.clone().acquire_many_owned(permits).await else {
                return End::OfConnection;
            };
            match request {
                Ok(RequestMessage { rid, key, payload }) => {
                    let received = Event::RequestReceived { rid: rid.clone(), key: key.clone(), from: self.from };
                    self.shared.net.emit(received);
                    let replier = self.replier(rid.clone(), permit);
                    let request = Request { rid, key, payload, from: self.from, replier };
                    if self.shared.requests.send(request).await.is_err() {
                        return End::OfRequests;
                    }
                }
                Err(MalformedMessage { rid, reason }) => {
                    self.shared.malformed.fetch_add(1, Ordering::Relaxed);
                    self.shared.net.emit(Event::Malformed { layer: "rpc", from: self.from, reason });
                    if let Some(rid) = rid {
                        let error = if fatal { ERR_REQUEST_SIZE } else { ERR_REQUEST_PARSE };
                        self.replier(rid, permit).reply(&Err(error.to_owned()));
                    }
                    malformed += 1;
                }
            }
            if fatal || malformed >= MAX_MALFORMED {
                return End::OfRequests;
            }
        }
    }

    fn replier(&self, rid: String, permit: OwnedSemaphorePermit) -> Replier {
        Replier {
            net: self.shared.net.clone(),
            rid,
            to: self.from,
            messages: self.messages.clone(),
            permit: Some(permit),
        }
    }
}
