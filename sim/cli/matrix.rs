//! `grenache matrix`: a scenario over two parameters, against theory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use grenache_sim::matrix::{self, Agreement, Axis, Cell, Fit, Matrix};
use grenache_sim::report::RunResult;
use grenache_sim::runner::{replay_command, wall_now};
use grenache_sim::scenario::Scenario;
use grenache_sim::sweep::document::Document;
use grenache_sim::sweep::plan::MAX_RUNS;
use grenache_sim::sweep::play::play;
use grenache_sim::sweep::pool::in_parallel;
use grenache_sim::sweep::summary::thousands;

use super::stop::Stop;
use super::terminal::{Terminal, Tone};
use super::{Exit, OneSetting, Seeds, files, jobs};

/// What `matrix --help` says after the options.
pub(super) const AFTER_HELP: &str = "\
Rows and columns:
  nat.home                  its mapping/filtering: all nine pairs of ei
                            (endpoint-independent), ad (address-dependent) and
                            apd (address-and-port-dependent)
  nat.home=ei/apd,apd/apd   these; or full-cone, restricted-cone,
                            port-restricted-cone, symmetric,
                            port-preserving-symmetric
  link.dsl.loss=0%..10%/3   any key, as `sweep --set` has it

Where a broker introduces one client to one worker, each behind a NAT, each cell
is checked against what RFC 4787 says of the two.

Exit codes:
  0  every cell is as theory has it, or there is no theory of this file
  1  a cell is not
  2  the file or the command line is wrong, a run was refused, or Ctrl-C";

/// How many cells that are not as theory has them are told.
const TOLD: usize = 10;

#[derive(Debug, Args)]
pub(super) struct MatrixArgs {
    /// The scenario file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The rows [default: the first of the file's two NATs]
    #[arg(long, value_name = "KEY=VALUES", requires = "columns")]
    rows: Option<Axis>,
    /// The columns [default: the second of them]
    #[arg(long, value_name = "KEY=VALUES", requires = "rows")]
    columns: Option<Axis>,
    /// Give a key another value in every cell, such as nat.*.ports=random; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<OneSetting>,
    /// The seeds of each cell: A..B without B, A..=B with it
    #[arg(long, value_name = "A..B", default_value = "0..10", allow_negative_numbers = true)]
    seeds: Seeds,
    /// How many runs at once [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Write a table in Markdown, with confidence intervals (`-` is standard output)
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write a line of CSV for each cell
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a heat map that a browser shows
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A cell before it has run.
struct Planned {
    scenario: Scenario,
    set: Vec<(String, String)>,
    theory: Result<Fit, String>,
}

/// What one run came to.
enum Came {
    Passed,
    Failed,
    Refused(String),
}

pub(super) fn run(terminal: &mut Terminal, args: &MatrixArgs) -> Exit {
    let files = [&args.markdown, &args.csv, &args.html];
    if files.iter().any(|file| file.as_deref().is_some_and(super::is_stdout)) {
        terminal.step_aside();
    }
    let Some(document) = files::document(terminal, &args.file, &args.set) else { return Exit::WRONG };
    let axes = match (&args.rows, &args.columns) {
        (Some(rows), Some(columns)) => Ok((rows.clone(), columns.clone())),
        _ => matrix::nats(&document),
    };
    let (rows, columns) = match axes {
        Ok(axes) => axes,
        Err(error) => return wrong(terminal, &error.to_string()),
    };
    let Some(planned) = plan(terminal, &document, &rows, &columns) else { return Exit::WRONG };
    let seeds = args.seeds.to - args.seeds.from;
    let runs = seeds.saturating_mul(planned.len() as u64);
    if runs > MAX_RUNS {
        return wrong(terminal, &format!("these are {runs} runs: at most {MAX_RUNS}; take fewer seeds or values"));
    }

    let start = wall_now();
    let cells = match play_all(terminal, args, &planned) {
        Ok(cells) => cells,
        Err(error) => return wrong(terminal, &error),
    };
    let no_theory = planned.iter().find_map(|cell| cell.theory.as_ref().err()).cloned();
    let matrix = Matrix {
        name: planned.first().map_or_else(String::new, |cell| cell.scenario.name.clone()),
        cells: cells.chunks(columns.values.len()).map(<[Cell]>::to_vec).collect(),
        rows,
        columns,
        seeds: args.seeds.to_string(),
        no_theory,
    };
    tell(terminal, &matrix);
    let time = wall_now().duration_since(start).as_secs_f64();
    terminal.line(format_args!("{} runs in {time:.1} s", thousands(runs)));
    type Writer = fn(&Matrix) -> String;
    let writers: [Writer; 3] = [matrix::markdown, matrix::csv, matrix::html];
    for (path, writer) in files.into_iter().zip(writers) {
        let Some(path) = path else { continue };
        if let Err(error) = write(path, &writer(&matrix)) {
            return wrong(terminal, &format!("cannot write {}: {error}", path.display()));
        }
    }
    if matrix.disagreements().is_empty() { Exit::PASSED } else { Exit::FAILED }
}

fn wrong(terminal: &mut Terminal, error: &str) -> Exit {
    terminal.end_progress();
    terminal.error(format_args!("error: {error}"));
    Exit::WRONG
}

/// Reads the scenario of each cell, row by row. What is wrong is told, and gives `None`.
fn plan(terminal: &mut Terminal, document: &Document, rows: &Axis, columns: &Axis) -> Option<Vec<Planned>> {
    let mut planned = Vec::new();
    for row in &rows.values {
        for column in &columns.values {
            let mut document = document.clone();
            for (key, value) in row.set.iter().chain(&column.set) {
                document.set(key, value).map_err(|error| terminal.error(format_args!("error: {error}"))).ok()?;
            }
            let scenario = document.scenario().map_err(|error| files::tell(terminal, &error)).ok()?;
            let theory = matrix::fit(&scenario);
            planned.push(Planned { scenario, set: document.settings().to_vec(), theory });
        }
    }
    Some(planned)
}

/// Runs every cell with every seed.
fn play_all(terminal: &mut Terminal, args: &MatrixArgs, planned: &[Planned]) -> Result<Vec<Cell>, String> {
    let seeds = args.seeds.from..args.seeds.to;
    let tasks: Vec<(usize, u64)> =
        (0..planned.len()).flat_map(|cell| seeds.clone().map(move |seed| (cell, seed))).collect();
    let theory = |cell: &Planned| cell.theory.as_ref().ok().cloned();
    let cell = |cell: &Planned| Cell { runs: 0, passed: 0, theory: theory(cell), replay: None };
    let mut cells: Vec<Cell> = planned.iter().map(cell).collect();
    let (stop, mut refused, mut told) = (Stop::new(None), None, 0);
    in_parallel(
        jobs(args.jobs),
        &tasks,
        |(cell, seed)| (cell, seed, came(&planned[cell].scenario, seed)),
        || stop.is_asked(),
        |done, next| {
            terminal.show_progress(done, tasks.len());
            let Some((index, seed, came)) = next else { return };
            told += 1;
            let cell = &mut cells[index];
            cell.runs += 1;
            let passed = match came {
                Came::Passed => true,
                Came::Failed => false,
                Came::Refused(reason) => {
                    refused = Some(reason);
                    false
                }
            };
            cell.passed += u64::from(passed);
            let odd = cell.theory.as_ref().map_or(!passed, |theory| theory.passes != passed);
            if odd && cell.replay.is_none() {
                cell.replay = Some(replay_command(&args.file, seed, &planned[index].set));
            }
        },
    );
    terminal.end_progress();
    match (refused, stop.reason()) {
        (Some(reason), _) => Err(format!("the simulator cannot run it: {reason}")),
        (None, Some(stopped)) if told < tasks.len() => {
            Err(format!("stopped by {stopped} after {told} of {} runs", tasks.len()))
        }
        _ => Ok(cells),
    }
}

fn came(scenario: &Scenario, seed: u64) -> Came {
    match play(scenario, seed).0 {
        RunResult::Refused(reason) => Came::Refused(reason),
        result if result.verdict() == "passed" => Came::Passed,
        _ => Came::Failed,
    }
}

fn tell(terminal: &mut Terminal, matrix: &Matrix) {
    terminal.line(format_args!("{}, seeds {}: the share of runs that pass", matrix.name, matrix.seeds));
    let paint = |cell: &Cell, text: String| match cell.agreement() {
        Agreement::Disagrees => terminal.tone(Tone::Bad, &text),
        _ if cell.passed == cell.runs => terminal.tone(Tone::Good, &text),
        _ => text,
    };
    for line in matrix::terminal(matrix, paint) {
        terminal.line(line);
    }
    terminal.line("");
    let runs = matrix.cells.iter().flatten().next().map_or(0, |cell| cell.runs);
    let all = Cell { runs, passed: runs, theory: None, replay: None }.interval().0 * 100.0;
    terminal.line(format_args!(
        "{runs} runs a cell: with 95% confidence 100% means over {all:.0}%, and 0% under {:.0}%",
        100.0 - all
    ));
    let (agrees, known) = matrix.agreement();
    let wrong = matrix.disagreements();
    match &matrix.no_theory {
        Some(why) if known == 0 => terminal.line(format_args!("no theory of this file: {why}")),
        _ if wrong.is_empty() => {
            let words = terminal.tone(Tone::Good, &format!("theory agrees with all {agrees} cells"));
            terminal.line(words);
        }
        _ => {
            let words = format!("THEORY DISAGREES with {} of {known} cells (marked !):", wrong.len());
            let words = terminal.tone(Tone::Bad, &words);
            terminal.line(words);
        }
    }
    for (row, column) in wrong.iter().take(TOLD) {
        let cell = &matrix.cells[*row][*column];
        let theory = cell.theory.as_ref().map_or_else(String::new, |theory| {
            format!("should {}: {}", if theory.passes { "pass" } else { "fail" }, theory.why)
        });
        terminal.line(format_args!("  {}: {} of {} passed", matrix.label(*row, *column), cell.passed, cell.runs));
        terminal.line(format_args!("    {theory}"));
        if let Some(replay) = &cell.replay {
            terminal.line(format_args!("    run it again:  {replay}"));
        }
    }
    if wrong.len() > TOLD {
        terminal.line(format_args!("  and {} more: --csv has all", wrong.len() - TOLD));
    }
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
