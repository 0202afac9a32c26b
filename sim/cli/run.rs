//! `grenache run`: spreads the runs over the cores and tells their results in order.

use std::collections::{BTreeMap, btree_map::Entry};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use grenache_sim::backend::{On, RunOptions};
use grenache_sim::report::{self, JsonReport, Run};
use grenache_sim::runner::{self, Keep, wall_now};
use grenache_sim::sweep::pool::in_parallel;

use super::files::{self, ScenarioFile};
use super::results::{self, Results};
use super::terminal::Terminal;
use super::{Exit, OneSetting, RunArgs};

/// How long runs take before a progress bar shows.
const PATIENCE: Duration = Duration::from_secs(1);

/// One run to do.
#[derive(Debug, Clone, Copy)]
struct Task {
    file: usize,
    seed: u64,
}

pub(super) fn run(terminal: &mut Terminal, args: RunArgs) -> Exit {
    let on = On::from(args.on);
    if args.twice && on == On::Loopback {
        terminal.error("error: --twice compares runs of the simulator; real time is never the same twice");
        return Exit::WRONG;
    }
    let files_of_results = [args.json.as_deref(), args.junit.as_deref()];
    match files_of_results.iter().flatten().filter(|path| super::is_stdout(path)).count() {
        0 => {}
        1 => terminal.step_aside(),
        _ => {
            terminal.error("error: --json and --junit cannot both be standard output: give one of them a file");
            return Exit::WRONG;
        }
    }
    let Some(files) = files::load(terminal, &args.paths, &args.set) else { return Exit::WRONG };
    if args.out.is_some()
        && let Some((a, b)) = same_name(&files)
    {
        let (a, b) = (a.display(), b.display());
        terminal
            .error(format_args!("error: {a} and {b} would write the same event log: rename one, or run them apart"));
        return Exit::WRONG;
    }
    let tasks = tasks(&files, &args);
    let jobs = match on {
        // Runs on loopback share ports.
        On::Loopback => 1,
        // Each run that is done twice takes two threads.
        On::Sim => super::jobs(args.jobs).div_ceil(if args.twice { 2 } else { 1 }),
    };
    let keep = Keep { out: args.out.clone(), twice: args.twice, set: settings(&args) };

    let start = wall_now();
    let mut results = Results::new(&files, args.seeds);
    let mut runs = Vec::with_capacity(tasks.len());
    in_parallel(
        jobs,
        &tasks,
        |task| {
            let file = &files[task.file];
            runner::run(&file.scenario, &file.path, &RunOptions { seed: task.seed, on }, &keep)
        },
        || false,
        |done, next| {
            if wall_now().duration_since(start) >= PATIENCE {
                terminal.show_progress(done, tasks.len());
            }
            if let Some(run) = next {
                results.tell(terminal, &run);
                if args.explain && run.passed() {
                    results::tell(terminal, &run.explanation());
                }
                runs.push(run);
            }
        },
    );
    terminal.end_progress();
    let wall = wall_now().duration_since(start);
    results.summarise(terminal, wall);
    let exit = runs.iter().map(|run| Exit(run.exit_code())).max().unwrap_or(Exit::PASSED);
    let json = args.json.as_deref().map(|path| (path, json(&runs, wall)));
    let junit = args.junit.as_deref().map(|path| (path, Ok(report::junit(&runs, wall))));
    let mut exit = exit;
    for (path, text) in [json, junit].into_iter().flatten() {
        if let Err(error) = text.and_then(|text| write(path, &text)) {
            terminal.error(format_args!("error: cannot write {}: {error}", path.display()));
            exit = exit.max(Exit::WRONG);
        }
    }
    exit
}

/// What is set in every file, in the order of the command line.
fn settings(args: &RunArgs) -> Vec<(String, String)> {
    args.set.iter().map(|OneSetting { key, value }| (key.clone(), value.clone())).collect()
}

fn tasks(files: &[ScenarioFile], args: &RunArgs) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (file, ScenarioFile { scenario, .. }) in files.iter().enumerate() {
        match args.seeds {
            Some(seeds) => tasks.extend((seeds.from..seeds.to).map(|seed| Task { file, seed })),
            None => tasks.push(Task { file, seed: args.seed.unwrap_or(scenario.seed) }),
        }
    }
    tasks
}

/// Two files that would write the same event log.
fn same_name(files: &[ScenarioFile]) -> Option<(&Path, &Path)> {
    let mut names = BTreeMap::new();
    for file in files {
        match names.entry(file.scenario.name.as_str()) {
            Entry::Occupied(other) => return Some((*other.get(), &file.path)),
            Entry::Vacant(free) => {
                free.insert(file.path.as_path());
            }
        }
    }
    None
}

fn json(runs: &[Run], wall: Duration) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(&JsonReport::new(runs, wall))? + "\n")
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if !super::is_stdout(path) {
        return fs::write(path, text);
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Nobody wants the rest, as with lines.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
