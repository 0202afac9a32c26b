//! `grenache sweep` and `grenache merge`: the same results however the work is spread.

mod processes;

use std::fs;
use std::path::{Path, PathBuf};

use processes::{Process, grenache, ran};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(name)
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

/// A sweep in which some runs fail: a third of the packets is lost in the worst case.
const LOSSES: &str = "link.lossy.loss=0%..40%/3";

/// Sweeps and gives the results' text.
fn sweep(folder: &TempDir, name: &str, args: &[&str]) -> String {
    let path = folder.path().join(name);
    let swept =
        ran(grenache().arg("sweep").arg(scenario("simple-connection-lossy.toml")).args(args).arg("--jsonl").arg(&path));
    assert!(matches!(swept.code, Some(0 | 1)), "{}{}", swept.stdout, swept.stderr);
    assert_eq!(swept.stderr, "", "no progress bar where nobody looks");
    fs::read_to_string(path).expect("it is written")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn results_are_the_same_however_many_threads_there_are() {
    let folder = folder();
    let args = ["--seeds", "0..30", "--set", LOSSES];
    let one = sweep(&folder, "one", &[&args[..], &["--jobs", "1"]].concat());
    let four = sweep(&folder, "four", &[&args[..], &["--jobs", "4"]].concat());
    assert_eq!(one, four);
    let lines = lines(&one);
    assert_eq!(lines.len(), 1 + 90 + 1);
    assert_eq!(lines[0]["seeds"], serde_json::json!([[0, 30]]));
    assert_eq!(lines[91], serde_json::json!({ "end": 90, "stopped": null }));
    let runs = &lines[1..91];
    let passed = |loss: &str| {
        runs.iter().filter(|run| run["set"]["link.lossy.loss"] == loss && run["verdict"] == "passed").count()
    };
    assert_eq!(passed("0%"), 30, "without loss all pass");
    assert!(passed("40%") < 30, "with much loss some fail");
    let failed = runs.iter().find(|run| run["verdict"] == "failed").expect("some fail");
    assert!(failed["cause"].as_str().is_some_and(|cause| cause.starts_with("not met: ")), "{failed}");
    assert!(runs[0]["measures"]["packets_sent"].as_u64() > Some(20), "{}", runs[0]);
}

#[test]
fn parts_that_are_merged_are_the_whole() {
    let folder = folder();
    let args = ["--seeds", "0..20", "--set", LOSSES];
    let whole = sweep(&folder, "whole", &args);
    for kind in ["slice", "hash"] {
        let names: Vec<String> = (1..=3).map(|part| format!("{kind}{part}")).collect();
        for (name, part) in names.iter().zip(1..) {
            let partition = format!("{kind}:{part}/3");
            let text = sweep(&folder, name, &[&args[..], &["--partition", &partition]].concat());
            assert!(text.lines().count() < whole.lines().count());
        }
        let paths: Vec<PathBuf> = names.iter().rev().map(|name| folder.path().join(name)).collect();
        let all = folder.path().join("all");
        let merged = ran(grenache().arg("merge").args(&paths).arg("--jsonl").arg(&all));
        assert_eq!(merged.code, Some(1), "some fail: {}{}", merged.stdout, merged.stderr);
        assert_eq!(fs::read_to_string(&all).expect("written"), whole, "{kind}");

        let two = ran(grenache().arg("merge").args(&paths[..2]));
        assert_eq!(two.code, Some(2));
        assert!(two.stderr.contains("runs are missing"), "{}", two.stderr);
    }
}

#[test]
fn merging_says_what_the_whole_sweep_would() {
    let folder = folder();
    let file = scenario("simple-connection-lossy.toml");
    let path = folder.path().join("whole");
    let command = |jsonl: bool| {
        let mut command = grenache();
        command.arg("sweep").arg(&file).args(["--seeds", "0..20", "--set", LOSSES]);
        if jsonl {
            command.arg("--jsonl").arg(&path);
        }
        ran(&mut command).stdout
    };
    let (swept, merged) = (command(true), ran(grenache().arg("merge").arg(&path)).stdout);
    let without_times = |text: &str| text.rsplit_once("\n\n").expect("a last line").0.to_owned();
    assert_eq!(without_times(&swept), without_times(&merged));
    for part in ["p50", "p99", "simulated time", "until ", "packets sent", "link.lossy.loss=40%", "run it again:"] {
        assert!(swept.contains(part), "{part:?} is not in\n{swept}");
    }
}

#[test]
fn a_failure_of_a_sweep_replays() {
    let swept = ran(grenache().arg("sweep").arg(scenario("simple-connection-lossy.toml")).args([
        "--seeds",
        "0..10",
        "--set",
        "link.lossy.loss=50%",
    ]));
    assert_eq!(swept.code, Some(1), "{}", swept.stdout);
    let replay = swept.stdout.lines().find_map(|line| line.split_once("run it again:  ")).expect("a command").1;
    assert!(replay.contains("--set link.lossy.loss=50%"), "{replay}");
    let again = ran(grenache().args(replay.split(' ').skip(1)));
    assert_eq!(again.code, Some(1), "{}{}", again.stdout, again.stderr);
    assert!(again.stdout.contains("NOT MET") && again.stdout.contains(replay), "{}", again.stdout);
}

#[test]
fn files_of_other_sweeps_are_refused() {
    let folder = folder();
    let text = sweep(&folder, "one", &["--seeds", "0..2"]);
    let merged = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("the folder is writable");
        let merged = ran(grenache().arg("merge").arg(folder.path().join("one")).arg(&path));
        assert_eq!(merged.stdout, "", "{name}");
        (merged.code, merged.stderr)
    };
    let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    let (code, error) = merged("version", text.replace(&version, "\"version\":\"9.9.9\""));
    assert_eq!(code, Some(2));
    assert!(error.contains("its version of grenache is 9.9.9"), "{error}");
    let (code, error) = merged("hash", text.replace("\"sha256\":\"", "\"sha256\":\"00"));
    assert_eq!(code, Some(2));
    assert!(error.contains("its scenario file's SHA-256 is 00"), "{error}");
    let (code, error) = merged("cut", text.lines().take(2).map(|line| format!("{line}\n")).collect());
    assert_eq!(code, Some(2));
    assert!(error.contains("the sweep was cut off"), "{error}");
    let (code, error) = merged("differ", text.replace("\"packets_sent\":", "\"packets_sent\":9"));
    assert_eq!(code, Some(3));
    assert!(error.contains("the runs are not deterministic"), "{error}");
    let (code, error) = merged("text", "hello".to_owned());
    assert_eq!(code, Some(2));
    assert!(error.contains("these are no results of `grenache sweep`"), "{error}");
}

#[test]
fn a_sweep_stops_with_what_it_has() {
    let folder = folder();
    let file = scenario("broker-both-nat.toml");
    let path = folder.path().join("part");
    let args = ["--seeds", "0..1000000", "--for", "1ms", "--jobs", "2"];
    let swept = ran(grenache().arg("sweep").arg(&file).args(args).arg("--jsonl").arg(&path));
    assert_eq!(swept.code, Some(0), "{}{}", swept.stdout, swept.stderr);
    assert!(swept.stdout.contains("stopped by --for 1ms after "), "{}", swept.stdout);
    let end = lines(&fs::read_to_string(&path).expect("written")).pop().expect("an end");
    assert_eq!(end["stopped"], "--for 1ms");
    let merged = ran(grenache().arg("merge").arg(&path));
    assert_eq!(merged.code, Some(0), "{}{}", merged.stdout, merged.stderr);
    assert!(merged.stdout.contains("of 1,000,000 runs were not done"), "{}", merged.stdout);
}

#[test]
fn a_signal_stops_a_sweep_with_what_it_has() {
    let args = ["--seeds", "0..1000000", "--jobs", "1", "--jsonl", "-"];
    let mut sweeping = Process::start_with_results(grenache().arg("sweep").arg(scenario("two-grapes.toml")).args(args));
    // The results are written in blocks: once there is a line, runs are done.
    sweeping.line("\"verdict\"");
    sweeping.signal(Signal::INT);
    let last = sweeping.line("stopped by SIGINT after ");
    assert!(last.contains(" of 1,000,000 runs"), "{last}");
    assert!(sweeping.said.iter().any(|line| line.contains("passed, 0 failed")), "{:?}", sweeping.said.last());
    assert!(sweeping.wait().success());
}

#[test]
fn settings_that_make_no_sense_point_at_the_place() {
    let file = scenario("simple-connection-lossy.toml");
    let cases = [
        ("link.lossy.loss=200%", "`200%` is out of range"),
        ("link.lossy.loss=2", "2%"),
        ("link.lossy.los=2%", "did you mean `loss`?"),
        ("link.lousy.loss=2%", "there is no `link.lousy`"),
        ("seed=3", "--seeds"),
        ("link.lossy", "KEY=VALUE"),
        ("link.lossy.loss=0%..5", "different units"),
    ];
    for (set, message) in cases {
        let wrong = ran(grenache().arg("sweep").arg(&file).args(["--seeds", "0..2", "--set", set]));
        assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(2), ""), "{set}");
        assert!(wrong.stderr.contains(message), "{set}: {}", wrong.stderr);
    }
    let out_of_range = ran(grenache().arg("sweep").arg(&file).args(["--set", "link.lossy.loss=200%"]));
    assert!(out_of_range.stderr.contains("with link.lossy.loss=200%:"), "{}", out_of_range.stderr);
    let several = ran(grenache().arg("run").arg(&file).args(["--set", "link.lossy.loss=1%,2%"]));
    assert_eq!(several.code, Some(2));
    assert!(several.stderr.contains("one is needed"), "{}", several.stderr);
}

#[test]
fn the_clusters_job_is_a_whole_sweep() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/sweep-job.yaml");
    let job: Value = serde_saphyr::from_str(&fs::read_to_string(path).expect("it is there")).expect("YAML");
    assert_eq!((&job["kind"], &job["spec"]["completionMode"]), (&"Job".into(), &"Indexed".into()));
    let pods = job["spec"]["completions"].as_u64().expect("a number");
    let command = job["spec"]["template"]["spec"]["containers"][0]["command"].as_array().expect("a list");

    // What Kubernetes does, with fewer seeds and other folders.
    let folder = folder();
    let mut parts = Vec::new();
    for index in 0..pods {
        let part = folder.path().join(format!("part-{index}.jsonl"));
        let args = command[1..].iter().map(|arg| {
            let arg = arg.as_str().expect("a text").replace("$(JOB_COMPLETION_INDEX)", &index.to_string());
            let arg = arg.replace("/scenario/scenario.toml", &scenario("two-grapes.toml").display().to_string());
            arg.replace("/results", &folder.path().display().to_string()).replace("0..10000", "0..20")
        });
        let swept = ran(grenache().args(args));
        assert_eq!((swept.code, part.is_file()), (Some(0), true), "{}", swept.stderr);
        parts.push(part);
    }
    let merged = ran(grenache().arg("merge").args(parts));
    assert_eq!(merged.code, Some(0), "{}", merged.stderr);
    assert!(merged.stdout.contains("20 passed, 0 failed"), "{}", merged.stdout);
}
