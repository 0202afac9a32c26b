//! `kind = "container"` in a scenario.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{docker, root};

/// The scenario of both kinds, with a container in place of Node.js, in a folder of its own.
fn scenario() -> TempDir {
    let text = fs::read_to_string(root().join("scenarios/loopback/mixed-grapes.toml")).expect("it is there");
    let mut contained = text;
    // A container takes longer to start than a process, and tests run beside each other.
    for (is, becomes) in [
        ("kind = \"node\"", "kind = \"container\""),
        ("at = \"6s\"", "at = \"20s\""),
        ("within = \"6s\"", "within = \"20s\""),
        ("within = \"30s\"", "within = \"60s\""),
        ("time-limit = \"60s\"", "time-limit = \"90s\""),
        // The compose file's Grapes have these.
        ("2000", "2500"),
        ("30001", "35001"),
        ("40001", "35002"),
        ("50001", "35003"),
    ] {
        assert!(contained.contains(is), "{is}");
        contained = contained.replace(is, becomes);
    }
    let folder = tempfile::tempdir().expect("there is room for a folder");
    fs::write(folder.path().join("contained.toml"), contained).expect("written");
    folder
}

fn run(folder: &TempDir, on: &str, path: Option<&str>) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grenache"));
    command.args(["run", "--on", on, "--out"]).arg(folder.path()).arg(folder.path().join("contained.toml"));
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[test]
#[ignore = "needs Docker"]
fn the_original_runs_in_a_container_crashes_and_comes_back() {
    let folder = scenario();
    let (code, told) = run(&folder, "loopback", None);
    assert_eq!(code, Some(0), "{told}");
    let log = fs::read_to_string(folder.path().join("contained-1/events.jsonl")).expect("it is written");
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let count = |event: &str| events.iter().filter(|e| e["at"] == "client" && e["event"] == event).count();
    assert_eq!(count("grape-ready"), 2, "before the crash and after it");
    assert!(count("peer-found") >= 1 && count("grape-lookup") >= 1);
    let left = docker(&["ps", "--all", "--format", "{{.Names}}"]);
    assert!(!left.contains("grenache-client-25002"), "{left}");
}

#[test]
fn the_simulator_and_a_machine_without_docker_refuse_it() {
    let folder = scenario();
    let (code, told) = run(&folder, "sim", None);
    assert_eq!(code, Some(2));
    assert!(told.contains("has a Grape in a container on \"client\", which cannot run in simulated time"), "{told}");
    let (code, told) = run(&folder, "loopback", Some("/nowhere"));
    assert_eq!(code, Some(2));
    assert!(told.contains("there is no `docker` on the PATH: install Docker"), "{told}");
}
