//! Whole Grapes over the operating system's network, on loopback.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use grenache::grape::krpc::{Body, Message, Query};
use grenache::grape::{Grape, GrapeConfig, GrapeError};
use grenache::net::{HostNetwork, Net};
use serde_json::{Value, json};

use common::http_table::{self, FROM_ELSEWHERE, Whose};
use common::refusing_node::RefusingNode;
use common::signed::signed;

mod common;

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn host() -> Net {
    Arc::new(HostNetwork::new())
}

fn config() -> GrapeConfig {
    GrapeConfig::default().dht_address(LOCALHOST).api_address(LOCALHOST)
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    address
}

async fn start(net: &Net, config: GrapeConfig) -> Grape {
    let grape = Grape::start(net, config).await.unwrap();
    grape.ready().await;
    grape
}

/// Two Grapes, the second of which started from the first.
async fn pair(net: &Net) -> (Grape, Grape) {
    let first = start(net, config()).await;
    let second = start(net, config().bootstrap(vec![v4(first.dht_addr())])).await;
    assert_eq!((first.stats().nodes, second.stats().nodes), (1, 1));
    (first, second)
}

async fn post(net: &Net, grape: &Grape, path: &str, body: impl Into<Vec<u8>>) -> (u16, String) {
    let answer = net.http().post(grape.api_addr(), path, body.into().into());
    let (status, body) = tokio::time::timeout(Duration::from_secs(10), answer).await.expect("no answer").unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn call(net: &Net, grape: &Grape, path: &str, data: Value) -> Value {
    let (status, body) = post(net, grape, path, json!({"rid": "r", "data": data}).to_string()).await;
    assert_eq!(status, 200, "{path}: {body}");
    if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap() }
}

#[tokio::test]
async fn what_is_announced_at_one_grape_is_found_at_the_other() {
    let net = host();
    let (first, second) = pair(&net).await;
    let sixty = "0123456789012345678901234567890123456789012345678901234567ab";
    for (port, name) in (1337..).zip(["rpc_test", "fibonacci_consumer", "abcdefghij0123456789", sixty, "café", "x"]) {
        assert_eq!(call(&net, &first, "/announce", json!([name, port])).await, json!(1), "{name}");
        assert_eq!(call(&net, &second, "/lookup", json!(name)).await, json!([format!("127.0.0.1:{port}")]));
        assert_eq!(call(&net, &first, "/lookup", json!(name)).await, json!([format!("127.0.0.1:{port}")]));
    }
    assert_eq!(second.stats().names, 6);
    assert_eq!(first.stats().names, 0, "a Grape's own announces are stored at others only");

    // Again, from the tokens of last time; another port of the same name is another peer.
    assert_eq!(call(&net, &first, "/announce", json!(["rpc_test", 1337])).await, json!(1));
    assert_eq!(call(&net, &first, "/announce", json!(["rpc_test", 1338])).await, json!(1));
    let mut found = call(&net, &second, "/lookup", json!("rpc_test")).await;
    found.as_array_mut().unwrap().sort_by_key(Value::to_string);
    assert_eq!(found, json!(["127.0.0.1:1337", "127.0.0.1:1338"]));

    // Port 0 is the announcing Grape's own.
    assert_eq!(call(&net, &first, "/announce", json!(["zero", 0])).await, json!(1));
    assert_eq!(call(&net, &second, "/lookup", json!("zero")).await, json!([first.dht_addr().to_string()]));
}

#[tokio::test]
async fn what_is_put_at_one_grape_is_had_at_the_other() {
    let net = host();
    let (first, second) = pair(&net).await;
    let third = start(&net, config().bootstrap(vec![v4(first.dht_addr())])).await;

    let hash = call(&net, &first, "/put", json!({"v": "hello world"})).await;
    let local = call(&net, &first, "/get", hash.clone()).await;
    assert_eq!(local, json!({"id": first.node_id().to_string(), "token": null, "v": "hello world"}));
    let stored = call(&net, &second, "/get", json!({"hash": hash})).await;
    assert_eq!(stored, json!({"id": second.node_id().to_string(), "token": null, "v": "hello world"}));

    // Put before a fourth one came: it has to ask.
    let fourth = start(&net, config().bootstrap(vec![v4(third.dht_addr())])).await;
    let remote = call(&net, &fourth, "/get", hash).await;
    assert_eq!(remote["v"], "hello world");
    assert_eq!(remote["token"].as_str().unwrap().len(), 40);
    let holders = [&first, &second, &third].map(|grape| grape.node_id().to_string());
    assert!(holders.contains(&remote["id"].as_str().unwrap().to_owned()));

    for (value, shown) in [
        (json!("a plain string"), json!("a plain string")),
        (json!({"v": 42}), json!("42")),
        (json!({"v": [1, "two", {"three": 3}]}), json!([1, "two", {"three": 3}])),
    ] {
        let hash = call(&net, &second, "/put", value).await;
        assert_eq!(call(&net, &fourth, "/get", hash).await["v"], shown);
    }
}

#[tokio::test]
async fn the_recorded_hash_is_the_hash() {
    let net = host();
    let (first, _second) = pair(&net).await;
    let vectors: Value = serde_json::from_str(include_str!("vectors/krpc.json")).unwrap();
    let recorded = |name: &str| {
        let vectors = vectors["vectors"].as_array().unwrap();
        let vector = vectors.iter().find(|vector| vector["name"] == name).unwrap();
        Message::decode(&hex::decode(vector["hex"].as_str().unwrap()).unwrap()).unwrap().body
    };
    let Body::Query { query: Query::Get { target, .. }, .. } = recorded("get_query") else { panic!("not a get") };
    let hash = call(&net, &first, "/put", json!({"v": "hello world"})).await;
    assert_eq!(hash, json!(hex::encode(target.as_bytes())));
}

#[tokio::test]
async fn a_lone_grape_answers_as_clients_of_the_reference_expect() {
    let net = host();
    let grape = start(&net, config()).await;
    http_table::check(Whose::Ours, grape.api_addr(), &http_table::alone()).await;
}

#[tokio::test]
async fn a_grape_with_another_answers_as_clients_of_the_reference_expect() {
    let net = host();
    let other = start(&net, config()).await;
    assert_eq!(call(&net, &other, "/put", json!({"v": FROM_ELSEWHERE})).await, "No nodes to query");
    let grape = start(&net, config().bootstrap(vec![v4(other.dht_addr())])).await;
    http_table::check(Whose::Ours, grape.api_addr(), &http_table::with_another(grape.dht_addr().port())).await;
}

#[tokio::test]
async fn no_node_took_it() {
    let net = host();
    let grape = start(&net, config()).await;
    let refuses = RefusingNode::known_to(grape.dht_addr()).await.refuse();
    let rows = http_table::with_one_that_refuses();
    let calls = http_table::check(Whose::Ours, grape.api_addr(), &rows);
    futures_util::future::select(Box::pin(refuses), Box::pin(calls)).await;
}

#[tokio::test]
async fn a_body_may_have_8192_bytes() {
    let net = host();
    let grape = start(&net, config()).await;
    let padded = |len: usize| format!("{:len$}", r#"{"data":"nobody"}"#);
    assert_eq!(post(&net, &grape, "/lookup", padded(8192)).await, (200, "[]".into()));
    assert_eq!(grape.malformed_requests(), 0);
    assert_eq!(post(&net, &grape, "/lookup", padded(8193)).await, (413, "ERR_GRAPE_PAYLOAD_SIZE".into()));
    assert_eq!(grape.malformed_requests(), 1);
    let small = start(&net, config().max_payload(20)).await;
    assert_eq!(post(&net, &small, "/lookup", padded(21)).await, (413, "ERR_GRAPE_PAYLOAD_SIZE".into()));
}

#[tokio::test]
async fn any_method_works_and_answers_say_nothing_of_their_type_or_time() {
    let net = host();
    let grape = start(&net, config()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for method in ["POST", "GET", "PUT", "DELETE", "BREW"] {
        let url = format!("http://{}/lookup", grape.api_addr());
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = client.request(method, url).body(r#"{"data":"nobody"}"#).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let headers: Vec<_> = answer.headers().keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(headers, ["content-length"]);
        assert_eq!(answer.text().await.unwrap(), "[]");
    }
}

#[tokio::test]
async fn a_grape_joins_when_its_bootstrap_comes_later() {
    let net = host();
    // A port that is free for now.
    let place = tokio::net::UdpSocket::bind(LOCALHOST).await.unwrap().local_addr().unwrap();
    let early = start(&net, config().bootstrap(vec![v4(place)])).await;
    assert_eq!(early.stats().nodes, 0);
    let late = start(&net, config().dht_address(place)).await;
    tokio::time::timeout(Duration::from_secs(30), early.until(|stats| stats.nodes > 0)).await.expect("it never joined");
    assert_eq!(call(&net, &early, "/announce", json!(["late", 1])).await, json!(1));
    assert_eq!(call(&net, &late, "/lookup", json!("late")).await, json!(["127.0.0.1:1"]));
}

#[tokio::test]
async fn two_grapes_that_start_from_each_other_find_each_other() {
    let net = host();
    let places = [
        tokio::net::UdpSocket::bind(LOCALHOST).await.unwrap().local_addr().unwrap(),
        tokio::net::UdpSocket::bind(LOCALHOST).await.unwrap().local_addr().unwrap(),
    ];
    let first = Grape::start(&net, config().dht_address(places[0]).bootstrap(vec![v4(places[1])])).await.unwrap();
    let second = Grape::start(&net, config().dht_address(places[1]).bootstrap(vec![v4(places[0])])).await.unwrap();
    second.ready().await;
    assert_eq!(call(&net, &second, "/announce", json!(["x", 5])).await, json!(1));
    assert_eq!(call(&net, &first, "/lookup", json!("x")).await, json!(["127.0.0.1:5"]));
}

#[tokio::test]
async fn a_closed_grape_frees_its_ports() {
    let net = host();
    let grape = start(&net, config()).await;
    let (dht, api) = (grape.dht_addr(), grape.api_addr());
    let taken = Grape::start(&net, config().dht_address(dht)).await;
    assert!(matches!(taken, Err(GrapeError::Dht { address, .. }) if address == dht));
    let taken = Grape::start(&net, config().api_address(api)).await;
    assert!(matches!(taken, Err(GrapeError::Api { address, .. }) if address == api));
    grape.close().await;
    start(&net, config().dht_address(dht).api_address(api)).await;
}

#[tokio::test]
async fn ipv6_is_refused_for_the_dht() {
    let started = Grape::start(&host(), config().dht_address("[::1]:0".parse().unwrap())).await;
    assert!(matches!(started, Err(GrapeError::Dht { .. })));
}

#[tokio::test]
async fn a_grape_that_keeps_its_state_is_the_same_node_after_a_restart() {
    let net = host();
    let (first, second) = pair(&net).await;
    assert_eq!(call(&net, &first, "/announce", json!(["kept", 1])).await, json!(1));
    let (state, place) = (second.state().borrow().clone(), second.dht_addr());
    second.close().await;

    // By way of a file, as a program would keep it.
    let state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
    let again = start(&net, config().dht_address(place).state(state)).await;
    assert_eq!(call(&net, &first, "/announce", json!(["kept", 2])).await, json!(1));
    let received = again.until(|stats| stats.received > 0).await.received;
    assert_eq!(received, 1, "the announce alone: its token still counts, and its node id is the same");
    assert_eq!(call(&net, &again, "/lookup", json!("kept")).await, json!(["127.0.0.1:2"]));
}

#[tokio::test]
async fn a_bootstrap_node_may_be_added_later() {
    let net = host();
    let (first, second) = (start(&net, config()).await, start(&net, config()).await);
    second.add_bootstrap(v4(first.dht_addr())).await;
    second.until(|stats| stats.nodes == 1).await;
    assert_eq!(call(&net, &second, "/announce", json!(["late", 1])).await, json!(1));
}

#[tokio::test]
async fn a_mutable_value_is_put_and_had_over_http() {
    let net = host();
    let (first, second) = pair(&net).await;
    let one = signed("one", 1, None, None);
    let hash = call(&net, &first, "/put", one.clone()).await;
    let there = call(&net, &second, "/get", hash.clone()).await;
    let id = second.node_id().to_string();
    assert_eq!(there, json!({"id": id, "token": null, "v": "one", "k": one["k"], "seq": 1, "sig": one["sig"]}));
    let mut here = call(&net, &first, "/get", json!({"hash": hash})).await;
    assert_eq!(here["token"].take().as_str().unwrap().len(), 40);
    assert_eq!(here, there);

    for (data, status, answer) in [
        (signed("two", 1, None, None), 302, json!("302 sequence number less than current")),
        (signed("two", 2, None, Some(5)), 301, json!("301 CAS mismatch, re-read and try again")),
        (signed("two", 2, None, Some(1)), 200, hash.clone()),
    ] {
        let body = json!({"rid": "r", "data": data}).to_string();
        assert_eq!(post(&net, &first, "/put", body).await, (status, answer.to_string()));
    }
    assert_eq!(call(&net, &first, "/get", hash).await["v"], "two");

    let hash = call(&net, &first, "/put", signed("salted", 1, Some("pepper"), None)).await;
    for grape in [&first, &second] {
        let found = call(&net, grape, "/get", json!({"hash": hash, "salt": "pepper"})).await;
        assert_eq!((&found["v"], &found["salt"]), (&json!("salted"), &json!("pepper")));
    }
    assert_eq!(call(&net, &first, "/get", json!({"hash": hash, "salt": "salt"})).await, Value::Null);
}
