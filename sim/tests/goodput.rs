//! What a path's jitter costs: packets that overtake each other are not lost ones.

use std::time::Duration;

use grenache_sim::backend::{self, On, RunOptions};
use grenache_sim::report::Verdict;
use grenache_sim::scenario;

/// How long a reply of a megabyte takes over 80 ms, with this jitter: the median of several seeds.
fn megabyte(jitter: &str) -> Duration {
    let reply = "x".repeat(1_000_000);
    let text = format!(
        r#"
time-limit = "120s"
[link.path]
latency = "80ms"
jitter = "{jitter}"
[node.server]
link = "path"
[node.client]
[[program]]
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001
[[program]]
node = "client"
run = "grape"
dht-port = 20002
api-port = 30001
bootstrap = ["server:20001"]
[[program]]
node = "server"
run = "worker"
service = "big"
reply = "{reply}"
[[program]]
node = "client"
run = "client"
grape = "server"
start = "5s"
service = "big"
payload = "please"
timeout = "100s"
[[expect]]
reply = {{ to = "client", value = "{reply}" }}
within = "110s"
"#
    );
    let scenario = scenario::parse("goodput", &text).expect("the scenario is right");
    let mut times: Vec<Duration> = (0..7)
        .map(|seed| {
            let outcome = backend::run(&scenario, &RunOptions { seed, on: On::Sim }, |_| {}).expect("it runs");
            assert_eq!(outcome.verdict, Verdict::Passed, "seed {seed}");
            outcome.simulated - Duration::from_secs(5)
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn jitter_costs_less_than_half_of_the_goodput() {
    let without = megabyte("0ms");
    for jitter in ["1ms", "5ms", "20ms"] {
        let with = megabyte(jitter);
        assert!(with < without * 2, "{with:?} with a jitter of {jitter}, {without:?} without");
    }
}
