//! The datagrams by which a socket learns how a broker sees it: an extension of ours.
//!
//! A probe is a JSON text, so that it is neither µTP nor a punch, and peers of the original take it for a message and
//! leave it alone. It is padded to [`PROBE_BYTES`]: no answer is longer than what asked for it.
//!
//! ```text
//! → {"grenache":"probe","id":"9f0c…","pad":"000…"}
//! ← {"grenache":"probed","id":"9f0c…","address":"198.51.100.7","port":40123,"alternate":8081}
//! ```
//!
//! `"via": "alternate"` asks for the answer from the broker's other port, and `"to": port` for an answer to another port
//! of the address that asks. Together with a second broker they show whom a NAT lets in (RFC 5780, 4.4); an answer to
//! another address cannot be asked for, so that nobody can be made to send to a third party.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The least size of a probe, in bytes; a shorter one is not answered. Answers are shorter.
pub const PROBE_BYTES: usize = 192;

/// What a host asks of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Comes back in the answer.
    pub id: u64,
    /// Whether the answer is to come from the broker's other port.
    pub via_alternate: bool,
    /// The port that is to get the answer; `None` for the one that asks.
    pub to_port: Option<NonZeroU16>,
}

/// What a broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// The probe's.
    pub id: u64,
    /// Where the broker saw the probe coming from.
    pub from: SocketAddr,
    /// The broker's other port, which answers probes as well; it has the same address.
    pub alternate: Option<NonZeroU16>,
}

#[derive(Serialize, Deserialize)]
struct ProbeText {
    grenache: ProbeTag,
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    via: Option<Via>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<NonZeroU16>,
    #[serde(default)]
    pad: String,
}

#[derive(Serialize, Deserialize)]
struct ProbedText {
    grenache: ProbedTag,
    id: String,
    address: IpAddr,
    port: NonZeroU16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alternate: Option<NonZeroU16>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProbeTag {
    Probe,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProbedTag {
    Probed,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Via {
    Alternate,
}

impl Probe {
    /// A probe that is answered to the socket that sends it, by the port that it is sent to.
    pub fn new(id: u64) -> Self {
        Self { id, via_alternate: false, to_port: None }
    }

    /// The datagram, padded.
    pub fn encode(&self) -> Bytes {
        let via = self.via_alternate.then_some(Via::Alternate);
        let mut text =
            ProbeText { grenache: ProbeTag::Probe, id: hex_id(self.id), via, to: self.to_port, pad: String::new() };
        let bare = to_json(&text).len();
        text.pad = "0".repeat(PROBE_BYTES.saturating_sub(bare));
        to_json(&text)
    }

    /// Reads a datagram; `None` where it is no probe, or one that is too short to be answered.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        if datagram.len() < PROBE_BYTES || datagram.first() != Some(&b'{') {
            return None;
        }
        let text: ProbeText = serde_json::from_slice(datagram).ok()?;
        Some(Self { id: read_id(&text.id)?, via_alternate: text.via.is_some(), to_port: text.to })
    }

    /// Where the answer to a probe from this address goes to.
    pub fn answer_to(&self, from: SocketAddr) -> SocketAddr {
        SocketAddr::new(from.ip(), self.to_port.map_or(from.port(), NonZeroU16::get))
    }
}

impl Probed {
    /// The datagram; shorter than [`PROBE_BYTES`]. `None` where it speaks of port 0, which nobody can send from.
    pub fn encode(&self) -> Option<Bytes> {
        let port = NonZeroU16::new(self.from.port())?;
        let address = self.from.ip().to_canonical();
        let id = hex_id(self.id);
        Some(to_json(&ProbedText { grenache: ProbedTag::Probed, id, address, port, alternate: self.alternate }))
    }

    /// Reads a datagram; `None` where it is no answer to a probe.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        if datagram.len() > PROBE_BYTES || datagram.first() != Some(&b'{') {
            return None;
        }
        let text: ProbedText = serde_json::from_slice(datagram).ok()?;
        let from = SocketAddr::new(text.address, text.port.get());
        Some(Self { id: read_id(&text.id)?, from, alternate: text.alternate })
    }
}

fn hex_id(id: u64) -> String {
    format!("{id:016x}")
}

fn read_id(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("strings and numbers can be written as JSON").into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::utp::wire::is_utp;

    proptest! {
        #[test]
        fn probes_are_read_back_and_an_answer_is_never_longer(
            id: u64, via_alternate: bool, to_port: Option<u16>, ip: IpAddr, port in 1_u16.., alternate: Option<u16>,
        ) {
            let probe = Probe { id, via_alternate, to_port: to_port.and_then(NonZeroU16::new) };
            let datagram = probe.encode();
            prop_assert_eq!(datagram.len(), PROBE_BYTES);
            prop_assert!(!is_utp(&datagram));
            prop_assert_eq!(Probe::parse(&datagram), Some(probe));
            prop_assert_eq!(Probe::parse(&datagram[..PROBE_BYTES - 1]), None);

            let from = SocketAddr::new(ip.to_canonical(), port);
            let probed = Probed { id, from, alternate: alternate.and_then(NonZeroU16::new) };
            let answer = probed.encode().unwrap();
            prop_assert!(answer.len() < datagram.len() && !is_utp(&answer));
            prop_assert_eq!(Probed::parse(&answer), Some(probed));
            prop_assert_eq!(Probe::parse(&answer), None);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Probe::parse(&bytes), None);
            prop_assert_eq!(Probed::parse(&bytes), None);
        }
    }

    #[test]
    fn an_answer_goes_to_nobody_but_the_address_that_asks() {
        let probe = Probe { to_port: NonZeroU16::new(7), ..Probe::new(1) };
        assert_eq!(probe.answer_to("192.0.2.1:5".parse().unwrap()), "192.0.2.1:7".parse().unwrap());
        assert_eq!(Probe::new(1).answer_to("192.0.2.1:5".parse().unwrap()), "192.0.2.1:5".parse().unwrap());
    }
}
