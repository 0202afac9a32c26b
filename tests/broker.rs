//! A broker and those it introduces, on loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use grenache::broker::{
    Broker, BrokerClient, BrokerConfig, EXTENSION, MAX_PUNCHED, MAX_REQUEST, PREDICTED_PORTS, RelayConfig,
};
use grenache::event::Event;
use grenache::link::{Link, LinkConfig};
use grenache::nat::Behaviour;
use grenache::punch::{Puncher, Subscription};
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::json;
use tokio::time::timeout;

use common::fake_grape::{Answer, FakeGrape};
use common::{PATIENCE, Recorder, any_port};

mod common;

const SERVICE: &str = "fibonacci_worker";

fn endpoint() -> (Endpoint, Arc<Recorder>) {
    let (recorder, net) = Recorder::new();
    (Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap(), recorder)
}

/// A peer of a broker on its one socket.
struct Peer {
    endpoint: Endpoint,
    rpc: PeerRpcClient,
    puncher: Puncher,
    net: Arc<Recorder>,
}

fn peer(link: impl FnOnce(&Endpoint) -> Option<Link>) -> Peer {
    let (endpoint, net) = endpoint();
    let rpc = PeerRpcClient::new(&endpoint, link(&endpoint), ClientConfig::default());
    Peer { rpc, puncher: Puncher::new(&endpoint), endpoint, net }
}

async fn next(punched: &mut Subscription<SocketAddr>) -> SocketAddr {
    timeout(PATIENCE, punched.next()).await.expect("a punch in time").expect("the endpoint is open")
}

#[tokio::test]
async fn both_sides_punch_and_the_client_asks_whoever_punched_it() {
    let (at, broker_net) = endpoint();
    let broker_address = at.local_addr();
    let grape = FakeGrape::new(move |_, path, data| match (path, data.as_str()) {
        ("/announce", _) => Answer::Body(200, "1".to_owned()),
        ("/lookup", Some("fibo_broker")) => Answer::Body(200, json!([broker_address.to_string()]).to_string()),
        _ => Answer::Body(200, "[]".to_owned()),
    });
    let (grape_address, _listening) = grape.listen(at.net()).await;
    let link_of = |endpoint: &Endpoint| Some(Link::new(endpoint.net(), LinkConfig::new(grape_address)));
    let _broker = Broker::start(&at, link_of(&at).as_ref(), BrokerConfig::new("fibo_broker"));
    let announced = Event::Announced { name: "fibo_broker".to_owned(), port: broker_address.port(), nodes: 1 };
    broker_net.until(1, |e| *e == announced).await;

    let (worker, client) = (peer(link_of), peer(link_of));
    let _serving = PeerRpcServer::serve(&worker.endpoint, ServerConfig::default(), |request| async move {
        Ok(json!({"answer to": request.payload}))
    });
    let (mut at_worker, mut at_client) = (worker.puncher.punched(), client.puncher.punched());
    let registering = [(&worker, true), (&client, false)].map(|(peer, server)| {
        let broker = BrokerClient::new(&peer.rpc, &peer.puncher, "fibo_broker", SERVICE, server);
        peer.endpoint.net().spawn(Box::pin(async move { broker.run().await }))
    });

    let worker_address = next(&mut at_client).await;
    assert_eq!(worker_address, worker.endpoint.local_addr(), "the socket that serves is the one that punches");
    assert_eq!(next(&mut at_worker).await, client.endpoint.local_addr(), "the client punches as well");
    let payload = json!(10);
    let answer = timeout(PATIENCE, client.rpc.request_at(worker_address, SERVICE, &payload)).await.unwrap();
    assert_eq!(answer, Ok(json!({"answer to": 10})));
    let registered = |server: bool, address: SocketAddr| {
        let expected = Event::Registered { service: SERVICE.to_owned(), server, address };
        broker_net.count(move |e| *e == expected)
    };
    assert!(registered(true, worker.endpoint.local_addr()) >= 1);
    assert!(registered(false, client.endpoint.local_addr()) >= 1);
    drop(registering);
    assert_eq!(worker.net.count(|e| matches!(e, Event::RequestFailed { .. })), 0);
}

#[tokio::test]
async fn every_waiting_client_is_punched() {
    let (at, _) = endpoint();
    let _broker = Broker::start(&at, None, BrokerConfig::new("fibo_broker"));
    let worker = peer(|_| None);
    let clients: Vec<Peer> = (0..5).map(|_| peer(|_| None)).collect();
    let introduce = async |peer: &Peer, server| {
        let broker = BrokerClient::new(&peer.rpc, &peer.puncher, at.local_addr(), SERVICE, server);
        timeout(PATIENCE, broker.introduce()).await.unwrap().unwrap()
    };
    let mut punched: Vec<_> = clients.iter().map(|client| client.puncher.punched()).collect();
    for client in &clients {
        assert_eq!(introduce(client, false).await, [], "no worker yet");
    }
    let told = introduce(&worker, true).await;
    assert_eq!(told.len(), 5);
    assert!(told.iter().all(|entry| !entry.server && entry.service == SERVICE));
    for punched in &mut punched {
        assert_eq!(next(punched).await, worker.endpoint.local_addr());
    }
    let mut at_worker = worker.puncher.punched();
    assert_eq!(introduce(&clients[0], false).await[0].socket_addr(), worker.endpoint.local_addr());
    assert_eq!(next(&mut at_worker).await, clients[0].endpoint.local_addr());
}

#[tokio::test]
async fn each_service_has_its_own_peers_and_who_registers_again_is_told_once() {
    let (at, _) = endpoint();
    let _broker = Broker::start(&at, None, BrokerConfig::new("fibo_broker"));
    let (one, other, client) = (peer(|_| None), peer(|_| None), peer(|_| None));
    let introduce = async |peer: &Peer, service: &str, server| {
        let broker = BrokerClient::new(&peer.rpc, &peer.puncher, at.local_addr(), service, server);
        timeout(PATIENCE, broker.introduce()).await.unwrap().unwrap()
    };
    for _ in 0..3 {
        introduce(&one, "one", true).await;
        introduce(&other, "other", true).await;
    }
    // A peer may offer one service and use another.
    introduce(&one, "other", false).await;
    for (service, peer) in [("one", &one), ("other", &other)] {
        let told = introduce(&client, service, false).await;
        let addresses: Vec<_> = told.iter().map(grenache::broker::Entry::socket_addr).collect();
        assert_eq!(addresses, [peer.endpoint.local_addr()], "{service}");
    }
}

#[tokio::test]
async fn what_a_nat_does_is_told_to_those_who_ask_for_it_and_to_nobody_else() {
    let (at, _) = endpoint();
    let _broker = Broker::start(&at, None, BrokerConfig::new("fibo_broker"));
    let (worker, client) = (peer(|_| None), peer(|_| None));
    let telling = BrokerClient::new(&worker.rpc, &worker.puncher, at.local_addr(), SERVICE, true).nat(Behaviour::OPEN);
    timeout(PATIENCE, telling.register()).await.unwrap().unwrap();
    let ask = async |more: serde_json::Value| {
        let mut payload = json!({"service": SERVICE, "server": false});
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        timeout(PATIENCE, client.rpc.request_at(at.local_addr(), "fibo_broker", &payload)).await.unwrap().unwrap()
    };
    let plain = ask(json!({})).await;
    assert!(!plain.to_string().contains("nat") && plain.as_object().unwrap().len() == 1, "{plain}");
    let extended = ask(json!({"wait": 0})).await;
    assert!(extended.to_string().contains("no-nat") && extended.get(EXTENSION).is_some(), "{extended}");
}

#[tokio::test]
async fn a_malformed_registration_is_an_error_and_reported() {
    let (at, net) = endpoint();
    let _broker = Broker::start(&at, None, BrokerConfig::new("fibo_broker"));
    let peer = peer(|_| None);
    for payload in [json!(null), json!({"service": SERVICE}), json!({"service": "", "server": true})] {
        let answer = timeout(PATIENCE, peer.rpc.request_at(at.local_addr(), "fibo_broker", &payload)).await.unwrap();
        assert!(answer.unwrap_err().to_string().starts_with("ERR_BROKER_PAYLOAD"));
    }
    assert_eq!(net.count(|e| matches!(e, Event::Malformed { layer: "broker", .. })), 3);
    assert_eq!(net.count(|e| matches!(e, Event::Registered { .. })), 0);
}

#[tokio::test]
async fn who_is_not_registered_gets_no_relay_and_takes_no_place() {
    let (on, net) = endpoint();
    let config = BrokerConfig::new("fibo_broker").relay(RelayConfig::default().sessions(1));
    let _broker = Broker::start(&on, None, config);
    let (worker, stranger) = (peer(|_| None), peer(|_| None));
    let at = on.local_addr();
    let registration = json!({ "service": "fibo", "server": true, "wait": 0 });
    let answer = worker.rpc.request_at(at, EXTENSION, &registration).await.unwrap();
    let ask = json!({ "service": "fibo", "server": true, "do": "relay", "to": answer[EXTENSION]["key"] });
    for _ in 0..2 {
        let refused = stranger.rpc.request_at(at, EXTENSION, &ask).await.unwrap_err();
        assert!(refused.to_string().starts_with("ERR_BROKER_UNREGISTERED"), "{refused}");
    }
    assert_eq!(net.count(|e| matches!(e, Event::RelayOpened { .. })), 0);
    let offer = worker.rpc.request_at(at, EXTENSION, &ask).await.unwrap();
    assert!(offer["port"].is_u64(), "the place is there still: {offer}");
}

#[tokio::test]
async fn a_request_may_have_the_limit_and_no_byte_more() {
    let (on, _) = endpoint();
    let _broker = Broker::start(&on, None, BrokerConfig::new("fibo_broker"));
    let client = peer(|_| None);
    // What is around the filler, the id included, has less than 1 KiB.
    for (filler, taken) in [(MAX_REQUEST - 1024, true), (MAX_REQUEST, false)] {
        let payload = json!({ "service": SERVICE, "server": true, "filler": "x".repeat(filler) });
        let answer = client.rpc.request_at(on.local_addr(), "fibo_broker", &payload).await;
        match answer {
            Ok(_) => assert!(taken, "{filler} bytes are taken"),
            Err(error) => assert!(!taken && error.to_string().contains("ERR_REQUEST_SIZE"), "{filler}: {error}"),
        }
    }
}

#[tokio::test]
async fn so_many_addresses_of_an_answer_are_punched_and_no_more() {
    let (on, _) = endpoint();
    let _broker = PeerRpcServer::serve(&on, ServerConfig::default(), |_| async move {
        let entry =
            |nth: usize| json!({ "service": SERVICE, "server": true, "address": "127.9.9.9", "port": 1000 + nth });
        let entries = (0..MAX_PUNCHED + 50).map(|nth| (nth.to_string(), entry(nth)));
        Ok(json!({ SERVICE: serde_json::Value::Object(entries.collect()) }))
    });
    let client = peer(|_| None);
    let broker = BrokerClient::new(&client.rpc, &client.puncher, on.local_addr(), SERVICE, false);
    let punched = timeout(PATIENCE, broker.introduce()).await.unwrap().unwrap();
    assert_eq!(punched.len(), MAX_PUNCHED);
    let sent = client.net.count(|e| matches!(e, Event::PunchSent { .. }));
    assert_eq!(sent, MAX_PUNCHED * (1 + usize::from(PREDICTED_PORTS)));
}
