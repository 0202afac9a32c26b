//! µTP's bytes (BEP 29, as libutp speaks it).

use std::fmt;

use thiserror::Error;

use super::seq::Seq;

/// The length of a header without extensions, in bytes.
pub const HEADER_LEN: usize = 20;

/// The longest selective ack that is sent, in bytes: 128 × 8 packets beyond the first missing one.
pub const MAX_SACK_LEN: usize = 128;

/// The most extensions that are read in one packet; more make it malformed.
const MAX_EXTENSIONS: usize = 8;

const VERSION: u8 = 1;
const EXTENSION_NONE: u8 = 0;
const EXTENSION_SACK: u8 = 1;
/// libutp's "extension bits": eight bytes that nothing uses.
const EXTENSION_BITS: u8 = 2;

/// A packet's type (BEP 29, "type").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ST_DATA: carries payload.
    Data = 0,
    /// ST_FIN: nothing follows this sequence number.
    Fin = 1,
    /// ST_STATE: an ack without payload; does not consume a sequence number.
    State = 2,
    /// ST_RESET: the connection is gone.
    Reset = 3,
    /// ST_SYN: a connection is asked for.
    Syn = 4,
}

/// A µTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its type.
    pub kind: Kind,
    /// The receiver's connection id (the sender's own, in a SYN).
    pub id: u16,
    /// The sender's clock in microseconds.
    pub timestamp: u32,
    /// The last packet's delay as its receiver measured it, in microseconds and with the clocks' offset in it.
    pub delay: u32,
    /// How many bytes the sender is willing to buffer.
    pub window: u32,
    /// Its sequence number.
    pub seq: Seq,
    /// The last sequence number received in order.
    pub ack: Seq,
    /// The selective ack's bits: bit i, lowest first, says that `ack + 2 + i` has arrived.
    pub sack: Option<&'a [u8]>,
    /// The data.
    pub payload: &'a [u8],
}

/// Why a datagram is no µTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// It is too short for a header, or of another version, type or first extension: it is something else.
    #[error("not a µTP packet")]
    NotUtp,
    /// An extension goes beyond the packet's end.
    #[error("an extension goes beyond the packet's end")]
    Truncated,
    /// A chain of more extensions than anyone sends.
    #[error("more than {MAX_EXTENSIONS} extensions")]
    TooManyExtensions,
}

/// Whether a datagram is µTP; everything else on a shared socket is a punch or a message.
pub fn is_utp(datagram: &[u8]) -> bool {
    matches!(datagram, [first, extension, ..] if datagram.len() >= HEADER_LEN
        && first & 0x0f == VERSION && first >> 4 <= 4 && *extension <= EXTENSION_BITS)
}

impl<'a> Packet<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`WireError::NotUtp`] for what [`is_utp`] refuses, the others for broken extensions. Extensions that are not
    /// known are skipped.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, WireError> {
        if !is_utp(datagram) {
            return Err(WireError::NotUtp);
        }
        let Some((header, mut rest)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return Err(WireError::NotUtp);
        };
        let kind = match header[0] >> 4 {
            0 => Kind::Data,
            1 => Kind::Fin,
            2 => Kind::State,
            3 => Kind::Reset,
            _ => Kind::Syn,
        };
        let mut sack = None;
        let mut extension = header[1];
        for _ in 0..=MAX_EXTENSIONS {
            if extension == EXTENSION_NONE {
                let u16_at = |i: usize| u16::from_be_bytes([header[i], header[i + 1]]);
                let u32_at = |i: usize| u32::from_be_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
                return Ok(Self {
                    kind,
                    id: u16_at(2),
                    timestamp: u32_at(4),
                    delay: u32_at(8),
                    window: u32_at(12),
                    seq: Seq(u16_at(16)),
                    ack: Seq(u16_at(18)),
                    sack,
                    payload: rest,
                });
            }
            let [next, len, after @ ..] = rest else { return Err(WireError::Truncated) };
            let (bytes, after) = after.split_at_checked(usize::from(*len)).ok_or(WireError::Truncated)?;
            if extension == EXTENSION_SACK {
                sack = Some(bytes);
            }
            (extension, rest) = (*next, after);
        }
        Err(WireError::TooManyExtensions)
    }

    /// Appends the packet's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let sack = self.sack.filter(|bits| !bits.is_empty() && bits.len() <= MAX_SACK_LEN);
        out.push((self.kind as u8) << 4 | VERSION);
        out.push(if sack.is_some() { EXTENSION_SACK } else { EXTENSION_NONE });
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.delay.to_be_bytes());
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&self.seq.0.to_be_bytes());
        out.extend_from_slice(&self.ack.0.to_be_bytes());
        if let Some(bits) = sack {
            // The filter above keeps the length within a byte.
            out.extend_from_slice(&[EXTENSION_NONE, bits.len() as u8]);
            out.extend_from_slice(bits);
        }
        out.extend_from_slice(self.payload);
    }

    /// The RESET that answers this packet, which belongs to no connection: the id as it came, the ack of the
    /// offending number, no times and no window.
    pub fn reset(&self, seq: Seq) -> Packet<'static> {
        Packet {
            kind: Kind::Reset,
            id: self.id,
            timestamp: 0,
            delay: 0,
            window: 0,
            seq,
            ack: self.seq,
            sack: None,
            payload: &[],
        }
    }
}

impl fmt::Display for Packet<'_> {
    /// In a line, as packet analysers do: `ST_DATA id=17768 seq=9159 ack=17766 len=54`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Data => "ST_DATA",
            Kind::Fin => "ST_FIN",
            Kind::State => "ST_STATE",
            Kind::Reset => "ST_RESET",
            Kind::Syn => "ST_SYN",
        };
        write!(f, "{kind} id={} seq={} ack={}", self.id, self.seq, self.ack)?;
        if let Some(bits) = self.sack {
            let arrived: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
            write!(f, " sack={arrived}")?;
        }
        if !self.payload.is_empty() {
            write!(f, " len={}", self.payload.len())?;
        }
        Ok(())
    }
}
