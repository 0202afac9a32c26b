//! DHT nodes without I/O under floods and hostile datagrams: limits hold, and the node goes on.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;

use common::swarm::{Swarm, accepted, announce_peer, error, key, outside};
use grenache::grape::krpc::{Body, MAX_DATAGRAM, Message, Query, Value};
use grenache::grape::node::{MAX_TRANSMITS, NodeStats};

mod common;

fn attacker(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 66), port)
}

#[test]
fn the_oldest_goes_where_a_store_is_full() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |config| {
        config.max_tables = NonZeroUsize::new(2).unwrap();
        config.max_values = NonZeroUsize::new(2).unwrap();
    });
    let token = swarm.token(outside(), node);
    for name in ["a", "b", "c"] {
        swarm.ask(outside(), node, announce_peer(name, 1, false, token.clone()));
        let value = Value::from_bytes(name.as_bytes());
        swarm.ask(outside(), node, Query::Put { token: token.clone(), value, mutable: None });
    }
    let stats = swarm.nodes[&node].stats();
    assert_eq!((stats.names, stats.values), (2, 2));
    assert_eq!(["a", "b", "c"].map(|name| swarm.lookup(node, name).len()), [0, 1, 1]);
}

#[test]
fn a_flood_of_announces_stays_within_the_limits_and_leaves_half_to_others() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |config| {
        config.max_tables = NonZeroUsize::new(100).unwrap();
        config.max_values = NonZeroUsize::new(100).unwrap();
    });
    let token = swarm.token(outside(), node);
    let put = |token: &[u8], text: String| Query::Put {
        token: token.to_vec(),
        value: Value::from_bytes(text.as_bytes()),
        mutable: None,
    };
    for n in 0..50 {
        swarm.ask(outside(), node, announce_peer(&format!("honest {n}"), 1, false, token.clone()));
        swarm.ask(outside(), node, put(&token, format!("honest {n}")));
    }
    let token = swarm.token(attacker(1), node);
    for n in 0..10_000 {
        assert!(accepted(&swarm.ask(attacker(1), node, announce_peer(&format!("flood {n}"), 1, false, token.clone()))));
        assert!(accepted(&swarm.ask(attacker(1), node, put(&token, format!("flood {n}")))));
    }
    let NodeStats { names, peers, values, evicted, .. } = swarm.nodes[&node].stats();
    assert_eq!((names, peers, values, evicted), (100, 100, 100, 2 * 9_950));
    assert!((0..50).all(|n| swarm.lookup(node, &format!("honest {n}")) == [SocketAddrV4::new(*outside().ip(), 1)]));
    // Of the flood, the oldest went first.
    assert_eq!(swarm.lookup(node, "flood 9949"), []);
    assert!((9_950..10_000).all(|n| !swarm.lookup(node, &format!("flood {n}")).is_empty()));
}

#[test]
fn a_source_cannot_fill_the_routing_table_alone() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let own = swarm.nodes[&node].id();
    let say = |swarm: &mut Swarm, from, id| {
        let body = Body::Query { sender: Some(id), query: Query::Ping };
        assert!(swarm.say(from, node, &Message { transaction: b"x".to_vec(), body }.encode()).is_some());
    };
    // Ids for every bucket: each shares a number of leading bits with the node's.
    let id = |shared: usize, n: u8| {
        let mut id = own;
        id.0[shared / 8] ^= 0x80 >> (shared % 8);
        id.0[19] = n;
        id
    };
    let buckets = 0..100;
    for shared in buckets.clone() {
        for n in 0..40 {
            say(&mut swarm, attacker(1 + u16::try_from(shared).unwrap() * 40 + u16::from(n)), id(shared, n));
        }
    }
    let flooded = swarm.nodes[&node].stats().nodes;
    assert_eq!(flooded, 100 * 10, "half of each bucket");
    for shared in buckets {
        say(
            &mut swarm,
            SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 100), 1 + u16::try_from(shared).unwrap()),
            id(shared, 99),
        );
    }
    assert_eq!(swarm.nodes[&node].stats().nodes, flooded + 100, "there is room for others in each");
}

/// Each of the first five, alone, ends a Grape of the reference; the last overflows the stack of a decoder that
/// recurses.
#[test]
fn what_crashes_the_reference_is_dropped_and_counted() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let id = "2:id20:aaaaaaaaaaaaaaaaaaaa";
    let query =
        |arguments: &str, method: &str| format!("d1:ad{id}{arguments}e1:q{}:{method}1:t1:x1:y1:qe", method.len());
    let hostile = [
        format!("d1:ad{id}e1:t1:x1:y1:qe"),
        query("9:info_hashi5e", "get_peers"),
        query("9:info_hashle", "get_peers"),
        query("6:targeti5e", "find_node"),
        query("9:info_hash1:x4:porti1e5:tokeni5e", "announce_peer"),
        "d1:a".repeat(15_000),
        "l".repeat(60_000),
        "l".repeat(MAX_DATAGRAM),
    ];
    for (count, datagram) in (1..).zip(&hostile) {
        let shown = &datagram[..datagram.len().min(80)];
        assert_eq!(swarm.say(outside(), node, datagram.as_bytes()), None, "{shown}");
        assert_eq!(swarm.nodes[&node].stats().malformed, count, "{shown}");
    }
    let answer = swarm.ask(outside(), node, Query::FindNode { target: key("still here") });
    assert!(accepted(&answer));
}

#[test]
fn ports_that_are_none_are_refused() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let token = swarm.token(outside(), node);
    for port in ["0", "65536", "-1", "4294967297"] {
        let mut datagram = format!("d1:ad2:id20:{}9:info_hash1:x4:porti{port}e5:token20:", "a".repeat(20)).into_bytes();
        datagram.extend_from_slice(&token);
        datagram.extend_from_slice(b"e1:q13:announce_peer1:t1:x1:y1:qe");
        assert_eq!(swarm.say(outside(), node, &datagram), None, "{port}");
    }
    assert_eq!((swarm.nodes[&node].stats().malformed, swarm.nodes[&node].stats().names), (4, 0));
    for port in [1, 65535] {
        assert!(accepted(&swarm.ask(outside(), node, announce_peer("x", port, false, token.clone()))));
    }
    assert_eq!(swarm.nodes[&node].stats().peers, 2);
    let bad = swarm.ask(outside(), node, announce_peer("x", 1, false, vec![0; 20]));
    assert_eq!(bad, error(203, "cannot `announce_peer` with bad token"));
}

#[test]
fn answers_that_wait_to_be_sent_are_bounded() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let ping =
        Message { transaction: b"test".to_vec(), body: Body::Query { sender: None, query: Query::Ping } }.encode();
    let (now, mut rng) = (swarm.now, swarm.rng.clone());
    let asked = swarm.nodes.get_mut(&node).unwrap();
    let waiting = std::iter::from_fn(|| asked.poll_transmit()).count();
    assert_eq!(waiting, 0);
    for _ in 0..MAX_TRANSMITS + 10 {
        asked.handle_datagram(now, &mut rng, outside(), &ping);
    }
    assert_eq!(asked.stats().dropped, 10);
    assert_eq!(std::iter::from_fn(|| asked.poll_transmit()).count(), MAX_TRANSMITS);
}
