//! The hand that moves things in a running simulation: hosts, tasks, faults, and the event stream.

use std::collections::BTreeSet;
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
use crate::event::Event;
use crate::scenario::model::Name;

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

/// Names a partition, to heal it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(u64);

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
    /// so is what is on its way there and has not crossed the internet, or the LAN between them.
    ///
    /// # Panics
    /// Where there is no node of one of the names.
    pub fn partition(&self, a: &[Name], b: &[Name]) -> PartitionId {
        self.shared.with(|engine, _| {
            let group =
                |names: &[Name]| -> BTreeSet<HostId> { names.iter().map(|name| host_id(engine, name)).collect() };
            let groups = (group(a), group(b));
            engine.partitions_made += 1;
            engine.partitions.insert(engine.partitions_made, groups);
            PartitionId(engine.partitions_made)
        })
    }

    /// Ends a partition. Nothing where it has ended.
    pub fn heal(&self, partition: PartitionId) {
        self.shared.with(|engine, _| engine.partitions.remove(&partition.0));
    }

    /// Lets a NAT forget its mappings; new ones get other ports than those that were in use.
    ///
    /// # Panics
    /// Where there is no such NAT.
    pub fn rebind(&self, nat: &str) {
        self.shared.with(|engine, now_ns| {
            let id = *engine.nat_ids.get(nat).unwrap_or_else(|| panic!("there is no nat named {nat}"));
            engine.rebind(now_ns, id);
        });
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
    *engine.host_ids.get(node).unwrap_or_else(|| panic!("there is no node named {node}"))
}
