//! The last events that matter, for the story of a failure.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::seconds;
use crate::event::{Event, LabEvent, Record};

/// How many events are kept besides dropped packets; the oldest go first.
const EVENTS: usize = 12;

/// How many dropped packets are kept; the oldest go first.
const DROPS: usize = 4;

/// How much of an event's field is shown, in characters.
const FIELD: usize = 100;

/// Keeps the last events of a run: what programs, NATs and faults did, and the last packets that were dropped.
#[derive(Debug, Default)]
pub struct Trail {
    seen: u64,
    events: VecDeque<(u64, Record)>,
    drops: VecDeque<(u64, Record)>,
}

impl Trail {
    /// Takes note of an event.
    pub fn observe(&mut self, record: &Record) {
        if record.is_sample() {
            return;
        }
        self.seen += 1;
        let (kept, limit) = match &record.event {
            // Packets that arrive are too many to tell; expectations are told besides.
            Event::Lab(
                LabEvent::PacketSent { .. }
                | LabEvent::PacketTranslated { .. }
                | LabEvent::PacketDelivered { .. }
                | LabEvent::Expectation { .. },
            ) => return,
            Event::Lab(LabEvent::PacketDropped { .. }) => (&mut self.drops, DROPS),
            Event::Lab(_) | Event::Stack(_) => (&mut self.events, EVENTS),
        };
        if kept.len() == limit {
            kept.pop_front();
        }
        kept.push_back((self.seen, record.clone()));
    }

    /// A line an event, in their order: when, where, what.
    pub fn lines(&self) -> Vec<String> {
        let mut all: Vec<_> = self.events.iter().chain(&self.drops).collect();
        all.sort_by_key(|(number, _)| *number);
        let width = all.iter().map(|(_, record)| record.at.as_deref().unwrap_or("-").len()).max().unwrap_or(0);
        all.into_iter().map(|(_, record)| line(record, width)).collect()
    }
}

fn line(record: &Record, width: usize) -> String {
    let at = seconds(Duration::from_nanos(record.at_ns));
    let place = record.at.as_deref().unwrap_or("-");
    let mut what = String::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(&record.event) {
        if let Some(Value::String(event)) = fields.get("event") {
            what.push_str(event);
        }
        for (key, value) in fields.iter().filter(|(key, value)| *key != "event" && !value.is_null()) {
            let value = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            what.push_str(&format!("  {key}: {}", cut(&value)));
        }
    }
    format!("{at:>11}  {place:<width$}  {what}")
}

/// One line of text, cut where it is long; control characters, which a peer may have sent, are shown escaped.
fn cut(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let escape = c.is_control().then(|| c.escape_default());
        escape.is_none().then_some(c).into_iter().chain(escape.into_iter().flatten())
    });
    let mut line: String = escaped.clone().take(FIELD).collect();
    if escaped.count() > FIELD {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at_ns: u64, event: LabEvent) -> Record {
        Record { at_ns, at: Some("home".into()), event: Event::Lab(event) }
    }

    #[test]
    fn the_last_events_are_kept_in_order() {
        let mut trail = Trail::default();
        for number in 0..100 {
            trail.observe(&at(number, LabEvent::PacketDelivered { packet: number }));
            let (hop, rule) = ("nat home".to_owned(), "filtered".to_owned());
            trail.observe(&at(number, LabEvent::PacketDropped { packet: number, hop, rule }));
            trail.observe(&at(number, LabEvent::NodeStarted));
        }
        let lines = trail.lines();
        assert_eq!(lines.len(), EVENTS + DROPS);
        assert_eq!(lines.iter().filter(|line| line.contains("packet-dropped")).count(), DROPS);
        assert_eq!(lines.iter().filter(|line| line.contains("packet-delivered")).count(), 0);
        assert_eq!(
            lines[lines.len() - 2],
            "    0.000 s  home  packet-dropped  hop: nat home  packet: 99  rule: filtered"
        );
    }

    #[test]
    fn what_a_peer_sent_cannot_move_the_cursor() {
        assert_eq!(cut("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert_eq!(cut(&"x".repeat(FIELD + 1)), format!("{}…", "x".repeat(FIELD)));
        assert_eq!(cut(&"x".repeat(FIELD)), "x".repeat(FIELD));
    }
}
