//! The asking side: sends requests over pooled connections and waits for their replies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use rand::{Rng as _, RngExt as _};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::carrier::{Carrier, Dial};
use super::error::RpcError;
use super::framing::MAX_TEXT;
use super::gate::Gate;
use super::message::RequestMessage;
use super::pool::{Job, PoolLimits, Ticket};
use crate::event::Event;
use crate::link::Link;
use crate::net::{LONGEST_WAIT, Net, Rng};
use crate::transport::{Endpoint, UtpStream};

/// The largest message that peers of the original implementation can read, in bytes: what one packet carries. Where the
/// path's MTU is unknown, 556 are safe.
pub const MAX_REFERENCE_MESSAGE: usize = 1382;

/// How long the end of a connection waits for the peer to acknowledge it. Then the stream sees to it in the background.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of a [`PeerRpcClient`].
#[derive(Debug, Clone)]
pub struct ClientConfig {
    transports: usize,
    active_destinations: usize,
    inactivity_timeout: Duration,
    pipeline: usize,
    max_message: usize,
    max_request: usize,
    request: RequestOptions,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            transports: 3,
            active_destinations: 5,
            inactivity_timeout: Duration::from_secs(120),
            pipeline: usize::MAX,
            max_message: MAX_TEXT,
            max_request: usize::MAX,
            request: RequestOptions::default(),
        }
    }
}

impl ClientConfig {
    /// The most connections to one destination (default 3, at least 1). A second one is opened when 32 requests are in
    /// flight on the first.
    pub fn transports(self, transports: usize) -> Self {
        Self { transports: transports.max(1), ..self }
    }

    /// From how many connected destinations of a key on requests go to those only (default 5, at least 1).
    pub fn active_destinations(self, active_destinations: usize) -> Self {
        Self { active_destinations: active_destinations.max(1), ..self }
    }

    /// After how long without a request or reply a connection is closed (default 120 s, at most a year).
    pub fn inactivity_timeout(self, inactivity_timeout: Duration) -> Self {
        Self { inactivity_timeout: inactivity_timeout.min(LONGEST_WAIT), ..self }
    }

    /// For peers of the original implementation: one request in flight on a connection, and none that is larger than
    /// such a peer can read ([`MAX_REFERENCE_MESSAGE`]): it fails unsent, and is not lost.
    ///
    /// These peers read one packet as one message, so they lose requests that share a packet and those larger than one.
    /// Their replies may be of any size. The same as [`pipeline`](Self::pipeline) 1 and
    /// [`max_request`](Self::max_request) 1382.
    pub fn reference_peers(self) -> Self {
        self.pipeline(1).max_request(MAX_REFERENCE_MESSAGE)
    }

    /// The most requests in flight on one connection (default unlimited, at least 1); further ones wait.
    pub fn pipeline(self, pipeline: usize) -> Self {
        Self { pipeline: pipeline.max(1), ..self }
    }

    /// The largest request and reply, in bytes (default 16 MiB). A larger request fails unsent, a larger reply ends
    /// its connection.
    pub fn max_message(self, max_message: usize) -> Self {
        Self { max_message, ..self }
    }

    /// The largest request, in bytes, where it is smaller than [`max_message`](Self::max_message) (default that).
    pub fn max_request(self, max_request: usize) -> Self {
        Self { max_request, ..self }
    }

    /// What requests use that are given no options of their own.
    pub fn request(self, request: RequestOptions) -> Self {
        Self { request, ..self }
    }
}

/// How one request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestOptions {
    pub(crate) timeout: Duration,
    retries: u32,
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), retries: 1 }
    }
}

impl RequestOptions {
    /// How long the request may take in all: lookup, connection, tries (default 60 s). Then it fails with
    /// [`RpcError::Timeout`]. At most a year.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(LONGEST_WAIT), ..self }
    }

    /// How often it is tried anew where its connection failed (default 1): at another address, where a key has one.
    ///
    /// The peer may have handled a request whose connection then failed: with 0 none is ever handled twice.
    pub fn retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }
}

/// A client of services: sends requests from a shared [`Endpoint`]. Cheap to clone; its connections close with the
/// last clone.
///
/// Dropping a request's future cancels it: a reply that comes later is ignored. [`stop`](Self::stop) ends a client in good
/// order.
///
/// ```no_run
/// use grenache::link::{Link, LinkConfig};
/// use grenache::rpc::{ClientConfig, PeerRpcClient, RpcError};
/// # async fn example(endpoint: grenache::transport::Endpoint) -> Result<(), RpcError> {
/// let link = Link::new(endpoint.net(), LinkConfig::new("127.0.0.1:30001".parse().unwrap()));
/// let client = PeerRpcClient::new(&endpoint, Some(link), ClientConfig::default());
/// let answer = client.request("rpc_test", &"hello".into()).await?;
/// println!("{answer}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PeerRpcClient(Arc<Inner>, RequestOptions);

#[derive(Debug)]
struct Inner {
    net: Net,
    link: Option<Link>,
    config: ClientConfig,
    rng: Mutex<Rng>,
    carrier: Arc<Carrier>,
    /// Requests are inside.
    gate: Gate,
    /// For connections outside of the pool; `None` in tests that dial otherwise.
    endpoint: Option<Endpoint>,
}

impl PeerRpcClient {
    /// A client that sends from `endpoint`, and looks keys up with `link`.
    pub fn new(endpoint: &Endpoint, link: Option<Link>, config: ClientConfig) -> Self {
        Self::build(endpoint.net(), Arc::new(endpoint.clone()), Some(endpoint.clone()), link, config)
    }

    #[cfg(test)]
    pub(super) fn over(net: &Net, dial: Arc<dyn Dial>, link: Option<Link>, config: ClientConfig) -> Self {
        Self::build(net, dial, None, link, config)
    }

    fn build(
        net: &Net,
        dial: Arc<dyn Dial>,
        endpoint: Option<Endpoint>,
        link: Option<Link>,
        config: ClientConfig,
    ) -> Self {
        let limits = PoolLimits {
            transports: config.transports,
            pipeline: config.pipeline,
            inactivity: config.inactivity_timeout,
        };
        let carrier = Carrier::new(net, dial, limits, config.max_message);
        let (rng, options) = (Mutex::new(net.rng("rpc")), config.request);
        Self(Arc::new(Inner { net: net.clone(), link, config, rng, carrier, gate: Gate::new(), endpoint }), options)
    }

    /// What its requests use that are given no options of their own.
    pub(crate) fn options(&self) -> RequestOptions {
        self.1
    }

    /// A handle on the same client whose requests use these options, where they are given none of their own.
    pub fn with(&self, options: RequestOptions) -> Self {
        Self(self.0.clone(), options)
    }

    /// Ends the client, all clones of it: further requests fail with [`RpcError::Stopped`], those in flight end as they
    /// would, each by its own timeout at the latest, and then the connections are closed, a FIN each. Bounded by the
    /// longest of those timeouts and [`CLOSE_TIMEOUT`].
    ///
    /// Streamed calls under way go on, as each has a connection of its own.
    ///
    /// Dropping the future leaves the client stopped and its requests in flight. Dropping the last clone is the quick
    /// way: it closes the connections in the background.
    pub async fn stop(&self) {
        self.0.gate.close();
        self.0.gate.empty().await;
        self.0.carrier.finish(CLOSE_TIMEOUT).await;
    }

    /// Looks `key` up and asks one of the services found: see [`request_with`](Self::request_with).
    ///
    /// # Errors
    /// As [`RpcError`] says.
    pub async fn request(&self, key: &str, payload: &Value) -> Result<Value, RpcError> {
        self.request_with(key, payload, self.1).await
    }

    /// Looks `key` up and asks one of the services found, at random: among those with a connection once there are
    /// enough of them ([`ClientConfig::active_destinations`]), else among all.
    ///
    /// # Errors
    /// As [`RpcError`] says.
    pub async fn request_with(&self, key: &str, payload: &Value, options: RequestOptions) -> Result<Value, RpcError> {
        let request = self.encode(key, payload);
        self.finish(&request, self.ask_key(&request, options), options).await
    }

    /// Asks the service at an address: see [`request_at_with`](Self::request_at_with).
    ///
    /// # Errors
    /// As [`RpcError`] says.
    pub async fn request_at(&self, to: SocketAddr, key: &str, payload: &Value) -> Result<Value, RpcError> {
        self.request_at_with(to, key, payload, self.1).await
    }

    /// Asks the service at an address, without a lookup.
    ///
    /// # Errors
    /// As [`RpcError`] says.
    pub async fn request_at_with(
        &self,
        to: SocketAddr,
        key: &str,
        payload: &Value,
        options: RequestOptions,
    ) -> Result<Value, RpcError> {
        let request = self.encode(key, payload);
        self.finish(&request, self.ask_address(&request, to, options), options).await
    }

    /// How many replies came for requests that were not in flight (any more).
    pub fn unknown_replies(&self) -> u64 {
        self.0.carrier.unknown_replies()
    }

    /// How many malformed texts were received instead of replies.
    pub fn malformed(&self) -> u64 {
        self.0.carrier.malformed()
    }

    /// How many connections there are, established or not.
    pub fn transports(&self) -> usize {
        self.0.carrier.pool().transports()
    }

    /// Ends the connections to an address, each once nothing is in flight on it. A further request opens another one.
    pub(crate) fn retire(&self, to: SocketAddr) {
        self.0.carrier.pool().retire(Instant::now().into_std(), to);
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.0.link.as_ref()
    }

    pub(super) fn rng(&self) -> MutexGuard<'_, Rng> {
        self.0.rng.lock().expect("no panic while locked")
    }

    pub(super) fn net(&self) -> &Net {
        &self.0.net
    }

    /// A request's id.
    pub(super) fn new_id(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.rng().fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Looks `key` up, anew where something has failed, and chooses one of the services found.
    pub(super) async fn find(&self, key: &str, failed: &[SocketAddr]) -> Result<SocketAddr, RpcError> {
        let link = self.0.link.as_ref().ok_or(RpcError::NoLink)?;
        // What is cached led to a failure: the service may have moved.
        let found = if failed.is_empty() { link.lookup(key).await? } else { link.lookup_fresh(key).await? };
        Ok(self.choose(&found, failed))
    }

    /// A connection outside of the pool.
    pub(super) async fn connect_alone(&self, to: SocketAddr) -> Result<UtpStream, RpcError> {
        let endpoint = self.0.endpoint.as_ref().ok_or(RpcError::TransportClose)?;
        let _inside = self.0.gate.enter().ok_or(RpcError::Stopped)?;
        endpoint.connect(to).await.map_err(|e| RpcError::from(&e))
    }

    fn encode<'a>(&self, key: &'a str, payload: &Value) -> Encoded<'a> {
        let id = self.new_id();
        let rid = id.to_string();
        let text = RequestMessage::encode(&rid, key, payload);
        Encoded { id, rid, key, text }
    }

    /// Waits for the outcome within the timeout and reports it: a request's one end.
    async fn finish(
        &self,
        request: &Encoded<'_>,
        asking: impl Future<Output = Result<(SocketAddr, Value), RpcError>>,
        options: RequestOptions,
    ) -> Result<Value, RpcError> {
        let deadline = Instant::now() + options.timeout;
        let outcome = match self.0.gate.enter() {
            Some(_inside) => timeout_at(deadline, asking).await.unwrap_or(Err(RpcError::Timeout)),
            None => Err(RpcError::Stopped),
        };
        let (rid, key) = (request.rid.clone(), request.key.to_owned());
        self.0.net.emit(match &outcome {
            Ok((from, value)) => Event::ReplyReceived { rid, key, from: *from, value: value.clone() },
            Err(e) => Event::RequestFailed { rid, key, error: e.to_string() },
        });
        outcome.map(|(_, value)| value)
    }

    async fn ask_address(
        &self,
        request: &Encoded<'_>,
        to: SocketAddr,
        options: RequestOptions,
    ) -> Result<(SocketAddr, Value), RpcError> {
        let mut retries = 0;
        loop {
            match self.attempt(request, to).await {
                Err(e) if e.is_transport() && retries < options.retries => retries += 1,
                outcome => return outcome.map(|value| (to, value)),
            }
        }
    }

    async fn ask_key(&self, request: &Encoded<'_>, options: RequestOptions) -> Result<(SocketAddr, Value), RpcError> {
        let mut failed = Vec::new();
        loop {
            let to = self.find(request.key, &failed).await?;
            match self.attempt(request, to).await {
                Err(e) if e.is_transport() && failed.len() < options.retries as usize => failed.push(to),
                outcome => return outcome.map(|value| (to, value)),
            }
        }
    }

    /// One of the addresses that were found, of which there is at least one; preferably none that failed.
    fn choose(&self, found: &[SocketAddr], failed: &[SocketAddr]) -> SocketAddr {
        let fresh: Vec<SocketAddr> = found.iter().copied().filter(|to| !failed.contains(to)).collect();
        let all = if fresh.is_empty() { found } else { &fresh[..] };
        let active: Vec<SocketAddr> = {
            let pool = self.0.carrier.pool();
            all.iter().copied().filter(|&to| pool.is_active(to)).collect()
        };
        let among = if active.len() >= self.0.config.active_destinations { &active[..] } else { all };
        among[self.rng().random_range(0..among.len())]
    }

    /// Sends a request once and waits for what comes of it.
    async fn attempt(&self, request: &Encoded<'_>, to: SocketAddr) -> Result<Value, RpcError> {
        let (size, limit) = (request.text.len(), self.0.config.max_message.min(self.0.config.max_request));
        if size > limit {
            return Err(RpcError::TooLarge { size, limit });
        }
        let (reply, answer) = oneshot::channel();
        let job = Job { rid: request.id, text: request.text.clone(), reply };
        let sent = Event::RequestSent { rid: request.rid.clone(), key: request.key.to_owned(), to };
        let ticket = self.0.carrier.submit(to, job)?;
        self.0.net.emit(sent);
        let mut waiting = Waiting { client: self, to, rid: request.id, ticket: Some(ticket) };
        let outcome = answer.await;
        waiting.ticket = None;
        outcome.unwrap_or(Err(RpcError::TransportClose))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.carrier.close();
    }
}

/// A request ready to be sent.
struct Encoded<'a> {
    id: Uuid,
    rid: String,
    key: &'a str,
    text: Bytes,
}

/// A request in flight, forgotten by the pool when its future is dropped.
struct Waiting<'a> {
    client: &'a PeerRpcClient,
    to: SocketAddr,
    rid: Uuid,
    ticket: Option<Ticket>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.client.0.carrier.cancel(self.to, ticket, self.rid);
        }
    }
}
