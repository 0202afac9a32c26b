//! RFC 5780's prober: what the NAT in front of this host does, in RFC 4787's terms.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use grenache::nat::{Filtering, Mapping, Observations, Ports, Sample};
use grenache::net::{Net, Rng};
use rand::RngExt as _;

use super::socket::Socket;
use super::stun::Change;

mod exchange;
mod lifetime;
mod report;

use exchange::{Ask, exchange, loops_back, request};
pub use report::{Hairpin, Lifetime, NatReport, Refreshed};

/// How many local ports are tried to make two hosts' mappings meet.
const MEETINGS: usize = 32;

/// The ports at which two hosts' sockets are to meet (RFC 6335, 6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// Settings of [`probe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProberConfig {
    timeout: Duration,
    interval: Duration,
    sockets: usize,
    longest: Option<Duration>,
    resolution: Duration,
}

impl Default for ProberConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(1200),
            interval: Duration::from_millis(300),
            sockets: 16,
            longest: Some(Duration::from_secs(600)),
            resolution: Duration::from_secs(1),
        }
    }
}

impl ProberConfig {
    /// How long an answer may take (default 1.2 s, at least 1 ms). What has not come by then was filtered.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.max(Duration::from_millis(1)), ..self }
    }

    /// How often a request is repeated until its answer comes (default every 300 ms, at least 1 ms).
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval: interval.max(Duration::from_millis(1)), ..self }
    }

    /// How many sockets are used to tell the port assignment by (default 16, from 4 to 64).
    pub fn sockets(self, sockets: usize) -> Self {
        Self { sockets: sockets.clamp(4, 64), ..self }
    }

    /// The longest binding lifetime that is told from longer ones (default 10 minutes): so long the prober waits.
    /// `None` leaves the lifetime alone.
    pub fn longest_lifetime(self, longest: Option<Duration>) -> Self {
        Self { longest, ..self }
    }

    /// How exactly the lifetime is told (default 1 s, at least 10 ms).
    pub fn resolution(self, resolution: Duration) -> Self {
        Self { resolution: resolution.max(Duration::from_millis(10)), ..self }
    }
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The server did not answer.
    #[error("the STUN server {0} does not answer: is it up, and is UDP let through to it?")]
    NoAnswer(SocketAddr),
    /// The server has no second address.
    #[error("the STUN server {0} names no other address: ask one with RFC 5780's extensions")]
    NoOtherAddress(SocketAddr),
    /// No socket could be opened.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] io::Error),
}

/// Finds out what the NAT in front of this host does, by asking a STUN server with RFC 5780's extensions.
///
/// A companion is another host behind the same NAT, whose sockets have the same ports as this host's: it takes two to
/// see ports overloaded, and to see which port comes next where ports are preserved.
///
/// Takes some seconds, and where the lifetime is asked for the longest one and a few times the NAT's own.
///
/// # Errors
/// Where the server does not answer, or not as RFC 5780 wants it, or no socket can be opened.
pub async fn probe(
    net: &Net,
    companion: Option<&Net>,
    server: SocketAddr,
    config: ProberConfig,
) -> Result<NatReport, ProbeError> {
    let mut prober = Prober { net, server, config, rng: net.rng("nat-probe") };
    let mut report = prober.behaviour().await?;
    if let Some(companion) = companion {
        prober.meet(companion, &mut report).await?;
    }
    if let Some(longest) = config.longest {
        report.lifetime = prober.lifetime(longest, config.resolution).await;
        if let Lifetime::Between(_, lifetime) = report.lifetime {
            report.refresh = prober.refresh(lifetime).await;
        }
    }
    Ok(report)
}

struct Prober<'a> {
    net: &'a Net,
    server: SocketAddr,
    config: ProberConfig,
    rng: Rng,
}

impl Prober<'_> {
    /// All but what takes a companion or time.
    async fn behaviour(&mut self) -> Result<NatReport, ProbeError> {
        let mut first = self.socket()?;
        let answer = self.ask(&mut first, self.server, Change::default()).await;
        let answer = answer.ok_or(ProbeError::NoAnswer(self.server))?;
        let other = answer.other.ok_or(ProbeError::NoOtherAddress(self.server))?;
        let own_address = self.net.local_ip(self.server).ok().map(|ip| ip.to_canonical());
        let mut observations = Observations { own_address, ..Observations::default() };
        observations.samples.push(Sample { local_port: first.local_port, mapped: answer.mapped });
        // All stay open: a port that came again would have the mapping that it had.
        let mut others = Vec::new();
        while observations.samples.len() < self.config.sockets {
            let mut socket = self.socket()?;
            let answer = self.ask(&mut socket, self.server, Change::default()).await;
            let answer = answer.ok_or(ProbeError::NoAnswer(self.server))?;
            observations.samples.push(Sample { local_port: socket.local_port, mapped: answer.mapped });
            others.push(socket);
        }
        let mut second = others.pop().expect("there are at least four");
        // RFC 5780, 4.4: a socket that has sent to nobody else yet.
        let both = Change { address: true, port: true };
        observations.lets_other_addresses_in = Some(self.ask(&mut second, self.server, both).await.is_some());
        let port = Change { address: false, port: true };
        observations.lets_other_ports_in = Some(self.ask(&mut second, self.server, port).await.is_some());
        // RFC 5780, 4.3.
        let elsewhere =
            [SocketAddr::new(self.server.ip(), other.port()), SocketAddr::new(other.ip(), self.server.port())];
        let seen = self.seen_from(&mut first, elsewhere).await;
        [observations.at_other_port, observations.at_other_address] = seen;
        let last = *observations.samples.last().expect("the first socket's is there");
        let moves = [(observations.samples[0], seen), (last, self.seen_from(&mut second, elsewhere).await)];
        // RFC 5780, 4.5. It may take a mapping of its own, and with it the port that would have come next.
        let hairpin = self.hairpin(&mut first, observations.samples[0].mapped).await;

        let mut told =
            Observations { samples: largest_series(&observations.samples), ..observations.clone() }.classify();
        // The mapping is the first socket's, whichever series it is in.
        told.mapping = observations.classify().mapping;
        let public_addresses = observations.samples.iter().map(|sample| sample.mapped.ip()).collect();
        Ok(NatReport {
            mapping: told.mapping,
            filtering: told.filtering,
            ports: told.ports,
            parity: parity(&observations, told.ports, &moves),
            overloading: None,
            public_addresses,
            hairpinning: hairpin.unwrap_or(match (told.mapping, told.filtering) {
                (Mapping::EndpointIndependent | Mapping::NoNat, _) | (_, Filtering::EndpointIndependent) => {
                    Hairpin::None
                }
                _ => Hairpin::Unknown,
            }),
            lifetime: Lifetime::Unknown,
            refresh: Refreshed::Unknown,
        })
    }

    /// Where a socket is seen from at each of these.
    async fn seen_from(&mut self, socket: &mut Socket, servers: [SocketAddr; 2]) -> [Option<SocketAddr>; 2] {
        let mut seen = [None; 2];
        for (seen, server) in seen.iter_mut().zip(servers) {
            *seen = self.ask(socket, server, Change::default()).await.map(|answer| answer.mapped);
        }
        seen
    }

    /// RFC 5780, 4.5: a request to the socket's own public endpoint. `None` where it does not come back.
    async fn hairpin(&mut self, socket: &mut Socket, mapped: SocketAddr) -> Option<Hairpin> {
        let ask = Ask { to: mapped, request: request(&mut self.rng, Change::default()) };
        let source = loops_back(socket, ask, self.config).await?;
        let own = self.net.local_ip(self.server).ok().map(|ip| ip.to_canonical());
        let internal = own == Some(source.ip().to_canonical()) && own != Some(mapped.ip());
        Some(if internal { Hairpin::InternalSource } else { Hairpin::ExternalSource })
    }

    /// Two hosts ask from the same port.
    async fn meet(&mut self, companion: &Net, report: &mut NatReport) -> Result<(), ProbeError> {
        let mut met = false;
        for _ in 0..MEETINGS {
            let port = self.rng.random_range(EPHEMERAL);
            let bind = |net| Socket::bind(net, port, self.server.ip());
            let (Ok(mut own), Ok(mut others)) = (bind(self.net), bind(companion)) else { continue };
            let mapped = self.ask(&mut own, self.server, Change::default()).await;
            let mapped = mapped.ok_or(ProbeError::NoAnswer(self.server))?.mapped;
            // An overloaded port is told apart by the remote endpoint: at the same one, the two would be in each
            // other's way.
            let elsewhere = self.other_port(&mut own).await.unwrap_or(self.server);
            let Some(answer) = self.ask(&mut others, elsewhere, Change::default()).await else { continue };
            if answer.mapped == mapped {
                report.overloading = Some(true);
                return Ok(());
            }
            if answer.mapped.ip() == mapped.ip() {
                report.overloading = Some(false);
                if report.ports != Ports::Preserving {
                    return Ok(());
                }
                // A neighbouring port that is taken looks as if parity was kept: it has to be kept twice.
                let kept = answer.mapped.port() % 2 == port % 2;
                let twice = std::mem::replace(&mut met, true);
                report.parity = Some(kept);
                if !kept || twice {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The server's other port, as its answers name it.
    async fn other_port(&mut self, socket: &mut Socket) -> Option<SocketAddr> {
        let other = self.ask(socket, self.server, Change::default()).await?.other?;
        Some(SocketAddr::new(self.server.ip(), other.port()))
    }

    async fn ask(&mut self, socket: &mut Socket, to: SocketAddr, change: Change) -> Option<exchange::Answer> {
        let request = request(&mut self.rng, change);
        exchange(socket, Ask { to, request }, self.config).await
    }

    fn socket(&mut self) -> io::Result<Socket> {
        Socket::fresh(self.net, &mut self.rng, self.server.ip())
    }
}

/// The samples of the public address that most were seen at: each has a port assignment of its own.
fn largest_series(samples: &[Sample]) -> Vec<Sample> {
    let mut by_address: BTreeMap<IpAddr, Vec<Sample>> = BTreeMap::new();
    for sample in samples {
        by_address.entry(sample.mapped.ip()).or_default().push(*sample);
    }
    by_address.into_values().max_by_key(Vec::len).unwrap_or_default()
}

/// Whether every port that was not preserved is even where the socket's is. With 16 samples it is so by chance once in
/// 65,536 times.
fn parity(observations: &Observations, ports: Ports, moves: &[(Sample, [Option<SocketAddr>; 2])]) -> Option<bool> {
    if ports != Ports::Preserving {
        return Some(observations.samples.iter().all(|sample| sample.local_port % 2 == sample.mapped.port() % 2));
    }
    // The next mapping of a socket, which could not have the port again. Its neighbour may be taken: two are asked.
    let next = |(sample, seen): &(Sample, [Option<SocketAddr>; 2])| {
        let moved = |seen: &&SocketAddr| seen.ip() == sample.mapped.ip() && **seen != sample.mapped;
        seen.iter().flatten().find(moved).map(|next| next.port() % 2 == sample.local_port % 2)
    };
    moves.iter().filter_map(next).reduce(|a, b| a && b)
}
