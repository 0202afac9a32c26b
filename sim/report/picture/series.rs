//! Figures over time that take no more room however long the run is: where there are too many, time gets coarser.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Serialize, Serializer};

use super::packets::{Kind, Packet};

/// How many points a curve has at most.
pub const MAX_POINTS: usize = 1_000;

/// How many bins goodput is counted in at most.
pub const MAX_BINS: usize = 240;

/// How many pairs of hosts goodput is counted for.
pub const MAX_FLOWS: usize = 64;

/// How many packets of a flow are remembered, to count none twice.
const REMEMBERED: usize = 4_096;

/// The width of goodput's bins at the beginning, in nanoseconds.
const FIRST_BIN: u64 = 10_000_000;

/// Points in the order of time. Written as `[ns, value, …]` each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Series<const N: usize> {
    points: Vec<(u64, [u64; N])>,
    /// Points closer to their predecessor than this are left out.
    interval: u64,
}

impl<const N: usize> Series<N> {
    /// Adds a point. Where there are too many, every second one goes, and so it is from then on.
    pub(super) fn add(&mut self, at: u64, values: [u64; N]) {
        if self.points.last().is_some_and(|(last, _)| at < last.saturating_add(self.interval)) {
            return;
        }
        if self.points.len() == MAX_POINTS {
            let span = at - self.points[0].0;
            self.interval = (self.interval * 2).max(2 * span / MAX_POINTS as u64);
            let mut number = 0_usize;
            self.points.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.points.push((at, values));
    }

    /// The points.
    pub fn points(&self) -> &[(u64, [u64; N])] {
        &self.points
    }
}

impl<const N: usize> Serialize for Series<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.points.iter().map(|(at, values)| {
            let mut point = vec![*at];
            point.extend(values);
            point
        }))
    }
}

/// Bytes that arrived for the first time, from host to host, over time.
#[derive(Debug)]
pub struct Goodput {
    bin: u64,
    flows: BTreeMap<(usize, usize), Flow>,
    left_out: u64,
}

#[derive(Debug, Default)]
struct Flow {
    bytes: Vec<u64>,
    seen: BTreeSet<Piece>,
    order: VecDeque<Piece>,
}

/// What tells a packet from its repetitions: kind, ports as sent, and its numbers.
type Piece = (Kind, u16, u16, String);

impl Default for Goodput {
    fn default() -> Self {
        Self { bin: FIRST_BIN, flows: BTreeMap::new(), left_out: 0 }
    }
}

impl Goodput {
    /// The bins' width in nanoseconds.
    pub fn bin(&self) -> u64 {
        self.bin
    }

    /// From which lane to which, and how many bytes in each bin from the run's beginning on.
    pub fn flows(&self) -> impl Iterator<Item = (usize, usize, &[u64])> {
        self.flows.iter().map(|((from, to), flow)| (*from, *to, flow.bytes.as_slice()))
    }

    /// How many bytes are in none of them: see [`MAX_FLOWS`].
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// A packet arrived at a lane.
    pub(super) fn arrived(&mut self, at: u64, to: usize, packet: &Packet) {
        let Some(bytes) = payload(packet) else { return };
        let Some((_, from)) = packet.way.first() else { return };
        if !self.flows.contains_key(&(*from, to)) && self.flows.len() == MAX_FLOWS {
            self.left_out += bytes;
            return;
        }
        while at / self.bin >= MAX_BINS as u64 {
            self.bin *= 2;
            for flow in self.flows.values_mut() {
                flow.bytes = flow.bytes.chunks(2).map(|pair| pair.iter().sum()).collect();
            }
        }
        let bin = usize::try_from(at / self.bin).unwrap_or(0);
        let flow = self.flows.entry((*from, to)).or_default();
        let numbers: Vec<&str> =
            packet.summary.split(' ').filter(|part| part.starts_with("id=") || part.starts_with("seq=")).collect();
        let piece = (packet.kind, packet.source.port(), packet.destination.port(), numbers.join(" "));
        if flow.seen.contains(&piece) {
            return;
        }
        if flow.order.len() == REMEMBERED
            && let Some(oldest) = flow.order.pop_front()
        {
            flow.seen.remove(&oldest);
        }
        flow.seen.insert(piece.clone());
        flow.order.push_back(piece);
        if flow.bytes.len() <= bin {
            flow.bytes.resize(bin + 1, 0);
        }
        flow.bytes[bin] += bytes;
    }
}

/// The bytes of a stream that a packet carries; `None` where it is none of a stream's, or carries nothing.
fn payload(packet: &Packet) -> Option<u64> {
    if !matches!(packet.kind, Kind::Utp | Kind::Tcp) {
        return None;
    }
    let length = packet.summary.split(' ').find_map(|part| part.strip_prefix("len="))?;
    length.parse().ok().filter(|length| *length > 0)
}
