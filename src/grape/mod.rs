//! An embedded Grape: a DHT node that keeps track of services, and an HTTP API to it.
//!
//! It speaks the DHT messages and the HTTP of the npm package `grenache-grape` 1.0.0, so that both can be mixed in one
//! DHT and behind one client. A [`Grape`] is the whole; [`node`] is the DHT node without I/O, [`krpc`] its messages.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use grenache::grape::{Grape, GrapeConfig};
//! use grenache::net::{HostNetwork, Net};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let net: Net = Arc::new(HostNetwork::new());
//! let config = GrapeConfig::default()
//!     .dht_address("127.0.0.1:20001".parse()?)
//!     .api_address("127.0.0.1:30001".parse()?)
//!     .bootstrap(vec!["127.0.0.1:20002".parse()?]);
//! let grape = Grape::start(&net, config).await?;
//! grape.ready().await;
//! grape.close().await;
//! # Ok(())
//! # }
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use self::driver::{Driver, Handle, Status};
use self::http::Api;
pub use self::http::{HTTP_TIMEOUT, MAX_HTTP_CONNECTIONS};
use self::krpc::NodeId;
use self::node::{Node, NodeConfig, NodeStats};
pub use self::tokens::TokenSecrets;
use crate::net::{LONGEST_WAIT, Net, Task};

mod bencode;
mod driver;
mod http;
pub mod krpc;
mod mutable;
pub mod node;
mod operation;
mod peers;
mod queries;
mod search;
mod table;
mod tokens;
mod values;

/// A running Grape. It ends when this is dropped.
#[derive(Debug)]
pub struct Grape {
    dht_addr: SocketAddr,
    api_addr: SocketAddr,
    id: NodeId,
    status: watch::Receiver<Status>,
    state: watch::Receiver<GrapeState>,
    handle: Handle,
    malformed: Arc<AtomicU64>,
    tasks: Vec<Task>,
    /// Yields `None` once every task of this Grape is gone, and its sockets with them.
    gone: mpsc::Receiver<()>,
}

/// What a Grape may keep across a restart: other nodes then know it again, and the tokens that it gave out go on
/// counting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrapeState {
    /// The DHT node's id.
    pub node_id: NodeId,
    /// What its tokens are made from. Not for anybody else to see.
    pub token_secrets: TokenSecrets,
}

/// Settings of a [`Grape`]. The defaults are those of the reference's class.
#[derive(Debug, Clone)]
#[must_use]
pub struct GrapeConfig {
    dht_address: SocketAddr,
    api_address: SocketAddr,
    max_payload: usize,
    node: NodeConfig,
}

impl Default for GrapeConfig {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self { dht_address: any, api_address: any, max_payload: 8192, node: NodeConfig::default() }
    }
}

impl GrapeConfig {
    /// Where the DHT node listens, UDP over IPv4 (default any address, any port).
    pub fn dht_address(mut self, address: SocketAddr) -> Self {
        self.dht_address = address;
        self
    }

    /// Where the HTTP API listens (default any address, any port).
    pub fn api_address(mut self, address: SocketAddr) -> Self {
        self.api_address = address;
        self
    }

    /// Other Grapes' DHT addresses to start from (default none). They need not be up yet.
    pub fn bootstrap(mut self, addresses: Vec<SocketAddrV4>) -> Self {
        self.node.bootstrap = addresses;
        self
    }

    /// The DHT node's id (default random).
    pub fn node_id(mut self, id: NodeId) -> Self {
        self.node.id = Some(id);
        self
    }

    /// Goes on as the Grape that had this [`state`](Grape::state) (default: a new id and new secrets).
    pub fn state(mut self, state: GrapeState) -> Self {
        (self.node.id, self.node.token_secrets) = (Some(state.node_id), Some(state.token_secrets));
        self
    }

    /// How many services' names are stored (default 5000). Beyond it the one announced longest ago goes; but an address
    /// that has announced half of them takes the room from its own, so that none can have them all.
    pub fn max_tables(mut self, tables: NonZeroUsize) -> Self {
        self.node.max_tables = tables;
        self
    }

    /// How many values are stored (default 5000). Beyond it the least recently used goes; but an address that has put
    /// half of them takes the room from its own.
    pub fn max_values(mut self, values: NonZeroUsize) -> Self {
        self.node.max_values = values;
        self
    }

    /// How long a service is stored after its last announce (default 120 s): between one and two times this.
    pub fn peer_max_age(mut self, age: Duration) -> Self {
        self.node.peer_max_age = age.min(LONGEST_WAIT);
        self
    }

    /// How long what this Grape's own lookups found is given again (default half of `peer_max_age`): between one and
    /// two times this.
    pub fn cache_max_age(mut self, age: Duration) -> Self {
        self.node.cache_max_age = Some(age.min(LONGEST_WAIT));
        self
    }

    /// After how much silence another node is pinged (default 5 min, at least 10 s).
    pub fn liveness(mut self, silence: Duration) -> Self {
        self.node.liveness = silence.min(LONGEST_WAIT);
        self
    }

    /// How many queries one announce, lookup, put or get keeps in flight (default 24).
    pub fn concurrency(mut self, queries: usize) -> Self {
        self.node.concurrency = queries;
        self
    }

    /// The longest body of an HTTP request, in bytes (default 8192). Longer ones are answered with 413.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Stores what is announced through this Grape at this Grape too, under this address (default not): the
    /// reference's `--bind`.
    pub fn store_own(mut self, address: Ipv4Addr) -> Self {
        self.node.store_own = Some(address);
        self
    }
}

/// Why a Grape did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GrapeError {
    /// The DHT node's address cannot be used.
    #[error("cannot bind the DHT node to UDP {address}: choose another address or port, or end what uses it")]
    Dht {
        /// The address.
        address: SocketAddr,
        /// What the network says.
        source: io::Error,
    },
    /// The HTTP API's address cannot be used.
    #[error("cannot listen for the HTTP API on TCP {address}: choose another address or port, or end what uses it")]
    Api {
        /// The address.
        address: SocketAddr,
        /// What the network says.
        source: io::Error,
    },
}

impl Grape {
    /// Binds both sockets and starts the bootstrap; does not wait for its end.
    ///
    /// # Errors
    /// Where an address cannot be used.
    pub async fn start(net: &Net, config: GrapeConfig) -> Result<Self, GrapeError> {
        let GrapeConfig { dht_address, api_address, max_payload, node: mut node_config } = config;
        let dht_error = |source| GrapeError::Dht { address: dht_address, source };
        let api_error = |source| GrapeError::Api { address: api_address, source };
        if !dht_address.is_ipv4() {
            // BEP 5's compact addresses are four bytes and a port.
            return Err(dht_error(io::Error::new(io::ErrorKind::Unsupported, "the DHT is over IPv4")));
        }
        let socket = net.bind_udp(dht_address).map_err(dht_error)?;
        let dht_addr = socket.local_addr().map_err(dht_error)?;
        let listener = net.listen_tcp(api_address).await.map_err(api_error)?;
        let api_addr = listener.local_addr().map_err(api_error)?;

        let mut rng = net.rng("grape");
        node_config.port = dht_addr.port();
        let node = Node::new(tokio::time::Instant::now().into_std(), &mut rng, node_config);
        let id = node.id();
        let (alive, gone) = mpsc::channel(1);
        let (status, watched) = watch::channel(Status::default());
        let (state, kept) = watch::channel(GrapeState { node_id: id, token_secrets: node.token_secrets().clone() });
        let (handle, commands) = Handle::new();
        let port = api_addr.port();
        let driver = Driver::new(net.clone(), socket, node, rng, commands, status, state, port, alive.clone());
        let api = Api::new(net.clone(), handle.clone(), max_payload, alive);
        let malformed = api.malformed_count();
        let tasks = vec![net.spawn(Box::pin(driver.run())), net.spawn(Box::pin(api.serve(listener)))];
        Ok(Self { dht_addr, api_addr, id, status: watched, state: kept, handle, malformed, tasks, gone })
    }

    /// Where the DHT node listens, with the port that was given.
    pub fn dht_addr(&self) -> SocketAddr {
        self.dht_addr
    }

    /// Where the HTTP API listens, with the port that was given.
    pub fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// The DHT node's id.
    pub fn node_id(&self) -> NodeId {
        self.id
    }

    /// Waits until the first bootstrap is over: other nodes are known, or none answered within two seconds.
    ///
    /// A Grape that found nobody tries again and again, and joins once a bootstrap node is up.
    pub async fn ready(&self) {
        // An error means that the driver has ended, which nothing waits out.
        let _ = self.status.clone().wait_for(|status| status.ready).await;
    }

    /// One more DHT node to start from, where its address was not known at the start.
    pub async fn add_bootstrap(&self, address: SocketAddrV4) {
        self.handle.add_bootstrap(address).await;
    }

    /// What to keep for [`GrapeConfig::state`]. It changes every five minutes, when the token secrets rotate.
    pub fn state(&self) -> watch::Receiver<GrapeState> {
        self.state.clone()
    }

    /// What its DHT node holds and has seen.
    pub fn stats(&self) -> NodeStats {
        self.status.borrow().stats
    }

    /// How many HTTP requests were malformed: not HTTP, not JSON, or too long.
    pub fn malformed_requests(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Waits until `condition` holds for what its DHT node holds and has seen; gives that.
    ///
    /// It is looked at once the node has nothing more to do for now, not after each datagram.
    pub async fn until(&self, mut condition: impl FnMut(&NodeStats) -> bool) -> NodeStats {
        // An error means that the driver has ended, which nothing waits out.
        let mut status = self.status.clone();
        let _ = status.wait_for(|status| condition(&status.stats)).await;
        status.borrow().stats
    }

    /// Ends it, and waits until its sockets are closed. Requests under way are cut off.
    pub async fn close(mut self) {
        self.tasks.clear();
        while self.gone.recv().await.is_some() {}
    }
}
