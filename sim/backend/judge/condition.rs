//! One expectation, or a part of one: decided by a fact, or by the end of its time.

use std::time::Duration;

use super::bytes::Bytes;
use super::counting::Counting;
use super::facts::{Fact, Facts};
use super::percentile::Percentiles;
use crate::scenario::model::{ExpectationKind, Part};

/// Whether something is so, and what decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) met: bool,
    /// In words: an event, or that its time was up.
    pub(super) by: String,
    /// When.
    at: Duration,
    /// Whether it was an event.
    by_fact: bool,
}

/// Whether a fact decided a rule: met or not, and the fact in words.
pub(super) type Verdict = Option<(bool, String)>;

/// What becomes of one kind of expectation.
pub(super) trait Rule: std::fmt::Debug + Send {
    /// Takes note of a fact; whether it is met or not, where that is decided by it.
    fn see(&mut self, facts: &Facts, fact: &Fact<'_>) -> Verdict;
    /// Whether it is met at the end of its time.
    fn end(&self) -> bool;
    /// How it stands, in words that follow `not within 5s`; may be empty.
    fn standing(&self) -> String;
}

/// A condition with its time.
#[derive(Debug)]
pub(super) struct Condition {
    after: Duration,
    within: Duration,
    decided: Option<Decision>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Rule(Box<dyn Rule>),
    Never(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

impl Condition {
    pub(super) fn new(kind: &ExpectationKind, after: Duration, within: Duration) -> Self {
        let parts = |parts: &[Part]| parts.iter().map(Self::part).collect();
        let body = match kind {
            ExpectationKind::Never(part) => Body::Never(Box::new(Self::part(part))),
            ExpectationKind::All(all) => Body::All(parts(all)),
            ExpectationKind::Any(any) => Body::Any(parts(any)),
            ExpectationKind::Bytes { through, at_least, at_most } => {
                Body::Rule(Box::new(Bytes::new(through, *at_least, *at_most)))
            }
            ExpectationKind::Percentile { of, to, requests, limits } => {
                Body::Rule(Box::new(Percentiles::new(*of, to, *requests, limits)))
            }
            ExpectationKind::Reply { .. }
            | ExpectationKind::Reached { .. }
            | ExpectationKind::Failed { .. }
            | ExpectationKind::Punched { .. }
            | ExpectationKind::Found { .. } => Body::Rule(Box::new(Counting::new(kind))),
        };
        Self { after, within, decided: None, body }
    }

    fn part(part: &Part) -> Self {
        Self::new(&part.kind, part.after, part.within)
    }

    /// What decided it, where it is.
    pub(super) fn decided(&self) -> Option<&Decision> {
        self.decided.as_ref()
    }

    /// Takes note of a fact.
    pub(super) fn see(&mut self, now: Duration, facts: &Facts, fact: &Fact<'_>) {
        if self.decided.is_some() {
            return;
        }
        match &mut self.body {
            Body::Rule(rule) => {
                if self.after <= now && now <= self.within {
                    let decided = rule.see(facts, fact);
                    self.decided = decided.map(|(met, by)| Decision { met, by, at: now, by_fact: true });
                }
            }
            Body::Never(part) => part.see(now, facts, fact),
            Body::All(parts) | Body::Any(parts) => parts.iter_mut().for_each(|part| part.see(now, facts, fact)),
        }
        self.settle();
    }

    /// Decides what must be decided by now.
    pub(super) fn expire(&mut self, now: Duration) {
        if self.decided.is_some() {
            return;
        }
        match &mut self.body {
            Body::Rule(rule) => {
                if self.within <= now {
                    let met = rule.end();
                    let by = format!("its time was up at {:?}", self.within);
                    self.decided = Some(Decision { met, by, at: self.within, by_fact: false });
                }
            }
            Body::Never(part) => part.expire(now),
            Body::All(parts) | Body::Any(parts) => parts.iter_mut().for_each(|part| part.expire(now)),
        }
        self.settle();
    }

    /// The next time at which [`expire`](Self::expire) decides something.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        if self.decided.is_some() {
            return None;
        }
        match &self.body {
            Body::Rule(_) => Some(self.within),
            Body::Never(part) => part.next_deadline(),
            Body::All(parts) | Body::Any(parts) => parts.iter().filter_map(Self::next_deadline).min(),
        }
    }

    /// Why it is not met.
    pub(super) fn why(&self) -> String {
        let Some(decision) = &self.decided else { return String::new() };
        match &self.body {
            Body::Rule(_) if decision.by_fact => decision.by.clone(),
            Body::Rule(rule) => format!("not within {:?}{}", self.within, rule.standing()),
            Body::Never(_) if decision.by_fact => format!("it happened: {}", decision.by),
            Body::Never(_) => format!("it was so all the time: {}", decision.by),
            Body::All(parts) => {
                let broken = parts.iter().find(|part| part.decided.as_ref().is_some_and(|decision| !decision.met));
                broken.map_or_else(|| decision.by.clone(), Self::why)
            }
            Body::Any(parts) => parts.iter().map(Self::why).collect::<Vec<_>>().join("; "),
        }
    }

    /// Decides a combination of which enough parts are decided.
    fn settle(&mut self) {
        let decided = match &self.body {
            Body::Rule(_) => return,
            Body::Never(part) => part.decided.clone().map(|decision| Decision { met: !decision.met, ..decision }),
            Body::All(parts) => settled(parts, false),
            Body::Any(parts) => settled(parts, true),
        };
        self.decided = decided;
    }
}

/// What parts come to: one that is `enough` decides the whole, else all of them do, with the last to be decided.
fn settled(parts: &[Condition], enough: bool) -> Option<Decision> {
    let decided = || parts.iter().filter_map(Condition::decided);
    if let Some(one) = decided().filter(|decision| decision.met == enough).min_by_key(|decision| decision.at) {
        return Some(one.clone());
    }
    let all = decided().count() == parts.len();
    decided().max_by_key(|decision| decision.at).filter(|_| all).cloned()
}
