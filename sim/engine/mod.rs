//! Virtual time, packets, hosts, links and NATs; the simulated [`grenache::net::Network`].
//!
//! | module | what it does |
//! |---|---|
//! | `driver` | moves time from event to event, in step with tokio's timers |
//! | `queue` | what happens when |
//! | `state` | everything simulated, and what its events do to it |
//! | `topology` | from a scenario's nodes, NATs and links to the engine's |
//! | `route`, `nats` | a packet's way, and its fate |
//! | `hop` | links and NATs: small state machines without I/O |
//! | `host` | a host's lives |
//! | `fault` | what goes wrong, and what its end takes back |
//! | `network`, `udp`, `tcp` | what the stack on a host is given |
//! | `world` | [`World`]: hosts, tasks, faults and the event stream, for whoever runs a simulation |
//! | `shared` | the lock, the clock, the observers |
//! | `address` | a host's IPv4 and IPv6 addresses, and which of them a socket uses |
//! | `capture` | what passes each side of each hop |
//! | `packet`, `summary`, `seed` | what travels, in a line; where randomness comes from |
//!
//! A run is one thread, one tokio runtime with a paused clock, and one queue of events. The same topology, seed and
//! programs give the same events, on any machine and in any build.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::time::Duration;
//!
//! use grenache_sim::engine::Sim;
//! use grenache_sim::scenario::model::Node;
//!
//! let node = |address: &str| Node { address: address.parse().unwrap(), ..Node::default() };
//! let nodes = BTreeMap::from([("a".into(), node("203.0.113.1")), ("b".into(), node("203.0.113.2"))]);
//! let sim = Sim::new(1, &BTreeMap::new(), &BTreeMap::new(), &nodes).unwrap();
//! let elapsed = sim.run(Duration::from_secs(10), async |world| {
//!     let mut listener = world.network("b").listen_tcp("0.0.0.0:80".parse().unwrap()).await.unwrap();
//!     let stream = world.network("a").connect_tcp("203.0.113.2:80".parse().unwrap()).await.unwrap();
//!     let (_accepted, peer) = listener.accept().await.unwrap();
//!     assert_eq!(peer.ip().to_string(), "203.0.113.1");
//!     drop(stream);
//!     world.now()
//! });
//! // Four links of a millisecond to connect, and two more until it can be accepted.
//! assert_eq!(elapsed, Some(Duration::from_millis(6)));
//! ```

mod address;
mod builder;
mod capture;
mod driver;
mod fault;
mod hop;
mod host;
mod nats;
mod network;
mod packet;
mod queue;
mod route;
pub(crate) mod seed;
mod shared;
mod state;
mod summary;
mod tcp;
mod topology;
mod udp;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use builder::Programs;
use futures_util::future::Either;
use packet::HostId;
use shared::{Bell, CaptureObserver, Installed, Observer, Shared};
use state::{Engine, Event};

use crate::event::Record;
use crate::scenario::model::{Fault, Link, Name, Nat, Node};

pub use builder::Builder;
pub use capture::{Direction, Side, Sighting};
pub use topology::SimError;
pub use world::{FaultId, Live, World};

/// The longest run, whatever limit is asked for.
const LONGEST_RUN: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A simulation that is ready to run.
pub struct Sim {
    engine: Engine,
    observers: Vec<Observer>,
    faults: Vec<Fault>,
    programs: Programs,
    captures: Vec<CaptureObserver>,
}

impl Sim {
    /// A simulation in the making, with programs and faults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A simulation of these NATs, links and nodes. What names no link has one of 1 ms each way, and nothing else.
    ///
    /// # Errors
    /// Where a name is not defined, an address is used twice in one network or is not of its NAT's network, or a NAT
    /// is behind itself.
    pub fn new(
        seed: u64,
        nats: &BTreeMap<Name, Nat>,
        links: &BTreeMap<Name, Link>,
        nodes: &BTreeMap<Name, Node>,
    ) -> Result<Self, SimError> {
        let engine = topology::build(seed, nats, links, nodes)?;
        Ok(Self {
            engine,
            observers: Vec::new(),
            faults: Vec::new(),
            programs: Programs::default(),
            captures: Vec::new(),
        })
    }

    /// Lets `observer` see every event, in order, when it happens. What it does to the world follows what it sees.
    #[must_use]
    pub fn observe(mut self, observer: impl FnMut(&Record) + 'static) -> Self {
        self.engine.observed = true;
        self.observers.push(Box::new(observer));
        self
    }

    /// Lets `observer` see every packet at each side of each host and NAT that it passes, in order, and before the
    /// events that tell what became of it there. Costs nothing where it is not called.
    #[must_use]
    pub fn capture(mut self, observer: impl FnMut(&Sighting) + 'static) -> Self {
        self.engine.observed = true;
        self.engine.watch.captured = true;
        self.captures.push(Box::new(observer));
        self
    }

    /// Adds samples of queues and connections to the events: see [`Record::is_sample`]. Nothing else changes.
    #[must_use]
    pub fn sample(mut self) -> Self {
        self.engine.watch.sampled = true;
        self
    }

    /// Runs `main` on the virtual clock until it returns, or until `limit` of simulated time (at most a year) has
    /// passed: then the result is `None`. Every node is up at the beginning. At the end every task is dropped.
    ///
    /// # Panics
    /// With the panic of a task on one of the nodes. Where it is called in a tokio runtime.
    pub fn run<T>(mut self, limit: Duration, main: impl AsyncFnOnce(World) -> T) -> Option<T> {
        let bell = Arc::new(Bell::default());
        let hook = bell.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || hook.on_park())
            .build()
            .expect("a runtime without I/O takes nothing from the operating system");
        let limit_ns = u64::try_from(limit.min(LONGEST_RUN).as_nanos()).unwrap_or(u64::MAX);
        self.engine.queue.push(limit_ns, Event::Limit);
        for id in 0..self.engine.hosts.len() {
            self.engine.start(0, HostId(u32::try_from(id).expect("hosts are numbered with 32 bits")));
        }
        let _observers = Installed::new(self.observers, self.captures);
        let shared = {
            let _context = runtime.enter();
            Arc::new(Shared::new(self.engine, bell, self.programs))
        };
        shared.tell_observers();
        let world = World { shared: shared.clone() };
        let (faults, playing) = (self.faults, world.clone());
        let main = async move {
            world.shared.programs.start_all(&world);
            let play = async {
                builder::play(&playing, &faults, limit).await;
                std::future::pending().await
            };
            let (main, play) = (pin!(main(world)), pin!(play));
            match futures_util::future::select(play, main).await {
                Either::Left((never, _)) => never,
                Either::Right((result, _)) => result,
            }
        };
        let result = runtime.block_on(async { driver::run(&shared, main).await });
        // A router's forwarding is no event: what was seen after the last one.
        shared.tell_observers();
        result
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("engine", &self.engine).finish_non_exhaustive()
    }
}
