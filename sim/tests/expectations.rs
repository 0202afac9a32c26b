//! Expectations of every kind, met and not met, and the moment that decided each.

use std::time::Duration;

use grenache_sim::backend::{self, On, RunOptions};
use grenache_sim::report::ExpectationOutcome;
use grenache_sim::scenario;

/// A public worker that fails one kind of request, and a client behind a NAT that punches it.
const PUNCHED: &str = include_str!("../../scenarios/punch-simple.toml");

/// A client and a worker behind NATs that only a relay connects.
const RELAYED: &str = include_str!("../../scenarios/connect-both-symmetric.toml");

/// A request and its reply, without NATs.
const DIRECT: &str = include_str!("../../scenarios/simple-connection.toml");

/// A worker that answers with an error.
const REFUSED: &str = r#"
    time-limit = "20s"
    [node.server]
    [node.client]
    [[program]]
    node = "server"
    run = "grape"
    dht-port = 20001
    api-port = 30001
    bootstrap = ["client:20002"]
    [[program]]
    node = "client"
    run = "grape"
    dht-port = 20002
    api-port = 30001
    bootstrap = ["server:20001"]
    [[program]]
    node = "server"
    run = "worker"
    start = "1s"
    service = "rpc_test"
    error = "ERR_BUSY"
    [[program]]
    node = "client"
    run = "client"
    start = "2s"
    service = "rpc_test"
    payload = 1
    retries = 2
"#;

/// Runs a scenario with these expectations in place of its own.
fn outcomes(text: &str, expectations: &str) -> Vec<ExpectationOutcome> {
    let own = text.find("[[expect]]").unwrap_or(text.len());
    let text = format!("{}{expectations}", &text[..own]);
    let scenario = scenario::parse("test.toml", &text).unwrap_or_else(|error| panic!("{error}"));
    let outcome = backend::run(&scenario, &RunOptions { seed: 1, on: On::Sim }, |_| {}).expect("it runs");
    assert_eq!(outcome.programs_failed, [] as [String; 0]);
    outcome.expectations
}

/// The outcome of one expectation, within 15 s.
fn outcome(text: &str, expectation: &str) -> ExpectationOutcome {
    let mut all = outcomes(text, &format!("[[expect]]\n{expectation}\nwithin = \"15s\"\n"));
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// That an expectation is met by an event with these words.
#[track_caller]
fn met(text: &str, expectation: &str, by: &str) -> Duration {
    let outcome = outcome(text, expectation);
    assert!(outcome.met, "{expectation}: {:?}", outcome.reason);
    assert!(outcome.decided_by.contains(by), "{expectation}: {}", outcome.decided_by);
    outcome.decided_at
}

/// That an expectation is not met, for a reason with these words.
#[track_caller]
fn missed(text: &str, expectation: &str, why: &str) -> Duration {
    let outcome = outcome(text, expectation);
    assert!(!outcome.met, "{expectation}: {}", outcome.decided_by);
    let reason = outcome.reason.expect("what is missed has a reason");
    assert!(reason.contains(why), "{expectation}: {reason}");
    outcome.decided_at
}

const END: Duration = Duration::from_secs(15);

#[test]
fn a_reply_is_known_by_its_value_a_part_of_it_or_not_at_all() {
    met(DIRECT, r#"reply = { to = "client" }"#, r#"client got the reply "world" from server, direct"#);
    met(DIRECT, r#"reply = { to = "client", contains = "or" }"#, "got the reply");
    met(PUNCHED, r#"reply = { to = "laptop", contains = [55, 34] }"#, "got the reply [1,1,2,3,5,8,13,21,34,55]");
    missed(PUNCHED, r#"reply = { to = "laptop", contains = [4] }"#, "a reply was [1,1,2");
    missed(DIRECT, r#"reply = { to = "client", value = "word" }"#, r#"not within 15s; a reply was "world""#);
}

#[test]
fn a_service_is_reached_by_an_error_too() {
    met(DIRECT, r#"reached = { by = "client", at = "server" }"#, "got the reply");
    met(REFUSED, r#"reached = { by = "client", at = "server", path = "direct" }"#, "with the error ERR_BUSY");
    missed(REFUSED, r#"reached = { by = "client", path = "punched" }"#, "a request failed: ERR_BUSY");
    missed(REFUSED, r#"reply = { to = "client" }"#, "a request failed: ERR_BUSY");
    met(REFUSED, r#"failed = { to = "client" }"#, "a request of client failed: ERR_BUSY");
}

#[test]
fn a_path_is_direct_punched_or_relayed() {
    let cases = [(DIRECT, "client", "direct"), (PUNCHED, "laptop", "punched"), (RELAYED, "phone", "relayed")];
    for (text, to, way) in cases {
        for path in ["direct", "punched", "relayed"] {
            let expectation = format!("reply = {{ to = {to:?}, path = {path:?} }}");
            if path == way {
                met(text, &expectation, &format!(", {way}"));
            } else {
                missed(text, &expectation, &format!("by another way: {way}"));
            }
        }
    }
}

#[test]
fn counts_are_at_least_exactly_or_at_most() {
    // It fails three times: once, and twice again.
    let failed = |count: &str| format!("failed = {{ to = \"client\", count = {count} }}");
    assert!(met(REFUSED, &failed("3"), "ERR_BUSY") < END);
    assert!(met(REFUSED, &failed("\">=2\""), "ERR_BUSY") < END);
    assert_eq!(met(REFUSED, &failed("\"=3\""), "its time was up at 15s"), END);
    assert_eq!(met(REFUSED, &failed("\"<=3\""), "its time was up"), END);
    assert_eq!(missed(REFUSED, &failed("4"), "not within 15s: 3 of 4 times"), END);
    assert_eq!(missed(REFUSED, &failed("\"=4\""), "3 of 4 times"), END);
    assert!(missed(REFUSED, &failed("\"<=2\""), "ERR_BUSY, once too often") < END);
    assert!(missed(REFUSED, &failed("\"=0\""), "a request of client failed: ERR_BUSY") < END);
}

#[test]
fn what_was_before_does_not_count() {
    let late = met(REFUSED, "after = \"2500ms\"\nfailed = { to = \"client\" }", "ERR_BUSY");
    assert!(late >= Duration::from_millis(2500), "{late:?}");
    missed(REFUSED, "after = \"10s\"\nfailed = { to = \"client\" }", "not within 15s");
}

#[test]
fn percentiles_are_of_requests() {
    let met_at =
        met(DIRECT, r#"percentile = { of = "latency", to = "client", p50 = "1s", max = "1s" }"#, "a latency of ");
    assert!(met_at < END);
    let early = missed(DIRECT, r#"percentile = { of = "latency", to = "client", p95 = "1ms" }"#, "1 of 1 requests");
    assert_eq!(early, met_at, "the one request decides both");
    missed(REFUSED, r#"percentile = { of = "answer", to = "client", p50 = "10s" }"#, "p50 is open, with 0 of 1");
    met(RELAYED, r#"percentile = { of = "connect", to = "phone", max = "14s" }"#, "a connect of ");
    let both = outcomes(
        RELAYED,
        "[[expect]]\nwithin = \"30s\"\npercentile = { of = \"answer\", to = \"phone\", max = \"29s\" }\n\
         [[expect]]\nwithin = \"30s\"\nreply = { to = \"phone\" }\n",
    );
    assert_eq!(both[0].decided_at, both[1].decided_at, "an answer is measured when it comes");
}

#[test]
fn bytes_are_of_packets_that_pass() {
    // The broker's node carries the relay; nothing of the requests passes the other one.
    let relayed = |bounds: &str| format!("bytes = {{ through = \"home\", {bounds} }}");
    assert!(met(RELAYED, &relayed("at-least = \"1 kB\""), "bytes through home") < END);
    assert_eq!(met(RELAYED, &relayed("at-most = \"1 MB\""), "its time was up"), END);
    assert_eq!(met(RELAYED, &relayed("at-least = \"1 kB\", at-most = \"1 MB\""), "its time was up"), END);
    assert!(missed(RELAYED, &relayed("at-most = \"1 kB\""), "bytes through home") < END);
    assert_eq!(missed(RELAYED, &relayed("at-least = \"1 GB\""), " bytes passed"), END);
    assert!(met(DIRECT, r#"bytes = { through = "server", at-least = "1 kB" }"#, "bytes through server") < END);
}

#[test]
fn bytes_of_a_node_are_its_packets_without_those_to_itself() {
    let text =
        format!("{REFUSED}\n[[expect]]\nbytes = {{ through = \"server\", at-most = \"1 GB\" }}\nwithin = \"15s\"\n");
    let scenario = scenario::parse("test.toml", &text).unwrap_or_else(|error| panic!("{error}"));
    let total = std::rc::Rc::new(std::cell::RefCell::new((std::collections::BTreeMap::new(), 0_usize)));
    let seen = total.clone();
    backend::run(&scenario, &RunOptions { seed: 1, on: On::Sim }, move |record| {
        use grenache_sim::event::{Event, LabEvent};
        let (sizes, total) = &mut *seen.borrow_mut();
        match &record.event {
            Event::Lab(LabEvent::PacketSent { packet, size, source, destination, .. })
                if source.ip() != destination.ip() && !destination.ip().is_loopback() =>
            {
                sizes.insert(*packet, *size);
                *total += if record.at.as_deref() == Some("server") { *size } else { 0 };
            }
            Event::Lab(LabEvent::PacketDelivered { packet }) if record.at.as_deref() == Some("server") => {
                *total += sizes.get(packet).copied().unwrap_or_default();
            }
            _ => {}
        }
    })
    .expect("it runs");
    let bytes = total.borrow().1;
    let exactly = format!("bytes = {{ through = \"server\", at-least = \"{bytes} B\", at-most = \"{bytes} B\" }}");
    assert_eq!(met(REFUSED, &exactly, "its time was up"), END);
    missed(REFUSED, &format!("bytes = {{ through = \"server\", at-least = \"{} B\" }}", bytes + 1), "bytes passed");
}

#[test]
fn never_fails_in_the_moment_that_it_happens() {
    let happened = missed(DIRECT, r#"never = { reply = { to = "client" } }"#, "it happened: client got the reply");
    assert!(happened < END);
    assert_eq!(met(DIRECT, r#"never = { failed = { to = "client" } }"#, "its time was up at 15s"), END);
    assert_eq!(met(RELAYED, r#"never = { reply = { to = "phone", path = "direct" } }"#, "its time was up"), END);
    let early = outcome(DIRECT, r#"never = { reply = { to = "client" }, within = "500ms" }"#);
    assert_eq!((early.met, early.decided_at), (true, Duration::from_millis(500)), "a part has its own time");
}

#[test]
fn combinations_are_decided_by_one_of_their_parts() {
    let reply = r#"{ reply = { to = "client" } }"#;
    let found = r#"{ found = { at = "client", service = "rpc_test" } }"#;
    let failed = r#"{ failed = { to = "client" } }"#;
    let both = met(DIRECT, &format!("all = [{reply}, {found}]"), "client got the reply");
    let either = met(DIRECT, &format!("any = [{reply}, {found}]"), "client found rpc_test at");
    assert!(either < both && both < END);
    missed(DIRECT, &format!("all = [{reply}, {failed}]"), "not within 15s");
    assert!(met(DIRECT, &format!("any = [{failed}, {reply}]"), "client got the reply") < END);
    assert_eq!(met(DIRECT, &format!("all = [{reply}, {{ never = {failed} }}]"), "its time was up"), END);
    missed(DIRECT, &format!("any = [{failed}, {{ never = {reply} }}]"), "it happened");
    let nested = format!("all = [{{ any = [{failed}, {found}] }}, {{ never = {{ all = [{reply}, {failed}] }} }}]");
    assert_eq!(met(DIRECT, &nested, "its time was up"), END);
}

#[test]
fn combinations_read_well() {
    let all = outcomes(
        DIRECT,
        r#"
[[expect]]
all = [{ reply = { to = "client", count = "<=2" } }, { any = [{ reached = { by = "client", at = "server" } }, { failed = { to = "client" } }] }]
within = "5s"
[[expect]]
never = { reply = { to = "client", path = "relayed", contains = 1 } }
after = "1s"
within = "5s"
[[expect]]
percentile = { of = "latency", to = "client", p50 = "100ms", p999 = "1s" }
within = "5s"
[[expect]]
bytes = { through = "server", at-least = "1 kB" }
within = "5s"
"#,
    );
    let words: Vec<&str> = all.iter().map(|outcome| &*outcome.text).collect();
    insta::assert_snapshot!(words.join("\n"));
}
