//! Events that must happen so and so often: replies, errors, punches, lookups.

use std::net::SocketAddr;

use super::condition::{Rule, Verdict};
use super::each::PerNode;
use super::facts::{Fact, Facts};
use super::{cut, quote};
use crate::scenario::model::{Each, ExpectationKind, Name, ReplyValue, Times, Way};

/// Counts the events that an expectation asks for.
#[derive(Debug)]
pub(super) struct Counting {
    kind: ExpectationKind,
    times: Times,
    seen: PerNode<u32>,
    /// What came closest, in words.
    near_miss: Option<String>,
}

/// What a fact is to an expectation.
enum Match<'a> {
    /// Nothing.
    Other,
    /// What it asks for, at this node, and in words.
    Hit(&'a Name, String),
    /// Almost that, in words.
    Near(String),
}

impl Counting {
    /// Counts for one of the kinds that happen in a moment.
    pub(super) fn new(kind: &ExpectationKind) -> Self {
        let (each, times) = match kind {
            ExpectationKind::Reply { to: each, count, .. }
            | ExpectationKind::Reached { by: each, count, .. }
            | ExpectationKind::Failed { to: each, count, .. }
            | ExpectationKind::Punched { at: each, count, .. }
            | ExpectationKind::Found { at: each, count, .. } => (each, *count),
            ExpectationKind::Percentile { .. }
            | ExpectationKind::Bytes { .. }
            | ExpectationKind::Never(_)
            | ExpectationKind::All(_)
            | ExpectationKind::Any(_) => unreachable!("these have rules of their own"),
        };
        Self { kind: kind.clone(), times, seen: PerNode::new(each), near_miss: None }
    }

    fn matches<'a>(&self, facts: &Facts, fact: &Fact<'a>) -> Match<'a> {
        match (&self.kind, fact) {
            (ExpectationKind::Reply { from, to, value, path, .. }, Fact::Reply { to: node, .. }) if is(to, node) => {
                reply(fact, from, value, *path)
            }
            (ExpectationKind::Reply { to, .. }, Fact::Failure { to: node, error, .. }) if is(to, node) => {
                Match::Near(format!("a request failed: {}", cut(error)))
            }
            (ExpectationKind::Reached { at, by, path, .. }, Fact::Reply { to: node, .. }) if is(by, node) => {
                reply(fact, at, &ReplyValue::Any, *path)
            }
            (ExpectationKind::Reached { at, by, path, .. }, Fact::Failure { to: node, from, way, error })
                if is(by, node) =>
            {
                match (from, way) {
                    (Some(from), Some(way)) if goes(at, Some(from)) && path.is_none_or(|path| path == *way) => {
                        Match::Hit(node, format!("{node} was answered by {from} with the error {}", cut(error)))
                    }
                    _ => Match::Near(format!("a request failed: {}", cut(error))),
                }
            }
            (ExpectationKind::Failed { to, error: wanted, .. }, Fact::Failure { to: node, error, .. })
                if is(to, node) =>
            {
                if error.contains(wanted.as_str()) {
                    Match::Hit(node, format!("a request of {node} failed: {}", cut(error)))
                } else {
                    Match::Near(format!("a request failed: {}", cut(error)))
                }
            }
            (ExpectationKind::Punched { at, by, .. }, Fact::Punch { at: node, from }) if is(at, node) => {
                if by.is_empty() || by.iter().any(|by| facts.addresses(by).contains(&from.ip().to_canonical())) {
                    Match::Hit(node, format!("a punch from {from} arrived at {node}"))
                } else {
                    Match::Near(format!("a punch came from {from}"))
                }
            }
            (
                ExpectationKind::Found { at, service, address, .. },
                Fact::Found { at: node, service: name, addresses },
            ) if is(at, node) && service == name => {
                let met = match address {
                    Some(address) => addresses.contains(&SocketAddr::V4(*address)),
                    None => !addresses.is_empty(),
                };
                if met {
                    Match::Hit(node, format!("{node} found {} at {}", cut(name), listed(addresses)))
                } else {
                    Match::Near(format!("the lookup found {addresses:?}"))
                }
            }
            _ => Match::Other,
        }
    }

    /// Whether a node that was seen so often by the end is as it must be.
    fn is_enough(&self, seen: u32) -> bool {
        seen >= self.times.at_least && self.times.at_most.is_none_or(|most| seen <= most)
    }
}

impl Rule for Counting {
    fn see(&mut self, facts: &Facts, fact: &Fact<'_>) -> Verdict {
        let (node, words) = match self.matches(facts, fact) {
            Match::Other => return None,
            Match::Near(words) => {
                self.near_miss = Some(words);
                return None;
            }
            Match::Hit(node, words) => (node, words),
        };
        let seen = self.seen.open(node)?;
        *seen += 1;
        let met = match self.times.at_most {
            None if *seen >= self.times.at_least => true,
            Some(most) if *seen > most => false,
            _ => return None,
        };
        let words = if met || self.times.at_most == Some(0) { words } else { format!("{words}, once too often") };
        self.seen.decide(node, met).map(|met| (met, words))
    }

    fn end(&self) -> bool {
        self.seen.end(|seen| self.is_enough(*seen))
    }

    fn standing(&self) -> String {
        let mut standing = String::new();
        let least = self.times.at_least;
        match (self.seen.only(), self.seen.all_and_needed()) {
            (Some(seen), _) if least > 1 && matches!(self.kind, ExpectationKind::Reply { .. }) => {
                standing.push_str(&format!(": {seen} of {least} replies came"));
            }
            (Some(seen), _) if least > 1 => standing.push_str(&format!(": {seen} of {least} times")),
            (Some(_), _) => {}
            (None, (all, needed)) => {
                let met = self.seen.met_at_end(|seen| self.is_enough(*seen));
                standing.push_str(&format!(": so it was for {met} of {all}, and {needed} are needed"));
                let missing = self.seen.first_unmet(|seen| self.is_enough(*seen));
                standing.push_str(&missing.map_or_else(String::new, |name| format!(" (not for {name})")));
            }
        }
        if let Some(near_miss) = &self.near_miss {
            standing.push_str("; ");
            standing.push_str(near_miss);
        }
        standing
    }
}

/// Whether a node is one of those that an expectation is about.
fn is(each: &Each, node: &Name) -> bool {
    each.names.binary_search(node).is_ok()
}

/// Whether one of `wanted` answered, where it matters.
fn goes(wanted: &[Name], answerer: Option<&Name>) -> bool {
    wanted.is_empty() || answerer.is_some_and(|answerer| wanted.contains(answerer))
}

fn reply<'a>(fact: &Fact<'a>, from: &[Name], value: &ReplyValue, path: Option<Way>) -> Match<'a> {
    let Fact::Reply { to, from: answerer, address, way, value: got } = fact else { return Match::Other };
    if !value.admits(got) {
        return Match::Near(format!("a reply was {}", quote(got)));
    }
    if !goes(from, *answerer) {
        return Match::Near(format!("{} answered", answerer.map_or("an unknown node", |name| name)));
    }
    if path.is_some_and(|path| path != *way) {
        return Match::Near(format!("a reply came by another way: {}", way.as_str()));
    }
    let answerer = answerer.map_or_else(|| address.to_string(), ToString::to_string);
    Match::Hit(to, format!("{to} got the reply {} from {answerer}, {}", quote(got), way.as_str()))
}

fn listed(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    cut(&texts.join(", "))
}
