//! Small topologies, and what tests do with them.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grenache::net::{Net, RecvMeta, Transmit, UdpSocket};
use grenache_sim::engine::{Sim, World};
use grenache_sim::event::{Event, LabEvent, Record};
use grenache_sim::scenario::model::{Link, Name, Nat, Node};

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A topology in the making.
#[derive(Default, Clone)]
pub(crate) struct Lab {
    pub(crate) seed: u64,
    pub(crate) nats: BTreeMap<Name, Nat>,
    pub(crate) links: BTreeMap<Name, Link>,
    pub(crate) nodes: BTreeMap<Name, Node>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A node on the internet, without a link of its own.
    pub(crate) fn node(mut self, name: &str, address: &str) -> Self {
        self.nodes.insert(name.into(), Node { address: address.parse().unwrap(), ..Node::default() });
        self
    }

    /// Gives a node an IPv6 address.
    pub(crate) fn six(mut self, name: &str, address: &str) -> Self {
        self.nodes.get_mut(name).unwrap().address6 = Some(address.parse().unwrap());
        self
    }

    /// A node behind a NAT.
    pub(crate) fn behind(mut self, nat: &str, name: &str, address: &str) -> Self {
        let behind = Some(nat.into());
        self.nodes.insert(name.into(), Node { address: address.parse().unwrap(), behind, ..Node::default() });
        self
    }

    /// A port-restricted cone NAT with the network 192.168.1.0/24.
    pub(crate) fn nat(self, name: &str, address: &str) -> Self {
        self.nat_with(name, address, |_| {})
    }

    pub(crate) fn nat_with(mut self, name: &str, address: &str, change: impl FnOnce(&mut Nat)) -> Self {
        let mut nat = Nat { address: address.parse().unwrap(), udp_timeout: Duration::from_secs(30), ..Nat::default() };
        change(&mut nat);
        self.nats.insert(name.into(), nat);
        self
    }

    /// Gives the nodes and NATs named a link of their own of this kind.
    pub(crate) fn link(mut self, users: &[&str], latency: Duration, change: impl FnOnce(&mut Link)) -> Self {
        let name: Name = format!("kind{}", self.links.len()).into();
        let mut link = Link { latency, ..Link::default() };
        change(&mut link);
        self.links.insert(name.clone(), link);
        for user in users {
            match self.nodes.get_mut(*user) {
                Some(node) => node.link = Some(name.clone()),
                None => self.nats.get_mut(*user).unwrap().link = Some(name.clone()),
            }
        }
        self
    }

    pub(crate) fn sim(&self) -> Sim {
        Sim::new(self.seed, &self.nats, &self.links, &self.nodes).unwrap()
    }

    /// Runs for up to an hour; gives the result and every event.
    pub(crate) fn run<T>(&self, main: impl AsyncFnOnce(World) -> T) -> (T, Vec<Record>) {
        let records = Rc::new(RefCell::new(Vec::new()));
        let seen = records.clone();
        let sim = self.sim().observe(move |record| seen.borrow_mut().push(record.clone()));
        let result = sim.run(Duration::from_secs(3600), main).expect("the run ends in time");
        (result, records.take())
    }
}

/// A UDP socket, and what was received together with what was asked for.
pub(crate) struct Udp {
    pub(crate) socket: Arc<dyn UdpSocket>,
    waiting: Mutex<VecDeque<(Vec<u8>, SocketAddr)>>,
}

pub(crate) type Socket = Arc<Udp>;

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A UDP socket on a node, bound to all its addresses.
pub(crate) fn udp(world: &World, node: &str, port: u16) -> Socket {
    bind(&world.network(node), &format!("0.0.0.0:{port}"))
}

pub(crate) fn bind(net: &Net, local: &str) -> Socket {
    Arc::new(Udp { socket: net.bind_udp(address(local)).unwrap(), waiting: Mutex::default() })
}

pub(crate) async fn send(socket: &Socket, to: impl Into<Target>, payload: &[u8]) {
    let Target(destination) = to.into();
    poll_fn(|cx| socket.socket.poll_send(cx, &Transmit { destination, contents: payload, segment_size: None }))
        .await
        .unwrap();
}

/// The next datagram.
pub(crate) async fn receive(socket: &Socket) -> (Vec<u8>, SocketAddr) {
    loop {
        if let Some(next) = socket.waiting.lock().unwrap().pop_front() {
            return next;
        }
        let (mut buffer, mut meta) = ([0; 2048], [RecvMeta::default()]);
        poll_fn(|cx| socket.socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)).await.unwrap();
        let RecvMeta { source, len, stride } = meta[0];
        let mut waiting = socket.waiting.lock().unwrap();
        if len == 0 {
            waiting.push_back((Vec::new(), source));
        }
        waiting.extend(buffer[..len].chunks(stride.max(1)).map(|datagram| (datagram.to_vec(), source)));
    }
}

/// Whether a datagram comes within a second.
pub(crate) async fn receives(socket: &Socket) -> bool {
    tokio::time::timeout(ms(1_000), receive(socket)).await.is_ok()
}

pub(crate) struct Target(SocketAddr);

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        Self(address(text))
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

/// The laboratory's events, as a line each: time in µs, where, what.
pub(crate) fn lines(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| serde_json::to_string(record).unwrap()).collect()
}

/// Why packets were dropped, in order: `hop: rule`.
pub(crate) fn drops(records: &[Record]) -> Vec<String> {
    let reason = |record: &Record| match &record.event {
        Event::Lab(LabEvent::PacketDropped { hop, rule, .. }) => Some(format!("{hop}: {rule}")),
        _ => None,
    };
    records.iter().filter_map(reason).collect()
}

/// When each delivered packet was delivered, in nanoseconds.
pub(crate) fn deliveries(records: &[Record]) -> Vec<u64> {
    let delivered = |record: &&Record| matches!(record.event, Event::Lab(LabEvent::PacketDelivered { .. }));
    records.iter().filter(delivered).map(|record| record.at_ns).collect()
}
