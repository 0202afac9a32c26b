//! `grenache sweep` and `grenache merge`: many runs of one file, on all cores or on several machines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use grenache_sim::runner::{replay_command, wall_now};
use grenache_sim::scenario::Scenario;
use grenache_sim::sweep::cause::cause;
use grenache_sim::sweep::document::Document;
use grenache_sim::sweep::lines::{self, End, FORMAT, Header, KeyValues, Results, RunLine};
use grenache_sim::sweep::merge::{self, MergeError};
use grenache_sim::sweep::plan::{Partition, Plan, Task};
use grenache_sim::sweep::play::play;
use grenache_sim::sweep::pool::in_parallel;
use grenache_sim::sweep::set::Setting;
use grenache_sim::sweep::summary::{Summary, thousands};
use sha2::{Digest, Sha256};

use super::stop::Stop;
use super::terminal::{Terminal, Tone};
use super::{Exit, Seeds, files, jobs};

/// What `sweep --help` says after the options.
pub(super) const AFTER_HELP: &str = "\
Values of --set:
  KEY=2%             one value
  KEY=0%,1%,5%       these
  KEY=0%..10%        five, evenly spaced, both ends among them
  KEY=0%..10%/11     eleven
Keys: link.dsl.loss, nat.*.mapping, time-limit, program.0.start (the first
[[program]]), program.client.timeout (those that run \"client\"), fault.0.at.
Each seed runs with each combination of the values.

Exit codes:
  0  every run passed
  1  a run failed
  2  the file or the command line is wrong, or a run was refused

Ctrl-C ends it with what it has.";

/// What `merge --help` says after the options.
pub(super) const MERGE_AFTER_HELP: &str = "\
Exit codes:
  0  every run passed
  1  a run failed
  2  the files are not of one sweep, or runs are missing
  3  a run is in two files, not the same";

#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    /// The scenario file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The seeds: A..B without B, A..=B with it
    #[arg(long, value_name = "A..B", default_value = "0..100", allow_negative_numbers = true)]
    seeds: Seeds,
    /// Give a key of the file other values; may be repeated
    #[arg(long, value_name = "KEY=VALUES")]
    set: Vec<Setting>,
    /// How many runs at once [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Do only a part of the runs: slice:I/N every Nth, hash:I/N by a hash of seed and values, I from 1 to N; index:I/N
    /// is as slice, with I from 0 on
    #[arg(long, value_name = "KIND:I/N")]
    partition: Option<Partition>,
    /// Stop after this time with what there is, such as 10m
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Write a line of JSON for each run to FILE, for `grenache merge` (`-` is standard output, and what people read
    /// goes to standard error)
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// What the parts of a sweep wrote with --jsonl
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write all of it to FILE, as one sweep would have (`-` is standard output)
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
}

/// Why a sweep ended without results.
type Failed = String;

pub(super) fn sweep(terminal: &mut Terminal, args: &SweepArgs) -> Exit {
    if args.jsonl.as_deref().is_some_and(super::is_stdout) {
        terminal.step_aside();
    }
    let Some(sweep) = prepare(terminal, args) else { return Exit::WRONG };
    match sweep.run(terminal, args) {
        Ok(exit) => exit,
        Err(error) => {
            terminal.end_progress();
            terminal.error(format_args!("error: {error}"));
            Exit::WRONG
        }
    }
}

/// A sweep that can begin.
struct Sweep {
    header: Header,
    plan: Plan,
    scenarios: Vec<Scenario>,
}

/// Reads the file, once for each combination of values. What is wrong is told, and gives `None`.
fn prepare(terminal: &mut Terminal, args: &SweepArgs) -> Option<Sweep> {
    let document = Document::load(&args.file).map_err(|error| files::tell(terminal, &error)).ok()?;
    let plan = Plan::new(&args.set, &[(args.seeds.from, args.seeds.to)]);
    let plan = plan.map_err(|error| terminal.error(format_args!("error: {error}"))).ok()?;
    let mut scenarios = Vec::with_capacity(plan.points().len());
    for point in plan.points() {
        let mut document = document.clone();
        for (key, value) in point {
            document.set(key, value).map_err(|error| terminal.error(format_args!("error: {error}"))).ok()?;
        }
        scenarios.push(document.scenario().map_err(|error| files::tell(terminal, &error)).ok()?);
    }
    let header = Header {
        grenache_sweep: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        file: args.file.display().to_string(),
        name: scenarios.first()?.name.clone(),
        sha256: hex::encode(Sha256::digest(document.text())),
        seeds: vec![(args.seeds.from, args.seeds.to)],
        set: args.set.iter().map(|set| KeyValues { key: set.key.clone(), values: set.values.clone() }).collect(),
        partition: args.partition.map(|partition| partition.to_string()),
    };
    Some(Sweep { header, plan, scenarios })
}

impl Sweep {
    fn run(&self, terminal: &mut Terminal, args: &SweepArgs) -> Result<Exit, Failed> {
        let points = self.plan.points();
        let mine = |(index, task): &(usize, Task)| {
            args.partition.is_none_or(|part| part.has(*index as u64, *task, &points[task.point]))
        };
        let tasks: Vec<Task> = self.plan.tasks().enumerate().filter(mine).map(|(_, task)| task).collect();
        let mut out = args.jsonl.as_deref().map(Out::create).transpose()?;
        if let Some(out) = &mut out {
            out.write(&self.header)?;
        }
        let (start, stop) = (wall_now(), Stop::new(args.time));
        let mut summary = Summary::new(&self.plan);
        let mut written = Ok(());
        in_parallel(
            jobs(args.jobs),
            &tasks,
            |task| (task, self.line(task)),
            || stop.is_asked(),
            |done, next| {
                terminal.show_progress(done, tasks.len());
                let Some((task, line)) = next else { return };
                summary.add(task.point, &line);
                if let (Some(out), Ok(())) = (&mut out, &written) {
                    written = out.write(&line);
                }
            },
        );
        terminal.end_progress();
        written?;
        let stopped = stop.reason().filter(|_| summary.runs() < tasks.len() as u64);
        if let Some(mut out) = out {
            out.write(&End { end: summary.runs(), stopped: stopped.clone() })?;
            out.finish()?;
        }
        let took = wall_now().duration_since(start);
        tell(terminal, &self.header, &summary, &args.file);
        let rate = summary.runs() as f64 / took.as_secs_f64().max(1e-9);
        let jobs = jobs(args.jobs);
        let s = if jobs == 1 { "" } else { "s" };
        let time = took.as_secs_f64();
        terminal.line(format_args!("{time:.1} s on {jobs} thread{s}, {rate:.0} runs a second"));
        if let Some(stopped) = stopped {
            let (runs, all) = (thousands(summary.runs()), thousands(tasks.len() as u64));
            terminal.line(format_args!("stopped by {stopped} after {runs} of {all} runs"));
        }
        Ok(Exit(summary.exit_code()))
    }

    /// The result of one run.
    fn line(&self, task: Task) -> RunLine {
        let (result, measures) = play(&self.scenarios[task.point], task.seed);
        RunLine {
            seed: task.seed,
            set: self.plan.points()[task.point].iter().cloned().collect::<BTreeMap<_, _>>(),
            verdict: result.verdict().to_owned(),
            cause: cause(&result),
            measures,
        }
    }
}

/// Says what the runs came to.
fn tell(terminal: &mut Terminal, header: &Header, summary: &Summary, file: &Path) {
    let (runs, passed) = (summary.runs(), summary.passed());
    let failed = runs - passed;
    let tone = |tone, text: String, count: u64| (if count > 0 { tone } else { Tone::Plain }, text);
    let (good, passed) = tone(Tone::Good, format!("{} passed", thousands(passed)), passed);
    let (bad, failed) = tone(Tone::Bad, format!("{} failed", thousands(failed)), failed);
    let (passed, failed) = (terminal.tone(good, &passed), terminal.tone(bad, &failed));
    let seeds: Vec<String> = header.seeds.iter().map(|(from, to)| format!("{from}..{to}")).collect();
    terminal.line(format_args!("{}, seeds {}: {passed}, {failed}", header.name, seeds.join(",")));
    terminal.line("");
    for line in summary.lines(header, |seed, point| replay_command(file, seed, point)) {
        terminal.line(line);
    }
    terminal.line("");
}

pub(super) fn merge(terminal: &mut Terminal, args: &MergeArgs) -> Exit {
    if args.jsonl.as_deref().is_some_and(super::is_stdout) {
        terminal.step_aside();
    }
    match merge_files(terminal, args) {
        Ok(exit) => exit,
        Err((exit, error)) => {
            terminal.error(format_args!("error: {error}"));
            exit
        }
    }
}

fn merge_files(terminal: &mut Terminal, args: &MergeArgs) -> Result<Exit, (Exit, String)> {
    let wrong = |error: String| (Exit::WRONG, error);
    let mut parts = Vec::new();
    for path in &args.files {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| wrong(format!("cannot read {name}: {error}")))?;
        let read = lines::read(BufReader::new(file)).map_err(|error| wrong(format!("cannot use {name}: {error}")))?;
        parts.push((name, read));
    }
    let whole = merge::merge(&parts).map_err(|error| {
        let exit = if matches!(error, MergeError::Differ { .. }) { Exit::DIFFERS } else { Exit::WRONG };
        (exit, error.to_string())
    })?;
    let Some(Results { header, runs, end }) = whole else { return Ok(Exit::WRONG) };
    let plan = header.plan().map_err(|error| wrong(error.to_string()))?;
    if let Some(path) = &args.jsonl {
        let write = || {
            let mut out = Out::create(path)?;
            out.write(&header)?;
            runs.iter().try_for_each(|run| out.write(run))?;
            out.write(&end)?;
            out.finish()
        };
        write().map_err(wrong)?;
    }
    let mut summary = Summary::new(&plan);
    for run in &runs {
        // Those that are none of the plan's were refused.
        if let Some(task) = run.task(plan.points()) {
            summary.add(task.point, run);
        }
    }
    tell(terminal, &header, &summary, Path::new(&header.file));
    let (count, all) = (parts.len(), plan.tasks().count() as u64);
    let s = if count == 1 { "" } else { "s" };
    terminal.line(format_args!("{} runs from {count} file{s}", thousands(summary.runs())));
    if let Some(stopped) = &end.stopped {
        let missing = thousands(all - summary.runs());
        terminal.line(format_args!("stopped by {stopped}: {missing} of {} runs were not done", thousands(all)));
    }
    Ok(Exit(summary.exit_code()))
}

/// Where results go.
struct Out {
    name: String,
    out: Box<dyn Write>,
}

impl Out {
    fn create(path: &Path) -> Result<Self, Failed> {
        if super::is_stdout(path) {
            return Ok(Self { name: "standard output".to_owned(), out: Box::new(BufWriter::new(io::stdout())) });
        }
        let name = path.display().to_string();
        let file = File::create(path).map_err(|error| format!("cannot write {name}: {error}"))?;
        Ok(Self { name, out: Box::new(BufWriter::new(file)) })
    }

    fn write(&mut self, line: &impl serde::Serialize) -> Result<(), Failed> {
        let written = lines::write(&mut self.out, line);
        self.told(written)
    }

    fn finish(mut self) -> Result<(), Failed> {
        let flushed = self.out.flush();
        self.told(flushed)
    }

    fn told(&self, written: io::Result<()>) -> Result<(), Failed> {
        match written {
            // Nobody wants the rest, as with lines.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(format!("cannot write {}: {error}", self.name)),
            Ok(()) => Ok(()),
        }
    }
}
