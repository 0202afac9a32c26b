//! The receiving half of a connection: puts packets in order.

use std::collections::VecDeque;

use super::seq::Seq;
use super::wire::MAX_SACK_LEN;

/// How far ahead of the first missing packet others are kept; packets beyond are dropped and sent again.
const MAX_AHEAD: usize = 16_384;

/// What came with a sequence number.
#[derive(Debug)]
pub(super) enum Arrival {
    Data(Box<[u8]>),
    Fin,
}

#[derive(Debug)]
pub(super) struct Receiver {
    /// The last number received in order.
    ack: Seq,
    /// In order, for the reader.
    ready: VecDeque<u8>,
    /// Out of order: the first is `ack + 2`.
    ahead: VecDeque<Option<Arrival>>,
    ahead_bytes: usize,
    capacity: usize,
    finished: bool,
    /// The window that the peer was told of last.
    advertised: usize,
}

impl Receiver {
    /// After `ack`, for at most `capacity` bytes in order and as many out of order.
    pub(super) fn new(ack: Seq, capacity: usize) -> Self {
        Self {
            ack,
            ready: VecDeque::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            capacity,
            finished: false,
            advertised: capacity,
        }
    }

    pub(super) fn ack(&self) -> Seq {
        self.ack
    }

    /// Whether the peer's FIN arrived and all before it.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(super) fn readable(&self) -> usize {
        self.ready.len()
    }

    /// Takes a DATA's payload or, with `None`, a FIN. What does not fit is dropped and comes again.
    pub(super) fn take(&mut self, seq: Seq, payload: Option<&[u8]>) {
        let Ok(distance @ 1..) = usize::try_from(seq.distance(self.ack)) else { return };
        let len = payload.map_or(0, <[u8]>::len);
        if self.finished {
            return;
        }
        if distance == 1 {
            if self.ready.len() + len > self.capacity {
                return;
            }
            match payload {
                Some(payload) => self.ready.extend(payload),
                None => self.finished = true,
            }
            self.ack = seq;
            self.take_what_follows();
        } else {
            let index = distance - 2;
            if index >= MAX_AHEAD || self.ahead_bytes + len > self.capacity {
                return;
            }
            if self.ahead.len() <= index {
                self.ahead.resize_with(index + 1, || None);
            }
            if let Some(slot @ None) = self.ahead.get_mut(index) {
                *slot = Some(payload.map_or(Arrival::Fin, |payload| Arrival::Data(payload.into())));
                self.ahead_bytes += len;
            }
        }
    }

    fn take_what_follows(&mut self) {
        while let Some(Some(arrival)) = self.ahead.pop_front() {
            self.ack = self.ack + 1;
            match arrival {
                _ if self.finished => {}
                Arrival::Data(data) => {
                    self.ahead_bytes -= data.len();
                    self.ready.extend(&data);
                }
                Arrival::Fin => self.finished = true,
            }
        }
        if self.finished {
            self.ahead.clear();
            self.ahead_bytes = 0;
        }
    }

    /// Copies what is in order; how many bytes.
    pub(super) fn read(&mut self, into: &mut [u8]) -> usize {
        let (first, second) = self.ready.as_slices();
        let from_first = first.len().min(into.len());
        into[..from_first].copy_from_slice(&first[..from_first]);
        let from_second = second.len().min(into.len() - from_first);
        into[from_first..from_first + from_second].copy_from_slice(&second[..from_second]);
        self.ready.drain(..from_first + from_second);
        from_first + from_second
    }

    /// Throws away what is in order: nobody will read it.
    pub(super) fn discard(&mut self) {
        self.ready.clear();
    }

    /// The window to tell the peer.
    pub(super) fn advertise(&mut self) -> u32 {
        self.advertised = self.window();
        u32::try_from(self.advertised).unwrap_or(u32::MAX)
    }

    /// Whether the window has opened so far since the peer was told that it should be told again.
    pub(super) fn wants_update(&self) -> bool {
        self.advertised < self.capacity / 2 && self.window() >= self.capacity / 2
    }

    fn window(&self) -> usize {
        self.capacity.saturating_sub(self.ready.len() + self.ahead_bytes)
    }

    /// Whether packets wait for one that is missing.
    pub(super) fn has_gap(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The selective ack's bits, into `bits`; empty where nothing is out of order. As libutp, in fours.
    pub(super) fn selective_ack(&self, bits: &mut Vec<u8>) {
        bits.clear();
        if self.ahead.is_empty() {
            return;
        }
        bits.resize(self.ahead.len().div_ceil(32) * 4, 0);
        bits.truncate(MAX_SACK_LEN);
        for (i, slot) in self.ahead.iter().enumerate().take(bits.len() * 8) {
            bits[i / 8] |= u8::from(slot.is_some()) << (i % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(receiver: &mut Receiver) -> Vec<u8> {
        let mut all = vec![0; receiver.readable()];
        receiver.read(&mut all);
        all
    }

    /// BEP 29, selective ack: bit 0 is ack + 2.
    #[test]
    fn packets_are_put_in_order_across_the_wrap() {
        let mut receiver = Receiver::new(Seq(65_534), 100);
        let mut bits = Vec::new();
        receiver.take(Seq(1), Some(b"c"));
        receiver.selective_ack(&mut bits);
        assert_eq!(bits, [0b10, 0, 0, 0]);
        receiver.take(Seq(65_535), Some(b"a"));
        receiver.selective_ack(&mut bits);
        assert_eq!((bits.as_slice(), receiver.ack()), (&[1, 0, 0, 0][..], Seq(65_535)));
        receiver.take(Seq(0), Some(b"b"));
        receiver.take(Seq(0), Some(b"again"));
        assert_eq!(receiver.ack(), Seq(1));
        assert_eq!(read_all(&mut receiver), b"abc");
    }

    #[test]
    fn a_fin_counts_only_when_all_before_it_came() {
        let mut receiver = Receiver::new(Seq(0), 100);
        receiver.take(Seq(2), None);
        assert!(!receiver.is_finished());
        receiver.take(Seq(3), Some(b"beyond the end"));
        receiver.take(Seq(1), Some(b"a"));
        assert!(receiver.is_finished());
        assert_eq!(read_all(&mut receiver), b"a");
    }

    #[test]
    fn the_window_is_a_limit() {
        let mut receiver = Receiver::new(Seq(0), 4);
        receiver.take(Seq(1), Some(b"1234"));
        receiver.take(Seq(2), Some(b"5"));
        assert_eq!((receiver.ack(), receiver.advertise()), (Seq(1), 0));
        assert!(!receiver.wants_update());
        read_all(&mut receiver);
        assert!(receiver.wants_update());
        receiver.take(Seq(2), Some(b"5"));
        assert_eq!(receiver.ack(), Seq(2));
    }
}
