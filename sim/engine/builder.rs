//! A simulation in the making, for people's own tests: the topology, what runs on it, and what goes wrong when.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grenache::net::{BoxFuture, Net, Task};

use super::topology::{NAT_POOL, NODE_POOL, free_address};
use super::world::{FaultId, World};
use super::{Sim, SimError};
use crate::scenario::model::{Fault, FaultKind, Link, Name, Nat, Node};

/// The program that an outage of a Grape stops.
const GRAPE: &str = "grape";

/// A simulation in the making: [`Sim::builder`].
///
/// ```
/// use std::time::Duration;
/// use grenache_sim::engine::Sim;
/// use grenache_sim::scenario::model::{Fault, FaultKind, Link, Nat, Node};
///
/// let sim = Sim::builder()
///     .seed(7)
///     .link("dsl", Link { latency: Duration::from_millis(20), ..Link::default() })
///     .nat("home", Nat { link: Some("dsl".into()), ..Nat::default() })
///     .node("laptop", Node { behind: Some("home".into()), ..Node::default() })
///     .node("server", Node::default())
///     .program("server", "web", async |net| {
///         let mut listener = net.listen_tcp("0.0.0.0:80".parse().unwrap()).await.unwrap();
///         while listener.accept().await.is_ok() {}
///     })
///     .fault(Fault::new(Duration::from_secs(5), FaultKind::Crash("server".into())).lasting(Duration::from_secs(3)))
///     .build()?;
/// let connected = sim.run(Duration::from_secs(60), async |world| {
///     let server = "203.0.113.2:80".parse().unwrap();
///     let before = world.network("laptop").connect_tcp(server).await.is_ok();
///     tokio::time::sleep(Duration::from_secs(9)).await;
///     (before, world.network("laptop").connect_tcp(server).await.is_ok())
/// });
/// assert_eq!(connected, Some((true, true)), "before the crash, and when the node and its program are back");
/// # Ok::<(), grenache_sim::engine::SimError>(())
/// ```
#[derive(Debug, Default)]
pub struct Builder {
    seed: u64,
    nats: BTreeMap<Name, Nat>,
    links: BTreeMap<Name, Link>,
    nodes: BTreeMap<Name, Node>,
    faults: Vec<Fault>,
    programs: Programs,
}

impl Builder {
    /// The seed of all randomness; 0 where none is given.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// A NAT. Without an address (`0.0.0.0`) it gets the next free one, by name, of 198.51.100.0/24 or of the LAN
    /// that it is behind.
    #[must_use]
    pub fn nat(mut self, name: &str, nat: Nat) -> Self {
        self.nats.insert(name.into(), nat);
        self
    }

    /// A kind of link.
    #[must_use]
    pub fn link(mut self, name: &str, link: Link) -> Self {
        self.links.insert(name.into(), link);
        self
    }

    /// A node. Without any address it gets the next free one, by name, of 203.0.113.0/24 or of the LAN that it is
    /// behind.
    #[must_use]
    pub fn node(mut self, name: &str, node: Node) -> Self {
        self.nodes.insert(name.into(), node);
        self
    }

    /// Something that runs on a node from the beginning, and anew whenever a fault has the node start again. Where it
    /// is named `grape`, an outage of the node's Grape stops it; it then starts anew.
    #[must_use]
    pub fn program<F>(mut self, node: &str, name: &str, program: impl Fn(Net) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let run: Arc<Run> = Arc::new(move |net| Box::pin(program(net)));
        self.programs.list.push(Program { node: node.into(), name: name.into(), run });
        self
    }

    /// Something that goes wrong.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// The simulation.
    ///
    /// # Errors
    /// As [`Sim::new`]; where there is no free address; where a program or a fault names what is not there.
    pub fn build(mut self) -> Result<Sim, SimError> {
        self.fill_in()?;
        for program in &self.programs.list {
            self.is_node(&program.node, format!("the program {}", program.name))?;
        }
        for fault in &self.faults {
            self.check(&fault.kind)?;
        }
        let mut sim = Sim::new(self.seed, &self.nats, &self.links, &self.nodes)?;
        sim.faults = self.faults;
        sim.programs = self.programs;
        Ok(sim)
    }

    fn fill_in(&mut self) -> Result<(), SimError> {
        let mut taken: BTreeSet<(Option<Name>, Ipv4Addr)> = BTreeSet::new();
        taken.extend(self.nats.values().map(|nat| (nat.behind.clone(), nat.address)));
        taken.extend(self.nodes.values().map(|node| (node.behind.clone(), node.address)));
        let lans: BTreeMap<Name, ipnet::Ipv4Net> =
            self.nats.iter().map(|(name, nat)| (name.clone(), nat.lan)).collect();
        let mut next = |user: String, behind: &Option<Name>, pool| {
            // A NAT that is not defined is told later.
            let pool = behind.as_ref().map_or(pool, |nat| lans.get(nat).copied().unwrap_or(pool));
            let address = free_address(pool, |address| taken.contains(&(behind.clone(), address)));
            let address = address.ok_or(SimError::NoFreeAddress { user, network: pool })?;
            taken.insert((behind.clone(), address));
            Ok(address)
        };
        for (name, nat) in self.nats.iter_mut().filter(|(_, nat)| nat.address.is_unspecified()) {
            nat.address = next(format!("nat {name}"), &nat.behind, NAT_POOL)?;
        }
        let without = |node: &Node| node.address.is_unspecified() && node.address6.is_none();
        for (name, node) in self.nodes.iter_mut().filter(|(_, node)| without(node)) {
            node.address = next(format!("node {name}"), &node.behind, NODE_POOL)?;
        }
        Ok(())
    }

    fn check(&self, kind: &FaultKind) -> Result<(), SimError> {
        let user = || format!("the fault \"{kind}\"");
        match kind {
            FaultKind::Partition(a, b) => a.iter().chain(b).try_for_each(|node| self.is_node(node, user())),
            FaultKind::Rebind(nat) | FaultKind::Reboot(nat) => self.is_nat(nat, user()),
            FaultKind::Crash(node)
            | FaultKind::Restart(node)
            | FaultKind::Pause(node)
            | FaultKind::GrapeOutage(node)
            | FaultKind::Clock { node, .. } => self.is_node(node, user()),
            FaultKind::Down(name) | FaultKind::Degrade(name, _) => {
                if self.nats.contains_key(name) {
                    Ok(())
                } else {
                    self.is_node(name, user())
                }
            }
            FaultKind::Move(to) => {
                self.is_node(&to.node, user())?;
                to.behind.iter().try_for_each(|nat| self.is_nat(nat, user()))?;
                let undefined = |name: &Name| SimError::Undefined { user: user(), kind: "link", name: name.clone() };
                to.link.iter().try_for_each(
                    |link| {
                        if self.links.contains_key(link) { Ok(()) } else { Err(undefined(link)) }
                    },
                )
            }
        }
    }

    fn is_node(&self, name: &Name, user: String) -> Result<(), SimError> {
        let undefined = || SimError::Undefined { user, kind: "node", name: name.clone() };
        if self.nodes.contains_key(name) { Ok(()) } else { Err(undefined()) }
    }

    fn is_nat(&self, name: &Name, user: String) -> Result<(), SimError> {
        let undefined = || SimError::Undefined { user, kind: "nat", name: name.clone() };
        if self.nats.contains_key(name) { Ok(()) } else { Err(undefined()) }
    }
}

type Run = dyn Fn(Net) -> BoxFuture<'static, ()> + Send + Sync;

/// What runs on a node whenever that is up.
struct Program {
    node: Name,
    name: Name,
    run: Arc<Run>,
}

/// The programs of a simulation.
#[derive(Default)]
pub(crate) struct Programs {
    list: Vec<Program>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// Those that an outage can stop, by their place in the list.
    grapes: BTreeMap<usize, Task>,
    /// The outages that go on, with their nodes.
    outages: BTreeMap<u64, Name>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list.iter().map(|program| (&program.node, &program.name))).finish()
    }
}

impl Programs {
    /// Starts every program.
    pub(crate) fn start_all(&self, world: &World) {
        let nodes: BTreeSet<&Name> = self.list.iter().map(|program| &program.node).collect();
        nodes.into_iter().for_each(|node| self.start(world, node));
    }

    /// Starts the programs of a node that has started.
    pub(crate) fn start(&self, world: &World, node: &str) {
        for (i, program) in self.list.iter().enumerate().filter(|(_, program)| *program.node == *node) {
            self.run(world, i, program);
        }
    }

    /// An outage begins.
    pub(crate) fn stop(&self, _world: &World, node: &Name, outage: u64) {
        let stopped: Vec<Task> = {
            let mut running = self.running();
            running.outages.insert(outage, node.clone());
            let of_node = self.list.iter().enumerate().filter(|(_, program)| program.node == *node).map(|(i, _)| i);
            of_node.filter_map(|i| running.grapes.remove(&i)).collect()
        };
        drop(stopped);
    }

    /// An outage ends, if it was one.
    pub(crate) fn resume(&self, world: &World, outage: u64) {
        let Some(node) = self.running().outages.remove(&outage) else { return };
        for (i, program) in self.list.iter().enumerate() {
            if program.node == node && &*program.name == GRAPE && world.is_up(&node) {
                self.run(world, i, program);
            }
        }
    }

    fn run(&self, world: &World, i: usize, program: &Program) {
        let net = world.network(&program.node);
        if &*program.name != GRAPE {
            return world.spawn(&program.node, (program.run)(net));
        }
        if self.running().outages.values().any(|node| *node == program.node) {
            return;
        }
        let task = net.spawn((program.run)(net.clone()));
        let earlier = self.running().grapes.insert(i, task);
        drop(earlier);
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets faults begin and end at their times, until `limit`.
pub(crate) async fn play(world: &World, faults: &[Fault], limit: Duration) {
    // What ends comes before what begins at the same moment.
    let mut cues: Vec<(Duration, bool, usize)> = Vec::new();
    let mut kinds: Vec<&FaultKind> = Vec::new();
    for fault in faults {
        for each in fault.occurrences(limit) {
            cues.push((each.begins, true, kinds.len()));
            cues.extend(each.ends.map(|ends| (ends, false, kinds.len())));
            kinds.push(&fault.kind);
        }
    }
    cues.sort();
    let mut begun: BTreeMap<usize, FaultId> = BTreeMap::new();
    for (at, begins, which) in cues {
        tokio::time::sleep(at.saturating_sub(world.now())).await;
        if begins {
            begun.insert(which, world.begin(kinds[which]));
        } else if let Some(fault) = begun.remove(&which) {
            world.end(fault);
        }
    }
}
