//! Hole punching: the datagram that makes a NAT let a peer in.
//!
//! A punch is the two bytes `c3 bf`, sent from the shared UDP socket, so that the mapping which it opens is the one
//! that requests then use. Any other datagram that is not µTP is a *message*.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lru::LruCache;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use self::handshake::{Handshake, Step};
use crate::event::Event;
use crate::limits::{Limit, LimitCounts, Rate, SourceRates};
use crate::link::{Link, LinkError};
use crate::net::{Net, Task};
use crate::transport::{Datagram, Endpoint};

mod handshake;

pub use handshake::HandshakeConfig;

/// The datagram that punches: the UTF-8 of `ÿ`.
pub const PUNCH: [u8; 2] = [0xc3, 0xbf];

/// For how many peers punches are counted. At the limit the one unheard for longest is forgotten.
pub const MAX_COUNTED: NonZeroUsize = NonZeroUsize::new(500).expect("not zero");

/// How many punches, handshakes or messages a [`Subscription`] holds. At the limit it skips the oldest.
pub const MAX_BEHIND: usize = 1024;

/// How many punches of one source ([`limits`](crate::limits)) are reported: those beyond are counted and dropped. It lets a peer through that
/// probes many ports at once.
pub const PUNCH_RATE: Rate = Rate { burst: 512, per_second: 128 };

/// How many punches go back to one source that punches ([`Puncher::punch_back`]): enough to open this side's NAT,
/// and too few for two peers that both punch back to keep each other busy.
pub const PUNCH_BACK_RATE: Rate = Rate { burst: 10, per_second: 5 };

/// Punches peers, and tells who punched. Cheap to clone.
///
/// An endpoint should have one, shared by whoever needs it: each [`Puncher::new`] reports every datagram anew.
///
/// ```no_run
/// use grenache::punch::{HandshakeConfig, HandshakeError, Puncher};
/// # async fn example(endpoint: grenache::transport::Endpoint) -> Result<(), HandshakeError> {
/// let puncher = Puncher::new(&endpoint);
/// let mut punched = puncher.punched();
/// puncher.punch("203.0.113.5:1337".parse().unwrap());
/// if let Some(peer) = punched.next().await {
///     puncher.handshake(peer, HandshakeConfig::default()).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Puncher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    heard: Arc<Heard>,
    /// The peers that a handshake runs with.
    shaking: Mutex<BTreeSet<SocketAddr>>,
    /// Whom punches went back to.
    back: Mutex<SourceRates>,
    _listening: Task,
}

/// A datagram that is neither µTP nor a punch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where from.
    pub from: SocketAddr,
    /// The payload.
    pub payload: Bytes,
}

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// One with the same peer is not over yet.
    #[error("a handshake with {0} is under way: wait for its end")]
    UnderWay(SocketAddr),
    /// Too few punches arrived in time.
    #[error("ERR_TIMEOUT")]
    Timeout,
}

/// What arrives from the moment of subscribing on.
#[derive(Debug)]
pub struct Subscription<T>(broadcast::Receiver<T>);

impl<T: Clone> Subscription<T> {
    /// The next one; `None` once the puncher or its endpoint is closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<T> {
        loop {
            match self.0.recv().await {
                Ok(next) => return Some(next),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Puncher {
    /// Listens on the endpoint from now on.
    pub fn new(endpoint: &Endpoint) -> Self {
        let net = endpoint.net().clone();
        let heard = Arc::new(Heard::new(net.clone(), endpoint.limits().clone()));
        let listening = net.spawn(Box::pin(listen(Arc::clone(&heard), endpoint.datagrams())));
        let shaking = Mutex::default();
        let back = Mutex::new(SourceRates::new(PUNCH_BACK_RATE));
        Self(Arc::new(Inner { endpoint: endpoint.clone(), heard, shaking, back, _listening: listening }))
    }

    /// Sends one punch.
    pub fn punch(&self, target: SocketAddr) {
        self.0.endpoint.send_datagram(target, Bytes::from_static(&PUNCH));
        self.0.endpoint.net().emit(Event::PunchSent { to: target });
    }

    /// Sends one punch to a peer that has punched, unless that was done more often than [`PUNCH_BACK_RATE`] allows: what
    /// is to be called for each punch that arrives. Says whether it was sent.
    ///
    /// A punch's sender may be forged: who is made to punch a stranger sends no more than the punch's two bytes.
    pub fn punch_back(&self, from: SocketAddr) -> bool {
        let now = Instant::now().into_std();
        let allowed = self.0.back.lock().expect("no panic while locked").allows(now, from.ip());
        if allowed {
            self.punch(from);
        } else {
            self.0.endpoint.limits().reached(Limit::PunchBackRate, Some(from));
        }
        allowed
    }

    /// Looks a name up and sends one punch to every address found, which it gives:
    /// [`MAX_ADDRESSES`](crate::link::MAX_ADDRESSES) at most.
    ///
    /// # Errors
    /// Where the lookup fails.
    pub async fn punch_name(&self, link: &Link, name: &str) -> Result<Vec<SocketAddr>, LinkError> {
        let found = link.lookup(name).await?;
        for address in &found {
            self.punch(*address);
        }
        Ok(found)
    }

    /// Who punches from now on, once for each punch. Every subscriber gets them all.
    pub fn punched(&self) -> Subscription<SocketAddr> {
        Subscription(self.0.heard.punches.subscribe())
    }

    /// With whom a [`handshake`](Self::handshake) of this puncher is complete, from now on. Every subscriber gets them all.
    pub fn handshakes(&self) -> Subscription<SocketAddr> {
        Subscription(self.0.heard.handshakes.subscribe())
    }

    /// The other datagrams from now on. Every subscriber gets them all.
    pub fn messages(&self) -> Subscription<Message> {
        Subscription(self.0.heard.messages.subscribe())
    }

    /// How many punches of a peer have arrived so far.
    pub fn count(&self, from: SocketAddr) -> u64 {
        self.0.heard.counts.lock().expect("no panic while locked").peek(&from).copied().unwrap_or(0)
    }

    /// Punches a peer that does the same, until both directions are known to pass.
    ///
    /// # Errors
    /// Where one with the same peer is under way, or after its timeout.
    pub async fn handshake(&self, target: SocketAddr, config: HandshakeConfig) -> Result<(), HandshakeError> {
        let _shaking = Shaking::begin(&self.0.shaking, target)?;
        let mut punched = self.punched();
        let now = || Instant::now().into_std();
        let mut handshake = Handshake::new(now(), config);
        loop {
            match handshake.step(now()) {
                Step::Send => self.punch(target),
                Step::Wait(until) => match timeout_at(until.into(), punched.next()).await {
                    Ok(Some(from)) if from == target => handshake.heard(now()),
                    Ok(Some(_)) => {}
                    // The endpoint is closed: nothing will come.
                    Ok(None) => return Err(HandshakeError::Timeout),
                    Err(_) => {}
                },
                Step::Complete => {
                    self.0.endpoint.net().emit(Event::Handshake { with: target });
                    // There may be nobody who listens.
                    let _ = self.0.heard.handshakes.send(target);
                    return Ok(());
                }
                Step::TimedOut => return Err(HandshakeError::Timeout),
            }
        }
    }
}

/// Holds a handshake's place.
struct Shaking<'a> {
    all: &'a Mutex<BTreeSet<SocketAddr>>,
    with: SocketAddr,
}

impl<'a> Shaking<'a> {
    fn begin(all: &'a Mutex<BTreeSet<SocketAddr>>, with: SocketAddr) -> Result<Self, HandshakeError> {
        if !all.lock().expect("no panic while locked").insert(with) {
            return Err(HandshakeError::UnderWay(with));
        }
        Ok(Self { all, with })
    }
}

impl Drop for Shaking<'_> {
    fn drop(&mut self) {
        self.all.lock().expect("no panic while locked").remove(&self.with);
    }
}

/// Where what arrives goes.
#[derive(Debug)]
struct Heard {
    net: Net,
    limits: Arc<LimitCounts>,
    rates: Mutex<SourceRates>,
    punches: broadcast::Sender<SocketAddr>,
    handshakes: broadcast::Sender<SocketAddr>,
    messages: broadcast::Sender<Message>,
    counts: Mutex<LruCache<SocketAddr, u64>>,
}

impl Heard {
    fn new(net: Net, limits: Arc<LimitCounts>) -> Self {
        Self {
            net,
            limits,
            rates: Mutex::new(SourceRates::new(PUNCH_RATE)),
            punches: broadcast::Sender::new(MAX_BEHIND),
            handshakes: broadcast::Sender::new(MAX_BEHIND),
            messages: broadcast::Sender::new(MAX_BEHIND),
            counts: Mutex::new(LruCache::new(MAX_COUNTED)),
        }
    }

    /// Reports a datagram, counts it and hands it to the subscribers, of which there may be none.
    fn take(&self, datagram: Datagram) {
        let Datagram { from, payload } = datagram;
        if payload[..] == PUNCH {
            let now = Instant::now().into_std();
            if !self.rates.lock().expect("no panic while locked").allows(now, from.ip()) {
                return self.limits.reached(Limit::PunchRate, Some(from));
            }
            *self.counts.lock().expect("no panic while locked").get_or_insert_mut(from, || 0) += 1;
            self.net.emit(Event::Punched { from });
            let _ = self.punches.send(from);
        } else {
            self.net.emit(Event::Message { from, len: payload.len() });
            let _ = self.messages.send(Message { from, payload });
        }
    }
}

async fn listen(heard: Arc<Heard>, mut datagrams: broadcast::Receiver<Datagram>) {
    loop {
        match datagrams.recv().await {
            Ok(datagram) => heard.take(datagram),
            // Punches are repeated; what was skipped in a flood is no worse than a lost packet.
            Err(RecvError::Lagged(_)) => heard.limits.reached(Limit::DatagramBacklog, None),
            Err(RecvError::Closed) => return,
        }
    }
}
