//! KRPC messages: recorded datagrams, hostile ones, and any bytes at all.

use grenache::grape::krpc::{
    Answer, Body, Contact, DecodeError, Key, MAX_DATAGRAM, MAX_KEY, MAX_TRANSACTION, Message, Mutable, NodeId, Query,
    Value,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn vectors() -> Vec<(String, Vec<u8>)> {
    let file: serde_json::Value = serde_json::from_str(include_str!("vectors/krpc.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap().iter();
    vectors
        .map(|vector| {
            let bytes = hex::decode(vector["hex"].as_str().unwrap()).unwrap();
            assert_eq!(bytes.len() as u64, vector["len"].as_u64().unwrap());
            (vector["name"].as_str().unwrap().to_owned(), bytes)
        })
        .collect()
}

fn vector(name: &str) -> Vec<u8> {
    vectors().into_iter().find(|(other, _)| other == name).expect(name).1
}

#[test]
fn every_recorded_datagram_decodes_and_re_encodes_to_the_same_bytes() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 34);
    for (name, bytes) in vectors {
        let message = Message::decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(message.encode().escape_ascii().to_string(), bytes.escape_ascii().to_string(), "{name}");
    }
}

#[test]
fn recorded_datagrams_mean_what_they_say() {
    let Body::Query { query, .. } = Message::decode(&vector("announce_peer_query_implied1")).unwrap().body else {
        panic!("not a query")
    };
    let Query::AnnouncePeer { info_hash, port: 1, implied_port: true, token } = query else { panic!("{query:?}") };
    assert_eq!((info_hash.as_bytes(), token.len()), (&b"implied_svc"[..], 20));

    let Body::Answer(answer) = Message::decode(&vector("nat_get_peers_values")).unwrap().body else {
        panic!("not an answer")
    };
    assert_eq!(answer.values.unwrap(), ["127.0.0.9:1337".parse().unwrap()]);
    assert_eq!(answer.nodes, None);

    let Body::Query { query, .. } = Message::decode(&vector("put_query_mutable_salt")).unwrap().body else {
        panic!("not a query")
    };
    let Query::Put { value, mutable: Some(mutable), .. } = query else { panic!("{query:?}") };
    assert_eq!((value, mutable.sequence), (Value::from_bytes(b"salted"), 1));
    assert_eq!(mutable.salt.as_deref(), Some(&b"pepper"[..]));

    let error = Message::decode(&vector("error_302_seq")).unwrap().body;
    assert_eq!(error, Body::Error { code: 302, text: "sequence number less than current".into() });
}

/// Four of these, alone, end a Grape of the reference.
#[test]
fn hostile_datagrams_are_refused() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(30_000), close.repeat(30_000));
    let nested = |depth| {
        format!("d1:ad2:id20:aaaaaaaaaaaaaaaaaaaa1:x{}{}e1:q4:ping1:t1:x1:y1:qe", "l".repeat(depth), "e".repeat(depth))
    };
    let id = "2:id20:aaaaaaaaaaaaaaaaaaaa";
    let query = |arguments: &str, method: &str| format!("d1:ad{arguments}e1:q{}:{method}1:t1:x1:y1:qe", method.len());
    let invalid = DecodeError::Invalid;
    for (datagram, expected) in [
        (String::new(), DecodeError::Bencode),
        ("4:spam".into(), DecodeError::Bencode),
        ("i1e".into(), DecodeError::Bencode),
        ("le".into(), DecodeError::Bencode),
        ("de".into(), DecodeError::Missing("t")),
        ("d1:t1:xe".into(), DecodeError::Missing("y")),
        ("d1:t1:x1:y1:ze".into(), DecodeError::UnknownType),
        ("d1:t1:x1:y1:qe".into(), DecodeError::Missing("q")),
        ("d1:ade1:t1:x1:y1:qe".into(), DecodeError::Missing("q")),
        ("d1:q4:ping1:t1:x1:y1:qe".into(), DecodeError::Missing("a")),
        ("d1:ai1e1:q4:ping1:t1:x1:y1:qe".into(), invalid("a")),
        ("d1:ade1:qi1e1:t1:x1:y1:qe".into(), invalid("q")),
        ("d1:t1:x1:y1:re".into(), DecodeError::Missing("r")),
        ("d1:rde1:t1:x1:y1:re".into(), invalid("id")),
        ("d1:t1:x1:y1:ee".into(), DecodeError::Missing("e")),
        ("d1:ele1:t1:x1:y1:ee".into(), invalid("e")),
        (query(&format!("{id}9:info_hashi5e"), "get_peers"), invalid("info_hash")),
        (query(&format!("{id}9:info_hashle"), "get_peers"), invalid("info_hash")),
        (query(&format!("{id}9:info_hash0:"), "get_peers"), invalid("info_hash")),
        (query(&format!("{id}6:targeti5e"), "find_node"), invalid("target")),
        (query(&format!("{id}6:targeti5e"), "get"), invalid("target")),
        (query(&format!("{id}9:info_hash1:x4:porti1e5:tokeni5e"), "announce_peer"), invalid("token")),
        (query(&format!("{id}9:info_hash1:x4:porti65536e5:token1:x"), "announce_peer"), invalid("port")),
        (query(&format!("{id}9:info_hash1:x4:porti-1e5:token1:x"), "announce_peer"), invalid("port")),
        (query(&format!("{id}9:info_hash1:x4:porti0e5:token1:x"), "announce_peer"), invalid("port")),
        (query(&format!("{id}5:tokeni5e1:v1:x"), "put"), invalid("token")),
        (query(&format!("{id}1:k1:x"), "put"), invalid("k")),
        (query(&format!("{id}3:seqi99999999999999999999e"), "put"), invalid("seq")),
        (format!("d1:rd{id}5:nodes27:{}e1:t1:x1:y1:re", "n".repeat(27)), invalid("nodes")),
        (format!("d1:rd{id}6:valuesli1eee1:t1:x1:y1:re"), invalid("values")),
        ("d1:y1:q1:t1:x1:q4:pinge".into(), DecodeError::Bencode),
        ("d1:t1:x1:t1:xe".into(), DecodeError::Bencode),
        ("d1:t01:x1:y1:qe".into(), DecodeError::Bencode),
        ("d1:t1:xe1:x".into(), DecodeError::Bencode),
        ("d1:t99:xe".into(), DecodeError::Bencode),
        (nested(15), DecodeError::Bencode),
        (deep("l", "e"), DecodeError::TooLong(60_000)),
        (deep("d1:a", "e"), DecodeError::TooLong(150_000)),
        ("l".repeat(MAX_DATAGRAM), DecodeError::Bencode),
    ] {
        let shown = &datagram[..datagram.len().min(100)];
        assert_eq!(Message::decode(datagram.as_bytes()), Err(expected), "{shown}");
    }
    assert!(Message::decode(nested(14).as_bytes()).is_ok(), "what is not known may nest as deep as a message can");
}

#[test]
fn a_question_that_lacks_an_argument_can_be_answered() {
    let recorded = ["error_203_missing_target", "error_203_missing_info_hash"];
    for (method, recorded) in ["find_node", "get_peers"].into_iter().zip(recorded) {
        let datagram = format!("d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q9:{method}1:t3:abc1:y1:qe");
        let Err(error) = Message::decode(datagram.as_bytes()) else { panic!("decoded") };
        let DecodeError::MissingArgument { transaction, .. } = &error else { panic!("{error:?}") };
        assert_eq!(transaction, b"abc");
        let Body::Error { text, .. } = Message::decode(&vector(recorded)).unwrap().body else { panic!("no error") };
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn limits_just_hold() {
    let ping = |t: usize| format!("d1:ade1:q4:ping1:t{t}:{}1:y1:qe", "t".repeat(t)).into_bytes();
    assert!(Message::decode(&ping(0)).is_ok());
    assert!(Message::decode(&ping(MAX_TRANSACTION)).is_ok());
    assert_eq!(Message::decode(&ping(MAX_TRANSACTION + 1)), Err(DecodeError::Invalid("t")));
    assert!(Key::new(&[b'k'; MAX_KEY]).is_some() && Key::new(&[b'k'; MAX_KEY + 1]).is_none());

    // Two bytes and a control character each: 256 bytes of what is left are kept.
    let text = "é\x1b".repeat(200);
    let error = format!("d1:eli201e{}:{text}e1:t1:x1:y1:ee", text.len());
    let decoded = Message::decode(error.as_bytes()).unwrap();
    assert_eq!(decoded.body, Body::Error { code: 201, text: "é".repeat(128) });
}

fn node_id() -> impl Strategy<Value = NodeId> {
    any::<[u8; 20]>().prop_map(NodeId)
}

fn key() -> impl Strategy<Value = Key> {
    vec(any::<u8>(), 1..80).prop_map(|bytes| Key::new(&bytes).unwrap())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![any::<i64>().prop_map(serde_json::Value::from), ".{0,20}".prop_map(serde_json::Value::from)];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            proptest::collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
    .prop_map(|json| Value::from_json(&json).unwrap())
}

fn mutable(put: bool) -> impl Strategy<Value = Option<Box<Mutable>>> {
    let parts = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<i64>(), option::of(vec(any::<u8>(), 0..64)), any::<i64>());
    option::of(parts.prop_map(move |(key, half, sequence, salt, cas)| {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&half);
        let (salt, expected) = if put { (salt, Some(cas)) } else { (None, None) };
        Box::new(Mutable { key, signature, sequence, salt, expected })
    }))
}

fn message() -> impl Strategy<Value = Message> {
    let token = || vec(any::<u8>(), 0..64);
    let query = prop_oneof![
        Just(Query::Ping),
        key().prop_map(|target| Query::FindNode { target }),
        key().prop_map(|info_hash| Query::GetPeers { info_hash }),
        (key(), option::of(any::<i64>())).prop_map(|(target, newer_than)| Query::Get { target, newer_than }),
        (key(), 1..=u16::MAX, any::<bool>(), token()).prop_map(|(info_hash, port, implied_port, token)| {
            Query::AnnouncePeer { info_hash, port, implied_port, token }
        }),
        (token(), value(), mutable(true)).prop_map(|(token, value, mutable)| Query::Put { token, value, mutable }),
    ];
    let address = || any::<([u8; 4], u16)>().prop_map(|(ip, port)| std::net::SocketAddrV4::new(ip.into(), port));
    let contact = (node_id(), address()).prop_map(|(id, address)| Contact { id, address });
    let answer = (
        node_id(),
        option::of(vec(contact, 0..8)),
        option::of(token()),
        option::of(vec(address(), 0..8)),
        option::of(value()),
        mutable(false),
        option::of(any::<i64>()),
    );
    let body = prop_oneof![
        (option::of(node_id()), query).prop_map(|(sender, query)| Body::Query { sender, query }),
        answer.prop_map(|(id, nodes, token, values, value, mutable, sequence)| {
            let sequence = sequence.filter(|_| mutable.is_none());
            Body::Answer(Box::new(Answer { id, nodes, token, values, value, mutable, sequence }))
        }),
        (any::<i64>(), "[a-zA-Zäöü ]{0,60}").prop_map(|(code, text)| Body::Error { code, text }),
    ];
    (vec(any::<u8>(), 0..MAX_TRANSACTION), body).prop_map(|(transaction, body)| Message { transaction, body })
}

/// Recorded datagrams with some bytes changed, cut off or doubled: closer to the edges than noise.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<Vec<u8>> = vectors().into_iter().map(|(_, bytes)| bytes).collect();
    let change =
        (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(&b"0123456789dlie:-"[..])]);
    (prop::sample::select(all), vec(change, 0..6), any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut bytes, changes, cut, whole)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if !whole {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn a_message_survives_the_wire(message in message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn no_bytes_panic_and_what_decodes_is_stable(bytes in prop_oneof![vec(any::<u8>(), 0..300), mangled()]) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }
}
