//! Whatever a peer does, each request ends once and in time, and the same way in each run.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::*;
use crate::rpc::RequestOptions;

/// What the peer does about a request.
#[derive(Debug, Clone)]
enum Deed {
    Reply,
    ReplyTwice,
    Fail,
    Late(u64),
    Ignore,
    Garbage(Vec<u8>),
    Close,
}

/// A request: when it is made and what it allows, in milliseconds.
#[derive(Debug, Clone)]
struct Ask {
    at: u64,
    timeout: u64,
    retries: u32,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => Just(Deed::Reply),
        1 => Just(Deed::ReplyTwice),
        1 => Just(Deed::Fail),
        2 => (1..5000_u64).prop_map(Deed::Late),
        1 => Just(Deed::Ignore),
        1 => prop::collection::vec(any::<u8>(), 1..30).prop_map(Deed::Garbage),
        1 => Just(Deed::Close),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    (0..3000_u64, 1..6000_u64, 0..3_u32).prop_map(|(at, timeout, retries)| Ask { at, timeout, retries })
}

/// Does one thing after another, from the list of its connection.
async fn serve(mut peer: Peer, deeds: Vec<Deed>) {
    for deed in deeds.iter().cycle() {
        let Some(text) = peer.text().await else { return };
        let (rid, _key, payload): (String, String, serde_json::Value) = serde_json::from_str(&text).unwrap();
        let reply = json!([rid, null, payload]).to_string();
        let written = match deed {
            Deed::Reply => reply,
            Deed::ReplyTwice => reply.clone() + &reply,
            Deed::Fail => json!([rid, "ERR_BOOM", null]).to_string(),
            Deed::Late(ms) => {
                sleep(Duration::from_millis(*ms)).await;
                reply
            }
            Deed::Ignore => continue,
            Deed::Garbage(bytes) => {
                // The client may have closed the connection.
                let _ = peer.stream.write_all(bytes).await;
                continue;
            }
            Deed::Close => return,
        };
        if peer.stream.write_all(written.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The outcomes with when they came, and the events.
fn run(asks: &[Ask], connections: &[Vec<Deed>], config: &ClientConfig) -> (Vec<(String, Duration)>, Vec<Event>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (client, mut peers, net) = client(config.clone());
        let connections = connections.to_vec();
        let serving = net.spawn(Box::pin(async move {
            let mut scripts = connections.into_iter().cycle();
            let mut serving = Vec::new();
            while let (Some(peer), Some(deeds)) = (peers.recv().await, scripts.next()) {
                serving.push(TestNet::default().spawn(Box::pin(serve(peer, deeds))));
            }
        }));
        let outcomes = join_all(asks.iter().enumerate().map(async |(n, ask)| {
            sleep(Duration::from_millis(ask.at)).await;
            let begun = Instant::now();
            let options = RequestOptions::default().timeout(Duration::from_millis(ask.timeout)).retries(ask.retries);
            let outcome = client.request_at_with(peer_address(), "key", &json!(n), options).await;
            if let Ok(value) = &outcome {
                assert_eq!(*value, json!(n), "another request's reply");
            }
            (format!("{outcome:?}"), begun.elapsed())
        }))
        .await;
        drop(serving);
        (outcomes, net.events())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_request_ends_once_and_in_time_and_the_same_way_in_each_run(
        asks in prop::collection::vec(ask(), 1..40),
        connections in prop::collection::vec(prop::collection::vec(deed(), 1..6), 1..5),
        pipeline in prop_oneof![Just(usize::MAX), 1..4_usize],
    ) {
        let config = ClientConfig::default().pipeline(pipeline);
        let (outcomes, events) = run(&asks, &connections, &config);
        for (ask, (outcome, took)) in asks.iter().zip(&outcomes) {
            prop_assert!(*took <= Duration::from_millis(ask.timeout), "{outcome} after {took:?} of {ask:?}");
        }
        let mut ends = BTreeMap::new();
        for event in &events {
            if let Event::ReplyReceived { rid, .. } | Event::RequestFailed { rid, .. } = event {
                *ends.entry(rid.clone()).or_insert(0) += 1;
            }
        }
        prop_assert_eq!(ends.len(), asks.len());
        prop_assert!(ends.values().all(|count| *count == 1));
        prop_assert_eq!((outcomes, events), run(&asks, &connections, &config));
    }
}
