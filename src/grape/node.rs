//! A DHT node (BEP 5, BEP 44) without I/O: no socket, task, clock or random numbers of its own.
//!
//! Tell it what happens ([`handle_datagram`](Node::handle_datagram), [`handle_timeout`](Node::handle_timeout), or the
//! start of an operation); then drain [`poll_transmit`](Node::poll_transmit) and [`poll_event`](Node::poll_event), and
//! call `handle_timeout` once [`poll_timeout`](Node::poll_timeout) is reached. An operation's end is an event.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use rand::Rng as _;
use thiserror::Error;

use super::krpc::{Answer, Body, Contact, DecodeError, Key, Message, Mutable, NodeId, Query, Value};
use super::operation::{Goal, Operation, Phase, Reply, Step};
use super::peers::PeerStore;
use super::queries::{Asked, Queries};
use super::search::{Holder, Search};
use super::table::{Heard, K, Table};
use super::tokens::{TokenSecrets, Tokens};
use super::values::{Stored, ValueStore, target};
use crate::net::Rng;

mod serve;

/// How many addresses a lookup gives, and an answer to a `get_peers` lists: they fit a datagram of 1000 bytes.
pub const MAX_PEERS_LISTED: usize = 100;

/// How many operations run at once; a further one ends with [`OperationError::Busy`].
pub const MAX_OPERATIONS: usize = 1024;

/// How many datagrams wait to be sent; beyond it answers are dropped, as UDP may do anyway.
pub const MAX_TRANSMITS: usize = 4096;

/// How long the tokens of an announce or put are used again: as long as they count for sure.
const HOLDERS_AGE: Duration = Duration::from_secs(5 * 60);

/// The wait between two bootstraps while no node is known: it doubles from the first to the last.
const REBOOTSTRAP: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The shortest liveness: with a shorter one pings would pile up on nodes that are gone.
const MIN_LIVENESS: Duration = Duration::from_secs(10);

/// Whose the values are that were put through this node itself.
const OWN: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Settings of a [`Node`].
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The node's id (default: random).
    pub id: Option<NodeId>,
    /// What its tokens are made from (default: random).
    pub token_secrets: Option<TokenSecrets>,
    /// The UDP port, announced for services that announce port 0.
    pub port: u16,
    /// Nodes to start from (default none).
    pub bootstrap: Vec<SocketAddrV4>,
    /// How many names are stored, and how many names' and values' tokens are kept (default 5000); the oldest goes, or
    /// the oldest of the announcing address where that has half of them.
    pub max_tables: NonZeroUsize,
    /// How many values are stored (default 5000); the least recently used goes, or that of the putting address where
    /// that has half of them.
    pub max_values: NonZeroUsize,
    /// A stored peer lives for one to two times this after its last announce (default 120 s).
    pub peer_max_age: Duration,
    /// The same for what this node's own lookups found (default half of `peer_max_age`).
    pub cache_max_age: Option<Duration>,
    /// A node that has not been heard of for this long is pinged (default 5 min, at least 10 s).
    pub liveness: Duration,
    /// How many queries one operation keeps in flight (default 24).
    pub concurrency: usize,
    /// Store this node's own announces at itself too, under this address (default not).
    pub store_own: Option<Ipv4Addr>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let five_thousand = NonZeroUsize::new(5000).unwrap_or(NonZeroUsize::MIN);
        Self {
            id: None,
            token_secrets: None,
            port: 0,
            bootstrap: Vec::new(),
            max_tables: five_thousand,
            max_values: five_thousand,
            peer_max_age: Duration::from_secs(120),
            cache_max_age: None,
            liveness: Duration::from_secs(5 * 60),
            concurrency: 24,
            store_own: None,
        }
    }
}

/// Names an operation until its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(u64);

/// Something a [`Node`] has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// The first bootstrap is over, whether or not anybody answered.
    Ready,
    /// An operation ended.
    Finished {
        /// Which one.
        operation: OperationId,
        /// How.
        result: Result<Outcome, OperationError>,
    },
    /// Another node was taken into the routing table.
    NodeFound(Contact),
    /// A search of this node learnt where a service is.
    PeerFound {
        /// The service's name.
        name: Key,
        /// Where it is.
        peer: SocketAddrV4,
        /// The node that told; `None` where it was stored here.
        through: Option<SocketAddrV4>,
    },
    /// A lookup ended its search.
    LookedUp {
        /// The service's name.
        name: Key,
        /// How many nodes answered.
        nodes: usize,
    },
    /// A peer was announced to this node.
    PeerStored {
        /// The service's name.
        name: Key,
        /// Where it is.
        peer: SocketAddrV4,
    },
    /// A malformed datagram was dropped, or answered with an error.
    Malformed {
        /// Where from.
        from: SocketAddrV4,
        /// What is wrong with it.
        error: DecodeError,
    },
}

/// What an operation achieved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An announce: how many nodes took it.
    Announced(usize),
    /// A lookup: where the service is, at most [`MAX_PEERS_LISTED`].
    Peers(Vec<SocketAddrV4>),
    /// A put: where the value is to be found.
    Stored(NodeId),
    /// A get.
    Value(Option<FoundValue>),
}

/// A value and who had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundValue {
    /// The node that had it.
    pub id: NodeId,
    /// The token it gave; `None` where the value was at this node.
    pub token: Option<Vec<u8>>,
    /// The value.
    pub value: Value,
    /// What makes it mutable; `None` for an immutable one.
    pub mutable: Option<Box<Mutable>>,
}

/// Why an operation failed. The texts of the first three are the reference's, which clients see.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OperationError {
    /// No node gave a token: there is none to store at.
    #[error("No nodes to query")]
    NoNodes,
    /// No node took it.
    #[error("All queries failed")]
    AllFailed,
    /// No node took it, and one said why (301 or 302: BEP 44).
    #[error("{code} {text}")]
    Refused {
        /// The error's code, 300 to 399.
        code: i64,
        /// The error's text.
        text: String,
    },
    /// [`MAX_OPERATIONS`] are running: try again later.
    #[error("too many operations at once; try again later")]
    Busy,
}

/// What a [`Node`] holds and has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStats {
    /// Nodes in the routing table.
    pub nodes: usize,
    /// Names with peers.
    pub names: usize,
    /// Stored peers, of all names.
    pub peers: usize,
    /// Stored values.
    pub values: usize,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams that were malformed.
    pub malformed: u64,
    /// Answers to nothing that was asked: late, or forged.
    pub unexpected: u64,
    /// Answers that were dropped because too many datagrams waited to be sent.
    pub dropped: u64,
    /// Peers and values that had to make room for younger ones.
    pub evicted: u64,
}

/// A DHT node.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    id: NodeId,
    table: Table,
    tokens: Tokens,
    peers: PeerStore,
    found: PeerStore,
    values: ValueStore,
    /// Who gave a token for a name or a value, and when, so that the next announce need not search.
    holders: LruCache<Key, (Instant, Vec<Holder>)>,
    queries: Queries,
    /// Boxed: each reply takes one out and puts it back.
    operations: BTreeMap<OperationId, Box<Operation>>,
    /// Lookups that are running, so that identical ones share one search.
    lookups: BTreeMap<Key, OperationId>,
    last_operation: u64,
    bootstrap: Bootstrap,
    next_check: Instant,
    transmits: VecDeque<(SocketAddrV4, Vec<u8>)>,
    events: VecDeque<NodeEvent>,
    counters: NodeStats,
}

/// Where the node stands in finding its first contacts.
#[derive(Debug)]
struct Bootstrap {
    running: Option<OperationId>,
    /// Whether an address has come while it was running, so that it must run again.
    again: bool,
    ready: bool,
    /// When to try again; only while no node is known.
    retry: Option<Instant>,
    delay: Duration,
    /// Bootstrap addresses that did not answer when last asked: only a bootstrap asks them again.
    silent: BTreeSet<SocketAddrV4>,
}

impl Node {
    /// A node that starts with its bootstrap.
    pub fn new(now: Instant, rng: &mut Rng, mut config: NodeConfig) -> Self {
        let id = config.id.unwrap_or_else(|| {
            let mut id = [0; 20];
            rng.fill_bytes(&mut id);
            NodeId(id)
        });
        config.liveness = config.liveness.max(MIN_LIVENESS);
        let cache_max_age = config.cache_max_age.unwrap_or(config.peer_max_age / 2);
        let mut node = Self {
            id,
            table: Table::new(id),
            tokens: Tokens::new(now, rng, config.token_secrets.take()),
            peers: PeerStore::new(now, config.peer_max_age, config.max_tables),
            found: PeerStore::new(now, cache_max_age, config.max_tables),
            values: ValueStore::new(config.max_values),
            holders: LruCache::new(config.max_tables),
            queries: Queries::default(),
            operations: BTreeMap::new(),
            lookups: BTreeMap::new(),
            last_operation: 0,
            bootstrap: Bootstrap {
                running: None,
                again: false,
                ready: false,
                retry: None,
                delay: REBOOTSTRAP.0,
                silent: BTreeSet::new(),
            },
            next_check: now + config.liveness / 5,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counters: NodeStats::default(),
            config,
        };
        node.start_bootstrap(now, rng);
        node
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// What its tokens are made from at the moment.
    pub fn token_secrets(&self) -> &TokenSecrets {
        self.tokens.secrets()
    }

    /// One more node to start from: it is asked now.
    pub fn add_bootstrap(&mut self, now: Instant, rng: &mut Rng, address: SocketAddrV4) {
        if self.config.bootstrap.contains(&address) {
            return;
        }
        self.config.bootstrap.push(address);
        self.bootstrap.again = self.bootstrap.running.is_some();
        self.start_bootstrap(now, rng);
    }

    /// What the node holds and has seen.
    pub fn stats(&self) -> NodeStats {
        NodeStats {
            nodes: self.table.len(),
            names: self.peers.len(),
            peers: self.peers.count(),
            values: self.values.len(),
            evicted: self.peers.evicted() + self.values.evicted(),
            ..self.counters
        }
    }

    /// Announces a service at `port` (0: the node's own) to the nodes closest to its name.
    pub fn announce(&mut self, now: Instant, rng: &mut Rng, name: Key, port: u16) -> OperationId {
        let port = if port == 0 { self.config.port } else { port };
        if let Some(ip) = self.config.store_own {
            self.store(now, name.clone(), SocketAddrV4::new(ip, port));
        }
        self.start_store(now, rng, name, Goal::Announce { port })
    }

    /// Looks a service up. While a lookup of the same name runs, this one joins it and has the same id.
    pub fn lookup(&mut self, now: Instant, rng: &mut Rng, name: Key) -> OperationId {
        if let Some(running) = self.lookups.get(&name) {
            return *running;
        }
        let search = self.search(name.clone());
        let operation = self.start(now, rng, Goal::Lookup, Phase::Search(search));
        if self.operations.contains_key(&operation) {
            self.lookups.insert(name, operation);
        }
        operation
    }

    /// Stores a value at the nodes closest to its hash; an immutable one at this node too.
    ///
    /// A mutable one must be signed: others refuse it if not ([`Mutable::is_signed`]).
    pub fn put(&mut self, now: Instant, rng: &mut Rng, value: Value, mutable: Option<Box<Mutable>>) -> OperationId {
        let target = match &mutable {
            None => {
                self.values.insert(OWN, value.clone());
                target(&value)
            }
            Some(mutable) => mutable.target(),
        };
        self.start_store(now, rng, target.into(), Goal::Put { target, value, mutable })
    }

    /// Gets a value: an immutable one from this node or else from the nodes closest to its hash; a mutable one from
    /// both, and the newest of all.
    ///
    /// `salt` is that of a mutable value that has one: without it, what others answer cannot be checked.
    pub fn get(&mut self, now: Instant, rng: &mut Rng, target: NodeId, salt: Option<Vec<u8>>) -> OperationId {
        let key = Key::from(target);
        let here = self.values.value(&key).map(|Stored { value, mutable }| FoundValue {
            id: self.id,
            token: None,
            value: value.clone(),
            mutable: mutable.clone(),
        });
        match here {
            Some(found) if found.mutable.is_none() => {
                let operation = self.next_operation();
                self.finish(operation, Ok(Outcome::Value(Some(found))));
                operation
            }
            newest => {
                let search = self.search(key);
                self.start(now, rng, Goal::Get { salt, newest }, Phase::Search(search))
            }
        }
    }

    /// Takes a datagram in.
    pub fn handle_datagram(&mut self, now: Instant, rng: &mut Rng, from: SocketAddrV4, datagram: &[u8]) {
        self.counters.received += 1;
        match Message::decode(datagram) {
            Ok(Message { transaction, body: Body::Query { sender, query } }) => {
                if let Some(id) = sender {
                    self.heard(now, Contact { id, address: from });
                }
                self.serve(now, rng, from, transaction, query);
            }
            Ok(Message { transaction, body: Body::Answer(answer) }) => {
                let Some(asked) = self.queries.take(&transaction, from) else {
                    self.counters.unexpected += 1;
                    return;
                };
                self.bootstrap.silent.remove(&from);
                self.heard(now, Contact { id: answer.id, address: from });
                self.replied(now, rng, asked, Reply::Answer(answer));
            }
            Ok(Message { transaction, body: Body::Error { code, text } }) => {
                let Some(asked) = self.queries.take(&transaction, from) else {
                    self.counters.unexpected += 1;
                    return;
                };
                self.bootstrap.silent.remove(&from);
                self.replied(now, rng, asked, Reply::Error { code, text });
            }
            Err(error) => self.malformed(from, error),
        }
        self.settle(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Instant {
        let fixed = self.tokens.rotates_at().min(self.next_check);
        [self.queries.next_timeout(), self.bootstrap.retry].into_iter().flatten().fold(fixed, Instant::min)
    }

    /// Does what is due. Early or repeated calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut Rng) {
        self.tokens.rotate(now, rng);
        while let Some(asked) = self.queries.expired(now) {
            self.table.failed(asked.to);
            if self.config.bootstrap.contains(&asked.to) {
                self.bootstrap.silent.insert(asked.to);
            }
            self.replied(now, rng, asked, Reply::None);
        }
        if self.bootstrap.retry.is_some_and(|at| at <= now) {
            self.start_bootstrap(now, rng);
        }
        if self.next_check <= now {
            self.next_check = now + self.config.liveness / 5;
            for contact in self.table.silent(now, self.config.liveness) {
                self.ask(now, contact.address, None, Query::Ping);
            }
            // A bootstrap node that was away may be the way to nodes that nobody here knows.
            if self.table.len() < self.config.bootstrap.len() {
                self.start_bootstrap(now, rng);
            }
        }
        self.settle(now);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddrV4, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        self.events.pop_front()
    }

    /// Announce and put: from the tokens of last time, or with a search for new ones.
    fn start_store(&mut self, now: Instant, rng: &mut Rng, key: Key, goal: Goal) -> OperationId {
        let phase = match self.holders.get(&key) {
            Some((since, holders)) if now.saturating_duration_since(*since) < HOLDERS_AGE => {
                Phase::store(key, holders.clone(), true)
            }
            _ => Phase::Search(self.search(key)),
        };
        self.start(now, rng, goal, phase)
    }

    fn search(&self, key: Key) -> Search {
        let known = self.table.closest(key.as_bytes(), K);
        let mut seeds = Vec::new();
        if known.len() < self.config.bootstrap.len() {
            seeds.clone_from(&self.config.bootstrap);
            seeds.retain(|seed| !self.bootstrap.silent.contains(seed));
        }
        Search::new(key, self.id, self.config.concurrency, known, seeds)
    }

    fn start_bootstrap(&mut self, now: Instant, rng: &mut Rng) {
        self.bootstrap.retry = None;
        if self.bootstrap.running.is_some() {
            return;
        }
        let key = Key::from(self.id);
        let known = self.table.closest(key.as_bytes(), K);
        let search = Search::new(key, self.id, self.config.concurrency, known, self.config.bootstrap.clone());
        let operation = self.next_operation();
        self.bootstrap.running = Some(operation);
        let phase = Phase::Search(search);
        self.run(now, rng, operation, Box::new(Operation { goal: Goal::Bootstrap, phase, retried: false }));
    }

    fn start(&mut self, now: Instant, rng: &mut Rng, goal: Goal, phase: Phase) -> OperationId {
        let operation = self.next_operation();
        if self.operations.len() >= MAX_OPERATIONS {
            self.finish(operation, Err(OperationError::Busy));
        } else {
            self.run(now, rng, operation, Box::new(Operation { goal, phase, retried: false }));
        }
        operation
    }

    fn next_operation(&mut self) -> OperationId {
        self.last_operation += 1;
        OperationId(self.last_operation)
    }

    /// Sends what an operation has to send, takes its next step where it is through with one, and keeps it or ends it.
    fn run(&mut self, now: Instant, rng: &mut Rng, id: OperationId, mut operation: Box<Operation>) {
        loop {
            while let Some((to, query)) = operation.next_query(self.config.concurrency) {
                self.ask(now, to, Some(id), query);
            }
            match operation.step() {
                Step::Wait => {
                    self.operations.insert(id, operation);
                    return;
                }
                Step::Searched(key, holders) => {
                    if !holders.is_empty() {
                        self.holders.put(key.clone(), (now, holders.clone()));
                    }
                    operation.phase = Phase::store(key, holders, false);
                }
                Step::Stale(key) => {
                    self.holders.pop(&key);
                    operation.phase = Phase::Search(self.search(key));
                }
                Step::Failed(key, error) => {
                    // Whoever gave those tokens is gone: the next try had better search.
                    self.holders.pop(&key);
                    return self.finish(id, Err(error));
                }
                Step::Done(outcome) => return self.finish(id, Ok(outcome)),
                Step::LookedUp(name, nodes) => {
                    self.lookups.remove(&name);
                    for peer in self.peers.peers(now, rng, &name, MAX_PEERS_LISTED) {
                        self.found(now, &name, peer, None, true);
                    }
                    let peers = self.found.peers(now, rng, &name, MAX_PEERS_LISTED);
                    self.events.push_back(NodeEvent::LookedUp { name, nodes });
                    return self.finish(id, Ok(Outcome::Peers(peers)));
                }
                Step::Bootstrapped => {
                    self.bootstrap.running = None;
                    if !self.bootstrap.ready {
                        self.bootstrap.ready = true;
                        self.events.push_back(NodeEvent::Ready);
                    }
                    if std::mem::take(&mut self.bootstrap.again) {
                        self.start_bootstrap(now, rng);
                    }
                    return;
                }
            }
        }
    }

    fn finish(&mut self, operation: OperationId, result: Result<Outcome, OperationError>) {
        self.events.push_back(NodeEvent::Finished { operation, result });
    }

    /// A query of ours was answered, or will not be.
    fn replied(&mut self, now: Instant, rng: &mut Rng, asked: Asked, reply: Reply) {
        let Some(id) = asked.operation else { return };
        // What comes after an operation's end is not for anybody.
        let Some(mut operation) = self.operations.remove(&id) else { return };
        if let (Phase::Search(search), Reply::Answer(answer)) = (&mut operation.phase, &reply) {
            for peer in answer.values.iter().flatten().filter(|peer| super::table::is_reachable(**peer)) {
                let first = search.learn(*peer);
                self.found(now, search.key(), *peer, Some(asked.to), first);
            }
        }
        operation.replied(asked.to, reply);
        self.run(now, rng, id, operation);
    }

    /// A search learnt where a service is, for the `first` time or from one more node.
    fn found(&mut self, now: Instant, name: &Key, peer: SocketAddrV4, through: Option<SocketAddrV4>, first: bool) {
        if first {
            self.found.insert(now, name, peer);
        }
        self.events.push_back(NodeEvent::PeerFound { name: name.clone(), peer, through });
    }

    fn heard(&mut self, now: Instant, contact: Contact) {
        match self.table.heard(now, contact) {
            Heard::Known => {}
            Heard::New => self.events.push_back(NodeEvent::NodeFound(contact)),
            Heard::Doubtful(known) => self.ask(now, known.address, None, Query::Ping),
        }
    }

    fn ask(&mut self, now: Instant, to: SocketAddrV4, operation: Option<OperationId>, query: Query) {
        let transaction = self.queries.add(now, Asked { to, operation });
        let message = Message { transaction: transaction.to_vec(), body: Body::Query { sender: Some(self.id), query } };
        // Not dropped at the limit: their number is bounded by that of the operations and of the nodes to ping.
        self.transmits.push_back((to, message.encode()));
    }

    fn answer(&mut self, to: SocketAddrV4, transaction: Vec<u8>, answer: Answer) {
        self.reply(to, &Message { transaction, body: Body::Answer(Box::new(answer)) });
    }

    fn refuse(&mut self, to: SocketAddrV4, transaction: Vec<u8>, code: i64, text: &str) {
        self.reply(to, &Message { transaction, body: Body::Error { code, text: text.to_owned() } });
    }

    fn reply(&mut self, to: SocketAddrV4, message: &Message) {
        if self.transmits.len() >= MAX_TRANSMITS {
            self.counters.dropped += 1;
        } else {
            self.transmits.push_back((to, message.encode()));
        }
    }

    /// Sees to it that a node that knows nobody tries its bootstrap again.
    fn settle(&mut self, now: Instant) {
        if !self.table.is_empty() {
            (self.bootstrap.retry, self.bootstrap.delay) = (None, REBOOTSTRAP.0);
        } else if self.bootstrap.running.is_none()
            && self.bootstrap.retry.is_none()
            && !self.config.bootstrap.is_empty()
        {
            self.bootstrap.retry = Some(now + self.bootstrap.delay);
            self.bootstrap.delay = (self.bootstrap.delay * 2).min(REBOOTSTRAP.1);
        }
    }
}
