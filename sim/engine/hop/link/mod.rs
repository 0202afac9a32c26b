//! One direction of a link: size, queue and rate, then loss and corruption, then latency and duplication.

mod codel;
#[cfg(test)]
mod statistics;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use grenache::net::Rng;
use rand::Rng as _;

use super::Rule;
use crate::engine::seed;
use crate::scenario::model::{Discipline, GilbertElliott, Link, Spread};
use codel::CoDel;

/// No hop takes less, so that time moves with every packet and no loop of packets can stop it.
const SHORTEST_DELAY_NS: u64 = 1_000;

const NS_PER_S: u128 = 1_000_000_000;

/// The header that each fragment of an IPv4 packet has (RFC 791).
const IPV4_HEADER: usize = 20;

/// What a link is told of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Freight {
    /// With the IP header.
    pub(crate) bytes: usize,
    pub(crate) is_ipv6: bool,
}

/// How a packet comes out of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage {
    pub(crate) at_ns: u64,
    /// When it comes out again, where it is duplicated.
    pub(crate) copy_at_ns: Option<u64>,
    pub(crate) damage: Option<Damage>,
}

/// What a link did to a packet's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The flipped bit, by its number modulo the payload's bits.
    pub(crate) bit: u64,
    /// Whether the receiver checks UDP's checksum.
    pub(crate) is_checked: bool,
}

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct LinkState {
    latency_ns: u64,
    jitter_ns: u64,
    loss: f64,
    /// Bits a second.
    rate: Option<u64>,
    /// Bytes.
    queue: usize,
    /// When the last packet taken so far has left the queue. Where packets may go out in a burst, it lies up to the
    /// time that the burst takes in the past: a bucket that is full.
    busy_until_ns: i64,
    /// What most links do not do.
    more: Option<Box<More>>,
}

/// What a link does beside latency, jitter, loss, rate and queue. Each draws from a stream of its own.
#[derive(Debug)]
struct More {
    spread: Spread,
    /// Of the trace.
    next: usize,
    /// When the last packet comes out, where none may overtake another.
    in_order: Option<u64>,
    bursts: Option<(GilbertElliott, bool, Rng)>,
    lose: Vec<(u64, u64)>,
    /// How many packets came so far.
    packets: u64,
    duplicate: Option<(f64, Rng)>,
    corrupt: Option<(f64, Rng)>,
    checksums: bool,
    codel: Option<CoDel>,
    /// How long the bytes of a burst take at the rate.
    burst_ns: i64,
    mtu: Option<usize>,
    fragments: bool,
}

impl LinkState {
    /// The state of `link` in one of its directions, with the streams of random numbers for what it draws, by name.
    pub(crate) fn new(link: &Link, up: bool, stream: impl Fn(&str) -> Rng) -> Self {
        let link = link.direction(up);
        let ns = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4);
        let rate = link.rate.filter(|&rate| rate > 0);
        let more = More::new(link, rate, stream);
        Self {
            latency_ns: ns(link.latency),
            jitter_ns: ns(link.jitter),
            loss: link.loss,
            rate,
            queue: link.queue,
            busy_until_ns: more.as_ref().map_or(0, |more| -more.burst_ns),
            more,
        }
    }

    /// How a packet that enters now comes out at the other end, or why it never does.
    ///
    /// A packet that meets an idle line is taken whatever the queue; one that has to wait is dropped if with it more
    /// than the queue's bytes were waiting, what is left of the packet on the line included. Loss strikes on the
    /// line: a lost packet has used its share of the rate.
    pub(crate) fn on_packet(&mut self, now_ns: u64, freight: Freight, rng: &mut Rng) -> Result<Passage, Rule> {
        if self.more.is_some() {
            return self.on_packet_of_more(now_ns, freight, rng);
        }
        let leaves_ns = self.through_queue(now_ns, freight.bytes)?;
        if self.loss > 0.0 && seed::chance(rng, self.loss) {
            return Err(Rule::Loss(self.loss));
        }
        let at_ns = (leaves_ns + self.even_latency_ns(rng)).max(now_ns + SHORTEST_DELAY_NS);
        Ok(Passage { at_ns, copy_at_ns: None, damage: None })
    }

    fn on_packet_of_more(&mut self, now_ns: u64, freight: Freight, rng: &mut Rng) -> Result<Passage, Rule> {
        let more = self.more.as_mut().expect("asked before");
        more.packets += 1;
        let nth = more.packets;
        let fragments = more.cut(freight)?;
        let headers = (fragments - 1) * IPV4_HEADER;
        let leaves_ns = self.through_queue(now_ns, freight.bytes + headers)?;
        let (loss, more) = (self.loss, self.more.as_mut().expect("asked before"));
        if more.lose.iter().any(|(first, last)| (*first..=*last).contains(&nth)) {
            return Err(Rule::Position(nth));
        }
        for _ in 0..fragments {
            if loss > 0.0 && seed::chance(rng, loss) {
                return Err(Rule::Loss(loss));
            }
            more.strike()?;
        }
        let damage = more.corrupt.as_mut().and_then(|(share, rng)| {
            let is_struck = seed::chance(rng, *share);
            let bit = rng.next_u64();
            is_struck.then_some(Damage { bit, is_checked: more.checksums })
        });
        let mut at_ns = 0;
        for _ in 0..fragments {
            // A packet is whole when the last of its fragments is there, whichever that is.
            at_ns = self.arrival_ns(now_ns, leaves_ns, rng).max(at_ns);
        }
        let copied = self.more.as_mut().and_then(|more| more.duplicate.as_mut()).and_then(|(share, rng)| {
            // The copy's latency is drawn from its own stream, whether there is one or not.
            let is_copied = seed::chance(rng, *share);
            let stream = seed::below(rng, u64::MAX);
            is_copied.then_some(stream)
        });
        let copy_at_ns = copied.map(|number| {
            let mut own = seed::stream(number, &["copy"]);
            self.arrival_ns(now_ns, leaves_ns, &mut own)
        });
        Ok(Passage { at_ns, copy_at_ns, damage })
    }

    /// What waits for the rate, and how long until all of it is on the line; `None` where there is no rate.
    pub(crate) fn queued(&self, now_ns: u64) -> Option<(usize, u64)> {
        let wait_ns = self.wait_ns(now_ns);
        self.rate.map(|rate| (bytes_in(wait_ns, rate), wait_ns))
    }

    fn wait_ns(&self, now_ns: u64) -> u64 {
        let now = i64::try_from(now_ns).unwrap_or(i64::MAX);
        u64::try_from(self.busy_until_ns.saturating_sub(now)).unwrap_or(0)
    }

    /// When a packet has left the queue, if there is room for it.
    fn through_queue(&mut self, now_ns: u64, bytes: usize) -> Result<u64, Rule> {
        let Some(rate) = self.rate else { return Ok(now_ns) };
        let wait_ns = self.wait_ns(now_ns);
        let waiting = if wait_ns == 0 { 0 } else { bytes_in(wait_ns, rate) };
        let now = i64::try_from(now_ns).unwrap_or(i64::MAX);
        if wait_ns > 0 && waiting.saturating_add(bytes) > self.queue {
            return Err(Rule::QueueFull(self.queue));
        }
        let mut idle_since = now;
        if let Some(more) = &mut self.more {
            idle_since = now.saturating_sub(more.burst_ns);
            if let Some(codel) = &mut more.codel
                && codel.drops(now_ns + wait_ns, wait_ns, waiting)
            {
                return Err(Rule::CoDel(wait_ns));
            }
        }
        let on_line = i64::try_from(time_on_line_ns(bytes, rate)).unwrap_or(i64::MAX / 4);
        self.busy_until_ns = self.busy_until_ns.max(idle_since).saturating_add(on_line);
        Ok(u64::try_from(self.busy_until_ns.max(now)).unwrap_or(now_ns))
    }

    /// When what leaves the queue at `leaves_ns` is there.
    fn arrival_ns(&mut self, now_ns: u64, leaves_ns: u64, rng: &mut Rng) -> u64 {
        let (latency, jitter) = (self.latency_ns, self.jitter_ns);
        let latency_ns = match self.more.as_mut().map(|more| (&more.spread, &mut more.next)) {
            Some((Spread::Normal, _)) => latency.saturating_add_signed(normal(rng, jitter)),
            Some((Spread::Trace(trace), next)) => {
                let recorded = trace.get(*next).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(0));
                *next = (*next + 1) % trace.len().max(1);
                latency + recorded
            }
            _ => self.even_latency_ns(rng),
        };
        let mut at_ns = (leaves_ns + latency_ns).max(now_ns + SHORTEST_DELAY_NS);
        if let Some(last_ns) = self.more.as_mut().and_then(|more| more.in_order.as_mut()) {
            at_ns = at_ns.max(*last_ns);
            *last_ns = at_ns;
        }
        at_ns
    }

    fn even_latency_ns(&self, rng: &mut Rng) -> u64 {
        if self.jitter_ns == 0 {
            return self.latency_ns;
        }
        let drawn = seed::below(rng, 2 * self.jitter_ns + 1);
        (self.latency_ns + drawn).saturating_sub(self.jitter_ns)
    }
}

impl More {
    /// `None` where the link does nothing of it.
    fn new(link: &Link, rate: Option<u64>, stream: impl Fn(&str) -> Rng) -> Option<Box<Self>> {
        let plain = Link {
            latency: link.latency,
            jitter: link.jitter,
            loss: link.loss,
            rate: link.rate,
            queue: link.queue,
            checksums: link.checksums,
            fragments: link.fragments,
            up: link.up.clone(),
            down: link.down.clone(),
            ..Link::default()
        };
        if plain == *link {
            return None;
        }
        let burst_ns = rate.map_or(0, |rate| i64::try_from(time_on_line_ns(link.burst, rate)).unwrap_or(i64::MAX / 4));
        let drawn = |share: f64, name: &str| (share > 0.0).then(|| (share, stream(name)));
        Some(Box::new(Self {
            spread: match &link.spread {
                Spread::Trace(trace) if trace.is_empty() => Spread::Trace(Arc::from([std::time::Duration::ZERO])),
                spread => spread.clone(),
            },
            next: 0,
            in_order: (!link.reordering).then_some(0),
            bursts: link.bursts.map(|bursts| (bursts, false, stream("bursts"))),
            lose: link.lose.clone(),
            packets: 0,
            duplicate: drawn(link.duplicate, "duplicate"),
            corrupt: drawn(link.corrupt, "corrupt"),
            checksums: link.checksums,
            codel: (link.discipline == Discipline::CoDel).then(CoDel::default),
            burst_ns,
            mtu: link.mtu,
            fragments: link.fragments,
        }))
    }

    /// Into how many fragments a packet is cut.
    fn cut(&self, freight: Freight) -> Result<usize, Rule> {
        let Some(mtu) = self.mtu.filter(|mtu| freight.bytes > *mtu) else { return Ok(1) };
        // A fragment's payload is a multiple of eight bytes (RFC 791, 3.1), but for the last one's.
        let room = mtu.saturating_sub(IPV4_HEADER) & !7;
        if !self.fragments || freight.is_ipv6 || room == 0 {
            return Err(Rule::LargerThanLink(mtu));
        }
        Ok(freight.bytes.saturating_sub(IPV4_HEADER).div_ceil(room).max(1))
    }

    /// Loss in bursts.
    fn strike(&mut self) -> Result<(), Rule> {
        let Some((model, is_bad, rng)) = &mut self.bursts else { return Ok(()) };
        if seed::chance(rng, if *is_bad { model.leave } else { model.enter }) {
            *is_bad = !*is_bad;
        }
        let share = if *is_bad { model.bad } else { model.good };
        if seed::chance(rng, share) { Err(Rule::Burst { is_bad: *is_bad, share }) } else { Ok(()) }
    }
}

/// A normally distributed number around 0 with this standard deviation: the sum of twelve even ones, which no more than
/// six deviations lie from 0. It is of whole numbers only, so that it is the same in every build.
fn normal(rng: &mut Rng, deviation: u64) -> i64 {
    const UNIT: i128 = 1 << 32;
    let mut sum = 0_i128;
    for _ in 0..6 {
        let two = rng.next_u64();
        sum += i128::from(two >> 32) + i128::from(two & 0xffff_ffff);
    }
    let from_mean = sum - 6 * (UNIT - 1);
    i64::try_from(from_mean * i128::from(deviation) / UNIT).unwrap_or(0)
}

/// How long a packet occupies the line, rounded up.
fn time_on_line_ns(size: usize, rate: u64) -> u64 {
    let ns = (size as u128 * 8 * NS_PER_S).div_ceil(u128::from(rate));
    u64::try_from(ns).unwrap_or(u64::MAX / 4)
}

/// How many bytes go over the line in this time, rounded up.
fn bytes_in(ns: u64, rate: u64) -> usize {
    let bytes = (u128::from(ns) * u128::from(rate)).div_ceil(8 * NS_PER_S);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
