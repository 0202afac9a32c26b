//! Which of many services a client asks, and over how many connections, on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use grenache::link::{Link, LinkConfig};
use grenache::net::Task;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, RequestOptions, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::{Value, json};

use common::fake_grape::{Answer, FakeGrape};
use common::{PATIENCE, Recorder, any_port};

mod common;

/// Who was asked how often.
type Asked = Arc<Mutex<BTreeMap<SocketAddr, usize>>>;

/// As many services of one name, and a client that finds them all.
async fn services(count: usize, config: ClientConfig) -> (PeerRpcClient, Asked, (Vec<PeerRpcServer>, Task)) {
    let (_, net) = Recorder::new();
    let asked = Asked::default();
    let mut addresses = Vec::new();
    let servers = (0..count).map(|_| {
        let endpoint = Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap();
        let (at, asked) = (endpoint.local_addr(), asked.clone());
        addresses.push(at.to_string());
        PeerRpcServer::serve(&endpoint, ServerConfig::default(), move |_| {
            *asked.lock().unwrap().entry(at).or_default() += 1;
            async { Ok(Value::Null) }
        })
    });
    let servers = servers.collect();
    let found = json!(addresses).to_string();
    let grape = FakeGrape::new(move |_, _, _| Answer::Body(200, found.clone()));
    let (at, listening) = grape.listen(&net).await;
    let endpoint = Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap();
    let client = PeerRpcClient::new(&endpoint, Some(Link::new(&net, LinkConfig::new(at))), config);
    (client.with(RequestOptions::default().timeout(PATIENCE)), asked, (servers, listening))
}

#[tokio::test]
async fn of_a_key_with_many_destinations_five_are_used() {
    for (config, used) in [(ClientConfig::default(), 5), (ClientConfig::default().active_destinations(2), 2)] {
        let (client, asked, _running) = services(12, config).await;
        for n in 0..200 {
            assert_eq!(client.request("key", &json!(n)).await, Ok(Value::Null));
        }
        let asked = asked.lock().unwrap();
        assert_eq!((asked.len(), asked.values().sum::<usize>()), (used, 200));
        assert!(asked.values().all(|count| *count >= 200 / used / 3), "spread: {asked:?}");
        assert_eq!(client.transports(), used, "a connection each");
    }
}

#[tokio::test]
async fn a_destination_has_three_connections_at_most() {
    for (config, most) in [(ClientConfig::default(), 3), (ClientConfig::default().transports(1), 1)] {
        let (client, asked, _running) = services(1, config).await;
        let payload = json!(1);
        let answers = join_all((0..500).map(|_| client.request("key", &payload))).await;
        assert!(answers.iter().all(|answer| *answer == Ok(Value::Null)));
        assert_eq!((client.transports(), asked.lock().unwrap().values().sum::<usize>()), (most, 500));
    }
}

#[tokio::test]
async fn an_unused_connection_is_closed() {
    let config = ClientConfig::default().inactivity_timeout(Duration::from_millis(100));
    let (client, _, _running) = services(1, config).await;
    client.request("key", &json!(1)).await.unwrap();
    assert_eq!(client.transports(), 1);
    let closed = async {
        while client.transports() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("it is closed");
    assert_eq!(client.request("key", &json!(1)).await, Ok(Value::Null), "and opened anew");
}
