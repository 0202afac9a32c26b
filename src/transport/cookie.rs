//! The number in a SYN-ACK, from which a connection can be made again that was forgotten under a flood of SYNs.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng as _;
use sha1::{Digest, Sha1};

use crate::net::Rng;
use crate::utp::Seq;
use crate::utp::wire::Repr;

/// How long a number is made in the same way: it counts in this span and the next one.
const SPAN: Duration = Duration::from_secs(8);

/// How many packets of an initiator may overtake the first one, or it be lost, for the connection to be made again.
const OVERTAKING: u16 = 4;

/// SYN cookies (RFC 4987, 3.6) of 16 bits. So short a number can be guessed, once in 8,000 packets: they count only
/// while connections are being forgotten, and what a guess makes is one connection of the address, with its limits.
pub(super) struct Cookies {
    secret: [u8; 16],
    began: Instant,
    /// Until when what was forgotten may come back.
    until: Option<Instant>,
}

impl Cookies {
    pub(super) fn new(now: Instant, rng: &mut Rng) -> Self {
        let mut secret = [0; 16];
        rng.fill_bytes(&mut secret);
        Self { secret, began: now, until: None }
    }

    /// A connection was forgotten that its peer may go on with for `time`.
    pub(super) fn forgot(&mut self, now: Instant, time: Duration) {
        self.until = Some(now + time);
    }

    /// The SYN-ACK's number. As good as random: another one for the same SYN some seconds later, so that old packets
    /// of a peer that starts with the same numbers each time do not fit.
    pub(super) fn number(&self, now: Instant, from: SocketAddr, syn: &Repr<'_>) -> Seq {
        self.number_in(self.span(now), from, syn.connection_id, syn.seq)
    }

    /// The number of the SYN that a packet of no known connection follows, where its ack says that we answered one.
    pub(super) fn syn_of(&self, now: Instant, from: SocketAddr, packet: &Repr<'_>) -> Option<Seq> {
        self.until.filter(|until| now < *until)?;
        let (span, id) = (self.span(now), packet.connection_id.wrapping_sub(1));
        (1..=OVERTAKING).map(|back| packet.seq - back).find(|syn| {
            [span, span.wrapping_sub(1)].iter().any(|&s| self.number_in(s, from, id, *syn) == packet.ack + 1)
        })
    }

    fn span(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / SPAN.as_secs()
    }

    fn number_in(&self, span: u64, from: SocketAddr, id: u16, syn: Seq) -> Seq {
        let mut hash = Sha1::new();
        hash.update(self.secret);
        hash.update(span.to_be_bytes());
        match from.ip() {
            IpAddr::V4(ip) => hash.update(ip.octets()),
            IpAddr::V6(ip) => hash.update(ip.octets()),
        }
        hash.update(from.port().to_be_bytes());
        hash.update(id.to_be_bytes());
        hash.update(syn.0.to_be_bytes());
        let hash = hash.finalize();
        Seq(u16::from_be_bytes([hash[0], hash[1]]))
    }
}
