//! `grenache matrix`: NAT × NAT as a broker's plain introduction has it, and what theory says of it.

mod processes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use processes::{grenache, ran};

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(name)
}

#[test]
fn theory_agrees_with_all_pairs_of_nats_whatever_their_ports() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    for (ports, impossible) in [("preserving", 12), ("contiguous", 12), ("random", 51)] {
        let csv = folder.path().join(ports);
        let set = format!("nat.*.ports={ports}");
        let mut command = grenache();
        command.arg("matrix").arg(scenario("broker-both-nat.toml")).args(["--seeds", "0..3", "--set", &set]);
        let ran = ran(command.arg("--csv").arg(&csv));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ports}:\n{}", ran.stdout);
        assert!(ran.stdout.contains("theory agrees with all 81 cells"), "{}", ran.stdout);
        assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
        let csv = fs::read_to_string(csv).expect("written");
        assert_eq!(csv.lines().count(), 82);
        // Each cell is all or nothing, so that an oracle that says yes to everything would not agree.
        assert_eq!(csv.lines().filter(|line| line.contains(",3,0,0.0000,")).count(), impossible, "{ports}:\n{csv}");
        assert_eq!(csv.lines().filter(|line| line.contains(",3,3,1.0000,")).count(), 81 - impossible, "{ports}");
    }
}

#[test]
fn a_cell_that_is_not_as_theory_has_it_is_loud() {
    // The deadline is before anybody can have registered: what theory has nothing to say of.
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let html = folder.path().join("heat.html");
    let mut command = grenache();
    command.arg("matrix").arg(scenario("broker-both-nat.toml")).args(["--seeds", "0..2"]);
    command.args([
        "--rows",
        "nat.home=ei/ei,apd/apd",
        "--columns",
        "nat.cafe=ei/apd",
        "--set",
        "expect.*.within=1001ms",
    ]);
    let wrong = ran(command.arg("--html").arg(&html));
    assert_eq!(wrong.code, Some(1), "{}{}", wrong.stdout, wrong.stderr);
    for part in
        ["!0%", "THEORY DISAGREES with 2 of 2 cells", "nat.home=ei/ei nat.cafe=ei/apd: 0 of 2 passed", "should pass: "]
    {
        assert!(wrong.stdout.contains(part), "{part:?} is not in\n{}", wrong.stdout);
    }
    let html = fs::read_to_string(html).expect("written");
    assert!(html.contains("≠") && html.contains("Not as theory has it"), "{html}");
    assert!(!html.contains("src=") && !html.contains("http"), "it needs nothing else");
    // The command that it ends with shows it.
    let replay = wrong.stdout.lines().find_map(|line| line.split_once("run it again:  ")).expect("a command").1;
    let command = replay.replacen("grenache", env!("CARGO_BIN_EXE_grenache"), 1);
    let again = ran(Command::new("sh").arg("-c").arg(command));
    assert_eq!(again.code, Some(1), "{}{}", again.stdout, again.stderr);
}

#[test]
fn any_two_keys_make_a_matrix() {
    let mut command = grenache();
    command.arg("matrix").arg(scenario("simple-connection-lossy.toml")).args(["--seeds", "0..5", "--markdown", "-"]);
    command.args(["--rows", "link.lossy.loss=0%,90%", "--columns", "link.lossy.latency=40ms..80ms/2"]);
    let ran = ran(&mut command);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("no theory of this file: "), "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "| link.lossy.loss \\ link.lossy.latency | 40ms | 80ms |");
    assert_eq!(lines[2], "| 0% | 5/5 (57%–100%) | 5/5 (57%–100%) |");
    assert_eq!(lines[3], "| 90% | 0/5 (0%–43%) | 0/5 (0%–43%) |");
}

#[test]
fn theory_is_not_asked_where_it_does_not_know() {
    for (name, why) in
        [("punch-simple.toml", "1 NATs are in the file"), ("simple-connection.toml", "0 NATs are in the file")]
    {
        let none = ran(grenache().arg("matrix").arg(scenario(name)));
        assert_eq!((none.code, none.stdout.as_str()), (Some(2), ""), "{name}");
        assert!(none.stderr.contains(why) && none.stderr.contains("--rows"), "{}", none.stderr);
    }
    let mut command = grenache();
    command.arg("matrix").arg(scenario("connect-both-symmetric.toml")).args(["--seeds", "0..1"]);
    command.args(["--rows", "nat.home=ei/ei", "--columns", "nat.cafe=apd/apd"]);
    let connect = ran(&mut command);
    assert!(connect.stdout.contains("no theory of this file: a client or worker is not one"), "{}", connect.stdout);
    let kind = ran(grenache().arg("matrix").arg(scenario("broker-both-nat.toml")).args([
        "--rows",
        "nat.home=cone",
        "--columns",
        "nat.cafe",
    ]));
    assert_eq!(kind.code, Some(2));
    assert!(kind.stderr.contains("MAPPING/FILTERING"), "{}", kind.stderr);
}

#[test]
fn theory_says_nothing_where_links_decide_who_is_heard_first() {
    let mut command = grenache();
    command.arg("matrix").arg(scenario("broker-both-nat-lossy.toml")).args(["--seeds", "0..3"]);
    command.args(["--rows", "nat.home=apd/ei", "--columns", "nat.cafe=ad/ei"]);
    let both = ran(&mut command);
    assert_eq!(both.code, Some(0), "{}", both.stdout);
    assert!(!both.stdout.contains("DISAGREES"), "{}", both.stdout);
}
