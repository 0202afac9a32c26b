//! Verdicts.

use std::time::Duration;

/// Whether a run did what its file expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every expectation was met.
    Passed,
    /// One was not.
    Failed,
}

/// What became of an expectation.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpectationOutcome {
    /// As written in the file.
    pub text: String,
    /// Its line in the file.
    pub line: usize,
    /// Whether it was met.
    pub met: bool,
    /// Why not.
    pub reason: Option<String>,
    /// When it was decided.
    pub decided_at: Duration,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Each expectation's outcome, in the file's order.
    pub expectations: Vec<ExpectationOutcome>,
    /// How long it took, in simulated time.
    pub simulated: Duration,
    /// Programs that failed, in words.
    pub programs_failed: Vec<String>,
}
