//! The client against a peer in the test's hands.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::rpc::{MAX_REFERENCE_MESSAGE, RequestOptions, RpcError};

fn once() -> RequestOptions {
    RequestOptions::default().retries(0)
}

fn ends(events: &[Event]) -> usize {
    events.iter().filter(|e| matches!(e, Event::ReplyReceived { .. } | Event::RequestFailed { .. })).count()
}

#[tokio::test(start_paused = true)]
async fn replies_find_their_requests_in_any_order() {
    let (client, mut peers, net) = client(ClientConfig::default());
    let asking = join_all((0..20).map(|n| {
        let client = client.clone();
        async move { client.request_at(peer_address(), "key", &json!(n)).await }
    }));
    let answering = async {
        let mut peer = peers.recv().await.unwrap();
        let mut requests = Vec::new();
        for _ in 0..20 {
            requests.push(peer.request().await);
        }
        for (rid, payload) in requests.iter().rev() {
            peer.write(&json!([rid, null, {"of": payload}]).to_string()).await;
        }
        peer
    };
    let (answers, _peer) = join(asking, answering).await;
    assert_eq!(answers, (0..20).map(|n| Ok(json!({"of": n}))).collect::<Vec<_>>());
    assert_eq!(client.transports(), 1, "one connection carries them");
    assert_eq!(ends(&net.events()), 20);
}

#[tokio::test(start_paused = true)]
async fn a_handlers_error_is_the_requests_error() {
    let (client, mut peers, net) = client(ClientConfig::default());
    let payload = json!("hello");
    let asking = client.request_at(peer_address(), "key", &payload);
    let answering = async {
        let mut peer = peers.recv().await.unwrap();
        let (rid, _) = peer.request().await;
        peer.write(&json!([rid, "ERR_BOOM", null]).to_string()).await;
        peer
    };
    let (answer, _peer) = join(asking, answering).await;
    assert_eq!(answer, Err(RpcError::Remote("ERR_BOOM".to_owned())));
    assert_eq!(answer.unwrap_err().to_string(), "ERR_BOOM");
    assert_eq!(ends(&net.events()), 1);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_is_exact_and_the_default_is_a_minute() {
    for (options, expected) in [
        (RequestOptions::default(), Duration::from_secs(60)),
        (RequestOptions::default().timeout(Duration::from_millis(7)), Duration::from_millis(7)),
    ] {
        let (client, _peers, net) = client(ClientConfig::default());
        let begun = Instant::now();
        let answer = client.request_at_with(peer_address(), "key", &Value::Null, options).await;
        assert_eq!(answer.unwrap_err().to_string(), "ERR_TIMEOUT");
        assert_eq!(begun.elapsed(), expected);
        assert_eq!(ends(&net.events()), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_is_tried_anew_as_often_as_told() {
    for retries in [0, 1, 3] {
        let (client, mut peers, net) = client(ClientConfig::default());
        let options = RequestOptions::default().retries(retries);
        let asking = client.request_at_with(peer_address(), "key", &Value::Null, options);
        let closing = async {
            for _ in 0..=retries {
                peers.recv().await.unwrap().request().await;
            }
        };
        let (answer, ()) = join(asking, closing).await;
        assert_eq!(answer.unwrap_err().to_string(), "ERR_TRANSPORT_CLOSE");
        assert!(peers.try_recv().is_err(), "no further try");
        let events = net.events();
        assert_eq!(events.iter().filter(|e| matches!(e, Event::RequestSent { .. })).count(), retries as usize + 1);
        assert_eq!(ends(&events), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_connect_has_utps_name() {
    let (client, peers, net) = client(ClientConfig::default());
    drop(peers);
    let answer = client.request_at(peer_address(), "key", &Value::Null).await;
    assert_eq!(answer.unwrap_err().to_string(), "UTP_ETIMEDOUT");
    assert_eq!((ends(&net.events()), client.transports()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn dropping_a_request_cancels_it_and_its_reply_is_counted() {
    let (client, mut peers, _) = client(ClientConfig::default());
    let asking = client.request_at(peer_address(), "key", &Value::Null);
    timeout(Duration::from_millis(5), asking).await.expect_err("nobody answers");
    let mut peer = peers.recv().await.unwrap();
    let (rid, _) = peer.request().await;
    peer.write(&json!([rid, null, 1]).to_string()).await;
    peer.write(&json!(["not even a UUID", null, 1]).to_string()).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(client.unknown_replies(), 2);
    assert_eq!(client.transports(), 1, "the connection is kept");
}

#[tokio::test(start_paused = true)]
async fn malformed_replies_are_counted_and_end_their_request_where_it_can_be_told() {
    let (client, mut peers, net) = client(ClientConfig::default());
    let (first, second) = (json!(1), json!(2));
    let asking =
        join(client.request_at(peer_address(), "key", &first), client.request_at(peer_address(), "key", &second));
    let answering = async {
        let mut peer = peers.recv().await.unwrap();
        let (one, _) = peer.request().await;
        let (two, _) = peer.request().await;
        peer.write(&format!("{{}}\"x\"[]]]\0[\"{one}\",null,nul][\"{two}\",null,2]")).await;
        peer
    };
    let ((first, second), _peer) = join(asking, answering).await;
    assert!(matches!(first, Err(RpcError::MalformedReply(_))), "{first:?}");
    assert_eq!(second, Ok(json!(2)));
    assert_eq!(client.malformed(), 5);
    let reported = net.events().iter().filter(|e| matches!(e, Event::Malformed { layer: "rpc", .. })).count();
    assert_eq!(reported, 5);
}

#[tokio::test(start_paused = true)]
async fn a_reply_over_the_limit_ends_the_connection() {
    let (client, mut peers, _) = client(ClientConfig::default().max_message(200));
    let asking = client.request_at_with(peer_address(), "key", &Value::Null, once());
    let answering = async {
        let mut peer = peers.recv().await.unwrap();
        let (rid, _) = peer.request().await;
        peer.write(&json!([rid, null, "x".repeat(200)]).to_string()).await;
        peer
    };
    let (answer, mut peer) = join(asking, answering).await;
    assert!(matches!(answer, Err(RpcError::MalformedReply(_))), "{answer:?}");
    assert_eq!(peer.text().await, None, "closed");
}

#[tokio::test(start_paused = true)]
async fn a_request_over_the_limit_is_not_sent() {
    let (client, mut peers, net) = client(ClientConfig::default().max_message(100));
    let answer = client.request_at(peer_address(), "key", &json!("x".repeat(100))).await;
    assert!(matches!(answer, Err(RpcError::TooLarge { limit: 100, .. })), "{answer:?}");
    assert!(peers.try_recv().is_err());
    assert_eq!(ends(&net.events()), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unused_connection_is_closed_after_two_minutes() {
    let (client, mut peers, _) = client(ClientConfig::default());
    let asking = client.request_at(peer_address(), "key", &Value::Null);
    let answering = async {
        let mut peer = peers.recv().await.unwrap();
        let (rid, _) = peer.request().await;
        sleep(Duration::from_secs(50)).await;
        peer.write(&json!([rid, null, null]).to_string()).await;
        peer
    };
    let (answer, mut peer) = join(asking, answering).await;
    assert_eq!(answer, Ok(Value::Null));
    let answered = Instant::now();
    assert_eq!(peer.text().await, None);
    assert_eq!(answered.elapsed(), Duration::from_secs(120));
    assert_eq!(client.transports(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_clone_closes_the_connections() {
    let (client, mut peers, _) = client(ClientConfig::default());
    let clone = client.clone();
    let asking = client.request_at(peer_address(), "key", &Value::Null);
    let answering = async {
        let mut peer = peers.recv().await.unwrap();
        let (rid, _) = peer.request().await;
        peer.write(&json!([rid, null, null]).to_string()).await;
        peer
    };
    let (_, mut peer) = join(asking, answering).await;
    drop(client);
    assert!(peer.text().now_or_never().is_none(), "a clone is left");
    drop(clone);
    let begun = Instant::now();
    assert_eq!(peer.text().await, None);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn to_reference_peers_one_request_is_in_flight_on_a_connection_and_a_message_is_one_write() {
    let (client, mut peers, _) = client(ClientConfig::default().reference_peers());
    let asking = join_all((0..12).map(|n| {
        let client = client.clone();
        async move { client.request_at(peer_address(), "key", &json!(n)).await }
    }));
    let answering = async {
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(peers.recv().await.unwrap());
        }
        for _ in 0..4 {
            for peer in &mut all {
                let mut packet = [0; 4096];
                let n = peer.stream.read(&mut packet).await.unwrap();
                let (rid, _, payload): (String, String, Value) =
                    serde_json::from_slice(&packet[..n]).expect("a packet is a message");
                peer.write(&json!([rid, null, payload]).to_string()).await;
            }
        }
        assert!(peers.try_recv().is_err(), "three connections at most");
        all
    };
    let (answers, _peers) = join(asking, answering).await;
    assert_eq!(answers, (0..12).map(|n| Ok(json!(n))).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn after_a_timeout_in_silence_the_next_request_has_a_new_connection() {
    let (client, mut peers, _) = client(ClientConfig::default());
    let options = once().timeout(Duration::from_secs(4));
    let answer = client.request_at_with(peer_address(), "key", &Value::Null, options).await;
    assert_eq!(answer, Err(RpcError::Timeout));
    let mut silent = peers.recv().await.unwrap();
    silent.request().await;
    assert_eq!(silent.text().await, None, "closed");
    let second = json!(2);
    let asking = client.request_at_with(peer_address(), "key", &second, options);
    let answering = async {
        let mut peer = peers.recv().await.unwrap();
        let (rid, payload) = peer.request().await;
        peer.write(&json!([rid, null, payload]).to_string()).await;
        peer
    };
    assert_eq!(join(asking, answering).await.0, Ok(second.clone()));
}

#[tokio::test(start_paused = true)]
async fn a_request_by_key_needs_a_link() {
    let (client, _peers, net) = client(ClientConfig::default());
    assert_eq!(client.request("key", &Value::Null).await, Err(RpcError::NoLink));
    assert_eq!(ends(&net.events()), 1);
}

#[tokio::test(start_paused = true)]
async fn to_reference_peers_no_request_is_larger_than_a_packet_and_replies_may_be() {
    let (client, mut peers, net) = client(ClientConfig::default().reference_peers());
    // `["…","key","…"]` with an id of 36 bytes.
    let filled = |len: usize| json!("x".repeat(len - r#"["","key",""]"#.len() - 36));
    let (fits, too_large) = (filled(MAX_REFERENCE_MESSAGE), filled(MAX_REFERENCE_MESSAGE + 1));
    let refused = client.request_at(peer_address(), "key", &too_large).await;
    assert_eq!(refused, Err(RpcError::TooLarge { size: 1383, limit: 1382 }));
    assert!(!net.events().iter().any(|e| matches!(e, Event::RequestSent { .. })), "unsent");
    let answering = async {
        let mut peer = peers.recv().await.unwrap();
        let text = peer.text().await.unwrap();
        assert_eq!(text.len(), MAX_REFERENCE_MESSAGE);
        let (rid, _, _): (String, String, Value) = serde_json::from_str(&text).unwrap();
        peer.write(&json!([rid, null, "y".repeat(10_000)]).to_string()).await;
        peer
    };
    let (answer, _peer) = join(client.request_at(peer_address(), "key", &fits), answering).await;
    assert_eq!(answer, Ok(json!("y".repeat(10_000))));
}
