//! Arguments, commands and exit codes.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;

use clap::{Args, Parser, Subcommand, ValueEnum};
use grenache_sim::backend::On;
use grenache_sim::sweep::set::{Setting, SettingError};

mod check;
mod diagram;
mod files;
mod grape;
mod grapes;
mod matrix;
mod pages;
mod peer;
mod printable;
mod results;
mod run;
mod shrink;
mod signals;
mod stop;
mod sweep;
mod terminal;

use terminal::Terminal;

/// What `--help` says of the exit codes of all commands.
const ALL_EXIT_CODES: &str = "\
Exit codes:
  0  all is as it should be
  1  something failed, or a peer or a Grape answered with an error
  2  a file or the command line is wrong, or something that is needed is missing
  3  two runs of the same seed differed (run --twice)
  4  nobody has announced the name, or there is no such value
  5  no peer, or no Grape, was reached or answered in time

Each command's --help says more. Colour is left out where NO_COLOR is set or the
output is not a terminal.";

/// What `run --help` and `check --help` say of exit codes.
const EXIT_CODES: &str = "\
Exit codes:
  0  every run passed
  1  an expectation failed, or a program did
  2  a file or the command line is wrong, or the backend cannot run the file
  3  two runs of the same seed differed (--twice)

Colour is left out where NO_COLOR is set or the output is not a terminal.";

/// Grenache: services that find each other by name and ask each other, Grapes, and scenarios of them in a simulator
#[derive(Debug, Parser)]
#[command(name = "grenache", version, after_help = ALL_EXIT_CODES, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Peer(peer::PeerCommand),
    /// Runs scenario files and says which passed.
    ///
    /// A line a run: name, seed, verdict, simulated time and wall time; several seeds of a file are summarised in one
    /// line. What fails is told in full and ends with the command that replays it.
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Reads scenario files and runs nothing.
    #[command(after_help = EXIT_CODES)]
    Check {
        /// Scenario files, and folders whose *.toml files are meant
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Prints a run of a scenario file as a Mermaid sequence diagram.
    ///
    /// It runs in the simulator. Hosts and NATs are its participants; requests, replies, punches, drops and faults its steps.
    /// What happens again is counted where it happened first.
    #[command(after_help = diagram::AFTER_HELP)]
    Diagram(diagram::DiagramArgs),
    /// Prints the JSON schema of scenario files, by which editors complete and check them.
    ///
    /// A file whose first line is `#:schema scenario.schema.json` is checked by the schema beside it.
    #[command(after_help = check::SCHEMA_HELP)]
    Schema,
    /// Runs a scenario with many seeds and values, on all cores.
    ///
    /// Tells the percentiles of each measure, and the failures by cause, each with the command that replays it.
    #[command(after_help = sweep::AFTER_HELP)]
    Sweep(sweep::SweepArgs),
    /// Joins the results of a sweep that several machines shared.
    #[command(after_help = sweep::MERGE_AFTER_HELP)]
    Merge(sweep::MergeArgs),
    /// Cuts a failing scenario down to what still fails the same way, and writes it as a file.
    #[command(after_help = shrink::AFTER_HELP)]
    Shrink(shrink::ShrinkArgs),
    /// Runs a scenario over two parameters, NAT × NAT or others, and checks it against theory.
    #[command(after_help = matrix::AFTER_HELP)]
    Matrix(matrix::MatrixArgs),
    /// Runs one Grape in the foreground, until SIGTERM or SIGINT.
    #[command(after_help = grape::AFTER_HELP)]
    Grape(grape::GrapeArgs),
    /// Asks a Grape whether it works: for health checks, where there may be no shell and no curl.
    #[command(after_help = grape::HEALTH_AFTER_HELP)]
    GrapeHealth(grape::HealthArgs),
    /// Starts, shows and ends several Grapes that know each other, in the background.
    Grapes(grapes::GrapesArgs),
    /// Prints a shell's completions of this command line
    #[command(after_help = pages::COMPLETIONS_HELP)]
    Completions(pages::CompletionsArgs),
    /// Prints a manual page, or writes all of them
    #[command(after_help = pages::MAN_HELP)]
    Man(pages::ManArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Scenario files, and folders whose *.toml files are meant
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where to run
    #[arg(long, value_enum, default_value_t = Backend::Sim)]
    on: Backend,
    /// The seed, in place of the file's
    #[arg(long, value_name = "N", value_parser = seed, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// A run for each of these seeds: A..B without B, A..=B with it
    #[arg(long, value_name = "A..B", allow_negative_numbers = true, conflicts_with = "seed")]
    seeds: Option<Seeds>,
    /// Give a key of the files another value, as `sweep` does: link.dsl.loss=2%; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<OneSetting>,
    /// Write each run's files to DIR/NAME-SEED: events.jsonl, report.html, and from the simulator capture.pcapng
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the results to FILE (`-` is standard output, and what people read goes to standard error): an object with `runs`, each with file, name, seed, verdict, simulated_ns,
    /// wall_ns, expectations, replay
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results to FILE as JUnit's XML, for CI services: a suite a file, a case a run (`-` as with --json)
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Run everything twice and compare the events: exit code 3 where they differ
    #[arg(long)]
    twice: bool,
    /// Tell what decided each expectation of a run that passed too, and when
    #[arg(long, conflicts_with = "seeds")]
    explain: bool,
    /// How many runs at once [default: one a core; on loopback always 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

/// `--on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// In the simulator: virtual time, modelled links and NATs, reproducible
    Sim,
    /// Over real UDP and TCP sockets on loopback addresses, in real time
    Loopback,
}

impl From<Backend> for On {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Sim => Self::Sim,
            Backend::Loopback => Self::Loopback,
        }
    }
}

/// Reads a seed.
fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a seed: a seed is a whole number, 0 or more"))
}

/// The most seeds that one command runs.
const MAX_SEEDS: u64 = 1_000_000;

/// A range of seeds: `from` to before `to`, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seeds {
    from: u64,
    to: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once("..").ok_or("write A..B, such as 0..100")?;
        let from = seed(from)?;
        let to = match to.strip_prefix('=') {
            Some(last) => seed(last)?.checked_add(1).ok_or("the last seed is too large")?,
            None => seed(to)?,
        };
        if to <= from {
            return Err("there are no seeds in this range: B must be more than A".to_owned());
        }
        if to - from > MAX_SEEDS {
            return Err(format!("these are {} seeds: at most {MAX_SEEDS} at once", to - from));
        }
        Ok(Self { from, to })
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}

/// A key that is set to one value.
#[derive(Debug, Clone)]
struct OneSetting {
    key: String,
    value: String,
}

impl FromStr for OneSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let setting: Setting = text.parse().map_err(|error: SettingError| error.to_string())?;
        match <[String; 1]>::try_from(setting.values) {
            Ok([value]) => Ok(Self { key: setting.key, value }),
            Err(values) => {
                Err(format!("these are {} values: one is needed; `grenache sweep` takes several", values.len()))
            }
        }
    }
}

/// How many runs at once: as many as asked for, or one a core.
fn jobs(asked: Option<u16>) -> usize {
    asked.map_or_else(|| thread::available_parallelism().map_or(1, NonZero::get), usize::from)
}

/// Whether a file on the command line means standard output.
fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What a command comes to, as the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Exit(u8);

impl Exit {
    const PASSED: Self = Self(0);
    const FAILED: Self = Self(1);
    const WRONG: Self = Self(2);
    const DIFFERS: Self = Self(3);
    const NOT_FOUND: Self = Self(4);
    const UNREACHED: Self = Self(5);
}

/// Reads the arguments, does what they say, and gives the exit code.
pub(crate) fn main() -> ExitCode {
    let Exit(code) = command(std::env::args_os().collect());
    ExitCode::from(code)
}

fn command(args: Vec<OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap too, with the exit code 0. Nobody is left to tell of a closed pipe.
            let _ = error.print();
            return Exit(u8::try_from(error.exit_code()).unwrap_or(Exit::WRONG.0));
        }
    };
    let mut terminal = Terminal::new();
    match cli.command {
        Command::Peer(command) => peer::peer(&mut terminal, &command),
        Command::Run(args) => run::run(&mut terminal, args),
        Command::Check { paths } => check::check(&mut terminal, &paths),
        Command::Diagram(args) => diagram::diagram(&mut terminal, &args),
        Command::Schema => check::schema(&mut terminal),
        Command::Sweep(args) => sweep::sweep(&mut terminal, &args),
        Command::Merge(args) => sweep::merge(&mut terminal, &args),
        Command::Shrink(args) => shrink::run(&mut terminal, &args),
        Command::Matrix(args) => matrix::run(&mut terminal, &args),
        Command::Grape(args) => grape::grape(&mut terminal, &args),
        Command::GrapeHealth(args) => grape::health(&mut terminal, &args),
        Command::Grapes(args) => grapes::grapes(&mut terminal, &args),
        Command::Completions(args) => pages::completions(&mut terminal, &args),
        Command::Man(args) => pages::man(&mut terminal, &args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn seeds_are_a_range_without_its_end() {
        assert_eq!("0..100".parse(), Ok(Seeds { from: 0, to: 100 }));
        assert_eq!("5..=5".parse(), Ok(Seeds { from: 5, to: 6 }));
        for text in ["", "5", "5..5", "5..4", "a..b", "..5", "5..", "-1..5", "0..1000001", "0..=18446744073709551615"] {
            assert!(text.parse::<Seeds>().is_err(), "{text:?}");
        }
    }
}
