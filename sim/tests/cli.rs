//! The command line as a shell sees it: output, errors and exit codes.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::TempDir;

/// Two Grapes and a lookup that finds nothing in time, so that its expectation fails.
const FAILS: &str = r#"
time-limit = "3s"

[node.first]
[node.second]

[[program]]
node = "first"
run = "grape"
dht-port = 20001
api-port = 30001
bootstrap = ["second:20002"]

[[program]]
node = "second"
run = "grape"
dht-port = 20002
api-port = 40001
bootstrap = ["first:20001"]

[[program]]
node = "second"
run = "lookup"
service = "nobody"

[[expect]]
found = { at = "second", service = "nobody" }
within = "2s"

[[program]]
node = "second"
run = "announce"
start = "2500ms"
service = "nobody"
port = 1337
"#;

fn grenache() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grenache"));
    command.env_remove("NO_COLOR").env_remove("COLUMNS");
    command
}

/// What a command came to.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the command can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Ran { code: output.status.code().expect("not killed"), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("the folder is writable");
    path
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

#[test]
fn help_names_commands_and_exit_codes() {
    let help = ran(grenache().arg("--help"));
    assert_eq!(help.code, 0);
    for word in ["run", "check", "Exit codes:", "NO_COLOR"] {
        assert!(help.stdout.contains(word), "{word} is not in\n{}", help.stdout);
    }
    let run = ran(grenache().args(["run", "--help"]));
    for word in ["--on", "--seed", "--seeds", "--out", "--json", "--twice", "--jobs", "loopback", "Exit codes:"] {
        assert!(run.stdout.contains(word), "{word} is not in\n{}", run.stdout);
    }
}

#[test]
fn the_shipped_scenarios_are_good() {
    let folders = [scenarios(), scenarios().join("loopback")];
    let check = ran(grenache().arg("check").args(&folders));
    assert_eq!((check.code, check.stderr.as_str()), (0, ""));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("the folder is there"));
    let files = entries.map(|entry| entry.expect("it can be read").path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).count();
    assert_eq!(check.stdout, format!("{files} scenario files checked: no problems\n"));
}

#[test]
fn the_schema_is_printed_as_it_is_shipped() {
    let schema = ran(grenache().arg("schema"));
    assert_eq!((schema.code, schema.stderr.as_str()), (0, ""));
    let shipped = fs::read_to_string(scenarios().join("scenario.schema.json")).expect("it is shipped");
    assert_eq!(schema.stdout, shipped);
}

#[test]
fn a_bad_file_is_shown_with_line_and_column() {
    let folder = folder();
    let path = file(&folder, "bad.toml", "[node.server]\nadress = \"1.2.3.4\"\n");
    for command in ["check", "run"] {
        let bad = ran(grenache().arg(command).arg(&path));
        assert_eq!(bad.code, 2, "{command}");
        assert_eq!(bad.stdout, "", "{command}: nothing ran");
        assert!(bad.stderr.contains("bad.toml:2:1"), "{}", bad.stderr);
        assert!(bad.stderr.contains("did you mean `address`?"), "{}", bad.stderr);
        assert!(!bad.stderr.contains('\u{1b}'), "a pipe gets no colour");
    }
}

#[test]
fn every_bad_file_of_a_folder_is_told() {
    let folder = folder();
    file(&folder, "a.toml", "seed = \"one\"");
    file(&folder, "b.toml", "x = 1");
    file(&folder, "notes.txt", "not a scenario");
    let bad = ran(grenache().arg("check").arg(folder.path()));
    assert_eq!(bad.code, 2);
    assert!(bad.stderr.contains("a.toml:1:8") && bad.stderr.contains("b.toml:1:1"), "{}", bad.stderr);
    assert!(!bad.stderr.contains("notes.txt"), "{}", bad.stderr);
}

#[test]
fn a_path_without_scenarios_is_an_error() {
    let missing = ran(grenache().args(["run", "no/such/path"]));
    assert_eq!(missing.code, 2);
    assert!(missing.stderr.contains("cannot read no/such/path"), "{}", missing.stderr);
    let folder = folder();
    let empty = ran(grenache().arg("check").arg(folder.path()));
    assert_eq!(empty.code, 2);
    assert!(empty.stderr.contains("there are no *.toml files"), "{}", empty.stderr);
}

#[test]
fn wrong_usage_is_told() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["run"], "<PATH>"),
        (&["fly", "."], "fly"),
        (&["run", "--seeds", "5", "x.toml"], "0..100"),
        (&["run", "--seeds", "5..5", "x.toml"], "B must be more than A"),
        (&["run", "--seeds", "a..b", "x.toml"], "`a` is not a seed"),
        (&["run", "--seed", "-1", "x.toml"], "`-1` is not a seed: a seed is a whole number"),
        (&["run", "--seed", "x", "x.toml"], "`x` is not a seed: a seed is a whole number"),
        (&["run", "--seed", "1", "--seeds", "0..2", "x.toml"], "cannot be used with"),
        (&["run", "--on", "moon", "x.toml"], "sim, loopback"),
        (&["run", "--jobs", "0", "x.toml"], "0"),
        (&["run", "--twice", "--on", "loopback", "x.toml"], "--twice"),
    ];
    for (args, message) in cases {
        let wrong = ran(grenache().args(*args));
        assert_eq!(wrong.code, 2, "{args:?}");
        assert!(wrong.stderr.contains(message), "{args:?}: {}", wrong.stderr);
        assert_eq!(wrong.stdout, "", "{args:?}");
    }
}

#[test]
fn a_file_that_needs_nats_is_refused_on_loopback() {
    let refused = ran(grenache().args(["run", "--on", "loopback"]).arg(scenarios().join("punch-simple.toml")));
    assert_eq!(refused.code, 2);
    assert!(refused.stdout.contains("punch-simple"), "{}", refused.stdout);
    assert!(refused.stdout.contains("--on sim"), "it says which backend can run it: {}", refused.stdout);
    assert!(refused.stdout.contains("0 passed, 0 failed, 1 refused: 1 run of 1 file"), "{}", refused.stdout);
    assert!(!refused.stdout.contains("simulated") && !refused.stdout.contains("seed"), "{}", refused.stdout);
}

#[test]
fn files_that_would_share_an_event_log_are_refused() {
    let (one, other, out) = (folder(), folder(), folder());
    let (a, b) = (file(&one, "same.toml", FAILS), file(&other, "same.toml", FAILS));
    let refused = ran(grenache().arg("run").arg("--out").arg(out.path()).args([a, b]));
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("the same event log"), "{}", refused.stderr);
}

#[test]
fn what_decided_the_expectations_is_told() {
    let folder = folder();
    let json = folder.path().join("results.json");
    let file = scenarios().join("simple-connection.toml");
    let passed = ran(grenache().args(["run", "--explain", "--json"]).arg(&json).arg(file));
    assert_eq!(passed.code, 0, "{}{}", passed.stdout, passed.stderr);
    let by = "client got the reply \"world\" from server, direct";
    assert!(passed.stdout.contains("met after 1.020 s: client gets the reply"), "{}", passed.stdout);
    assert!(passed.stdout.contains(by), "{}", passed.stdout);
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&json).expect("it is written")).expect("JSON");
    let reply = &report["runs"][0]["expectations"][1];
    assert_eq!(
        (&reply["decided_by"], &reply["met"], &reply["file"]),
        (&by.into(), &true.into(), &serde_json::Value::Null)
    );
    assert_eq!(reply["decided_at_ns"].as_u64().map(|ns| ns / 1_000_000), Some(1020));
}

#[test]
fn a_failure_is_told_in_full_and_replays() {
    let folder = folder();
    let path = file(&folder, "fails.toml", FAILS);
    let json = folder.path().join("results.json");
    let out = folder.path().join("out");
    let failed = ran(grenache().args(["run", "--seed", "7", "--json"]).arg(&json).arg("--out").arg(&out).arg(&path));
    assert_eq!(failed.code, 1, "{}{}", failed.stdout, failed.stderr);
    for part in [
        "FAILED",
        "seed 7",
        "NOT MET: second finds nobody, within 2s",
        "fails.toml:26",
        "not within 2s",
        "the last events:",
        "0 passed, 1 failed: 1 run of 1 file",
    ] {
        assert!(failed.stdout.contains(part), "{part:?} is not in\n{}", failed.stdout);
    }

    let report: serde_json::Value = serde_json::from_slice(&fs::read(&json).expect("written")).expect("JSON");
    let run = &report["runs"][0];
    assert_eq!((run["verdict"].as_str(), run["seed"].as_u64()), (Some("failed"), Some(7)));
    assert_eq!(run["expectations"][0]["met"], false);
    let log = fs::read_to_string(out.join("fails-7/events.jsonl")).expect("written");
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert!(log.lines().count() > 10, "a run has events");

    // The command that the story ends with does the same again, in another process.
    let replay = run["replay"].as_str().expect("a command");
    assert!(failed.stdout.contains(&format!("run it again:  {replay}")), "{}", failed.stdout);
    let args: Vec<&str> = replay.split(' ').skip(1).collect();
    let again = ran(grenache().args(args));
    assert_eq!(again.code, 1);
    assert_eq!(fs::read_to_string(out.join("fails-7/events.jsonl")).expect("written"), log);
}

#[test]
fn several_seeds_are_one_line_and_each_failure() {
    let folder = folder();
    let path = file(&folder, "fails.toml", FAILS);
    let failed = ran(grenache().args(["run", "--seeds", "0..5", "--jobs", "2"]).arg(&path));
    assert_eq!(failed.code, 1, "{}{}", failed.stdout, failed.stderr);
    assert!(failed.stdout.contains("seeds 0..5  0 of 5 passed"), "{}", failed.stdout);
    assert!(!failed.stdout.contains("none passed"), "it is said already: {}", failed.stdout);
    assert_eq!(failed.stdout.matches("NOT MET").count(), 3, "the first failures in full: {}", failed.stdout);
    for seed in 0..5 {
        assert!(failed.stdout.contains(&format!("--seed {seed} ")), "{}", failed.stdout);
    }
}

#[test]
fn passing_is_quiet() {
    let passed = ran(grenache().args(["run", "--twice"]).arg(scenarios().join("two-grapes.toml")));
    assert_eq!(passed.code, 0, "{}{}", passed.stdout, passed.stderr);
    assert_eq!(passed.stdout.lines().count(), 2, "a line and the summary: {}", passed.stdout);
    assert_eq!(passed.stderr, "");
}

#[test]
fn a_run_that_expects_nothing_says_so() {
    let folder = folder();
    let expected = "[[expect]]\nfound = { at = \"second\", service = \"nobody\" }\nwithin = \"2s\"\n";
    let path = file(&folder, "nothing.toml", &FAILS.replace(expected, ""));
    for args in [["run", "--seed", "3"], ["run", "--seeds", "0..2"]] {
        let passed = ran(grenache().args(args).arg(&path));
        assert_eq!(passed.code, 0, "{}{}", passed.stdout, passed.stderr);
        assert_eq!(passed.stdout.matches("nothing is expected").count(), 1, "{}", passed.stdout);
    }
}

#[test]
fn results_on_standard_output_are_nothing_but_json() {
    let folder = folder();
    let path = file(&folder, "fails.toml", FAILS);
    let failed = ran(grenache().args(["run", "--json", "-"]).arg(&path));
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    let report: serde_json::Value = serde_json::from_str(&failed.stdout).expect("JSON");
    assert_eq!((&report["failed"], &report["refused"]), (&1.into(), &0.into()));
    assert!(failed.stderr.contains("0 passed, 1 failed"), "{}", failed.stderr);
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_grenache"))
        .arg("check")
        .arg(scenarios())
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("the command can be started");
    assert_eq!(status.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&status.stderr), "");
}
