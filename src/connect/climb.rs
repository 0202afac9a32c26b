//! The caller's way up the ladder, with one peer after the other.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{MaybeDone, join, maybe_done};
use rand::RngExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::Path;
use super::host::{BELIEVED, Host};
use super::ladder::{self, Rung};
use super::meeting::{Failed, Meeting};
use super::presence::{Presence, Seen};
use super::report::{ConnectReport, FailedRung};
use crate::broker::Entry;
use crate::event::Event;
use crate::nat::Behaviour;
use crate::source::{Source, source};

/// What a climb is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Any way to any peer.
    AnyWay,
    /// A better way than the relay that there is: tried with one peer, with the NAT as it is now.
    NoRelay,
}

impl Aim {
    fn rungs(self) -> impl Iterator<Item = Rung> {
        Rung::ALL.into_iter().filter(move |rung| self == Self::AnyWay || *rung < Rung::Relay)
    }
}

/// Climbs; gives the way that was found, and what was tried.
pub(super) async fn climb(host: &Host, service: &str, aim: Aim) -> Result<(Path, ConnectReport), Box<ConnectReport>> {
    let began = Instant::now();
    let report = ConnectReport {
        service: service.to_owned(),
        rung: None,
        to: None,
        elapsed_ms: 0,
        own_nat: Behaviour::UNKNOWN,
        peer_nat: None,
        failed: Vec::new(),
    };
    let mut climb = Climb { host, aim, began, deadline: began + host.config.timeout, report };
    let path = climb.any_peer().await;
    let mut report = climb.report;
    report.elapsed_ms = ms(began);
    let Some(path) = path else { return Err(Box::new(report)) };
    (report.rung, report.to) = (Some(path.rung), Some(path.to));
    host.net().emit(Event::Connected { service: service.to_owned(), to: path.to, rung: path.rung });
    Ok((path, report))
}

fn ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

struct Climb<'a> {
    host: &'a Host,
    aim: Aim,
    began: Instant,
    deadline: Instant,
    report: ConnectReport,
}

/// What came of one peer.
enum Outcome {
    Reached(Path),
    /// It is there, or may be, but no rung leads to it.
    Unreached,
    /// It is not there any more.
    Gone,
    /// There is no time for a further one.
    OutOfTime,
}

impl Climb<'_> {
    /// One peer after the other, in random order.
    async fn any_peer(&mut self) -> Option<Path> {
        let (host, aim, deadline) = (self.host, self.aim, self.deadline);
        let Ok(brokers) = timeout_at(deadline, host.brokers()).await else {
            self.skip(aim.rungs(), None, "the time was over before a broker was found");
            return None;
        };
        let max_age = if aim == Aim::AnyWay { BELIEVED } else { Duration::ZERO };
        let checking = async {
            match &*brokers {
                [] => Behaviour::UNKNOWN,
                brokers => host.behaviour(brokers, max_age).await,
            }
        };
        let mut own = pin!(maybe_done(checking));
        let service = self.report.service.clone();
        let finding = beside(own.as_mut(), join(find(host, &service, &brokers), look_up(host, &service)));
        let Ok((at_broker, looked_up)) = timeout_at(deadline, finding).await else {
            self.skip(aim.rungs(), None, "the time was over before a peer was found");
            return None;
        };
        let presence = at_broker.as_ref().ok().map(|(presence, _)| presence.clone());
        let mut tried = BTreeSet::new();
        let most = if aim == Aim::AnyWay { host.config.peers } else { 1 };
        let mut meeting = Meeting { host, own: Behaviour::UNKNOWN, at_broker, looked_up };
        loop {
            tried.extend(meeting.at_broker.as_ref().map(|(_, peer)| peer.socket_addr()));
            let outcome = self.one_peer(&mut meeting, own.as_mut()).await;
            let until = match outcome {
                Outcome::Reached(path) => return Some(path),
                Outcome::OutOfTime => return None,
                // As when nobody was there in the beginning.
                Outcome::Gone => deadline.min(self.began + host.config.peer_timeout),
                Outcome::Unreached => Instant::now(),
            };
            let presence = presence.as_ref().filter(|_| tried.len() < most)?;
            let peer = choose(host, presence, &tried, until.saturating_duration_since(Instant::now())).await.ok()?;
            meeting.at_broker = Ok((presence.clone(), peer));
            // Those were all tried with the first peer.
            meeting.looked_up.clear();
        }
    }

    /// One rung after the other.
    async fn one_peer<F: Future<Output = Behaviour>>(
        &mut self,
        meeting: &mut Meeting<'_>,
        mut own: Pin<&mut MaybeDone<F>>,
    ) -> Outcome {
        let peer = meeting.at_broker.as_ref().ok().map(|(_, peer)| peer.clone());
        self.report.peer_nat = peer.as_ref().and_then(|peer| peer.nat);
        let address = peer.as_ref().map(Entry::socket_addr);
        let mut rungs = self.aim.rungs();
        while let Some(rung) = rungs.next() {
            if needs_own_nat(rung, self.report.peer_nat) {
                if timeout_at(self.deadline, own.as_mut()).await.is_err() {
                    self.skip(
                        [rung].into_iter().chain(rungs),
                        address,
                        "the time was over before the own NAT was known",
                    );
                    return Outcome::OutOfTime;
                }
                meeting.own = own.as_mut().output_mut().copied().unwrap_or(Behaviour::UNKNOWN);
                self.report.own_nat = meeting.own;
                if let Ok((presence, _)) = &meeting.at_broker {
                    presence.rendezvous.tell(meeting.own);
                }
            }
            let tried = Instant::now();
            let outcome = timeout_at(self.deadline, beside(own.as_mut(), meeting.try_rung(rung))).await;
            let mut failed = |tried, took_ms, reason| {
                self.report.failed.push(FailedRung { rung, peer: address, tried, reason, took_ms });
            };
            match outcome {
                Ok(Ok(path)) => return Outcome::Reached(path),
                Ok(Err(Failed::Skipped(reason))) => failed(false, 0, reason),
                Ok(Err(Failed::Tried(reason))) => failed(true, ms(tried), reason),
                Ok(Err(Failed::Gone(reason))) => {
                    failed(true, ms(tried), format!("the peer is gone: {reason}"));
                    return Outcome::Gone;
                }
                Err(_) => {
                    failed(true, ms(tried), "the time for the whole attempt was over".to_owned());
                    self.skip(rungs, address, "the time was over");
                    return Outcome::OutOfTime;
                }
            }
        }
        Outcome::Unreached
    }

    fn skip(&mut self, rungs: impl Iterator<Item = Rung>, peer: Option<SocketAddr>, reason: &str) {
        let skipped = |rung| FailedRung { rung, peer, tried: false, reason: reason.to_owned(), took_ms: 0 };
        self.report.failed.extend(rungs.map(skipped));
    }
}

/// Whether the own NAT has to be known: not for a direct connection, nor for what is done with peers of the original.
fn needs_own_nat(rung: Rung, peer: Option<Behaviour>) -> bool {
    match rung {
        Rung::Direct => false,
        Rung::Punch => peer.is_some_and(|peer| !ladder::punch_from_anywhere(peer)),
        _ => peer.is_some(),
    }
}

/// Does `work`, and beside it what may be needed later.
async fn beside<F: Future, T>(mut later: Pin<&mut MaybeDone<F>>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // It says again and again that it is done.
        let _ = later.as_mut().poll(cx);
        work.as_mut().poll(cx)
    })
    .await
}

async fn look_up(host: &Host, service: &str) -> Vec<SocketAddr> {
    match &host.link {
        Some(link) => timeout(host.config.direct_timeout, link.lookup(service)).await,
        None => return Vec::new(),
    }
    .map_or(Vec::new(), Result::unwrap_or_default)
}

/// Registers with one broker after the other, until there is somebody who offers the service.
async fn find(host: &Host, service: &str, brokers: &[SocketAddr]) -> Result<(Arc<Presence>, Entry), String> {
    let mut reason = "there is no broker to introduce the peer".to_owned();
    for &broker in brokers {
        let presence = host.presence(broker, service);
        match choose(host, &presence, &BTreeSet::new(), host.config.peer_timeout).await {
            Ok(peer) => return Ok((presence, peer)),
            Err(None) => reason = format!("nobody is registered for {service}"),
            Err(Some(error)) => reason = format!("the broker at {broker} does not answer: {error}"),
        }
    }
    Err(reason)
}

/// Somebody at random who was not tried yet, as soon as there is one; an error where the broker does not answer.
async fn choose(
    host: &Host,
    presence: &Presence,
    tried: &BTreeSet<SocketAddr>,
    patience: Duration,
) -> Result<Entry, Option<String>> {
    let untried = |entry: &&Entry| !tried.contains(&entry.socket_addr());
    let seen: Seen = presence.until(|seen| seen.others.iter().any(|entry| untried(&entry)), patience).await?;
    // Those who know the extension can be reached by every rung.
    let extended = |entry: &&Entry| entry.nat.is_some() && seen.extension.is_some();
    let mut among: Vec<&Entry> = seen.others.iter().filter(untried).filter(extended).collect();
    if among.is_empty() {
        among = seen.others.iter().filter(untried).collect();
    }
    if among.is_empty() {
        return Err(None);
    }
    // By source first, and an untried one: whoever registers many times from one does not hide the others.
    let tried_at = |of: &Source| tried.iter().any(|other| source(other.ip()) == *of);
    let mut sources: BTreeSet<Source> = among.iter().map(|entry| source(entry.address)).collect();
    if sources.iter().any(|of| !tried_at(of)) {
        sources.retain(|of| !tried_at(of));
    }
    let random = |below| host.rng().random_range(0..below);
    let drawn = sources.iter().nth(random(sources.len())).copied();
    among.retain(|entry| Some(source(entry.address)) == drawn);
    // Nothing is drawn where there is no choice.
    let nth = if among.len() > 1 { random(among.len()) } else { 0 };
    let mut chosen = among[nth].clone();
    if seen.extension.is_none() {
        chosen.nat = None;
    }
    Ok(chosen)
}
