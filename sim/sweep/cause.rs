//! Why a run failed, in words that are the same for the same cause.

use crate::report::{ExpectationOutcome, Outcome, RunResult};

/// Why a run failed; `None` where it passed.
///
/// Of several expectations that were not met it is the first that was decided, of which the others often follow. Numbers
/// that change from run to run are left out.
pub fn cause(result: &RunResult) -> Option<String> {
    match result {
        RunResult::Done(outcome) => outcome_cause(outcome),
        RunResult::Panicked(message) => Some(format!("panicked: {}", without_numbers(message))),
        RunResult::Refused(reason) => Some(format!("refused: {reason}")),
        RunResult::Nondeterministic(_) => Some("two runs of the same seed differed".to_owned()),
    }
}

fn outcome_cause(outcome: &Outcome) -> Option<String> {
    if let Some(failed) = outcome.programs_failed.first() {
        return Some(format!("a program failed: {}", without_numbers(failed)));
    }
    first_unmet(outcome).map(unmet)
}

/// The expectation that was the first to be decided as not met.
pub fn first_unmet(outcome: &Outcome) -> Option<&ExpectationOutcome> {
    outcome.expectations.iter().filter(|expectation| !expectation.met).min_by_key(|expectation| expectation.decided_at)
}

/// An expectation that was not met, and what came closest.
pub fn unmet(expectation: &ExpectationOutcome) -> String {
    let reason = expectation.reason.as_deref().unwrap_or_default();
    // How long it waited is in the expectation's text.
    let reason = match reason.strip_prefix("not within ") {
        Some(rest) => rest.split_once([';', ':']).map_or("", |(_, rest)| rest.trim()),
        None => reason,
    };
    match reason {
        "" => format!("not met: {}", expectation.text),
        reason => format!("not met: {}: {}", expectation.text, without_numbers(reason)),
    }
}

/// A text with `…` in place of each word with a digit in it: ports, addresses, sizes, ids.
pub fn without_numbers(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            plain.push(' ');
        }
        if !word.contains(|c: char| c.is_ascii_digit()) {
            plain.push_str(word);
            continue;
        }
        // What stands around the word stays: brackets, a comma.
        let around: &[char] = &['(', ')', '[', ']', '{', '}', ',', ';', ':', '`', '"', '.'];
        let start = word.len() - word.trim_start_matches(around).len();
        let end = word.trim_end_matches(around).len();
        plain.push_str(&word[..start]);
        plain.push('…');
        plain.push_str(&word[end..]);
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::Verdict;

    fn unmet_at(seconds: u64, text: &str, reason: &str) -> ExpectationOutcome {
        ExpectationOutcome {
            text: text.to_owned(),
            line: 1,
            file: None,
            met: false,
            reason: Some(reason.to_owned()),
            decided_at: Duration::from_secs(seconds),
            ..ExpectationOutcome::default()
        }
    }

    fn failed(expectations: Vec<ExpectationOutcome>) -> RunResult {
        let simulated = Duration::from_secs(20);
        RunResult::Done(Outcome { verdict: Verdict::Failed, expectations, simulated, programs_failed: Vec::new() })
    }

    #[test]
    fn the_first_that_is_decided_is_the_cause() {
        let result = failed(vec![unmet_at(9, "late", "not within 9s"), unmet_at(5, "early", "not within 5s")]);
        assert_eq!(cause(&result).as_deref(), Some("not met: early"));
    }

    #[test]
    fn numbers_do_not_make_another_cause() {
        let with = |port: u32| {
            failed(vec![unmet_at(5, "x", &format!("not within 5s; a punch came from 198.51.100.1:{port}"))])
        };
        assert_eq!(cause(&with(1)), cause(&with(2)));
        assert_eq!(cause(&with(1)).as_deref(), Some("not met: x: a punch came from …"));
        let other = failed(vec![unmet_at(5, "x", "not within 5s; a request failed: ERR_TIMEOUT")]);
        assert_ne!(cause(&with(1)), cause(&other));
        assert_eq!(without_numbers("queue full (256 KiB), at [1:2]."), "queue full (… KiB), at […].");
    }

    #[test]
    fn what_passed_has_no_cause() {
        assert_eq!(cause(&failed(Vec::new())), None);
        assert_eq!(cause(&RunResult::Panicked("at line 7".to_owned())).as_deref(), Some("panicked: at line …"));
    }
}
