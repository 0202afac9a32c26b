//! The serving side: accepts connections, reads requests, writes replies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::bounds::{Held, InFlight, Most, Sources, Unsent, UnsentReply};
use super::framing::MAX_TEXT;
use super::gate::Gate;
use super::message::ReplyMessage;
use super::stream::Outgoing;
use super::streaming;
use crate::event::Event;
use crate::limits::{Limit, LimitCounts};
use crate::net::{LONGEST_WAIT, Net, Task};
use crate::transport::Endpoint;

/// The error that a client gets where a [`Request`] was dropped without an answer.
pub const ERR_NO_REPLY: &str = "ERR_NO_REPLY";

/// The error that a client gets for a request that cannot be read but for its id.
pub const ERR_REQUEST_PARSE: &str = "ERR_REQUEST_PARSE";

/// The error that a client gets for a request over the size limit, before the connection is closed.
pub const ERR_REQUEST_SIZE: &str = "ERR_REQUEST_SIZE";

/// The error that a client gets for a request that took too long to arrive, before the connection is closed.
pub const ERR_REQUEST_TIME: &str = "ERR_REQUEST_TIME";

/// Settings of a [`PeerRpcServer`].
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub(super) max_message: usize,
    pub(super) max_in_flight: u32,
    max_connections: usize,
    max_queue: usize,
    pub(super) max_in_flight_total: u32,
    max_unfinished: usize,
    pub(super) max_unsent: usize,
    max_unsent_total: usize,
    pub(super) write_timeout: Duration,
    pub(super) idle_timeout: Duration,
    stop_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_message: MAX_TEXT,
            max_in_flight: 1024,
            max_connections: 4096,
            max_queue: 1024,
            max_in_flight_total: 32_768,
            max_unfinished: 256 << 20,
            max_unsent: 16 << 20,
            max_unsent_total: 256 << 20,
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(180),
            stop_timeout: Duration::from_secs(60),
        }
    }
}

impl ServerConfig {
    /// The largest request, in bytes (default 16 MiB). A larger one is answered with [`ERR_REQUEST_SIZE`], and its
    /// connection is closed.
    pub fn max_message(self, max_message: usize) -> Self {
        Self { max_message, ..self }
    }

    /// How many requests of one connection may be unanswered (default 1024, at least 1); a large one counts once more
    /// for each 16 KiB. At the limit nothing more is read from it, so that µTP's window slows the peer down.
    pub fn max_in_flight(self, max_in_flight: u32) -> Self {
        Self { max_in_flight: max_in_flight.max(1), ..self }
    }

    /// How many connections may be open (default 4096), on all endpoints that it serves on. Further ones are reset.
    pub fn max_connections(self, max_connections: usize) -> Self {
        Self { max_connections, ..self }
    }

    /// How many requests of all connections may wait for [`Requests::next`] (default 1024, at least 1). At the limit
    /// nothing more is read.
    pub fn max_queue(self, max_queue: usize) -> Self {
        Self { max_queue: max_queue.clamp(1, tokio::sync::Semaphore::MAX_PERMITS), ..self }
    }

    /// How many requests of all connections may be unanswered (default 32,768, at least 1); large ones count as for
    /// [`max_in_flight`](Self::max_in_flight). Half of them may be from one source ([`limits`](crate::limits)). At the limit nothing more is read,
    /// or nothing from there.
    pub fn max_in_flight_total(self, max_in_flight_total: u32) -> Self {
        Self { max_in_flight_total: max_in_flight_total.max(1), ..self }
    }

    /// How many bytes the unfinished requests of all connections may have together, 16 KiB of each not counted (default
    /// 256 MiB), half of them on connections from one source. A connection that needs more gets
    /// [`ERR_REQUEST_SIZE`] and is closed.
    pub fn max_unfinished(self, max_unfinished: usize) -> Self {
        Self { max_unfinished, ..self }
    }

    /// How many bytes of replies may wait for a peer that does not read them (default 16 MiB). Beyond it, no further
    /// request is read from it; those in flight already are still answered.
    pub fn max_unsent(self, max_unsent: usize) -> Self {
        Self { max_unsent: max_unsent.max(1), ..self }
    }

    /// How many bytes of replies of all connections may wait to be taken (default 256 MiB), half of them on connections
    /// from one source. Beyond it, no further request is read, or none from there, until they are taken or
    /// [`write_timeout`](Self::write_timeout) ends their connections; those in flight already are still answered.
    pub fn max_unsent_total(self, max_unsent_total: usize) -> Self {
        Self { max_unsent_total: max_unsent_total.max(1), ..self }
    }

    /// What all connections together may hold.
    pub(super) fn most(&self) -> Most {
        Most { unfinished: self.max_unfinished, in_flight: self.max_in_flight_total, unsent: self.max_unsent_total }
    }

    /// How long a peer may take to make room for a reply (default 60 s, at most a year), and a second more for each
    /// [`TEXT_RATE`](super::TEXT_RATE) bytes of it. Then its connection is closed; what µTP still holds goes with its
    /// linger.
    pub fn write_timeout(self, write_timeout: Duration) -> Self {
        Self { write_timeout: write_timeout.min(LONGEST_WAIT), ..self }
    }

    /// After how long without a request, and with none unanswered, a connection is closed (default 180 s: longer than
    /// clients keep an unused one).
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }

    /// How long [`PeerRpcServer::stop`] waits for what is in flight to be answered (default 60 s, for as long as clients
    /// wait for a reply).
    pub fn stop_timeout(self, stop_timeout: Duration) -> Self {
        Self { stop_timeout, ..self }
    }
}

/// A server of requests on a shared [`Endpoint`]. Dropping it closes its connections and ends its handlers;
/// [`stop`](Self::stop) lets them finish.
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
    pub(super) replier: Replier,
}

/// A request as a handler gets it: see [`PeerRpcServer::serve`].
#[derive(Debug, Clone, PartialEq)]
pub struct RequestParts<P = Value> {
    /// Its id.
    pub rid: String,
    /// The service's name that the client asked for.
    pub key: String,
    /// What is asked.
    pub payload: P,
    /// The client's address, as this side sees it.
    pub from: SocketAddr,
}

impl PeerRpcServer {
    /// Accepts connections from now on; the requests come out of [`Requests`].
    pub fn new(endpoint: &Endpoint, config: ServerConfig) -> (Self, Requests) {
        let (shared, requests) = Shared::with(endpoint.net(), endpoint.limits().clone(), config);
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
            // They end with this task.
            let mut handlers: Vec<Task> = Vec::new();
            while let Some(request) = requests.next().await {
                let Request { rid, key, payload, from, replier } = request;
                let (parts, handler) = (RequestParts { rid, key, payload, from }, handler.clone());
                let handling = Box::pin(async move { replier.reply(&handler(parts).await) });
                keep(&mut handlers, net.spawn(handling));
            }
        })));
        server
    }

    /// Ends in good order: accepts no more connections, reads no more requests, waits until those that were read are
    /// answered, and closes each connection with a FIN. What is not done within
    /// [`stop_timeout`](ServerConfig::stop_timeout) is cut off.
    ///
    /// Whoever takes requests from [`Requests`] must go on until there are none. New connections wait at the endpoint:
    /// close it, or serve on it anew.
    pub async fn stop(self) {
        self.shared.gate.close();
        self.shared.stopped().await;
    }

    /// Accepts connections on a further endpoint too, for as long as the task is kept: what serves a peer that reached
    /// another socket of this host's.
    pub fn also_on(&self) -> impl Fn(&Endpoint) -> Task + Clone + Send + Sync + 'static {
        let shared = self.shared.clone();
        move |endpoint| endpoint.net().spawn(Box::pin(accept(endpoint.clone(), shared.clone())))
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
pub(super) struct Replier {
    pub(super) net: Net,
    pub(super) rid: String,
    pub(super) to: SocketAddr,
    pub(super) messages: mpsc::UnboundedSender<Outgoing>,
    pub(super) permit: Option<InFlight>,
    pub(super) unsent: [Arc<Unsent>; 3],
}

impl Replier {
    pub(super) fn reply(mut self, result: &Result<Value, String>) {
        self.send(result);
    }

    fn send(&mut self, result: &Result<Value, String>) {
        let Some(permit) = self.permit.take() else { return };
        let text = ReplyMessage::encode(&self.rid, result);
        let unsent = Some(UnsentReply::new(&self.unsent, text.len()));
        if self.messages.send(Outgoing { text, permit: Some(permit), unsent, wanted: None }).is_ok() {
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
    pub(super) config: ServerConfig,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) malformed: AtomicU64,
    pub(super) limits: Arc<LimitCounts>,
    /// Places for connections, on all endpoints.
    connections: Arc<Semaphore>,
    pub(super) all: Held,
    pub(super) sources: Sources,
    /// Connections are inside.
    gate: Gate,
    offers: streaming::Offers,
}

impl Shared {
    #[cfg(test)]
    pub(super) fn new(net: &Net, config: ServerConfig) -> (Arc<Self>, Requests) {
        Self::with(net, Arc::new(LimitCounts::new(net)), config)
    }

    fn with(net: &Net, limits: Arc<LimitCounts>, config: ServerConfig) -> (Arc<Self>, Requests) {
        let connections = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
        let most = config.most();
        let (all, sources) = (Held::new(most), Sources::new(most.of_source()));
        let (requests, received) = mpsc::channel(config.max_queue);
        let (malformed, gate, offers) = (AtomicU64::new(0), Gate::new(), streaming::Offers::default());
        let net = net.clone();
        let shared = Self { net, config, requests, malformed, limits, connections, all, sources, gate, offers };
        (Arc::new(shared), Requests(received))
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Waits until every connection has ended, or for as long as it may.
    pub(super) async fn stopped(&self) {
        let _ = timeout(self.config.stop_timeout, self.gate.empty()).await;
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
    while let Some(accepted) = shared.gate.unless_closed(endpoint.accept()).await {
        let Some(stream) = accepted else { return };
        let from = stream.peer_addr();
        let Ok(place) = shared.connections.clone().try_acquire_owned() else {
            shared.limits.reached(Limit::ServerConnections, Some(from));
            stream.reset();
            continue;
        };
        let running = streaming::route(shared.clone(), stream, from);
        let task = Box::pin(async move {
            let _place = place;
            running.await;
        });
        keep(&mut connections, shared.net.spawn(task));
    }
    // They end with this task.
    shared.gate.empty().await;
}

/// Keeps a task among others, of which those that have ended go now and then.
fn keep(tasks: &mut Vec<Task>, task: Task) {
    if tasks.len() == tasks.capacity() {
        tasks.retain(|task| !task.is_finished());
        // As many more as are at work, at least: tidying costs little for each.
        tasks.reserve(tasks.len().max(64));
    }
    tasks.push(task);
}
