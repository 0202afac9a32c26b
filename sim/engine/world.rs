//! The hand that moves things in a running simulation: hosts, tasks, faults, and the event stream.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use grenache::net::Net;

use super::network::{HostHandle, SimNetwork};
use super::packet::HostId;
use super::route::Place;
use super::shared::Shared;
use super::state::Engine;
use crate::event::{Event, LabEvent};
use crate::scenario::model::{FaultKind, Name};

/// A handle on a running simulation. Cheap to clone.
///
/// Names of nodes and NATs are those of the topology; an unknown one is a mistake of the caller's, and a panic.
#[derive(Debug, Clone)]
pub struct World {
    pub(crate) shared: Arc<Shared>,
}

/// What of a node is alive: see [`World::live`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Live {
    /// Tasks that were started and have not ended.
    pub tasks: usize,
    /// Bound UDP sockets.
    pub udp_sockets: usize,
    /// TCP listeners, and connections whose stream is held or that wait to be accepted.
    pub tcp_sockets: usize,
}

impl Live {
    /// Whether there is nothing.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// Names a fault that goes on, to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultId(u64);

impl World {
    /// Simulated time since the run began.
    pub fn now(&self) -> Duration {
        self.shared.with(|_, now_ns| Duration::from_nanos(now_ns))
    }

    /// The node's network in its current life, or in its last one where it is down: once a life is over, everything
    /// done with its network fails, and a new one is to be asked for.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn network(&self, node: &str) -> Net {
        Arc::new(SimNetwork { host: self.handle(node) })
    }

    /// Runs a task on a node: it is dropped when the node crashes. Where the node is down, it is dropped at once.
    ///
    /// A panic in the task ends the run with the same panic.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn spawn(&self, node: &str, task: impl Future<Output = ()> + Send + 'static) {
        self.handle(node).spawn(Box::pin(task)).detach();
    }

    /// Ends a node: its tasks never run again, its sockets are gone, and nobody is told. Nothing where it is down.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn crash(&self, node: &str) {
        let tasks = self.shared.with(|engine, now_ns| {
            let id = host_id(engine, node);
            engine.crash(now_ns, id)
        });
        for task in tasks {
            task.abort();
        }
    }

    /// Starts a node that crashed, with nothing of its earlier life. Nothing where it is up.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn start(&self, node: &str) {
        self.shared.with(|engine, now_ns| {
            let id = host_id(engine, node);
            engine.start(now_ns, id);
        });
    }

    /// Whether a node is up.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn is_up(&self, node: &str) -> bool {
        self.shared.with(|engine, _| engine.host(host_id(engine, node)).life.is_some())
    }

    /// What the node's current life has that is not over; nothing where it is down. Timers belong to tasks.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn live(&self, node: &str) -> Live {
        self.shared.with(|engine, _| {
            let life = engine.host(host_id(engine, node)).life.as_ref();
            life.map(|life| Live {
                tasks: life.tasks(),
                udp_sockets: life.udp.sockets(),
                tcp_sockets: life.tcp.sockets(),
            })
            .unwrap_or_default()
        })
    }

    /// Separates two groups of nodes, wherever NATs hide them: what one sends to the other from now on is lost, and
    /// so is what is on its way there and has not crossed the internet, or the LAN between them. The event stream
    /// tells nothing of it, unlike of [`begin`](Self::begin).
    ///
    /// # Panics
    /// Where there is no node of one of the names.
    pub fn partition(&self, a: &[Name], b: &[Name]) -> FaultId {
        self.apply(&FaultKind::Partition(a.to_vec(), b.to_vec()))
    }

    /// Ends a partition. Nothing where it has ended.
    pub fn heal(&self, partition: FaultId) {
        self.lift(partition);
    }

    /// Lets a NAT forget its mappings; new ones get other ports than those that were in use.
    ///
    /// # Panics
    /// Where there is no such NAT.
    pub fn rebind(&self, nat: &str) {
        self.apply(&FaultKind::Rebind(nat.into()));
    }

    /// Lets a fault begin, and says so in the event stream. Faults compose, and each [`end`](Self::end)s on its own.
    ///
    /// A node that starts again does so without tasks: [`Builder::program`](super::Builder::program) is what starts
    /// with it. An outage of a Grape is one of that node's program named `grape`.
    ///
    /// # Panics
    /// Where a name is not defined; where a node moves to an address that is taken, or not of the network.
    pub fn begin(&self, kind: &FaultKind) -> FaultId {
        self.record(None, Event::Lab(LabEvent::FaultBegan { fault: kind.to_string() }));
        let starts = matches!(kind, FaultKind::Restart(node) if !self.is_up(node));
        let fault = self.apply(kind);
        self.shared.with(|engine, _| engine.fault_words.insert(fault.0, kind.to_string()));
        if let FaultKind::GrapeOutage(node) = kind {
            self.shared.programs.stop(self, node, fault.0);
        }
        if let (FaultKind::Restart(node), true) = (kind, starts) {
            self.shared.programs.start(self, node);
        }
        fault
    }

    /// Ends a fault, and says so in the event stream. Nothing where it has ended.
    pub fn end(&self, fault: FaultId) {
        let Some(words) = self.shared.with(|engine, _| engine.fault_words.remove(&fault.0)) else { return };
        let started = self.shared.with(|engine, now_ns| engine.end_fault(now_ns, fault.0));
        if let Some(node) = started {
            self.shared.programs.start(self, &node);
        }
        self.shared.programs.resume(self, fault.0);
        self.record(None, Event::Lab(LabEvent::FaultEnded { fault: words }));
    }

    /// Lets a fault begin without a word.
    pub(crate) fn apply(&self, kind: &FaultKind) -> FaultId {
        let (fault, tasks) = self.shared.with(|engine, now_ns| engine.begin_fault(now_ns, kind));
        for task in tasks {
            task.abort();
        }
        FaultId(fault)
    }

    /// Ends a fault without a word; gives the node that this starts.
    pub(crate) fn lift(&self, fault: FaultId) -> Option<Name> {
        self.shared.with(|engine, now_ns| engine.end_fault(now_ns, fault.0))
    }

    /// Where a node reaches the NAT that it is behind, to ask it for forwards ([`crate::probe::forward`]); `None` where
    /// it is behind none, or that one forwards nothing on request.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn gateway(&self, node: &str) -> Option<Ipv4Addr> {
        self.shared.with(|engine, _| match engine.host(host_id(engine, node)).attachment.place {
            Place::Lan(nat) => engine.nat(nat).state.listens_at(),
            Place::Internet => None,
        })
    }

    /// Appends an event to the stream, with the current time.
    pub fn record(&self, at: Option<&str>, event: Event) {
        self.shared.with(|engine, now_ns| {
            let at = at.map(|name| engine.shared_name(name));
            engine.record_any(now_ns, at, event);
        });
    }

    fn handle(&self, node: &str) -> HostHandle {
        self.shared.with(|engine, _| {
            let id = host_id(engine, node);
            HostHandle { shared: self.shared.clone(), id, life: engine.host(id).lives() }
        })
    }
}

fn host_id(engine: &Engine, node: &str) -> HostId {
    engine.host_named(node)
}
