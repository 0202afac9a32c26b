//! Dropping a future ends what it stood for. Requests, maps, handshakes and calls of a link have such tests beside
//! their others.

use std::time::Duration;

use grenache::event::Event;
use grenache::link::{Link, LinkConfig};
use grenache::rpc::{ClientConfig, PeerRpcClient};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::json;
use tokio::time::timeout;

use common::fake_grape::{Answer, FakeGrape};
use common::{PATIENCE, Recorder, any_port};

mod common;

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_dropped_connect_ends_the_attempt() {
    let (recorder, net) = Recorder::new();
    let endpoint = Endpoint::bind(&net, any_port(), EndpointConfig::default().connect_timeout(PATIENCE)).unwrap();
    let silent = tokio::net::UdpSocket::bind(any_port()).await.unwrap();
    assert!(timeout(SHORT, endpoint.connect(silent.local_addr().unwrap())).await.is_err());
    recorder.until(1, |e| matches!(e, Event::UtpClosed { .. })).await;
}

#[tokio::test]
async fn a_request_dropped_during_its_lookup_or_its_connect_leaves_nothing_to_stop_for() {
    let (recorder, net) = Recorder::new();
    let silent = tokio::net::UdpSocket::bind(any_port()).await.unwrap();
    let nobody = silent.local_addr().unwrap();
    let grape = FakeGrape::new(move |_, _, name| match name.as_str() {
        Some("silent") => Answer::Body(200, json!([nobody.to_string()]).to_string()),
        _ => Answer::Hang,
    });
    let (at, _listening) = grape.listen(&net).await;
    let endpoint = Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap();
    let client = PeerRpcClient::new(&endpoint, Some(Link::new(&net, LinkConfig::new(at))), ClientConfig::default());
    for key in ["not found yet", "silent"] {
        assert!(timeout(SHORT, client.request(key, &json!(1))).await.is_err());
    }
    let sent = |e: &Event| matches!(e, Event::RequestSent { to, .. } if *to == nobody);
    assert_eq!(recorder.count(sent), 1);
    // With one in flight it would take the request's minute.
    timeout(PATIENCE, client.stop()).await.expect("nothing is in flight");
    recorder.until(1, |e| matches!(e, Event::UtpClosed { .. })).await;
}
