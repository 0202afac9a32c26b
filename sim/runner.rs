//! Runs a scenario, keeps its event log, and says what came of it.

use std::cell::RefCell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use crate::backend::{self, On, RunOptions, Spectator};
use crate::engine::Sighting;
use crate::event::Record;
use crate::report::picture::Picture;
use crate::report::{self, Behind, Capture, EventLog, Run, RunResult, Trail, lockstep, seconds};
use crate::scenario::Scenario;
use crate::sweep::play::message;

/// What is done with a run besides running it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// The folder that a run's files go to: `NAME-SEED/events.jsonl`, `NAME-SEED/capture.pcapng` and
    /// `NAME-SEED/report.html`.
    pub out: Option<PathBuf>,
    /// Whether it is run twice, at the same time, and the events are compared.
    pub twice: bool,
    /// What was set in the file, for the replay command: keys and values.
    pub set: Vec<(String, String)>,
}

/// Runs `scenario`, which `file` was read into.
///
/// A panic of the stack or the laboratory is caught and told as such; its message goes to standard error as well.
pub fn run(scenario: &Scenario, file: &Path, options: &RunOptions, keep: &Keep) -> Run {
    let start = wall_now();
    // What cannot be drawn is refused when it is to run.
    let drawn = scenario.drawn(options.seed).ok().flatten();
    let scenario = drawn.as_ref().unwrap_or(scenario);
    let seen = Rc::new(RefCell::new(Seen::default()));
    let result = catch_unwind(AssertUnwindSafe(|| attempt(scenario, options, keep, &seen))).unwrap_or_else(|panic| {
        // The files are all the more wanted; that it panicked is told, and not that they could not be written.
        if let Ok(mut seen) = seen.try_borrow_mut() {
            let _ = seen.log.take().map(EventLog::finish);
            let _ = seen.capture.take().map(Capture::finish);
        }
        RunResult::Panicked(message(&*panic))
    });
    let mut run = Run {
        file: file.to_owned(),
        name: scenario.name.clone(),
        seed: options.seed,
        on: options.on,
        result,
        wall: wall_now().duration_since(start),
        trail: Vec::new(),
        replay: replay(file, options, keep),
    };
    if !run.passed() {
        // The observer may have been leaked with its borrow by a panic inside of it: then there is no trail.
        run.trail = seen.try_borrow().map(|seen| seen.trail.lines()).unwrap_or_default();
    }
    if let Some(folder) = &keep.out
        && let Some(picture) = seen.try_borrow_mut().ok().and_then(|mut seen| seen.picture.take())
    {
        let again = replay(file, options, &Keep { set: keep.set.clone(), ..Keep::default() });
        if let Err(error) = report::write_report(folder, &run, scenario, &picture, &again) {
            let path = report::report_path(folder, &run.name, run.seed);
            run.result = RunResult::Refused(format!("cannot write the report {}: {error}", path.display()));
        }
    }
    run
}

/// The real time, which is shown to people and decides nothing.
#[expect(clippy::disallowed_methods, reason = "wall time shown to people")]
pub fn wall_now() -> Instant {
    Instant::now()
}

/// What looks at the events of a run.
#[derive(Debug, Default)]
struct Seen {
    trail: Trail,
    log: Option<EventLog<File>>,
    capture: Option<Capture<File>>,
    picture: Option<Picture>,
    comparison: Option<Behind>,
}

/// Shows a run to what is shared with whoever started it.
struct Watching(Rc<RefCell<Seen>>);

impl Spectator for Watching {
    fn event(&mut self, record: &Record) {
        self.0.borrow_mut().observe(record);
    }

    fn packet(&mut self, sighting: &Sighting) {
        if let Some(capture) = &mut self.0.borrow_mut().capture {
            capture.packet(sighting);
        }
    }

    fn wants_packets(&self) -> bool {
        self.0.borrow().capture.is_some()
    }

    fn wants_samples(&self) -> bool {
        self.0.borrow().picture.is_some()
    }
}

impl Seen {
    fn observe(&mut self, record: &Record) {
        self.trail.observe(record);
        if let Some(log) = &mut self.log {
            log.write(record);
        }
        if let Some(capture) = &mut self.capture {
            capture.event(record);
        }
        if let Some(picture) = &mut self.picture {
            picture.observe(record);
        }
        if let Some(comparison) = self.comparison.as_ref().filter(|_| !record.is_sample()) {
            comparison.observe(record);
        }
    }
}

fn attempt(scenario: &Scenario, options: &RunOptions, keep: &Keep, seen: &Rc<RefCell<Seen>>) -> RunResult {
    if let Some(folder) = &keep.out {
        match EventLog::create(folder, &scenario.name, options.seed) {
            Ok(log) => seen.borrow_mut().log = Some(log),
            Err(error) => {
                let path = EventLog::path(folder, &scenario.name, options.seed);
                return RunResult::Refused(format!("cannot write the event log {}: {error}", path.display()));
            }
        }
        seen.borrow_mut().picture = Some(Picture::new(scenario));
        // Real sockets are other programs' to capture.
        if options.on == On::Sim {
            match Capture::create(folder, scenario, options.seed) {
                Ok(capture) => seen.borrow_mut().capture = Some(capture),
                Err(error) => {
                    let path = Capture::path(folder, &scenario.name, options.seed);
                    return RunResult::Refused(format!("cannot write the capture {}: {error}", path.display()));
                }
            }
        }
    }
    let result = if keep.twice { twice(scenario, options, seen) } else { observe(scenario, options, seen) };
    let files = seen.try_borrow_mut().map(|mut seen| (seen.log.take(), seen.capture.take()));
    let (log, capture) = files.unwrap_or_default();
    if let Some(Err(error)) = log.map(EventLog::finish) {
        return RunResult::Refused(format!("cannot write the event log: {error}"));
    }
    if let Some(Err(error)) = capture.map(Capture::finish) {
        return RunResult::Refused(format!("cannot write the capture: {error}"));
    }
    result
}

fn observe(scenario: &Scenario, options: &RunOptions, seen: &Rc<RefCell<Seen>>) -> RunResult {
    let ran = backend::watch(scenario, options, Watching(seen.clone()));
    ran.map_or_else(|error| RunResult::Refused(error.to_string()), RunResult::Done)
}

/// Runs it on two threads at once and compares; the second run is the one that is told.
fn twice(scenario: &Scenario, options: &RunOptions, seen: &Rc<RefCell<Seen>>) -> RunResult {
    let caught = |work: &mut dyn FnMut() -> RunResult| {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| RunResult::Panicked(message(&*panic)))
    };
    let (_, second, difference) = lockstep(
        |mut ahead| {
            let mut observer = Some(move |record: &Record| ahead.observe(record));
            caught(&mut || {
                let ran = backend::run(scenario, options, observer.take().expect("it is called once"));
                ran.map_or_else(|error| RunResult::Refused(error.to_string()), RunResult::Done)
            })
        },
        |behind| {
            seen.borrow_mut().comparison = Some(behind);
            caught(&mut || observe(scenario, options, seen))
        },
        ending,
        ending,
    );
    match (second, difference) {
        // It is refused before anything happens.
        (RunResult::Refused(reason), _) => RunResult::Refused(reason),
        (_, Some(difference)) => RunResult::Nondeterministic(difference),
        (second, None) => second,
    }
}

/// How a run ended, in words.
fn ending(result: &RunResult) -> String {
    match result {
        RunResult::Done(outcome) => format!("it {} after {}", result.verdict(), seconds(outcome.simulated)),
        RunResult::Panicked(message) => format!("it panicked: {message}"),
        _ => format!("it was {}", result.verdict()),
    }
}

/// The command that does the same again.
fn replay(file: &Path, options: &RunOptions, keep: &Keep) -> String {
    let mut command = format!("grenache run --seed {}", options.seed);
    if options.on == On::Loopback {
        command.push_str(" --on loopback");
    }
    if keep.twice {
        command.push_str(" --twice");
    }
    push_settings(&mut command, &keep.set);
    if let Some(out) = &keep.out {
        command.push_str(&format!(" --out {}", shell_word(out)));
    }
    format!("{command} {}", shell_word(file))
}

/// The command that runs a file with its own seed.
pub fn run_command(file: &Path) -> String {
    format!("grenache run {}", shell_word(file))
}

/// The command that does one run of a sweep again.
pub fn replay_command(file: &Path, seed: u64, set: &[(String, String)]) -> String {
    let keep = Keep { set: set.to_vec(), ..Keep::default() };
    replay(file, &RunOptions { seed, on: On::Sim }, &keep)
}

fn push_settings(command: &mut String, set: &[(String, String)]) {
    for (key, value) in set {
        command.push_str(&format!(" --set {}", shell_word(Path::new(&format!("{key}={value}")))));
    }
}

/// A path as a word of a shell's command, in quotes where it needs them.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:=,".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        text
    } else if text.starts_with('-') {
        shell_word(&Path::new(".").join(path))
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_a_command_that_a_shell_takes() {
        let options = RunOptions { seed: 3, on: On::Loopback };
        let keep = Keep { out: Some("my runs".into()), twice: true, ..Keep::default() };
        assert_eq!(
            replay(Path::new("it's.toml"), &options, &keep),
            r"grenache run --seed 3 --on loopback --twice --out 'my runs' 'it'\''s.toml'"
        );
        let plain = RunOptions { seed: 0, on: On::Sim };
        assert_eq!(replay(Path::new("a/b.toml"), &plain, &Keep::default()), "grenache run --seed 0 a/b.toml");
        assert_eq!(replay(Path::new("-x.toml"), &plain, &Keep::default()), "grenache run --seed 0 ./-x.toml");
        let set =
            [("link.dsl.loss", "2%"), ("program.0.payload", "{ a = 1 }")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(
            replay_command(Path::new("x.toml"), 5, &set),
            "grenache run --seed 5 --set link.dsl.loss=2% --set 'program.0.payload={ a = 1 }' x.toml"
        );
    }
}
