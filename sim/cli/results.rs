//! What is said of results: a line a run, or a line a file where there are many seeds; stories of what failed.

use std::time::Duration;

use grenache_sim::report::{Run, seconds};

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
            sweep: Sweep::default(),
        }
    }

    /// Takes a result: the runs of a file follow each other.
    pub(super) fn tell(&mut self, terminal: &mut Terminal, run: &Run) {
        if run.passed() {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        let Some(seeds) = self.seeds else {
            self.line(terminal, run);
            story(terminal, run);
            return;
        };
        self.sweep.add(run);
        if self.sweep.runs == seeds.to - seeds.from {
            let sweep = std::mem::take(&mut self.sweep);
            self.sweep_line(terminal, &sweep, seeds, &run.name);
        }
    }

    /// One run in a line: verdict, name, seed, simulated time, wall time.
    fn line(&self, terminal: &mut Terminal, run: &Run) {
        let verdict = verdict(terminal, run);
        let simulated = run.simulated().map_or_else(|| "-".to_owned(), seconds);
        let (name_width, seed_width) = (self.name_width, self.seed_width);
        terminal.line(format_args!(
            "{verdict}  {:<name_width$}  seed {:<seed_width$}  {simulated:>11} simulated  {:>8} wall",
            run.name,
            run.seed,
            wall(run.wall),
        ));
    }

    /// All runs of a file in a line, and each failure.
    fn sweep_line(&self, terminal: &mut Terminal, sweep: &Sweep, seeds: Seeds, name: &str) {
        let verdict = match sweep.failures.first() {
            None => terminal.tone(Tone::Good, "ok     "),
            Some(failure) => verdict(terminal, failure),
        };
        let name_width = self.name_width;
        terminal.line(format_args!(
            "{verdict}  {name:<name_width$}  seeds {seeds}  {} of {} passed  {}  {:>8} wall",
            sweep.passed,
            sweep.runs,
            sweep.spread(),
            wall(sweep.wall),
        ));
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
        let runs = self.passed + self.failed;
        let tone = if self.failed == 0 { Tone::Good } else { Tone::Plain };
        let passed = terminal.tone(tone, &format!("{} passed", self.passed));
        let tone = if self.failed == 0 { Tone::Plain } else { Tone::Bad };
        let failed = terminal.tone(tone, &format!("{} failed", self.failed));
        let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (runs, files) = (plural(runs, "run"), plural(self.files, "file"));
        terminal.line(format_args!("{passed}, {failed}: {runs} of {files} in {}", wall(wall_time)));
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

    /// The shortest, the middle and the longest simulated time of the runs that passed.
    fn spread(&self) -> String {
        let mut times = self.simulated.clone();
        times.sort();
        let (Some(min), Some(median), Some(max)) = (times.first(), times.get(times.len() / 2), times.last()) else {
            return "none passed".to_owned();
        };
        format!("min {} / median {} / max {} simulated", seconds(*min), seconds(*median), seconds(*max))
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

fn story(terminal: &mut Terminal, run: &Run) {
    for line in run.story() {
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
