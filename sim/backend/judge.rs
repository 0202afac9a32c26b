//! Decides a scenario's expectations from the event stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use grenache::event::Event as StackEvent;
use serde_json::Value;

use crate::event::{Event, LabEvent, Record};
use crate::report::ExpectationOutcome;
use crate::scenario::model::{Expectation, ExpectationKind, Name, ProgramKind, Scenario};

/// How many requests are remembered to tell which node answered them; the oldest are forgotten first.
const REMEMBERED_REQUESTS: usize = 65_536;

/// How much of a value or an error is quoted in a reason, in characters.
const QUOTED: usize = 120;

/// Watches a run and decides its expectations.
#[derive(Debug)]
pub(super) struct Judge {
    open: Vec<Open>,
    /// In the order in which they were decided.
    outcomes: Vec<ExpectationOutcome>,
    /// How many of these were told.
    told: usize,
    programs_failed: Vec<String>,
    /// Which node answered a request, by its id.
    answered_by: BTreeMap<String, Name>,
    answers: VecDeque<String>,
    /// The public addresses that a node's packets can come from.
    addresses: BTreeMap<Name, Vec<IpAddr>>,
    /// What the clients on a node ask for: their requests to a broker are not meant.
    services: BTreeMap<Name, BTreeSet<String>>,
}

/// An expectation that is not decided yet.
#[derive(Debug)]
struct Open {
    expectation: Expectation,
    /// How often it was seen so far.
    seen: u32,
    /// What came closest, in words.
    near_miss: Option<String>,
}

impl Judge {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let open = scenario
            .expectations
            .iter()
            .map(|expectation| Open { expectation: expectation.clone(), seen: 0, near_miss: None })
            .collect();
        let addresses = scenario.nodes.keys().map(|name| (name.clone(), seen_from(scenario, name))).collect();
        let mut services: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for program in &scenario.programs {
            if let ProgramKind::Client(client) = &program.kind {
                services.entry(program.node.clone()).or_default().insert(client.service.clone());
            }
        }
        Self {
            services,
            open,
            outcomes: Vec::new(),
            told: 0,
            programs_failed: Vec::new(),
            answered_by: BTreeMap::new(),
            answers: VecDeque::new(),
            addresses,
        }
    }

    /// Takes note of an event; true where it decided an expectation.
    pub(super) fn observe(&mut self, record: &Record) -> bool {
        if let Event::Lab(LabEvent::ProgramFailed { program, error }) = &record.event {
            let node = record.at.as_deref().unwrap_or("?");
            self.programs_failed.push(format!("{program} on {node}: {error}"));
        }
        let (Event::Stack(event), Some(at)) = (&record.event, &record.at) else { return false };
        if let StackEvent::ReplySent { rid, .. } = event {
            self.remember(rid, at);
        }
        if let StackEvent::ReplyReceived { key, .. } | StackEvent::RequestFailed { key, .. } = event
            && !self.services.get(at).is_some_and(|services| services.contains(key))
        {
            return false;
        }
        let now = Duration::from_nanos(record.at_ns);
        let mut index = 0;
        let mut any = false;
        while let Some(open) = self.open.get_mut(index) {
            if now <= open.expectation.within && open.sees(at, event, &self.answered_by, &self.addresses) {
                let open = self.open.remove(index);
                self.decide(open.expectation, true, None, now);
                any = true;
            } else {
                index += 1;
            }
        }
        any
    }

    /// Decides what was not met in time.
    pub(super) fn expire(&mut self, now: Duration) {
        let (expired, open) =
            std::mem::take(&mut self.open).into_iter().partition::<Vec<_>, _>(|open| open.expectation.within <= now);
        self.open = open;
        for open in expired {
            let reason = open.why();
            self.decide(open.expectation, false, Some(reason), now);
        }
    }

    /// When the next expectation expires.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.open.iter().map(|open| open.expectation.within).min()
    }

    /// The next decision that was not taken yet.
    pub(super) fn next_decision(&mut self) -> Option<ExpectationOutcome> {
        let next = self.outcomes.get(self.told).cloned();
        self.told += usize::from(next.is_some());
        next
    }

    /// Whether every expectation is decided.
    pub(super) fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// The outcomes in the file's order, and what programs failed.
    pub(super) fn finish(&mut self) -> (Vec<ExpectationOutcome>, Vec<String>) {
        self.outcomes.sort_by_key(|outcome| outcome.line);
        (std::mem::take(&mut self.outcomes), std::mem::take(&mut self.programs_failed))
    }

    fn decide(&mut self, expectation: Expectation, met: bool, reason: Option<String>, decided_at: Duration) {
        let outcome = ExpectationOutcome { text: expectation.text, line: expectation.line, met, reason, decided_at };
        self.outcomes.push(outcome);
    }

    fn remember(&mut self, rid: &str, node: &Name) {
        if self.answers.len() == REMEMBERED_REQUESTS
            && let Some(oldest) = self.answers.pop_front()
        {
            self.answered_by.remove(&oldest);
        }
        if self.answered_by.insert(rid.to_owned(), node.clone()).is_none() {
            self.answers.push_back(rid.to_owned());
        }
    }
}

impl Open {
    /// Takes note of an event at a node; true where the expectation is now met.
    fn sees(
        &mut self,
        node: &Name,
        event: &StackEvent,
        answered_by: &BTreeMap<String, Name>,
        addresses: &BTreeMap<Name, Vec<IpAddr>>,
    ) -> bool {
        match (&self.expectation.kind, event) {
            (ExpectationKind::Reply { from, to, value, count }, StackEvent::ReplyReceived { rid, value: got, .. })
                if to == node =>
            {
                let answerer = answered_by.get(rid);
                if got != value {
                    self.near_miss = Some(format!("a reply was {}", quote(got)));
                } else if from.is_some() && from.as_ref() != answerer {
                    self.near_miss = Some(format!("{} answered", answerer.map_or("an unknown node", |name| name)));
                } else {
                    self.seen += 1;
                    return self.seen >= *count;
                }
                false
            }
            (ExpectationKind::Reply { to, .. }, StackEvent::RequestFailed { error, .. }) if to == node => {
                self.near_miss = Some(format!("a request failed: {}", cut(error)));
                false
            }
            (ExpectationKind::Failed { to, error }, StackEvent::RequestFailed { error: got, .. }) if to == node => {
                if !got.contains(error.as_str()) {
                    self.near_miss = Some(format!("a request failed: {}", cut(got)));
                }
                got.contains(error.as_str())
            }
            (ExpectationKind::Punched { at, by }, StackEvent::Punched { from }) if at == node => {
                let met = by
                    .as_ref()
                    .is_none_or(|by| addresses.get(by).is_some_and(|all| all.contains(&from.ip().to_canonical())));
                if !met {
                    self.near_miss = Some(format!("a punch came from {from}"));
                }
                met
            }
            (ExpectationKind::Found { at, service, address }, StackEvent::LookedUp { name, addresses: found })
                if at == node && service == name =>
            {
                let met = match address {
                    Some(address) => found.contains(&SocketAddr::V4(*address)),
                    None => !found.is_empty(),
                };
                if !met {
                    self.near_miss = Some(format!("the lookup found {found:?}"));
                }
                met
            }
            _ => false,
        }
    }

    /// Why it is not met.
    fn why(&self) -> String {
        let mut why = format!("not within {:?}", self.expectation.within);
        if let ExpectationKind::Reply { count, .. } = self.expectation.kind
            && count > 1
        {
            why.push_str(&format!(": {} of {count} replies came", self.seen));
        }
        if let Some(near_miss) = &self.near_miss {
            why.push_str("; ");
            why.push_str(near_miss);
        }
        why
    }
}

/// The addresses that a node's packets can come from: its own, and those of the NATs that it is behind.
fn seen_from(scenario: &Scenario, node: &Name) -> Vec<IpAddr> {
    let Some(node) = scenario.nodes.get(node) else { return Vec::new() };
    let mut addresses = vec![IpAddr::V4(node.address)];
    addresses.extend(node.address6.map(IpAddr::V6));
    let mut behind = node.behind.as_ref();
    while let Some(nat) = behind.and_then(|name| scenario.nats.get(name)) {
        addresses.push(IpAddr::V4(nat.address));
        behind = nat.behind.as_ref();
    }
    addresses
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
