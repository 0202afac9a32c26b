//! DHT nodes without I/O: many of them in one test, on made-up time.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use grenache::grape::krpc::{Body, Key, Message, Query};
use grenache::grape::node::{Node, NodeConfig, NodeEvent, OperationError, OperationId, Outcome};
use grenache::net::Rng;
use rand::SeedableRng;

/// An operation and the node that runs it: ids are a node's own.
pub(crate) type Running = (SocketAddrV4, OperationId);

/// Nodes on a network without latency, and without some of its links.
pub(crate) struct Swarm {
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    pub(crate) nodes: BTreeMap<SocketAddrV4, Node>,
    /// Who neither sends nor receives.
    pub(crate) cut: Vec<SocketAddrV4>,
    pub(crate) outcomes: Vec<(Running, Result<Outcome, OperationError>)>,
    pub(crate) events: Vec<(SocketAddrV4, NodeEvent)>,
    /// Every datagram that was sent, with its sender.
    pub(crate) log: Vec<(SocketAddrV4, SocketAddrV4, Vec<u8>)>,
}

impl Swarm {
    #[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Instant::now(),
            rng: Rng::seed_from_u64(seed),
            nodes: BTreeMap::new(),
            cut: Vec::new(),
            outcomes: Vec::new(),
            events: Vec::new(),
            log: Vec::new(),
        }
    }

    /// A node at `host`, which starts from the node at host 1.
    pub(crate) fn add(&mut self, host: u8, change: impl FnOnce(&mut NodeConfig)) -> SocketAddrV4 {
        let mut config = NodeConfig { port: 20001, bootstrap: vec![address(1)], ..NodeConfig::default() };
        if host == 1 {
            config.bootstrap.clear();
        }
        change(&mut config);
        let node = Node::new(self.now, &mut self.rng, config);
        self.nodes.insert(address(host), node);
        self.settle();
        address(host)
    }

    pub(crate) fn with(
        &mut self,
        at: SocketAddrV4,
        act: impl FnOnce(&mut Node, Instant, &mut Rng) -> OperationId,
    ) -> Running {
        let operation = act(self.nodes.get_mut(&at).unwrap(), self.now, &mut self.rng);
        self.settle();
        (at, operation)
    }

    pub(crate) fn announce(&mut self, at: SocketAddrV4, name: &str, port: u16) -> Result<Outcome, OperationError> {
        let operation = self.with(at, |node, now, rng| node.announce(now, rng, key(name), port));
        self.outcome(operation)
    }

    pub(crate) fn lookup(&mut self, at: SocketAddrV4, name: &str) -> Vec<SocketAddrV4> {
        let operation = self.with(at, |node, now, rng| node.lookup(now, rng, key(name)));
        let Ok(Outcome::Peers(mut peers)) = self.outcome(operation) else { panic!("a lookup gives peers") };
        peers.sort_unstable();
        peers
    }

    /// How an operation ended; lets time pass until it has.
    pub(crate) fn outcome(&mut self, operation: Running) -> Result<Outcome, OperationError> {
        for _ in 0..100 {
            if let Some(at) = self.outcomes.iter().position(|(other, _)| *other == operation) {
                return self.outcomes.remove(at).1;
            }
            self.step();
        }
        panic!("the operation never ended")
    }

    /// Delivers everything, at once.
    pub(crate) fn settle(&mut self) {
        let mut queue = VecDeque::new();
        loop {
            for (from, node) in &mut self.nodes {
                while let Some((to, datagram)) = node.poll_transmit() {
                    self.log.push((*from, to, datagram.clone()));
                    queue.push_back((*from, to, datagram));
                }
                while let Some(event) = node.poll_event() {
                    if let NodeEvent::Finished { operation, result } = event {
                        self.outcomes.push(((*from, operation), result));
                    } else {
                        self.events.push((*from, event));
                    }
                }
            }
            let Some((from, to, datagram)) = queue.pop_front() else { return };
            if !self.cut.contains(&from)
                && !self.cut.contains(&to)
                && let Some(node) = self.nodes.get_mut(&to)
            {
                node.handle_datagram(self.now, &mut self.rng, from, &datagram);
            }
        }
    }

    /// Lets time pass until the next timeout.
    pub(crate) fn step(&mut self) {
        let next = self.nodes.values().map(Node::poll_timeout).min().unwrap();
        assert!(next >= self.now, "a timeout that is over was not handled");
        self.now = next;
        for node in self.nodes.values_mut().filter(|node| node.poll_timeout() <= next) {
            node.handle_timeout(next, &mut self.rng);
        }
        self.settle();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.nodes.values().any(|node| node.poll_timeout() <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Sends a query from outside the swarm; gives the answer.
    pub(crate) fn ask(&mut self, from: SocketAddrV4, to: SocketAddrV4, query: Query) -> Body {
        let message = Message { transaction: b"test".to_vec(), body: Body::Query { sender: None, query } };
        self.say(from, to, &message.encode()).expect("no answer")
    }

    pub(crate) fn say(&mut self, from: SocketAddrV4, to: SocketAddrV4, datagram: &[u8]) -> Option<Body> {
        let node = self.nodes.get_mut(&to).unwrap();
        node.handle_datagram(self.now, &mut self.rng, from, datagram);
        let (back, datagram) = node.poll_transmit()?;
        assert_eq!(back, from);
        Some(Message::decode(&datagram).unwrap().body)
    }

    pub(crate) fn token(&mut self, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        let Body::Answer(answer) = self.ask(from, to, Query::GetPeers { info_hash: key("any") }) else {
            panic!("refused")
        };
        answer.token.unwrap()
    }

    pub(crate) fn sent(&self, method: &str) -> usize {
        let is = |datagram: &[u8]| match Message::decode(datagram).unwrap().body {
            Body::Query { query, .. } => query.method() == method,
            _ => false,
        };
        self.log.iter().filter(|(_, _, datagram)| is(datagram)).count()
    }
}

pub(crate) fn address(host: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), 20001)
}

pub(crate) fn outside() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 4000)
}

pub(crate) fn at(host: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(*address(host).ip(), port)
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(name.as_bytes()).unwrap()
}

pub(crate) fn announce_peer(name: &str, port: u16, implied_port: bool, token: Vec<u8>) -> Query {
    Query::AnnouncePeer { info_hash: key(name), port, implied_port, token }
}

pub(crate) fn accepted(body: &Body) -> bool {
    matches!(body, Body::Answer(_))
}

pub(crate) fn error(code: i64, text: &str) -> Body {
    Body::Error { code, text: text.into() }
}
