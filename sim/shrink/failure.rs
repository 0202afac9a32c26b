//! Whether a run fails in the same way.

use crate::report::RunResult;
use crate::sweep::cause::{cause, first_unmet, unmet};

/// How the original fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// An expectation is not met.
    Unmet {
        /// Which one, by its words.
        text: String,
        /// Those, and why.
        cause: String,
    },
    /// It panics, or a program fails.
    Other {
        /// Why.
        cause: String,
    },
}

impl Failure {
    /// How a run failed; `None` where it passed.
    pub(super) fn of(result: &RunResult) -> Option<Self> {
        if let RunResult::Done(outcome) = result
            && outcome.programs_failed.is_empty()
        {
            let expectation = first_unmet(outcome)?;
            return Some(Self::Unmet { text: expectation.text.clone(), cause: unmet(expectation) });
        }
        cause(result).map(|cause| Self::Other { cause })
    }

    /// Why, in words.
    pub(super) fn cause(&self) -> &str {
        match self {
            Self::Unmet { cause, .. } | Self::Other { cause } => cause,
        }
    }

    /// The expectation that is not met.
    pub(super) fn expectation(&self) -> Option<&str> {
        match self {
            Self::Unmet { text, .. } => Some(text),
            Self::Other { .. } => None,
        }
    }

    /// Whether another run fails like this.
    pub(super) fn is(&self, result: &RunResult) -> bool {
        match (self, result) {
            (Self::Unmet { cause, .. }, RunResult::Done(outcome)) => {
                let same = outcome.expectations.iter().any(|other| !other.met && unmet(other) == *cause);
                same && outcome.programs_failed.is_empty()
            }
            (Self::Unmet { .. }, _) => false,
            (Self::Other { cause: expected }, _) => cause(result).as_ref() == Some(expected),
        }
    }

    /// Whether another run does what this one should have done.
    pub(super) fn is_mended(&self, result: &RunResult) -> bool {
        match (self, result) {
            (Self::Unmet { text, .. }, RunResult::Done(outcome)) => {
                outcome.expectations.iter().any(|expectation| expectation.met && expectation.text == *text)
            }
            (Self::Unmet { .. }, _) => false,
            (Self::Other { .. }, RunResult::Done(outcome)) => outcome.programs_failed.is_empty(),
            (Self::Other { .. }, _) => false,
        }
    }
}
