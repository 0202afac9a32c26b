//! What is said of results: a line a run, or a line a file where there are many seeds; stories of what failed.

use std::time::Duration;

use grenache_sim::backend::On;
use grenache_sim::report::{Run, RunResult, seconds};

use super::Seeds;
use super::files::ScenarioFile;
use super::terminal::{Terminal, Tone};

/// How many failures of one file are told in full; of the others, how to replay them.
const STORIES: usize = 3;

/// Tells results as they come, in order.
#[derive(Debug)]
pub(super) struct Results {
    name_width: usize,
    seed_width: usize,
    seeds: Option<Seeds>,
    files: usize,
    passed: usize,
    failed: usize,
    refused: usize,
    /// With several seeds: what is known of the file that is under way.
    sweep: Sweep,
}

/// The runs of one file so far.
#[derive(Debug, Default)]
struct Sweep {
    runs: u64,
    passed: u64,
    wall: Duration,
    simulated: Vec<Duration>,
    failures: Vec<Run>,
}

impl Results {
    pub(super) fn new(files: &[ScenarioFile], seeds: Option<Seeds>) -> Self {
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        Self {
            name_width: longest(&mut files.iter().map(|file| file.scenario.name.chars().count())),
            seed_width: longest(&mut files.iter().map(|file| file.scenario.seed.to_string().len())),
            seeds,
            files: files.len(),
            passed: 0,
            failed: 0,
            refused: 0,
            sweep: Sweep::default(),
        }
    }

    /// Takes a result: the runs of a file follow each other.
    pub(super) fn tell(&mut self, terminal: &mut Terminal, run: &Run) {
        match run.result {
            _ if run.passed() => self.passed += 1,
            RunResult::Refused(_) => self.refused += 1,
            _ => self.failed += 1,
        }
        let Some(seeds) = self.seeds else {
            self.line(terminal, run);
            story(terminal, run);
            return;
        };
        self.sweep.add(run);
        if self.sweep.runs == seeds.to - seeds.from {
            let sweep = std::mem::take(&mut self.sweep);
            self.sweep_line(terminal, &sweep, seeds, run);
        }
    }

    /// One run in a line: verdict, name, seed, simulated time, wall time. Real time has no seed and is told once.
    fn line(&self, terminal: &mut Terminal, run: &Run) {
        let verdict = verdict(terminal, run);
        let (name_width, seed_width) = (self.name_width, self.seed_width);
        let (name, wall, remark) = (&run.name, wall(run.wall), remark(run));
        if run.on == On::Loopback {
            terminal.line(format_args!("{verdict}  {name:<name_width$}  {wall:>8} real time{remark}"));
            return;
        }
        let simulated = run.simulated().map_or_else(|| "-".to_owned(), seconds);
        terminal.line(format_args!(
            "{verdict}  {name:<name_width$}  seed {:<seed_width$}  {simulated:>11} simulated  {wall:>8} wall{remark}",
            run.seed,
        ));
    }

    /// All runs of a file in a line, and each failure. `last` is one of them.
    fn sweep_line(&self, terminal: &mut Terminal, sweep: &Sweep, seeds: Seeds, last: &Run) {
        let verdict = match sweep.failures.first() {
            None => terminal.tone(Tone::Good, "ok     "),
            Some(failure) => verdict(terminal, failure),
        };
        let name_width = self.name_width;
        let (name, wall, remark) = (&last.name, wall(sweep.wall), remark(last));
        let (passed, runs) = (sweep.passed, sweep.runs);
        if last.on == On::Loopback {
            terminal.line(format_args!(
                "{verdict}  {name:<name_width$}  {passed} of {runs} passed  {wall:>8} real time{remark}"
            ));
        } else {
            let spread = sweep.spread();
            terminal.line(format_args!(
                "{verdict}  {name:<name_width$}  seeds {seeds}  {passed} of {runs} passed{spread}  {wall:>8} wall{remark}"
            ));
        }
        for (number, failure) in sweep.failures.iter().enumerate() {
            if number < STORIES {
                self.line(terminal, failure);
                story(terminal, failure);
            } else {
                terminal.line(format_args!(
                    "         seed {}: {}  {}",
                    failure.seed,
                    failure.verdict(),
                    failure.replay
                ));
            }
        }
    }

    /// The last line.
    pub(super) fn summarise(&self, terminal: &mut Terminal, wall_time: Duration) {
        let runs = self.passed + self.failed + self.refused;
        let tone = if self.failed + self.refused == 0 { Tone::Good } else { Tone::Plain };
        let passed = terminal.tone(tone, &format!("{} passed", self.passed));
        let tone = if self.failed == 0 { Tone::Plain } else { Tone::Bad };
        let failed = terminal.tone(tone, &format!("{} failed", self.failed));
        let refused = match self.refused {
            0 => String::new(),
            refused => format!(", {}", terminal.tone(Tone::Bad, &format!("{refused} refused"))),
        };
        let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (runs, files) = (plural(runs, "run"), plural(self.files, "file"));
        terminal.line(format_args!("{passed}, {failed}{refused}: {runs} of {files} in {}", wall(wall_time)));
    }
}

impl Sweep {
    fn add(&mut self, run: &Run) {
        self.runs += 1;
        self.wall += run.wall;
        if run.passed() {
            self.passed += 1;
            self.simulated.extend(run.simulated());
        } else {
            self.failures.push(run.clone());
        }
    }

    /// The shortest, the middle and the longest simulated time of the runs that passed; nothing where none did.
    fn spread(&self) -> String {
        let mut times = self.simulated.clone();
        times.sort();
        let (Some(min), Some(median), Some(max)) = (times.first(), times.get(times.len() / 2), times.last()) else {
            return String::new();
        };
        format!("  min {} / median {} / max {} simulated", seconds(*min), seconds(*median), seconds(*max))
    }
}

fn verdict(terminal: &Terminal, run: &Run) -> String {
    match run.exit_code() {
        0 => terminal.tone(Tone::Good, "ok     "),
        2 => terminal.tone(Tone::Bad, "REFUSED"),
        3 => terminal.tone(Tone::Bad, "DIFFERS"),
        _ => terminal.tone(Tone::Bad, "FAILED "),
    }
}

/// What is to be known of a run that passed without having been tested.
fn remark(run: &Run) -> &'static str {
    match &run.result {
        RunResult::Done(outcome) if outcome.expectations.is_empty() => "  nothing is expected",
        _ => "",
    }
}

fn story(terminal: &mut Terminal, run: &Run) {
    tell(terminal, &run.story());
}

/// Lines that belong to the one before.
pub(super) fn tell(terminal: &mut Terminal, lines: &[String]) {
    for line in lines {
        terminal.line(format_args!("         {line}"));
    }
}

/// A real time: milliseconds where it is short, with a decimal where it is very short.
fn wall(duration: Duration) -> String {
    if duration < Duration::from_millis(10) {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
