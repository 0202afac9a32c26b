//! The results of many runs, for programs.

use std::time::Duration;

use serde::Serialize;

use super::{Run, RunResult};
use crate::backend::On;

/// What `--json FILE` writes: one object.
///
/// | key | |
/// |---|---|
/// | `version` | of grenache |
/// | `passed`, `failed`, `refused` | how many runs passed, how many failed in whatever way, and how many could not run |
/// | `wall_ns` | how long all took, in nanoseconds of real time |
/// | `runs` | the runs, in the order of the command line |
///
/// A run has
///
/// | key | |
/// |---|---|
/// | `file`, `name`, `seed`, `on` | what ran: `on` is `sim` or `loopback` |
/// | `verdict` | `passed`, `failed`, `refused` (it could not run), `panicked`, `nondeterministic` |
/// | `simulated_ns` | how long it took in simulated time, in nanoseconds; `null` where it did not run to its end |
/// | `wall_ns` | in real time |
/// | `expectations` | each with `text`, `line`, `file` (`null`, or the file of the expectation, where that is extended), `met`, `reason` (`null` where met), `decided_at_ns` and `decided_by`, the event in words |
/// | `programs_failed` | the programs that could not start or gave up, in words |
/// | `message` | why it was refused or panicked, or how it differed; else `null` |
/// | `replay` | the command that does the same again |
#[derive(Debug, Serialize)]
pub struct JsonReport<'a> {
    version: &'static str,
    passed: usize,
    failed: usize,
    refused: usize,
    wall_ns: u64,
    runs: Vec<JsonRun<'a>>,
}

impl<'a> JsonReport<'a> {
    /// A report of `runs`, which took `wall` together.
    pub fn new(runs: &'a [Run], wall: Duration) -> Self {
        let passed = runs.iter().filter(|run| run.passed()).count();
        let refused = runs.iter().filter(|run| matches!(run.result, RunResult::Refused(_))).count();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            passed,
            failed: runs.len() - passed - refused,
            refused,
            wall_ns: nanos(wall),
            runs: runs.iter().map(JsonRun::new).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct JsonRun<'a> {
    file: String,
    name: &'a str,
    seed: u64,
    on: &'static str,
    verdict: &'static str,
    simulated_ns: Option<u64>,
    wall_ns: u64,
    expectations: Vec<JsonExpectation<'a>>,
    programs_failed: &'a [String],
    message: Option<String>,
    replay: &'a str,
}

#[derive(Debug, Serialize)]
struct JsonExpectation<'a> {
    text: &'a str,
    line: usize,
    file: Option<&'a str>,
    met: bool,
    reason: Option<&'a str>,
    decided_at_ns: u64,
    decided_by: &'a str,
}

impl<'a> JsonRun<'a> {
    fn new(run: &'a Run) -> Self {
        let (expectations, programs_failed, message) = match &run.result {
            RunResult::Done(outcome) => {
                let expectations = outcome.expectations.iter().map(|expectation| JsonExpectation {
                    text: &expectation.text,
                    line: expectation.line,
                    met: expectation.met,
                    reason: expectation.reason.as_deref(),
                    decided_at_ns: nanos(expectation.decided_at),
                    decided_by: &expectation.decided_by,
                    file: expectation.file.as_deref(),
                });
                (expectations.collect(), outcome.programs_failed.as_slice(), None)
            }
            RunResult::Refused(message) | RunResult::Panicked(message) => {
                (Vec::new(), [].as_slice(), Some(message.clone()))
            }
            RunResult::Nondeterministic(difference) => {
                (Vec::new(), [].as_slice(), Some(format!("the runs differ from event {} on", difference.event)))
            }
        };
        Self {
            file: run.file.display().to_string(),
            name: &run.name,
            seed: run.seed,
            on: match run.on {
                On::Sim => "sim",
                On::Loopback => "loopback",
            },
            verdict: run.verdict(),
            simulated_ns: run.simulated().map(nanos),
            wall_ns: nanos(run.wall),
            expectations,
            programs_failed,
            message,
            replay: &run.replay,
        }
    }
}

/// Nanoseconds; a run of more than 584 years is told as that.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
