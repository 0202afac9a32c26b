//! The sending half: cuts written bytes into packets, keeps them until acked, finds the lost ones.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::rtt::Rtt;
use super::seq::Seq;
use super::wire::acked_by;

/// How many packets may be unacked. Half of it is already more than 4 MiB of full packets; it must stay under what a
/// receiver of ours keeps ahead of a gap, and far under half of the number space. More waits in the send buffer.
pub(super) const MAX_PACKETS_OUT: usize = 8000;

/// How many packets sent later must have arrived for one to count as lost (RFC 5681's and BEP 29's three duplicates).
const REORDERING: usize = 3;

/// Written bytes and the packets they went out in.
#[derive(Debug)]
pub(super) struct Sender {
    /// Unacked bytes, then unsent ones.
    buffer: VecDeque<u8>,
    unsent: usize,
    capacity: usize,
    max_payload: usize,
    /// Unacked packets; the first has the number `first`, or the next one will.
    packets: VecDeque<Sent>,
    first: Seq,
    /// Where in the stream the buffer begins.
    acked_bytes: u64,
    in_flight: usize,
    /// How many packets are marked lost, and an index before which none is.
    lost: usize,
    lost_from: usize,
    /// Counts transmissions.
    order: u64,
    /// The highest orders known to have arrived, highest first.
    arrived: [u64; REORDERING],
    /// When the last sent of those that are known to have arrived was sent.
    arrived_sent_at: Option<Instant>,
    duplicates: u8,
    fin: Fin,
    peer_window: usize,
    /// One packet may go beyond the peer's window.
    probe: bool,
    /// One packet may go beyond the congestion window.
    ack_probe: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    Open,
    Wanted,
    Sent,
    Acked,
}

#[derive(Debug)]
struct Sent {
    at: u64,
    len: usize,
    fin: bool,
    sent_at: Instant,
    order: u64,
    times: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Lost,
    /// Acked selectively.
    Arrived,
}

/// What an ack brought.
#[derive(Debug, Default)]
pub(super) struct Acked {
    /// Bytes acked for the first time.
    pub(super) bytes: usize,
    /// Packets acked for the first time, selectively or not.
    pub(super) packets: usize,
    /// The round-trip time of the newest packet among them, if it was sent once.
    pub(super) rtt: Option<Duration>,
    /// Whether packets were found lost.
    pub(super) loss: bool,
    /// The longest payload among them.
    pub(super) longest: usize,
}

/// A packet that goes out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outgoing {
    index: usize,
    pub(super) seq: Seq,
    pub(super) len: usize,
    pub(super) fin: bool,
}

impl Sender {
    pub(super) fn new(first: Seq, capacity: usize, max_payload: usize) -> Self {
        Self {
            buffer: VecDeque::new(),
            unsent: 0,
            capacity,
            max_payload,
            packets: VecDeque::new(),
            first,
            acked_bytes: 0,
            in_flight: 0,
            lost: 0,
            lost_from: 0,
            order: 0,
            arrived: [0; REORDERING],
            arrived_sent_at: None,
            duplicates: 0,
            fin: Fin::Open,
            peer_window: 0,
            probe: false,
            ack_probe: false,
        }
    }

    /// Keeps as many bytes as there is room for; says how many.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.room());
        self.buffer.extend(&bytes[..len]);
        self.unsent += len;
        len
    }

    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.buffer.len())
    }

    /// Sends a FIN after all that was written.
    pub(super) fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Wanted;
        }
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.fin != Fin::Open
    }

    pub(super) fn is_finished(&self) -> bool {
        self.fin == Fin::Acked
    }

    /// Whether only the FIN is unacked.
    pub(super) fn awaits_only_fin(&self) -> bool {
        self.fin == Fin::Sent && self.packets.iter().all(|packet| packet.fin)
    }

    /// The number of the next new packet.
    pub(super) fn next_seq(&self) -> Seq {
        self.first + self.packets.len() as u16
    }

    pub(super) fn first_unacked(&self) -> Seq {
        self.first
    }

    pub(super) fn has_outstanding(&self) -> bool {
        !self.packets.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The payload of the packet that has waited longest for its ack, and how often it was sent.
    pub(super) fn oldest(&self) -> Option<(usize, u32)> {
        self.packets.front().map(|packet| (packet.len, packet.times))
    }

    /// Whether `ack` can be right: not ahead of what was sent, not from the distant past.
    pub(super) fn is_plausible(&self, ack: Seq) -> bool {
        let ahead = i32::from(ack.distance(self.first - 1));
        ahead <= self.packets.len() as i32 && ahead >= -(MAX_PACKETS_OUT as i32)
    }

    pub(super) fn set_peer_window(&mut self, bytes: usize) {
        self.peer_window = bytes;
    }

    /// Whether data waits, nothing is unacked, and the peer's window has no room: only a probe can find out more.
    pub(super) fn is_blocked_by_peer(&self) -> bool {
        self.unsent > 0 && self.packets.is_empty() && self.peer_window == 0 && !self.probe
    }

    /// Whether the peer holds us back by its window.
    pub(super) fn peer_window_is_closed(&self) -> bool {
        self.peer_window < self.max_payload
    }

    /// Lets one packet go beyond the peer's window.
    pub(super) fn probe(&mut self) {
        self.probe = true;
    }

    /// The next packet, if `congestion_window` and the peer's window let one go. Lost ones go first.
    pub(super) fn next(&self, congestion_window: usize) -> Option<Outgoing> {
        let fits = |len: usize| self.in_flight == 0 || self.ack_probe || self.in_flight + len <= congestion_window;
        if self.lost > 0 {
            let index = (self.lost_from..self.packets.len()).find(|i| self.packets[*i].state == State::Lost)?;
            let packet = &self.packets[index];
            return fits(packet.len).then_some(Outgoing {
                index,
                seq: self.first + index as u16,
                len: packet.len,
                fin: packet.fin,
            });
        }
        let index = self.packets.len();
        if index >= MAX_PACKETS_OUT {
            return None;
        }
        let seq = self.first + index as u16;
        if self.unsent == 0 {
            return (self.fin == Fin::Wanted).then_some(Outgoing { index, seq, len: 0, fin: true });
        }
        let mut len = self.unsent.min(self.max_payload);
        let outstanding = self.buffer.len() - self.unsent;
        let room = self.peer_window.saturating_sub(outstanding);
        if len > room && !self.probe {
            // Small rests of a window are worth a packet only when nothing else will move (RFC 9293, 3.8.6.2.1).
            if outstanding > 0 || room == 0 {
                return None;
            }
            len = room;
        }
        fits(len).then_some(Outgoing { index, seq, len, fin: false })
    }

    /// Appends the packet's payload to `out` and notes that it goes out now.
    pub(super) fn send(&mut self, now: Instant, packet: Outgoing, out: &mut Vec<u8>) {
        self.order += 1;
        if packet.index == self.packets.len() {
            let at = self.acked_bytes + (self.buffer.len() - self.unsent) as u64;
            self.packets.push_back(Sent {
                at,
                len: packet.len,
                fin: packet.fin,
                sent_at: now,
                order: self.order,
                times: 1,
                state: State::InFlight,
            });
            self.unsent -= packet.len;
            self.probe = false;
            if packet.fin {
                self.fin = Fin::Sent;
            }
        } else {
            let sent = &mut self.packets[packet.index];
            debug_assert_eq!(sent.state, State::Lost, "only lost packets are sent again");
            sent.state = State::InFlight;
            sent.sent_at = now;
            sent.order = self.order;
            sent.times += 1;
            self.lost -= 1;
            self.lost_from = packet.index + 1;
        }
        self.in_flight += packet.len;
        self.ack_probe = false;
        let start = (self.packets[packet.index].at - self.acked_bytes) as usize;
        let (front, back) = self.buffer.as_slices();
        let end = start + packet.len;
        if end <= front.len() {
            out.extend_from_slice(&front[start..end]);
        } else if start >= front.len() {
            out.extend_from_slice(&back[start - front.len()..end - front.len()]);
        } else {
            out.extend_from_slice(&front[start..]);
            out.extend_from_slice(&back[..end - front.len()]);
        }
    }

    /// Takes an ack that [is plausible](Self::is_plausible). `pure` says that the packet had no payload, so that a
    /// repetition counts as a duplicate ack.
    pub(super) fn on_ack(&mut self, now: Instant, ack: Seq, sack: Option<&[u8]>, pure: bool, rtt: &Rtt) -> Acked {
        let least_rtt = rtt.least();
        let mut acked = Acked::default();
        let ahead = ack.distance(self.first - 1);
        if ahead < 0 {
            return acked;
        }
        let mut newest = 0;
        let mut done = 0;
        for _ in 0..ahead {
            let Some(packet) = self.packets.pop_front() else { break };
            done += packet.len;
            if packet.fin {
                self.fin = Fin::Acked;
            }
            self.arrive(now, packet.state, packet.summary(), least_rtt, &mut newest, &mut acked);
            self.lost_from = self.lost_from.saturating_sub(1);
        }
        self.buffer.drain(..done);
        self.acked_bytes += done as u64;
        self.first = ack + 1;
        if ahead > 0 {
            self.duplicates = 0;
        }
        if let Some(mask) = sack {
            for seq in acked_by(ack, mask) {
                let Some(packet) = self.packets.get_mut(seq.distance(self.first).max(0) as usize) else { break };
                if packet.state == State::Arrived {
                    continue;
                }
                let before = std::mem::replace(&mut packet.state, State::Arrived);
                let summary = packet.summary();
                self.arrive(now, before, summary, least_rtt, &mut newest, &mut acked);
            }
        } else if ahead == 0 && pure {
            self.on_duplicate(&mut acked);
        }
        self.find_lost(now, rtt, &mut acked);
        acked
    }

    fn arrive(
        &mut self,
        now: Instant,
        before: State,
        (len, sent_at, order, times): (usize, Instant, u64, u32),
        least_rtt: Duration,
        newest: &mut u64,
        acked: &mut Acked,
    ) {
        match before {
            State::Arrived => return,
            State::InFlight => self.in_flight -= len,
            State::Lost => self.lost -= 1,
        }
        acked.bytes += len;
        acked.packets += 1;
        acked.longest = acked.longest.max(len);
        let rtt = now.saturating_duration_since(sent_at);
        // The newest of them brought the ack. Older ones may have waited for an ack that was lost.
        if order > *newest {
            *newest = order;
            acked.rtt = (times == 1).then_some(rtt);
        }
        // RFC 8985, 6.2: an ack that comes sooner after a retransmission than any round trip is the original's.
        if times == 1 || rtt >= least_rtt {
            self.arrived_sent_at = self.arrived_sent_at.max(Some(sent_at));
            let mut order = order;
            for slot in &mut self.arrived {
                if order > *slot {
                    std::mem::swap(slot, &mut order);
                }
            }
        }
    }

    /// The third repetition of an ack without a selective one: the peer misses the first packet.
    fn on_duplicate(&mut self, acked: &mut Acked) {
        let Some(first) = self.packets.front_mut() else { return };
        self.duplicates = self.duplicates.saturating_add(1);
        if usize::from(self.duplicates) == REORDERING && first.state == State::InFlight {
            first.state = State::Lost;
            self.in_flight -= first.len;
            self.lost += 1;
            self.lost_from = 0;
            acked.loss = true;
        }
    }

    /// Marks the packets that three later transmissions have overtaken, or one that was sent a round trip later.
    ///
    /// Those overtaken are given the time that round trips vary by before they count as lost, as RFC 8985, 6.2 has it:
    /// on a path with jitter packets overtake each other all the time.
    fn find_lost(&mut self, now: Instant, rtt: &Rtt, acked: &mut Acked) {
        let outdated = self.arrived_sent_at.zip(rtt.smoothed()).and_then(|(at, rtt)| at.checked_sub(rtt));
        let overtaken_by = self.arrived[REORDERING - 1];
        let patience = rtt.patience();
        for (index, packet) in self.packets.iter_mut().enumerate() {
            let overtaken = packet.order < overtaken_by && now.saturating_duration_since(packet.sent_at) >= patience;
            if !overtaken && outdated.is_none_or(|outdated| packet.sent_at >= outdated) {
                // All after a packet that was sent once were sent after it.
                if packet.times == 1 {
                    break;
                }
                continue;
            }
            if packet.state == State::InFlight {
                packet.state = State::Lost;
                self.in_flight -= packet.len;
                self.lost += 1;
                self.lost_from = self.lost_from.min(index);
                acked.loss = true;
            }
        }
    }

    /// Has the first unacked packet sent again, to draw an ack that tells which others are missing: all that were sent
    /// a round trip before it are.
    ///
    /// RFC 8985, 7.3 sends the last one instead. Its ack would have to tell of everything before it; libutp's selective
    /// ack only tells of the 32 packets after the first that is missing.
    pub(super) fn probe_ack(&mut self) {
        let Some(first) = self.packets.front_mut() else { return };
        if first.state == State::InFlight {
            first.state = State::Lost;
            self.in_flight -= first.len;
            self.lost += 1;
        }
        self.lost_from = 0;
        // RFC 8985, 7.3: what is in flight may be lost without a sign, and then never makes room.
        self.ack_probe = true;
    }

    /// The retransmission timer expired: everything that has not arrived counts as lost.
    pub(super) fn on_timeout(&mut self) {
        for packet in self.packets.iter_mut().filter(|packet| packet.state == State::InFlight) {
            packet.state = State::Lost;
            self.lost += 1;
        }
        self.in_flight = 0;
        self.lost_from = 0;
        self.duplicates = 0;
    }

    /// Forgets everything: the connection has ended.
    pub(super) fn clear(&mut self) {
        self.buffer = VecDeque::new();
        self.packets = VecDeque::new();
        self.unsent = 0;
        self.in_flight = 0;
        self.lost = 0;
        self.lost_from = 0;
    }
}

impl Sent {
    fn summary(&self) -> (usize, Instant, u64, u32) {
        (self.len, self.sent_at, self.order, self.times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: usize = 1000;

    /// Five packets out at once.
    fn five_out(now: Instant) -> Sender {
        let mut sender = Sender::new(Seq(0), 100 * PAYLOAD, PAYLOAD);
        sender.set_peer_window(usize::MAX);
        sender.write(&[0; 10 * PAYLOAD]);
        while let Some(packet) = sender.next(5 * PAYLOAD) {
            sender.send(now, packet, &mut Vec::new());
        }
        assert_eq!((sender.in_flight(), sender.next_seq()), (5 * PAYLOAD, Seq(5)));
        sender
    }

    #[test]
    fn rfc8985_a_probe_is_the_first_unacked_packet_and_heeds_no_congestion_window() {
        let now = tokio::time::Instant::now().into_std();
        let mut sender = five_out(now);
        for _ in 0..2 {
            assert_eq!(sender.next(2 * PAYLOAD), None, "what is in flight fills the window that a loss has halved");
            sender.probe_ack();
            let probe = sender.next(2 * PAYLOAD).expect("a probe");
            assert_eq!((probe.seq, probe.len), (Seq(0), PAYLOAD));
            sender.send(now, probe, &mut Vec::new());
            assert_eq!(sender.in_flight(), 5 * PAYLOAD);
        }
        let mut rtt = Rtt::default();
        rtt.sample(Duration::from_millis(1));
        let later = now + Duration::from_millis(20);
        sender.probe_ack();
        sender.send(later, sender.next(2 * PAYLOAD).expect("a probe"), &mut Vec::new());
        // The ack of the probe alone, as from a peer whose selective ack tells nothing.
        let acked = sender.on_ack(later + Duration::from_millis(1), Seq(0), None, true, &rtt);
        assert!(acked.loss, "those sent a round trip before it are lost");
        assert_eq!(sender.next(2 * PAYLOAD).map(|packet| packet.seq), Some(Seq(1)));
    }
}
