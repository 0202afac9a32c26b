//! What is sent after the offers: a kind, a length, a payload.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::StreamError;

/// The most bytes of a body in one frame.
pub const MAX_CHUNK: usize = 64 << 10;

/// The longest reason for an abort, in bytes; what we send is cut there.
pub const MAX_REASON: usize = 1 << 10;

/// Bytes of a frame before its payload.
pub(super) const HEADER: usize = 5;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The head of a request or reply.
    Head = b'H',
    /// Bytes of a body.
    Data = b'D',
    /// The end of a body.
    End = b'E',
    /// A body is not going to be complete.
    Abort = b'A',
    /// The other's body is not read any more.
    Stop = b'S',
}

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Bytes of payload that follow, within the kind's limits.
    pub(super) len: usize,
}

impl Header {
    /// Reads a header, and holds the payload to the limit of its kind.
    pub(super) fn parse(bytes: [u8; HEADER], max_head: usize) -> Result<Self, StreamError> {
        let (kind, least, most) = match bytes[0] {
            b'H' => (Kind::Head, 0, max_head),
            b'D' => (Kind::Data, 1, MAX_CHUNK),
            b'E' => (Kind::End, 0, 0),
            b'A' => (Kind::Abort, 0, MAX_REASON),
            b'S' => (Kind::Stop, 0, 0),
            other => return Err(StreamError::Protocol(format!("byte {other:#04x} begins no frame"))),
        };
        let len = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        if len < least || len > most {
            let problem = format!("a {kind:?} frame of {len} bytes, which may have {least} to {most}");
            return Err(StreamError::Protocol(problem));
        }
        Ok(Self { kind, len })
    }

    /// The header's bytes.
    pub(super) fn encode(self) -> [u8; HEADER] {
        let len = u32::try_from(self.len).expect("frames are kept far below 4 GiB").to_be_bytes();
        [self.kind as u8, len[0], len[1], len[2], len[3]]
    }
}

/// A frame as it is sent.
pub(super) fn frame(kind: Kind, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + payload.len());
    frame.put_slice(&Header { kind, len: payload.len() }.encode());
    frame.put_slice(payload);
    frame.freeze()
}

/// An abort's frame; the reason is cut at [`MAX_REASON`] bytes.
pub(super) fn abort(reason: &str) -> Bytes {
    frame(Kind::Abort, &reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON)])
}

/// Reads the next frame's header.
pub(super) async fn read_header<R: AsyncRead + Unpin>(reader: &mut R, max_head: usize) -> Result<Header, StreamError> {
    let mut bytes = [0; HEADER];
    reader.read_exact(&mut bytes).await.map_err(|e| StreamError::from(&e))?;
    Header::parse(bytes, max_head)
}

/// Reads the payload of a frame that is no data, which its limit keeps small.
pub(super) async fn read_payload<R: AsyncRead + Unpin>(reader: &mut R, header: Header) -> Result<Vec<u8>, StreamError> {
    let mut payload = vec![0; header.len];
    reader.read_exact(&mut payload).await.map_err(|e| StreamError::from(&e))?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_HEAD: usize = 100;

    fn parse(kind: u8, len: usize) -> Result<Header, StreamError> {
        let len = u32::try_from(len).unwrap().to_be_bytes();
        Header::parse([kind, len[0], len[1], len[2], len[3]], MAX_HEAD)
    }

    #[test]
    fn a_payload_may_have_its_limit_and_no_byte_more() {
        for (kind, byte, most) in [
            (Kind::Head, b'H', MAX_HEAD),
            (Kind::Data, b'D', MAX_CHUNK),
            (Kind::End, b'E', 0),
            (Kind::Abort, b'A', MAX_REASON),
            (Kind::Stop, b'S', 0),
        ] {
            assert_eq!(parse(byte, most), Ok(Header { kind, len: most }));
            assert!(parse(byte, most + 1).unwrap_err().to_string().starts_with("ERR_STREAM_PROTOCOL"), "{kind:?}");
        }
        assert!(parse(b'D', 0).is_err(), "data without any would cost the sender next to nothing");
    }

    #[test]
    fn frames_are_written_as_they_are_read() {
        let bytes = frame(Kind::Data, b"abc");
        assert_eq!(&bytes[..], b"D\0\0\0\x03abc");
        assert_eq!(parse(bytes[0], 3), Ok(Header { kind: Kind::Data, len: 3 }));
        let cut = abort(&"é".repeat(MAX_REASON));
        assert_eq!(cut.len(), HEADER + MAX_REASON);
        let cut = abort(&format!("x{}", "é".repeat(MAX_REASON)));
        assert_eq!(cut.len(), HEADER + MAX_REASON - 1, "between two characters");
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(bytes in any::<[u8; HEADER]>()) {
            if let Ok(header) = Header::parse(bytes, MAX_HEAD) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
