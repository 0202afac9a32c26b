//! What pictures of a run are drawn from: gathered from the event stream, and bounded however long the run is.
//!
//! | module | what it does |
//! |---|---|
//! | `lanes` | who has a lane, and in which order |
//! | `packets` | which packets are kept |
//! | `series` | goodput, windows, round-trip times, queues over time |
//! | `words` | the stack's events in a few words |

pub mod lanes;
pub mod packets;
pub mod series;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use grenache::event::Event as StackEvent;
use serde::Serialize;

use crate::event::{Event, LabEvent, Protocol, Record};
use crate::scenario::Scenario;

pub use lanes::{Lane, LaneKind, Lanes};
use packets::{Ending, Packets};
use series::{Goodput, Series};

/// How many mappings are kept; later ones are counted.
pub const MAX_MAPPINGS: usize = 2_000;

/// How many marks are kept; later ones are counted.
pub const MAX_MARKS: usize = 4_000;

/// How many faults are kept; later ones are counted.
pub const MAX_FAULTS: usize = 1_000;

/// What happens again at the same place within this time is one mark, in nanoseconds.
pub const AGAIN: u64 = 1_000_000_000;

/// Among how many of the last marks of a lane the same thing is looked for.
const RECENT: usize = 8;

/// How many connections, and how many queues, have a curve; later ones are counted.
pub const MAX_SERIES: usize = 64;

/// A run as it is drawn.
#[derive(Debug)]
pub struct Picture {
    lanes: Lanes,
    packets: Packets,
    goodput: Goodput,
    mappings: Vec<Mapping>,
    marks: Vec<Mark>,
    /// The last marks of each lane, by their places.
    recent: BTreeMap<Option<usize>, VecDeque<usize>>,
    faults: Vec<Fault>,
    connections: Vec<Curve<3>>,
    queues: Vec<Curve<2>>,
    left_out: LeftOut,
}

/// What there was no room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// See [`MAX_MAPPINGS`].
    pub mappings: usize,
    /// See [`MAX_MARKS`].
    pub marks: usize,
    /// See [`MAX_FAULTS`].
    pub faults: usize,
    /// Samples of connections and queues that have no curve: see [`MAX_SERIES`].
    pub samples: usize,
}

/// A NAT's mapping, from when to when.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mapping {
    /// The NAT's lane.
    pub lane: usize,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// The host's side.
    pub internal: SocketAddr,
    /// The public side.
    pub external: SocketAddr,
    /// For whom, where it depends on the destination.
    pub remote: Option<String>,
    /// When it was made, in nanoseconds.
    pub from: u64,
    /// When it ended; `None` where it outlived the run.
    pub to: Option<u64>,
    /// Why it ended.
    pub reason: Option<String>,
}

/// Something that happened at a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mark {
    /// When, in nanoseconds.
    pub at: u64,
    /// Whose lane; `None` is everybody's.
    pub lane: Option<usize>,
    /// What kind of thing it is.
    pub tone: Tone,
    /// What, in a few words.
    pub text: String,
    /// How often it happened, this time included, with less than [`AGAIN`] between.
    pub times: u64,
    /// When it happened last, in nanoseconds.
    pub until: u64,
}

/// What kind of thing a mark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// As it should be: an answer, a connection, an expectation that is met.
    Good,
    /// Not as it should be.
    Bad,
    /// Neither.
    Plain,
    /// Housekeeping that is mostly not looked for: starts of programs, registrations.
    Quiet,
}

/// A fault, from when to when.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fault {
    /// In words.
    pub text: String,
    /// When it began, in nanoseconds.
    pub from: u64,
    /// When it ended; `None` where it has no end.
    pub to: Option<u64>,
}

/// Samples of one thing over time.
#[derive(Debug, Clone, Serialize)]
pub struct Curve<const N: usize> {
    /// Whose lane.
    pub lane: usize,
    /// What it is: a connection's other end, a link's name.
    pub name: String,
    /// The samples.
    pub points: Series<N>,
}

impl Picture {
    /// An empty picture of a scenario.
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            lanes: Lanes::new(scenario),
            packets: Packets::default(),
            goodput: Goodput::default(),
            mappings: Vec::new(),
            marks: Vec::new(),
            recent: BTreeMap::new(),
            faults: Vec::new(),
            connections: Vec::new(),
            queues: Vec::new(),
            left_out: LeftOut::default(),
        }
    }

    /// Who has a lane.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The packets that are kept.
    pub fn packets(&self) -> &Packets {
        &self.packets
    }

    /// What arrived, over time.
    pub fn goodput(&self) -> &Goodput {
        &self.goodput
    }

    /// The NATs' mappings, in the order in which they were made.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// What happened, in order.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The faults, in the order in which they began.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Congestion window and bytes in flight, in bytes, and round-trip time in microseconds, of each connection.
    pub fn connections(&self) -> &[Curve<3>] {
        &self.connections
    }

    /// Bytes that wait, and how long they do in nanoseconds, of each link with a rate.
    pub fn queues(&self) -> &[Curve<2>] {
        &self.queues
    }

    /// What there was no room for, packets aside.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Takes an event.
    pub fn observe(&mut self, record: &Record) {
        let lane = record.at.as_ref().and_then(|name| self.lanes.index(name));
        let at = record.at_ns;
        match &record.event {
            Event::Lab(event) => self.observe_lab(at, lane, event),
            Event::Stack(StackEvent::UtpSample { peer, window, in_flight, rtt_us }) => {
                let name = peer.to_string();
                let values = [*window as u64, *in_flight as u64, rtt_us.unwrap_or(0)];
                sample(&mut self.connections, &mut self.left_out.samples, at, lane, &name, values);
            }
            Event::Stack(event) => {
                if let Some((tone, text)) = words::tell(event) {
                    self.mark(at, lane, tone, text);
                }
            }
        }
    }

    fn observe_lab(&mut self, at: u64, lane: Option<usize>, event: &LabEvent) {
        match event {
            LabEvent::PacketSent { .. } => {
                if let Some(lane) = lane {
                    self.packets.sent(at, lane, event);
                }
            }
            LabEvent::PacketTranslated { packet, source, destination } => {
                if let Some(lane) = lane {
                    self.packets.translated(at, lane, *packet, *source, *destination);
                }
            }
            LabEvent::PacketDelivered { packet } => {
                if let Some(lane) = lane
                    && let Some(arrived) = self.packets.ended(at, *packet, Ending::Delivered { lane })
                {
                    self.goodput.arrived(at, lane, arrived);
                }
            }
            LabEvent::PacketDropped { packet, hop, rule } => {
                let toward = self
                    .packets
                    .on_its_way(*packet)
                    .and_then(|on_its_way| self.lanes.toward(on_its_way.lane(), on_its_way.destination().ip()));
                // Where a link or a network lost it, it was on its way to somebody.
                let there = hop.starts_with("nat ") || hop.starts_with("host ") || hop.ends_with(", down");
                let lane = if there { lane } else { toward };
                let (hop, rule) = (hop.clone(), rule.clone());
                let lost = !(hop.starts_with("nat ") || hop.starts_with("host "));
                self.packets.ended(at, *packet, Ending::Dropped { lane, lost, hop, rule });
            }
            LabEvent::MappingCreated { protocol, internal, external, remote } => {
                let Some(lane) = lane else { return };
                if self.mappings.len() == MAX_MAPPINGS {
                    self.left_out.mappings += 1;
                    return;
                }
                self.mappings.push(Mapping {
                    lane,
                    protocol: *protocol,
                    internal: *internal,
                    external: *external,
                    remote: remote.clone(),
                    from: at,
                    to: None,
                    reason: None,
                });
            }
            LabEvent::MappingRemoved { protocol, external, internal, reason } => {
                let mut open = self.mappings.iter_mut().rev().filter(|mapping| mapping.to.is_none());
                let ended = open.find(|mapping| {
                    Some(mapping.lane) == lane
                        && (mapping.protocol, mapping.external, mapping.internal) == (*protocol, *external, *internal)
                });
                if let Some(mapping) = ended {
                    mapping.to = Some(at);
                    mapping.reason = Some(reason.clone());
                }
            }
            LabEvent::QueueSample { link, bytes, wait_ns } => {
                sample(&mut self.queues, &mut self.left_out.samples, at, lane, link, [*bytes as u64, *wait_ns]);
            }
            LabEvent::FaultBegan { fault } => {
                if self.faults.len() == MAX_FAULTS {
                    self.left_out.faults += 1;
                    return;
                }
                self.faults.push(Fault { text: fault.clone(), from: at, to: None });
            }
            LabEvent::FaultEnded { fault } => {
                let mut open = self.faults.iter_mut().filter(|other| other.to.is_none());
                if let Some(ended) = open.find(|other| other.text == *fault) {
                    ended.to = Some(at);
                }
            }
            // Every node is up at the beginning.
            LabEvent::NodeStarted if at > 0 => self.mark(at, lane, Tone::Plain, "up again".to_owned()),
            LabEvent::NodeCrashed => self.mark(at, lane, Tone::Bad, "crashed".to_owned()),
            LabEvent::ProgramStarted { program } => self.mark(at, lane, Tone::Quiet, format!("{program} starts")),
            LabEvent::ProgramFailed { program, error } => {
                self.mark(at, lane, Tone::Bad, words::cut(&format!("{program} failed: {error}")));
            }
            LabEvent::Expectation { expectation, met, .. } => {
                let tone = if *met { Tone::Good } else { Tone::Bad };
                let word = if *met { "met" } else { "not met" };
                self.mark(at, None, tone, words::cut(&format!("{word}: {expectation}")));
            }
            _ => {}
        }
    }

    fn mark(&mut self, at: u64, lane: Option<usize>, tone: Tone, text: String) {
        let recent = self.recent.entry(lane).or_default();
        let marks = &mut self.marks;
        let again = recent.iter().copied().find(|index| marks[*index].text == text && marks[*index].tone == tone);
        if let Some(mark) = again.and_then(|index| marks.get_mut(index))
            && at < mark.until.saturating_add(AGAIN)
        {
            mark.times += 1;
            mark.until = at;
            return;
        }
        if self.marks.len() == MAX_MARKS {
            self.left_out.marks += 1;
            return;
        }
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(self.marks.len());
        self.marks.push(Mark { at, lane, tone, text, times: 1, until: at });
    }
}

fn sample<const N: usize>(
    curves: &mut Vec<Curve<N>>,
    left_out: &mut usize,
    at: u64,
    lane: Option<usize>,
    name: &str,
    values: [u64; N],
) {
    let Some(lane) = lane else { return };
    let known = curves.iter().position(|curve| curve.lane == lane && curve.name == name);
    let index = match known {
        Some(index) => index,
        None if curves.len() == MAX_SERIES => {
            *left_out += 1;
            return;
        }
        None => {
            curves.push(Curve { lane, name: name.to_owned(), points: Series::default() });
            curves.len() - 1
        }
    };
    curves[index].points.add(at, values);
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
