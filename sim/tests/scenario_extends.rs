//! Files that extend others: what they come to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use grenache_sim::scenario::model::{ExpectationKind, ProgramKind};
use grenache_sim::scenario::{self, Scenario};
use tempfile::TempDir;

/// Two nodes, with named programs and expectations.
const BASE: &str = r#"
description = "the base"
seed = 3
within = "5s"

[link.dsl]
latency = "20ms"
loss = "1%"

[nat.home]

[node.server]
link = "dsl"

[node.laptop]
behind = "home"

[[program]]
name = "grape"
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001

[[program]]
name = "worker"
node = "server"
run = "worker"
service = "rpc_test"

[[program]]
node = "laptop"
run = "client"
grape = "server"
service = "rpc_test"
payload = 1

[[expect]]
name = "reply"
reply = { to = "laptop" }

[[expect]]
reached = { by = "laptop" }
within = "10s"
"#;

/// Loads the first of some files in a folder.
fn load(files: &[(&str, &str)]) -> Scenario {
    let folder = TempDir::new().expect("there is room for a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder is writable");
        fs::write(path, text).expect("the folder is writable");
    }
    scenario::load(&folder.path().join(files[0].0)).unwrap_or_else(|error| panic!("{error}"))
}

fn base() -> Scenario {
    load(&[("base.toml", BASE)])
}

#[test]
fn what_says_nothing_else_is_the_same() {
    let same = load(&[("a.toml", "extends = \"base.toml\""), ("base.toml", BASE)]);
    let base = base();
    assert_eq!((&*same.name, &*base.name), ("a", "base"));
    assert_eq!((&same.nodes, &same.programs, &same.links), (&base.nodes, &base.programs, &base.links));
    assert_eq!((same.seed, &*same.description), (3, "the base"));
    let places = |scenario: &Scenario| -> Vec<usize> { scenario.expectations.iter().map(|e| e.line).collect() };
    assert_eq!(places(&same), places(&base));
    assert!(same.expectations.iter().all(|e| e.file.as_ref().is_some_and(|file| file.ends_with("base.toml"))));
}

#[test]
fn keys_of_named_tables_are_replaced() {
    let own = "extends = \"base.toml\"\nseed = 4\nlink.dsl.loss = \"5%\"\n[node.laptop]\nlink = \"dsl\"\n[node.more]\n";
    let scenario = load(&[("a.toml", own), ("base.toml", BASE)]);
    let dsl = &scenario.links["dsl"];
    assert_eq!((dsl.latency, dsl.loss, scenario.seed), (Duration::from_millis(20), 0.05, 4));
    let laptop = &scenario.nodes["laptop"];
    assert_eq!((laptop.behind.as_deref(), laptop.link.as_deref()), (Some("home"), Some("dsl")));
    // The base's come first, and keep their addresses.
    assert_eq!(scenario.nodes["server"].address, base().nodes["server"].address);
    assert_eq!(scenario.nodes["more"].address.to_string(), "203.0.113.3");
}

#[test]
fn tables_of_lists_are_changed_by_their_name_or_added() {
    let own = r#"
extends = "base.toml"
[[program]]
name = "worker"
reply = "changed"
[[program]]
node = "laptop"
run = "lookup"
grape = "server"
service = "rpc_test"
[[expect]]
name = "reply"
reply = { to = "laptop", value = "changed" }
"#;
    let scenario = load(&[("a.toml", own), ("base.toml", BASE)]);
    let runs: Vec<&str> = scenario
        .programs
        .iter()
        .map(|program| match &program.kind {
            ProgramKind::Grape { .. } => "grape",
            ProgramKind::Worker(worker) => match &worker.answer {
                grenache_sim::scenario::model::Answer::Value(value) => value.as_str().expect("a text"),
                _ => "worker",
            },
            ProgramKind::Client(_) => "client",
            ProgramKind::Lookup { .. } => "lookup",
            _ => "other",
        })
        .collect();
    assert_eq!(runs, ["grape", "changed", "client", "lookup"]);
    assert_eq!(scenario.expectations.len(), 2);
    assert_eq!(scenario.expectations[0].text, "laptop gets the reply \"changed\", within 5s");
}

#[test]
fn what_is_removed_is_not_there() {
    let own = r#"
extends = "base.toml"
remove = ["expect", "program.worker", "nat.home", "node.laptop"]
node.laptop.link = "dsl"
[[program]]
node = "server"
run = "announce"
service = "rpc_test"
port = 1
"#;
    let scenario = load(&[("a.toml", own), ("base.toml", BASE)]);
    assert_eq!((scenario.expectations.len(), scenario.nats.len(), scenario.programs.len()), (0, 0, 3));
    assert_eq!(scenario.nodes["laptop"].behind, None, "removed, and defined anew");
}

#[test]
fn a_time_for_all_expectations_is_that_of_those_without_one() {
    let own = "extends = \"base.toml\"\nwithin = \"40s\"\n";
    let scenario = load(&[("a.toml", own), ("base.toml", BASE)]);
    let times: Vec<u64> = scenario.expectations.iter().map(|expectation| expectation.within.as_secs()).collect();
    assert_eq!(times, [40, 10]);
}

#[test]
fn an_uplink_is_of_those_on_the_internet_without_a_link() {
    let own = "extends = \"base.toml\"\nuplink = \"slow\"\nlink.slow.latency = \"1s\"\n[node.more]\n";
    let scenario = load(&[("a.toml", own), ("base.toml", BASE)]);
    let link = |node: &str| scenario.nodes[node].link.as_deref();
    assert_eq!((link("server"), link("more"), link("laptop")), (Some("dsl"), Some("slow"), None));
    assert_eq!(scenario.nats["home"].link.as_deref(), Some("slow"));
}

#[test]
fn several_are_laid_over_each_other_in_their_order() {
    let files = [
        ("sub/a.toml", "extends = [\"../base.toml\", \"parts/one.toml\", \"parts/two.toml\"]\n"),
        ("base.toml", BASE),
        (
            "sub/parts/one.toml",
            "extends = \"../../base.toml\"\nseed = 5\ndescription = \"one\"\nlink.dsl.loss = \"2%\"\n",
        ),
        ("sub/parts/two.toml", "description = \"two\"\n"),
    ];
    let scenario = load(&files);
    assert_eq!((scenario.seed, &*scenario.description, scenario.links["dsl"].loss), (5, "two", 0.02));
    assert_eq!(scenario.programs.len(), base().programs.len(), "the base counts once");
}

#[test]
fn a_chain_of_files_is_followed() {
    let scenario = load(&[
        ("a.toml", "extends = \"b.toml\"\nlink.dsl.jitter = \"1ms\"\n"),
        (
            "b.toml",
            "extends = \"base.toml\"\nlink.dsl.latency = \"30ms\"\n[[expect]]\nreply = { to = \"laptop\", count = 1 }\n",
        ),
        ("base.toml", BASE),
    ]);
    let dsl = &scenario.links["dsl"];
    assert_eq!((dsl.latency, dsl.jitter, dsl.loss), (Duration::from_millis(30), Duration::from_millis(1), 0.01));
    let last = scenario.expectations.last().expect("three");
    assert!(last.file.as_ref().is_some_and(|file| file.ends_with("b.toml")));
    assert_eq!((last.line, scenario.expectations.len()), (3, 3));
    assert!(matches!(last.kind, ExpectationKind::Reply { .. }));
}

#[test]
fn shipped_variants_are_short() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut variants = 0;
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.to_string_lossy().ends_with("-lossy.toml") {
            let text = fs::read_to_string(&path).expect("it can be read");
            let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
            assert!(lines <= 5, "{}: {lines} lines", path.display());
            variants += 1;
        }
    }
    assert_eq!(variants, 7);
}
