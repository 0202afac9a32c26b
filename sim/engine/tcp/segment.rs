//! What TCP packets carry.

use std::fmt;

use bytes::Bytes;

/// A TCP segment: the header's fields that matter here, and the data.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Segment {
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) reset: bool,
    /// What is acknowledged; `None` only in a first SYN and some resets. As wide as a life is long, so that nothing
    /// wraps; the wire would carry the lower half.
    pub(crate) ack: Option<u64>,
    /// The first byte's number, as wide as `ack`.
    pub(crate) seq: u64,
    /// How many bytes beyond `ack` may be sent.
    pub(crate) window: usize,
    pub(crate) payload: Bytes,
}

impl Segment {
    /// What it takes of the sequence space: SYN and FIN count for one each.
    pub(crate) fn length(&self) -> u64 {
        self.payload.len() as u64 + u64::from(self.syn) + u64::from(self.fin)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tcp")?;
        for (set, name) in [(self.syn, " SYN"), (self.fin, " FIN"), (self.reset, " RST"), (self.ack.is_some(), " ACK")]
        {
            if set {
                f.write_str(name)?;
            }
        }
        write!(f, " seq={}", self.seq as u32)?;
        if let Some(ack) = self.ack {
            write!(f, " ack={}", ack as u32)?;
        }
        write!(f, " len={}", self.payload.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_reads_well() {
        let syn = Segment { syn: true, seq: 7, ..Segment::default() };
        assert_eq!(syn.to_string(), "tcp SYN seq=7 len=0");
        let data = Segment { seq: 8, ack: Some(1 << 32 | 3), payload: Bytes::from_static(b"abc"), ..syn };
        assert_eq!(Segment { syn: false, fin: true, ..data }.to_string(), "tcp FIN ACK seq=8 ack=3 len=3");
    }
}
