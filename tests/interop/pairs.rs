//! What two Grapes, one and another of any kind, must be able to do together.

use std::net::SocketAddrV4;
use std::time::Duration;

use futures_util::future::join;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::common::PATIENCE;
use crate::common::http_table::{MISMATCH, STALE, hash};
use crate::common::signed::signed;
use crate::grapes::{AnyGrape, Kind, Ours, Place, Theirs};
use crate::original::{POLL, free_ports};

/// Names of 1, 8, 18, 20 and 60 bytes, and one that is not ASCII.
const NAMES: [&str; 6] = [
    "x",
    "rpc_test",
    "fibonacci_consumer",
    "abcdefghij0123456789",
    "0123456789012345678901234567890123456789012345678901234567ab",
    "café",
];

/// How long an answer may take where the others are gone: two rounds of queries that time out after 2.0–2.5 s.
const BOUND: Duration = Duration::from_secs(6);

/// What is announced at each is found at the other, and each announce counts the other.
pub(crate) async fn both_ways(name: &str, one: &AnyGrape, other: &AnyGrape) {
    for (from, to, port) in [(one, other, 1337), (other, one, 1338)] {
        let name = format!("{name} {port}");
        assert_eq!(from.announce(&name, port).await, 1, "{from:?}");
        assert_eq!(to.lookup(&name).await, [format!("127.0.0.1:{port}")], "{to:?}");
    }
}

pub(crate) async fn starts_from_itself(one: Kind, _: Kind) {
    let place = Place::loopback();
    let ports = free_ports();
    let one = place.start_on(one, ports, &[SocketAddrV4::new(place.ip, ports.0)]).await;
    assert_eq!(one.announce("alone", 1337).await, 1);
    assert_eq!(one.lookup("alone").await, ["127.0.0.1:1337"]);
    assert_eq!(one.get(&one.put(json!("hello")).await).await, "hello");
}

pub(crate) async fn starts_from(one: Kind, other: Kind) {
    let (other, one) = Place::loopback().pair(other, one).await;
    both_ways("started", &one, &other).await;
}

pub(crate) async fn start_from_each_other(one: Kind, other: Kind) {
    let place = Place::loopback();
    let ports = [free_ports(), free_ports()];
    let at = ports.map(|(dht, _)| SocketAddrV4::new(place.ip, dht));
    let (one, other) = join(place.start_on(one, ports[0], &[at[1]]), place.start_on(other, ports[1], &[at[0]])).await;
    both_ways("mutual", &one, &other).await;
}

pub(crate) async fn starts_before_its_bootstrap_node(one: Kind, other: Kind) {
    let place = Place::loopback();
    let ports = free_ports();
    let one = place.start(one, &[SocketAddrV4::new(place.ip, ports.0)]).await;
    assert_eq!(one.announce("early", 1).await, "No nodes to query");
    let other = place.start_on(other, ports, &[]).await;
    // Ours asks a bootstrap node that was away again after seconds, the original with each call. It keeps for minutes
    // that a name was taken by nobody, hence another one for each try.
    let joined = async {
        let mut names = (0..).map(|n| format!("late {n}"));
        while one.announce(&names.next().unwrap(), 1).await != 1 {
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, joined).await.unwrap_or_else(|_| panic!("it never joined: {one:?}"));
    both_ways("joined", &one, &other).await;
}

pub(crate) async fn announce_and_lookup(one: Kind, other: Kind) {
    let (one, other) = Place::loopback().pair(one, other).await;
    for (port, name) in (1337..).zip(NAMES) {
        let address = [format!("127.0.0.1:{port}")];
        assert_eq!(one.announce(name, port).await, 1, "{name}");
        assert_eq!(other.lookup(name).await, address, "{name}: stored here");
        assert_eq!(one.lookup(name).await, address, "{name}: stored at the other only");
    }
    // Again, with the tokens of last time, and another port of the same name.
    assert_eq!(one.announce("x", 1337).await, 1);
    assert_eq!(one.announce("x", 1500).await, 1);
    assert_eq!(other.lookup("x").await, ["127.0.0.1:1337", "127.0.0.1:1500"]);
    // Port 0 is the announcing Grape's own.
    assert_eq!(one.announce("zero", 0).await, 1);
    assert_eq!(other.lookup("zero").await, [one.dht().to_string()]);
    for grape in [&one, &other] {
        assert_eq!(grape.lookup("nobody").await, [""; 0]);
    }
}

pub(crate) async fn put_and_get(one: Kind, other: Kind) {
    let (one, other) = Place::loopback().pair(one, other).await;
    for text in ["hello", "", "naïve café ☕", &"v".repeat(999)] {
        let put = one.put(json!(text)).await;
        assert_eq!(put, hash(text));
        assert_eq!(other.get(&put).await, text);
        assert_eq!(one.get(&put).await, text);
        assert_eq!(other.put(json!(text)).await, put);
    }
    assert_eq!(other.get(&hash("never put")).await, Value::Null);
}

pub(crate) async fn put_and_get_structures(one: Kind, other: Kind) {
    let (one, other) = Place::loopback().pair(one, other).await;
    let list = json!([1, "two", {"three": 3}, [-4]]);
    let dictionary = json!({"b": "2", "a": {"nested": [1]}});
    // The original shows lists and dictionaries as JavaScript's strings of them.
    for (v, ours, theirs) in [
        (json!(42), json!("42"), "42"),
        (json!(-7), json!("-7"), "-7"),
        (json!(9_007_199_254_740_991_u64), json!("9007199254740991"), "9007199254740991"),
        (list.clone(), list, "1,two,[object Object],-4"),
        (dictionary.clone(), dictionary, "[object Object]"),
    ] {
        let put = one.put(v.clone()).await;
        for (grape, from_here) in [(&other, true), (&one, false)] {
            let shown = if grape.kind() == Ours { ours.clone() } else { json!(theirs) };
            assert_eq!(grape.get(&put).await, shown, "{v}, stored here: {from_here}");
        }
        assert_eq!(other.put(v).await, put, "the hash is the same at both");
    }
}

/// Mutable values: from the command line the original cannot verify them, so that it neither stores nor shows any.
pub(crate) async fn put_and_get_mutable(one: Kind, other: Kind) -> &'static str {
    let (one, other) = Place::loopback().pair(one, other).await;
    for salt in [None, Some("pepper"), Some("café")] {
        let put = signed("one", 1, salt, None);
        let hash = one.call("/put", put.clone()).await;
        if other.kind() == Theirs {
            assert_eq!(hash, "All queries failed");
            return "no: unverified";
        }
        let get = json!({"hash": hash, "salt": salt.unwrap_or_default()});
        let found = other.call("/get", get.clone()).await;
        for field in ["v", "k", "seq", "sig"] {
            assert_eq!(found[field], put[field], "{field}");
        }
        for (data, refusal) in
            [(signed("two", 1, salt, None), (302, STALE)), (signed("two", 2, salt, Some(5)), (301, MISMATCH))]
        {
            let (status, answer) = one.call_for_status("/put", data).await;
            assert_eq!((status, answer.as_str().unwrap()), refusal);
        }
        assert_eq!(one.call("/put", signed("two", 2, salt, Some(1))).await, hash);
        assert_eq!(other.call("/get", get.clone()).await["v"], "two");
        let shown = one.call("/get", get).await;
        assert_eq!(shown["v"], if one.kind() == Ours { json!("two") } else { Value::Null });
    }
    if one.kind() == Ours { "ok" } else { "ok, get at B" }
}

pub(crate) async fn get_of_what_the_other_has(one: Kind, other: Kind) {
    let place = Place::loopback();
    let other = place.start(other, &[]).await;
    for v in [json!("elsewhere"), json!("v".repeat(999))] {
        assert_eq!(other.call("/put", json!({ "v": v })).await, "No nodes to query");
    }
    let one = place.start(one, &[other.dht()]).await;
    assert_eq!(one.get(&hash("elsewhere")).await, "elsewhere");
    assert_eq!(one.get(&hash(&"v".repeat(999))).await, "v".repeat(999));
}

/// The other starts from one, is killed, and starts again with another id.
pub(crate) async fn other_restarts(one: Kind, other: Kind) -> &'static str {
    let place = Place::loopback();
    let (one, other) = place.pair(one, other).await;
    both_ways("before", &one, &other).await;
    let other = place.start_again(&other.kill().await.forgetful(), &[one.dht()]).await;
    let shown = work_again(&one, &other).await;
    // What is stored at the one that went on is still found.
    assert_eq!(other.lookup("before 1338").await, ["127.0.0.1:1338"]);
    shown
}

/// One starts from the other, which is killed and starts again with another id, and knows nobody until it is asked.
pub(crate) async fn bootstrap_node_restarts(one: Kind, other: Kind) -> &'static str {
    let place = Place::loopback();
    let (other, one) = place.pair(other, one).await;
    both_ways("before", &one, &other).await;
    let other = place.start_again(&other.kill().await.forgetful(), &[]).await;
    assert_eq!(one.lookup("nobody").await, [""; 0], "the other has heard of one");
    work_again(&one, &other).await
}

/// After the other has restarted.
async fn work_again(one: &AnyGrape, other: &AnyGrape) -> &'static str {
    assert_eq!(other.announce("from other", 1).await, 1);
    assert_eq!(one.lookup("from other").await, ["127.0.0.1:1"]);
    let announced = one.announce("from one", 2).await;
    if one.kind() == Theirs && announced == "No nodes to query" {
        // It asked for the old id, and counts the address as asked then. It goes on so until it finds the old id dead.
        return "B to A only";
    }
    assert_eq!(announced, 1);
    assert_eq!(other.lookup("from one").await, ["127.0.0.1:2"]);
    "ok"
}

/// A name that one has announced already is announced again after the other came back with another id.
pub(crate) async fn announces_again_after_a_restart(one: Kind, other: Kind) -> &'static str {
    let place = Place::loopback();
    let (one, other) = place.pair(one, other).await;
    assert_eq!(one.announce("again", 1).await, 1);
    let other = place.start_again(&other.kill().await.forgetful(), &[one.dht()]).await;
    let announced = one.announce("again", 1).await;
    match one.kind() {
        Ours => {
            assert_eq!(announced, 1);
            assert_eq!(other.lookup("again").await, ["127.0.0.1:1"]);
            "ok"
        }
        // It goes on with its tokens of last time, for five minutes.
        Theirs => {
            assert_eq!(announced, "All queries failed");
            "no: old tokens"
        }
    }
}

/// The other, one of ours, comes back with the id and the token secrets that it had.
pub(crate) async fn other_comes_back_as_itself(one: Kind, other: Kind) -> &'static str {
    if other == Theirs {
        return "-";
    }
    let place = Place::loopback();
    let (other, one) = place.pair(other, one).await;
    assert_eq!(one.announce("again", 1).await, 1);
    let other = place.start_again(&other.kill().await, &[]).await;
    assert_eq!(one.announce("again", 1).await, 1);
    assert_eq!(other.lookup("again").await, ["127.0.0.1:1"]);
    both_ways("after", &one, &other).await;
    "ok"
}

pub(crate) async fn other_is_gone(one: Kind, other: Kind) {
    let (one, other) = Place::loopback().pair(one, other).await;
    assert_eq!(one.announce("before", 1).await, 1);
    other.kill().await;
    let bounded = async |path, data: Value| {
        let answer = timeout(BOUND, one.call(path, data.clone())).await;
        answer.unwrap_or_else(|_| panic!("no answer to {path} {data} within {BOUND:?}"))
    };
    // Each once while the other still counts as alive, and once more.
    for _ in 0..2 {
        assert_eq!(bounded("/lookup", json!("gone")).await, json!([]));
        for name in ["before", "gone"] {
            let answer = bounded("/announce", json!([name, 1])).await;
            assert!(["No nodes to query", "All queries failed"].map(Value::from).contains(&answer), "{name}: {answer}");
        }
        assert_eq!(bounded("/get", json!(hash("gone"))).await, Value::Null);
    }
}
