use super::*;
use crate::engine::seed;

/// Two ends and a network between them that delays, reorders and loses as it likes.
struct Pair {
    ends: [Connection; 2],
    /// (time, order) → (to which end, segment)
    network: BTreeMap<(u64, u64), (usize, Segment)>,
    accepted: bool,
    now_ns: u64,
    sent: u64,
    rng: grenache::net::Rng,
    loss: f64,
    jitter_ns: u64,
    /// Loses each segment for which this says so, beside `loss`.
    loses: fn(&Segment, u64) -> bool,
}

const LATENCY_NS: u64 = 80 * MS;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

impl Pair {
    fn new(seed: u64) -> Self {
        let a = Connection::connect(address(1), address(2), u32::MAX);
        let b = Connection::connect(address(2), address(1), 7);
        Self {
            ends: [a, b],
            network: BTreeMap::new(),
            accepted: false,
            now_ns: 0,
            sent: 0,
            rng: seed::stream(seed, &["pair"]),
            loss: 0.0,
            jitter_ns: 0,
            loses: |_, _| false,
        }
    }

    fn lossy(seed: u64, loss: f64, jitter_ns: u64) -> Self {
        Self { loss, jitter_ns, ..Self::new(seed) }
    }

    fn transmit(&mut self) {
        for from in 0..2 {
            if from == 1 && !self.accepted {
                continue;
            }
            while let Some(segment) = self.ends[from].poll_transmit(self.now_ns) {
                self.put(1 - from, segment);
            }
        }
    }

    fn put(&mut self, to: usize, segment: Segment) {
        self.sent += 1;
        if seed::chance(&mut self.rng, self.loss) || (self.loses)(&segment, self.sent) {
            return;
        }
        let delay = LATENCY_NS - self.jitter_ns + seed::below(&mut self.rng, 2 * self.jitter_ns + 1);
        self.network.insert((self.now_ns + delay, self.sent), (to, segment));
    }

    /// Handles what comes next; `false` when nothing ever will.
    fn step(&mut self) -> bool {
        self.transmit();
        let arrival = self.network.first_key_value().map(|((at, _), _)| *at);
        let timer = self.ends.iter().filter_map(Connection::timer_ns).min();
        let Some(next) = arrival.into_iter().chain(timer).min() else { return false };
        self.now_ns = self.now_ns.max(next);
        if arrival == Some(next) {
            let (_, (to, segment)) = self.network.pop_first().unwrap();
            if to == 1 && !self.accepted {
                self.ends[1] = Connection::accept(address(2), address(1), 7, &segment);
                self.accepted = true;
            } else {
                self.ends[to].on_segment(self.now_ns, &segment);
            }
        } else {
            self.ends.iter_mut().for_each(|end| end.on_timer(self.now_ns));
        }
        true
    }

    fn open(&mut self) {
        while self.ends[0].connected().is_none() {
            assert!(self.step());
        }
    }

    /// Sends so many bytes each way at once, then shuts both ways down; gives when the last end was read.
    fn exchange(&mut self, sizes: [usize; 2]) -> u64 {
        self.open();
        let byte = |nth: usize| (nth * 31 % 251) as u8;
        let (mut written, mut read, mut ended) = ([0; 2], [0; 2], [false; 2]);
        while ended != [true, true] {
            for end in 0..2 {
                while written[end] < sizes[end] && self.ends[end].connected() == Some(Ok(())) {
                    let chunk: Vec<u8> = (written[end]..sizes[end].min(written[end] + 5_000)).map(byte).collect();
                    match self.ends[end].write(&chunk) {
                        Write::Bytes(count) => written[end] += count,
                        Write::Wait => break,
                        Write::Failed(error) => panic!("{error}"),
                    }
                }
                if written[end] == sizes[end] && self.ends[end].connected() == Some(Ok(())) {
                    self.ends[end].shutdown();
                }
                let mut buffer = [0; 4_096];
                loop {
                    match self.ends[end].read(&mut buffer) {
                        Read::Bytes(count) => {
                            let expected = (read[end]..read[end] + count).map(byte);
                            assert!(buffer[..count].iter().copied().eq(expected), "every byte once and in order");
                            read[end] += count;
                        }
                        Read::End => break ended[end] = true,
                        Read::Wait => break,
                        Read::Failed(error) => panic!("{error}"),
                    }
                }
            }
            if ended != [true, true] {
                assert!(self.step(), "stuck at {read:?} of {sizes:?}");
            }
        }
        assert_eq!(read, [sizes[1], sizes[0]]);
        self.now_ns
    }
}

#[test]
fn an_exchange_takes_its_round_trips() {
    // SYN, SYN-ACK, then request and FIN, answer and FIN: four crossings, the answer sent when the handshake ended.
    assert_eq!(Pair::new(1).exchange([300, 300]), 4 * LATENCY_NS);
}

#[test]
fn every_byte_arrives_once_and_in_order_under_loss_and_reordering() {
    for seed in 0..60 {
        let mut pair = Pair::lossy(seed, 0.1, 40 * MS);
        pair.exchange([40_000, 100]);
        assert!(pair.now_ns < 60_000 * MS, "seed {seed} took {} ms", pair.now_ns / MS);
    }
}

#[test]
fn a_window_is_used_and_respected() {
    // 4 MB over a 160 ms round trip at a window of 256 kB: about 16 round trips, and slow start before.
    let took = Pair::new(1).exchange([4 << 20, 0]);
    assert!((16 * 160..24 * 160).contains(&(took / MS)), "{} ms", took / MS);
}

#[test]
fn a_slow_reader_stops_the_writer_and_a_probe_outlives_it() {
    let mut pair = Pair::new(1);
    pair.open();
    let mut written = 0;
    while pair.now_ns < 3_600_000 * MS {
        while let Write::Bytes(count) = pair.ends[0].write(&[7; 10_000]) {
            written += count;
        }
        assert!(pair.step());
    }
    assert_eq!(written, SEND_BUFFER + RECEIVE_BUFFER, "an hour of probes later");
    let (mut read, mut buffer) = (0, vec![0; 100_000]);
    while read < written {
        match pair.ends[1].read(&mut buffer) {
            Read::Bytes(count) => read += count,
            Read::Wait => assert!(pair.step()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_lost_last_acknowledgement_is_repeated() {
    let mut pair = Pair::new(1);
    pair.open();
    pair.ends[0].write(b"ping");
    // The server's bare acknowledgement of the data is lost once; it has nothing to send that would carry it.
    pair.loses = |segment, sent| sent == 4 && segment.length() == 0;
    let mut steps = 0;
    while pair.step() {
        steps += 1;
    }
    assert!((3..12).contains(&steps), "{steps}");
    assert_eq!(pair.ends[0].unacknowledged, pair.ends[0].highest);
    assert_eq!(pair.ends[0].error, None);
}

#[test]
fn a_peer_that_is_gone_is_given_up() {
    let mut pair = Pair::new(1);
    pair.loses = |_, _| true;
    while pair.step() {}
    assert_eq!(pair.ends[0].connected(), Some(Err(ErrorKind::TimedOut)));
    assert_eq!(pair.now_ns, 63_000 * MS, "1 + 2 + 4 + 8 + 16 + 32 s");

    let mut pair = Pair::new(1);
    pair.open();
    pair.ends[0].write(b"x");
    pair.loses = |_, _| true;
    while pair.step() {}
    assert_eq!(pair.ends[0].read(&mut [0]), Read::Failed(ErrorKind::TimedOut));
}

#[test]
fn half_close_lets_the_other_side_go_on() {
    let mut pair = Pair::new(1);
    pair.open();
    pair.ends[0].shutdown();
    assert_eq!(pair.ends[0].write(b"x"), Write::Failed(ErrorKind::BrokenPipe));
    while pair.step() {}
    assert_eq!(pair.ends[1].read(&mut [0]), Read::End);
    assert_eq!(pair.ends[1].write(b"still here"), Write::Bytes(10));
    while pair.step() {}
    let mut buffer = [0; 20];
    assert_eq!(pair.ends[0].read(&mut buffer), Read::Bytes(10));
}

#[test]
fn a_dropped_end_delivers_what_it_wrote_and_goes() {
    for seed in 0..20 {
        let mut pair = Pair::lossy(seed, 0.2, 30 * MS);
        pair.open();
        pair.ends[0].write(&[1; 3_000]);
        assert_eq!(pair.ends[0].release(pair.now_ns), None);
        let (mut read, mut buffer) = (0, [0; 500]);
        loop {
            match pair.ends[1].read(&mut buffer) {
                Read::Bytes(count) => read += count,
                Read::End => break,
                Read::Wait => assert!(pair.step()),
                Read::Failed(error) => panic!("{error}"),
            }
        }
        assert_eq!(read, 3_000);
        pair.ends[1].release(pair.now_ns);
        while pair.step() {}
        assert!(pair.ends[0].is_over() && pair.ends[1].is_over(), "seed {seed}");
    }
}

#[test]
fn dropping_an_end_with_unread_data_resets_the_other() {
    let mut pair = Pair::new(1);
    pair.open();
    pair.ends[0].write(b"unread");
    while pair.step() {}
    let reset = pair.ends[1].release(pair.now_ns).unwrap();
    pair.ends[0].on_segment(pair.now_ns, &reset);
    assert_eq!(pair.ends[0].read(&mut [0]), Read::Failed(ErrorKind::ConnectionReset));
}

#[test]
fn an_old_reset_is_ignored() {
    let mut pair = Pair::new(1);
    pair.open();
    while pair.step() {}
    let old = Segment { reset: true, seq: 3, ..Segment::default() };
    pair.ends[0].on_segment(pair.now_ns, &old);
    assert_eq!(pair.ends[0].error, None);
}

#[test]
fn a_connection_from_an_earlier_life_gives_way() {
    // End 1 still has the connection; end 0 lost it and connects anew from the same port.
    let mut pair = Pair::new(1);
    pair.open();
    while pair.step() {}
    pair.ends[0] = Connection::connect(address(1), address(2), 1_000);
    while pair.ends[1].error.is_none() {
        assert!(pair.step());
    }
    assert_eq!(pair.ends[1].error, Some(ErrorKind::ConnectionReset));
    pair.accepted = false;
    pair.open();
    assert_eq!(pair.ends[0].connected(), Some(Ok(())));
}
