//! The service's side: registered, and ready to do its part of what a caller asks for.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join;
use lru::LruCache;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::ConnectConfig;
use super::echo::Echo;
use super::host::{Host, around};
use super::ladder::Opener;
use super::meet::{Volley, meet};
use super::places::{Busy, Kept, MAX_REFUSALS, Place};
use super::presence::{Answer, Call, Note, Plan, Presence, Seen};
use super::relayed::hold;
use super::shots::Shots;
use crate::broker::extension::Signal;
use crate::broker::{MAX_PUNCHED, PREDICTED_PORTS, REGISTER_RETRY, Rendezvous};
use crate::link::Link;
use crate::nat::Behaviour;
use crate::net::Task;
use crate::punch::Puncher;
use crate::rpc::PeerRpcClient;
use crate::transport::Endpoint;

/// Why a caller is not helped whose fresh socket has another address than it is registered with, as behind a NAT with
/// several (RFC 4787, 4.1: pooling): it is told, for one who says nothing is taken for gone.
const ELSEWHERE: &str = "your fresh socket has another address than you are registered with";

/// How long a fresh socket without connections is kept.
const KEPT_UNUSED: Duration = Duration::from_secs(60);

/// How often it is looked whether one is in use.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often a client that does not call is punched at most, whatever the broker tells how often.
const PLAIN_EVERY: Duration = Duration::from_secs(1);

/// How many of them are remembered for that.
const MAX_PLAIN: NonZeroUsize = NonZeroUsize::new(500).expect("not zero");

/// How often the own NAT is looked at anew, and brokers that are known by name.
const RECHECK_EVERY: Duration = Duration::from_secs(60);

/// How soon the NAT is looked at again of which nothing was found out: no broker may have been up.
const RECHECK_UNKNOWN: Duration = Duration::from_secs(3);

/// With how many brokers a service registers; those after them in the order given are only asked about the NAT.
pub const MAX_BROKERS: usize = 4;

/// How many calls are remembered, so that none is answered twice.
const MAX_CALLS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Serves on a further endpoint for as long as the task is kept.
type Serve = Arc<dyn Fn(&Endpoint) -> Task + Send + Sync>;

/// Keeps a service reachable by [`Connector`](super::Connector)s, and by clients of the original's that its broker
/// introduces. Dropping it ends that; connections through the service's own endpoint stay.
///
/// It registers with its brokers and is told at once who is there. Callers are helped in punching: with the service's own
/// endpoint, or with fresh sockets, on which the service is then offered too. Punches are answered.
///
/// ```no_run
/// use grenache::connect::{Acceptor, ConnectConfig};
/// use grenache::punch::Puncher;
/// use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, ServerConfig};
/// # fn example(endpoint: grenache::transport::Endpoint, link: grenache::link::Link) {
/// let server = PeerRpcServer::serve(&endpoint, ServerConfig::default(), |request| async move { Ok(request.payload) });
/// let rpc = PeerRpcClient::new(&endpoint, Some(link.clone()), ClientConfig::default());
/// let config = ConnectConfig::default().broker("fibo_broker");
/// let puncher = Puncher::new(&endpoint);
/// let _acceptor = Acceptor::start(&endpoint, &puncher, &rpc, Some(link), "echo", config, server.also_on());
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping an acceptor ends it"]
pub struct Acceptor {
    _tasks: [Task; 2],
    kept: Arc<Mutex<Kept>>,
}

/// The fresh sockets and relays of an [`Acceptor`] that was stopped. With it they end.
#[derive(Debug)]
#[must_use = "dropping it cuts off who came over fresh sockets"]
pub struct FreshSockets {
    _kept: Arc<Mutex<Kept>>,
}

impl Acceptor {
    /// Registers `service` with the brokers. `serve` offers it on a further endpoint
    /// ([`PeerRpcServer::also_on`](crate::rpc::PeerRpcServer::also_on)).
    pub fn start(
        endpoint: &Endpoint,
        puncher: &Puncher,
        rpc: &PeerRpcClient,
        link: Option<Link>,
        service: &str,
        config: ConnectConfig,
        serve: impl Fn(&Endpoint) -> Task + Send + Sync + 'static,
    ) -> Self {
        let host = Arc::new(Host::new(endpoint, puncher, rpc, link, config));
        let net = endpoint.net();
        let echoing = net.spawn(Box::pin(echo(puncher.clone())));
        let kept = Arc::<Mutex<Kept>>::default();
        let accepting = net.spawn(Box::pin(accept(host, service.to_owned(), Arc::new(serve), kept.clone())));
        Self { _tasks: [echoing, accepting], kept }
    }

    /// Registers no more and helps no further callers. Those who came over fresh sockets or relays are served for as long
    /// as what this gives is kept: until [`PeerRpcServer::stop`](crate::rpc::PeerRpcServer::stop) has returned.
    pub fn stop(self) -> FreshSockets {
        FreshSockets { _kept: self.kept }
    }
}

/// Answers punches, for that opens this side's NAT for who punches.
async fn echo(puncher: Puncher) {
    let mut punched = puncher.punched();
    let mut echo = Echo::new();
    while let Some(from) = punched.next().await {
        if echo.answers(now(), from) {
            puncher.punch(from);
        }
    }
}

async fn accept(host: Arc<Host>, service: String, serve: Serve, kept: Arc<Mutex<Kept>>) {
    let busy = Arc::<Busy>::default();
    let mut attending: Vec<(SocketAddr, Task)> = Vec::new();
    loop {
        let mut brokers = host.brokers().await;
        brokers.truncate(MAX_BROKERS);
        // Where none is found for the moment, those that were stay.
        if !brokers.is_empty() {
            attending.retain(|(broker, _)| brokers.contains(broker));
        }
        for &broker in &brokers {
            if attending.iter().all(|(attended, _)| *attended != broker) {
                let desk = Desk {
                    host: host.clone(),
                    rendezvous: Rendezvous::new(&host.rpc, broker, &service, true, Behaviour::UNKNOWN),
                    serve: serve.clone(),
                    busy: busy.clone(),
                    kept: kept.clone(),
                };
                attending.push((broker, host.net().spawn(Box::pin(desk.attend(brokers.clone())))));
            }
        }
        sleep(if brokers.is_empty() { REGISTER_RETRY } else { RECHECK_EVERY }).await;
    }
}

/// What it takes to be there for callers at one broker.
struct Desk {
    host: Arc<Host>,
    rendezvous: Rendezvous,
    serve: Serve,
    busy: Arc<Busy>,
    kept: Arc<Mutex<Kept>>,
}

impl Desk {
    /// Does what callers ask for.
    async fn attend(self, brokers: Vec<SocketAddr>) {
        let Self { host, rendezvous, serve, busy, kept } = self;
        let own = host.behaviour(&brokers, RECHECK_EVERY).await;
        rendezvous.tell(own);
        let presence = Presence::start(host.net(), rendezvous);
        let mut signals = presence.signals();
        let (tell, nat) = watch::channel(own);
        let (puncher, seen) = (host.puncher.clone(), presence.watch());
        let looking = recheck(host.clone(), brokers, presence.rendezvous.clone(), tell, presence.watch());
        let _tasks =
            [host.net().spawn(Box::pin(punch_plain_clients(puncher, seen))), host.net().spawn(Box::pin(looking))];
        let keep = |task, source, in_use| kept.lock().expect("no panic while locked").push(task, source, in_use);
        let mut refusals: Vec<Task> = Vec::new();
        let mut calls: LruCache<u64, ()> = LruCache::new(MAX_CALLS);
        loop {
            let signal = match signals.recv().await {
                Ok(signal) => signal,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let source = signal.address.ip().to_canonical();
            match Note::of(&signal) {
                Some(Note::Call(call)) if calls.put(call.id, ()).is_none() => {
                    let attempt = Attempt {
                        host: host.clone(),
                        rendezvous: presence.rendezvous.clone(),
                        serve: serve.clone(),
                        own: *nat.borrow(),
                        signal,
                    };
                    match busy.take(source, call.plan, now()) {
                        Ok(place) => {
                            let (using, in_use) = watch::channel(true);
                            let run = async move { attempt.run(call, place, using).await };
                            keep(host.net().spawn(Box::pin(run)), source, in_use);
                        }
                        Err(reason) => {
                            refusals.retain(|refusal| !refusal.is_finished());
                            if refusals.len() < MAX_REFUSALS {
                                let refuse = async move { attempt.answer(call.id, None, Some(reason)).await };
                                refusals.push(host.net().spawn(Box::pin(refuse)));
                            }
                        }
                    }
                }
                Some(Note::Relay(offer)) => {
                    let relay = SocketAddr::new(presence.rendezvous.broker().ip(), offer.port);
                    let (ready, in_use) = watch::channel(false);
                    let holding = hold(host.endpoint.clone(), relay, offer.token, ready);
                    keep(host.net().spawn(Box::pin(holding)), source, in_use);
                }
                _ => {}
            }
        }
    }
}

/// Punches clients that do not call: those of the original's, each time that somebody comes.
async fn punch_plain_clients(puncher: Puncher, mut seen: watch::Receiver<Option<Result<Seen, String>>>) {
    let mut punched: LruCache<SocketAddr, Instant> = LruCache::new(MAX_PLAIN);
    while seen.changed().await.is_ok() {
        let plain: Vec<SocketAddr> = match &*seen.borrow() {
            Some(Ok(seen)) => {
                let plain = seen.others.iter().filter(|entry| entry.nat.is_none());
                plain.take(MAX_PUNCHED).map(crate::broker::Entry::socket_addr).collect()
            }
            _ => Vec::new(),
        };
        let now = Instant::now();
        for at in plain {
            // Anybody's signal has the broker tell anew.
            if punched.get(&at).is_some_and(|last| now < *last + PLAIN_EVERY) {
                continue;
            }
            punched.put(at, now);
            for port in (at.port()..=u16::MAX).take(1 + usize::from(PREDICTED_PORTS)) {
                puncher.punch(SocketAddr::new(at.ip(), port));
            }
        }
    }
}

/// Looks at the own NAT anew now and then, and when the broker sees this host elsewhere.
async fn recheck(
    host: Arc<Host>,
    brokers: Vec<SocketAddr>,
    rendezvous: Arc<Rendezvous>,
    tell: watch::Sender<Behaviour>,
    mut seen: watch::Receiver<Option<Result<Seen, String>>>,
) {
    let mut at = None;
    let mut nat = *tell.borrow();
    loop {
        let patience = if nat == Behaviour::UNKNOWN { RECHECK_UNKNOWN } else { RECHECK_EVERY };
        let elsewhere = seen.wait_for(|seen| {
            let you = seen.as_ref().and_then(|seen| seen.as_ref().ok()?.extension.as_ref()?.you);
            let moved = at.is_some() && you.is_some() && you != at;
            at = you.or(at);
            moved
        });
        if let Ok(Err(_)) = timeout(patience, elsewhere).await {
            return;
        }
        nat = host.behaviour(&brokers, Duration::from_secs(1)).await;
        rendezvous.tell(nat);
        tell.send_replace(nat);
    }
}

/// One caller's call.
struct Attempt {
    host: Arc<Host>,
    rendezvous: Arc<Rendezvous>,
    serve: Serve,
    own: Behaviour,
    signal: Signal,
}

impl Attempt {
    fn caller(&self) -> IpAddr {
        self.signal.address.ip().to_canonical()
    }

    async fn answer(&self, id: u64, at: Option<SocketAddr>, refused: Option<&str>) {
        let answer = Note::Answer(Answer { id, at, refused: refused.map(str::to_owned) });
        // Where it does not arrive the caller's time runs out.
        let _ = self.rendezvous.signal(&self.signal.from, answer.to_json()).await;
    }

    async fn run(&self, call: Call, mut place: Place, using: watch::Sender<bool>) {
        let Host { endpoint, puncher, config, .. } = &*self.host;
        // A caller could otherwise have this host punch somebody else.
        let at = call.at.filter(|at| at.ip().to_canonical() == self.caller());
        match call.plan {
            Plan::Punch => {
                let shots = Shots::repeat(now(), vec![self.signal.address]);
                let meeting = meet(endpoint, puncher, shots, self.caller(), config.punch_timeout, false);
                // It says that it is there; the punches do not wait for that.
                join(self.answer(call.id, None, None), meeting).await;
            }
            Plan::Predict => {
                let Some(at) = at else { return self.answer(call.id, None, Some(ELSEWHERE)).await };
                let shots = || Shots::repeat(now(), around(self.own, call.nat, at));
                self.expected(call.id, config.punch_timeout, place, using, shots).await;
            }
            Plan::ManyPorts(_) if config.sockets == 0 => self.answer(call.id, None, Some("many ports are off")).await,
            Plan::ManyPorts(Opener::Caller) => {
                let ports = || {
                    let (count, interval) = (config.probes, config.probe_interval);
                    Shots::ports(now(), self.caller(), count, interval, &mut self.host.rng())
                };
                self.expected(call.id, config.many_ports_timeout(), place, using, ports).await;
            }
            Plan::ManyPorts(Opener::Peer) => {
                let Some(at) = at else { return self.answer(call.id, None, Some(ELSEWHERE)).await };
                let volley = Volley::open(self.host.net(), &mut self.host.rng(), config.sockets, at);
                let Ok(volley) = volley else {
                    return self.answer(call.id, None, Some("it cannot open many sockets")).await;
                };
                self.answer(call.id, None, None).await;
                if let Some((socket, from)) = volley.hit(at, config.many_ports_timeout()).await {
                    // The other sockets are closed.
                    place.volley = None;
                    let shots = Shots::repeat(now(), vec![from]);
                    self.offer(socket, shots, config.punch_timeout, place, using).await;
                }
            }
        }
    }

    /// Tells where a fresh socket will be, and punches from it.
    async fn expected(
        &self,
        id: u64,
        patience: Duration,
        place: Place,
        using: watch::Sender<bool>,
        shots: impl FnOnce() -> Shots,
    ) {
        match self.host.expect(self.own, self.rendezvous.broker()).await {
            Ok(expected) => {
                self.answer(id, Some(expected.at), None).await;
                let shots = shots();
                self.offer(expected.socket, shots, patience, place, using).await;
            }
            Err(_) => self.answer(id, None, Some("its broker does not say where a fresh socket is")).await,
        }
    }

    /// Offers the service on a fresh socket for as long as somebody uses it.
    async fn offer(
        &self,
        socket: Arc<dyn crate::net::UdpSocket>,
        shots: Shots,
        patience: Duration,
        place: Place,
        using: watch::Sender<bool>,
    ) {
        let Ok((endpoint, puncher)) = self.host.over(socket) else { return };
        let _serving = (self.serve)(&endpoint);
        meet(&endpoint, &puncher, shots, self.caller(), patience, false).await;
        drop(place);
        let mut used = Instant::now();
        while used.elapsed() < KEPT_UNUSED {
            using.send_replace(endpoint.connections() > 0);
            sleep(LOOK_EVERY).await;
            if endpoint.connections() > 0 {
                used = Instant::now();
            }
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
