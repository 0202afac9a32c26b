//! The packet format of BEP 29: 20 bytes of header, chained extensions, payload.

use std::fmt;

use super::seq::Seq;

/// Bytes of a header without extensions.
pub const HEADER_LEN: usize = 20;

/// The longest selective ack that is written, in bytes: the length field is one byte, the mask comes in steps of four.
pub const MAX_SACK_LEN: usize = 252;

const VERSION: u8 = 1;
const EXTENSION_NONE: u8 = 0;
const EXTENSION_SACK: u8 = 1;
/// The highest first extension by which a datagram still counts as µTP: 2 is libutp's extension bits.
const EXTENSION_KNOWN_MAX: u8 = 2;

/// Whether a datagram on a shared socket is µTP's: at least a header, version 1, type 0–4, first extension 0–2.
///
/// Everything else is a punch or a message. What passes may still be malformed: see [`Packet::new_checked`].
pub fn is_utp(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_LEN
        && datagram[0] & 0x0f == VERSION
        && datagram[0] >> 4 <= Kind::Syn as u8
        && datagram[1] <= EXTENSION_KNOWN_MAX
}

/// The packet types of BEP 29.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Carries payload; takes a packet number.
    Data = 0,
    /// The sender's last packet; takes a packet number.
    Fin = 1,
    /// An ack without payload; takes no packet number.
    State = 2,
    /// Ends the connection at once.
    Reset = 3,
    /// Asks for a connection; takes a packet number.
    Syn = 4,
}

/// Why a datagram is not a µTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Shorter than a header, or another version, type or first extension.
    #[error("not a µTP header; treat the datagram as a message")]
    NotUtp,
    /// The extension chain runs past the end.
    #[error("the extension at byte {0} runs past the end; drop the datagram")]
    TruncatedExtension(usize),
}

/// A datagram whose header and extension chain are known to be whole.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    payload_at: usize,
}

impl<'a> Packet<'a> {
    /// Checks a datagram.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        if !is_utp(bytes) {
            return Err(WireError::NotUtp);
        }
        let mut next = bytes[1];
        let mut at = HEADER_LEN;
        // Unknown extensions are skipped by their length, as the chain was made for.
        while next != EXTENSION_NONE {
            let (Some(&after), Some(&len)) = (bytes.get(at), bytes.get(at + 1)) else {
                return Err(WireError::TruncatedExtension(at));
            };
            let end = at + 2 + usize::from(len);
            if end > bytes.len() {
                return Err(WireError::TruncatedExtension(at));
            }
            next = after;
            at = end;
        }
        Ok(Self { bytes, payload_at: at })
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }

    /// The type.
    pub fn kind(&self) -> Kind {
        match self.bytes[0] >> 4 {
            0 => Kind::Data,
            1 => Kind::Fin,
            2 => Kind::State,
            3 => Kind::Reset,
            _ => Kind::Syn,
        }
    }

    /// The connection id: the receiver's receive id, but in a SYN the sender's, and in a RESET either's.
    pub fn connection_id(&self) -> u16 {
        self.u16_at(2)
    }

    /// All of it as a value.
    pub fn repr(&self) -> Repr<'a> {
        Repr {
            kind: self.kind(),
            connection_id: self.connection_id(),
            timestamp: self.u32_at(4),
            timestamp_difference: self.u32_at(8),
            window: self.u32_at(12),
            seq: Seq(self.u16_at(16)),
            ack: Seq(self.u16_at(18)),
            extensions: Extensions { first: self.bytes[1], chain: &self.bytes[HEADER_LEN..self.payload_at] },
            payload: &self.bytes[self.payload_at..],
        }
    }
}

/// A packet as a value. Encoding what was parsed gives the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr<'a> {
    /// The type.
    pub kind: Kind,
    /// The connection id on the wire.
    pub connection_id: u16,
    /// The sender's clock in µs, from an origin of its own.
    pub timestamp: u32,
    /// The sender's last measurement of the other direction's one-way delay in µs; 0 for none.
    pub timestamp_difference: u32,
    /// How many bytes the sender would take beyond what it acks.
    pub window: u32,
    /// The packet number; for a STATE the number that the next packet with payload will have.
    pub seq: Seq,
    /// The last packet number received without a gap before it.
    pub ack: Seq,
    /// The extension chain.
    pub extensions: Extensions<'a>,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Repr<'a> {
    /// Checks and parses a datagram.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, WireError> {
        Packet::new_checked(datagram).map(|packet| packet.repr())
    }

    /// The answer to a packet of an unknown connection: its id echoed, its number as the ack, the rest 0 but for `seq`.
    pub fn reset(connection_id: u16, seq: Seq, offending: Seq) -> Repr<'static> {
        Repr {
            kind: Kind::Reset,
            connection_id,
            timestamp: 0,
            timestamp_difference: 0,
            window: 0,
            seq,
            ack: offending,
            extensions: Extensions::NONE,
            payload: &[],
        }
    }

    /// The size of the encoded packet in bytes.
    pub fn len(&self) -> usize {
        HEADER_LEN + self.extensions.chain.len() + self.payload.len()
    }

    /// Never: a packet has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends the encoded packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_header(out);
        out.extend_from_slice(self.payload);
    }

    /// Appends header and extensions only; the caller appends the payload.
    pub(super) fn encode_header(&self, out: &mut Vec<u8>) {
        let mut header = [0; HEADER_LEN];
        header[0] = (self.kind as u8) << 4 | VERSION;
        header[1] = self.extensions.first;
        header[2..4].copy_from_slice(&self.connection_id.to_be_bytes());
        header[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&self.timestamp_difference.to_be_bytes());
        header[12..16].copy_from_slice(&self.window.to_be_bytes());
        header[16..18].copy_from_slice(&self.seq.0.to_be_bytes());
        header[18..20].copy_from_slice(&self.ack.0.to_be_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(self.extensions.chain);
    }
}

impl fmt::Display for Repr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Data => "DATA",
            Kind::Fin => "FIN",
            Kind::State => "STATE",
            Kind::Reset => "RESET",
            Kind::Syn => "SYN",
        };
        write!(f, "µTP {kind} id {} seq {} ack {} win {}", self.connection_id, self.seq, self.ack, self.window)?;
        if let Some(mask) = self.extensions.selective_ack() {
            write!(f, " sack")?;
            for (nth, seq) in acked_by(self.ack, mask).enumerate() {
                write!(f, "{}{seq}", if nth == 0 { ' ' } else { ',' })?;
            }
        }
        write!(f, " length {}", self.payload.len())
    }
}

/// A whole chain of extensions: each is (next kind, length, bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extensions<'a> {
    first: u8,
    chain: &'a [u8],
}

impl<'a> Extensions<'a> {
    /// No extension.
    pub const NONE: Extensions<'static> = Extensions { first: EXTENSION_NONE, chain: &[] };

    /// The extensions as (kind, bytes), in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut kind = self.first;
        let mut rest = self.chain;
        std::iter::from_fn(move || {
            let [next, len, tail @ ..] = rest else { return None };
            let (bytes, tail) = tail.split_at_checked(usize::from(*len))?;
            let item = (kind, bytes);
            kind = *next;
            rest = tail;
            Some(item)
        })
    }

    /// The mask of the selective ack, if there is one: bit i, least significant first, stands for `ack + 2 + i`.
    pub fn selective_ack(&self) -> Option<&'a [u8]> {
        if self.first == EXTENSION_NONE {
            return None;
        }
        self.iter().find(|(kind, _)| *kind == EXTENSION_SACK).map(|(_, mask)| mask)
    }
}

/// The packet numbers that a selective ack's mask stands for.
pub fn acked_by(ack: Seq, mask: &[u8]) -> impl Iterator<Item = Seq> + '_ {
    mask.iter().enumerate().flat_map(move |(byte, bits)| {
        (0..8).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| ack + (2 + 8 * byte as u16 + bit))
    })
}

/// A selective ack to be sent.
#[derive(Debug, Clone)]
pub struct SelectiveAck {
    chain: [u8; 2 + MAX_SACK_LEN],
    len: usize,
}

impl SelectiveAck {
    /// Collects bit numbers (0 stands for `ack + 2`); those that do not fit [`MAX_SACK_LEN`] are left out.
    pub fn new(bits: impl Iterator<Item = usize>) -> Self {
        let mut chain = [0; 2 + MAX_SACK_LEN];
        // BEP 29: at least 32 bits, and a multiple of 32.
        let mut len = 4;
        for bit in bits.filter(|bit| *bit < MAX_SACK_LEN * 8) {
            chain[2 + bit / 8] |= 1 << (bit % 8);
            len = len.max((bit / 32 + 1) * 4);
        }
        chain[1] = len as u8;
        Self { chain, len: 2 + len }
    }

    /// As the only extension of a packet.
    pub fn extensions(&self) -> Extensions<'_> {
        Extensions { first: EXTENSION_SACK, chain: &self.chain[..self.len] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(first: u8, second: u8) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[0] = first;
        bytes[1] = second;
        bytes
    }

    #[test]
    fn what_is_utp() {
        assert!(is_utp(&header(0x41, 2)));
        assert!(!is_utp(&header(0x51, 0)), "type 5");
        assert!(!is_utp(&header(0x42, 0)), "version 2");
        assert!(!is_utp(&header(0x41, 3)), "first extension 3");
        assert!(!is_utp(&header(0x41, 0)[..19]), "one byte short");
        assert!(!is_utp(&[0xc3, 0xbf]), "a punch");
        assert!(!is_utp(&[]));
    }

    #[test]
    fn truncated_chains_are_refused() {
        let mut bytes = header(0x21, 1);
        assert_eq!(Repr::parse(&bytes), Err(WireError::TruncatedExtension(20)));
        bytes.extend([0, 4, 1, 0, 0]);
        assert_eq!(Repr::parse(&bytes), Err(WireError::TruncatedExtension(20)));
        bytes.push(0);
        let packet = Repr::parse(&bytes).unwrap();
        assert_eq!(packet.extensions.selective_ack(), Some(&[1, 0, 0, 0][..]));
        assert_eq!(packet.payload, b"");
    }

    #[test]
    fn odd_chains_come_out_as_they_came_in() {
        // Extension bits, an unknown kind, an empty one, a selective ack of one byte; then payload.
        let mut bytes = header(0x01, 2);
        bytes.extend([99, 8, 0, 0, 0, 0, 0, 0, 0, 0, 7, 3, 1, 2, 3, 1, 0, 0, 1, 0x81]);
        bytes.extend(b"payload");
        let packet = Repr::parse(&bytes).unwrap();
        let kinds: Vec<_> = packet.extensions.iter().map(|(kind, bytes)| (kind, bytes.len())).collect();
        assert_eq!(kinds, [(2, 8), (99, 3), (7, 0), (1, 1)]);
        assert_eq!(packet.payload, b"payload");
        let seqs: Vec<_> = acked_by(Seq(0xffff), packet.extensions.selective_ack().unwrap()).collect();
        assert_eq!(seqs, [Seq(1), Seq(8)]);
        let mut again = Vec::new();
        packet.encode(&mut again);
        assert_eq!(again, bytes);
        assert_eq!(packet.len(), bytes.len());
    }

    #[test]
    fn selective_acks_grow_in_steps_of_four_bytes() {
        for (bit, len) in [(0, 4), (31, 4), (32, 8), (MAX_SACK_LEN * 8 - 1, MAX_SACK_LEN), (MAX_SACK_LEN * 8, 4)] {
            let sack = SelectiveAck::new([bit].into_iter());
            assert_eq!(sack.extensions().selective_ack().unwrap().len(), len, "bit {bit}");
        }
    }

    #[test]
    fn reads_like_a_packet_dump() {
        let mut packet = Repr::reset(7, Seq(1), Seq(2));
        assert_eq!(packet.to_string(), "µTP RESET id 7 seq 1 ack 2 win 0 length 0");
        let sack = SelectiveAck::new([0, 2].into_iter());
        packet.kind = Kind::State;
        packet.extensions = sack.extensions();
        assert_eq!(packet.to_string(), "µTP STATE id 7 seq 1 ack 2 win 0 sack 4,6 length 0");
    }
}
