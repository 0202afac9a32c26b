//! The caller's way up the ladder.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join;
use futures_util::stream::FuturesUnordered;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Path;
use super::host::{Expected, Host, around};
use super::ladder::{self, Opener, Rung};
use super::meet::{Volley, meet};
use super::presence::{Answer, Call, Note, Plan, Presence};
use super::relayed::hold;
use super::report::{ConnectReport, FailedRung};
use super::shots::Shots;
use crate::broker::{Entry, PREDICTED_PORTS, Rendezvous};
use crate::event::Event;
use crate::nat::Behaviour;
use crate::rpc::PeerRpcClient;

/// How many addresses of a service are tried directly.
const MAX_DIRECT: usize = 4;

/// How long a peer may take to say that it does its part.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a peer of the original's may take to punch: it registers every 2 s.
const PLAIN_PEER: Duration = Duration::from_secs(5);

/// Why a rung did not work.
enum Failed {
    /// It was tried.
    Tried(String),
    /// It cannot work.
    Skipped(String),
}

impl Failed {
    fn skipped(reason: &str) -> Self {
        Self::Skipped(reason.to_owned())
    }
}

/// Climbs up to `highest`, with what was found out of the NAT within `max_age`; gives the way that was found, and what was tried.
pub(super) async fn climb(
    host: &Host,
    service: &str,
    highest: Rung,
    max_age: Duration,
) -> Result<(Path, ConnectReport), ConnectReport> {
    let began = Instant::now();
    let brokers = host.brokers().await;
    let own = if brokers.is_empty() { Behaviour::UNKNOWN } else { host.behaviour(&brokers, max_age).await };
    let mut report = ConnectReport {
        service: service.to_owned(),
        rung: None,
        to: None,
        elapsed_ms: 0,
        own_nat: own,
        peer_nat: None,
        failed: Vec::new(),
    };
    let meeting = Meeting::begin(host, service, own, &brokers).await;
    report.peer_nat = meeting.at_broker.as_ref().ok().and_then(|(_, peer)| peer.nat);
    for rung in Rung::ALL.into_iter().filter(|rung| *rung <= highest) {
        let tried = Instant::now();
        let outcome = meeting.try_rung(rung).await;
        report.elapsed_ms = ms(began);
        let (tried, took_ms, reason) = match outcome {
            Ok(path) => {
                (report.rung, report.to) = (Some(rung), Some(path.to));
                host.net().emit(Event::Connected { service: service.to_owned(), to: path.to, rung });
                return Ok((path, report));
            }
            Err(Failed::Tried(reason)) => (true, ms(tried), reason),
            Err(Failed::Skipped(reason)) => (false, 0, reason),
        };
        report.failed.push(FailedRung { rung, tried, reason, took_ms });
    }
    Err(report)
}

fn ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What is known of a peer before the first rung.
struct Meeting<'a> {
    host: &'a Host,
    own: Behaviour,
    /// Who is there, by the broker.
    at_broker: Result<(Presence, Entry), String>,
    /// Where the service is, by the link.
    looked_up: Vec<SocketAddr>,
}

impl<'a> Meeting<'a> {
    async fn begin(host: &'a Host, service: &str, own: Behaviour, brokers: &[SocketAddr]) -> Self {
        let looking_up = async {
            match &host.link {
                Some(link) => timeout(host.config.direct_timeout, link.lookup(service)).await.ok()?.ok(),
                None => None,
            }
        };
        let (at_broker, looked_up) = join(find_peer(host, service, own, brokers), looking_up).await;
        Self { host, own, at_broker, looked_up: looked_up.unwrap_or_default() }
    }

    async fn try_rung(&self, rung: Rung) -> Result<Path, Failed> {
        match rung {
            Rung::Direct => self.direct().await,
            Rung::Punch => self.punch().await,
            Rung::Predict => self.predict().await,
            Rung::ManyPorts => self.many_ports().await,
            Rung::Relay => self.relay().await,
        }
    }

    /// Everything that is announced or registered, except what theory says nobody gets to.
    async fn direct(&self) -> Result<Path, Failed> {
        let peer = self.at_broker.as_ref().ok().map(|(_, peer)| peer);
        let nat = peer.map(|peer| (peer.address, ladder::direct(peer.nat.unwrap_or(Behaviour::UNKNOWN))));
        let mut addresses: Vec<SocketAddr> = peer.map(Entry::socket_addr).into_iter().collect();
        addresses.extend(
            self.looked_up.iter().copied().filter(|other| peer.is_none_or(|peer| peer.socket_addr() != *other)),
        );
        if let Some((address, Err(reason))) = nat {
            addresses.retain(|other| other.ip() != address);
            if addresses.is_empty() {
                return Err(Failed::skipped(reason));
            }
        }
        if addresses.is_empty() {
            return Err(Failed::skipped("nobody has announced the service"));
        }
        addresses.truncate(MAX_DIRECT);
        let endpoint = &self.host.endpoint;
        let mut connecting: FuturesUnordered<_> =
            addresses.iter().map(async |to| endpoint.connect(*to).await.ok().map(|_| *to)).collect();
        let first = async {
            while let Some(outcome) = connecting.next().await {
                if outcome.is_some() {
                    return outcome;
                }
            }
            None
        };
        match timeout(self.host.config.direct_timeout, first).await.ok().flatten() {
            Some(to) => Ok(self.main_path(to, Rung::Direct)),
            None => Err(Failed::Tried(format!("no connection to {}", listed(&addresses)))),
        }
    }

    async fn punch(&self) -> Result<Path, Failed> {
        let (presence, peer) = self.peer()?;
        let at = peer.socket_addr();
        let (targets, patience) = match peer.nat {
            Some(nat) => {
                ladder::punch(self.own, nat).map_err(Failed::skipped)?;
                let call = Call { id: self.id(), plan: Plan::Punch, at: None, nat: self.own };
                self.signal(presence, peer, &Note::Call(call)).await?;
                (vec![at], self.host.config.punch_timeout)
            }
            None => {
                let ports = (at.port()..=u16::MAX).take(1 + usize::from(PREDICTED_PORTS));
                (ports.map(|port| SocketAddr::new(at.ip(), port)).collect(), PLAIN_PEER)
            }
        };
        let shots = Shots::repeat(now(), targets);
        let Host { endpoint, puncher, .. } = self.host;
        let met = meet(endpoint, puncher, shots, peer.address, patience, true).await;
        met.map(|to| self.main_path(to, Rung::Punch)).ok_or_else(|| no_connection(patience))
    }

    async fn predict(&self) -> Result<Path, Failed> {
        let (presence, peer) = self.peer()?;
        let nat = peer.nat.ok_or_else(of_the_original)?;
        ladder::predict(self.own, nat).map_err(Failed::skipped)?;
        let mut failed = Failed::skipped("predictions are switched off");
        for _ in 0..self.host.config.predictions {
            match self.predict_once(presence, peer, nat).await {
                Ok(path) => return Ok(path),
                Err(reason) => failed = reason,
            }
        }
        Err(failed)
    }

    async fn predict_once(&self, presence: &Presence, peer: &Entry, nat: Behaviour) -> Result<Path, Failed> {
        let Expected { socket, at } = self.expect(presence).await?;
        let theirs = self.call(presence, peer, Plan::Predict, Some(at)).await?;
        let theirs = theirs.ok_or_else(|| Failed::Tried("the peer did not say where it will be".to_owned()))?;
        let shots = Shots::repeat(now(), around(self.own, nat, theirs));
        self.meet_over(socket, shots, peer.address, self.host.config.punch_timeout, Rung::Predict).await
    }

    async fn many_ports(&self) -> Result<Path, Failed> {
        let (presence, peer) = self.peer()?;
        let nat = peer.nat.ok_or_else(of_the_original)?;
        let opener = ladder::many_ports(self.own, nat).map_err(Failed::skipped)?;
        let config = &self.host.config;
        if config.sockets == 0 || config.probes == 0 {
            return Err(Failed::skipped("many ports are switched off"));
        }
        let plan = Plan::ManyPorts(opener);
        let patience = config.many_ports_timeout();
        match opener {
            Opener::Peer => {
                let Expected { socket, at } = self.expect(presence).await?;
                self.call(presence, peer, plan, Some(at)).await?;
                let (count, interval) = (config.probes, config.probe_interval);
                let shots = Shots::ports(now(), peer.address, count, interval, &mut self.host.rng());
                self.meet_over(socket, shots, peer.address, patience, Rung::ManyPorts).await
            }
            Opener::Caller => {
                let at = peer.socket_addr();
                let volley = Volley::open(self.host.net(), &mut self.host.rng(), config.sockets, at);
                let volley = volley.map_err(|e| Failed::Tried(format!("cannot open many sockets: {e}")))?;
                let theirs = self.call(presence, peer, plan, None).await?.unwrap_or(at);
                let hit = volley.hit(theirs, patience).await;
                let (socket, from) = hit.ok_or_else(|| no_connection(patience))?;
                let shots = Shots::repeat(now(), vec![from]);
                let patience = config.punch_timeout;
                self.meet_over(socket, shots, peer.address, patience, Rung::ManyPorts).await
            }
        }
    }

    async fn relay(&self) -> Result<Path, Failed> {
        let (presence, peer) = self.peer()?;
        if !self.host.config.relay {
            return Err(Failed::skipped("relays are switched off"));
        }
        peer.nat.ok_or_else(of_the_original)?;
        let offer = presence.rendezvous.relay(&peer.key()).await;
        let (relay, token) = offer.map_err(|e| Failed::Tried(e.to_string()))?;
        let (ready, mut is_ready) = watch::channel(false);
        let endpoint = &self.host.endpoint;
        let kept = endpoint.net().spawn(Box::pin(hold(endpoint.clone(), relay, token, ready)));
        let reached = async {
            is_ready.wait_for(|ready| *ready).await.ok()?;
            endpoint.connect(relay).await.ok()
        };
        match timeout(self.host.config.relay_timeout, reached).await {
            Ok(Some(_)) => Ok(Path { rpc: self.host.rpc.clone(), to: relay, rung: Rung::Relay, kept: Some(kept) }),
            _ if !*is_ready.borrow() => Err(Failed::Tried("the relay and the peer did not meet in time".to_owned())),
            _ => Err(Failed::Tried("no connection through the relay".to_owned())),
        }
    }

    fn main_path(&self, to: SocketAddr, rung: Rung) -> Path {
        Path { rpc: self.host.rpc.clone(), to, rung, kept: None }
    }

    /// Meets the peer with a fresh socket, which becomes the endpoint that is used.
    async fn meet_over(
        &self,
        socket: std::sync::Arc<dyn crate::net::UdpSocket>,
        shots: Shots,
        peer: IpAddr,
        patience: Duration,
        rung: Rung,
    ) -> Result<Path, Failed> {
        let (endpoint, puncher) = self.host.over(socket).map_err(|e| Failed::Tried(e.to_string()))?;
        let met = meet(&endpoint, &puncher, shots, peer, patience, true).await;
        let to = met.ok_or_else(|| no_connection(patience))?;
        let rpc = PeerRpcClient::new(&endpoint, None, self.host.config.client.clone());
        Ok(Path { rpc, to, rung, kept: None })
    }

    fn peer(&self) -> Result<(&Presence, &Entry), Failed> {
        match &self.at_broker {
            Ok((presence, peer)) => Ok((presence, peer)),
            Err(reason) => Err(Failed::skipped(reason)),
        }
    }

    async fn expect(&self, presence: &Presence) -> Result<Expected, Failed> {
        let expected = self.host.expect(self.own, presence.rendezvous.broker()).await;
        expected.map_err(|e| Failed::Tried(format!("the broker does not say where a fresh socket is: {e}")))
    }

    fn id(&self) -> u64 {
        self.host.rng().random()
    }

    async fn signal(&self, presence: &Presence, peer: &Entry, note: &Note) -> Result<(), Failed> {
        let sent = presence.rendezvous.signal(&peer.key(), note.to_json()).await;
        sent.map_err(|e| Failed::Tried(format!("the broker does not pass a signal on: {e}")))
    }

    /// Asks the peer to do its part of a plan; gives where its socket will be.
    async fn call(
        &self,
        presence: &Presence,
        peer: &Entry,
        plan: Plan,
        at: Option<SocketAddr>,
    ) -> Result<Option<SocketAddr>, Failed> {
        let mut signals = presence.signals();
        let id = self.id();
        self.signal(presence, peer, &Note::Call(Call { id, plan, at, nat: self.own })).await?;
        let key = peer.key();
        let answered = async {
            loop {
                let Ok(signal) = signals.recv().await else { continue };
                match Note::of(&signal) {
                    Some(Note::Answer(answer)) if answer.id == id && signal.from == key => return answer,
                    _ => {}
                }
            }
        };
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Answer { refused: Some(reason), .. }) => Err(Failed::Tried(format!("the peer refuses: {reason}"))),
            // A peer could otherwise have this host punch somebody else.
            Ok(Answer { at: Some(at), .. }) if at.ip().to_canonical() != peer.address => {
                Err(Failed::Tried(format!("the peer would be at {at}, which is not its address")))
            }
            Ok(Answer { at, .. }) => Ok(at),
            Err(_) => Err(Failed::Tried("the peer does not answer through the broker".to_owned())),
        }
    }
}

/// Registers, and waits until there is somebody who offers the service.
async fn find_peer(
    host: &Host,
    service: &str,
    own: Behaviour,
    brokers: &[SocketAddr],
) -> Result<(Presence, Entry), String> {
    let mut reason = "there is no broker to introduce the peer".to_owned();
    for &broker in brokers {
        let rendezvous = Rendezvous::new(&host.rpc, broker, service, false, own);
        let presence = Presence::start(host.net(), rendezvous);
        match presence.until(|seen| !seen.others.is_empty(), host.config.peer_timeout).await {
            Ok(seen) if seen.others.is_empty() => reason = format!("nobody is registered for {service}"),
            Ok(seen) => {
                // Those who know the extension can be reached by every rung.
                let extended = |entry: &&Entry| entry.nat.is_some() && seen.extension.is_some();
                let mut among: Vec<&Entry> = seen.others.iter().filter(extended).collect();
                if among.is_empty() {
                    among = seen.others.iter().collect();
                }
                let mut chosen = among[host.rng().random_range(0..among.len())].clone();
                if seen.extension.is_none() {
                    chosen.nat = None;
                }
                return Ok((presence, chosen));
            }
            Err(error) => reason = format!("the broker at {broker} does not answer: {error}"),
        }
    }
    Err(reason)
}

fn of_the_original() -> Failed {
    Failed::skipped("the peer or the broker does not know the extension")
}

fn no_connection(patience: Duration) -> Failed {
    Failed::Tried(format!("no connection within {patience:?}"))
}

fn listed(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
