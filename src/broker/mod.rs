//! Who is out there: registration and introductions.
//!
//! A broker is a public service. Peers that want to offer or use a service register with it, again and again, and are
//! told of each other by the addresses that the broker sees; then they punch each other.
//!
//! # Beyond the original
//!
//! Peers opt in with keys that brokers of the original ignore, and only those that did are answered with more than the
//! original's brokers say. [`connect`](crate::connect) uses all of it.
//!
//! | in a request | |
//! |---|---|
//! | `"nat": {"mapping": …, "filtering": …, "ports": …}` | what the peer's NAT does ([`Behaviour`](crate::nat::Behaviour)); told to others that opted in |
//! | `"wait": ms` | opts in; the answer is held back until there is news, for [`MAX_WAIT`] at most |
//! | `"do": "signal", "to": key, "data": …` | leaves another registered peer a note of at most [`MAX_SIGNAL`] bytes |
//! | `"do": "relay", "to": key` | opens a relay to another registered peer; gives `{"port": …, "token": …}` |
//!
//! The answer to a registration that opted in has the key [`EXTENSION`] beside the service's name: `{"key": the peer's own,
//! "you": its address, "relay": whether the broker relays, "signals": [{"from": key, "address": …, "data": …}, …]}`.
//! Sockets ask where they are seen with datagrams of their own ([`nat::probe`](crate::nat::probe)).

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng as _;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, timeout_at};

use self::extension::{Action, Asked, Offers, RelayOffer};
use self::registry::NotRegistered;
use self::relay::RelayRefused;
use crate::event::Event;
use crate::link::{ANNOUNCE_INTERVAL, Announcing, Link};
use crate::nat::probe::{Probe, Probed};
use crate::net::{Net, Rng, Task};
use crate::places::Places;
use crate::rpc::{PeerRpcServer, ServerConfig};
use crate::transport::{Datagram, Endpoint};

mod client;
pub(crate) mod extension;
pub mod registry;
pub(crate) mod relay;
mod relay_socket;
mod rendezvous;

pub use client::{BrokerAddress, BrokerClient, MAX_PUNCHED, PREDICTED_PORTS, REGISTER_INTERVAL, REGISTER_RETRY};
pub use extension::{EXTENSION, MAX_SIGNAL, MAX_WAIT};
pub(crate) use registry::ERR_NO_PEER;
pub use registry::{Entry, Registration, Registry};
pub use relay::RelayConfig;
pub(crate) use rendezvous::Rendezvous;

/// The largest request that a broker takes unless its server is set otherwise, in bytes: a registration or a signal has far
/// less.
pub const MAX_REQUEST: usize = 64 << 10;

/// Settings of a [`Broker`].
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    name: String,
    announce_interval: Duration,
    server: ServerConfig,
    relay: Option<RelayConfig>,
    alternate: Option<Endpoint>,
}

impl BrokerConfig {
    /// The defaults, for a broker that is announced as `name`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            announce_interval: ANNOUNCE_INTERVAL,
            server: ServerConfig::default().max_message(MAX_REQUEST),
            relay: None,
            alternate: None,
        }
    }

    /// How often the name is announced, more or less (default 2 min).
    pub fn announce_interval(self, announce_interval: Duration) -> Self {
        Self { announce_interval, ..self }
    }

    /// Settings of its server (default: those of [`ServerConfig`], but with requests of [`MAX_REQUEST`] bytes at most).
    pub fn server(self, server: ServerConfig) -> Self {
        Self { server, ..self }
    }

    /// Relays for peers that cannot be connected otherwise, within these limits (default: it does not).
    pub fn relay(self, relay: RelayConfig) -> Self {
        Self { relay: Some(relay), ..self }
    }

    /// A second endpoint, on another port of the same address, from which peers learn what their NATs do
    /// ([`nat::check`](crate::nat::check)); nothing else is served there (default: there is none).
    pub fn alternate(self, endpoint: &Endpoint) -> Self {
        Self { alternate: Some(endpoint.clone()), ..self }
    }
}

/// A running broker. Dropping it ends it, and its relays with it.
///
/// ```no_run
/// use grenache::broker::{Broker, BrokerConfig, RelayConfig};
/// # fn example(endpoint: grenache::transport::Endpoint, link: grenache::link::Link) {
/// let config = BrokerConfig::new("fibo_broker").relay(RelayConfig::default());
/// let _broker = Broker::start(&endpoint, Some(&link), config);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping a broker ends it"]
pub struct Broker {
    server: PeerRpcServer,
    announcing: Option<Announcing>,
    _probed: Vec<Task>,
}

impl Broker {
    /// Serves registrations on the endpoint, and announces the broker's name where there is a link.
    pub fn start(endpoint: &Endpoint, link: Option<&Link>, config: BrokerConfig) -> Self {
        let net = endpoint.net().clone();
        let desk = Arc::new(Desk {
            rng: Mutex::new(net.rng("broker")),
            net: net.clone(),
            local: endpoint.local_addr(),
            relay: config.relay,
            registry: Mutex::default(),
            news: Notify::new(),
            places: Arc::default(),
            relays: Mutex::default(),
        });
        let server = PeerRpcServer::serve(endpoint, config.server, move |request| {
            let desk = desk.clone();
            async move { desk.answer(request.from, &request.payload).await }
        });
        let alternate = config.alternate.as_ref();
        let both = std::iter::once((endpoint, alternate)).chain(alternate.map(|other| (other, Some(endpoint))));
        let probed = both
            .map(|(here, other)| {
                let offered = alternate.and_then(|other| NonZeroU16::new(other.local_addr().port()));
                let (here, other, probes) = (here.clone(), other.cloned(), here.datagrams());
                net.spawn(Box::pin(answer_probes(here, other, offered, probes)))
            })
            .collect();
        let port = endpoint.local_addr().port();
        let announcing = link.map(|link| link.start_announcing(&config.name, port, config.announce_interval));
        Self { server, announcing, _probed: probed }
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

/// Tells sockets where they are seen. Keeps nothing of them, and sends no more than it receives.
async fn answer_probes(
    here: Endpoint,
    other: Option<Endpoint>,
    offered: Option<NonZeroU16>,
    mut datagrams: broadcast::Receiver<Datagram>,
) {
    loop {
        let Datagram { from, payload } = match datagrams.recv().await {
            Ok(datagram) => datagram,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let Some(probe) = Probe::parse(&payload) else { continue };
        let via = if probe.via_alternate { other.as_ref() } else { Some(&here) };
        let answer = Probed { id: probe.id, from, alternate: offered }.encode();
        if let (Some(via), Some(answer)) = (via, answer) {
            via.send_datagram(probe.answer_to(from), answer);
        }
    }
}

/// Where peers are received.
#[derive(Debug)]
struct Desk {
    net: Net,
    local: SocketAddr,
    relay: Option<RelayConfig>,
    registry: Mutex<Registry>,
    /// Somebody came, or left a note.
    news: Notify,
    places: Arc<Places>,
    /// The sessions' tasks: as many as there are places.
    relays: Mutex<Vec<Task>>,
    rng: Mutex<Rng>,
}

impl Desk {
    async fn answer(&self, from: SocketAddr, payload: &Value) -> Result<Value, String> {
        let Asked { registration, action } = Asked::try_from(payload).map_err(|e| {
            self.net.emit(Event::Malformed { layer: "broker", from, reason: e.to_string() });
            e.to_string()
        })?;
        match action {
            Action::Register => {
                let Registration { service, server, .. } = registration.clone();
                let answer = self.registry().register(now(), from, registration);
                self.net.emit(Event::Registered { service, server, address: from });
                Ok(answer)
            }
            Action::Wait(wait) => Ok(self.register_and_wait(from, registration, wait).await),
            Action::Signal { to, data } => {
                let key = sender(from, &registration);
                self.registry().signal(now(), &key, &to, data).map_err(|e| e.to_string())?;
                self.news.notify_waiters();
                Ok(Value::Bool(true))
            }
            Action::Relay { to } => self.open_relay(from, &registration, &to),
        }
    }

    async fn register_and_wait(&self, from: SocketAddr, registration: Registration, wait: Duration) -> Value {
        let deadline = Instant::now() + wait;
        let Registration { service, server, .. } = registration.clone();
        let (key, new) = self.registry().note(now(), from, registration);
        let (wait, replaced) = self.registry().begin_wait(&key);
        self.net.emit(Event::Registered { service: service.clone(), server, address: from });
        if new || replaced {
            self.news.notify_waiters();
        }
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            // Who is new wants to know who is there already.
            if new || self.registry().has_news(&key, wait) || timeout_at(deadline, news).await.is_err() {
                break;
            }
        }
        self.registry().extended_answer(&key, &service, wait, &Offers { relay: self.relay.is_some() })
    }

    fn open_relay(&self, from: SocketAddr, registration: &Registration, to: &str) -> Result<Value, String> {
        let config = self.relay.ok_or_else(|| RelayRefused::NotOffered.to_string())?;
        // Nothing is taken for who may not signal.
        let own_key = sender(from, registration);
        for (key, missing) in [(own_key.as_str(), NotRegistered::Sender), (to, NotRegistered::Receiver)] {
            if !self.registry().is_registered(now(), key) {
                return Err(missing.to_string());
            }
        }
        let place = config.place(&self.places, from.ip()).map_err(|e| e.to_string())?;
        let tokens = [self.token(), self.token()];
        let [own, others] = tokens.clone();
        let (port, task) = relay_socket::open(&self.net, self.local.ip(), config, tokens, place)
            .map_err(|e| format!("ERR_BROKER_RELAY_SOCKET: {e}"))?;
        let told = |token| serde_json::to_value(RelayOffer { port, token }).expect("it can be written as JSON");
        let signal = serde_json::json!({ "relay": told(others) });
        // Where the signal fails the task is dropped, and its place is free.
        self.registry().signal(now(), &own_key, to, signal).map_err(|e| e.to_string())?;
        let mut relays = self.relays.lock().expect("no panic while locked");
        relays.retain(|relay| !relay.is_finished());
        relays.push(task);
        drop(relays);
        self.news.notify_waiters();
        Ok(told(own))
    }

    fn token(&self) -> String {
        let mut token = [0; 16];
        self.rng.lock().expect("no panic while locked").fill_bytes(&mut token);
        hex::encode(token)
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().expect("no panic while locked")
    }
}

/// The key of who sent this.
fn sender(from: SocketAddr, registration: &Registration) -> String {
    let Registration { service, server, nat } = registration.clone();
    Entry { service, server, address: from.ip().to_canonical(), port: from.port(), nat }.key()
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
