//! Grapes outside of this process: as children, and in scenarios.

mod processes;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use grenache_sim::grapes::process::{GrapeProcess, Programs, started};
use grenache_sim::grapes::{GrapeKind, GrapeSpec, GrapesError, answers, node, ports};
use processes::{grenache, ran};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

fn programs() -> Programs {
    Programs { grenache: Some(env!("CARGO_BIN_EXE_grenache").into()) }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

fn spec(name: &str, kind: GrapeKind) -> GrapeSpec {
    let [dht, api] = ports::free().expect("there are free ports");
    GrapeSpec::new(name, kind, dht, api).bind(Ipv4Addr::LOCALHOST)
}

/// Two Grapes that start from each other: one is ready with the other, and both end when they are asked to.
async fn two_of(kind: GrapeKind) {
    let folder = folder();
    let (first, second) = (spec("first", kind), spec("second", GrapeKind::Rust));
    let (first, second) = (first.clone().bootstrap(vec![second.dht()]), second.bootstrap(vec![first.dht()]));
    let log = folder.path().join("first.log");
    let mut first = GrapeProcess::start(first, &programs(), &log).expect("it starts");
    let mut second = GrapeProcess::start(second, &programs(), &folder.path().join("second.log")).expect("it starts");
    first.ready(PATIENCE).await.expect("it is ready");
    second.ready(PATIENCE).await.expect("it is ready");
    assert!(answers(first.spec().api()).await);
    let said = fs::read_to_string(&log).expect("there is a log");
    assert!(said.contains(&format!("grenache:grape {} ready", first.spec().dht_port)), "{said}");

    let (api, pid) = (first.spec().api(), first.pid());
    assert_eq!(first.status().expect("it can be asked"), None);
    first.end(PATIENCE).await.expect("it ends");
    assert_eq!(started(pid), None);
    assert!(!answers(api).await);
    let pid = second.pid();
    assert!(started(pid).is_some());
    drop(second);
    assert_eq!(started(pid), None, "it is killed where it is dropped");
}

#[tokio::test]
async fn a_grape_of_ours_is_a_child() {
    two_of(GrapeKind::Rust).await;
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn a_grape_of_the_originals_is_a_child() {
    two_of(GrapeKind::Node).await;
}

#[tokio::test]
async fn a_grape_that_ends_by_itself_is_told_with_its_log() {
    let folder = folder();
    let (first, mut second) = (spec("first", GrapeKind::Rust), spec("second", GrapeKind::Rust));
    second.dht_port = first.dht_port;
    let mut first = GrapeProcess::start(first, &programs(), &folder.path().join("first.log")).expect("it starts");
    first.ready(PATIENCE).await.expect("it is ready");
    let mut second = GrapeProcess::start(second, &programs(), &folder.path().join("second.log")).expect("it starts");
    let error = second.ready(PATIENCE).await.expect_err("the port is in use");
    assert!(matches!(error, GrapesError::Ended { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("second ended by itself (exit status: 1); its log ends with\n"), "{text}");
    assert!(text.contains("  error: cannot bind the DHT node to UDP"), "{text}");
}

#[test]
fn a_process_is_known_by_the_moment_it_started() {
    let mut child = Command::new("sleep").arg("1000").spawn().expect("it starts");
    let at = started(child.id()).expect("it runs");
    assert_eq!(started(child.id()), Some(at));
    child.kill().expect("it runs");
    processes::until("what waits for its parent has ended", || started(child.id()).is_none().then_some(()));
    assert_eq!(started(0), None);
    child.wait().expect("it has ended");
}

fn mixed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/loopback/mixed-grapes.toml")
}

/// Runs the mixed scenario with its Grape of this kind, and gives what happened on that one's node: how often each
/// event.
fn run_mixed(command: &mut Command, kind: &str) -> BTreeMap<String, usize> {
    let out = folder();
    let text = fs::read_to_string(mixed()).expect("it is shipped");
    let file = out.path().join("mixed-grapes.toml");
    fs::write(&file, text.replace("kind = \"node\"", &format!("kind = \"{kind}\""))).expect("written");
    let passed = ran(command.args(["run", "--on", "loopback", "--out"]).arg(out.path()).arg(file));
    assert_eq!(passed.code, Some(0), "{}{}", passed.stdout, passed.stderr);
    let log = fs::read_to_string(out.path().join("mixed-grapes-1/events.jsonl")).expect("it is written");
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let dht = events.iter().find_map(|event| event["node"].as_str()?.strip_suffix(":20002"));
    let dht = dht.and_then(|address| address.parse().ok()).expect("others found it");
    assert!(ports::udp_is_free(dht, 20002), "it ended with the run");
    let mut seen = BTreeMap::new();
    for event in events.iter().filter(|event| event["at"] == "client") {
        *seen.entry(event["event"].as_str().expect("it is named").to_owned()).or_default() += 1;
    }
    seen
}

fn check_mixed(seen: &BTreeMap<String, usize>) {
    let count = |event: &str| seen.get(event).copied().unwrap_or_default();
    assert_eq!((count("node-crashed"), count("program-failed")), (1, 0), "{seen:?}");
    assert_eq!(count("reply-received"), 2, "before the crash and after it: {seen:?}");
    // The run ends with the second reply: what its Grape says last may come too late.
    assert!(
        count("grape-ready") >= 1
            && count("peer-stored") >= 1
            && count("peer-found") >= 1
            && count("grape-lookup") >= 1,
        "{seen:?}"
    );
}

#[test]
fn a_scenario_starts_kills_and_ends_a_grape_that_is_not_ours() {
    // In place of Node.js: takes the script away and runs our Grape, which speaks as the original does.
    let node = "#!/bin/sh\nshift\nexec GRENACHE grape \"$@\"\n";
    let (folder, mut command) = with_program("node", node);
    command.env(node::VARIABLE, folder.path().join("node"));
    check_mixed(&run_mixed(&mut command, "node"));
}

/// In place of an engine: a container is a process of our Grape without the arguments before the image, its id the
/// process's, and its log a file. What has been asked is in the file `asked`.
const DOCKER: &str = r#"#!/bin/sh
folder=$(dirname "$0")
echo "$1" >>"$folder/asked"
case $1 in
  run)
    until [ "$1" = grenache-grape-node:1.0.0 ]; do shift; done
    shift
    # Its arguments for the original's defaults are ours too.
    DEBUG=grenache:grape GRENACHE grape "$@" >/dev/null 2>"$folder/log-$$" &
    mv "$folder/log-$$" "$folder/log-$!"
    echo $!
    ;;
  logs) exec tail -s 0.01 -n +1 -f --pid="$3" "$folder/log-$3" ;;
  rm) kill -KILL "$4" ;;
esac
"#;

#[test]
fn a_scenario_starts_kills_and_removes_a_container() {
    let (folder, mut command) = with_program("docker", DOCKER);
    check_mixed(&run_mixed(&mut command, "container"));
    let asked = fs::read_to_string(folder.path().join("asked")).expect("it was asked");
    let count = |what: &str| asked.lines().filter(|line| *line == what).count();
    assert_eq!((count("run"), count("rm")), (2, 2), "as many are removed as were started: {asked}");
}

/// A command that finds this program first, where `GRENACHE` stands for ours.
fn with_program(name: &str, text: &str) -> (TempDir, Command) {
    let folder = folder();
    let path = folder.path().join(name);
    let ours = format!("'{}'", env!("CARGO_BIN_EXE_grenache"));
    fs::write(&path, text.replace("GRENACHE", &ours)).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let others = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::join_paths([folder.path().to_owned()].into_iter().chain(std::env::split_paths(&others)));
    let mut command = grenache();
    command.env("PATH", all.expect("a PATH"));
    (folder, command)
}

#[test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
fn the_original_runs_in_a_scenario() {
    check_mixed(&run_mixed(&mut grenache(), "node"));
}

#[test]
fn the_simulator_and_a_machine_without_it_refuse_it() {
    let simulated = ran(grenache().arg("run").arg(mixed()));
    assert_eq!(simulated.code, Some(2));
    let refusal =
        "has a Grape on Node.js on \"client\", which cannot run in simulated time: run it with `--on loopback`";
    assert!(simulated.stdout.contains(refusal), "{}", simulated.stdout);
    let missing =
        ran(grenache().args(["run", "--on", "loopback"]).arg(mixed()).env(node::VARIABLE, "/nowhere/grape.js"));
    assert_eq!(missing.code, Some(2));
    assert!(missing.stdout.contains("set it to the path of grenache-grape's bin/grape.js"), "{}", missing.stdout);
}
