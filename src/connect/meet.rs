//! Two peers' sockets finding each other: punches out, punches in, connections tried.

use std::collections::BTreeSet;
use std::future::{pending, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::shots::Shots;
use crate::event::Event;
use crate::nat::FreshSocket;
use crate::net::{Net, Rng, UdpSocket};
use crate::punch::{PUNCH, Puncher};
use crate::transport::Endpoint;

/// To how many addresses of one peer a connection is tried, or a punch answered.
const MAX_ADDRESSES: usize = 8;

/// When each of many sockets punches: once more, for the first may be lost on its own side of the NAT.
const VOLLEYS: [Duration; 2] = [Duration::ZERO, Duration::from_secs(1)];

/// Punches as planned, and answers each punch from the peer's address with one. The caller also connects to whatever
/// address a punch came from; gives the first one that takes the connection.
///
/// `None` when the time is over: for the other side always.
pub(super) async fn meet(
    endpoint: &Endpoint,
    puncher: &Puncher,
    mut shots: Shots,
    peer: IpAddr,
    timeout: Duration,
    caller: bool,
) -> Option<SocketAddr> {
    let deadline = Instant::now() + timeout;
    let mut punched = puncher.punched();
    let mut seen = BTreeSet::new();
    let mut connecting = FuturesUnordered::new();
    loop {
        let due = shots.due(Instant::now().into_std());
        fire(endpoint, puncher, &due, shots.is_probing());
        let until = shots.next_at().map_or(deadline, |at| deadline.min(at.into()));
        let next = async {
            let connected = async { if connecting.is_empty() { pending().await } else { connecting.next().await } };
            match select(pin!(connected), pin!(punched.next())).await {
                Either::Left((connected, _)) => Heard::Connected(connected.flatten()),
                Either::Right((punched, _)) => Heard::Punched(punched),
            }
        };
        match timeout_at(until, next).await {
            Ok(Heard::Connected(Some(address))) => return Some(address),
            Ok(Heard::Connected(None)) => {}
            // The endpoint is closed: nothing will come.
            Ok(Heard::Punched(None)) => return None,
            Ok(Heard::Punched(Some(from))) => {
                if from.ip().to_canonical() != peer {
                    continue;
                }
                shots.hit();
                let new = seen.len() < MAX_ADDRESSES && seen.insert(from);
                // Only one side answers each punch, or they would go on for ever.
                if new || (!caller && seen.contains(&from)) {
                    puncher.punch(from);
                }
                if caller && new {
                    connecting.push(async move { endpoint.connect(from).await.ok().map(|_| from) });
                }
            }
            Err(_) if Instant::now() >= deadline => return None,
            Err(_) => {}
        }
    }
}

/// What a socket's owner hears of.
enum Heard {
    /// An attempt to connect ended: with a connection to this address, or without.
    Connected(Option<SocketAddr>),
    /// Somebody punched; `None` once the endpoint is closed.
    Punched(Option<SocketAddr>),
}

fn fire(endpoint: &Endpoint, puncher: &Puncher, targets: &[SocketAddr], probing: bool) {
    if !probing {
        targets.iter().for_each(|target| puncher.punch(*target));
        return;
    }
    if let Some(first) = targets.first() {
        targets.iter().for_each(|target| endpoint.send_datagram(*target, Bytes::from_static(&PUNCH)));
        endpoint.net().emit(Event::PortsProbed { address: first.ip(), ports: targets.len() });
    }
}

/// Many sockets that punch one address, each with a hole of its own.
#[derive(Debug)]
pub(super) struct Volley(Vec<FreshSocket>);

impl Volley {
    /// # Errors
    /// Where a socket cannot be opened.
    pub(super) fn open(net: &Net, rng: &mut Rng, count: usize, towards: SocketAddr) -> io::Result<Self> {
        (0..count).map(|_| FreshSocket::bind(net, rng, towards)).collect::<io::Result<_>>().map(Self)
    }

    /// Punches `target` from each socket, until one of them receives something from that address; gives that one, and
    /// where it came from. `None` when the time is over.
    pub(super) async fn hit(self, target: SocketAddr, timeout: Duration) -> Option<(Arc<dyn UdpSocket>, SocketAddr)> {
        let began = Instant::now();
        for (nth, at) in VOLLEYS.into_iter().enumerate() {
            for socket in &self.0 {
                // What cannot be sent is lost, as on the way.
                let _ = socket.send(target, &PUNCH).await;
            }
            let until = began + VOLLEYS.get(nth + 1).map_or(timeout, |next| timeout.min(*next));
            debug_assert!(at <= timeout || nth > 0);
            if let Ok((hit, from)) = timeout_at(until, self.heard(target.ip())).await {
                let socket = self.0.into_iter().nth(hit)?;
                return Some((socket.socket, from));
            }
        }
        None
    }

    /// Which socket hears something from `peer` first.
    async fn heard(&self, peer: IpAddr) -> (usize, SocketAddr) {
        poll_fn(|cx| {
            for (nth, socket) in self.0.iter().enumerate() {
                loop {
                    let mut found = None;
                    let received = socket.poll_received(cx, |from, _| {
                        if from.ip().to_canonical() == peer {
                            found = Some(from);
                        }
                    });
                    if let Some(from) = found {
                        return Poll::Ready((nth, from));
                    }
                    if !matches!(received, Poll::Ready(Ok(()))) {
                        break;
                    }
                }
            }
            Poll::Pending
        })
        .await
    }
}
