//! STUN's Binding messages with RFC 5780's attributes; the format itself is the crate `stun-types`'s.

use std::net::SocketAddr;

use stun_types::attribute::{AttributeType, MappedSocketAddr, RawAttribute, XorMappedAddress};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec,
};

/// RFC 5780, 7.2.
const CHANGE_REQUEST: AttributeType = AttributeType::new(0x0003);
/// RFC 5780, 7.5.
const RESPONSE_PORT: AttributeType = AttributeType::new(0x0027);
/// RFC 5780, 7.3.
const RESPONSE_ORIGIN: AttributeType = AttributeType::new(0x802b);
/// RFC 5780, 7.4.
const OTHER_ADDRESS: AttributeType = AttributeType::new(0x802c);

/// The flags of CHANGE-REQUEST.
const CHANGE_ADDRESS: u32 = 4;
const CHANGE_PORT: u32 = 2;

/// The attributes of a request that are understood, of those that have to be (RFC 8489, 14).
const UNDERSTOOD: &[AttributeType] = &[CHANGE_REQUEST, RESPONSE_PORT];

/// From where a response is asked for (RFC 5780, 7.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// From the other address.
    pub address: bool,
    /// From the other port.
    pub port: bool,
}

/// A Binding message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Asks where it comes from.
    Request {
        /// 96 bits that name it.
        transaction: u128,
        /// From where the response is to come.
        change: Change,
        /// To which port of the sender's public address it is to go, where not to the sender's own.
        response_port: Option<u16>,
    },
    /// The answer.
    Response {
        /// The request's.
        transaction: u128,
        /// Where the request came from.
        mapped: SocketAddr,
        /// Where the response comes from.
        origin: Option<SocketAddr>,
        /// The server's other address and other port.
        other: Option<SocketAddr>,
    },
    /// Is not answered. A client's has no address, and keeps a mapping alive; with one, it is a server's to its
    /// partner: answer this request in my place.
    Indication {
        /// The request's.
        transaction: u128,
        /// Whom to answer.
        mapped: Option<SocketAddr>,
        /// From where.
        change: Change,
    },
}

impl Binding {
    /// Its transaction: 96 bits.
    pub fn transaction(&self) -> u128 {
        match self {
            Self::Request { transaction, .. }
            | Self::Response { transaction, .. }
            | Self::Indication { transaction, .. } => *transaction,
        }
    }

    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let class = match self {
            Self::Request { .. } => MessageClass::Request,
            Self::Response { .. } => MessageClass::Success,
            Self::Indication { .. } => MessageClass::Indication,
        };
        let transaction = self.transaction().into();
        let kind = MessageType::from_class_method(class, BINDING);
        let mut message = Message::builder(kind, transaction, MessageWriteVec::new());
        let mut add = |attribute: RawAttribute<'_>| {
            message.add_attribute(&attribute).expect("each attribute is added once, and the message is not signed");
        };
        match *self {
            Self::Request { change, response_port, .. } => {
                add_change(&mut add, change);
                if let Some(port) = response_port {
                    // RFC 5780, 7.5: the port and two bytes of padding.
                    let [high, low] = port.to_be_bytes();
                    add(RawAttribute::new(RESPONSE_PORT, &[high, low, 0, 0]));
                }
            }
            Self::Response { mapped, origin, other, .. } => {
                add(xor_mapped(mapped, transaction));
                for (kind, address) in [(RESPONSE_ORIGIN, origin), (OTHER_ADDRESS, other)] {
                    if let Some(address) = address {
                        add(MappedSocketAddr::new(address).to_raw(kind));
                    }
                }
            }
            Self::Indication { mapped, change, .. } => {
                if let Some(mapped) = mapped {
                    add(xor_mapped(mapped, transaction));
                }
                add_change(&mut add, change);
            }
        }
        message.finish()
    }

    /// Reads a message; `None` is what is no such one.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let message = Message::from_bytes(datagram).ok().filter(|message| message.has_method(BINDING))?;
        let transaction = u128::from(message.transaction_id());
        let mapped = || {
            let attribute = message.attribute::<XorMappedAddress>().ok()?;
            Some(attribute.addr(message.transaction_id()))
        };
        let address = |kind| {
            let attribute = message.raw_attribute(kind)?;
            MappedSocketAddr::from_raw(&attribute).ok().map(|address| address.addr())
        };
        match message.class() {
            MessageClass::Request => {
                let response_port = message.raw_attribute(RESPONSE_PORT);
                let response_port = response_port.and_then(|raw| Some(u16::from_be_bytes(*raw.value.first_chunk()?)));
                Some(Self::Request { transaction, change: change(&message), response_port })
            }
            MessageClass::Success => Some(Self::Response {
                transaction,
                mapped: mapped()?,
                origin: address(RESPONSE_ORIGIN),
                other: address(OTHER_ADDRESS),
            }),
            MessageClass::Indication => {
                Some(Self::Indication { transaction, mapped: mapped(), change: change(&message) })
            }
            MessageClass::Error => None,
        }
    }
}

/// The error to answer a request with that needs what is not understood (RFC 8489, 6.3.1); `None` is none.
pub(super) fn refusal(datagram: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_bytes(datagram).ok()?;
    if !message.has_class(MessageClass::Request) {
        return None;
    }
    Message::check_attribute_types(&message, UNDERSTOOD, &[], MessageWriteVec::new()).map(MessageWrite::finish)
}

fn xor_mapped(address: SocketAddr, transaction: stun_types::message::TransactionId) -> RawAttribute<'static> {
    use stun_types::attribute::AttributeWrite as _;
    XorMappedAddress::new(address, transaction).to_raw().into_owned()
}

fn add_change(add: &mut impl FnMut(RawAttribute<'_>), change: Change) {
    let flags = if change.address { CHANGE_ADDRESS } else { 0 } | if change.port { CHANGE_PORT } else { 0 };
    if flags != 0 {
        add(RawAttribute::new(CHANGE_REQUEST, &flags.to_be_bytes()));
    }
}

fn change(message: &Message<'_>) -> Change {
    let flags =
        message.raw_attribute(CHANGE_REQUEST).and_then(|raw| Some(u32::from_be_bytes(*raw.value.first_chunk()?)));
    let flags = flags.unwrap_or(0);
    Change { address: flags & CHANGE_ADDRESS != 0, port: flags & CHANGE_PORT != 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: u128 = 0x0102_0304_0506_0708_090a_0b0c;

    #[test]
    fn rfc_5780_7_messages_are_read_back() {
        let address: SocketAddr = "203.0.113.1:3478".parse().unwrap();
        let change = Change { address: true, port: false };
        for message in [
            Binding::Request { transaction: ID, change: Change::default(), response_port: None },
            Binding::Request { transaction: ID, change, response_port: Some(4000) },
            Binding::Response { transaction: ID, mapped: address, origin: Some(address), other: None },
            Binding::Response { transaction: ID, mapped: address, origin: Some(address), other: Some(address) },
            Binding::Indication { transaction: ID, mapped: None, change: Change::default() },
            Binding::Indication {
                transaction: ID,
                mapped: Some(address),
                change: Change { address: false, port: true },
            },
        ] {
            assert_eq!(Binding::parse(&message.encode()), Some(message));
        }
    }

    #[test]
    fn rfc_8489_5_a_request_as_it_is_on_the_wire() {
        let change = Change { address: true, port: true };
        let request = Binding::Request { transaction: ID, change, response_port: Some(0x1234) };
        let expected = "000100102112a442 0102030405060708090a0b0c 0003000400000006 0027000412340000".replace(' ', "");
        assert_eq!(hex::encode(request.encode()), expected);
    }

    #[test]
    fn rfc_8489_6_3_1_what_has_to_be_understood_and_is_not_is_refused() {
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        let mut message = Message::builder(kind, ID.into(), MessageWriteVec::new());
        message.add_attribute(&RawAttribute::new(AttributeType::new(0x0026), &[0; 4])).unwrap();
        let refused = refusal(&message.finish()).expect("PADDING is not understood");
        assert_eq!(&refused[..2], [0x01, 0x11], "a Binding error response");
        let fine = Binding::Request { transaction: ID, change: Change::default(), response_port: Some(1) };
        assert_eq!(refusal(&fine.encode()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut stun = Binding::Indication { transaction: ID, mapped: None, change: Change::default() }.encode();
            stun[3] = u8::try_from(bytes.len() / 4 * 4).unwrap();
            stun.extend(&bytes[..bytes.len() / 4 * 4]);
            let _ = (Binding::parse(&bytes), refusal(&bytes), Binding::parse(&stun), refusal(&stun));
        }
    }
}
