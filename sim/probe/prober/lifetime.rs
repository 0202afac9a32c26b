//! How long a mapping lives, and what keeps it alive (RFC 5780, 4.6): one socket's mapping is left alone, and after a
//! while another socket has the server send a response to it.

use std::time::Duration;

use futures_util::future::{join, join_all};
use grenache::net::Rng;
use rand::RngExt as _;
use tokio::time::sleep;

use super::super::socket::Socket;
use super::super::stun::{Binding, Change};
use super::exchange::{Ask, exchange, request};
use super::{Lifetime, Prober, Refreshed};

/// How many mappings are watched at once: each round makes the interval so many times smaller.
const WATCHED: u32 = 8;

/// How many sockets are tried to find one with the watched socket's public address.
const CHECKERS: usize = 32;

impl Prober<'_> {
    /// Narrows the lifetime down. Takes `longest`, and then a few times the lifetime.
    pub(super) async fn lifetime(&self, longest: Duration, resolution: Duration) -> Lifetime {
        let (mut low, mut high) = (Duration::ZERO, longest);
        let mut known_dead = false;
        while high - low > resolution {
            let step = (high - low) / WATCHED;
            // The longest wait is watched until it is known to be too long.
            let last = if known_dead { WATCHED - 1 } else { WATCHED };
            let waits: Vec<Duration> = (1..=last).map(|nth| low + step * nth).collect();
            let alive = join_all(waits.iter().map(|&wait| self.lives(wait, None))).await;
            if alive.iter().any(Option::is_none) {
                return Lifetime::Unknown;
            }
            let dead = alive.iter().position(|alive| *alive == Some(false));
            let Some(dead) = dead else {
                if known_dead {
                    low = waits.last().copied().unwrap_or(low);
                    continue;
                }
                return Lifetime::AtLeast(longest);
            };
            high = waits[dead];
            low = if dead == 0 { low } else { waits[dead - 1] };
            known_dead = true;
        }
        if known_dead { Lifetime::Between(low, high) } else { Lifetime::Unknown }
    }

    /// Which packets keep a mapping of this lifetime alive: one is sent after three fifths of it, and a lifetime and a
    /// fifth after its beginning it is alive or not.
    pub(super) async fn refresh(&self, lifetime: Duration) -> Refreshed {
        let wait = lifetime * 6 / 5;
        match join(self.lives(wait, Some(Direction::Outbound)), self.lives(wait, Some(Direction::Inbound))).await {
            (Some(true), Some(true)) => Refreshed::Both,
            (Some(true), Some(false)) => Refreshed::Outbound,
            (Some(false), Some(true)) => Refreshed::Inbound,
            _ => Refreshed::Unknown,
        }
    }

    /// Whether a fresh mapping lives after a time, with one packet in this direction half way; `None` where it could
    /// not be watched.
    async fn lives(&self, wait: Duration, packet: Option<Direction>) -> Option<bool> {
        let mut rng = self.net.rng("nat-probe lifetime");
        let mut watched = Socket::fresh(self.net, &mut rng, self.server.ip()).ok()?;
        let ask = Ask { to: self.server, request: request(&mut rng, Change::default()) };
        let mapped = exchange(&mut watched, ask, self.config).await?.mapped;
        match packet {
            None => sleep(wait).await,
            Some(direction) => {
                sleep(wait / 2).await;
                match direction {
                    Direction::Outbound => {
                        let keep =
                            Binding::Indication { transaction: id(&mut rng), mapped: None, change: Change::default() };
                        watched.send(self.server, &keep.encode()).await.ok()?;
                    }
                    Direction::Inbound => {
                        self.reaches(&mut watched, mapped, &mut rng).await?;
                    }
                }
                sleep(wait / 2).await;
            }
        }
        self.reaches(&mut watched, mapped, &mut rng).await
    }

    /// Whether the server's response to a mapped address arrives; `None` where there was no way to ask for it.
    async fn reaches(&self, watched: &mut Socket, mapped: std::net::SocketAddr, rng: &mut Rng) -> Option<bool> {
        for _ in 0..CHECKERS {
            let mut checker = Socket::fresh(self.net, rng, self.server.ip()).ok()?;
            let ask = Ask { to: self.server, request: request(rng, Change::default()) };
            let seen = exchange(&mut checker, ask, self.config).await?;
            // Where pooling is arbitrary, a response to that port of another address would tell nothing.
            if seen.mapped.ip() != mapped.ip() {
                continue;
            }
            let request = Binding::Request {
                transaction: id(rng),
                change: Change::default(),
                response_port: Some(mapped.port()),
            };
            let arrived =
                super::exchange::elsewhere(&checker, watched, Ask { to: self.server, request }, self.config).await;
            return Some(arrived.is_some());
        }
        None
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Outbound,
    Inbound,
}

fn id(rng: &mut Rng) -> u128 {
    rng.random::<u128>() >> 32
}
