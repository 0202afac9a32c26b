//! A run as it is reported.

use std::path::PathBuf;
use std::time::Duration;

use super::{Difference, Outcome, Verdict};
use crate::backend::On;

/// One run of one file.
#[derive(Debug, Clone)]
pub struct Run {
    /// The scenario file.
    pub file: PathBuf,
    /// The scenario's name.
    pub name: String,
    /// The seed.
    pub seed: u64,
    /// Where it ran.
    pub on: On,
    /// What came of it.
    pub result: RunResult,
    /// How long it took in real time.
    pub wall: Duration,
    /// The last events that matter; empty where the run passed.
    pub trail: Vec<String>,
    /// The command that does the same again.
    pub replay: String,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub enum RunResult {
    /// It ran to its end.
    Done(Outcome),
    /// It could not run, and why.
    Refused(String),
    /// The stack or the laboratory panicked, which is a bug, and with what message.
    Panicked(String),
    /// It ran twice, not the same.
    Nondeterministic(Difference),
}

impl RunResult {
    /// The verdict in a word.
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Done(outcome) if outcome.verdict == Verdict::Passed => "passed",
            Self::Done(_) => "failed",
            Self::Refused(_) => "refused",
            Self::Panicked(_) => "panicked",
            Self::Nondeterministic(_) => "nondeterministic",
        }
    }
}

impl Run {
    /// Whether all is as it should be.
    pub fn passed(&self) -> bool {
        matches!(&self.result, RunResult::Done(outcome) if outcome.verdict == Verdict::Passed)
    }

    /// The command line's exit code for it: 0 passed, 1 failed, 2 could not run, 3 nondeterministic.
    pub fn exit_code(&self) -> u8 {
        match &self.result {
            RunResult::Done(_) if self.passed() => 0,
            RunResult::Done(_) | RunResult::Panicked(_) => 1,
            RunResult::Refused(_) => 2,
            RunResult::Nondeterministic(_) => 3,
        }
    }

    /// How long it took in simulated time, where it ran to its end.
    pub fn simulated(&self) -> Option<Duration> {
        match &self.result {
            RunResult::Done(outcome) => Some(outcome.simulated),
            _ => None,
        }
    }

    /// The verdict in a word.
    pub fn verdict(&self) -> &'static str {
        self.result.verdict()
    }

    /// The full story of a run that did not pass, in lines; nothing for one that did.
    pub fn story(&self) -> Vec<String> {
        let mut story = Vec::new();
        match &self.result {
            RunResult::Done(_) if self.passed() => return story,
            RunResult::Done(outcome) => self.tell_outcome(outcome, &mut story),
            RunResult::Refused(reason) => {
                // There is nothing to replay: it did not run.
                story.push(reason.clone());
                return story;
            }
            RunResult::Panicked(message) => story.push(format!("panicked, which is a bug: {message}")),
            RunResult::Nondeterministic(difference) => {
                story.push(format!("two runs of the same seed differ from event {} on:", difference.event));
                story.extend(difference.before.iter().map(|line| format!("  both    {line}")));
                story.extend(difference.first.iter().map(|line| format!("  first   {line}")));
                story.extend(difference.second.iter().map(|line| format!("  second  {line}")));
                // The last events of one of them may be much later.
                story.push(format!("run it again:  {}", self.replay));
                return story;
            }
        }
        if !self.trail.is_empty() {
            story.push("the last events:".to_owned());
            story.extend(self.trail.iter().map(|line| format!("  {line}")));
        }
        story.push(format!("run it again:  {}", self.replay));
        story
    }

    /// What decided each expectation and when, in lines; nothing for a run that did not come to its end.
    pub fn explanation(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let RunResult::Done(outcome) = &self.result {
            self.tell_outcome(outcome, &mut lines);
        }
        lines
    }

    fn tell_outcome(&self, outcome: &Outcome, story: &mut Vec<String>) {
        for failed in &outcome.programs_failed {
            story.push(format!("a program failed: {failed}"));
        }
        for expectation in &outcome.expectations {
            if expectation.met {
                story.push(format!("met after {}: {}", seconds(expectation.decided_at), expectation.text));
                story.push(format!("  {}", expectation.decided_by));
            } else {
                let file = expectation.file.as_deref().map_or_else(|| self.file.display().to_string(), str::to_owned);
                story.push(format!("NOT MET: {} ({file}:{})", expectation.text, expectation.line));
                let decided = format!("  decided at {}", seconds(expectation.decided_at));
                story.push(expectation.reason.iter().fold(decided, |decided, reason| format!("{decided}: {reason}")));
            }
        }
    }
}

/// A duration in seconds, to the millisecond: `1.250 s`.
pub fn seconds(duration: Duration) -> String {
    format!("{}.{:03} s", duration.as_secs(), duration.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ExpectationOutcome;

    fn run(result: RunResult) -> Run {
        Run {
            file: "scenarios/simple.toml".into(),
            name: "simple".to_owned(),
            seed: 7,
            on: On::Sim,
            result,
            wall: Duration::from_millis(12),
            trail: vec!["0.100 s  client  request-sent".to_owned()],
            replay: "grenache run --seed 7 scenarios/simple.toml".to_owned(),
        }
    }

    fn outcome(verdict: Verdict) -> Outcome {
        let met = ExpectationOutcome {
            text: "client finds rpc_test, within 5s".to_owned(),
            line: 30,
            met: true,
            decided_at: Duration::from_millis(1250),
            decided_by: "client found rpc_test at 203.0.113.5:1337".to_owned(),
            ..ExpectationOutcome::default()
        };
        let missed = ExpectationOutcome {
            text: "client gets the reply \"world\", within 5s".to_owned(),
            line: 34,
            met: false,
            reason: Some("not within 5s; a request failed: ERR_TIMEOUT".to_owned()),
            decided_at: Duration::from_secs(5),
            decided_by: "its time was up at 5s".to_owned(),
            ..ExpectationOutcome::default()
        };
        Outcome {
            verdict,
            expectations: vec![met, missed],
            simulated: Duration::from_secs(5),
            programs_failed: vec!["worker on server: cannot open the UDP socket on port 1".to_owned()],
        }
    }

    #[test]
    fn a_failure_is_told_in_full_and_ends_with_its_replay() {
        let story = run(RunResult::Done(outcome(Verdict::Failed))).story().join("\n");
        insta::assert_snapshot!(story, @r#"
        a program failed: worker on server: cannot open the UDP socket on port 1
        met after 1.250 s: client finds rpc_test, within 5s
          client found rpc_test at 203.0.113.5:1337
        NOT MET: client gets the reply "world", within 5s (scenarios/simple.toml:34)
          decided at 5.000 s: not within 5s; a request failed: ERR_TIMEOUT
        the last events:
          0.100 s  client  request-sent
        run it again:  grenache run --seed 7 scenarios/simple.toml
        "#);
    }

    #[test]
    fn a_nondeterminism_shows_both_events() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let (before, first, second) = (lines(&[r#"{"at_ns":1}"#]), lines(&[r#"{"at_ns":2}"#]), lines(&["passed"]));
        let difference = Difference { event: 3, before, first, second };
        let differs = run(RunResult::Nondeterministic(difference));
        insta::assert_snapshot!(differs.story().join("\n"), @r#"
        two runs of the same seed differ from event 3 on:
          both    {"at_ns":1}
          first   {"at_ns":2}
          second  passed
        run it again:  grenache run --seed 7 scenarios/simple.toml
        "#);
    }

    #[test]
    fn each_result_has_its_exit_code() {
        let difference = Difference { event: 1, before: Vec::new(), first: Vec::new(), second: Vec::new() };
        let cases = [
            (RunResult::Done(outcome(Verdict::Passed)), 0, "passed"),
            (RunResult::Done(outcome(Verdict::Failed)), 1, "failed"),
            (RunResult::Panicked("oops".to_owned()), 1, "panicked"),
            (RunResult::Refused("no NATs here".to_owned()), 2, "refused"),
            (RunResult::Nondeterministic(difference), 3, "nondeterministic"),
        ];
        for (result, code, verdict) in cases {
            let run = run(result);
            assert_eq!((run.exit_code(), run.verdict()), (code, verdict));
            assert_eq!(run.story().is_empty(), code == 0, "{verdict}: quiet on pass, loud on failure");
        }
    }
}
