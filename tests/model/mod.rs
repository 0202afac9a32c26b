//! Two µTP connections over a model of a bad path, in virtual time.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use grenache::net::Rng;
use grenache::utp::wire::Repr;
use grenache::utp::{Batch, Config, Connection, Error, Event, Seq};
use rand::{RngExt, SeedableRng};

/// What a path does to each datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    /// The part of datagrams that is lost, in percent.
    pub(crate) loss: u32,
    /// The part that arrives twice, in percent.
    pub(crate) duplication: u32,
    /// Least one-way delay.
    pub(crate) latency: Duration,
    /// Random delay on top, so that datagrams overtake each other.
    pub(crate) jitter: Duration,
}

impl Path {
    pub(crate) const PERFECT: Path =
        Path { loss: 0, duplication: 0, latency: Duration::from_millis(10), jitter: Duration::ZERO };
}

/// Decides on a datagram's loss by its number, whether it is for the acceptor, and its bytes.
pub(crate) type Loss = fn(u64, bool, &[u8]) -> bool;

/// One side: its connection, what it still has to write and what it has read.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) connection: Connection,
    pub(crate) to_write: Vec<u8>,
    pub(crate) written: usize,
    pub(crate) read: Vec<u8>,
    pub(crate) end_of_stream: bool,
    pub(crate) finished: bool,
    pub(crate) closed: Option<Option<Error>>,
    /// When a datagram came last.
    pub(crate) heard_at: Option<Instant>,
    /// When it closed.
    pub(crate) closed_at: Option<Instant>,
    /// Most bytes given to one write, and taken by one read.
    pub(crate) chunk: usize,
    /// Whether the reader reads.
    pub(crate) reading: bool,
    /// Whether a FIN follows what is written.
    pub(crate) finish: bool,
    pub(crate) sent_datagrams: usize,
}

impl Side {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            to_write: Vec::new(),
            written: 0,
            read: Vec::new(),
            end_of_stream: false,
            finished: false,
            closed: None,
            heard_at: None,
            closed_at: None,
            chunk: 5000,
            reading: true,
            finish: true,
            sent_datagrams: 0,
        }
    }

    /// A datagram arrives.
    fn hear(&mut self, now: Instant, packet: &Repr<'_>) {
        self.heard_at = Some(now);
        self.connection.handle_datagram(now, packet);
    }

    /// What a user of the connection does.
    fn act(&mut self, now: Instant) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Finished => self.finished = true,
                Event::Closed(error) => {
                    assert_eq!(self.closed, None, "closed twice");
                    self.closed = Some(error);
                    self.closed_at = Some(now);
                }
                _ => {}
            }
        }
        while self.written < self.to_write.len() {
            let end = self.to_write.len().min(self.written + self.chunk);
            match self.connection.write(&self.to_write[self.written..end]) {
                Ok(0) | Err(_) => break,
                Ok(len) => self.written += len,
            }
        }
        if self.finish && self.written == self.to_write.len() {
            self.connection.finish();
        }
        let mut buffer = vec![0; self.chunk];
        while self.reading && !self.end_of_stream {
            match self.connection.read(&mut buffer) {
                Ok(Some(0)) => self.end_of_stream = true,
                Ok(Some(len)) => self.read.extend(&buffer[..len]),
                Ok(None) | Err(_) => break,
            }
        }
    }
}

/// The two sides and the datagrams on their way.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) began: Instant,
    pub(crate) rng: Rng,
    pub(crate) path: Path,
    pub(crate) initiator: Side,
    pub(crate) acceptor: Option<Side>,
    /// Template of the acceptor, for when the SYN arrives.
    acceptor_config: Config,
    acceptor_seq: Seq,
    acceptor_writes: Vec<u8>,
    acceptor_chunk: usize,
    /// Whether the acceptor sends a FIN after what it writes.
    pub(crate) acceptor_finish: bool,
    in_transit: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    sent: u64,
    /// The number last sent by the initiator and the acceptor.
    last_seq: (u16, u16),
    /// Which datagrams are dropped besides the path's losses. They are numbered from 0 in the order of sending.
    pub(crate) drop: Option<Loss>,
    pub(crate) log: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, path: Path, config: Config, seqs: (u16, u16), id: u16) -> Self {
        let now = tokio::time::Instant::now().into_std();
        Self {
            now,
            began: now,
            rng: Rng::seed_from_u64(seed),
            path,
            initiator: Side::new(Connection::connect(now, config.clone(), id, Seq(seqs.0))),
            acceptor: None,
            acceptor_config: config,
            acceptor_seq: Seq(seqs.1),
            acceptor_writes: Vec::new(),
            acceptor_chunk: 5000,
            acceptor_finish: true,
            in_transit: BTreeMap::new(),
            sent: 0,
            last_seq: seqs,
            drop: None,
            log: Vec::new(),
        }
    }

    pub(crate) fn acceptor_writes(&mut self, bytes: Vec<u8>, chunk: usize) {
        self.acceptor_writes = bytes;
        self.acceptor_chunk = chunk;
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.began
    }

    /// How many datagrams are on their way in one direction.
    pub(crate) fn in_transit(&self, to_acceptor: bool) -> usize {
        self.in_transit.values().filter(|(direction, _)| *direction == to_acceptor).count()
    }

    /// Delivers a forged packet. Its last four header bytes become numbers close to those in use.
    pub(crate) fn inject(&mut self, to_acceptor: bool, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let (mine, theirs) = if to_acceptor { (self.last_seq.1, self.last_seq.0) } else { self.last_seq };
        for (at, base) in [(16, theirs), (18, mine)] {
            let near = i16::from(bytes[at].cast_signed());
            bytes[at..at + 2].copy_from_slice(&base.wrapping_add_signed(near).to_be_bytes());
        }
        let Ok(packet) = Repr::parse(&bytes) else { return };
        match (to_acceptor, &mut self.acceptor) {
            (false, _) => self.initiator.hear(self.now, &packet),
            (true, Some(side)) => side.hear(self.now, &packet),
            (true, None) => {}
        }
    }

    fn transmit(&mut self) {
        for to_acceptor in [true, false] {
            let side = match (to_acceptor, &mut self.acceptor) {
                (true, _) => &mut self.initiator,
                (false, Some(side)) => side,
                (false, None) => continue,
            };
            let mut out = Vec::new();
            loop {
                out.clear();
                let batch = Batch { datagrams: 16, bytes: 65_507 };
                let Some(sent) = side.connection.poll_transmit(self.now, batch, &mut out) else { break };
                assert_eq!(out.chunks(sent.segment_size).count(), sent.datagrams);
                side.sent_datagrams += sent.datagrams;
                for datagram in out.chunks(sent.segment_size) {
                    let seq = Repr::parse(datagram).expect("we send what we can parse").seq.0;
                    if to_acceptor {
                        self.last_seq.0 = seq;
                    } else {
                        self.last_seq.1 = seq;
                    }
                    let direction = if to_acceptor { '>' } else { '<' };
                    self.log.push(format!(
                        "{:?} {direction} {}",
                        self.now - self.began,
                        Repr::parse(datagram).expect("we send what we can parse")
                    ));
                    let number = self.sent;
                    self.sent += 1;
                    if self.rng.random_range(0..100) < self.path.loss
                        || self.drop.is_some_and(|drop| drop(number, to_acceptor, datagram))
                    {
                        self.log.push("  lost".to_owned());
                        continue;
                    }
                    let copies = 1 + u64::from(self.rng.random_range(0..100) < self.path.duplication);
                    for copy in 0..copies {
                        let jitter = self.rng.random_range(0..=self.path.jitter.as_micros() as u64);
                        let at = self.now + self.path.latency + Duration::from_micros(jitter);
                        self.in_transit.insert((at, number * 2 + copy), (to_acceptor, datagram.to_vec()));
                    }
                }
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.in_transit.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let (to_acceptor, bytes) = entry.remove();
            let packet = Repr::parse(&bytes).unwrap();
            match (to_acceptor, &mut self.acceptor) {
                (false, _) => self.initiator.hear(self.now, &packet),
                (true, Some(side)) => side.hear(self.now, &packet),
                (true, None) if packet.kind == grenache::utp::wire::Kind::Syn => {
                    let connection =
                        Connection::accept(self.now, self.acceptor_config.clone(), &packet, self.acceptor_seq);
                    let mut side = Side::new(connection);
                    side.to_write = std::mem::take(&mut self.acceptor_writes);
                    side.chunk = self.acceptor_chunk;
                    side.finish = self.acceptor_finish;
                    self.acceptor = Some(side);
                }
                (true, None) => {}
            }
        }
    }

    /// Runs until `done`, or nothing is going to happen, or the time limit.
    pub(crate) fn run(&mut self, limit: Duration, done: impl Fn(&World) -> bool) {
        loop {
            self.initiator.act(self.now);
            if let Some(side) = &mut self.acceptor {
                side.act(self.now);
            }
            self.transmit();
            self.initiator.act(self.now);
            if let Some(side) = &mut self.acceptor {
                side.act(self.now);
            }
            self.transmit();
            if done(self) {
                return;
            }
            let next = [
                self.in_transit.first_key_value().map(|((at, _), _)| *at),
                self.initiator.connection.poll_timeout(),
                self.acceptor.as_ref().and_then(|side| side.connection.poll_timeout()),
            ];
            let Some(next) = next.into_iter().flatten().min() else { return };
            if next > self.began + limit {
                self.now = self.began + limit;
                return;
            }
            self.now = self.now.max(next);
            self.deliver();
            self.initiator.connection.handle_timeout(self.now);
            if let Some(side) = &mut self.acceptor {
                side.connection.handle_timeout(self.now);
            }
        }
    }
}

pub(crate) fn pattern(len: usize, salt: u32) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 13) as u8).collect()
}
