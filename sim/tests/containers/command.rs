//! `grenache grapes up --on docker`, with real containers.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use grenache_sim::grapes::docker::LABEL;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::{announce, docker, eventually, link, lookup, printed, unique};

/// `grenache grapes` with a state of its own; what it has started is ended where it goes out of scope.
struct Grapes {
    name: String,
    state: tempfile::TempDir,
}

impl Grapes {
    fn new(name: &str) -> Self {
        Self { name: unique(name), state: tempfile::tempdir().expect("there is room for a folder") }
    }

    fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut grapes = Command::new(env!("CARGO_BIN_EXE_grenache"));
        grapes.env("XDG_STATE_HOME", self.state.path());
        grapes.args(["grapes", command, "--name", &self.name]).args(arguments);
        grapes
    }

    fn containers(&self, options: &str) -> usize {
        let labels = docker(&["ps", options, "--format", &format!("{{{{.Label \"{LABEL}\"}}}}")]);
        labels.lines().filter(|label| label.starts_with(&self.name)).count()
    }
}

impl Drop for Grapes {
    fn drop(&mut self) {
        let _ = self.command("down", &[]).output();
    }
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn three_of_both_kinds_come_up_and_leave_nothing_behind() {
    let grapes = Grapes::new("three");
    // Not the usual ports, which the compose file's Grapes have.
    let ports = ["--dht-port", "24001", "--api-port", "34001"];
    let up = ["-n", "3", "--kind", "mixed", "--on", "docker", "--json"];
    let told = printed(grapes.command("up", &up).args(ports));
    let rows: Vec<Value> = serde_json::from_str(&told).expect("an array");
    let kinds: Vec<&str> = rows.iter().filter_map(|row| row["kind"].as_str()).collect();
    assert_eq!(kinds, ["rust", "node", "rust"]);
    assert_eq!(grapes.containers("--quiet=false"), 3);

    let again = grapes.command("up", &up).output().expect("it runs");
    assert_eq!(again.status.code(), Some(1), "they are up already");

    let apis: Vec<SocketAddr> = (34001..34004).map(|port| ([127, 0, 0, 1], port).into()).collect();
    for (row, api) in rows.iter().zip(&apis) {
        assert_eq!(row["api"], format!("http://{api}"));
    }
    announce(&link(apis[1]), "my_service", 1337).await;
    for api in [apis[0], apis[2]] {
        assert_eq!(lookup(&link(api), "my_service", 1).await, ["127.0.0.1:1337".parse().expect("an address")]);
    }

    let status = printed(&mut grapes.command("status", &[]));
    assert_eq!(status.lines().filter(|line| line.contains("  up  ")).count(), 3, "{status}");
    let id = rows[0]["container"].as_str().expect("an id");
    docker(&["stop", "-t", "10", id]);
    let status = grapes.command("status", &[]).output().expect("it runs");
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1), "{text}");
    assert!(text.contains("its container does not run"), "{text}");

    // One that somebody else has removed is no reason to leave the others.
    docker(&["rm", id]);
    assert_eq!(printed(&mut grapes.command("down", &[])), "ended 3 Grapes");
    assert_eq!(grapes.containers("--all"), 0);
    assert_eq!(printed(&mut grapes.command("down", &[])), "no Grapes were up");
}

#[test]
#[ignore = "needs Docker"]
fn a_grape_that_does_not_come_up_leaves_nothing_behind() {
    let grapes = Grapes::new("broken");
    // A port that a user without rights cannot have, on the host's network: the Grape ends at once.
    let ports = ["--dht-port", "24011", "--api-port", "81"];
    let up = grapes.command("up", &["--on", "docker"]).args(ports).output().expect("it runs");
    let text = String::from_utf8_lossy(&up.stderr).into_owned();
    assert_eq!(up.status.code(), Some(1), "this test needs root, for `up` looks whether the port is free: {text}");
    assert!(text.contains("-1 ended by itself (its container stopped); its log ends with\n"), "{text}");
    assert!(text.contains("cannot listen"), "{text}");
    assert_eq!(grapes.containers("--all"), 0);
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn an_interrupt_leaves_nothing_behind() {
    let grapes = Grapes::new("interrupted");
    let ports = ["--dht-port", "24021", "--api-port", "34021"];
    let mut up = grapes.command("up", &["-n", "8", "--on", "docker"]);
    let up = up.args(ports).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // In the middle of it: eight take longer than one.
    eventually("the first is there", || async { (grapes.containers("--all") > 0).then_some(()) }).await;
    let pid = Pid::from_raw(up.id().try_into().expect("a process id")).expect("a process id");
    kill_process(pid, Signal::INT).expect("it runs");
    let output = up.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("interrupted by SIGINT"), "{text}");
    assert_eq!(grapes.containers("--all"), 0);
}
