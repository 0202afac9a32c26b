//! Asking brokers what they see: the part with sockets.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::join;
use rand::RngExt as _;
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::probe::{Probe, Probed};
use super::{Behaviour, Filtering, Mapping, Observations, Ports, Sample};
use crate::net::{LONGEST_WAIT, Net, RecvMeta, Rng, Transmit, UdpSocket};

/// How many brokers are asked; those after them are not.
pub const MAX_BROKERS: usize = 8;

/// How often another random port is tried where one is taken, before the system may choose.
const BIND_TRIES: usize = 8;

/// The ports that fresh sockets are bound to (RFC 6335, 6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// The largest datagram that is received whole: no answer is longer.
const BUFFER: usize = 2048;

/// Settings of [`check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckConfig {
    timeout: Duration,
    interval: Duration,
    sockets: usize,
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_millis(1200), interval: Duration::from_millis(300), sockets: 4 }
    }
}

impl CheckConfig {
    /// How long an answer may take (default 1.2 s, at least 1 ms, at most a year). What has not come by then was filtered.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.clamp(Duration::from_millis(1), LONGEST_WAIT), ..self }
    }

    /// How often a probe is repeated until its answer comes (default every 300 ms, at least 1 ms, at most a year).
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval: interval.clamp(Duration::from_millis(1), LONGEST_WAIT), ..self }
    }

    /// How many sockets are used (default 4, from 3 to 16): what the port assignment is told by.
    pub fn sockets(self, sockets: usize) -> Self {
        Self { sockets: sockets.clamp(3, 16), ..self }
    }
}

/// Why nothing is known about the NAT.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// There was nobody to ask.
    #[error("no broker to ask: name one or two")]
    NoBroker,
    /// Nobody answered.
    #[error("none of {0} brokers answers probes: are they up, and this project's?")]
    NoAnswer(usize),
    /// No socket could be opened.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] io::Error),
}

/// What [`check`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What the NAT does.
    #[serde(flatten)]
    pub behaviour: Behaviour,
    /// The address that others see.
    pub public_address: IpAddr,
    /// The brokers that answered; the first is the one that most was asked of.
    pub brokers: Vec<SocketAddr>,
    /// The first broker's other port.
    pub alternate_port: Option<u16>,
}

impl Report {
    /// What could not be told and what would help, a sentence each.
    pub fn advice(&self) -> Vec<&'static str> {
        let Behaviour { mapping, filtering, ports } = self.behaviour;
        let mut advice = Vec::new();
        let unknown = mapping == Mapping::Unknown || filtering == Filtering::Unknown;
        if unknown && self.brokers.len() < 2 {
            advice.push("ask a second broker with another address to learn what depends on the address");
        }
        if unknown && self.alternate_port.is_none() {
            advice.push("ask a broker with an alternate port to learn what depends on the port");
        }
        if ports == Ports::Unknown && mapping != Mapping::NoNat {
            advice.push("too few answers arrived to tell how ports are assigned: check again");
        }
        advice
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Behaviour { mapping, filtering, ports } = self.behaviour;
        writeln!(f, "public address: {}", self.public_address)?;
        writeln!(f, "mapping: {mapping}")?;
        writeln!(f, "filtering: {filtering}")?;
        write!(f, "ports: {ports}")?;
        self.advice().iter().try_for_each(|advice| write!(f, "\n{advice}"))
    }
}

/// Finds out what the NAT in front of this host does, by asking brokers of ours how they see it.
///
/// The first broker that answers is asked most. A second one with another address, and one that offers an alternate
/// port, make the answer complete; without them it is unknown in part ([`Report::advice`]). Takes 1.5 s and some 40 packets
/// where a NAT filters, up to 10 s where nobody answers, and up to 16 s where only the last one of [`MAX_BROKERS`] does and
/// every answer is late.
///
/// ```no_run
/// # async fn example(net: grenache::net::Net) -> Result<(), grenache::nat::CheckError> {
/// use grenache::nat::{CheckConfig, check};
/// let brokers = ["203.0.113.1:1337".parse().unwrap(), "198.51.100.1:1337".parse().unwrap()];
/// println!("{}", check(&net, &brokers, CheckConfig::default()).await?);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Where no broker answers, or no socket can be opened.
pub async fn check(net: &Net, brokers: &[SocketAddr], config: CheckConfig) -> Result<Report, CheckError> {
    let brokers = &brokers[..brokers.len().min(MAX_BROKERS)];
    let mut rng = net.rng("nat");
    let mut checking = Checking { net, config, rng: &mut rng };
    let (broker, first, probed) = checking.first_answer(brokers).await?;
    let mut observations = Observations { own_address: own_address(net, broker), ..Observations::default() };
    let mut sockets = vec![first];
    observations.samples.push(Sample { local_port: sockets[0].local_port, mapped: probed.from });
    while sockets.len() < config.sockets {
        let socket = FreshSocket::bind(net, checking.rng, broker)?;
        if let Some(answer) = checking.ask(&socket, broker, Probe::new).await {
            observations.samples.push(Sample { local_port: socket.local_port, mapped: answer.from });
            sockets.push(socket);
        } else {
            // On a path that loses this much there is no more to learn from another socket.
            break;
        }
    }
    let alternate = probed.alternate.map(|port| SocketAddr::new(broker.ip(), port.get()));
    // Those before it have not answered.
    let after = brokers.iter().copied().skip_while(|other| *other != broker);
    let other = after.filter(|other| other.ip() != broker.ip());
    let second = checking.others(&sockets, &mut observations, broker, alternate, other).await;
    let report = Report {
        behaviour: observations.classify(),
        public_address: probed.from.ip(),
        brokers: std::iter::once(broker).chain(second).collect(),
        alternate_port: probed.alternate.map(NonZeroU16::get),
    };
    Ok(report)
}

/// The address that this host has towards a broker, where the network can tell.
fn own_address(net: &Net, broker: SocketAddr) -> Option<IpAddr> {
    net.local_ip(broker).ok().map(|ip| ip.to_canonical())
}

struct Checking<'a> {
    net: &'a Net,
    config: CheckConfig,
    rng: &'a mut Rng,
}

impl Checking<'_> {
    /// The first broker in the order given that answers, and the socket that it saw.
    async fn first_answer(&mut self, brokers: &[SocketAddr]) -> Result<(SocketAddr, FreshSocket, Probed), CheckError> {
        if brokers.is_empty() {
            return Err(CheckError::NoBroker);
        }
        for &broker in brokers {
            let socket = FreshSocket::bind(self.net, self.rng, broker)?;
            if let Some(answer) = self.ask(&socket, broker, Probe::new).await {
                return Ok((broker, socket, answer));
            }
        }
        Err(CheckError::NoAnswer(brokers.len()))
    }

    async fn ask(&mut self, socket: &FreshSocket, to: SocketAddr, probe: impl Fn(u64) -> Probe) -> Option<Probed> {
        let probe = probe(self.rng.random());
        exchange(socket, socket, to, probe, self.config).await
    }

    /// What the first socket looks like from elsewhere, and who gets in at the next ones; these have sent to nobody but
    /// the first broker. Gives the second broker.
    async fn others(
        &mut self,
        sockets: &[FreshSocket],
        observations: &mut Observations,
        broker: SocketAddr,
        alternate: Option<SocketAddr>,
        others: impl Iterator<Item = SocketAddr>,
    ) -> Option<SocketAddr> {
        let config = self.config;
        let ids: [u64; 4] = std::array::from_fn(|_| self.rng.random());
        let first = &sockets[0];
        // Of a path that loses packets too little is known: a silent answer is no filter then.
        let complete = sockets.len() >= self.config.sockets;
        let elsewhere = async {
            let at_other_port = match alternate {
                Some(alternate) => exchange(first, first, alternate, Probe::new(ids[0]), config).await,
                None => None,
            };
            let mut second = None;
            for other in others {
                second = exchange(first, first, other, Probe::new(ids[1]), config).await.map(|seen| (other, seen.from));
                if second.is_some() {
                    break;
                }
            }
            let lets_in = match (second, sockets.get(2).filter(|_| complete)) {
                (Some((second, _)), Some(listener)) => {
                    // The first socket is known to get answers from there. It asks for one to the third one's port.
                    let to_port = NonZeroU16::new(observations.samples[2].mapped.port());
                    let probe = Probe { to_port, ..Probe::new(ids[3]) };
                    Some(exchange(first, listener, second, probe, config).await.is_some())
                }
                _ => None,
            };
            (at_other_port, second, lets_in)
        };
        let other_port = async {
            let (Some(socket), Some(_)) = (sockets.get(1).filter(|_| complete), alternate) else { return None };
            let probe = Probe { via_alternate: true, ..Probe::new(ids[2]) };
            Some(exchange(socket, socket, broker, probe, config).await.is_some())
        };
        // Silence is waited for in both at once.
        let ((at_other_port, second, lets_other_addresses_in), lets_other_ports_in) = join(elsewhere, other_port).await;
        observations.at_other_port = at_other_port.map(|answer| answer.from);
        observations.at_other_address = second.map(|(_, seen)| seen);
        observations.lets_other_ports_in = lets_other_ports_in;
        observations.lets_other_addresses_in = lets_other_addresses_in;
        second.map(|(second, _)| second)
    }
}

/// A fresh socket, and where a broker sees it; `None` where it does not answer.
///
/// # Errors
/// Where no socket can be opened.
pub(crate) async fn sample(
    net: &Net,
    rng: &mut Rng,
    broker: SocketAddr,
    config: CheckConfig,
) -> io::Result<Option<(FreshSocket, SocketAddr)>> {
    let socket = FreshSocket::bind(net, rng, broker)?;
    let probe = Probe::new(rng.random());
    let answer = exchange(&socket, &socket, broker, probe, config).await;
    Ok(answer.map(|answer| (socket, answer.from)))
}

/// Sends a probe from one socket, again and again, until the answer arrives at the other or the time is over.
async fn exchange(
    sender: &FreshSocket,
    listener: &FreshSocket,
    to: SocketAddr,
    probe: Probe,
    config: CheckConfig,
) -> Option<Probed> {
    let datagram = probe.encode();
    let deadline = Instant::now() + config.timeout;
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            // What cannot be sent is lost, as on the way.
            let _ = sender.send(to, &datagram).await;
            next += config.interval;
        }
        let until = next.min(deadline);
        if let Ok(answer) = timeout_at(until, listener.answer(probe.id)).await {
            match answer {
                Ok(answer) => return Some(answer),
                Err(_) => sleep_until(until).await,
            }
        }
        if Instant::now() >= deadline {
            return None;
        }
    }
}

/// A socket that nothing was sent from yet, on a port of its own.
#[derive(Debug)]
pub(crate) struct FreshSocket {
    pub(crate) socket: Arc<dyn UdpSocket>,
    pub(crate) local_port: u16,
}

impl FreshSocket {
    /// On a random port: systems that give out ports in turn would have neighbours take each other's where a NAT
    /// preserves them.
    pub(crate) fn bind(net: &Net, rng: &mut Rng, towards: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = if towards.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let ports = (0..BIND_TRIES).map(|_| rng.random_range(EPHEMERAL)).chain(std::iter::once(0));
        let mut bound = Err(io::ErrorKind::AddrInUse.into());
        for port in ports {
            bound = net.bind_udp(SocketAddr::new(any, port));
            if bound.is_ok() {
                break;
            }
        }
        let socket = bound?;
        let local_port = socket.local_addr()?.port();
        Ok(Self { socket, local_port })
    }

    pub(crate) async fn send(&self, destination: SocketAddr, contents: &[u8]) -> io::Result<()> {
        let transmit = Transmit { destination, contents, segment_size: None };
        poll_fn(|cx| self.socket.poll_send(cx, &transmit)).await
    }

    /// Hands what has been received to `each`, as single datagrams.
    pub(crate) fn poll_received(
        &self,
        cx: &mut Context<'_>,
        mut each: impl FnMut(SocketAddr, &[u8]),
    ) -> Poll<io::Result<()>> {
        let (mut buffer, mut meta) = ([0; BUFFER], [RecvMeta::default()]);
        ready!(self.socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta))?;
        let RecvMeta { source, len, stride } = meta[0];
        buffer[..len.min(BUFFER)].chunks(stride.max(1)).for_each(|datagram| each(source, datagram));
        Poll::Ready(Ok(()))
    }

    async fn answer(&self, id: u64) -> io::Result<Probed> {
        poll_fn(|cx| {
            loop {
                let mut found = None;
                ready!(self.poll_received(cx, |_, datagram| {
                    found = found.or(Probed::parse(datagram).filter(|answer| answer.id == id));
                }))?;
                if let Some(answer) = found {
                    return Poll::Ready(Ok(answer));
                }
            }
        })
        .await
    }
}
