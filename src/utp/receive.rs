//! The receiving half: puts packets in order, keeps bytes for the reader, says what to ack.

use std::collections::{BTreeMap, VecDeque};

use super::seq::Seq;
use super::wire::SelectiveAck;

/// How far ahead of the next expected packet one may be; farther ones are dropped without an ack. Well under half of
/// the number space, so that ahead and behind stay apart, and more than a window of full packets.
const MAX_AHEAD: i16 = 8192;

/// Received bytes and packets.
#[derive(Debug)]
pub(super) struct Receiver {
    /// The next expected packet's number, and how many were received in order before it.
    next: Seq,
    index: u64,
    readable: VecDeque<u8>,
    /// Packets after a gap, by index.
    early: BTreeMap<u64, Vec<u8>>,
    early_bytes: usize,
    fin_at: Option<u64>,
    finished: bool,
    capacity: usize,
    /// The window as the peer was told last, less what has arrived since.
    advertised: usize,
    discarding: bool,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It, and perhaps others after it, can be read.
    InOrder,
    /// It is kept until the gap before it is filled, or it was there already: both are acked.
    Noted,
    /// There is no room: acked as not received, so that the peer hears of the window.
    Full,
    /// It is out of all bounds.
    Ignored,
}

impl Receiver {
    pub(super) fn new(next: Seq, capacity: usize) -> Self {
        Self {
            next,
            index: 0,
            readable: VecDeque::new(),
            early: BTreeMap::new(),
            early_bytes: 0,
            fin_at: None,
            finished: false,
            capacity,
            advertised: capacity,
            discarding: false,
        }
    }

    /// The number to ack: the last one before a gap.
    pub(super) fn ack(&self) -> Seq {
        self.next - 1
    }

    /// Whether nothing has come from the peer yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.index == 0 && self.early.is_empty()
    }

    /// Whether everything up to the peer's FIN has arrived.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(super) fn has_gap(&self) -> bool {
        !self.early.is_empty()
    }

    pub(super) fn is_readable(&self) -> bool {
        !self.readable.is_empty() || self.finished
    }

    /// The window to tell: what is unread counts against it, what waits behind a gap does not, since the sender
    /// counts those bytes itself as being beyond what was acked.
    pub(super) fn window(&self) -> usize {
        self.capacity.saturating_sub(self.readable.len())
    }

    /// Notes that the peer is being told the window, and returns it.
    pub(super) fn advertise(&mut self) -> u32 {
        self.advertised = self.window();
        u32::try_from(self.advertised).unwrap_or(u32::MAX)
    }

    /// Whether the window has opened so much that the peer should hear of it unasked. A quarter of it, so that a
    /// slow reader does not cause an update a byte (RFC 9293, 3.8.6.2.2).
    pub(super) fn wants_update(&self) -> bool {
        !self.finished && self.window().saturating_sub(self.advertised) >= (self.capacity / 4).max(1)
    }

    /// Makes room for more. `true` where the peer has so little left that it should hear of it unasked.
    pub(super) fn grow(&mut self, capacity: usize) -> bool {
        let pressed = self.advertised < self.capacity / 2;
        let grown = capacity > self.capacity;
        self.capacity = self.capacity.max(capacity);
        grown && pressed
    }

    /// Throws away what was received and all that will be: there is no reader any more.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
        self.readable = VecDeque::new();
    }

    /// Copies bytes out; 0 where there is nothing, or nothing any more.
    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let len = out.len().min(self.readable.len());
        let (front, back) = self.readable.as_slices();
        let from_front = len.min(front.len());
        out[..from_front].copy_from_slice(&front[..from_front]);
        out[from_front..len].copy_from_slice(&back[..len - from_front]);
        self.readable.drain(..len);
        len
    }

    /// Takes a DATA packet, or a FIN where `fin`.
    pub(super) fn take(&mut self, seq: Seq, payload: &[u8], fin: bool) -> Taken {
        let ahead = seq.distance(self.next);
        if ahead < 0 {
            return Taken::Noted;
        }
        if ahead >= MAX_AHEAD {
            return Taken::Ignored;
        }
        let index = self.index + u64::from(ahead.unsigned_abs());
        // Nothing comes after a FIN, and there is only one.
        if self.fin_at.is_some_and(|at| index > at || fin && index != at) {
            return Taken::Ignored;
        }
        // A peer may probe a closed window with a packet (libutp does so every 15 s): up to twice the window is kept.
        // Early packets must not keep out the one that fills the gap before them.
        let kept = self.readable.len() + if ahead > 0 { self.early_bytes } else { 0 };
        if kept + payload.len() > 2 * self.capacity {
            return Taken::Full;
        }
        if fin {
            self.fin_at = Some(index);
            let beyond = self.early.split_off(&(index + 1));
            self.early_bytes -= beyond.values().map(Vec::len).sum::<usize>();
        }
        if ahead > 0 {
            if !self.early.contains_key(&index) {
                self.early_bytes += payload.len();
                self.early.insert(index, payload.to_vec());
            }
            return Taken::Noted;
        }
        self.append(payload);
        while let Some(first) = self.early.first_entry() {
            if *first.key() != self.index {
                break;
            }
            let payload = first.remove();
            self.early_bytes -= payload.len();
            self.append(&payload);
        }
        Taken::InOrder
    }

    fn append(&mut self, payload: &[u8]) {
        if !self.discarding {
            self.readable.extend(payload);
            self.advertised = self.advertised.saturating_sub(payload.len());
        }
        self.finished = self.fin_at == Some(self.index);
        self.next = self.next + 1;
        self.index += 1;
    }

    /// What has arrived behind the gap. BEP 29: the first bit stands for the packet after the missing one.
    pub(super) fn selective_ack(&self) -> Option<SelectiveAck> {
        self.has_gap().then(|| SelectiveAck::new(self.early.keys().map(|index| (index - self.index - 1) as usize)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::utp::wire::acked_by;

    fn read_all(receiver: &mut Receiver) -> Vec<u8> {
        let mut out = vec![0; 4096];
        let len = receiver.read(&mut out);
        out.truncate(len);
        out
    }

    #[test]
    fn fills_gaps_across_the_wrap() {
        let mut receiver = Receiver::new(Seq(0xffff), 1000);
        assert_eq!(receiver.take(Seq(1), b"c", false), Taken::Noted);
        assert_eq!(receiver.take(Seq(0), b"b", false), Taken::Noted);
        assert_eq!(receiver.take(Seq(0), b"x", false), Taken::Noted, "a duplicate changes nothing");
        let sack = receiver.selective_ack().unwrap();
        let mask = sack.extensions().selective_ack().unwrap();
        assert_eq!(acked_by(receiver.ack(), mask).collect::<Vec<_>>(), [Seq(0), Seq(1)]);
        assert_eq!(receiver.take(Seq(0xffff), b"a", false), Taken::InOrder);
        assert_eq!(read_all(&mut receiver), b"abc");
        assert_eq!(receiver.ack(), Seq(1));
        assert!(receiver.selective_ack().is_none());
        assert_eq!(receiver.take(Seq(0xffff), b"a", false), Taken::Noted, "an old duplicate is acked again");
        assert_eq!(read_all(&mut receiver), b"");
    }

    #[test]
    fn a_fin_counts_in_order_and_nothing_comes_after_it() {
        let mut receiver = Receiver::new(Seq(5), 1000);
        assert_eq!(receiver.take(Seq(7), b"z", false), Taken::Noted);
        assert_eq!(receiver.take(Seq(6), b"", true), Taken::Noted);
        assert_eq!(receiver.take(Seq(7), b"z", false), Taken::Ignored);
        assert!(!receiver.is_finished());
        assert_eq!(receiver.take(Seq(5), b"a", false), Taken::InOrder);
        assert!(receiver.is_finished());
        assert_eq!(receiver.ack(), Seq(6));
        assert_eq!(read_all(&mut receiver), b"a");
        assert_eq!(receiver.early_bytes, 0);
    }

    #[test]
    fn the_farthest_packet_that_is_kept() {
        let mut receiver = Receiver::new(Seq(0), 1000);
        assert_eq!(receiver.take(Seq(MAX_AHEAD.unsigned_abs()), b"", false), Taken::Ignored);
        assert_eq!(receiver.take(Seq(MAX_AHEAD.unsigned_abs() - 1), b"", false), Taken::Noted);
    }

    #[test]
    fn the_window_closes_and_opens_by_quarters() {
        let mut receiver = Receiver::new(Seq(0), 1000);
        assert_eq!(receiver.take(Seq(0), &[0; 1000], false), Taken::InOrder);
        assert_eq!(receiver.advertise(), 0);
        assert_eq!(receiver.take(Seq(1), &[0; 1000], false), Taken::InOrder, "probes of a closed window are taken");
        assert_eq!(receiver.take(Seq(2), &[0; 1], false), Taken::Full);
        assert_eq!(receiver.read(&mut [0; 1249]), 1249);
        assert!(!receiver.wants_update());
        assert_eq!(receiver.read(&mut [0; 1]), 1);
        assert!(receiver.wants_update());
        assert_eq!(receiver.advertise(), 250);
        assert!(!receiver.wants_update());
    }
}
