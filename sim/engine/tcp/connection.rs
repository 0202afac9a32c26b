//! One end of a TCP connection (RFC 9293), without I/O, clock or randomness.
//!
//! Kept: the handshake, sliding windows, reassembly, retransmission by RTO (RFC 6298) and by three duplicate
//! acknowledgements, slow start and congestion avoidance (RFC 5681), half-close, resets, zero-window probes.
//! Left out, because nothing here can tell: options, urgent data, delayed acknowledgements, Nagle.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;

use bytes::Bytes;

use super::Segment;
use crate::engine::packet::max_segment;

const MS: u64 = 1_000_000;
/// Before a round trip was measured (RFC 6298, 2.1).
const FIRST_RTO_NS: u64 = 1_000 * MS;
/// As on Linux; RFC 6298, 2.4 says a second.
const LEAST_RTO_NS: u64 = 200 * MS;
/// RFC 6298, 2.5.
const MOST_RTO_NS: u64 = 60_000 * MS;
/// Transmissions of a SYN before the connection fails: about a minute.
const MOST_SYNS: u32 = 6;
/// Transmissions without an acknowledgement before the connection fails: about ten minutes, as on Linux.
const MOST_TRANSMISSIONS: u32 = 15;
/// How long a closed end stays to repeat its last acknowledgement, and an end that nobody holds waits for a FIN.
const LINGER_NS: u64 = 60_000 * MS;
/// Bytes that are buffered for the peer; a writer waits beyond.
const SEND_BUFFER: usize = 256 << 10;
/// Bytes that are buffered for the reader, those out of order included; the peer's window ends there.
const RECEIVE_BUFFER: usize = 256 << 10;
/// Segments in flight at first (RFC 6928).
const FIRST_WINDOW: usize = 10;

/// One end of a connection.
///
/// Everything that changes it may make something to send: drain [`poll_transmit`](Self::poll_transmit), and call
/// [`on_timer`](Self::on_timer) at [`timer_ns`](Self::timer_ns).
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The most data in a segment, in bytes.
    max_segment: usize,
    state: State,
    error: Option<ErrorKind>,
    /// Whether a task still holds the stream.
    held: bool,

    /// The oldest number that is not acknowledged; `unsent` counts from `next`.
    unacknowledged: u64,
    next: u64,
    /// The highest number ever sent, plus one: `next` goes back on a timeout.
    highest: u64,
    /// Bytes from `unacknowledged` on (after the SYN).
    outgoing: VecDeque<u8>,
    /// The FIN's number, once the writer is done.
    fin: Option<u64>,
    peer_window: usize,

    congestion_window: usize,
    slow_start_until: usize,
    duplicates: u32,
    /// While recovering from a loss: until when.
    recover: Option<u64>,
    retransmit_first: bool,

    /// The next number expected from the peer.
    expected: u64,
    incoming: VecDeque<u8>,
    early: BTreeMap<u64, Bytes>,
    peer_fin: Option<u64>,
    peer_finished: bool,
    advertised_until: u64,
    acknowledge: bool,
    /// What a peer acknowledged that never was sent: it gets a reset.
    stale: Option<u64>,

    rto_ns: u64,
    /// Smoothed round-trip time and its variation (RFC 6298).
    round_trip: Option<(u64, u64)>,
    /// A number whose acknowledgement measures the round trip, and when it was sent (Karn's algorithm).
    timed: Option<(u64, u64)>,
    transmissions: u32,
    timer_ns: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SynSent,
    SynReceived,
    Open,
    /// Both sides are done and everything is acknowledged; it stays to acknowledge a repeated FIN.
    Lingering,
    Closed,
}

/// What a read came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Read {
    /// So many bytes were read.
    Bytes(usize),
    /// The peer is done.
    End,
    /// Nothing yet.
    Wait,
    Failed(ErrorKind),
}

/// What a write came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Write {
    /// So many bytes were taken.
    Bytes(usize),
    /// The buffer is full.
    Wait,
    Failed(ErrorKind),
}

impl Connection {
    /// The end that connects. `first` is its initial sequence number.
    pub(crate) fn connect(local: SocketAddr, remote: SocketAddr, first: u32) -> Self {
        Self::new(local, remote, State::SynSent, first, 0)
    }

    /// The end that was connected to with `syn`.
    pub(crate) fn accept(local: SocketAddr, remote: SocketAddr, first: u32, syn: &Segment) -> Self {
        let mut connection = Self::new(local, remote, State::SynReceived, first, syn.seq + 1);
        connection.peer_window = syn.window;
        connection
    }

    fn new(local: SocketAddr, remote: SocketAddr, state: State, first: u32, expected: u64) -> Self {
        let first = u64::from(first);
        let max_segment = max_segment(&remote);
        Self {
            local,
            remote,
            max_segment,
            state,
            error: None,
            held: true,
            unacknowledged: first,
            next: first,
            highest: first,
            outgoing: VecDeque::new(),
            fin: None,
            peer_window: max_segment,
            congestion_window: FIRST_WINDOW * max_segment,
            slow_start_until: usize::MAX,
            duplicates: 0,
            recover: None,
            retransmit_first: false,
            expected,
            incoming: VecDeque::new(),
            early: BTreeMap::new(),
            peer_fin: None,
            peer_finished: false,
            advertised_until: 0,
            acknowledge: false,
            stale: None,
            rto_ns: FIRST_RTO_NS,
            round_trip: None,
            timed: None,
            transmissions: 0,
            timer_ns: None,
        }
    }

    /// Whether the handshake is over, or how it failed.
    pub(crate) fn connected(&self) -> Option<Result<(), ErrorKind>> {
        match (self.error, self.state) {
            (Some(error), _) => Some(Err(error)),
            (None, State::SynSent | State::SynReceived) => None,
            (None, _) => Some(Ok(())),
        }
    }

    /// Whether there is nothing left to do for it.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Closed && !self.held
    }

    /// When [`on_timer`](Self::on_timer) is due.
    pub(crate) fn timer_ns(&self) -> Option<u64> {
        self.timer_ns
    }

    // What the task does.

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Read {
        if !self.incoming.is_empty() {
            let count = buffer.len().min(self.incoming.len());
            for (to, from) in buffer.iter_mut().zip(self.incoming.drain(..count)) {
                *to = from;
            }
            // The peer may be waiting for a window that was too small to use.
            let reopened = self.expected + self.window() as u64;
            if self.state == State::Open && reopened >= self.advertised_until + (RECEIVE_BUFFER / 2) as u64 {
                self.acknowledge = true;
            }
            return Read::Bytes(count);
        }
        match self.error {
            Some(error) => Read::Failed(error),
            None if self.peer_finished || self.state == State::Closed => Read::End,
            None => Read::Wait,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Write {
        if let Some(error) = self.error {
            return Write::Failed(error);
        }
        if self.fin.is_some() || self.state == State::Closed {
            return Write::Failed(ErrorKind::BrokenPipe);
        }
        let count = bytes.len().min(SEND_BUFFER.saturating_sub(self.outgoing.len()));
        if count == 0 && !bytes.is_empty() {
            return Write::Wait;
        }
        self.outgoing.extend(&bytes[..count]);
        Write::Bytes(count)
    }

    /// No more will be written.
    pub(crate) fn shutdown(&mut self) {
        if self.fin.is_none() && self.state != State::Closed {
            let handshake = u64::from(matches!(self.state, State::SynSent | State::SynReceived));
            self.fin = Some(self.unacknowledged + handshake + self.outgoing.len() as u64);
        }
    }

    /// Whether its stream was not dropped.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// The stream was dropped. What was written is still delivered, unless something was left unread: then the peer
    /// gets the returned reset (RFC 9293, 3.6.1; RFC 2525, 2.17).
    pub(crate) fn release(&mut self, now_ns: u64) -> Option<Segment> {
        self.held = false;
        if self.state == State::SynSent {
            self.end(None);
        } else if !self.incoming.is_empty() && matches!(self.state, State::Open | State::SynReceived) {
            return Some(self.abort());
        } else {
            self.shutdown();
            if self.fin_is_acknowledged() && self.timer_ns.is_none() {
                self.timer_ns = Some(now_ns + LINGER_NS);
            }
        }
        None
    }

    /// Ends it at once; the reset is for the peer.
    pub(crate) fn abort(&mut self) -> Segment {
        let reset = Segment { reset: true, seq: self.next, ack: Some(self.expected), ..Segment::default() };
        self.end(Some(ErrorKind::ConnectionReset));
        reset
    }

    // What the network does.

    pub(crate) fn on_segment(&mut self, now_ns: u64, segment: &Segment) {
        if self.state == State::Closed {
            return;
        }
        if segment.reset {
            return self.on_reset(segment);
        }
        if self.state == State::SynSent {
            return self.on_syn_ack(now_ns, segment);
        }
        if segment.syn {
            // A repeated SYN or SYN-ACK: ours was lost. Say again what is expected, or send the SYN-ACK again.
            if self.state == State::SynReceived {
                self.next = self.unacknowledged;
            } else {
                self.acknowledge = true;
            }
            return;
        }
        if let Some(ack) = segment.ack {
            self.on_ack(now_ns, ack, segment);
        }
        if self.state != State::SynReceived {
            self.on_data(segment);
        }
        self.settle(now_ns);
    }

    fn on_reset(&mut self, segment: &Segment) {
        // In the window, or in answer to the SYN (RFC 9293, 3.10.7): nothing old may end a connection.
        let acceptable = match self.state {
            State::SynSent => segment.ack == Some(self.unacknowledged + 1),
            _ => (self.expected..=self.expected + RECEIVE_BUFFER as u64).contains(&segment.seq),
        };
        if acceptable {
            let refused = self.state == State::SynSent;
            self.end(Some(if refused { ErrorKind::ConnectionRefused } else { ErrorKind::ConnectionReset }));
        }
    }

    fn on_syn_ack(&mut self, now_ns: u64, segment: &Segment) {
        if segment.ack != Some(self.unacknowledged + 1) {
            // An answer to an earlier life of this address and port: end it there (RFC 9293, 3.5.1).
            self.stale = segment.ack;
            return;
        }
        if !segment.syn {
            return;
        }
        self.measure(now_ns, self.unacknowledged + 1);
        self.unacknowledged += 1;
        self.next = self.unacknowledged;
        self.highest = self.next;
        self.expected = segment.seq + 1;
        self.peer_window = segment.window;
        self.state = State::Open;
        self.transmissions = 0;
        self.timer_ns = None;
        self.acknowledge = true;
    }

    fn on_ack(&mut self, now_ns: u64, ack: u64, segment: &Segment) {
        if ack > self.highest {
            return;
        }
        if ack <= self.unacknowledged {
            let repeated = ack == self.unacknowledged
                && segment.length() == 0
                && segment.window == self.peer_window
                && self.highest > ack;
            if ack == self.unacknowledged {
                self.on_window(segment.window);
            }
            if repeated && self.state == State::Open {
                self.on_duplicate();
            }
            return;
        }
        self.measure(now_ns, ack);
        self.peer_window = segment.window;
        let mut gone = ack - self.unacknowledged;
        if self.state == State::SynReceived {
            self.state = State::Open;
            gone -= 1;
        }
        let bytes = usize::try_from(gone).unwrap_or(usize::MAX).min(self.outgoing.len());
        self.outgoing.drain(..bytes);
        self.unacknowledged = ack;
        self.next = self.next.max(ack);
        self.transmissions = 0;
        self.duplicates = 0;
        self.restore_rto();
        self.timer_ns = (self.highest > ack).then_some(now_ns + self.rto_ns);
        match self.recover {
            // A partial acknowledgement: the next hole is lost too (RFC 6582).
            Some(until) if ack < until => self.retransmit_first = true,
            Some(_) => {
                self.recover = None;
                self.congestion_window = self.slow_start_until;
            }
            None if self.congestion_window < self.slow_start_until => {
                self.congestion_window += bytes.min(self.max_segment);
            }
            None => self.congestion_window += (self.max_segment * self.max_segment / self.congestion_window).max(1),
        }
        self.congestion_window = self.congestion_window.min(SEND_BUFFER);
    }

    fn on_window(&mut self, window: usize) {
        if window == 0 {
            // It answers our probes, so it is alive.
            self.transmissions = 0;
        } else if self.peer_window <= 1 && self.state == State::Open {
            // It opens: the byte that we probed with was not taken.
            self.next = self.unacknowledged;
        }
        self.peer_window = window;
    }

    /// RFC 5681, 3.2: three duplicates tell of a loss.
    fn on_duplicate(&mut self) {
        self.duplicates += 1;
        if self.recover.is_some() {
            self.congestion_window += self.max_segment;
        } else if self.duplicates == 3 {
            self.halve();
            self.congestion_window = self.slow_start_until + 3 * self.max_segment;
            self.recover = Some(self.highest);
            self.retransmit_first = true;
        }
    }

    fn halve(&mut self) {
        let in_flight = usize::try_from(self.highest - self.unacknowledged).unwrap_or(usize::MAX);
        self.slow_start_until = (in_flight / 2).max(2 * self.max_segment);
    }

    fn on_data(&mut self, segment: &Segment) {
        if segment.length() == 0 {
            return;
        }
        self.acknowledge = true;
        let end = segment.seq + segment.payload.len() as u64;
        if segment.fin {
            self.peer_fin.get_or_insert(end);
        }
        if segment.seq > self.expected {
            let limit = self.expected + self.window() as u64;
            if end <= limit && !segment.payload.is_empty() {
                self.early.entry(segment.seq).or_insert_with(|| segment.payload.clone());
            }
        } else {
            self.take(segment.seq, &segment.payload);
            while let Some((seq, payload)) = self.early.first_key_value().map(|(seq, payload)| (*seq, payload.clone()))
                && seq <= self.expected
            {
                self.early.pop_first();
                self.take(seq, &payload);
            }
        }
        if self.peer_fin == Some(self.expected) && !self.peer_finished {
            self.peer_finished = true;
            self.expected += 1;
        }
    }

    /// Appends what is new of `payload`, as far as there is room.
    fn take(&mut self, seq: u64, payload: &[u8]) {
        let known = usize::try_from(self.expected - seq).unwrap_or(usize::MAX);
        if self.peer_finished || known >= payload.len() {
            return;
        }
        let fresh = &payload[known..];
        let room = RECEIVE_BUFFER.saturating_sub(self.incoming.len());
        let fresh = &fresh[..fresh.len().min(room)];
        // Nobody will read it: it counts as received, so that the peer gets to its FIN.
        if self.held {
            self.incoming.extend(fresh);
        }
        self.expected += fresh.len() as u64;
    }

    pub(crate) fn on_timer(&mut self, now_ns: u64) {
        if self.timer_ns.is_none_or(|due| due > now_ns) {
            return;
        }
        self.timer_ns = None;
        let handshake = matches!(self.state, State::SynSent | State::SynReceived);
        if self.state == State::Lingering || (self.fin_is_acknowledged() && !self.held) {
            return self.end(None);
        }
        if self.transmissions >= if handshake { MOST_SYNS } else { MOST_TRANSMISSIONS } {
            return self.end(Some(ErrorKind::TimedOut));
        }
        // RFC 6298, 5.4–5.6 and RFC 5681, 3.1: back off, and start again from the oldest.
        self.rto_ns = (self.rto_ns * 2).min(MOST_RTO_NS);
        self.timed = None;
        self.halve();
        self.congestion_window = self.max_segment;
        self.recover = None;
        self.duplicates = 0;
        self.next = self.unacknowledged;
        // A closed window is probed with a byte (RFC 9293, 3.8.6.1).
        self.peer_window = self.peer_window.max(1);
    }

    // What there is to send.

    /// The next segment to send now; to be called until there is none.
    pub(crate) fn poll_transmit(&mut self, now_ns: u64) -> Option<Segment> {
        if let Some(seq) = self.stale.take() {
            return Some(Segment { reset: true, seq, ..Segment::default() });
        }
        let segment = match self.state {
            State::Closed => return None,
            State::SynSent | State::SynReceived => self.handshake(now_ns)?,
            State::Lingering => std::mem::take(&mut self.acknowledge).then(|| self.segment(self.next, 0, false))?,
            State::Open => self.data(now_ns)?,
        };
        self.acknowledge = false;
        self.advertised_until = self.expected + segment.window as u64;
        Some(segment)
    }

    fn handshake(&mut self, now_ns: u64) -> Option<Segment> {
        if self.next != self.unacknowledged {
            return None;
        }
        self.next += 1;
        self.sent(now_ns, self.next);
        let ack = (self.state == State::SynReceived).then_some(self.expected);
        let seq = self.unacknowledged;
        Some(Segment { syn: true, seq, ack, window: self.window(), ..Segment::default() })
    }

    fn data(&mut self, now_ns: u64) -> Option<Segment> {
        if std::mem::take(&mut self.retransmit_first) && self.highest > self.unacknowledged {
            let (length, fin) = self.segment_at(self.unacknowledged, usize::MAX);
            self.timed = None;
            return Some(self.segment(self.unacknowledged, length, fin));
        }
        let in_flight = usize::try_from(self.next - self.unacknowledged).unwrap_or(usize::MAX);
        let window = self.peer_window.min(self.congestion_window).saturating_sub(in_flight);
        let (length, fin) = self.segment_at(self.next, window);
        if length > 0 || fin {
            let seq = self.next;
            self.next += length as u64 + u64::from(fin);
            self.sent(now_ns, self.next);
            return Some(self.segment(seq, length, fin));
        }
        let waiting = self.outgoing.len() > in_flight;
        if waiting && self.timer_ns.is_none() {
            self.timer_ns = Some(now_ns + self.rto_ns);
        }
        self.acknowledge.then(|| self.segment(self.next, 0, false))
    }

    /// How much data a segment from `seq` on can hold, and whether the FIN goes with it.
    fn segment_at(&self, seq: u64, window: usize) -> (usize, bool) {
        let offset = usize::try_from(seq - self.unacknowledged).unwrap_or(usize::MAX);
        let length = self.outgoing.len().saturating_sub(offset).min(self.max_segment).min(window);
        (length, self.fin == Some(seq + length as u64))
    }

    fn segment(&self, seq: u64, length: usize, fin: bool) -> Segment {
        let offset = usize::try_from(seq.saturating_sub(self.unacknowledged)).unwrap_or(0);
        let payload = self.outgoing.range(offset.min(self.outgoing.len())..).take(length).copied().collect();
        Segment { fin, seq, ack: Some(self.expected), window: self.window(), payload, ..Segment::default() }
    }

    /// Notes that everything up to `end` is now on its way.
    fn sent(&mut self, now_ns: u64, end: u64) {
        if end > self.highest {
            self.highest = end;
            self.timed.get_or_insert((end, now_ns));
        }
        if self.timer_ns.is_none() {
            self.timer_ns = Some(now_ns + self.rto_ns);
            self.transmissions += 1;
        }
    }

    /// How much the peer may send. What is out of order fits into it and is not counted twice.
    fn window(&self) -> usize {
        RECEIVE_BUFFER.saturating_sub(self.incoming.len())
    }

    // What follows.

    fn fin_is_acknowledged(&self) -> bool {
        self.fin.is_some_and(|fin| self.unacknowledged > fin)
    }

    /// Moves on where both sides are done.
    fn settle(&mut self, now_ns: u64) {
        if self.state == State::Open && self.fin_is_acknowledged() {
            if self.peer_finished {
                self.state = State::Lingering;
                self.timer_ns = Some(now_ns + LINGER_NS);
            } else if !self.held && self.timer_ns.is_none() {
                self.timer_ns = Some(now_ns + LINGER_NS);
            }
        }
    }

    fn end(&mut self, error: Option<ErrorKind>) {
        self.state = State::Closed;
        self.error = self.error.or(error);
        self.timer_ns = None;
        self.outgoing.clear();
        self.early.clear();
    }

    /// RFC 6298, 2.2–2.3.
    fn measure(&mut self, now_ns: u64, ack: u64) {
        let Some((number, sent_ns)) = self.timed else { return };
        if ack < number {
            return;
        }
        self.timed = None;
        let sample = now_ns.saturating_sub(sent_ns);
        self.round_trip = Some(match self.round_trip {
            None => (sample, sample / 2),
            Some((smoothed, variation)) => {
                ((7 * smoothed + sample) / 8, (3 * variation + smoothed.abs_diff(sample)) / 4)
            }
        });
        self.restore_rto();
    }

    fn restore_rto(&mut self) {
        self.rto_ns = match self.round_trip {
            None => FIRST_RTO_NS,
            Some((smoothed, variation)) => (smoothed + 4 * variation).clamp(LEAST_RTO_NS, MOST_RTO_NS),
        };
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
