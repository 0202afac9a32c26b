//! What is counted and timed in a run.
//!
//! | measure | |
//! |---|---|
//! | `simulated_ns` | how long the run took, in simulated time |
//! | `met_ns: EXPECTATION` | when the expectation was met; absent where it was not |
//! | `packets_sent`, `packets_delivered`, `packets_dropped` | |
//! | `bytes_sent` | with their IP and transport headers |
//! | `dropped: HOP: RULE` | packets, by where and why; numbers in rules are left out |
//! | `punches_sent`, `requests_failed` | |

use std::collections::BTreeMap;

use grenache::event::Event as StackEvent;

use super::cause::without_numbers;
use crate::event::{Event, LabEvent, Record};
use crate::report::Outcome;

/// Measures by name. What ends in `_ns`, or has `_ns:` in its name, is nanoseconds; all else is a count.
pub type Measures = BTreeMap<String, u64>;

/// The most different hops and rules that drops are counted by; those beyond are `dropped: elsewhere`.
pub const MAX_DROP_RULES: usize = 64;

/// Counts the events of a run.
#[derive(Debug, Default)]
pub struct Counter {
    sent: u64,
    bytes: u64,
    delivered: u64,
    dropped: u64,
    drops: BTreeMap<String, u64>,
    punches: u64,
    failed: u64,
}

impl Counter {
    /// Counts an event.
    pub fn observe(&mut self, record: &Record) {
        match &record.event {
            Event::Lab(LabEvent::PacketSent { size, .. }) => {
                self.sent += 1;
                self.bytes += *size as u64;
            }
            Event::Lab(LabEvent::PacketDelivered { .. }) => self.delivered += 1,
            Event::Lab(LabEvent::PacketDropped { hop, rule, .. }) => {
                self.dropped += 1;
                let mut name = format!("{}: {}", kind(hop), without_numbers(rule));
                if self.drops.len() >= MAX_DROP_RULES && !self.drops.contains_key(&name) {
                    "elsewhere".clone_into(&mut name);
                }
                *self.drops.entry(name).or_default() += 1;
            }
            Event::Stack(StackEvent::PunchSent { .. }) => self.punches += 1,
            Event::Stack(StackEvent::RequestFailed { .. }) => self.failed += 1,
            _ => {}
        }
    }

    /// All measures of a run that came to `outcome`.
    pub fn measures(self, outcome: Option<&Outcome>) -> Measures {
        let mut measures = Measures::from([
            ("packets_sent".to_owned(), self.sent),
            ("packets_delivered".to_owned(), self.delivered),
            ("packets_dropped".to_owned(), self.dropped),
            ("bytes_sent".to_owned(), self.bytes),
            ("punches_sent".to_owned(), self.punches),
            ("requests_failed".to_owned(), self.failed),
        ]);
        measures.extend(self.drops.into_iter().map(|(name, count)| (format!("dropped: {name}"), count)));
        if let Some(outcome) = outcome {
            let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            measures.insert("simulated_ns".to_owned(), nanos(outcome.simulated));
            for expectation in outcome.expectations.iter().filter(|expectation| expectation.met) {
                measures.insert(format!("met_ns: {}", expectation.text), nanos(expectation.decided_at));
            }
        }
        measures
    }
}

/// A hop without whose it is: links of one kind are counted together, and so are hosts.
fn kind(hop: &str) -> &str {
    if hop.starts_with("link of ") {
        return "link";
    }
    if hop.starts_with("host ") {
        return "host";
    }
    hop.split(" of ").next().unwrap_or(hop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop(hop: &str, rule: &str) -> Record {
        let event = LabEvent::PacketDropped { packet: 1, hop: hop.to_owned(), rule: rule.to_owned() };
        Record { at_ns: 0, at: None, event: Event::Lab(event) }
    }

    #[test]
    fn drops_are_counted_by_hop_and_rule() {
        let mut counter = Counter::default();
        for port in 1..=9 {
            counter.observe(&drop("nat home", &format!("no mapping for port {port}")));
            counter.observe(&drop(&format!("link dsl of host{port}, up"), "random loss of 2%"));
            counter.observe(&drop(&format!("host h{port}"), "no socket on port 3"));
        }
        let measures = counter.measures(None);
        assert_eq!(measures["dropped: nat home: no mapping for port …"], 9);
        assert_eq!(measures["dropped: link dsl: random loss of …"], 9);
        assert_eq!(measures["dropped: host: no socket on port …"], 9);
        assert_eq!(measures["packets_dropped"], 27);
    }

    #[test]
    fn rules_without_end_are_counted_together() {
        let mut counter = Counter::default();
        for rule in 0..1000 {
            // Letters, so that they are different rules.
            let letters: String = rule.to_string().chars().map(|c| (b'a' + c as u8 - b'0') as char).collect();
            counter.observe(&drop("internet", &letters));
        }
        let measures = counter.measures(None);
        assert_eq!(measures["dropped: elsewhere"], 1000 - MAX_DROP_RULES as u64);
    }
}
