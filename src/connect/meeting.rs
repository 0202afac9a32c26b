//! The caller's part of each rung, with one peer.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use rand::RngExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout};

use super::Path;
use super::host::{Expected, Host, around};
use super::ladder::{self, Opener, Rung};
use super::meet::{Volley, meet};
use super::presence::{Answer, Call, Note, Plan, Presence};
use super::relayed::hold;
use super::shots::Shots;
use crate::broker::extension::Signal;
use crate::broker::{ERR_NO_PEER, Entry, PREDICTED_PORTS};
use crate::nat::Behaviour;
use crate::rpc::{PeerRpcClient, RpcError};

/// How many addresses of a service are tried directly.
const MAX_DIRECT: usize = 4;

/// How long a peer may take to say that it does its part.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a peer of the original's may take to punch: it registers every 2 s.
const PLAIN_PEER: Duration = Duration::from_secs(5);

/// How many characters are told of what a peer says.
const MAX_REASON: usize = 200;

/// Why a rung did not work.
pub(super) enum Failed {
    /// It was tried.
    Tried(String),
    /// It cannot work.
    Skipped(String),
    /// It was tried, and the peer is not there any more: no rung will work.
    Gone(String),
}

impl Failed {
    fn skipped(reason: &str) -> Self {
        Self::Skipped(reason.to_owned())
    }

    /// The broker does not do what it was asked.
    fn at_broker(error: &RpcError, what: &str) -> Self {
        match error {
            RpcError::Remote(text) if text.starts_with(ERR_NO_PEER) => Self::Gone(text.clone()),
            error => Self::Tried(format!("{what}{error}")),
        }
    }

    fn no_answer() -> Self {
        Self::Gone("it does not answer through the broker".to_owned())
    }
}

/// What is known of a peer.
pub(super) struct Meeting<'a> {
    pub(super) host: &'a Host,
    /// What the own NAT does: not needed for the first rung.
    pub(super) own: Behaviour,
    /// Who is there, by the broker.
    pub(super) at_broker: Result<(Arc<Presence>, Entry), String>,
    /// Where the service is, by the link.
    pub(super) looked_up: Vec<SocketAddr>,
}

impl Meeting<'_> {
    pub(super) async fn try_rung(&self, rung: Rung) -> Result<Path, Failed> {
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
        let Some(nat) = peer.nat else { return self.punch_plain(peer).await };
        ladder::punch(self.own, nat).map_err(Failed::skipped)?;
        let Host { endpoint, puncher, config, .. } = self.host;
        let asked = self.ask(presence, peer, Plan::Punch, None).await?;
        let shots = Shots::repeat(now(), vec![peer.socket_addr()]);
        let met = meet(endpoint, puncher, shots, peer.address, config.punch_timeout, true);
        // A refusal is no reason to stop: its punches are answered all the same.
        let (met, answered) = match select(pin!(met), pin!(asked.answer())).await {
            Either::Left((None, answer)) => (None, answer.await),
            Either::Left((met, _)) => (met, None),
            Either::Right((answered, met)) => (met.await, answered),
        };
        let failed = || if answered.is_some() { no_connection(config.punch_timeout) } else { Failed::no_answer() };
        met.map(|to| self.main_path(to, Rung::Punch)).ok_or_else(failed)
    }

    /// Peers of the original's punch whom their broker tells them of.
    async fn punch_plain(&self, peer: &Entry) -> Result<Path, Failed> {
        let ports = (peer.port..=u16::MAX).take(1 + usize::from(PREDICTED_PORTS));
        let shots = Shots::repeat(now(), ports.map(|port| SocketAddr::new(peer.address, port)).collect());
        let Host { endpoint, puncher, .. } = self.host;
        let met = meet(endpoint, puncher, shots, peer.address, PLAIN_PEER, true).await;
        met.map(|to| self.main_path(to, Rung::Punch)).ok_or_else(|| no_connection(PLAIN_PEER))
    }

    async fn predict(&self) -> Result<Path, Failed> {
        let (presence, peer) = self.peer()?;
        let nat = peer.nat.ok_or_else(of_the_original)?;
        ladder::predict(self.own, nat).map_err(Failed::skipped)?;
        let mut failed = Failed::skipped("predictions are switched off");
        for _ in 0..self.host.config.predictions {
            match self.predict_once(presence, peer, nat).await {
                Err(Failed::Tried(reason)) => failed = Failed::Tried(reason),
                reached_or_gone => return reached_or_gone,
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
        let (relay, token) = offer.map_err(|e| Failed::at_broker(&e, ""))?;
        let (ready, mut is_ready) = watch::channel(false);
        let endpoint = &self.host.endpoint;
        let kept = endpoint.net().spawn(Box::pin(hold(endpoint.clone(), relay, token.clone(), ready)));
        let reached = async {
            is_ready.wait_for(|ready| *ready).await.ok()?;
            endpoint.connect(relay).await.ok()
        };
        match timeout(self.host.config.relay_timeout, reached).await {
            Ok(Some(_)) => {
                Ok(Path { rpc: self.host.rpc.clone(), to: relay, rung: Rung::Relay, kept: Some((kept, token)) })
            }
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

    /// Asks the peer to do its part of a plan; gives where its socket will be.
    async fn call(
        &self,
        presence: &Presence,
        peer: &Entry,
        plan: Plan,
        at: Option<SocketAddr>,
    ) -> Result<Option<SocketAddr>, Failed> {
        match self.ask(presence, peer, plan, at).await?.answer().await {
            Some(Answer { refused: Some(reason), .. }) => {
                Err(Failed::Tried(format!("the peer refuses: {}", printable(&reason))))
            }
            // A peer could otherwise have this host punch somebody else.
            Some(Answer { at: Some(at), .. }) if at.ip().to_canonical() != peer.address => {
                Err(Failed::Tried(format!("the peer would be at {at}, which is not its address")))
            }
            Some(Answer { at, .. }) => Ok(at),
            None => Err(Failed::no_answer()),
        }
    }

    async fn ask(
        &self,
        presence: &Presence,
        peer: &Entry,
        plan: Plan,
        at: Option<SocketAddr>,
    ) -> Result<Asked, Failed> {
        let (signals, key, id) = (presence.signals(), peer.key(), self.id());
        let note = Note::Call(Call { id, plan, at, nat: self.own });
        let sent = presence.rendezvous.signal(&key, note.to_json()).await;
        sent.map_err(|e| Failed::at_broker(&e, "the broker does not pass a signal on: "))?;
        Ok(Asked { signals, key, id })
    }
}

/// A peer was asked to do something.
struct Asked {
    signals: broadcast::Receiver<Signal>,
    key: String,
    id: u64,
}

impl Asked {
    /// What it says; `None` where it says nothing in time.
    async fn answer(mut self) -> Option<Answer> {
        let answered = async {
            loop {
                let signal = match self.signals.recv().await {
                    Ok(signal) if signal.from == self.key => signal,
                    Ok(_) | Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return None,
                };
                match Note::of(&signal) {
                    Some(Note::Answer(answer)) if answer.id == self.id => return Some(answer),
                    _ => {}
                }
            }
        };
        timeout(ANSWER_TIMEOUT, answered).await.ok().flatten()
    }
}

/// What a peer says, such that it can be shown: without control characters, and not for ever.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_is_shown_without_what_a_terminal_obeys() {
        assert_eq!(printable("busy\u{1b}[2J\r\n with others"), "busy[2J with others");
        assert_eq!(printable(&"x".repeat(5000)).len(), MAX_REASON);
    }
}
