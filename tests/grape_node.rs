//! The DHT node without I/O: many of them in one test, on made-up time.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use common::swarm::{Swarm, accepted, address, announce_peer, at, error, key, outside};
use grenache::grape::krpc::{Answer, Body, Contact, Message, NodeId, Query, Value};
use grenache::grape::node::{MAX_OPERATIONS, MAX_PEERS_LISTED, Node, NodeConfig, NodeEvent, OperationError, Outcome};

mod common;

#[test]
fn sixty_nodes_find_what_any_of_them_announced() {
    let mut swarm = Swarm::new(1);
    let nodes: Vec<_> = (1..=60).map(|host| swarm.add(host, |_| ())).collect();
    for (port, node) in (1..).zip(nodes.iter().step_by(7)) {
        let name = format!("service-{port}");
        let Ok(Outcome::Announced(took)) = swarm.announce(*node, &name, port) else { panic!("not announced") };
        assert!(took >= 20, "{took} nodes took it");
        let found = SocketAddrV4::new(*node.ip(), port);
        for other in nodes.iter().step_by(11) {
            assert_eq!(swarm.lookup(*other, &name), [found], "{name} at {other}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let run = |seed| {
        let mut swarm = Swarm::new(seed);
        for host in 1..=8 {
            swarm.add(host, |_| ());
        }
        swarm.announce(address(3), "rpc_test", 1337).unwrap();
        swarm.lookup(address(7), "rpc_test");
        swarm.pass(Duration::from_secs(900));
        swarm.log
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn the_first_query_is_a_find_node_for_the_own_id_with_transaction_1() {
    let mut swarm = Swarm::new(1);
    swarm.add(1, |_| ());
    swarm.add(2, |config| config.id = Some(NodeId(*b"22222222222222222222")));
    let (_, _, datagram) = &swarm.log[0];
    let expected =
        b"d1:ad2:id20:222222222222222222226:target20:22222222222222222222e1:q9:find_node1:t2:\x00\x011:y1:qe";
    assert_eq!(datagram.escape_ascii().to_string(), expected.escape_ascii().to_string());
    let Body::Answer(answer) = Message::decode(&swarm.log[1].2).unwrap().body else { panic!("no answer") };
    assert_eq!(answer.nodes.unwrap(), [Contact { id: NodeId(*b"22222222222222222222"), address: address(2) }]);
}

#[test]
fn a_node_is_ready_after_one_timeout_when_nobody_answers_and_tries_again() {
    let mut swarm = Swarm::new(1);
    let start = swarm.now;
    let node = swarm.add(2, |_| ());
    assert!(swarm.events.is_empty());
    swarm.step();
    assert_eq!(swarm.events, [(node, NodeEvent::Ready)]);
    assert_eq!(swarm.now - start, Duration::from_secs(2));
    // The waits: 1, 2, 4, 8, 10, 10 s, and 2 s each for an answer that does not come.
    for seconds in [3, 7, 13, 23, 35, 47] {
        let before = swarm.log.len();
        swarm.pass(start + Duration::from_secs(seconds) - swarm.now);
        assert_eq!(swarm.log.len(), before + 1, "at {seconds} s");
    }
    // Meanwhile an operation does not wait for whoever has not answered.
    assert_eq!(swarm.announce(node, "x", 1), Err(OperationError::NoNodes));
    swarm.add(1, |_| ());
    swarm.pass(Duration::from_secs(12));
    assert_eq!(swarm.announce(node, "x", 1), Ok(Outcome::Announced(1)));
    let ready = swarm.events.iter().filter(|event| **event == (node, NodeEvent::Ready)).count();
    assert_eq!(ready, 1);
}

#[test]
fn an_operation_during_the_bootstrap_asks_the_bootstrap_node_itself() {
    let mut swarm = Swarm::new(1);
    swarm.add(1, |_| ());
    let config = NodeConfig { bootstrap: vec![address(1)], ..NodeConfig::default() };
    let mut node = Node::new(swarm.now, &mut swarm.rng, config);
    let operation = node.announce(swarm.now, &mut swarm.rng, key("early"), 7);
    swarm.nodes.insert(address(2), node);
    swarm.settle();
    assert_eq!(swarm.outcome((address(2), operation)), Ok(Outcome::Announced(1)));
}

#[test]
fn a_peer_expires_between_one_and_two_maximum_ages_after_its_last_announce() {
    let age = Duration::from_secs(120);
    for (offset, lives, gone) in [(0, 239, 240), (119, 120, 121)] {
        let mut swarm = Swarm::new(1);
        let first = swarm.add(1, |_| ());
        let second = swarm.add(2, |_| ());
        swarm.pass(Duration::from_secs(offset));
        swarm.announce(second, "rpc_test", 1337).unwrap();
        assert!(age.as_secs() <= lives);
        swarm.pass(Duration::from_secs(lives));
        assert_eq!(swarm.lookup(first, "rpc_test"), [at(2, 1337)], "{offset}");
        // What that lookup found is cached: look at the store itself.
        swarm.pass(Duration::from_secs(gone - lives));
        let Body::Answer(answer) = swarm.ask(outside(), first, Query::GetPeers { info_hash: key("rpc_test") }) else {
            panic!("refused")
        };
        assert_eq!(answer.values, None, "{offset}");
        assert!(answer.nodes.is_some());
    }
}

#[test]
fn what_was_looked_up_is_given_again_for_one_to_two_halves_of_the_maximum_age() {
    let mut swarm = Swarm::new(1);
    let first = swarm.add(1, |_| ());
    let second = swarm.add(2, |_| ());
    swarm.announce(first, "rpc_test", 1337).unwrap();
    assert_eq!(swarm.lookup(first, "rpc_test"), [at(1, 1337)]);
    swarm.cut.push(second);
    swarm.pass(Duration::from_secs(100));
    assert_eq!(swarm.lookup(first, "rpc_test"), [at(1, 1337)]);
    swarm.pass(Duration::from_secs(20));
    assert_eq!(swarm.lookup(first, "rpc_test"), []);
}

#[test]
fn an_announce_within_five_minutes_uses_the_tokens_of_last_time() {
    let mut swarm = Swarm::new(1);
    swarm.add(1, |_| ());
    let second = swarm.add(2, |_| ());
    for (seconds, searches, announces) in [(0, 1, 1), (1, 1, 2), (298, 1, 3), (1, 2, 4)] {
        swarm.pass(Duration::from_secs(seconds));
        assert_eq!(swarm.announce(second, "rpc_test", 1337), Ok(Outcome::Announced(1)));
        assert_eq!((swarm.sent("get_peers"), swarm.sent("announce_peer")), (searches, announces));
    }
}

#[test]
fn a_restarted_node_costs_one_more_search_and_no_announce() {
    let same_id = |config: &mut NodeConfig| config.id = Some(NodeId([1; 20]));
    // With the same id it refuses the token; with another id it may not be who gave it.
    for change in [same_id, |_: &mut NodeConfig| ()] {
        let mut swarm = Swarm::new(1);
        swarm.add(1, same_id);
        let second = swarm.add(2, |_| ());
        assert_eq!(swarm.announce(second, "rpc_test", 1337), Ok(Outcome::Announced(1)));
        swarm.add(1, change);
        assert_eq!(swarm.announce(second, "rpc_test", 1337), Ok(Outcome::Announced(1)));
        assert_eq!((swarm.sent("get_peers"), swarm.sent("announce_peer")), (2, 3));
        assert_eq!(swarm.lookup(second, "rpc_test"), [at(2, 1337)]);
    }
}

#[test]
fn a_node_that_refuses_every_token_is_tried_twice_and_no_more() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let other = NodeId([9; 20]);
    let reply = |swarm: &mut Swarm, transaction: Vec<u8>, body: Body| {
        let node = swarm.nodes.get_mut(&node).unwrap();
        node.handle_datagram(swarm.now, &mut swarm.rng, outside(), &Message { transaction, body }.encode());
    };
    reply(&mut swarm, b"x".to_vec(), Body::Query { sender: Some(other), query: Query::Ping });
    swarm.nodes.get_mut(&node).unwrap().poll_transmit().unwrap();
    let (mut announces, mut refusing) = (0, false);
    for round in 0..2 {
        let (now, mut rng) = (swarm.now, swarm.rng.clone());
        swarm.nodes.get_mut(&node).unwrap().announce(now, &mut rng, key("x"), 1);
        while let Some((_, datagram)) = swarm.nodes.get_mut(&node).unwrap().poll_transmit() {
            let Message { transaction, body: Body::Query { query, .. } } = Message::decode(&datagram).unwrap() else {
                panic!("not a query")
            };
            let body = match query {
                Query::AnnouncePeer { .. } if refusing => error(203, "cannot `announce_peer` with bad token"),
                _ => Body::Answer(Box::new(Answer { token: Some(vec![7]), ..Answer::new(other) })),
            };
            announces += usize::from(matches!(query, Query::AnnouncePeer { .. }));
            reply(&mut swarm, transaction, body);
        }
        assert_eq!(announces, [1, 3][round]);
        refusing = true;
    }
    let results = std::iter::from_fn(|| swarm.nodes.get_mut(&node).unwrap().poll_event());
    let results: Vec<_> =
        results.filter_map(|e| if let NodeEvent::Finished { result, .. } = e { Some(result) } else { None }).collect();
    assert_eq!(results, [Ok(Outcome::Announced(1)), Err(OperationError::AllFailed)]);
}

#[test]
fn a_token_is_for_one_address_and_ten_minutes_at_most() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let token = swarm.token(outside(), node);
    assert_eq!(token.len(), 20);
    let same_host = SocketAddrV4::new(*outside().ip(), 4001);
    let other_host = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 4000);
    let query = || announce_peer("x", 1, false, token.clone());
    let bad = error(203, "cannot `announce_peer` with bad token");
    assert!(accepted(&swarm.ask(same_host, node, query())));
    assert_eq!(swarm.ask(other_host, node, query()), bad);
    swarm.pass(Duration::from_secs(599));
    assert!(accepted(&swarm.ask(outside(), node, query())));
    swarm.pass(Duration::from_secs(1));
    assert_eq!(swarm.ask(outside(), node, query()), bad);
    let put = Query::Put { token: vec![0; 20], value: Value::from_bytes(b"x"), mutable: None };
    assert_eq!(swarm.ask(outside(), node, put), error(203, "cannot `put` with bad token"));
}

#[test]
fn an_announced_peer_is_the_senders_address_and_the_port_it_says() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let token = swarm.token(outside(), node);
    assert!(accepted(&swarm.ask(outside(), node, announce_peer("said", 1337, false, token.clone()))));
    assert!(accepted(&swarm.ask(outside(), node, announce_peer("implied", 1, true, token))));
    let host = *outside().ip();
    assert_eq!(swarm.lookup(node, "said"), [SocketAddrV4::new(host, 1337)]);
    assert_eq!(swarm.lookup(node, "implied"), [outside()]);
    let stored = |name, peer| (node, NodeEvent::PeerStored { name: key(name), peer });
    let found = |name, peer| (node, NodeEvent::PeerFound { name: key(name), peer, through: None });
    let looked_up = |name| (node, NodeEvent::LookedUp { name: key(name), nodes: 0 });
    let said = SocketAddrV4::new(host, 1337);
    assert_eq!(
        swarm.events[1..],
        [
            stored("said", said),
            stored("implied", outside()),
            found("said", said),
            looked_up("said"),
            found("implied", outside()),
            looked_up("implied"),
        ]
    );
}

#[test]
fn own_announces_are_stored_at_home_only_where_an_address_is_set() {
    let mut swarm = Swarm::new(1);
    let first = swarm.add(1, |config| config.store_own = Some(*address(1).ip()));
    assert_eq!(swarm.announce(first, "x", 0), Err(OperationError::NoNodes));
    assert_eq!(swarm.lookup(first, "x"), [address(1)], "port 0 is the node's own");
    let lone = swarm.add(2, |config| config.bootstrap.clear());
    assert_eq!(swarm.announce(lone, "x", 5), Err(OperationError::NoNodes));
    assert_eq!(swarm.lookup(lone, "x"), []);
}

#[test]
fn answers_fit_a_datagram_whatever_is_stored() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let token = swarm.token(outside(), node);
    for port in 1..=200 {
        swarm.ask(outside(), node, announce_peer("many", port, false, token.clone()));
    }
    let message = Message {
        transaction: vec![b't'; 64],
        body: Body::Query { sender: None, query: Query::GetPeers { info_hash: key("many") } },
    };
    let target = swarm.nodes.get_mut(&node).unwrap();
    target.handle_datagram(swarm.now, &mut swarm.rng, outside(), &message.encode());
    let (_, datagram) = target.poll_transmit().unwrap();
    assert!(datagram.len() <= 1000, "{} bytes", datagram.len());
    let Body::Answer(answer) = Message::decode(&datagram).unwrap().body else { panic!("refused") };
    assert_eq!((answer.values.unwrap().len(), answer.nodes), (MAX_PEERS_LISTED, None));
    assert_eq!(swarm.lookup(node, "many").len(), MAX_PEERS_LISTED);
}

#[test]
fn an_answer_from_elsewhere_or_to_nothing_is_not_believed() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(2, |_| ());
    let (_, _, query) = swarm.log[0].clone();
    let transaction = Message::decode(&query).unwrap().transaction;
    let answer = Message { transaction, body: Body::Answer(Box::new(Answer::new(NodeId([9; 20])))) }.encode();
    assert_eq!(swarm.say(outside(), node, &answer), None);
    assert_eq!((swarm.nodes[&node].stats().nodes, swarm.nodes[&node].stats().unexpected), (0, 1));
    assert_eq!(swarm.say(address(1), node, &answer), None);
    assert_eq!(swarm.nodes[&node].stats().nodes, 1);
    assert_eq!(swarm.say(address(1), node, &answer), None);
    assert_eq!(swarm.nodes[&node].stats().unexpected, 2, "an answer counts once");
}

#[test]
fn malformed_datagrams_are_counted_and_answered_where_there_is_an_answer() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let query = |method: &str| format!("d1:ade1:q{}:{method}1:t1:x1:y1:qe", method.len()).into_bytes();
    for (datagram, answer) in [
        (b"x".to_vec(), None),
        (b"d1:t1:x1:y1:qe".to_vec(), None),
        (query("find_node"), Some(error(203, "`find_node` missing required `a.target` field"))),
        (query("announce_peer"), Some(error(203, "`announce_peer` missing required `a.info_hash` field"))),
        (query("put"), Some(error(203, "`put` missing required `a.token` field"))),
        (query("vote"), Some(error(204, "Method Unknown"))),
    ] {
        assert_eq!(swarm.say(outside(), node, &datagram), answer, "{}", datagram.escape_ascii());
    }
    assert_eq!(swarm.nodes[&node].stats().malformed, 6);
    swarm.settle();
    let malformed = |(_, event): &&(SocketAddrV4, NodeEvent)| matches!(event, NodeEvent::Malformed { .. });
    assert_eq!(swarm.events.iter().filter(malformed).count(), 6);
}

#[test]
fn identical_lookups_share_one_search() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    swarm.add(2, |_| ());
    let (now, mut rng) = (swarm.now, swarm.rng.clone());
    let asking = swarm.nodes.get_mut(&node).unwrap();
    let first = asking.lookup(now, &mut rng, key("x"));
    assert_eq!(asking.lookup(now, &mut rng, key("x")), first);
    assert_ne!(asking.lookup(now, &mut rng, key("y")), first);
    swarm.settle();
    assert_eq!(swarm.sent("get_peers"), 2);
    let later = swarm.with(node, |node, now, rng| node.lookup(now, rng, key("x")));
    assert_ne!(later, (node, first));
}

#[test]
fn there_is_an_end_to_operations_at_once() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let second = swarm.add(2, |_| ());
    swarm.cut.push(second);
    let last = (0..=MAX_OPERATIONS)
        .map(|n| swarm.with(node, |node, now, rng| node.lookup(now, rng, key(&n.to_string()))))
        .last()
        .unwrap();
    assert_eq!(swarm.outcomes, [(last, Err(OperationError::Busy))]);
    swarm.step();
    assert_eq!(swarm.outcomes.len(), MAX_OPERATIONS + 1);
    assert_eq!(swarm.lookup(node, "again"), []);
}

#[test]
fn an_operation_keeps_no_more_queries_in_flight_than_it_may() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |config| config.concurrency = 3);
    for host in 2..=9 {
        swarm.add(host, |_| ());
    }
    let (now, mut rng) = (swarm.now, swarm.rng.clone());
    let asking = swarm.nodes.get_mut(&node).unwrap();
    asking.lookup(now, &mut rng, key("x"));
    assert_eq!(std::iter::from_fn(|| asking.poll_transmit()).count(), 3);
}

#[test]
fn a_silent_node_is_pinged_and_dropped() {
    let mut swarm = Swarm::new(1);
    let node = swarm.add(1, |_| ());
    let second = swarm.add(2, |_| ());
    swarm.pass(Duration::from_secs(600));
    assert_eq!(swarm.nodes[&node].stats().nodes, 1, "it answers its pings");
    assert!(swarm.sent("ping") > 0);
    swarm.cut.push(second);
    swarm.pass(Duration::from_secs(600));
    assert_eq!(swarm.nodes[&node].stats().nodes, 0);
    // The one that was cut off knows nobody either, and comes back by itself.
    assert_eq!(swarm.nodes[&second].stats().nodes, 0);
    swarm.cut.clear();
    swarm.pass(Duration::from_secs(12));
    assert_eq!((swarm.nodes[&node].stats().nodes, swarm.nodes[&second].stats().nodes), (1, 1));
}
