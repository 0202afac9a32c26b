//! `grenache shrink`: the least of a scenario that still fails the same way.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use grenache_sim::runner::{run_command, wall_now};
use grenache_sim::shrink::{DEFAULT_RUNS, Origin, ShrinkError, count_lines, shrink, text};

use super::stop::Stop;
use super::terminal::Terminal;
use super::{Exit, OneSetting, files, seed};

/// What `shrink --help` says after the options.
pub(super) const AFTER_HELP: &str = "\
Exit codes:
  0  the smaller file is written
  2  the run passes, or the file or the command line is wrong

Ctrl-C ends the search; what it has found is written.";

#[derive(Debug, Args)]
pub(super) struct ShrinkArgs {
    /// The scenario file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A seed that it fails with [default: the file's]
    #[arg(long, value_name = "N", value_parser = seed, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Give a key of the file another value before; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<OneSetting>,
    /// Where to write the smaller file [default: FILE with .min.toml in place of .toml]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The most runs of the search
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RUNS)]
    runs: u64,
    /// Stop after this time, such as 1m
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
}

pub(super) fn run(terminal: &mut Terminal, args: &ShrinkArgs) -> Exit {
    let Some(document) = files::document(terminal, &args.file, &args.set) else { return Exit::WRONG };
    let output = args.output.clone().unwrap_or_else(|| args.file.with_extension("min.toml"));
    if output.canonicalize().is_ok_and(|there| args.file.canonicalize().is_ok_and(|file| file == there)) {
        terminal.error(format_args!("error: {} would be overwritten by what is left of it", output.display()));
        terminal.error("help: name another file with --output");
        return Exit::WRONG;
    }
    let seed = match (args.seed, document.scenario()) {
        (Some(seed), _) => seed,
        (None, Ok(scenario)) => scenario.seed,
        (None, Err(error)) => {
            files::tell(terminal, &error);
            return Exit::WRONG;
        }
    };
    let (start, stop) = (wall_now(), Stop::new(args.time));
    let progress = |runs, lines| terminal.show_status(format!("{runs} runs, {lines} lines are left"));
    let shrunk = shrink(&document, seed, args.runs, || stop.is_asked(), progress);
    terminal.end_progress();
    let shrunk = match shrunk {
        Ok(shrunk) => shrunk,
        Err(ShrinkError::Load(error)) => {
            files::tell(terminal, &error);
            return Exit::WRONG;
        }
        Err(error) => {
            terminal.error(format_args!("error: {}, seed {seed}: {error}", args.file.display()));
            return Exit::WRONG;
        }
    };
    let replay = run_command(&output);
    let lines = count_lines(document.text());
    let file = args.file.display().to_string();
    let origin = Origin { file: &file, set: document.settings(), seed, lines, replay: &replay };
    let text = text(&shrunk, origin);
    if let Err(error) = fs::write(&output, &text) {
        terminal.error(format_args!("error: cannot write {}: {error}", output.display()));
        return Exit::WRONG;
    }
    terminal.line(format_args!("{file}, seed {seed}: {}", shrunk.cause));
    let (left, runs) = (count_lines(&text), shrunk.runs);
    let time = wall_now().duration_since(start).as_secs_f64();
    terminal.line(format_args!("{left} of {lines} lines are left after {runs} runs in {time:.1} s"));
    terminal.line(shrunk.calm);
    if shrunk.bounded {
        let why = stop.reason().unwrap_or_else(|| format!("--runs {}", args.runs));
        terminal.line(format_args!("the search was ended by {why}: more might be cut"));
    }
    terminal.line(format_args!("written: {}", output.display()));
    terminal.line(format_args!("run it:  {replay}"));
    Exit::PASSED
}
