//! Checked decoding of KRPC messages: typed fields first, then the message that they make up.

use std::net::{Ipv4Addr, SocketAddrV4};

use bendy::decoding::{Decoder, DictDecoder, ListDecoder, Object};

use super::{
    Answer, Body, Contact, DecodeError, Key, MAX_DATAGRAM, MAX_LISTED, MAX_TOKEN, MAX_TRANSACTION, Message, Mutable,
    NodeId, Query,
};
use crate::grape::bencode::{self, MAX_DEPTH, Value};

type Result<T> = std::result::Result<T, DecodeError>;

/// The longest error text that is kept, in bytes; longer ones are cut.
const MAX_ERROR_TEXT: usize = 256;

impl From<bendy::decoding::Error> for DecodeError {
    fn from(_: bendy::decoding::Error) -> Self {
        Self::Bencode
    }
}

impl Message {
    /// Decodes one datagram.
    ///
    /// # Errors
    /// Where the bytes are not one message that this project knows.
    pub fn decode(datagram: &[u8]) -> Result<Self> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(DecodeError::TooLong(datagram.len()));
        }
        let mut decoder = Decoder::new(datagram).with_max_depth(MAX_DEPTH);
        let top = match decoder.next_object()? {
            Some(Object::Dict(dict)) => Top::read(dict)?,
            _ => return Err(DecodeError::Bencode),
        };
        if decoder.next_object()?.is_some() {
            return Err(DecodeError::Bencode);
        }
        top.into_message()
    }
}

/// The keys of a message.
#[derive(Default)]
struct Top<'a> {
    arguments: Option<Fields<'a>>,
    error: Option<(i64, String)>,
    method: Option<&'a [u8]>,
    answer: Option<Fields<'a>>,
    transaction: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
}

impl<'a> Top<'a> {
    fn read(mut dict: DictDecoder<'_, 'a>) -> Result<Self> {
        let mut top = Self::default();
        while let Some((name, object)) = dict.next_pair()? {
            match name {
                b"a" => top.arguments = Some(Fields::read(dictionary(object, "a")?)?),
                b"e" => top.error = Some(read_error(list(object, "e")?)?),
                b"q" => top.method = Some(text(object, "q")?),
                b"r" => top.answer = Some(Fields::read(dictionary(object, "r")?)?),
                b"t" => top.transaction = Some(text(object, "t")?),
                b"y" => top.kind = Some(text(object, "y")?),
                // What is not known is skipped, but must be well formed: dropping the object checks it.
                _ => {}
            }
        }
        Ok(top)
    }

    fn into_message(self) -> Result<Message> {
        let transaction = self.transaction.ok_or(DecodeError::Missing("t"))?;
        if transaction.len() > MAX_TRANSACTION {
            return Err(DecodeError::Invalid("t"));
        }
        let transaction = transaction.to_vec();
        let body = match self.kind.ok_or(DecodeError::Missing("y"))? {
            b"q" => {
                let method = self.method.ok_or(DecodeError::Missing("q"))?;
                let arguments = self.arguments.ok_or(DecodeError::Missing("a"))?;
                Body::Query { sender: arguments.sender(), query: arguments.into_query(method, &transaction)? }
            }
            b"r" => Body::Answer(Box::new(self.answer.ok_or(DecodeError::Missing("r"))?.into_answer()?)),
            b"e" => {
                let (code, text) = self.error.ok_or(DecodeError::Missing("e"))?;
                Body::Error { code, text }
            }
            _ => return Err(DecodeError::UnknownType),
        };
        Ok(Message { transaction, body })
    }
}

/// `[code, text]`; further items are ignored.
fn read_error(mut list: ListDecoder<'_, '_>) -> Result<(i64, String)> {
    let code = match list.next_object()? {
        Some(object) => integer(object, "e")?,
        None => return Err(DecodeError::Invalid("e")),
    };
    let message = match list.next_object()? {
        Some(object) => text(object, "e")?,
        None => b"",
    };
    // Control characters would garble a log or a terminal.
    let mut kept = String::new();
    for c in String::from_utf8_lossy(message).chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > MAX_ERROR_TEXT {
            break;
        }
        kept.push(c);
    }
    Ok((code, kept))
}

/// Every key that a question's arguments or an answer can have, by type.
#[derive(Default)]
struct Fields<'a> {
    id: Option<&'a [u8]>,
    target: Option<Key>,
    info_hash: Option<Key>,
    port: Option<u16>,
    implied_port: bool,
    token: Option<&'a [u8]>,
    value: Option<Value>,
    key: Option<[u8; 32]>,
    signature: Option<[u8; 64]>,
    sequence: Option<i64>,
    salt: Option<&'a [u8]>,
    expected: Option<i64>,
    nodes: Option<Vec<Contact>>,
    values: Option<Vec<SocketAddrV4>>,
}

impl<'a> Fields<'a> {
    fn read(mut dict: DictDecoder<'_, 'a>) -> Result<Self> {
        let mut fields = Self::default();
        while let Some((name, object)) = dict.next_pair()? {
            match name {
                b"id" => fields.id = Some(text(object, "id")?),
                b"target" => fields.target = Some(lookup_key(object, "target")?),
                b"info_hash" => fields.info_hash = Some(lookup_key(object, "info_hash")?),
                b"port" => {
                    let port = integer(object, "port")?;
                    fields.port = Some(port.try_into().map_err(|_| DecodeError::Invalid("port"))?);
                }
                b"implied_port" => fields.implied_port = integer(object, "implied_port")? != 0,
                b"token" => fields.token = Some(bounded(object, "token", MAX_TOKEN)?),
                b"v" => fields.value = Some(value(object)?),
                b"k" => fields.key = Some(fixed(object, "k")?),
                b"sig" => fields.signature = Some(fixed(object, "sig")?),
                b"seq" => fields.sequence = Some(integer(object, "seq")?),
                b"salt" => fields.salt = Some(text(object, "salt")?),
                b"cas" => fields.expected = Some(integer(object, "cas")?),
                b"nodes" => fields.nodes = Some(contacts(text(object, "nodes")?)?),
                b"values" => fields.values = Some(peers(list(object, "values")?)?),
                _ => {}
            }
        }
        Ok(fields)
    }

    fn sender(&self) -> Option<NodeId> {
        self.id?.try_into().ok().map(NodeId)
    }

    fn into_query(self, method: &[u8], transaction: &[u8]) -> Result<Query> {
        let missing = |method, field| DecodeError::MissingArgument { transaction: transaction.to_vec(), method, field };
        match method {
            b"ping" => Ok(Query::Ping),
            b"find_node" => Ok(Query::FindNode { target: self.target.ok_or_else(|| missing("find_node", "target"))? }),
            b"get_peers" => {
                Ok(Query::GetPeers { info_hash: self.info_hash.ok_or_else(|| missing("get_peers", "info_hash"))? })
            }
            b"announce_peer" => {
                const METHOD: &str = "announce_peer";
                let info_hash = self.info_hash.ok_or_else(|| missing(METHOD, "info_hash"))?;
                let token = self.token.ok_or_else(|| missing(METHOD, "token"))?.to_vec();
                let port = match self.port {
                    None if !self.implied_port => return Err(missing(METHOD, "port")),
                    port => port.unwrap_or(0),
                };
                // BEP 5: with implied_port the port is ignored; else 0 is nobody's.
                if port == 0 && !self.implied_port {
                    return Err(DecodeError::Invalid("port"));
                }
                Ok(Query::AnnouncePeer { info_hash, port, implied_port: self.implied_port, token })
            }
            b"get" => {
                let target = self.target.ok_or_else(|| missing("get", "target"))?;
                Ok(Query::Get { target, newer_than: self.sequence })
            }
            b"put" => {
                let token = self.token.ok_or_else(|| missing("put", "token"))?.to_vec();
                let value = self.value.clone().ok_or_else(|| missing("put", "v"))?;
                let mutable = match (self.key, self.signature, self.sequence) {
                    (None, None, _) => None,
                    (None, Some(_), _) => return Err(missing("put", "k")),
                    (Some(_), None, _) => return Err(missing("put", "sig")),
                    (Some(_), Some(_), None) => return Err(missing("put", "seq")),
                    (Some(_), Some(_), Some(_)) => self.mutable(),
                };
                Ok(Query::Put { token, value, mutable })
            }
            _ => Err(DecodeError::UnknownMethod { transaction: transaction.to_vec() }),
        }
    }

    fn into_answer(self) -> Result<Answer> {
        let id = self.sender().ok_or(DecodeError::Invalid("id"))?;
        let mutable = self.mutable().map(|mut mutable| {
            (mutable.salt, mutable.expected) = (None, None);
            mutable
        });
        Ok(Answer {
            id,
            token: self.token.map(<[u8]>::to_vec),
            nodes: self.nodes,
            values: self.values,
            value: self.value,
            sequence: if mutable.is_none() { self.sequence } else { None },
            mutable,
        })
    }

    fn mutable(&self) -> Option<Box<Mutable>> {
        Some(Box::new(Mutable {
            key: self.key?,
            signature: self.signature?,
            sequence: self.sequence?,
            salt: self.salt.map(<[u8]>::to_vec),
            expected: self.expected,
        }))
    }
}

fn dictionary<'o, 'a>(object: Object<'o, 'a>, name: &'static str) -> Result<DictDecoder<'o, 'a>> {
    object.dictionary_or(Err(DecodeError::Invalid(name)))
}

fn list<'o, 'a>(object: Object<'o, 'a>, name: &'static str) -> Result<ListDecoder<'o, 'a>> {
    object.list_or(Err(DecodeError::Invalid(name)))
}

fn text<'a>(object: Object<'_, 'a>, name: &'static str) -> Result<&'a [u8]> {
    object.bytes_or(Err(DecodeError::Invalid(name)))
}

fn bounded<'a>(object: Object<'_, 'a>, name: &'static str, most: usize) -> Result<&'a [u8]> {
    let text = text(object, name)?;
    if text.len() > most { Err(DecodeError::Invalid(name)) } else { Ok(text) }
}

fn fixed<const N: usize>(object: Object<'_, '_>, name: &'static str) -> Result<[u8; N]> {
    text(object, name)?.try_into().map_err(|_| DecodeError::Invalid(name))
}

fn integer(object: Object<'_, '_>, name: &'static str) -> Result<i64> {
    let invalid = DecodeError::Invalid(name);
    object.integer_or(Err(invalid.clone()))?.parse().map_err(|_| invalid)
}

fn lookup_key(object: Object<'_, '_>, name: &'static str) -> Result<Key> {
    Key::new(text(object, name)?).ok_or(DecodeError::Invalid(name))
}

fn value(object: Object<'_, '_>) -> Result<Value> {
    let mut out = Vec::new();
    match object {
        Object::Bytes(text) => bencode::bytes(&mut out, text),
        Object::Integer(digits) => out.extend([b"i", digits.as_bytes(), b"e"].concat()),
        Object::List(list) => out.extend_from_slice(list.into_raw()?),
        Object::Dict(dict) => out.extend_from_slice(dict.into_raw()?),
    }
    Value::from_bencode(&out).map_err(|_| DecodeError::Invalid("v"))
}

/// 26 bytes each (BEP 5).
fn contacts(compact: &[u8]) -> Result<Vec<Contact>> {
    let (entries, rest) = compact.as_chunks::<26>();
    if !rest.is_empty() {
        return Err(DecodeError::Invalid("nodes"));
    }
    let contact = |entry: &[u8; 26]| {
        let (id, compact) = entry.split_first_chunk::<20>()?;
        Some(Contact { id: NodeId(*id), address: address(compact)? })
    };
    Ok(entries.iter().take(MAX_LISTED).filter_map(contact).collect())
}

/// 6 bytes each (BEP 5); other lengths are another address family's (BEP 32) and ignored.
fn peers(mut list: ListDecoder<'_, '_>) -> Result<Vec<SocketAddrV4>> {
    let mut peers = Vec::new();
    while let Some(object) = list.next_object()? {
        let compact = text(object, "values")?;
        if peers.len() < MAX_LISTED {
            peers.extend(address(compact));
        }
    }
    Ok(peers)
}

fn address(compact: &[u8]) -> Option<SocketAddrV4> {
    let &[a, b, c, d, high, low] = compact else { return None };
    Some(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
}
