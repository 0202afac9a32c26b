//! What a connection makes of the packets that arrive.

use std::time::{Duration, Instant};

use super::config::MIN_DATAGRAM;
use super::congestion::Ack;
use super::connection::{CONFIRM_RETRY, Connection, Event, Phase};
use super::error::Error;
use super::receive::{Receiver, Taken};
use super::wire::{Kind, Repr};

/// A longer round trip by the timestamps is taken for nonsense, as peers without a clock would send.
const MAX_ECHOED_ROUND_TRIP: Duration = Duration::from_secs(15);

/// How many packets are acked one by one, even those of one batch, from one on that was out of order, filled a gap or had
/// come before (RFC 5681, 4.2 asks for an ack of each of these; Linux's TCP goes on with the next 16 too). One ack for
/// a batch tells a sender that recovers as much, but is lost as a whole, and swallows the duplicates that others count.
const QUICK_ACKS: u32 = 16;

impl Connection {
    /// Takes a packet of this connection.
    pub fn handle_datagram(&mut self, now: Instant, packet: &Repr<'_>) {
        match (self.phase, packet.kind) {
            (Phase::Closed, _) => {}
            (_, Kind::Reset) => self.on_reset(now),
            (_, Kind::Syn) => self.on_syn(now, packet),
            (Phase::SynSent { sent, .. }, kind) => {
                // Only the SYN-ACK tells where the peer's numbers begin: anything that overtakes it is sent again.
                if kind == Kind::State && packet.ack == self.syn_seq {
                    self.on_syn_ack(now, packet, sent);
                }
            }
            _ => self.on_packet(now, packet),
        }
    }

    fn on_syn_ack(&mut self, now: Instant, packet: &Repr<'_>, sent: u32) {
        if sent == 1 {
            self.rtt.sample(now.saturating_duration_since(self.last_sent));
        }
        // A SYN-ACK takes no number: the acceptor's first DATA has the same one, as libutp does it.
        self.receiver = Receiver::new(packet.seq, self.config.receive_window);
        self.syn_ack_seq = packet.seq;
        self.pending.syn = false;
        // An acceptor of ours hands the connection over when it hears from us again; to others it is harmless.
        self.pending.ack = true;
        self.establish();
        self.on_packet(now, packet);
        self.confirm_at = Some(now + CONFIRM_RETRY);
    }

    fn establish(&mut self) {
        self.phase = Phase::Established;
        self.established = true;
        self.tell(Event::Connected);
        self.tell(Event::Writable);
    }

    /// BEP 29 says nothing of a second SYN. A duplicate is answered again, since the answer may have been lost.
    fn on_syn(&mut self, now: Instant, packet: &Repr<'_>) {
        if self.initiator || packet.seq != self.syn_seq {
            return;
        }
        if let Phase::SynReceived { .. } = self.phase {
            self.note_timestamp(now, packet);
            self.credit += packet.len();
            self.pending.syn_ack = true;
        }
    }

    fn on_reset(&mut self, now: Instant) {
        // The peer may have forgotten the connection after its FIN was acked, before ours arrived.
        let complete = self.receiver.is_finished() && (self.sender.is_finished() || self.sender.awaits_only_fin());
        if complete && self.error.is_none() {
            self.last_received = now;
            self.tell(Event::Finished);
            self.close(None);
        } else if self.orphan_until.is_some() && self.sender.is_finished() {
            self.close(None);
        } else {
            self.close(Some(Error::Reset));
        }
    }

    fn on_packet(&mut self, now: Instant, packet: &Repr<'_>) {
        // BEP 29: an ack of what was never sent, or from the distant past, marks a packet that is not ours.
        if !self.sender.is_plausible(packet.ack) {
            return;
        }
        if let Phase::SynReceived { .. } = self.phase {
            // Nothing of ours was sent that could be acked: any other number is a guess, and proves no address.
            if packet.ack != self.syn_ack_seq - 1 {
                return;
            }
            self.pending.syn_ack = false;
            self.establish();
        }
        self.last_received = now;
        self.note_timestamp(now, packet);
        self.on_ack(now, packet);
        match packet.kind {
            Kind::Data | Kind::Fin => {
                self.confirm_at = None;
                let had_gap = self.receiver.has_gap();
                let taken = self.receiver.take(packet.seq, packet.payload, packet.kind == Kind::Fin);
                self.quick_acks = match taken {
                    Taken::Noted => QUICK_ACKS,
                    Taken::InOrder if had_gap => QUICK_ACKS,
                    _ => self.quick_acks.saturating_sub(1),
                };
                match taken {
                    Taken::Ignored => {}
                    Taken::InOrder => {
                        self.pending.ack = true;
                        if self.receiver.is_readable() {
                            self.tell(Event::Readable);
                        }
                    }
                    Taken::Noted | Taken::Full => self.pending.ack = true,
                }
            }
            _ => self.on_repeated_syn_ack(packet),
        }
        self.check_end(now);
    }

    /// The SYN was repeated, or the acceptor repeats its SYN-ACK by itself, as others may: our first packet was lost.
    fn on_repeated_syn_ack(&mut self, packet: &Repr<'_>) {
        let repeated = packet.ack == self.syn_seq && packet.seq == self.syn_ack_seq;
        if !repeated {
            self.confirm_at = None;
        }
        if self.initiator && repeated && self.receiver.is_untouched() && self.sender.first_unacked() == self.syn_seq + 1
        {
            self.pending.ack = true;
        }
    }

    fn on_ack(&mut self, now: Instant, packet: &Repr<'_>) {
        let newer = self.window_stamp.is_none_or(|stamp| packet.timestamp.wrapping_sub(stamp).cast_signed() >= 0);
        if packet.ack.distance(self.sender.first_unacked() - 1) > 0
            || packet.ack == self.sender.first_unacked() - 1 && newer
        {
            self.window_stamp = Some(packet.timestamp);
            self.sender.set_peer_window(packet.window as usize);
        }
        if packet.window > 0 {
            self.probe_at = None;
            self.probes = 0;
        }
        if !self.sender.has_outstanding() {
            return;
        }
        // A peer that says that it has no room is alive.
        if self.sender.peer_window_is_closed() {
            self.stalled_since = now;
        }
        let in_flight = self.sender.in_flight();
        let pure = packet.kind == Kind::State;
        let sack = packet.extensions.selective_ack();
        let acked = self.sender.on_ack(now, packet.ack, sack, pure, &self.rtt);
        if acked.packets > 0 {
            let echoed = self.echoed_round_trip(packet);
            if let Some(rtt) = acked.rtt.into_iter().chain(echoed).min() {
                self.rtt.sample(rtt);
            }
        }
        if acked.longest > MIN_DATAGRAM {
            self.large_arrived = true;
        }
        if acked.packets > 0 {
            self.stalled_since = now;
            self.rtt.progress();
            // RFC 6298, 5.2 and 5.3.
            self.retransmit_at = None;
            self.probe_ack_at = None;
            self.ack_probes = 0;
            if self.sender.has_outstanding() {
                self.arm_retransmission(now);
            }
            let delay = (packet.timestamp_difference != 0).then_some(packet.timestamp_difference);
            self.congestion.on_ack(&Ack { now, bytes: acked.bytes, in_flight, one_way_delay: delay });
            if self.sender.room() > 0 {
                self.tell(Event::Writable);
            }
        }
        if acked.loss {
            self.congestion.on_loss(now, self.rtt.smoothed().unwrap_or_default());
        }
        if self.sender.is_finished() {
            self.tell(Event::Finished);
        }
    }

    pub(super) fn note_timestamp(&mut self, now: Instant, packet: &Repr<'_>) {
        if packet.timestamp != 0 {
            self.reply_delay = self.timestamp(now).wrapping_sub(packet.timestamp);
        }
    }

    /// The round trip by the timestamps: the peer's packets' delay to us and ours to it, in whose sum the clocks'
    /// offset cancels. Unlike the time since a packet was sent, it does not grow by lost acks, and holds for packets
    /// that were sent again (as RFC 7323, 4 has it for TCP).
    fn echoed_round_trip(&self, packet: &Repr<'_>) -> Option<Duration> {
        if packet.timestamp == 0 || packet.timestamp_difference == 0 {
            return None;
        }
        let rtt = Duration::from_micros(self.reply_delay.wrapping_add(packet.timestamp_difference).into());
        (rtt <= MAX_ECHOED_ROUND_TRIP).then_some(rtt)
    }
}
