//! The asking side: sends requests over pooled connections and waits for their replies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rand::{Rng as _, RngExt as _};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::carrier::{Carrier, Dial};
use super::error::RpcError;
use super::framing::MAX_TEXT;
use super::message::RequestMessage;
use super::pool::{Job, PoolLimits, Ticket};
use crate::event::Event;
use crate::link::Link;
use crate::net::{LONGEST_WAIT, Net, Rng};
use crate::transport::{Endpoint, UtpStream};

/// Settings of a [`PeerRpcClient`].
#[derive(Debug, Clone)]
pub struct ClientConfig {
    transports: usize,
    active_destinations: usize,
    inactivity_timeout: Duration,
    pipeline: usize,
    max_message: usize,
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

    /// The most requests in flight on one connection (default unlimited, at least 1); further ones wait.
    ///
    /// Peers of the original implementation read one packet as one message, so they lose requests that share a packet
    /// and those larger than one. To talk to them set this to 1 and keep requests and replies below 1382 bytes (556
    /// where the path's MTU is unknown).
    pub fn pipeline(self, pipeline: usize) -> Self {
        Self { pipeline: pipeline.max(1), ..self }
    }

    /// The largest request and reply, in bytes (default 16 MiB). A larger request fails unsent, a larger reply ends
    /// its connection.
    pub fn max_message(self, max_message: usize) -> Self {
        Self { max_message, ..self }
    }

    /// What requests use that are given no options of their own.
    pub fn request(self, request: RequestOptions) -> Self {
        Self { request, ..self }
    }
}

/// How one request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestOptions {
    timeout: Duration,
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
/// Dropping a request's future cancels it: a reply that comes later is ignored.
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
pub struct PeerRpcClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    net: Net,
    link: Option<Link>,
    config: ClientConfig,
    rng: Mutex<Rng>,
    carrier: Arc<Carrier>,
    /// For connections outside of the pool; `None` in tests that dial otherwise.
    endpoint: Option<Endpoint>,
}

impl PeerRpcClient {
    /// A client that sends from `endpoint`, and looks keys up with `link`.
    pub fn new(endpoint: &Endpoint, link: Option<Link>, config: ClientConfig) -> Self {
        Self::with(endpoint.net(), Arc::new(endpoint.clone()), Some(endpoint.clone()), link, config)
    }

    #[cfg(test)]
    pub(super) fn over(net: &Net, dial: Arc<dyn Dial>, link: Option<Link>, config: ClientConfig) -> Self {
        Self::with(net, dial, None, link, config)
    }

    fn with(
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
        Self(Arc::new(Inner { net: net.clone(), link, config, rng: Mutex::new(net.rng("rpc")), carrier, endpoint }))
    }

    /// Looks `key` up and asks one of the services found: see [`request_with`](Self::request_with).
    ///
    /// # Errors
    /// As [`RpcError`] says.
    pub async fn request(&self, key: &str, payload: &Value) -> Result<Value, RpcError> {
        self.request_with(key, payload, self.0.config.request).await
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
        self.request_at_with(to, key, payload, self.0.config.request).await
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

    /// Looks `key` up and asks every service found, or `limit` of them at random; gives each one's outcome.
    ///
    /// # Errors
    /// Where the lookup fails.
    pub async fn map(
        &self,
        key: &str,
        payload: &Value,
        limit: Option<usize>,
        options: RequestOptions,
    ) -> Result<Vec<(SocketAddr, Result<Value, RpcError>)>, RpcError> {
        let link = self.0.link.as_ref().ok_or(RpcError::NoLink)?;
        let deadline = Instant::now() + options.timeout;
        let mut addresses = timeout_at(deadline, link.lookup(key)).await.map_err(|_| RpcError::Timeout)??;
        let limit = limit.unwrap_or(addresses.len()).min(addresses.len());
        for chosen in 0..limit {
            let other = self.rng().random_range(chosen..addresses.len());
            addresses.swap(chosen, other);
        }
        addresses.truncate(limit);
        let options = options.timeout(deadline.saturating_duration_since(Instant::now()));
        Ok(join_all(addresses.into_iter().map(async |to| (to, self.request_at_with(to, key, payload, options).await)))
            .await)
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

    fn rng(&self) -> MutexGuard<'_, Rng> {
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
        let outcome = timeout_at(deadline, asking).await.unwrap_or(Err(RpcError::Timeout));
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
        let (size, limit) = (request.text.len(), self.0.config.max_message);
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
