//! Nodes and NATs that stand for many, drawn or paired, and what is expected of them.

use std::collections::BTreeMap;
use std::time::Duration;

use grenache_sim::backend::{self, On, RunOptions};
use grenache_sim::report::{ExpectationOutcome, Verdict};
use grenache_sim::scenario::model::{FaultKind, ProgramKind};
use grenache_sim::scenario::{self, Scenario};

fn read(text: &str) -> Scenario {
    scenario::parse("test.toml", text).unwrap_or_else(|error| panic!("{error}"))
}

/// Clients of two kinds of NATs, or none, and a public worker.
fn drawn(count: u32) -> Scenario {
    read(&format!(
        r#"
[nat.cone]
count = {count}
[nat.symmetric]
count = {count}
mapping = "address-and-port-dependent"
[node.peer]
count = {count}
behind = {{ cone = "60%", symmetric = "30%", none = "10%" }}
[node.server]
[[program]]
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001
[[program]]
node = "peer"
run = "lookup"
grape = "server"
service = "s"
[[program]]
node = "server"
run = "announce"
service = "s"
port = 1
"#
    ))
}

/// What each node is behind, without the member's number.
fn behind(scenario: &Scenario) -> BTreeMap<String, String> {
    let kind = |nat: &str| nat.rsplit_once('-').map_or(nat.to_owned(), |(kind, _)| kind.to_owned());
    let behind = |node: &grenache_sim::scenario::model::Node| node.behind.as_deref().map_or("none".to_owned(), kind);
    scenario.nodes.iter().map(|(name, node)| (name.to_string(), behind(node))).collect()
}

#[test]
fn members_are_numbered_from_one() {
    let scenario = read(
        r#"
[node.peer]
count = 12
[node.server]
[[program]]
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001
[[program]]
node = "peer"
run = "worker"
grape = "server"
service = "service_{n}"
reply = { number = "{n}", list = ["{n} of 12"] }
[[program]]
node = "peer"
run = "client"
grape = "server"
service = "service_{n}"
payload = "from {n}"
"#,
    );
    assert_eq!(scenario.nodes.len(), 13);
    let address = |node: &str| scenario.nodes[node].address.to_string();
    assert_eq!((address("peer-1"), address("peer-2")), ("198.18.0.2".to_owned(), "198.18.0.3".to_owned()));
    assert_eq!((address("peer-12"), address("server")), ("198.18.0.13".to_owned(), "203.0.113.2".to_owned()));
    assert_eq!(scenario.programs.len(), 1 + 12 + 12);
    let ProgramKind::Worker(worker) = &scenario.programs[10].kind else { panic!("a worker") };
    assert_eq!((&*scenario.programs[10].node, &*worker.service), ("peer-10", "service_10"));
    assert_eq!(format!("{:?}", worker.answer).matches("\"10\"").count(), 1);
    let ProgramKind::Client(client) = &scenario.programs[24].kind else { panic!("a client") };
    assert_eq!((&*client.service, &client.payload), ("service_12", &"from 12".into()));
}

#[test]
fn each_is_behind_the_nat_with_its_number() {
    let scenario = read(
        r#"
[nat.home]
count = 3
[nat.flat]
count = 3
behind = "carrier"
lan = "10.1.0.0/24"
[nat.carrier]
lan = "100.64.0.0/16"
[node.laptop]
count = 3
behind = "home"
[node.phone]
count = 3
behind = "flat"
[node.tablet]
count = 2
behind = "carrier"
[[program]]
node = "laptop"
run = "grape"
dht-port = 20001
api-port = 30001
bootstrap = ["phone-{n}:20001"]
[[program]]
node = "phone"
run = "grape"
dht-port = 20001
api-port = 30001
"#,
    );
    for number in 1..=3 {
        let behind = |node: &str| scenario.nodes[&*format!("{node}-{number}")].behind.clone();
        assert_eq!(behind("laptop").as_deref(), Some(&*format!("home-{number}")));
        assert_eq!(behind("phone").as_deref(), Some(&*format!("flat-{number}")));
        assert_eq!(scenario.nats[&*format!("flat-{number}")].behind.as_deref(), Some("carrier"));
    }
    assert_eq!(scenario.nodes["tablet-2"].behind.as_deref(), Some("carrier"));
    assert_eq!(scenario.nats["home-2"].address.to_string(), "198.19.0.3");
    assert_eq!(scenario.nats["flat-2"].address.to_string(), "100.64.0.3");
    assert_eq!(scenario.nodes["laptop-3"].address, scenario.nodes["laptop-1"].address, "each home has its own LAN");
    let ProgramKind::Grape { bootstrap, .. } = &scenario.programs[1].kind else { panic!("a Grape") };
    assert_eq!(bootstrap[0].to_string(), "198.51.100.2:20001", "the carrier's address");
}

#[test]
fn nats_are_drawn_by_their_shares() {
    let all = behind(&drawn(1000));
    let of = |kind: &str| all.values().filter(|behind| *behind == kind).count();
    let (cone, symmetric, none) = (of("cone"), of("symmetric"), of("none") - 1);
    assert_eq!(cone + symmetric + none, 1000);
    // Four standard deviations are 62, 58 and 38.
    assert!(
        cone.abs_diff(600) < 62 && symmetric.abs_diff(300) < 58 && none.abs_diff(100) < 38,
        "{cone} {symmetric} {none}"
    );
}

#[test]
fn another_node_changes_nobody_elses_nat() {
    let (few, more) = (behind(&drawn(50)), behind(&drawn(51)));
    assert!(few.iter().all(|(node, nat)| more[node] == *nat));
    assert_eq!(more.len(), few.len() + 1);
}

#[test]
fn another_seed_draws_anew() {
    let scenario = drawn(50);
    let with = |seed| scenario.drawn(seed).unwrap_or_else(|error| panic!("{error}"));
    assert!(with(1).is_none(), "it is drawn for the file's seed already");
    let (two, three) = (with(2).expect("drawn"), with(3).expect("drawn"));
    assert_ne!(behind(&two), behind(&scenario));
    assert_ne!(behind(&two), behind(&three));
    assert_eq!(two.drawn(1).unwrap_or_else(|error| panic!("{error}")).expect("drawn"), scenario);
    assert_eq!(two.nats, scenario.nats);
}

#[test]
fn runs_draw_by_their_seed() {
    let scenario = drawn(30);
    let natted = |seed| {
        let seen = std::rc::Rc::new(std::cell::RefCell::new(std::collections::BTreeSet::new()));
        let nats = seen.clone();
        backend::run(
            &Scenario { time_limit: Duration::from_secs(2), ..scenario.clone() },
            &RunOptions { seed, on: On::Sim },
            move |record| {
                if let grenache_sim::event::Event::Lab(grenache_sim::event::LabEvent::MappingCreated { .. }) =
                    record.event
                {
                    nats.borrow_mut().extend(record.at.clone());
                }
            },
        )
        .expect("it runs");
        seen.take()
    };
    let used = |scenario: &Scenario| scenario.nodes.values().filter_map(|node| node.behind.clone()).collect();
    assert_eq!(natted(1), used(&scenario));
    assert_eq!(natted(7), used(&scenario.drawn(7).unwrap_or_else(|error| panic!("{error}")).expect("drawn")));
}

#[test]
fn faults_are_of_each_member() {
    let scenario = read(
        r#"
[nat.home]
count = 2
[node.peer]
count = 2
behind = "home"
[node.server]
[[program]]
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001
[[fault]]
at = "1s"
rebind = "home"
[[fault]]
at = "2s"
crash = "peer"
[[fault]]
at = "3s"
lasts = "1s"
partition = [["peer"], ["server"]]
"#,
    );
    let kinds: Vec<&FaultKind> = scenario.faults.iter().map(|fault| &fault.kind).collect();
    let both = || vec!["peer-1".into(), "peer-2".into()];
    assert_eq!(
        kinds,
        [
            &FaultKind::Rebind("home-1".into()),
            &FaultKind::Rebind("home-2".into()),
            &FaultKind::Crash("peer-1".into()),
            &FaultKind::Crash("peer-2".into()),
            &FaultKind::Partition(both(), vec!["server".into()]),
        ]
    );
}

/// Ten clients, of which two ask a worker that is down.
fn outcomes(expectations: &str) -> Vec<ExpectationOutcome> {
    let scenario = read(&format!(
        r#"
time-limit = "20s"
within = "15s"
[node.server]
[node.client]
count = 8
[node.lost]
count = 2
[[program]]
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001
bootstrap = ["client-1:20001"]
[[program]]
node = "client-1"
run = "grape"
dht-port = 20001
api-port = 30001
bootstrap = ["server:20001"]
[[program]]
node = "server"
run = "worker"
start = "1s"
service = "rpc_test"
reply = "world"
[[program]]
node = "client"
run = "client"
start = "2s"
grape = "server"
service = "rpc_test"
payload = "from {{n}}"
requests = 2
[[program]]
node = "lost"
run = "client"
start = "2s"
grape = "server"
service = "rpc_test"
payload = "from {{n}}"
[[fault]]
at = "1500ms"
partition = [["lost"], ["server", "client-2"]]
[[fault]]
at = "1500ms"
partition = [["client-8"], ["server"]]
{expectations}
"#
    ));
    backend::run(&scenario, &RunOptions { seed: 1, on: On::Sim }, |_| {}).expect("it runs").expectations
}

#[test]
fn expectations_are_of_each_member_or_a_share() {
    let all = outcomes(
        r#"
[[expect]]
reply = { to = "client", value = "world" }
[[expect]]
reply = { to = "client", value = "world", share = "87.5%" }
[[expect]]
reply = { to = "client", count = 2, share = "80%" }
[[expect]]
reply = { to = "lost", share = "1%" }
[[expect]]
never = { reply = { to = "lost", share = "50%" } }
[[expect]]
percentile = { of = "latency", to = "client", p75 = "1s" }
[[expect]]
percentile = { of = "latency", to = "client", p95 = "1s" }
[[expect]]
bytes = { through = "client", at-least = "100 B", share = "87.5%" }
[[expect]]
bytes = { through = "client", at-most = "100 B" }
"#,
    );
    let lines: Vec<String> = all
        .iter()
        .map(|outcome| {
            let how = outcome.reason.as_ref().map_or_else(|| "met".to_owned(), |reason| format!("NOT MET: {reason}"));
            format!("{}\n  {how}\n  by {}", outcome.text, outcome.decided_by)
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// Clients of all kinds of NATs, as many as asked for.
fn many(count: u32) -> String {
    let text = include_str!("../../scenarios/many-clients.toml");
    assert_eq!(text.matches("count = 200").count(), 4);
    let text = text.replace("count = 200", &format!("count = {count}"));
    // Ten a second are too few for many.
    if count > 200 { text.replace("start = \"{n}00ms\"", "start = \"{n}ms\"") } else { text }
}

#[test]
fn ten_thousand_hosts_are_loaded() {
    let scenario = read(&many(10_000));
    assert_eq!((scenario.nodes.len(), scenario.nats.len()), (10_003, 30_001));
    assert_eq!(scenario.programs.len(), 10_005);
}

#[test]
fn a_smaller_population_passes_for_other_seeds() {
    let scenario = read(&many(20));
    for seed in 10..15 {
        let outcome = backend::run(&scenario, &RunOptions { seed, on: On::Sim }, |_| {}).expect("it runs");
        assert_eq!(outcome.expectations[0].reason, None, "seed {seed}");
        assert!(outcome.verdict == Verdict::Passed || outcome.expectations[1].reason.is_some(), "seed {seed}");
    }
}
