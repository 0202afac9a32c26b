//! `grenache shrink`: what is left of a planted failure.

mod processes;

use std::fs;
use std::path::{Path, PathBuf};

use processes::{grenache, ran};
use tempfile::TempDir;

/// A client asks a worker, and does not get its answer because of one of these faults: the worker's host crashes at
/// 3 s. The rest goes on beside it: a service behind a NAT with a client of its own, a cut that heals, a router that
/// restarts, links that lose and delay.
const PLANTED: &str = r#"# A service with everything around it.
description = "one of the faults is to blame"
seed = 1
time-limit = "60s"

[link.wan]
latency = "20ms"
jitter = "5ms"
loss = "0.1%"

[link.dsl]
latency = "30ms"
rate = "16 Mbit/s"
queue = "64 KiB"

[nat.home]
mapping = "endpoint-independent"
filtering = "address-dependent"
link = "dsl"

[node.server]
address = "157.81.109.241"
link = "wan"

[node.worker]
address = "203.0.113.10"
link = "wan"

[node.client]
address = "203.0.113.20"
link = "wan"

[node.laptop]
behind = "home"

[node.bystander]
address = "203.0.113.40"
link = "wan"

[[program]]
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001
bootstrap = ["worker:20002", "laptop:20003"]

[[program]]
node = "worker"
run = "grape"
dht-port = 20002
api-port = 40001
bootstrap = ["server:20001"]

[[program]]
node = "laptop"
run = "grape"
dht-port = 20003
api-port = 40001
bootstrap = ["server:20001"]

[[program]]
node = "worker"
run = "worker"
start = "1s"
service = "rpc_test"
port = 1337
reply = "world"

[[program]]
node = "bystander"
run = "grape"
dht-port = 20004
api-port = 40001
bootstrap = ["server:20001"]

[[program]]
node = "bystander"
run = "worker"
start = "1s"
service = "other"
port = 1338
reply = "there"

[[program]]
node = "laptop"
run = "client"
start = "2s"
grape = "server"
service = "other"
payload = "hello"

# What the service is for.
[[program]]
node = "client"
run = "client"
start = "5s"
grape = "server"
service = "rpc_test"
payload = "hello"
timeout = "3s"
retries = 3

[[fault]]
at = "2s"
for = "1s"
partition = [["laptop"], ["client", "bystander"]]

[[fault]]
at = "2500ms"
rebind = "home"

[[fault]]
at = "3s"
crash = "worker"

[[fault]]
at = "4s"
for = "2s"
crash = "bystander"

[[fault]]
at = "6s"
for = "1s"
partition = [["server"], ["bystander"]]

[[expect]]
reply = { from = "bystander", to = "laptop", value = "there" }
within = "40s"

[[expect]]
reply = { from = "worker", to = "client", value = "world" }
within = "45s"
"#;

fn planted(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("planted.toml");
    fs::write(&path, PLANTED).expect("the folder is writable");
    path
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(name)
}

fn shrunk(path: &Path, args: &[&str]) -> String {
    let output = path.with_extension("min.toml");
    let ran = ran(grenache().arg("shrink").arg(path).args(args));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("lines are left after") && ran.stdout.contains("run it:  grenache run "),
        "{}",
        ran.stdout
    );
    fs::read_to_string(output).expect("it is written")
}

#[test]
fn what_is_left_of_a_planted_failure_is_its_cause() {
    let folder = folder();
    let path = planted(&folder);
    let small = shrunk(&path, &["--seed", "7"]);
    let tables: toml_edit::DocumentMut = small.parse().expect("TOML");
    let list = |name: &str| tables[name].as_array_of_tables().expect(name).clone();

    // Of five faults the one that is to blame; of eight programs those without which nothing could work.
    let faults = list("fault");
    assert_eq!(faults.len(), 1, "{small}");
    assert_eq!(faults.get(0).and_then(|fault| fault["crash"].as_str()), Some("worker"), "{small}");
    let mut programs: Vec<String> =
        list("program").iter().filter_map(|program| program["run"].as_str().map(str::to_owned)).collect();
    programs.sort();
    assert_eq!(programs.iter().filter(|run| *run == "worker").count(), 1, "{small}");
    assert_eq!(programs.iter().filter(|run| *run == "client").count(), 1, "{small}");
    assert!(programs.len() <= 4, "{small}");
    let nodes: Vec<&str> = tables["node"].as_table().expect("nodes").iter().map(|(name, _)| name).collect();
    assert!(nodes.len() <= 3 && nodes.contains(&"worker") && nodes.contains(&"client"), "{nodes:?}");
    assert!(tables.get("nat").is_none() && tables.get("link").is_none(), "{small}");
    assert_eq!(list("expect").len(), 1);
    assert!(small.lines().count() * 2 < PLANTED.lines().count(), "{small}");
    assert!(!small.contains("everything around it"), "the comment was of the whole file: {small}");

    // It is a file by itself, and fails as the original does.
    let first = small.lines().next().expect("a line");
    assert!(first.starts_with("# Shrunk by grenache ") && first.contains("seed 7"), "{first}");
    assert!(small.contains("It passes without its faults."), "{small}");
    let replay = small.lines().find_map(|line| line.split_once("grenache run ")).expect("a command").1;
    let again = ran(grenache().arg("run").arg(replay));
    assert_eq!(again.code, Some(1), "{}{}", again.stdout, again.stderr);
    assert!(
        again.stdout.contains("NOT MET: client gets the reply \"world\" from worker, within 45s"),
        "{}",
        again.stdout
    );
}

#[test]
fn the_same_failure_shrinks_to_the_same_file() {
    let (one, other) = (folder(), folder());
    let texts = [&one, &other].map(|folder| {
        let text = shrunk(&planted(folder), &["--seed", "7"]);
        text.replace(&folder.path().display().to_string(), "FOLDER")
    });
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn a_bound_ends_the_search_with_what_it_has() {
    let folder = folder();
    let small = shrunk(&planted(&folder), &["--runs", "10"]);
    assert!(small.contains("more might be cut"), "{small}");
    let checked = ran(grenache().arg("check").arg(folder.path()));
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
}

#[test]
fn what_passes_is_not_shrunk() {
    let folder = folder();
    let output = folder.path().join("small.toml");
    let passes =
        ran(grenache().arg("shrink").arg(shipped("two-grapes.toml")).args(["--seed", "3", "--output"]).arg(&output));
    assert_eq!((passes.code, passes.stdout.as_str()), (Some(2), ""));
    assert!(passes.stderr.contains("the run passes: there is nothing to shrink"), "{}", passes.stderr);
    assert!(!output.exists());
}

#[test]
fn a_file_is_not_overwritten_by_what_is_left_of_it() {
    let folder = folder();
    let file = planted(&folder);
    let onto = ran(grenache().arg("shrink").arg(&file).arg("--output").arg(folder.path().join("./planted.toml")));
    assert_eq!((onto.code, onto.stdout.as_str()), (Some(2), ""));
    assert!(onto.stderr.contains("would be overwritten"), "{}", onto.stderr);
    assert_eq!(fs::read_to_string(file).expect("it is there"), PLANTED);
}

#[test]
fn losses_that_make_a_run_fail_stay() {
    let folder = folder();
    let output = folder.path().join("small.toml");
    let mut command = grenache();
    command.arg("shrink").arg(shipped("simple-connection-lossy.toml")).args([
        "--seed",
        "0",
        "--set",
        "link.lossy.loss=40%",
    ]);
    let shrunk = ran(command.arg("--output").arg(&output));
    assert_eq!(shrunk.code, Some(0), "{}{}", shrunk.stdout, shrunk.stderr);
    let small = fs::read_to_string(output).expect("it is written");
    // The file extends others: what is left stands by itself.
    assert!(!small.contains("extends"), "{small}");
    assert!(small.contains("over links that lose and delay nothing"), "{small}");
    assert!(small.contains("loss = \"40%\""), "{small}");
    let comment = small.replace("\n# ", " ");
    assert!(comment.contains("with link.lossy.loss=40%"), "{small}");
}
