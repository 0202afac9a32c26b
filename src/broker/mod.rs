//! Who is out there: registration and introductions.
//!
//! A broker is a public service. Peers that want to offer or use a service register with it, again and again, and are
//! told of each other by the addresses that the broker sees; then they punch each other.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::event::Event;
use crate::link::{ANNOUNCE_INTERVAL, Announcing, Link};
use crate::net::Net;
use crate::rpc::{PeerRpcServer, ServerConfig};
use crate::transport::Endpoint;

mod client;
pub mod registry;

pub use client::{BrokerAddress, BrokerClient, MAX_PUNCHED, PREDICTED_PORTS, REGISTER_INTERVAL, REGISTER_RETRY};
pub use registry::{Entry, Registration, Registry};

/// Settings of a [`Broker`].
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    name: String,
    announce_interval: Duration,
    server: ServerConfig,
}

impl BrokerConfig {
    /// The defaults, for a broker that is announced as `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), announce_interval: ANNOUNCE_INTERVAL, server: ServerConfig::default() }
    }

    /// How often the name is announced, more or less (default 2 min).
    pub fn announce_interval(self, announce_interval: Duration) -> Self {
        Self { announce_interval, ..self }
    }

    /// Settings of its server.
    pub fn server(self, server: ServerConfig) -> Self {
        Self { server, ..self }
    }
}

/// A running broker. Dropping it ends it.
///
/// ```no_run
/// use grenache::broker::{Broker, BrokerConfig};
/// # fn example(endpoint: grenache::transport::Endpoint, link: grenache::link::Link) {
/// let _broker = Broker::start(&endpoint, Some(&link), BrokerConfig::new("fibo_broker"));
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping a broker ends it"]
pub struct Broker {
    server: PeerRpcServer,
    announcing: Option<Announcing>,
}

impl Broker {
    /// Serves registrations on the endpoint, and announces the broker's name where there is a link.
    pub fn start(endpoint: &Endpoint, link: Option<&Link>, config: BrokerConfig) -> Self {
        let net = endpoint.net().clone();
        let registry = Mutex::new(Registry::new());
        let server = PeerRpcServer::serve(endpoint, config.server, move |request| {
            std::future::ready(answer(&net, &registry, request.from, &request.payload))
        });
        let port = endpoint.local_addr().port();
        let announcing = link.map(|link| link.start_announcing(&config.name, port, config.announce_interval));
        Self { server, announcing }
    }

    /// Waits until its name was announced for the first time; returns at once where there is no link.
    pub async fn announced(&self) {
        if let Some(announcing) = &self.announcing {
            announcing.announced().await;
        }
    }

    /// Ends in good order: announces no more, and stops its server as [`PeerRpcServer::stop`] does.
    pub async fn stop(self) {
        if let Some(announcing) = self.announcing {
            announcing.stop().await;
        }
        self.server.stop().await;
    }

    /// How many malformed texts were received so far; registrations that make no sense are not among them.
    pub fn malformed(&self) -> u64 {
        self.server.malformed()
    }
}

fn answer(net: &Net, registry: &Mutex<Registry>, from: SocketAddr, payload: &Value) -> Result<Value, String> {
    let registration = Registration::try_from(payload).map_err(|e| {
        net.emit(Event::Malformed { layer: "broker", from, reason: e.to_string() });
        e.to_string()
    })?;
    let Registration { service, server } = registration.clone();
    let now = Instant::now().into_std();
    let answer = registry.lock().expect("no panic while locked").register(now, from, registration);
    net.emit(Event::Registered { service, server, address: from });
    Ok(answer)
}
