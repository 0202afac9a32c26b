//! Verdicts, the event log, and what a person sees of a run.
//!
//! | type | what it is for |
//! |---|---|
//! | [`Outcome`] | what a backend says that a run came to |
//! | [`Run`] | a run as it is reported: its outcome, where from, how long it took |
//! | [`EventLog`] | `events.jsonl`: each event of a run as a line of JSON |
//! | [`Capture`] | `capture.pcapng`: each packet at each side that it passed |
//! | [`lockstep()`] | two runs of the same at once, and the first event that differs |
//! | [`picture`] | what pictures of a run are drawn from |
//! | [`report`] | `report.html`: a run as a page |
//! | [`Trail`] | the last events that matter, for the story of a failure |
//! | [`Diagram`] | a run as a Mermaid sequence diagram |
//! | [`JsonReport`] | the results of many runs, for programs |
//! | [`junit()`] | the same as JUnit's XML |

use std::time::Duration;

use serde::Serialize;

mod capture;
mod diagram;
mod events;
mod json;
mod junit;
mod lockstep;
mod page;
pub mod picture;
mod run;
mod trail;

pub use capture::{Capture, MAX_HELD};
pub use diagram::{Diagram, MAX_STEPS};
pub use events::EventLog;
pub use json::JsonReport;
pub use junit::junit;
pub use lockstep::{Ahead, Behind, CONTEXT, Difference, SHOWN, lockstep};
pub use page::{report, report_path, write_report};
pub use run::{Run, RunResult, seconds};
pub use trail::Trail;

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The whole in a word.
    pub verdict: Verdict,
    /// What became of each expectation, in the file's order.
    pub expectations: Vec<ExpectationOutcome>,
    /// How long the run took, in simulated time (real time on loopback).
    pub simulated: Duration,
    /// The programs that could not start or gave up, in words.
    pub programs_failed: Vec<String>,
}

/// Whether a run is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every expectation was met, and every program could run.
    Passed,
    /// An expectation was not met in time, or a program failed.
    Failed,
}

/// What became of an expectation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExpectationOutcome {
    /// The expectation in words.
    pub text: String,
    /// Its line in the file, from 1.
    pub line: usize,
    /// The file that it is written in, where that is one that the scenario's extends.
    pub file: Option<std::sync::Arc<str>>,
    /// Whether it was met in time.
    pub met: bool,
    /// What decided it, where it was not.
    pub reason: Option<String>,
    /// When it was decided, from the beginning of the run.
    pub decided_at: Duration,
    /// The event that decided it, in words, or that its time was up.
    pub decided_by: String,
}
