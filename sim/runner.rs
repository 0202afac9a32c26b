//! Runs a scenario, keeps its event log, and says what came of it.

use std::cell::RefCell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use crate::backend::{self, On, RunOptions};
use crate::event::Record;
use crate::report::{Comparison, EventLog, Outcome, Run, RunResult, Trail};
use crate::scenario::Scenario;
use crate::sweep::play::message;

/// What is done with a run besides running it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// The folder that event logs go to, as `NAME-SEED/events.jsonl`.
    pub out: Option<PathBuf>,
    /// Whether it is run twice, and the two event logs compared. The first log is held in memory.
    pub twice: bool,
    /// What was set in the file, for the replay command: keys and values.
    pub set: Vec<(String, String)>,
}

/// Runs `scenario`, which `file` was read into.
///
/// A panic of the stack or the laboratory is caught and told as such; its message goes to standard error as well.
pub fn run(scenario: &Scenario, file: &Path, options: &RunOptions, keep: &Keep) -> Run {
    let start = wall_now();
    let seen = Rc::new(RefCell::new(Seen::default()));
    let result = catch_unwind(AssertUnwindSafe(|| attempt(scenario, options, keep, &seen)))
        .unwrap_or_else(|panic| RunResult::Panicked(message(&*panic)));
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
    memory: Option<EventLog<Vec<u8>>>,
    comparison: Option<Comparison>,
}

impl Seen {
    fn observe(&mut self, record: &Record) {
        self.trail.observe(record);
        if let Some(log) = &mut self.log {
            log.write(record);
        }
        if let Some(memory) = &mut self.memory {
            memory.write(record);
        }
        if let Some(comparison) = &mut self.comparison {
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
    }
    if keep.twice {
        seen.borrow_mut().memory = Some(EventLog::new(Vec::new()));
    }
    let outcome = match observe(scenario, options, seen) {
        Ok(outcome) => outcome,
        Err(refused) => return refused,
    };
    let (log, memory) = {
        let mut seen = seen.borrow_mut();
        (seen.log.take(), seen.memory.take())
    };
    if let Some(Err(error)) = log.map(EventLog::finish) {
        return RunResult::Refused(format!("cannot write the event log: {error}"));
    }
    if let Some(Ok(earlier)) = memory.map(EventLog::finish) {
        let again = Rc::new(RefCell::new(Seen { comparison: Some(Comparison::new(earlier)), ..Seen::default() }));
        if let Err(refused) = observe(scenario, options, &again) {
            return refused;
        }
        let comparison = again.borrow_mut().comparison.take();
        if let Some(difference) = comparison.and_then(Comparison::finish) {
            return RunResult::Nondeterministic(difference);
        }
    }
    RunResult::Done(outcome)
}

fn observe(scenario: &Scenario, options: &RunOptions, seen: &Rc<RefCell<Seen>>) -> Result<Outcome, RunResult> {
    let watching = seen.clone();
    backend::run(scenario, options, move |record| watching.borrow_mut().observe(record))
        .map_err(|error| RunResult::Refused(error.to_string()))
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
