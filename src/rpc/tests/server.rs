//! The server's side of a connection against a peer in the test's hands.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use super::*;
use crate::rpc::connection::Connection;
use crate::rpc::server::Shared;
use crate::rpc::{ERR_NO_REPLY, ERR_REQUEST_PARSE, ERR_REQUEST_SIZE, MAX_MALFORMED, Requests, ServerConfig};

struct Bench {
    peer: Peer,
    requests: Requests,
    shared: Arc<Shared>,
    net: Arc<TestNet>,
}

fn bench(config: ServerConfig) -> Bench {
    let (recorder, net) = TestNet::new();
    let (shared, requests) = Shared::new(&net, config);
    let (ours, theirs) = duplex(64 << 10);
    net.spawn(Box::pin(Connection::run(shared.clone(), ours, peer_address()))).detach();
    Bench { peer: Peer { stream: theirs, splitter: Splitter::new(MAX_TEXT) }, requests, shared, net: recorder }
}

#[tokio::test(start_paused = true)]
async fn recorded_requests_that_share_a_packet_are_answered_each() {
    // Five requests as a peer of the original implementation sent them in one packet.
    let packet = concat!(
        r#"["0f06c829-81b6-4ab3-a3ad-5d93577af336","vec","p0"]["c8604976-ea61-4b29-893b-bf5edf4da8ce","vec","p1"]"#,
        r#"["925be9f0-fb1d-426b-a138-8c3f3a466f1e","vec","p2"]["8e28a977-6a15-4d9c-916b-d8186ea31e3a","vec","p3"]"#,
        r#"["700ba358-d749-437c-82f3-658ad0373c8b","vec","p4"]"#
    );
    let mut bench = bench(ServerConfig::default());
    bench.peer.write(packet).await;
    let mut requests = Vec::new();
    for n in 0..5 {
        let request = bench.requests.next().await.unwrap();
        assert_eq!(
            (request.key.as_str(), &request.payload, request.from),
            ("vec", &json!(format!("p{n}")), peer_address())
        );
        requests.push(request);
    }
    // In another order than they came.
    for request in requests.into_iter().rev() {
        let result = request.payload.clone();
        request.reply(Ok(result));
    }
    for n in (0..5).rev() {
        let text = bench.peer.text().await.unwrap();
        assert!(text.ends_with(&format!(",null,\"p{n}\"]")), "{text}");
    }
    let events = bench.net.events();
    assert_eq!(events.iter().filter(|e| matches!(e, Event::RequestReceived { .. })).count(), 5);
    assert_eq!(events.iter().filter(|e| matches!(e, Event::ReplySent { error: None, .. })).count(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_error_and_a_request_dropped_unanswered() {
    let mut bench = bench(ServerConfig::default());
    bench.peer.write(r#"["a","k",1]["b","k",2]"#).await;
    bench.requests.next().await.unwrap().reply(Err("ERR_BOOM".to_owned()));
    drop(bench.requests.next().await.unwrap());
    assert_eq!(bench.peer.text().await.unwrap(), r#"["a","ERR_BOOM",null]"#);
    assert_eq!(bench.peer.text().await.unwrap(), format!(r#"["b","{ERR_NO_REPLY}",null]"#));
}

#[tokio::test(start_paused = true)]
async fn malformed_requests_are_counted_and_answered_where_an_id_can_be_read() {
    let mut bench = bench(ServerConfig::default());
    // Those without an id, then those with one, then a good one that must still get through.
    let nameless = ["[]", "{}", "\"x\"", "0 ", "true ", "null ", "[1,2]", "\u{1}\u{2}[]", "[}", "[\"\n"];
    for text in nameless {
        bench.peer.write(text).await;
        bench.peer.write("[7]").await;
    }
    let named = [r#"["a"]"#, r#"["b",1,2]"#, r#"["c","k",nul]"#];
    for text in named {
        bench.peer.write(text).await;
    }
    bench.peer.write(r#"["good","k",1]"#).await;
    bench.requests.next().await.unwrap().reply(Ok(json!(1)));
    for rid in ["a", "b", "c"] {
        assert_eq!(bench.peer.text().await.unwrap(), format!(r#"["{rid}","{ERR_REQUEST_PARSE}",null]"#));
    }
    assert_eq!(bench.peer.text().await.unwrap(), r#"["good",null,1]"#);
    // Every text above is one, the garbage before `[]` one more.
    let expected = (2 * nameless.len() + 1 + named.len()) as u64;
    assert_eq!(bench.shared.malformed.load(Ordering::Relaxed), expected);
    let reported = bench.net.events().iter().filter(|e| matches!(e, Event::Malformed { layer: "rpc", .. })).count();
    assert_eq!(reported as u64, expected);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_brings_only_garbage_is_closed() {
    let mut bench = bench(ServerConfig::default());
    for _ in 0..MAX_MALFORMED - 1 {
        bench.peer.write("[]").await;
    }
    sleep(Duration::from_millis(1)).await;
    bench.peer.write(r#"["good","k",1]"#).await;
    bench.requests.next().await.unwrap().reply(Ok(json!(1)));
    assert_eq!(bench.peer.text().await.unwrap(), r#"["good",null,1]"#, "one fewer than the limit");
    bench.peer.write("[]").await;
    assert_eq!(bench.peer.text().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_request_over_the_limit_is_answered_and_ends_the_connection() {
    let mut bench = bench(ServerConfig::default().max_message(100));
    bench.peer.write(&format!(r#"["r","k","{}"]"#, "x".repeat(100))).await;
    assert_eq!(bench.peer.text().await.unwrap(), format!(r#"["r","{ERR_REQUEST_SIZE}",null]"#));
    assert_eq!(bench.peer.text().await, None);
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_of_requests_in_flight_nothing_more_is_read() {
    let mut bench = bench(ServerConfig::default().max_in_flight(2));
    for n in 0..4 {
        bench.peer.write(&json!([n.to_string(), "k", n]).to_string()).await;
    }
    let first = bench.requests.next().await.unwrap();
    let _second = bench.requests.next().await.unwrap();
    let third = tokio::time::timeout(Duration::from_secs(1), bench.requests.next()).await;
    assert!(third.is_err(), "{third:?}");
    first.reply(Ok(json!(0)));
    assert_eq!(bench.requests.next().await.unwrap().rid, "2");
}

#[tokio::test(start_paused = true)]
async fn large_requests_count_for_more() {
    let mut bench = bench(ServerConfig::default().max_in_flight(3));
    // 40 KiB count for three.
    bench.peer.write(&json!(["large", "k", "x".repeat(40 << 10)]).to_string()).await;
    bench.peer.write(r#"["small","k",1]"#).await;
    let large = bench.requests.next().await.unwrap();
    let small = tokio::time::timeout(Duration::from_secs(1), bench.requests.next()).await;
    assert!(small.is_err(), "{small:?}");
    large.reply(Ok(json!(1)));
    assert_eq!(bench.requests.next().await.unwrap().rid, "small");
    // One larger than all that may be in flight is alone, not stuck.
    bench.peer.write(&json!(["larger", "k", "x".repeat(60 << 10)]).to_string()).await;
    assert_eq!(bench.requests.next().await.unwrap().rid, "larger");
}

#[tokio::test(start_paused = true)]
async fn after_the_peers_end_its_requests_are_still_answered() {
    let mut bench = bench(ServerConfig::default());
    bench.peer.write(r#"["a","k",1]"#).await;
    bench.peer.stream.shutdown().await.unwrap();
    let request = bench.requests.next().await.unwrap();
    sleep(Duration::from_secs(5)).await;
    request.reply(Ok(json!(1)));
    assert_eq!(bench.peer.text().await.unwrap(), r#"["a",null,1]"#);
    assert_eq!(bench.peer.text().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_but_not_one_with_a_request() {
    let mut bench = bench(ServerConfig::default());
    bench.peer.write(r#"["a","k",1]"#).await;
    let request = bench.requests.next().await.unwrap();
    sleep(Duration::from_secs(1000)).await;
    request.reply(Ok(json!(1)));
    assert_eq!(bench.peer.text().await.unwrap(), r#"["a",null,1]"#);
    let answered = Instant::now();
    assert_eq!(bench.peer.text().await, None);
    assert!(answered.elapsed() <= Duration::from_secs(180), "{:?}", answered.elapsed());
}
