//! NAT-PMP's messages (RFC 6886, 3): a host asks its NAT for a forward, or for its public address.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::event::Protocol;

/// The port at which a NAT takes requests (RFC 6886, 3.1).
pub const PORT: u16 = 5351;

/// The opcode bit of responses.
const RESPONSE: u8 = 128;

/// What a host asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The NAT's public address (3.2).
    PublicAddress,
    /// A forward (3.3), or its end (3.4).
    Forward {
        /// UDP or TCP.
        protocol: Protocol,
        /// The host's own port; 0 with no lifetime is all of them.
        internal_port: u16,
        /// The public port that would be liked; 0 is any.
        external_port: u16,
        /// For how long, in whole seconds; 0 ends it.
        lifetime: Duration,
    },
}

/// What a NAT answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// Seconds since the NAT lost what it knew: less than expected tells that forwards are lost (3.6).
    pub epoch: u32,
    /// What was granted, or why not.
    pub result: Result<Granted, Refusal>,
}

/// What was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// The NAT's public address.
    PublicAddress(Ipv4Addr),
    /// A forward, or its end.
    Forward {
        /// UDP or TCP.
        protocol: Protocol,
        /// The host's own port.
        internal_port: u16,
        /// The public port; 0 where the forward has ended.
        external_port: u16,
        /// For how long; 0 where the forward has ended.
        lifetime: Duration,
    },
}

/// Why nothing was granted (RFC 6886, 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Result code 1.
    #[error("the NAT speaks another version than 0")]
    UnsupportedVersion,
    /// Result code 2.
    #[error("the NAT refuses: is it allowed to forward this port?")]
    NotAuthorized,
    /// Result code 3.
    #[error("the NAT has no public address itself")]
    NetworkFailure,
    /// Result code 4.
    #[error("the NAT has no more forwards to give: end some, or wait for their end")]
    OutOfResources,
    /// Result code 5.
    #[error("the NAT knows no such request")]
    UnsupportedOpcode,
}

impl Refusal {
    fn code(self) -> u16 {
        match self {
            Self::UnsupportedVersion => 1,
            Self::NotAuthorized => 2,
            Self::NetworkFailure => 3,
            Self::OutOfResources => 4,
            Self::UnsupportedOpcode => 5,
        }
    }

    fn from_code(code: u16) -> Option<Self> {
        let all = [
            Self::UnsupportedVersion,
            Self::NotAuthorized,
            Self::NetworkFailure,
            Self::OutOfResources,
            Self::UnsupportedOpcode,
        ];
        all.into_iter().find(|refusal| refusal.code() == code)
    }
}

fn opcode(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Udp => 1,
        Protocol::Tcp => 2,
    }
}

fn protocol(opcode: u8) -> Option<Protocol> {
    match opcode {
        1 => Some(Protocol::Udp),
        2 => Some(Protocol::Tcp),
        _ => None,
    }
}

fn seconds(lifetime: Duration) -> [u8; 4] {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).to_be_bytes()
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]]))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

impl Request {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Self::PublicAddress => vec![0, 0],
            Self::Forward { protocol, internal_port, external_port, lifetime } => {
                let mut bytes = vec![0, opcode(protocol), 0, 0];
                bytes.extend(internal_port.to_be_bytes());
                bytes.extend(external_port.to_be_bytes());
                bytes.extend(seconds(lifetime));
                bytes
            }
        }
    }

    /// Reads a request; an error is the refusal to answer with. `None` is what is not answered: a response, or nothing
    /// that has an opcode.
    pub fn parse(bytes: &[u8]) -> Option<Result<Self, Refusal>> {
        let (&[version, code], _) = bytes.split_first_chunk()?;
        if code >= RESPONSE {
            return None;
        }
        if version != 0 {
            return Some(Err(Refusal::UnsupportedVersion));
        }
        if code == 0 {
            return Some(Ok(Self::PublicAddress));
        }
        let Some(protocol) = protocol(code) else { return Some(Err(Refusal::UnsupportedOpcode)) };
        let (internal_port, external_port) = (word(bytes, 4)?, word(bytes, 6)?);
        let lifetime = Duration::from_secs(long(bytes, 8)?.into());
        Some(Ok(Self::Forward { protocol, internal_port, external_port, lifetime }))
    }

    /// Whether a response answers this request.
    fn is_answered_by(&self, granted: &Granted) -> bool {
        match (self, granted) {
            (Self::PublicAddress, Granted::PublicAddress(_)) => true,
            (
                Self::Forward { protocol, internal_port, .. },
                Granted::Forward { protocol: answered, internal_port: port, .. },
            ) => protocol == answered && internal_port == port,
            _ => false,
        }
    }

    fn opcode(&self) -> u8 {
        match self {
            Self::PublicAddress => 0,
            Self::Forward { protocol, .. } => opcode(*protocol),
        }
    }
}

impl Response {
    /// As it is sent, in answer to this request's bytes.
    pub fn encode(&self, request: &[u8]) -> Vec<u8> {
        let code = match self.result {
            Ok(_) => 0,
            Err(refusal) => refusal.code(),
        };
        let mut bytes = vec![0, RESPONSE | request.get(1).copied().unwrap_or(0)];
        bytes.extend(u16::to_be_bytes(code));
        bytes.extend(self.epoch.to_be_bytes());
        match self.result {
            Ok(Granted::PublicAddress(address)) => bytes.extend(address.octets()),
            Ok(Granted::Forward { internal_port, external_port, lifetime, .. }) => {
                bytes.extend(internal_port.to_be_bytes());
                bytes.extend(external_port.to_be_bytes());
                bytes.extend(seconds(lifetime));
            }
            Err(_) => {}
        }
        bytes
    }

    /// Reads the answer to a request; `None` is what is none.
    pub fn parse(bytes: &[u8], request: &Request) -> Option<Self> {
        let (&[version, code], _) = bytes.split_first_chunk()?;
        if version != 0 || code != RESPONSE | request.opcode() {
            return None;
        }
        let (result, epoch) = (word(bytes, 2)?, long(bytes, 4)?);
        if result != 0 {
            return Some(Self { epoch, result: Err(Refusal::from_code(result)?) });
        }
        let granted = match request {
            Request::PublicAddress => Granted::PublicAddress(Ipv4Addr::from(long(bytes, 8)?)),
            Request::Forward { protocol, .. } => Granted::Forward {
                protocol: *protocol,
                internal_port: word(bytes, 8)?,
                external_port: word(bytes, 10)?,
                lifetime: Duration::from_secs(long(bytes, 12)?.into()),
            },
        };
        request.is_answered_by(&granted).then_some(Self { epoch, result: Ok(granted) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORWARD: Request = Request::Forward {
        protocol: Protocol::Tcp,
        internal_port: 8080,
        external_port: 80,
        lifetime: Duration::from_secs(7200),
    };

    #[test]
    fn rfc_6886_3_requests_as_they_are_on_the_wire() {
        assert_eq!(Request::PublicAddress.encode(), [0, 0]);
        assert_eq!(FORWARD.encode(), [0, 2, 0, 0, 0x1f, 0x90, 0, 80, 0, 0, 0x1c, 0x20]);
        for request in [Request::PublicAddress, FORWARD] {
            assert_eq!(Request::parse(&request.encode()), Some(Ok(request)));
        }
        assert_eq!(Request::parse(&[2, 1, 0, 0]), Some(Err(Refusal::UnsupportedVersion)), "PCP");
        assert_eq!(Request::parse(&[0, 3]), Some(Err(Refusal::UnsupportedOpcode)));
        assert_eq!(Request::parse(&[0, 129]), None, "a response");
        assert_eq!(Request::parse(&FORWARD.encode()[..11]), None, "cut off");
    }

    #[test]
    fn rfc_6886_3_responses_as_they_are_on_the_wire() {
        let granted = Granted::Forward {
            protocol: Protocol::Tcp,
            internal_port: 8080,
            external_port: 81,
            lifetime: Duration::from_secs(60),
        };
        let response = Response { epoch: 9, result: Ok(granted) };
        let bytes = response.encode(&FORWARD.encode());
        assert_eq!(bytes, [0, 130, 0, 0, 0, 0, 0, 9, 0x1f, 0x90, 0, 81, 0, 0, 0, 60]);
        assert_eq!(Response::parse(&bytes, &FORWARD), Some(response));
        assert_eq!(Response::parse(&bytes, &Request::PublicAddress), None, "another request's");
        let refused = Response { epoch: 9, result: Err(Refusal::OutOfResources) };
        let bytes = refused.encode(&FORWARD.encode());
        assert_eq!(bytes, [0, 130, 0, 4, 0, 0, 0, 9]);
        assert_eq!(Response::parse(&bytes, &FORWARD), Some(refused));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = (Request::parse(&bytes), Response::parse(&bytes, &FORWARD));
        }
    }
}
