//! Values at DHT nodes without I/O (BEP 44): immutable and mutable ones.

use std::net::SocketAddrV4;

use common::swarm::{Swarm, accepted, address, error, outside};
use ed25519_dalek::{Signer, SigningKey};
use grenache::grape::krpc::{Answer, Body, Message, Mutable, NodeId, Query, Value, signed_text};
use grenache::grape::node::{FoundValue, NodeEvent, OperationError, Outcome};

mod common;

/// A mutable value, signed.
fn signed(text: &str, sequence: i64, salt: Option<&str>, expected: Option<i64>) -> (Value, Box<Mutable>) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let (value, salt) = (Value::from_bytes(text.as_bytes()), salt.map(|salt| salt.as_bytes().to_vec()));
    let signature = key.sign(&signed_text(salt.as_deref(), sequence, &value)).to_bytes();
    (value, Box::new(Mutable { key: key.verifying_key().to_bytes(), signature, sequence, salt, expected }))
}

fn put(swarm: &mut Swarm, at: SocketAddrV4, signed: (Value, Box<Mutable>)) -> Result<Outcome, OperationError> {
    let (value, mutable) = signed;
    let operation = swarm.with(at, |node, now, rng| node.put(now, rng, value, Some(mutable)));
    swarm.outcome(operation)
}

/// The value's text and sequence number, as `at` finds them.
fn get(swarm: &mut Swarm, at: SocketAddrV4, target: NodeId, salt: Option<&str>) -> Option<(String, i64)> {
    let salt = salt.map(|salt| salt.as_bytes().to_vec());
    let operation = swarm.with(at, |node, now, rng| node.get(now, rng, target, salt));
    let Ok(Outcome::Value(found)) = swarm.outcome(operation) else { panic!("a get gives a value or none") };
    let FoundValue { value, mutable, .. } = found?;
    Some((value.to_json().as_str().unwrap().to_owned(), mutable.unwrap().sequence))
}

fn refused(code: i64, text: &str) -> Result<Outcome, OperationError> {
    Err(OperationError::Refused { code, text: text.into() })
}

#[test]
fn values_up_to_1000_bytes_are_taken_from_others() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let token = swarm.token(outside(), node);
    let put = |len| Query::Put { token: token.clone(), value: Value::from_bytes(&vec![b'v'; len]), mutable: None };
    assert!(accepted(&swarm.ask(outside(), node, put(1000))));
    assert_eq!(swarm.ask(outside(), node, put(1001)), error(205, "data payload too large"));
}

#[test]
fn a_value_that_is_not_what_was_asked_for_is_not_believed() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let contact =
        Message { transaction: b"x".to_vec(), body: Body::Query { sender: Some(NodeId([9; 20])), query: Query::Ping } };
    swarm.say(outside(), node, &contact.encode()).unwrap();
    for (value, found) in [(&b"forged"[..], false), (b"Hello World!", true)] {
        let target = NodeId(hex::decode("e5f96f6f38320f0f33959cb4d3d656452117aadb").unwrap().try_into().unwrap());
        let (now, mut rng) = (swarm.now, swarm.rng.clone());
        let asking = swarm.nodes.get_mut(&node).unwrap();
        asking.get(now, &mut rng, target, None);
        let (_, query) = asking.poll_transmit().unwrap();
        let mut answer = Answer::new(NodeId([9; 20]));
        answer.value = Some(Value::from_bytes(value));
        let transaction = Message::decode(&query).unwrap().transaction;
        let answer = Message { transaction, body: Body::Answer(Box::new(answer)) }.encode();
        asking.handle_datagram(now, &mut rng, outside(), &answer);
        let finished = std::iter::from_fn(|| asking.poll_event()).last().unwrap();
        let NodeEvent::Finished { result: Ok(Outcome::Value(got)), .. } = finished else { panic!("{finished:?}") };
        let value = Value::from_bytes(value);
        assert_eq!(got, found.then_some(FoundValue { id: NodeId([9; 20]), token: None, value, mutable: None }));
    }
}

#[test]
fn bep44_a_mutable_value_is_found_anywhere_and_replaced_by_newer_ones_only() {
    let mut swarm = Swarm::new(1);
    let nodes: Vec<_> = (1..=10).map(|host| swarm.add(host, |_| ())).collect();
    let first = signed("one", 1, None, None);
    let target = first.1.target();
    assert_eq!(put(&mut swarm, nodes[0], first.clone()), Ok(Outcome::Stored(target)));
    for node in &nodes {
        assert_eq!(get(&mut swarm, *node, target, None), Some(("one".into(), 1)));
    }
    assert_eq!(put(&mut swarm, nodes[1], first), Ok(Outcome::Stored(target)), "the same again");
    let stale = || refused(302, "sequence number less than current");
    assert_eq!(put(&mut swarm, nodes[2], signed("other", 1, None, None)), stale());
    assert_eq!(put(&mut swarm, nodes[2], signed("zero", 0, None, None)), stale());
    assert_eq!(
        put(&mut swarm, nodes[3], signed("two", 2, None, Some(7))),
        refused(301, "CAS mismatch, re-read and try again")
    );
    assert_eq!(put(&mut swarm, nodes[3], signed("two", 2, None, Some(1))), Ok(Outcome::Stored(target)));
    for node in nodes {
        assert_eq!(get(&mut swarm, node, target, None), Some(("two".into(), 2)));
    }
}

#[test]
fn bep44_salts_tell_values_of_one_key_apart() {
    let mut swarm = Swarm::new(1);
    let (first, second) = (swarm.add(1, |_| ()), swarm.add(2, |_| ()));
    let values =
        [None, Some("pepper"), Some("chili")].map(|salt| (salt, signed(salt.unwrap_or("none"), 1, salt, None)));
    for (_, value) in &values {
        assert_eq!(put(&mut swarm, first, value.clone()), Ok(Outcome::Stored(value.1.target())));
    }
    for (salt, (_, mutable)) in &values {
        let found = Some((salt.unwrap_or("none").to_owned(), 1));
        assert_eq!(get(&mut swarm, first, mutable.target(), *salt), found);
        assert_eq!(get(&mut swarm, second, mutable.target(), *salt), found);
    }
    // What is stored elsewhere cannot be checked without its salt.
    assert_eq!(get(&mut swarm, first, values[1].1.1.target(), None), None);
    assert_eq!(get(&mut swarm, first, values[1].1.1.target(), Some("salt")), None);
}

#[test]
fn bep44_the_newest_of_what_nodes_have_is_given() {
    let mut swarm = Swarm::new(1);
    let (first, second, third) = (swarm.add(1, |_| ()), swarm.add(2, |_| ()), swarm.add(3, |_| ()));
    let old = signed("old", 1, None, None);
    let target = old.1.target();
    put(&mut swarm, first, old).unwrap();
    // The third misses the change.
    swarm.cut.push(third);
    put(&mut swarm, first, signed("new", 2, None, None)).unwrap();
    swarm.cut.clear();
    for node in [first, second, third] {
        assert_eq!(get(&mut swarm, node, target, None), Some(("new".into(), 2)));
    }
}

#[test]
fn bep44_what_a_node_refuses_to_store() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let token = swarm.token(outside(), node);
    let query =
        |(value, mutable): (Value, Box<Mutable>)| Query::Put { token: token.clone(), value, mutable: Some(mutable) };
    let (value, mutable) = signed("x", 1, None, None);
    for (put, answer) in [
        (Query::Put { token: vec![0; 20], value: value.clone(), mutable: None }, (203, "cannot `put` with bad token")),
        (query(signed(&"v".repeat(1001), 1, None, None)), (205, "data payload too large")),
        (query((Value::from_bytes(b"y"), mutable.clone())), (206, "invalid signature")),
        (query((value.clone(), Box::new(Mutable { key: [2; 32], ..*mutable.clone() }))), (206, "invalid signature")),
        (
            query((value.clone(), Box::new(Mutable { salt: Some(vec![1]), ..*mutable.clone() }))),
            (206, "invalid signature"),
        ),
        (query(signed("x", 1, Some(&"s".repeat(65)), None)), (207, "salt too large")),
    ] {
        assert_eq!(swarm.ask(outside(), node, put), error(answer.0, answer.1));
    }
    assert_eq!(swarm.nodes[&node].stats().values, 0);
    for salt in [None, Some("s".repeat(64))] {
        assert!(accepted(&swarm.ask(outside(), node, query(signed("x", 1, salt.as_deref(), None)))));
    }
}

#[test]
fn bep44_a_get_with_seq_wants_newer_values_only() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let token = swarm.token(outside(), node);
    let (value, mutable) = signed("five", 5, Some("pepper"), None);
    let target = mutable.target();
    assert!(accepted(&swarm.ask(outside(), node, Query::Put { token, value: value.clone(), mutable: Some(mutable) })));
    for (newer_than, given) in [(None, true), (Some(4), true), (Some(5), false), (Some(6), false)] {
        let Body::Answer(answer) = swarm.ask(outside(), node, Query::Get { target: target.into(), newer_than }) else {
            panic!("refused")
        };
        assert_eq!((answer.value.as_ref(), answer.mutable.is_some()), (given.then_some(&value), given));
        assert_eq!(answer.sequence, (!given).then_some(5));
        assert!(answer.token.is_some() && answer.nodes.is_none());
    }
}

/// Recorded from the reference, which a program signed for.
#[test]
fn recorded_mutable_values_are_signed() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("vectors/krpc.json")).unwrap();
    let mut checked = 0;
    for vector in vectors["vectors"].as_array().unwrap() {
        let datagram = hex::decode(vector["hex"].as_str().unwrap()).unwrap();
        let (value, mutable) = match Message::decode(&datagram).unwrap().body {
            Body::Query { query: Query::Put { value, mutable: Some(mutable), .. }, .. } => (value, mutable),
            Body::Answer(answer) if answer.mutable.is_some() => (answer.value.unwrap(), answer.mutable.unwrap()),
            _ => continue,
        };
        assert!(mutable.is_signed(&value), "{}", vector["name"]);
        checked += 1;
    }
    assert_eq!(checked, 4);
}

#[test]
fn a_mutable_value_that_is_not_signed_is_not_believed() {
    let (value, mutable) = signed("right", 3, None, None);
    let (forged, _) = signed("forged", 4, None, None);
    let answers = [
        (forged.clone(), mutable.clone(), false),
        (value.clone(), Box::new(Mutable { sequence: 9, ..*mutable.clone() }), false),
        (value, mutable.clone(), true),
    ];
    for (value, given, believed) in answers {
        let mut swarm = Swarm::new(1);
        let node = swarm.add(2, |_| ());
        let target = mutable.target();
        let (now, mut rng) = (swarm.now, swarm.rng.clone());
        let asking = swarm.nodes.get_mut(&node).unwrap();
        asking.get(now, &mut rng, target, None);
        while let Some((to, query)) = asking.poll_transmit() {
            assert_eq!(to, address(1));
            let mut answer = Answer::new(NodeId([9; 20]));
            (answer.value, answer.mutable) = (Some(value.clone()), Some(given.clone()));
            let transaction = Message::decode(&query).unwrap().transaction;
            let answer = Message { transaction, body: Body::Answer(Box::new(answer)) }.encode();
            asking.handle_datagram(now, &mut rng, to, &answer);
        }
        let finished = std::iter::from_fn(|| asking.poll_event()).find_map(|event| match event {
            NodeEvent::Finished { result: Ok(Outcome::Value(got)), .. } => Some(got),
            _ => None,
        });
        assert_eq!(finished.expect("it ended").is_some(), believed);
    }
}
