//! What scenario files come to once they are read: every key, every default, and the files that ship.

use std::path::Path;
use std::time::Duration;

use grenache_sim::scenario::model::{
    Answer, Dependence, ExpectationKind, Hairpinning, PortAssignment, ProgramKind, Reach,
};
use grenache_sim::scenario::{self, Scenario};
use insta::assert_debug_snapshot;
use serde_json::json;

/// The original's set-ups.
const ORIGINALS: [&str; 6] =
    ["two-grapes", "simple-connection", "punch-simple", "punch-servers", "broker-readme", "broker-both-nat"];

fn read(text: &str) -> Scenario {
    scenario::parse("folder/test.toml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn shipped(name: &str) -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(format!("{name}.toml"));
    scenario::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// The words that reports say of a file's expectations.
fn words(scenario: &Scenario) -> Vec<&str> {
    scenario.expectations.iter().map(|expectation| &*expectation.text).collect()
}

#[test]
fn every_key_is_read() {
    let scenario = read(
        r#"
description = "everything"
seed = 42
time-limit = "2min"

[nat.home]
address = "198.51.100.10"
lan = "10.1.0.0/16"
link = "dsl"
mapping = "address-dependent"
filtering = "endpoint-independent"
ports = "random"
udp-timeout = "30s"
hairpinning = true

[nat.shed]
behind = "home"
address = "10.1.0.9"

[link.dsl]
latency = "20ms"
jitter = "2ms"
loss = "0.5%"
rate = "50 Mbit/s"
queue = "128 KiB"

[node.server]
address = "157.81.109.241"

[node.laptop]
behind = "home"
address = "10.1.2.3"
link = "dsl"

[[program]]
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001
bootstrap = ["laptop:20002", "127.0.0.1:20003"]
kind = "container"

[[program]]
node = "laptop"
run = "announce"
start = "1s"
grape = "server"
service = "rpc_test"
port = 1337

[[program]]
node = "laptop"
run = "lookup"
grape = "203.0.113.9:30001"
service = "rpc_test"
every = "500ms"

[[program]]
node = "server"
run = "broker"
service = "fibo_broker"
port = 4000
alternate-port = 4003
relay = true

[[program]]
node = "laptop"
run = "worker"
grape = "server"
service = "fibonacci_worker"
port = 4001
answer = "fibonacci"
announce = false
punches = "fibonacci_consumer"
broker = "fibo_broker"
connect = true

[[program]]
node = "server"
run = "client"
service = "fibonacci_worker"
port = 4002
broker = "fibo_broker"
payload = { length = 10, exact = true, numbers = [1, 2.5, "three"] }
requests = 3
timeout = "5s"
retries = 0

[[fault]]
at = "10s"
for = "5s"
partition = [["server"], ["laptop"]]

[[fault]]
at = "20s"
rebind = "home"

[[fault]]
at = "30s"
crash = "laptop"

[[fault]]
at = "40s"
restart = "laptop"

[[expect]]
reply = { from = "laptop", to = "server", value = [1, 1, 2], count = 3 }
within = "1min"

[[expect]]
failed = { to = "server", error = "ERR_TIMEOUT" }
within = "1min"

[[expect]]
punched = { at = "server", by = "laptop" }
within = "1min"

[[expect]]
found = { at = "laptop", service = "rpc_test", address = "server:1337" }
within = "1min"

[[program]]
node = "laptop"
run = "grape"
dht-port = 20002
api-port = 30001

[[program]]
node = "server"
run = "client"
service = "fibonacci_worker"
announce = "fibonacci_consumer"
payload = 10
"#,
    );
    assert_debug_snapshot!(scenario);
}

#[test]
fn what_is_left_out_has_its_documented_default() {
    let scenario = read(
        r#"
[nat.home]
[link.perfect]
[node.server]
[node.other]
[node.laptop]
behind = "home"
[[program]]
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001
[[program]]
node = "server"
run = "worker"
service = "rpc_test"
[[program]]
node = "server"
run = "client"
service = "rpc_test"
payload = 1
"#,
    );
    assert_eq!((scenario.name.as_str(), scenario.seed), ("test", 1));
    assert_eq!(scenario.time_limit, Duration::from_secs(60));

    let nat = &scenario.nats["home"];
    assert_eq!((nat.mapping, nat.filtering), (Dependence::EndpointIndependent, Dependence::AddressAndPortDependent));
    assert_eq!((nat.ports, nat.udp_timeout), (PortAssignment::Preserving, Duration::from_secs(120)));
    assert_eq!((nat.lan.to_string(), nat.hairpinning), ("192.168.1.0/24".to_owned(), Hairpinning::None));
    assert_eq!(nat.address.to_string(), "198.51.100.2");

    let link = &scenario.links["perfect"];
    assert_eq!((link.latency, link.jitter), (Duration::ZERO, Duration::ZERO));
    assert_eq!((link.loss, link.rate, link.queue), (0.0, None, 256 * 1024));

    let address = |node: &str| scenario.nodes[node].address.to_string();
    assert_eq!(address("server"), "203.0.113.2");
    assert_eq!(address("other"), "203.0.113.3");
    assert_eq!(address("laptop"), "192.168.1.2");

    let ProgramKind::Worker(worker) = &scenario.programs[1].kind else { panic!("the second is a worker") };
    assert_eq!(worker.grape, Some("203.0.113.2:30001".parse().unwrap()), "the Grape on its node");
    assert_eq!((&worker.answer, worker.port, worker.announce), (&Answer::Echo, 0, true));
    assert_eq!((&worker.punches, &worker.broker), (&None, &None));

    let ProgramKind::Client(client) = &scenario.programs[2].kind else { panic!("the third is a client") };
    assert_eq!((&client.reach, client.requests, client.retries), (&Reach::Lookup, 1, 10));
    assert_eq!(client.timeout, Duration::from_secs(10));
}

#[test]
fn two_homes_may_have_the_same_lan() {
    let scenario = shipped("broker-both-nat");
    assert_eq!(scenario.nodes["laptop"].address, scenario.nodes["phone"].address);
    assert_ne!(scenario.nats["home"].address, scenario.nats["cafe"].address);
}

#[test]
fn a_worker_answers_in_one_of_four_ways() {
    let answer = |key: &str| {
        let scenario = read(&format!(
            "[node.a]\n[[program]]\nnode = \"a\"\nrun = \"worker\"\ngrape = \"1.2.3.4:1\"\nservice = \"s\"\n{key}"
        ));
        match &scenario.programs[0].kind {
            ProgramKind::Worker(worker) => worker.answer.clone(),
            other => panic!("a worker, not {other:?}"),
        }
    };
    assert_eq!(answer("answer = \"echo\""), Answer::Echo);
    assert_eq!(answer("answer = \"fibonacci\""), Answer::Fibonacci);
    assert_eq!(answer("reply = { a = [1, true] }"), Answer::Value(json!({ "a": [1, true] })));
    assert_eq!(answer("error = \"ERR_BUSY\""), Answer::Error("ERR_BUSY".to_owned()));
}

#[test]
fn a_client_reaches_its_service_in_one_of_four_ways() {
    let reach = |key: &str| {
        let scenario = read(&format!(
            "[node.a]\n[[program]]\nnode = \"a\"\nrun = \"client\"\ngrape = \"1.2.3.4:1\"\nservice = \"s\"\npayload = 1\n{key}\n\
             [[program]]\nnode = \"a\"\nrun = \"worker\"\ngrape = \"1.2.3.4:1\"\nservice = \"s\"\n\
             [[program]]\nnode = \"a\"\nrun = \"broker\"\ngrape = \"1.2.3.4:1\"\nservice = \"b\"\n"
        ));
        match &scenario.programs[0].kind {
            ProgramKind::Client(client) => client.reach.clone(),
            other => panic!("a client, not {other:?}"),
        }
    };
    assert_eq!(reach("punch = false"), Reach::Lookup);
    assert_eq!(reach("punch = true"), Reach::Punch);
    assert_eq!(reach("announce = \"me\""), Reach::AwaitPunch { announce: "me".to_owned() });
    assert_eq!(reach("broker = \"b\""), Reach::Broker { broker: "b".to_owned() });
    assert_eq!(reach("broker = \"b\"\nconnect = true"), Reach::Connect { broker: "b".to_owned() });
}

#[test]
fn expectations_know_their_line_and_their_words() {
    let scenario = shipped("simple-connection");
    let text = include_str!("../../scenarios/simple-connection.toml");
    for expectation in &scenario.expectations {
        assert_eq!(text.lines().nth(expectation.line - 1), Some("[[expect]]"));
    }
    assert_eq!(
        words(&scenario),
        ["client finds rpc_test, within 10s", "client gets the reply \"world\" from server, within 10s"]
    );
}

#[test]
fn the_originals_have_its_address_and_its_ports() {
    for name in ORIGINALS {
        let scenario = shipped(name);
        assert!(scenario.nodes.values().any(|node| node.address.to_string() == "157.81.109.241"), "{name}");
        let mut grapes: Vec<(u16, u16)> = scenario
            .programs
            .iter()
            .filter_map(|program| match program.kind {
                ProgramKind::Grape { dht_port, api_port, .. } => Some((dht_port, api_port)),
                _ => None,
            })
            .collect();
        grapes.dedup();
        let second = if scenario.nats.is_empty() { (20002, 40001) } else { (20002, 30001) };
        assert_eq!(grapes, [(20001, 30001), second], "{name}");
        let asks = scenario.expectations.iter().any(|expectation| {
            matches!(expectation.kind, ExpectationKind::Reply { .. } | ExpectationKind::Found { .. })
        });
        assert!(asks, "{name} expects what it is there to show");
    }
}

#[test]
fn lossy_variants_are_the_same_over_lossy_links() {
    for name in ORIGINALS {
        let (clean, lossy) = (shipped(name), shipped(&format!("{name}-lossy")));
        assert_eq!(clean.links.len(), 0, "{name}");
        assert_eq!(clean.programs, lossy.programs, "{name}");
        assert_eq!(clean.expectations.len(), lossy.expectations.len(), "{name}");

        let link = &lossy.links["lossy"];
        assert_eq!((link.latency, link.jitter), (Duration::from_millis(80), Duration::from_millis(20)), "{name}");
        assert_eq!(link.loss, 0.02, "{name}");
        let uplinks = lossy.nodes.values().filter(|node| node.behind.is_none()).map(|node| &node.link);
        for uplink in uplinks.chain(lossy.nats.values().map(|nat| &nat.link)) {
            assert_eq!(uplink.as_deref(), Some("lossy"), "{name}: everything on the internet is on a lossy link");
        }
    }
}

#[test]
fn what_loopback_runs_has_no_nats_and_no_links() {
    for name in ["two-grapes", "simple-connection"] {
        let scenario = shipped(name);
        assert!(scenario.nats.is_empty() && scenario.links.is_empty(), "{name}");
    }
}
