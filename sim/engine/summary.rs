//! What is in a packet, in a line.

use super::packet::{Body, Packet};

/// The punch control datagram.
const PUNCH: [u8; 2] = [0xc3, 0xbf];
const UTP_HEADER: usize = 20;

/// A line for people: `utp SYN id=… seq=… ack=…`, `punch`, `krpc get_peers`, `tcp SYN …`, `udp N bytes`.
pub(crate) fn summarize(packet: &Packet) -> String {
    match &packet.body {
        Body::Udp(payload) => summarize_udp(payload),
        Body::Tcp(segment) => segment.to_string(),
    }
}

fn summarize_udp(payload: &[u8]) -> String {
    if payload == PUNCH {
        return "punch".to_owned();
    }
    utp(payload).or_else(|| krpc(payload)).unwrap_or_else(|| format!("udp {} bytes", payload.len()))
}

/// BEP 29's header, told from other datagrams as the transport does: version 1, type 0–4, first extension 0–2.
fn utp(payload: &[u8]) -> Option<String> {
    let header: &[u8; UTP_HEADER] = payload.first_chunk()?;
    let kind = match header[0] {
        0x01 => "DATA",
        0x11 => "FIN",
        0x21 => "STATE",
        0x31 => "RESET",
        0x41 => "SYN",
        _ => return None,
    };
    let mut extension = header[1];
    if extension > 2 {
        return None;
    }
    let mut rest = &payload[UTP_HEADER..];
    let mut names = String::new();
    while extension != 0 {
        let (&next, tail) = rest.split_first()?;
        let (&length, tail) = tail.split_first()?;
        if extension == 1 {
            names.push_str(" sack");
        }
        rest = tail.get(usize::from(length)..)?;
        extension = next;
    }
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let length = rest.len();
    Some(format!("utp {kind} id={} seq={} ack={} len={length}{names}", word(2), word(16), word(18)))
}

/// Whether the transport takes a datagram for µTP.
pub(crate) fn is_utp(payload: &[u8]) -> bool {
    utp(payload).is_some()
}

/// BEP 5's messages: a bencoded dictionary with `y` and, in queries, `q`.
fn krpc(payload: &[u8]) -> Option<String> {
    let mut rest = payload.strip_prefix(b"d")?;
    let (mut kind, mut query) = (None, None);
    while !rest.starts_with(b"e") {
        let (key, tail) = string(rest)?;
        let after = skip(tail)?;
        match key {
            b"y" => kind = string(tail).map(|(text, _)| text),
            b"q" => query = string(tail).map(|(text, _)| text),
            _ => {}
        }
        rest = after;
    }
    match (kind?, query) {
        (b"q", Some(query)) => Some(format!("krpc {}", query.escape_ascii())),
        (b"r", _) => Some("krpc response".to_owned()),
        (b"e", _) => Some("krpc error".to_owned()),
        _ => None,
    }
}

/// A bencoded string and what follows it.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = text.iter().take(8).position(|&byte| byte == b':')?;
    let length: usize = std::str::from_utf8(&text[..colon]).ok()?.parse().ok()?;
    text[colon + 1..].split_at_checked(length)
}

/// What follows one bencoded value. Counts the nesting, so hostile depth costs no stack.
fn skip(mut text: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    loop {
        match text.first()? {
            b'd' | b'l' => {
                depth += 1;
                text = &text[1..];
            }
            b'e' => {
                depth = depth.checked_sub(1)?;
                text = &text[1..];
            }
            b'i' => {
                let end = text.iter().position(|&byte| byte == b'e')?;
                text = &text[end + 1..];
            }
            _ => text = string(text)?.1,
        }
        if depth == 0 {
            return Some(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_datagram_is_told() {
        let mut syn = vec![0x41, 0x01, 0x12, 0x34];
        syn.extend([0; 12]);
        syn.extend([0, 1, 0, 2, 0, 4, 0, 0, 0, 0, b'x']);
        for (payload, line) in [
            (&[0xc3, 0xbf][..], "punch"),
            (&[0xc3, 0xbf, 0x0a], "udp 3 bytes"),
            (&syn, "utp SYN id=4660 seq=1 ack=2 len=1 sack"),
            (b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", "krpc ping"),
            (b"d1:rd2:id20:abcdefghij01234567895:nodesle1:xi-7ee1:t2:aa1:y1:re", "krpc response"),
            (b"d1:eli203e3:bade1:t2:aa1:y1:ee", "krpc error"),
            (b"d1:q4:pi\xffg1:y1:qe", "krpc pi\\xffg"),
            (b"d1:y1:q", "udp 7 bytes"),
            (b"d9999999:", "udp 9 bytes"),
            (b"", "udp 0 bytes"),
        ] {
            assert_eq!(summarize_udp(payload), line);
        }
    }

    #[test]
    fn hostile_nesting_is_walked_without_recursion() {
        let mut deep = b"d1:a".to_vec();
        deep.extend(std::iter::repeat_n(b'l', 60_000));
        assert_eq!(summarize_udp(&deep), "udp 60004 bytes");
    }
}
