//! The sending half of a connection: what was written, what is in flight, what was lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::seq::Seq;

/// The most packets that are out at a time: far from half the sequence numbers, where old and new cannot be told apart.
const MAX_OUTSTANDING: usize = 16_384;

/// RFC 5681, 3.2: how many later packets must have arrived before one counts as lost.
const DUPLICATE_THRESHOLD: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    InFlight,
    /// To be sent again.
    Lost,
    /// By a selective ack.
    Arrived,
}

/// A packet that consumed a sequence number and is not acked yet.
#[derive(Debug)]
struct Segment {
    /// Where its data begins in the stream.
    offset: u64,
    len: usize,
    fin: bool,
    sent_at: Instant,
    transmissions: u32,
    fate: Fate,
}

/// What to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) seq: Seq,
    pub(super) len: usize,
    pub(super) fin: bool,
    /// Where the data is, for [`Sender::copy`].
    offset: u64,
}

/// What an ack brought.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Acked {
    /// Bytes that are known to have arrived since.
    pub(super) bytes: usize,
    /// Whether the cumulative ack moved.
    pub(super) progress: bool,
    /// A round-trip time, from packets that were sent once (Karn's algorithm, RFC 6298, 3).
    pub(super) rtt: Option<Duration>,
    /// Whether packets were found lost.
    pub(super) loss: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct AckOutOfRange;

#[derive(Debug)]
pub(super) struct Sender {
    /// The number of the next new packet.
    next: Seq,
    segments: VecDeque<Segment>,
    /// Unacked data, then data that was never sent.
    buffer: VecDeque<u8>,
    /// Where the buffer begins in the stream.
    base: u64,
    /// Where the data that was never sent begins in the stream.
    unsent: u64,
    in_flight: usize,
    /// Segments whose fate is `Lost`.
    lost: usize,
    duplicate_acks: u32,
    fin: Fin,
    capacity: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    Open,
    Asked,
    Sent,
}

impl Sender {
    pub(super) fn new(next: Seq, capacity: usize) -> Self {
        Self {
            next,
            segments: VecDeque::new(),
            buffer: VecDeque::new(),
            base: 0,
            unsent: 0,
            in_flight: 0,
            lost: 0,
            duplicate_acks: 0,
            fin: Fin::Open,
            capacity,
        }
    }

    /// Takes as much as there is room for; how many bytes.
    pub(super) fn write(&mut self, data: &[u8]) -> usize {
        let len = data.len().min(self.room());
        self.buffer.extend(&data[..len]);
        len
    }

    pub(super) fn room(&self) -> usize {
        if self.fin == Fin::Open { self.capacity - self.buffer.len() } else { 0 }
    }

    /// After what was written, nothing more will be.
    pub(super) fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Asked;
        }
    }

    /// Whether [`finish`](Self::finish) was called.
    pub(super) fn is_finishing(&self) -> bool {
        self.fin != Fin::Open
    }

    /// Whether the FIN and all before it is acked.
    pub(super) fn is_finished(&self) -> bool {
        self.fin == Fin::Sent && self.segments.is_empty()
    }

    /// Whether all that was written is acked.
    pub(super) fn is_flushed(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn next_seq(&self) -> Seq {
        self.next
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether something waits for an ack, be it in flight or lost.
    pub(super) fn is_outstanding(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Whether something was never sent.
    pub(super) fn has_new(&self) -> bool {
        self.unsent_len() > 0 || self.fin == Fin::Asked
    }

    /// The next packet to send, lost ones first, of at most `most` bytes of data; `None` where there is nothing.
    pub(super) fn next(&self, most: usize) -> Option<Next> {
        if self.lost > 0
            && let Some(index) = self.segments.iter().position(|segment| segment.fate == Fate::Lost)
        {
            let Segment { offset, len, fin, .. } = self.segments[index];
            return Some(Next { seq: self.first() + index as u16, len, fin, offset });
        }
        let len = self.unsent_len().min(most);
        let fin = len == 0 && self.fin == Fin::Asked;
        let ready = (len > 0 || fin) && self.segments.len() < MAX_OUTSTANDING;
        ready.then_some(Next { seq: self.next, len, fin, offset: self.unsent })
    }

    /// Appends a packet's data.
    pub(super) fn copy(&self, next: &Next, out: &mut Vec<u8>) {
        let start = (next.offset - self.base) as usize;
        let end = start + next.len;
        let (first, second) = self.buffer.as_slices();
        if start < first.len() {
            out.extend_from_slice(&first[start..end.min(first.len())]);
        }
        if end > first.len() {
            out.extend_from_slice(&second[start.saturating_sub(first.len())..end - first.len()]);
        }
    }

    /// The packet that [`next`](Self::next) gave is on its way.
    pub(super) fn sent(&mut self, now: Instant, next: &Next) {
        self.in_flight += next.len;
        if next.seq == self.next {
            self.next = self.next + 1;
            self.unsent += next.len as u64;
            if next.fin {
                self.fin = Fin::Sent;
            }
            self.segments.push_back(Segment {
                offset: next.offset,
                len: next.len,
                fin: next.fin,
                sent_at: now,
                transmissions: 1,
                fate: Fate::InFlight,
            });
        } else {
            let index = usize::from(next.seq.0.wrapping_sub(self.first().0));
            let segment = &mut self.segments[index];
            segment.fate = Fate::InFlight;
            segment.sent_at = now;
            segment.transmissions += 1;
            self.lost -= 1;
        }
    }

    /// Takes an ack. `bare` says that the packet had no payload, so that repeating an ack means something.
    ///
    /// # Errors
    /// Where it acks what was never sent: the packet is not this connection's.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        ack: Seq,
        sack: Option<&[u8]>,
        bare: bool,
        reordering: Duration,
    ) -> Result<Acked, AckOutOfRange> {
        let count = ack.distance(self.first() - 1);
        let mut acked = Acked::default();
        let Ok(count) = usize::try_from(count) else { return Ok(acked) };
        if count > self.segments.len() {
            return Err(AckOutOfRange);
        }
        let mut latest_sent = None;
        for _ in 0..count {
            let Some(segment) = self.segments.pop_front() else { break };
            self.settle(&segment.fate, segment.len);
            segment.note_arrival(now, &mut acked, &mut latest_sent);
            self.buffer.drain(..segment.len);
            self.base += segment.len as u64;
        }
        acked.progress = count > 0;
        self.mark_arrived(now, sack.unwrap_or_default(), &mut acked, &mut latest_sent);
        if acked.progress {
            self.duplicate_acks = 0;
        } else if bare && sack.is_none() && !self.segments.is_empty() {
            self.duplicate_acks += 1;
        }
        acked.loss = self.mark_lost(latest_sent, reordering);
        Ok(acked)
    }

    /// Every packet in flight counts as lost (RFC 6298, 5.4: the first is sent again, the others follow as acks come).
    pub(super) fn on_timeout(&mut self) {
        self.duplicate_acks = 0;
        for segment in &mut self.segments {
            if segment.fate == Fate::InFlight {
                segment.fate = Fate::Lost;
                self.lost += 1;
            }
        }
        self.in_flight = 0;
    }

    /// Takes a segment with this fate out of the counts.
    fn settle(&mut self, fate: &Fate, len: usize) {
        match fate {
            Fate::InFlight => self.in_flight -= len,
            Fate::Lost => self.lost -= 1,
            Fate::Arrived => {}
        }
    }

    /// BEP 29, selective ack: bit i is `ack + 2 + i`, and the first segment is `ack + 1`.
    fn mark_arrived(&mut self, now: Instant, sack: &[u8], acked: &mut Acked, latest_sent: &mut Option<Instant>) {
        let bits = sack.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        for (i, _) in bits.enumerate().filter(|(_, arrived)| *arrived) {
            let Some(segment) = self.segments.get_mut(i + 1) else { break };
            if segment.fate != Fate::Arrived {
                segment.note_arrival(now, acked, latest_sent);
                let fate = std::mem::replace(&mut segment.fate, Fate::Arrived);
                let len = segment.len;
                self.settle(&fate, len);
            }
        }
    }

    /// Finds what was lost: three later packets arrived, or one that was sent later than the retransmission by more
    /// than `reordering` (RFC 8985's rule, which also finds lost retransmissions).
    fn mark_lost(&mut self, latest_sent: Option<Instant>, reordering: Duration) -> bool {
        let mut later_arrived = 0;
        let mut any = false;
        let highest = self.segments.iter().rposition(|segment| segment.fate == Fate::Arrived).unwrap_or(0);
        for (i, segment) in self.segments.iter_mut().enumerate().take(highest + 1).rev() {
            if segment.fate == Fate::Arrived {
                later_arrived += 1;
            } else if segment.fate == Fate::InFlight {
                let lost = if segment.transmissions == 1 {
                    let duplicates = if i == 0 { self.duplicate_acks } else { 0 };
                    later_arrived.max(duplicates) >= DUPLICATE_THRESHOLD
                } else {
                    latest_sent.is_some_and(|latest| latest > segment.sent_at + reordering)
                };
                if lost {
                    segment.fate = Fate::Lost;
                    self.in_flight -= segment.len;
                    self.lost += 1;
                    any = true;
                }
            }
        }
        any
    }

    /// The number of the first unacked packet.
    fn first(&self) -> Seq {
        self.next - self.segments.len() as u16
    }

    fn unsent_len(&self) -> usize {
        self.buffer.len() - (self.unsent - self.base) as usize
    }
}

impl Segment {
    fn note_arrival(&self, now: Instant, acked: &mut Acked, latest_sent: &mut Option<Instant>) {
        if self.fate == Fate::Arrived {
            return;
        }
        acked.bytes += self.len;
        if self.transmissions == 1 {
            acked.rtt = Some(now.saturating_duration_since(self.sent_at));
        }
        *latest_sent = (*latest_sent).max(Some(self.sent_at));
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs some moment to start from")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A sender with `count` packets of one byte in flight, the first numbered 65,534.
    fn with_in_flight(now: Instant, count: usize) -> Sender {
        let mut sender = Sender::new(Seq(65_534), 1000);
        sender.write(&vec![7; count]);
        while let Some(next) = sender.next(1) {
            sender.sent(now, &next);
        }
        sender
    }

    #[test]
    fn acks_across_the_wrap_free_the_buffer() {
        let now = Instant::now();
        let mut sender = with_in_flight(now, 4);
        let acked = sender.on_ack(now + MS, Seq(0), None, true, MS).expect("in range");
        assert_eq!((acked.bytes, acked.rtt, sender.in_flight()), (3, Some(MS), 1));
        assert_eq!(sender.on_ack(now, Seq(2), None, true, MS), Err(AckOutOfRange));
        assert_eq!(sender.on_ack(now, Seq(65_000), None, true, MS), Ok(Acked::default()), "old");
        assert!(sender.on_ack(now, Seq(1), None, true, MS).is_ok() && sender.is_flushed());
    }

    /// RFC 5681, 3.2: two are not enough, three are.
    #[test]
    fn three_later_arrivals_mean_a_loss() {
        let now = Instant::now();
        let mut sender = with_in_flight(now, 5);
        let two = sender.on_ack(now, Seq(65_533), Some(&[0b0011, 0, 0, 0]), true, MS).expect("in range");
        assert!(!two.loss && sender.next(1).is_none());
        let three = sender.on_ack(now, Seq(65_533), Some(&[0b0111, 0, 0, 0]), true, MS).expect("in range");
        assert!(three.loss);
        assert_eq!(sender.next(1).map(|next| next.seq), Some(Seq(65_534)));
    }

    #[test]
    fn three_repeated_acks_mean_a_loss() {
        let now = Instant::now();
        let mut sender = with_in_flight(now, 5);
        let losses: Vec<bool> =
            (0..3).map(|_| sender.on_ack(now, Seq(65_533), None, true, MS).expect("in range").loss).collect();
        assert_eq!(losses, [false, false, true]);
    }

    /// RFC 8985, 6.2: what was sent after a retransmission has arrived, so that the retransmission is lost too.
    #[test]
    fn a_lost_retransmission_is_found() {
        let now = Instant::now();
        let mut sender = with_in_flight(now, 4);
        sender.on_ack(now, Seq(65_533), Some(&[0b0111, 0, 0, 0]), true, MS).expect("in range");
        let again = sender.next(1).expect("the lost one");
        sender.sent(now + 5 * MS, &again);
        sender.write(b"x");
        let new = sender.next(1).expect("a new one");
        sender.sent(now + 7 * MS, &new);
        let acked = sender.on_ack(now + 9 * MS, Seq(65_533), Some(&[0b1111, 0, 0, 0]), true, MS).expect("in range");
        assert!(acked.loss);
        assert_eq!(sender.next(1).map(|next| next.seq), Some(Seq(65_534)));
    }

    #[test]
    fn a_fin_comes_last_and_once() {
        let now = Instant::now();
        let mut sender = Sender::new(Seq(1), 10);
        sender.write(b"ab");
        sender.finish();
        assert_eq!(sender.write(b"c"), 0);
        let data = sender.next(10).expect("data");
        sender.sent(now, &data);
        let fin = sender.next(10).expect("the FIN");
        assert!(fin.fin && fin.seq == Seq(2) && !data.fin);
        sender.sent(now, &fin);
        assert_eq!(sender.next(10), None);
        sender.on_ack(now, Seq(2), None, true, MS).expect("in range");
        assert!(sender.is_finished());
    }
}
