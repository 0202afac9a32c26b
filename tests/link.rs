//! The link against a Grape's HTTP API in the test's hands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use grenache::event::Event;
use grenache::link::{ANNOUNCE_INTERVAL, Link, LinkConfig, LinkError, MAX_CACHED};
use grenache::net::{HyperHttp, Net};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use common::fake_grape::{Answer, FakeGrape};
use common::{Recorder, any_port};

mod common;

const FOUND: &str = r#"["127.0.0.1:1337","127.0.0.1:1338"]"#;

fn ok(body: &str) -> Answer {
    Answer::Body(200, body.to_owned())
}

fn link_with(grape: &FakeGrape, config: impl FnOnce(LinkConfig) -> LinkConfig) -> (Link, Arc<Recorder>) {
    let (recorder, net) = Recorder::with_http(Arc::new(grape.in_memory()));
    (Link::new(&net, config(LinkConfig::new(any_port()))), recorder)
}

fn link(grape: &FakeGrape) -> (Link, Arc<Recorder>) {
    link_with(grape, |config| config)
}

#[tokio::test(start_paused = true)]
async fn the_posted_bodies_are_those_of_other_links() {
    let grape = FakeGrape::new(|_, path, _| match path {
        "/announce" => ok("1"),
        "/lookup" => ok(FOUND),
        "/put" => ok(r#""e28910ea0adb94dd45ced75fbff3e135c01bc437""#),
        _ => ok(r#"{"id":"00","token":null,"v":"hello"}"#),
    });
    let (link, _) = link(&grape);
    assert_eq!(link.announce("rpc_test", 42546).await, Ok(1));
    assert_eq!(
        link.lookup("k1").await.unwrap(),
        ["127.0.0.1:1337".parse().unwrap(), "127.0.0.1:1338".parse().unwrap()]
    );
    let hash = link.put("hello").await.unwrap();
    assert_eq!(link.get(&hash).await, Ok(Some(json!("hello"))));
    let posted: Vec<(String, Value)> = grape.calls();
    let expected = [
        ("/announce", json!(["rpc_test", 42546])),
        ("/lookup", json!("k1")),
        ("/put", json!({"v": "hello"})),
        ("/get", json!(hash)),
    ];
    let mut rids = std::collections::BTreeSet::new();
    for ((path, body), (expected_path, data)) in posted.iter().zip(&expected) {
        assert_eq!((path.as_str(), &body["data"]), (*expected_path, data));
        let rid = uuid::Uuid::parse_str(body["rid"].as_str().unwrap()).unwrap();
        assert_eq!(rid.get_version_num(), 4);
        assert!(rids.insert(rid), "each call has its own id");
    }
    assert_eq!(posted.len(), expected.len());
}

#[tokio::test(start_paused = true)]
async fn a_lookup_is_cached_for_ten_seconds() {
    let grape = FakeGrape::new(|_, _, _| ok(FOUND));
    let (link, net) = link(&grape);
    let begun = Instant::now();
    link.lookup("name").await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    sleep(Duration::from_millis(9_999)).await;
    link.lookup("name").await.unwrap();
    assert_eq!(grape.calls().len(), 1);
    link.lookup("other").await.unwrap();
    assert_eq!(grape.calls().len(), 2, "another name is another call");
    sleep(Duration::from_millis(1)).await;
    link.lookup("name").await.unwrap();
    assert_eq!(grape.calls().len(), 3, "ten seconds are over");
    link.lookup_fresh("name").await.unwrap();
    assert_eq!(grape.calls().len(), 4, "a fresh one always asks");
    assert_eq!(net.count(|e| matches!(e, Event::LookedUp { .. })), 4);
}

#[tokio::test(start_paused = true)]
async fn identical_calls_at_the_same_time_share_one() {
    let grape = FakeGrape::new(|_, path, _| {
        Answer::After(Duration::from_millis(100), if path == "/announce" { "1" } else { FOUND }.to_owned())
    });
    let (link, _) = link(&grape);
    let lookups = join_all((0..10).map(|_| link.lookup("name")));
    let announces = join_all((0..10).map(|_| link.announce("name", 1)));
    let (lookups, announces) = join(lookups, announces).await;
    assert!(lookups.iter().all(|found| found.as_ref().is_ok_and(|found| found.len() == 2)));
    assert!(announces.iter().all(|nodes| *nodes == Ok(1)));
    assert_eq!(grape.calls().len(), 2);
    link.announce("name", 1).await.unwrap();
    link.announce("name", 2).await.unwrap();
    assert_eq!(grape.calls().len(), 4, "one after the other are two, as are two ports");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_does_not_end_the_others_call() {
    let grape = FakeGrape::new(|_, _, _| Answer::After(Duration::from_millis(100), FOUND.to_owned()));
    let (link, _) = link(&grape);
    let impatient = tokio::time::timeout(Duration::from_millis(10), link.lookup("name"));
    let (gave_up, found) = join(impatient, link.lookup("name")).await;
    assert!(gave_up.is_err());
    assert!(found.is_ok());
    assert_eq!(grape.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn lookup_and_announce_are_tried_three_times_and_put_and_get_once() {
    let grape = FakeGrape::new(|n, _, _| if n % 3 == 2 { ok("1") } else { Answer::Close });
    let (link, _) = link(&grape);
    assert_eq!(link.announce("name", 1).await, Ok(1), "the third try");
    assert_eq!(grape.calls().len(), 3);

    let grape = FakeGrape::new(|_, _, _| Answer::Close);
    let (link, net) = link_with(&grape, |config| config);
    assert!(matches!(link.lookup("name").await, Err(LinkError::Unreachable(_))));
    assert_eq!(grape.calls().len(), 3);
    assert!(matches!(link.get("00").await, Err(LinkError::Unreachable(_))));
    assert_eq!(grape.calls().len(), 4);
    assert_eq!(net.count(|e| matches!(e, Event::LinkFailed { .. })), 2, "one for each call, not for each try");
}

#[tokio::test(start_paused = true)]
async fn a_try_times_out_after_two_and_a_half_seconds() {
    let grape = FakeGrape::new(|_, _, _| Answer::Hang);
    let (link, _) = link_with(&grape, |config| config.tries(1));
    let begun = Instant::now();
    assert_eq!(link.lookup("name").await.unwrap_err().to_string(), "ERR_TIMEOUT");
    assert_eq!(begun.elapsed(), Duration::from_millis(2500));
    assert_eq!(grape.calls().len(), 1);

    let grape = FakeGrape::new(|n, _, _| if n == 2 { ok(FOUND) } else { Answer::Hang });
    let (link, _) = link_with(&grape, |config| config);
    let begun = Instant::now();
    assert!(link.lookup("name").await.is_ok());
    assert!(
        (5000..5500).contains(&begun.elapsed().as_millis()),
        "two timeouts and short pauses: {:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_lookup_is_an_error_at_once_and_not_cached() {
    let grape = FakeGrape::new(|n, _, _| if n == 0 { ok("[]") } else { ok(FOUND) });
    let (link, net) = link(&grape);
    assert_eq!(link.lookup("name").await.unwrap_err().to_string(), "ERR_GRAPE_LOOKUP_EMPTY");
    assert_eq!(grape.calls().len(), 1);
    assert!(link.lookup("name").await.is_ok());
    assert_eq!(net.count(|e| matches!(e, Event::LinkFailed { call: "lookup", .. })), 1);
    assert_eq!(net.count(|e| matches!(e, Event::LookedUp { .. })), 1);
}

#[tokio::test(start_paused = true)]
async fn announcing_repeats_within_half_and_one_and_a_half_intervals_and_ends_with_its_guard() {
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = times.clone();
    let grape = FakeGrape::new(move |_, _, _| {
        seen.lock().unwrap().push(Instant::now());
        ok("1")
    });
    let (link, _) = link(&grape);
    let begun = Instant::now();
    let announcing = link.start_announcing("name", 1, ANNOUNCE_INTERVAL);
    sleep(100 * ANNOUNCE_INTERVAL).await;
    drop(announcing);
    let times = times.lock().unwrap().clone();
    assert_eq!(times[0], begun, "the first at once");
    let pauses: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert!(pauses.iter().all(|pause| (60..=180).contains(pause)), "{pauses:?}");
    assert!(pauses.iter().min() < Some(&80) && pauses.iter().max() > Some(&160), "spread: {pauses:?}");
    sleep(10 * ANNOUNCE_INTERVAL).await;
    assert_eq!(grape.calls().len(), times.len());
}

#[tokio::test(start_paused = true)]
async fn a_refused_announce_is_repeated_every_second() {
    let grape = FakeGrape::new(|n, _, _| if n < 5 { ok(r#""No nodes to query""#) } else { ok("2") });
    let (link, net) = link(&grape);
    let _announcing = link.start_announcing("name", 7, ANNOUNCE_INTERVAL);
    sleep(Duration::from_millis(4_999)).await;
    assert_eq!(grape.calls().len(), 5);
    assert_eq!(net.count(|e| matches!(e, Event::LinkFailed { call: "announce", .. })), 5);
    sleep(Duration::from_millis(2)).await;
    assert!(net.events().contains(&Event::Announced { name: "name".to_owned(), port: 7, nodes: 2 }));
}

#[tokio::test]
async fn over_tcp_on_loopback_with_either_client() {
    let (_, host) = Recorder::new();
    let over = host.clone();
    for http in [host.http(), Arc::new(HyperHttp::new(move |to| over.connect_tcp(to)))] {
        let grape = FakeGrape::new(|_, path, _| if path == "/announce" { ok("1") } else { ok(FOUND) });
        let (address, _listening) = grape.listen(&host).await;
        let (_, net) = Recorder::with_http(http);
        let link = Link::new(&net, LinkConfig::new(address));
        assert_eq!(link.announce("name", 1).await, Ok(1));
        assert_eq!(link.lookup("name").await.unwrap().len(), 2);
        assert_eq!(grape.calls().len(), 2);
        let nobody = Link::new(&net, LinkConfig::new(closed(&host).await));
        assert!(matches!(nobody.lookup("name").await, Err(LinkError::Unreachable(_))));
    }
}

/// An address where nobody listens.
async fn closed(net: &Net) -> SocketAddr {
    net.listen_tcp(any_port()).await.unwrap().local_addr().unwrap()
}

#[tokio::test(start_paused = true)]
async fn announcing_tells_when_it_has_begun_and_stops_when_told() {
    let grape = FakeGrape::new(|n, _, _| match n {
        0 => Answer::Close,
        1 => Answer::After(Duration::from_millis(100), "1".to_owned()),
        _ => Answer::Hang,
    });
    let (link, _) = link(&grape);
    let announcing = link.start_announcing("name", 1, ANNOUNCE_INTERVAL);
    assert_eq!(announcing.count(), 0);
    announcing.announced().await;
    assert_eq!(announcing.count(), 1);
    announcing.announced().await;
    // The next one hangs at the Grape, and is cut off.
    let asked = async {
        while grape.calls().len() < 3 {
            sleep(Duration::from_secs(1)).await;
        }
    };
    asked.await;
    let begun = Instant::now();
    announcing.stop().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    sleep(10 * ANNOUNCE_INTERVAL).await;
    assert_eq!(grape.calls().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_cache_holds_2500_names_and_forgets_the_one_unused_for_longest() {
    let grape = FakeGrape::new(|_, _, _| ok(FOUND));
    let (link, _) = link_with(&grape, |config| config.cache(Duration::from_secs(24 * 3600)));
    for n in 0..MAX_CACHED.get() {
        link.lookup(&format!("name-{n}")).await.unwrap();
    }
    link.lookup("name-0").await.unwrap();
    assert_eq!((MAX_CACHED.get(), grape.calls().len()), (2500, 2500));
    link.lookup("one more").await.unwrap();
    link.lookup("name-0").await.unwrap();
    assert_eq!(grape.calls().len(), 2501, "it was used lately");
    link.lookup("name-1").await.unwrap();
    assert_eq!(grape.calls().len(), 2502, "it had to go");
}
