//! Every file in `scenarios/` is a test: that it passes with its seed, and that two processes write the same events.
//! Those with lossy links must pass for a hundred seeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use grenache_sim::backend::{On, RunOptions};
use grenache_sim::runner::{self, Keep};
use grenache_sim::scenario::{self, Scenario};
use libtest_mimic::{Arguments, Failed, Trial};

/// How many seeds the lossy scenarios must pass.
const SEEDS: u64 = 100;

/// How many seeds are one test: several tests use several cores.
const SEEDS_A_TEST: usize = 25;

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the folder of scenarios is there")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let mut trials: Vec<Trial> = files.iter().flat_map(|file| trials(file)).collect();
    trials.push(Trial::test("on_loopback", move || on_loopback(&folder)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The tests of one file.
fn trials(file: &Path) -> Vec<Trial> {
    let name = file.file_stem().expect("files have names").to_string_lossy().into_owned();
    let path = file.to_owned();
    let mut trials = vec![Trial::test(format!("{name}::passes"), move || {
        let scenario = load(&path)?;
        passes(&scenario, &path, scenario.seed)
    })];
    let path = file.to_owned();
    trials.push(Trial::test(format!("{name}::is_the_same_in_two_processes"), move || same_in_two_processes(&path)));
    if name.ends_with("-lossy") {
        for first in (0..SEEDS).step_by(SEEDS_A_TEST) {
            let path = file.to_owned();
            let seeds = first..SEEDS.min(first + SEEDS_A_TEST as u64);
            let last = seeds.end - 1;
            trials.push(Trial::test(format!("{name}::passes_for_seeds_{first}_to_{last}"), move || {
                let scenario = load(&path)?;
                let failed: Vec<String> =
                    seeds.filter_map(|seed| passes(&scenario, &path, seed).err()).filter_map(message).collect();
                if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
            }));
        }
    }
    trials
}

fn load(path: &Path) -> Result<Scenario, Failed> {
    scenario::load(path).map_err(Failed::from)
}

fn passes(scenario: &Scenario, path: &Path, seed: u64) -> Result<(), Failed> {
    let run = runner::run(scenario, path, &RunOptions { seed, on: On::Sim }, &Keep::default());
    if run.passed() { Ok(()) } else { Err(format!("seed {seed}\n{}", run.story().join("\n")).into()) }
}

fn message(failed: Failed) -> Option<String> {
    failed.message().map(str::to_owned)
}

/// Runs the command line twice, with a folder of its own each, and compares what it wrote.
fn same_in_two_processes(path: &Path) -> Result<(), Failed> {
    let scenario = load(path)?;
    let mut logs = Vec::new();
    for _ in 0..2 {
        let out = tempfile::tempdir()?;
        let run = grenache().args(["run", "--out"]).arg(out.path()).arg(path).output()?;
        if !run.status.success() {
            return Err(String::from_utf8_lossy(&run.stdout).into_owned().into());
        }
        logs.push(fs::read_to_string(out.path().join(format!("{}-{}/events.jsonl", scenario.name, scenario.seed)))?);
    }
    let [first, second] = &logs[..] else { unreachable!("it ran twice") };
    if first.is_empty() {
        return Err("no events were written".into());
    }
    if first == second {
        return Ok(());
    }
    let differ = first.lines().zip(second.lines()).enumerate().find(|(_, (a, b))| a != b);
    Err(match differ {
        Some((line, (a, b))) => format!("event {} differs:\n  {a}\n  {b}", line + 1).into(),
        None => format!("{} events and {} events", first.lines().count(), second.lines().count()).into(),
    })
}

/// The two set-ups without NATs pass over real sockets. One after the other: they share ports.
fn on_loopback(folder: &Path) -> Result<(), Failed> {
    let files = ["two-grapes.toml", "simple-connection.toml"].map(|file| folder.join(file));
    let run = grenache().args(["run", "--on", "loopback"]).args(files).output()?;
    if run.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&run.stdout).into_owned().into()) }
}

fn grenache() -> Command {
    Command::new(env!("CARGO_BIN_EXE_grenache"))
}
