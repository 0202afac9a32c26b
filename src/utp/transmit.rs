//! A connection's timers and the packets that it sends.

use std::time::{Duration, Instant};

use super::connection::{
    CONFIRM_RETRY, CONFIRMATIONS, Connection, Event, Phase, SYN_ACK_RETRY, SYN_RETRY, SYNS_BEFORE_REDIAL,
};
use super::seq::Seq;
use super::wire::{Extensions, HEADER_LEN, Kind, Repr};

/// The longest pause between probes of a closed window: libutp's.
const MAX_PROBE_PAUSE: Duration = Duration::from_secs(15);

/// How many probes for an ack there are before the retransmission timer has its turn. RFC 8985, 7.2 has one: over a path
/// that loses a tenth, a packet, its retransmission and the probe are lost together so often that the timer, at least
/// 500 ms, is most of the time that a transfer takes.
const MAX_ACK_PROBES: u32 = 3;

/// How much one [`Connection::poll_transmit`] may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// How many datagrams.
    pub datagrams: usize,
    /// How many bytes altogether; one datagram may always go.
    pub bytes: usize,
}

impl Batch {
    /// One datagram at a time.
    pub const SINGLE: Batch = Batch { datagrams: 1, bytes: usize::MAX };
}

/// What [`Connection::poll_transmit`] has appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// How many datagrams.
    pub datagrams: usize,
    /// The size of each; the last may be shorter.
    pub segment_size: usize,
}

impl Connection {
    /// When [`handle_timeout`](Self::handle_timeout) is due. May be in the past.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let connect_by = self.began + self.config.connect_timeout;
        match self.phase {
            Phase::Closed => None,
            Phase::TimeWait { until } => Some(until),
            Phase::SynSent { retry_at, .. } | Phase::SynReceived { retry_at, .. } => Some(retry_at.min(connect_by)),
            Phase::Established => [
                self.retransmit_at,
                self.probe_ack_at,
                self.give_up_at(),
                self.probe_at,
                self.confirm_at,
                self.keep_alive_at(),
                self.config.idle_timeout.map(|timeout| self.last_received + timeout),
                self.orphan_until,
            ]
            .into_iter()
            .flatten()
            .min(),
        }
    }

    fn keep_alive_at(&self) -> Option<Instant> {
        self.config.keep_alive.map(|interval| self.last_sent + interval)
    }

    fn give_up_at(&self) -> Option<Instant> {
        self.sender.has_outstanding().then(|| self.stalled_since + self.config.give_up_after)
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let connect_by = self.began + self.config.connect_timeout;
        match self.phase {
            Phase::Closed => {}
            Phase::TimeWait { until } => {
                if until <= now {
                    self.close(None);
                }
            }
            Phase::SynSent { sent, retry_at } => {
                if connect_by <= now {
                    self.time_out();
                } else if retry_at <= now {
                    self.pending.syn = true;
                    if sent > 0 && sent % SYNS_BEFORE_REDIAL == 0 {
                        self.tell(Event::Redial);
                    }
                }
            }
            Phase::SynReceived { retry_at, .. } => {
                if connect_by <= now {
                    self.time_out();
                } else if retry_at <= now {
                    self.pending.syn_ack = true;
                }
            }
            Phase::Established => {
                if due(self.give_up_at()) || due(self.config.idle_timeout.map(|timeout| self.last_received + timeout)) {
                    return self.time_out();
                }
                if due(self.orphan_until) {
                    return self.reset();
                }
                if due(self.retransmit_at) {
                    self.congestion.on_timeout(now, self.sender.in_flight());
                    self.sender.on_timeout();
                    self.rtt.back_off();
                    // Armed again when the first of the lost packets goes out.
                    self.retransmit_at = None;
                    self.probe_ack_at = None;
                } else if due(self.probe_ack_at) {
                    self.sender.probe_ack();
                    self.probe_ack_at = None;
                    self.ack_probes += 1;
                }
                if due(self.probe_at) {
                    self.probe_at = None;
                    self.sender.probe();
                }
                if due(self.confirm_at) {
                    self.confirmed += 1;
                    let again = self.confirmed < CONFIRMATIONS && !self.sender.has_outstanding();
                    self.confirm_at = again.then(|| now + CONFIRM_RETRY * (1 << self.confirmed));
                    // What is unacked is sent again by itself.
                    self.pending.ack |= !self.sender.has_outstanding();
                }
                if due(self.keep_alive_at()) {
                    self.pending.keep_alive = true;
                }
            }
        }
    }

    /// Appends datagrams to `out`: several of the same size, the last maybe shorter, up to `batch`. Call until it
    /// gives `None`.
    pub fn poll_transmit(&mut self, now: Instant, batch: Batch, out: &mut Vec<u8>) -> Option<Transmit> {
        if self.pending.reset {
            self.pending.reset = false;
            let seq = self.sender.next_seq();
            return Some(self.single(now, Repr::reset(self.send_id, seq, self.receiver.ack()), out));
        }
        match self.phase {
            Phase::Closed => None,
            Phase::SynSent { sent, .. } => {
                if !std::mem::take(&mut self.pending.syn) {
                    return None;
                }
                let retry_at = now + SYN_RETRY * (1 << sent.min(16));
                self.phase = Phase::SynSent { sent: sent + 1, retry_at };
                // The SYN carries the id that we receive with; there is no delay and no number to report yet.
                let packet = Repr {
                    connection_id: self.receive_id,
                    seq: self.syn_seq,
                    ack: Seq(0),
                    timestamp_difference: 0,
                    ..self.header(now, Kind::Syn)
                };
                Some(self.single(now, packet, out))
            }
            Phase::SynReceived { sent, .. } => {
                if !std::mem::take(&mut self.pending.syn_ack) {
                    return None;
                }
                let retry_at = now + SYN_ACK_RETRY * (1 << sent.min(16));
                self.phase = Phase::SynReceived { sent: sent + 1, retry_at };
                // The address may be forged. A SYN pays for one SYN-ACK, so that repeating it is the initiator's part.
                self.credit = self.credit.checked_sub(HEADER_LEN)?;
                let packet = Repr { seq: self.syn_ack_seq, ..self.header(now, Kind::State) };
                Some(self.single(now, packet, out))
            }
            Phase::Established => self.transmit_packets(now, batch, out).or_else(|| self.transmit_state(now, out)),
            Phase::TimeWait { .. } => self.transmit_state(now, out),
        }
    }

    /// Appends the ack that the packet just taken should have by itself, where there is loss: to be asked for after
    /// each packet of a batch. `None` where one ack for all of them will do, which [`poll_transmit`](Self::poll_transmit)
    /// gives.
    pub fn poll_ack(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Transmit> {
        let due = self.phase == Phase::Established && self.quick_acks > 0 && self.pending.ack;
        if due { self.transmit_state(now, out) } else { None }
    }

    /// DATA and FIN. They carry the ack along, but not a selective one: so every full packet has the same size.
    fn transmit_packets(&mut self, now: Instant, batch: Batch, out: &mut Vec<u8>) -> Option<Transmit> {
        let mut segment_size = 0;
        let mut datagrams = 0;
        let begin = out.len();
        while datagrams < batch.datagrams.max(1) {
            let Some(packet) = self.sender.next(self.congestion.window()) else { break };
            let size = HEADER_LEN + packet.len;
            if datagrams == 0 {
                segment_size = size;
            } else if size > segment_size || out.len() - begin + size > batch.bytes {
                break;
            }
            if !self.sender.has_outstanding() {
                self.stalled_since = now;
            }
            let kind = if packet.fin { Kind::Fin } else { Kind::Data };
            Repr { seq: packet.seq, ..self.header(now, kind) }.encode_header(out);
            self.sender.send(now, packet, out);
            datagrams += 1;
            if size < segment_size {
                break;
            }
        }
        if datagrams == 0 {
            if self.sender.is_blocked_by_peer() && self.probe_at.is_none() {
                let pause = (self.rtt.timeout() * (1 << self.probes.min(8))).min(MAX_PROBE_PAUSE);
                self.probes += 1;
                self.probe_at = Some(now + pause);
            }
            return None;
        }
        self.arm_retransmission(now);
        self.last_sent = now;
        self.pending.keep_alive = false;
        if !self.receiver.has_gap() {
            self.pending.ack = false;
        }
        Some(Transmit { datagrams, segment_size })
    }

    /// RFC 6298, 5.1: the timer runs from the first packet out. RFC 8985, 7.2: the probe's from the last. Each probe
    /// waits twice as long as the one before.
    pub(super) fn arm_retransmission(&mut self, now: Instant) {
        self.retransmit_at.get_or_insert_with(|| now + self.rtt.timeout());
        if self.ack_probes < MAX_ACK_PROBES {
            self.probe_ack_at = self.rtt.probe_timeout().map(|timeout| now + timeout * (1 << self.ack_probes));
        }
    }

    fn transmit_state(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Transmit> {
        let keep_alive = std::mem::take(&mut self.pending.keep_alive);
        if std::mem::take(&mut self.pending.ack) {
            let sack = self.receiver.selective_ack();
            let header = self.header(now, Kind::State);
            let extensions = sack.as_ref().map_or(Extensions::NONE, |sack| sack.extensions());
            return Some(self.single(now, Repr { extensions, ..header }, out));
        }
        if keep_alive {
            // libutp's keep-alive: acks one packet less, so that it does not count as a duplicate ack.
            let header = self.header(now, Kind::State);
            return Some(self.single(now, Repr { ack: header.ack - 1, ..header }, out));
        }
        None
    }

    fn header(&mut self, now: Instant, kind: Kind) -> Repr<'static> {
        Repr {
            kind,
            connection_id: self.send_id,
            timestamp: self.timestamp(now),
            timestamp_difference: self.reply_delay,
            window: self.receiver.advertise(),
            seq: self.sender.next_seq(),
            ack: self.receiver.ack(),
            extensions: Extensions::NONE,
            payload: &[],
        }
    }

    fn single(&mut self, now: Instant, packet: Repr<'_>, out: &mut Vec<u8>) -> Transmit {
        self.last_sent = now;
        packet.encode(out);
        Transmit { datagrams: 1, segment_size: packet.len() }
    }
}
