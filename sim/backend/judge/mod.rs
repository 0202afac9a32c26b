//! Decides a scenario's expectations from the event stream.
//!
//! | module | what it does |
//! |---|---|
//! | [`facts`] | what events mean: who answered, by which way, how long it took |
//! | [`condition`] | an expectation's time, and combinations of several |
//! | [`counting`], [`percentile`], [`bytes`] | the kinds of expectations |
//! | [`each`] | several nodes, each judged on its own |

use std::time::Duration;

use serde_json::Value;

use crate::event::{Event, LabEvent, Record};
use crate::report::ExpectationOutcome;
use crate::scenario::model::{Expectation, ExpectationKind, Part, Scenario};

mod bytes;
mod condition;
mod counting;
mod each;
mod facts;
mod percentile;

use condition::Condition;
use facts::Facts;

/// How much of a value or an error is quoted in a reason, in characters.
const QUOTED: usize = 120;

/// Watches a run and decides its expectations.
#[derive(Debug)]
pub(super) struct Judge {
    open: Vec<Open>,
    /// In the order in which they were decided, with their places in the file.
    outcomes: Vec<(usize, ExpectationOutcome)>,
    /// How many of these were told.
    told: usize,
    programs_failed: Vec<String>,
    facts: Facts,
}

/// An expectation that is not decided yet.
#[derive(Debug)]
struct Open {
    place: usize,
    expectation: Expectation,
    condition: Condition,
}

impl Judge {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let open = scenario.expectations.iter().enumerate().map(|(place, expectation)| {
            let condition = Condition::new(&expectation.kind, expectation.after, expectation.within);
            Open { place, expectation: expectation.clone(), condition }
        });
        let counts_bytes = scenario.expectations.iter().any(|expectation| counts_bytes(&expectation.kind));
        Self {
            open: open.collect(),
            outcomes: Vec::new(),
            told: 0,
            programs_failed: Vec::new(),
            facts: Facts::new(scenario, counts_bytes),
        }
    }

    /// Takes note of an event; true where it decided an expectation.
    pub(super) fn observe(&mut self, record: &Record) -> bool {
        if let Event::Lab(LabEvent::ProgramFailed { program, error }) = &record.event {
            let node = record.at.as_deref().unwrap_or("?");
            self.programs_failed.push(format!("{program} on {node}: {error}"));
        }
        let now = Duration::from_nanos(record.at_ns);
        let open = &mut self.open;
        self.facts.tell(record, &mut |facts, fact| {
            open.iter_mut().for_each(|open| open.condition.see(now, facts, fact));
        });
        self.collect(now)
    }

    /// Decides what was not decided in its time.
    pub(super) fn expire(&mut self, now: Duration) {
        self.open.iter_mut().for_each(|open| open.condition.expire(now));
        self.collect(now);
    }

    /// When the next expectation expires.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.open.iter().filter_map(|open| open.condition.next_deadline()).min()
    }

    /// The next decision that was not taken yet.
    pub(super) fn next_decision(&mut self) -> Option<ExpectationOutcome> {
        let next = self.outcomes.get(self.told).map(|(_, outcome)| outcome.clone());
        self.told += usize::from(next.is_some());
        next
    }

    /// Whether every expectation is decided.
    pub(super) fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// The outcomes in the file's order, and what programs failed.
    pub(super) fn finish(&mut self) -> (Vec<ExpectationOutcome>, Vec<String>) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        outcomes.sort_by_key(|(place, _)| *place);
        (outcomes.into_iter().map(|(_, outcome)| outcome).collect(), std::mem::take(&mut self.programs_failed))
    }

    /// Takes those out that are decided; true where there were any.
    fn collect(&mut self, decided_at: Duration) -> bool {
        if self.open.iter().all(|open| open.condition.decided().is_none()) {
            return false;
        }
        for Open { place, expectation, condition } in std::mem::take(&mut self.open) {
            let Some(decision) = condition.decided() else {
                self.open.push(Open { place, expectation, condition });
                continue;
            };
            let outcome = ExpectationOutcome {
                text: expectation.text,
                line: expectation.line,
                file: expectation.file,
                met: decision.met,
                reason: (!decision.met).then(|| condition.why()),
                decided_at,
                decided_by: decision.by.clone(),
            };
            self.outcomes.push((place, outcome));
        }
        true
    }
}

/// Whether bytes are asked for, be it in a part.
pub(super) fn counts_bytes(kind: &ExpectationKind) -> bool {
    let any = |parts: &[Part]| parts.iter().any(|part| counts_bytes(&part.kind));
    match kind {
        ExpectationKind::Bytes { .. } => true,
        ExpectationKind::Never(part) => counts_bytes(&part.kind),
        ExpectationKind::All(parts) | ExpectationKind::Any(parts) => any(parts),
        _ => false,
    }
}

fn quote(value: &Value) -> String {
    cut(&value.to_string())
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
