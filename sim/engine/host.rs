//! A host: what belongs to its current life, and is gone when it crashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use grenache::net::Rng;
use tokio::task::AbortHandle;

use super::address::Addresses;
use super::fault::{ClockFault, Gate, Stay};
use super::hop::FirewallState;
use super::route::{Attachment, Place};
use super::seed;
use super::tcp::Stack;
use super::udp::UdpTable;
use crate::scenario::model::Name;

/// Ports that are given out where none is asked for (RFC 6335, 6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// A host of the topology.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: Name,
    pub(crate) addresses: Addresses,
    pub(crate) attachment: Attachment,
    pub(crate) firewall: Option<FirewallState>,
    /// Whether its tasks run.
    pub(crate) gate: Arc<Gate>,
    /// What is wrong with its clock.
    pub(crate) clock: Vec<ClockFault>,
    /// Where it is when it has not moved, and with which addresses.
    pub(crate) home_place: Place,
    pub(crate) home: Addresses,
    /// Where it has moved to; it is where the last one is.
    pub(crate) stays: Vec<Stay>,
    /// `None` while it is down.
    pub(crate) life: Option<Life>,
    /// How many lives it has had.
    lives: u32,
    /// How often each random stream was asked for, across lives.
    asked: BTreeMap<String, u64>,
}

/// From a start to a crash: the sockets and the tasks.
#[derive(Debug)]
pub(crate) struct Life {
    /// Counts up; tells a handle of an earlier life.
    pub(crate) number: u32,
    pub(crate) udp: UdpTable,
    pub(crate) tcp: Stack,
    tasks: BTreeMap<u64, AbortHandle>,
    tasks_started: u64,
}

impl Host {
    pub(crate) fn new(name: Name, addresses: Addresses, attachment: Attachment) -> Self {
        Self {
            name,
            addresses,
            home_place: attachment.place,
            home: addresses,
            attachment,
            firewall: None,
            gate: Arc::default(),
            clock: Vec::new(),
            stays: Vec::new(),
            life: None,
            lives: 0,
            asked: BTreeMap::new(),
        }
    }

    /// A stream of its own for `name`, another each time.
    pub(crate) fn rng(&mut self, seed: u64, name: &str) -> Rng {
        let asked = self.asked.entry(name.to_owned()).or_default();
        *asked += 1;
        seed::stream(seed, &["host", &self.name, name, &asked.to_string()])
    }

    /// Begins a new life.
    pub(crate) fn start(&mut self, seed: u64) {
        self.lives += 1;
        let ports = |kind: &str| {
            let path = ["host", &self.name, kind, &self.lives.to_string()];
            EphemeralPorts::new(&mut seed::stream(seed, &path))
        };
        self.life = Some(Life {
            number: self.lives,
            udp: UdpTable::new(ports("udp ports")),
            tcp: Stack::new(ports("tcp ports")),
            tasks: BTreeMap::new(),
            tasks_started: 0,
        });
    }

    /// The life with this number, if it goes on.
    pub(crate) fn life(&mut self, number: u32) -> Option<&mut Life> {
        self.life.as_mut().filter(|life| life.number == number)
    }

    /// The number of the current life, or of the last one.
    pub(crate) fn lives(&self) -> u32 {
        self.lives
    }
}

impl Life {
    /// The number of the next task.
    pub(crate) fn next_task(&mut self) -> u64 {
        self.tasks_started += 1;
        self.tasks_started
    }

    pub(crate) fn add_task(&mut self, task: u64, handle: AbortHandle) {
        if !handle.is_finished() {
            self.tasks.insert(task, handle);
        }
    }

    pub(crate) fn remove_task(&mut self, task: u64) {
        self.tasks.remove(&task);
    }

    /// How many tasks run.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Every task that runs, oldest first.
    pub(crate) fn into_tasks(self) -> impl Iterator<Item = AbortHandle> {
        self.tasks.into_values()
    }
}

/// Ports in turn, from a random one on.
#[derive(Debug)]
pub(crate) struct EphemeralPorts {
    next: u16,
}

impl EphemeralPorts {
    fn new(rng: &mut Rng) -> Self {
        let offset = seed::below(rng, EPHEMERAL.len() as u64);
        Self { next: EPHEMERAL.start() + u16::try_from(offset).unwrap_or(0) }
    }

    /// The next port that is not taken; `None` where all are.
    pub(crate) fn next_free(&mut self, taken: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in EPHEMERAL {
            let port = self.next;
            self.next = if port == *EPHEMERAL.end() { *EPHEMERAL.start() } else { port + 1 };
            if !taken(port) {
                return Some(port);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_in_turn_until_all_are_taken() {
        let mut ports = EphemeralPorts { next: 65_534 };
        let mut next = |taken: &[u16]| ports.next_free(|port| taken.contains(&port));
        assert_eq!([next(&[]), next(&[]), next(&[49_152])], [Some(65_534), Some(65_535), Some(49_153)]);
        assert_eq!(ports.next_free(|_| true), None);
    }
}
