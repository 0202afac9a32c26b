//! One µTP connection as a state machine: no socket, task, clock or random numbers of its own.
//!
//! Its driver calls [`Connection::handle_packet`], [`Connection::handle_timeout`], and the reader's and writer's
//! methods; then [`Connection::transmit`] until it gives nothing, and asks for the [`Connection::next_timeout`].

use std::time::{Duration, Instant};

use thiserror::Error;

use super::config::Config;
use super::congestion::{Congestion, Ledbat};
use super::receiver::Receiver;
use super::rtt::Rtt;
use super::sender::Sender;
use super::seq::Seq;
use super::wire::{HEADER_LEN, Kind, Packet};

/// When a SYN is sent again for the first time; then the pause doubles. libutp waits 3 s: too long to punch a hole.
const SYN_RETRY: Duration = Duration::from_millis(250);

/// How long after its connection was last heard of a SYN is a new one.
const SYN_LIFETIME: Duration = Duration::from_secs(5);

/// How often an initiator that has nothing to send repeats that it is connected, until it hears from the acceptor.
const CONFIRMATIONS: u32 = 4;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer did not answer in time.
    #[error("UTP_ETIMEDOUT: the peer did not answer in time")]
    TimedOut,
    /// The peer says that the connection is gone.
    #[error("UTP_ECONNRESET: the peer reset the connection")]
    Reset,
    /// This side reset the connection, or closed its endpoint.
    #[error("UTP_ECONNABORTED: the connection was ended on this side")]
    Aborted,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A SYN was sent and not answered.
    SynSent,
    /// A SYN was answered; the initiator has not shown yet that it got the answer.
    SynReceived,
    Connected,
    Closed,
}

/// Something to do at a moment, if one is set.
type Timer = Option<Instant>;

/// One µTP connection.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    state: State,
    initiator: bool,
    receive_id: u16,
    send_id: u16,
    sender: Sender,
    receiver: Receiver,
    rtt: Rtt,
    congestion: Box<dyn Congestion>,
    /// The clock's zero for timestamps.
    epoch: Instant,
    /// The delay of the peer's last packet, to tell the peer.
    peer_delay: u32,
    peer_window: usize,
    /// When the last packet came, or the connection began.
    last_heard: Instant,
    /// The number in the SYN or SYN-ACK, for repeating it.
    first_seq: Seq,
    /// What is owed to the peer, besides data.
    owed: Owed,
    /// How many SYNs, or confirmations as an initiator, were sent.
    handshakes: u32,
    handshake_timer: Timer,
    connect_deadline: Timer,
    retransmission_timer: Timer,
    /// When the peer is given up, if nothing is acked until then.
    stall_deadline: Timer,
    keep_alive_timer: Timer,
    idle_deadline: Timer,
    linger_deadline: Timer,
    /// A zero window was waited for long enough to try one packet.
    probe_window: bool,
    /// The congestion window, and nothing else, held back what was sent last.
    limited: bool,
    /// The user is gone: nothing is read any more.
    abandoned: bool,
    error: Option<ConnectionError>,
    sack: Vec<u8>,
}

/// Packets without data that are to be sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Owed {
    handshake: bool,
    ack: bool,
    keep_alive: bool,
    reset: bool,
}

impl Connection {
    /// A connection that this side asks for. `receive_id` is what the peer will put into its packets, `seq` the first
    /// number, `epoch` the zero of timestamps.
    pub fn connect(now: Instant, config: Config, receive_id: u16, seq: Seq, epoch: Instant) -> Self {
        let mut connection =
            Self::new(now, config, true, [receive_id, receive_id.wrapping_add(1)], seq, Seq(0), epoch);
        connection.sender = Sender::new(seq + 1, connection.config.send_buffer);
        connection.handshake_timer = Some(now + SYN_RETRY);
        connection
    }

    /// The connection that a peer's SYN asks for; `None` where the packet is none.
    pub fn accept(now: Instant, config: Config, syn: &Packet<'_>, seq: Seq, epoch: Instant) -> Option<Self> {
        if syn.kind != Kind::Syn {
            return None;
        }
        let ids = [syn.id.wrapping_add(1), syn.id];
        let mut connection = Self::new(now, config, false, ids, seq, syn.seq, epoch);
        connection.note_header(now, syn);
        Some(connection)
    }

    fn new(
        now: Instant,
        config: Config,
        initiator: bool,
        [receive_id, send_id]: [u16; 2],
        seq: Seq,
        ack: Seq,
        epoch: Instant,
    ) -> Self {
        Self {
            state: if initiator { State::SynSent } else { State::SynReceived },
            initiator,
            receive_id,
            send_id,
            sender: Sender::new(seq, config.send_buffer),
            receiver: Receiver::new(ack, config.receive_window),
            rtt: Rtt::default(),
            congestion: Box::new(Ledbat::new(config.max_datagram - HEADER_LEN)),
            epoch,
            peer_delay: 0,
            peer_window: config.max_datagram,
            last_heard: now,
            first_seq: seq,
            owed: Owed { handshake: true, ..Owed::default() },
            handshakes: 1,
            handshake_timer: None,
            connect_deadline: Some(now + config.connect_timeout),
            retransmission_timer: None,
            stall_deadline: None,
            keep_alive_timer: None,
            idle_deadline: config.idle_timeout.map(|timeout| now + timeout),
            linger_deadline: None,
            probe_window: false,
            limited: false,
            abandoned: false,
            error: None,
            sack: Vec::new(),
            config,
        }
    }

    /// The id in packets to this side.
    pub fn receive_id(&self) -> u16 {
        self.receive_id
    }

    /// The id in packets to the peer.
    pub fn send_id(&self) -> u16 {
        self.send_id
    }

    /// Whether this side sent the SYN.
    pub fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// Whether both sides know that they are connected, and neither has ended it.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether it is over: nothing will be sent or received any more. A reset that is owed is still to be transmitted.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Why it is over, where it did not end in order.
    pub fn error(&self) -> Option<ConnectionError> {
        self.error
    }

    /// Whether a SYN with this connection's id comes from a peer that has started anew, rather than from the network's
    /// depths: libutp's numbers are not random, so that a new process begins with those of the last one.
    pub fn is_superseded(&self, now: Instant) -> bool {
        self.state == State::Connected && now.saturating_duration_since(self.last_heard) > SYN_LIFETIME
    }

    /// Takes what was written, as much as there is room for; how many bytes.
    pub fn write(&mut self, data: &[u8]) -> usize {
        if self.state == State::Closed { 0 } else { self.sender.write(data) }
    }

    /// How many bytes [`write`](Self::write) would take.
    pub fn writable(&self) -> usize {
        if self.state == State::Closed { 0 } else { self.sender.room() }
    }

    /// Whether everything that was written is acked.
    pub fn is_flushed(&self) -> bool {
        self.sender.is_flushed()
    }

    /// Gives what arrived in order; how many bytes.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let read = self.receiver.read(into);
        if self.receiver.wants_update() && self.state == State::Connected {
            self.owed.ack = true;
        }
        read
    }

    /// How many bytes [`read`](Self::read) would give.
    pub fn readable(&self) -> usize {
        self.receiver.readable()
    }

    /// Whether an ack, or the news of an open window, is to be transmitted.
    pub fn owes_ack(&self) -> bool {
        self.owed.ack
    }

    /// Whether the peer sends nothing more, and everything was read.
    pub fn is_at_end(&self) -> bool {
        self.receiver.readable() == 0 && (self.receiver.is_finished() || self.state == State::Closed)
    }

    /// After what was written comes the FIN; reading goes on (half-close).
    pub fn finish(&mut self) {
        self.sender.finish();
    }

    /// Whether writing is over: a FIN is asked for or sent.
    pub fn is_finishing(&self) -> bool {
        self.sender.is_finishing()
    }

    /// Whether the peer has acked the FIN.
    pub fn is_finished(&self) -> bool {
        self.sender.is_finished()
    }

    /// The user is gone: what was written is still delivered, what arrives is thrown away.
    pub fn abandon(&mut self, now: Instant) {
        self.abandoned = true;
        self.receiver.discard();
        if self.state == State::SynSent {
            self.close(None);
        } else {
            self.sender.finish();
            // However slowly the peer reads: it does not hold this connection for ever.
            self.linger_deadline = Some(now + self.config.stall_timeout * 2);
            self.consider_lingering(now);
        }
    }

    /// Ends the connection now; the peer gets a RESET.
    pub fn abort(&mut self) {
        if self.state != State::Closed {
            self.owed.reset = self.state != State::SynSent;
            self.close(Some(ConnectionError::Aborted));
        }
    }

    /// Takes a packet that carries this connection's id.
    pub fn handle_packet(&mut self, now: Instant, packet: &Packet<'_>) {
        if self.state == State::Closed {
            return;
        }
        match packet.kind {
            Kind::Reset => self.close(Some(ConnectionError::Reset)),
            Kind::Syn => {
                // The SYN-ACK was lost. Once the initiator has shown itself, a SYN is an old one.
                if self.state == State::SynReceived {
                    self.owed.handshake = true;
                }
            }
            Kind::State if self.state == State::SynSent => self.on_syn_ack(now, packet),
            // Data before the SYN-ACK cannot be placed: its first number is not known. It comes again.
            _ if self.state == State::SynSent => {}
            Kind::Data | Kind::Fin | Kind::State => self.on_packet(now, packet),
        }
    }

    /// The SYN-ACK does not consume its number: the acceptor's first DATA has it too.
    fn on_syn_ack(&mut self, now: Instant, packet: &Packet<'_>) {
        if packet.ack != self.first_seq {
            return;
        }
        self.receiver = Receiver::new(packet.seq - 1, self.config.receive_window);
        if self.handshakes == 1 {
            self.rtt.sample(now.saturating_duration_since(self.last_heard));
        }
        self.note_header(now, packet);
        self.establish(now);
        self.owed.ack = true;
        self.handshakes = 0;
        self.handshake_timer = Some(now + self.rtt.rto());
    }

    fn establish(&mut self, now: Instant) {
        self.state = State::Connected;
        self.owed.handshake = false;
        self.handshake_timer = None;
        self.connect_deadline = None;
        self.keep_alive_timer = self.config.keep_alive.map(|every| now + every);
    }

    fn on_packet(&mut self, now: Instant, packet: &Packet<'_>) {
        let reordering = self.rtt.smoothed().unwrap_or_default() / 4;
        let limited = self.limited || self.sender.in_flight() + self.config.max_datagram > self.congestion.window();
        let bare = packet.kind == Kind::State;
        let Ok(acked) = self.sender.on_ack(now, packet.ack, packet.sack, bare, reordering) else { return };
        self.note_header(now, packet);
        if self.state == State::SynReceived {
            self.establish(now);
        } else if self.initiator {
            // The acceptor speaks: it knows.
            self.handshake_timer = None;
        }
        if let Some(rtt) = acked.rtt {
            self.rtt.sample(rtt);
        }
        if acked.bytes > 0 {
            let delay = (packet.delay != 0).then_some(packet.delay);
            self.congestion.on_ack(now, acked.bytes, delay, limited);
        }
        if acked.loss {
            self.congestion.on_loss(now, self.rtt.smoothed().unwrap_or_default());
        }
        if acked.progress {
            self.rtt.reset_backoff();
            self.restart_retransmission(now);
        }
        // A peer that answers with a closed window is slow, not gone.
        if (acked.progress || self.peer_window == 0) && self.stall_deadline.is_some() {
            self.stall_deadline = self.retransmission_timer.map(|_| now + self.config.stall_timeout);
        }
        match packet.kind {
            Kind::Data => {
                self.receiver.take(packet.seq, Some(packet.payload));
                self.owed.ack = true;
            }
            Kind::Fin => {
                self.receiver.take(packet.seq, None);
                self.owed.ack = true;
            }
            _ => {}
        }
        if self.abandoned {
            self.receiver.discard();
        }
        self.consider_lingering(now);
    }

    fn note_header(&mut self, now: Instant, packet: &Packet<'_>) {
        self.last_heard = now;
        self.peer_window = packet.window as usize;
        self.peer_delay = if packet.timestamp == 0 { 0 } else { self.timestamp(now).wrapping_sub(packet.timestamp) };
        self.idle_deadline = self.config.idle_timeout.map(|timeout| now + timeout);
    }

    /// Once our FIN is acked and nobody reads, the connection only waits: for the peer's FIN, or for the ack of that
    /// FIN to have arrived.
    fn consider_lingering(&mut self, now: Instant) {
        if !self.abandoned || !self.sender.is_finished() || self.state != State::Connected {
            return;
        }
        let linger = if self.receiver.is_finished() { self.rtt.rto() * 2 } else { self.config.linger };
        let deadline = now + linger;
        self.linger_deadline = Some(self.linger_deadline.map_or(deadline, |old| old.min(deadline)));
        self.keep_alive_timer = None;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        [
            self.retransmission_timer,
            self.stall_deadline,
            self.keep_alive_timer,
            self.idle_deadline,
            self.handshake_timer,
            self.connect_deadline,
            self.linger_deadline,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |timer: Timer| timer.is_some_and(|at| at <= now);
        if self.state == State::Closed {
            return;
        }
        if due(self.connect_deadline) || due(self.stall_deadline) || due(self.idle_deadline) {
            return self.close(Some(ConnectionError::TimedOut));
        }
        if due(self.linger_deadline) {
            return self.close(None);
        }
        if due(self.handshake_timer) {
            self.repeat_handshake(now);
        }
        if due(self.retransmission_timer) {
            self.on_retransmission_timeout(now);
        }
        if due(self.keep_alive_timer) {
            self.owed.keep_alive = true;
            self.keep_alive_timer = self.config.keep_alive.map(|every| now + every);
        }
    }

    fn repeat_handshake(&mut self, now: Instant) {
        if self.state == State::SynSent {
            self.owed.handshake = true;
            self.handshake_timer = Some(now + SYN_RETRY * 2_u32.pow(self.handshakes.min(8)));
            self.handshakes += 1;
        } else {
            self.owed.ack = true;
            self.handshakes += 1;
            let again = self.handshakes < CONFIRMATIONS;
            self.handshake_timer = again.then(|| now + self.rtt.rto() * 2_u32.pow(self.handshakes));
        }
    }

    fn on_retransmission_timeout(&mut self, now: Instant) {
        self.retransmission_timer = None;
        if self.sender.in_flight() > 0 || self.sender.is_outstanding() {
            self.sender.on_timeout();
            self.congestion.on_timeout(now);
        }
        // Also with nothing in flight: the peer's window is closed, and its update may have been lost.
        self.probe_window = true;
        self.rtt.back_off();
        self.restart_retransmission(now);
    }

    /// RFC 6298, 5.1 to 5.3: the timer runs while something waits for an ack, or for the window to open.
    fn restart_retransmission(&mut self, now: Instant) {
        let waits = self.sender.is_outstanding() || self.sender.has_new();
        self.retransmission_timer = waits.then(|| now + self.rtt.rto());
    }

    fn close(&mut self, error: Option<ConnectionError>) {
        self.state = State::Closed;
        self.error = error;
        self.owed = Owed { reset: self.owed.reset, ..Owed::default() };
        self.retransmission_timer = None;
        self.stall_deadline = None;
        self.keep_alive_timer = None;
        self.idle_deadline = None;
        self.handshake_timer = None;
        self.connect_deadline = None;
        self.linger_deadline = None;
    }

    /// Appends up to `most` datagrams to `out`, all of the same size but for the last, which may be shorter; gives
    /// that size, or `None` where there is nothing to send.
    pub fn transmit(&mut self, now: Instant, out: &mut Vec<u8>, most: usize) -> Option<usize> {
        let began = out.len();
        if self.owed.reset {
            self.owed.reset = false;
            self.put(now, Kind::Reset, self.sender.next_seq(), self.receiver.ack(), out);
        } else if self.owed.handshake {
            self.owed.handshake = false;
            let (kind, ack) =
                if self.initiator { (Kind::Syn, Seq(0)) } else { (Kind::State, self.receiver.ack()) };
            self.put(now, kind, self.first_seq, ack, out);
        } else if self.state == State::Connected {
            if let Some(size) = self.transmit_data(now, out, most) {
                return Some(size);
            }
            if self.owed.ack {
                self.put(now, Kind::State, self.sender.next_seq(), self.receiver.ack(), out);
            } else if self.owed.keep_alive {
                // As libutp: an ack of the number before, which every peer ignores.
                self.put(now, Kind::State, self.sender.next_seq(), self.receiver.ack() - 1, out);
            }
        }
        (out.len() > began).then_some(out.len() - began)
    }

    /// Data and FIN: lost ones first, then new ones, as far as the windows allow.
    fn transmit_data(&mut self, now: Instant, out: &mut Vec<u8>, most: usize) -> Option<usize> {
        let began = out.len();
        let mut size = None;
        for _ in 0..most {
            let Some(next) = self.sender.next(self.config.max_datagram - HEADER_LEN) else { break };
            let total = out.len() - began;
            let fits = size.is_none_or(|size: usize| total.is_multiple_of(size) && HEADER_LEN + next.len <= size);
            if !fits || !self.may_send(next.len) {
                break;
            }
            let kind = if next.fin { Kind::Fin } else { Kind::Data };
            self.put(now, kind, next.seq, self.receiver.ack(), out);
            self.sender.copy(&next, out);
            size.get_or_insert(HEADER_LEN + next.len);
            self.sender.sent(now, &next);
            self.probe_window = false;
            if self.retransmission_timer.is_none() {
                self.restart_retransmission(now);
            }
            if self.stall_deadline.is_none() {
                self.stall_deadline = Some(now + self.config.stall_timeout);
            }
        }
        if size.is_none() && self.retransmission_timer.is_none() && self.sender.has_new() {
            self.restart_retransmission(now);
            self.stall_deadline.get_or_insert(now + self.config.stall_timeout);
        }
        size
    }

    fn may_send(&mut self, len: usize) -> bool {
        let in_flight = self.sender.in_flight();
        let after = in_flight + len;
        self.limited = after > self.congestion.window();
        if in_flight == 0 {
            // At least one packet is always allowed, unless the peer has no room and was not asked for a while.
            return len <= self.peer_window || self.probe_window || len == 0;
        }
        !self.limited && after <= self.peer_window
    }

    /// Appends a packet's header, with the ack that goes along.
    fn put(&mut self, now: Instant, kind: Kind, seq: Seq, ack: Seq, out: &mut Vec<u8>) {
        let mut sack = std::mem::take(&mut self.sack);
        sack.clear();
        if kind == Kind::State && self.state == State::Connected {
            self.receiver.selective_ack(&mut sack);
        }
        let (timestamp, delay, window) = match kind {
            Kind::Reset => (0, 0, 0),
            _ => (self.timestamp(now), self.peer_delay, self.receiver.advertise()),
        };
        let id = if kind == Kind::Syn { self.receive_id } else { self.send_id };
        let sack_bits = (!sack.is_empty()).then_some(sack.as_slice());
        Packet { kind, id, timestamp, delay, window, seq, ack, sack: sack_bits, payload: &[] }.encode(out);
        self.sack = sack;
        // A selective ack travels in a STATE of its own, so that all DATA have the same size.
        self.owed.ack &= kind != Kind::State && self.receiver.has_gap();
        self.owed.keep_alive = false;
        if self.keep_alive_timer.is_some() {
            self.keep_alive_timer = self.config.keep_alive.map(|every| now + every);
        }
    }

    /// Microseconds; zero is kept for "no timestamp".
    fn timestamp(&self, now: Instant) -> u32 {
        (now.saturating_duration_since(self.epoch).as_micros() as u32).max(1)
    }
}
