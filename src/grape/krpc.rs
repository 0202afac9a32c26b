//! KRPC, the DHT's messages (BEP 5, BEP 44), as bencoded dictionaries in one datagram each.
//!
//! [`Message::decode`] takes any bytes and gives a value that can hold only valid states, or says what is wrong.
//! Keys that are not known are ignored; known keys of the wrong type are refused. Encoding sorts its keys, as bencode
//! asks for, so that what a well-behaved node sent re-encodes to the same bytes.

use std::fmt;
use std::net::SocketAddrV4;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bencode;
pub use super::bencode::{Value, ValueError};
pub use super::mutable::signed_text;

mod decode;

/// The largest datagram that is decoded, in bytes; longer ones are refused. No message of ours comes near.
pub const MAX_DATAGRAM: usize = 2048;

/// The longest key (info hash or target), in bytes; longer ones are refused.
pub const MAX_KEY: usize = 1024;

/// The longest transaction id, in bytes; longer ones are refused, as they are echoed.
pub const MAX_TRANSACTION: usize = 64;

/// The longest token, in bytes; longer ones are refused. Ours and the reference's have 20.
pub const MAX_TOKEN: usize = 64;

/// The longest salt of a mutable value, in bytes (BEP 44); longer ones are answered with error 207.
pub const MAX_SALT: usize = 64;

/// How many contacts or peers one answer may list; the rest is ignored.
pub const MAX_LISTED: usize = 256;

/// A node's id, also the shape of a value's target: 20 bytes.
///
/// As text, and in serde's formats, it is 40 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(#[serde(with = "hex::serde")] pub [u8; 20]);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What is looked for: an info hash or a target, 1 to [`MAX_KEY`] bytes.
///
/// Cheap to clone. Grapes use a service's name as it is: not hashed, padded or cut, so BEP 5's 20 bytes are only one length of many.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// A key of these bytes; `None` where there are none or too many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (1..=MAX_KEY).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<NodeId> for Key {
    fn from(id: NodeId) -> Self {
        Self(Arc::new(id.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// A node and where it is: 26 bytes in compact form (BEP 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    /// The node's id.
    pub id: NodeId,
    /// Its UDP address.
    pub address: SocketAddrV4,
}

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `t`: chosen by the asker, echoed in the answer.
    pub transaction: Vec<u8>,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// `y = q`.
    Query {
        /// The asker's id; `None` where it gave none of 20 bytes.
        sender: Option<NodeId>,
        /// The question.
        query: Query,
    },
    /// `y = r`.
    Answer(Box<Answer>),
    /// `y = e`.
    Error {
        /// 2xx of BEP 5, 3xx of BEP 44.
        code: i64,
        /// For people.
        text: String,
    },
}

/// A question to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Are you there?
    Ping,
    /// Which nodes do you know close to `target`?
    FindNode {
        /// What to be close to.
        target: Key,
    },
    /// Which peers do you know for `info_hash`, or else which nodes close to it?
    GetPeers {
        /// The service's name.
        info_hash: Key,
    },
    /// Store a peer: the sender's address and a port.
    AnnouncePeer {
        /// The service's name.
        info_hash: Key,
        /// The service's port.
        port: u16,
        /// Whether to take the datagram's source port instead.
        implied_port: bool,
        /// From this node's answer to a `get_peers`.
        token: Vec<u8>,
    },
    /// Which value is stored under `target`, or else which nodes are close to it?
    Get {
        /// The value's hash.
        target: Key,
        /// `seq`: a mutable value is wanted only where its sequence number is larger (BEP 44).
        newer_than: Option<i64>,
    },
    /// Store a value.
    Put {
        /// From this node's answer to a `get`.
        token: Vec<u8>,
        /// The value.
        value: Value,
        /// What makes it mutable; `None` for an immutable one.
        mutable: Option<Box<Mutable>>,
    },
}

/// What a mutable value has beside itself (BEP 44).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutable {
    /// `k`: the ed25519 public key.
    pub key: [u8; 32],
    /// `sig`: the signature over salt, sequence number and value.
    pub signature: [u8; 64],
    /// `seq`: grows with each change.
    pub sequence: i64,
    /// `salt`: tells values under one key apart. In a put only.
    pub salt: Option<Vec<u8>>,
    /// `cas`: the sequence number that is expected to be stored. In a put only.
    pub expected: Option<i64>,
}

/// An answer to any question: what is present depends on the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answering node.
    pub id: NodeId,
    /// Nodes close to what was asked for.
    pub nodes: Option<Vec<Contact>>,
    /// To be given back in an `announce_peer` or `put`.
    pub token: Option<Vec<u8>>,
    /// Peers of the service.
    pub values: Option<Vec<SocketAddrV4>>,
    /// The stored value.
    pub value: Option<Value>,
    /// What makes it mutable.
    pub mutable: Option<Box<Mutable>>,
    /// The sequence number of a mutable value that is not newer than was asked for, and so not given (BEP 44).
    pub sequence: Option<i64>,
}

impl Answer {
    /// An answer that says no more than who gives it: the answer to `ping`, `announce_peer` and `put`.
    pub fn new(id: NodeId) -> Self {
        Self { id, nodes: None, token: None, values: None, value: None, mutable: None, sequence: None }
    }
}

/// What is wrong with a datagram.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Longer than [`MAX_DATAGRAM`].
    #[error("a datagram of {0} bytes is longer than any message")]
    TooLong(usize),
    /// Not a bencoded dictionary and nothing else, in sorted order, or nested too deeply.
    #[error("not one well-formed bencoded dictionary")]
    Bencode,
    /// A known key with a value that it cannot have.
    #[error("`{0}` has a type, length or range that it cannot have")]
    Invalid(&'static str),
    /// A key without which nothing can be answered.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// `y` is not `q`, `r` or `e`.
    #[error("`y` is none of `q`, `r`, `e`")]
    UnknownType,
    /// A question that can be answered with error 203 (BEP 5): an argument is missing.
    #[error("`{method}` missing required `a.{field}` field")]
    MissingArgument {
        /// The question's transaction.
        transaction: Vec<u8>,
        /// Its name.
        method: &'static str,
        /// The argument.
        field: &'static str,
    },
    /// A question that can be answered with error 204 (BEP 5): there is none of this name.
    #[error("the method is unknown")]
    UnknownMethod {
        /// The question's transaction.
        transaction: Vec<u8>,
    },
}

impl Message {
    /// The message as a datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(b'd');
        match &self.body {
            Body::Query { sender, query } => {
                bencode::key(&mut out, "a");
                query.encode_arguments(*sender, &mut out);
                bencode::pair(&mut out, "q", query.method().as_bytes());
            }
            Body::Answer(answer) => {
                bencode::key(&mut out, "r");
                answer.encode(&mut out);
            }
            Body::Error { code, text } => {
                bencode::key(&mut out, "e");
                out.push(b'l');
                bencode::integer(&mut out, *code);
                bencode::bytes(&mut out, text.as_bytes());
                out.push(b'e');
            }
        }
        bencode::pair(&mut out, "t", &self.transaction);
        let kind = match self.body {
            Body::Query { .. } => b"q",
            Body::Answer(_) => b"r",
            Body::Error { .. } => b"e",
        };
        bencode::pair(&mut out, "y", kind);
        out.push(b'e');
        out
    }
}

impl Query {
    /// The question's name on the wire.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::FindNode { .. } => "find_node",
            Self::GetPeers { .. } => "get_peers",
            Self::AnnouncePeer { .. } => "announce_peer",
            Self::Get { .. } => "get",
            Self::Put { .. } => "put",
        }
    }

    fn encode_arguments(&self, sender: Option<NodeId>, out: &mut Vec<u8>) {
        out.push(b'd');
        if let Self::Put { mutable: Some(mutable), .. } = self
            && let Some(expected) = mutable.expected
        {
            bencode::key(out, "cas");
            bencode::integer(out, expected);
        }
        if let Some(id) = sender {
            bencode::pair(out, "id", &id.0);
        }
        match self {
            Self::Ping => {}
            Self::FindNode { target } => bencode::pair(out, "target", target.as_bytes()),
            Self::Get { target, newer_than } => {
                if let Some(sequence) = newer_than {
                    bencode::key(out, "seq");
                    bencode::integer(out, *sequence);
                }
                bencode::pair(out, "target", target.as_bytes());
            }
            Self::GetPeers { info_hash } => bencode::pair(out, "info_hash", info_hash.as_bytes()),
            Self::AnnouncePeer { info_hash, port, implied_port, token } => {
                bencode::key(out, "implied_port");
                bencode::integer(out, i64::from(*implied_port));
                bencode::pair(out, "info_hash", info_hash.as_bytes());
                bencode::key(out, "port");
                bencode::integer(out, i64::from(*port));
                bencode::pair(out, "token", token);
            }
            Self::Put { token, value, mutable } => {
                if let Some(mutable) = mutable {
                    mutable.encode_key(out);
                    mutable.encode_rest(out);
                }
                bencode::pair(out, "token", token);
                bencode::key(out, "v");
                out.extend_from_slice(value.as_bencode());
            }
        }
        out.push(b'e');
    }
}

impl Mutable {
    fn encode_key(&self, out: &mut Vec<u8>) {
        bencode::pair(out, "k", &self.key);
    }

    fn encode_rest(&self, out: &mut Vec<u8>) {
        if let Some(salt) = &self.salt {
            bencode::pair(out, "salt", salt);
        }
        bencode::key(out, "seq");
        bencode::integer(out, self.sequence);
        bencode::pair(out, "sig", &self.signature);
    }
}

impl Answer {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'd');
        bencode::pair(out, "id", &self.id.0);
        if let Some(mutable) = &self.mutable {
            mutable.encode_key(out);
        }
        if let Some(nodes) = &self.nodes {
            let compact: Vec<u8> =
                nodes.iter().flat_map(|n| n.id.0.into_iter().chain(compact_address(n.address))).collect();
            bencode::pair(out, "nodes", &compact);
        }
        if let Some(mutable) = &self.mutable {
            mutable.encode_rest(out);
        } else if let Some(sequence) = self.sequence {
            bencode::key(out, "seq");
            bencode::integer(out, sequence);
        }
        if let Some(token) = &self.token {
            bencode::pair(out, "token", token);
        }
        if let Some(value) = &self.value {
            bencode::key(out, "v");
            out.extend_from_slice(value.as_bencode());
        }
        if let Some(values) = &self.values {
            bencode::key(out, "values");
            out.push(b'l');
            for peer in values {
                bencode::bytes(out, &compact_address(*peer));
            }
            out.push(b'e');
        }
        out.push(b'e');
    }
}

/// Four bytes of address and two of port (BEP 5).
fn compact_address(address: SocketAddrV4) -> [u8; 6] {
    let [a, b, c, d] = address.ip().octets();
    let [high, low] = address.port().to_be_bytes();
    [a, b, c, d, high, low]
}
