//! Two runs of the same at once, compared event by event: neither is held in memory.
//!
//! The first run, on a thread of its own, sends its events ahead in batches; the second compares each of its own with the
//! next one. So it is exactly the first differing event that is found, where it happens, though neither run could be
//! repeated: what is not deterministic differs otherwise the next time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::events::encode;
use crate::event::Record;

/// How many bytes of events the first run sends at once.
const BATCH: usize = 64 << 10;

/// How many batches may wait: the first run gets no further ahead.
const BATCHES: usize = 4;

/// How many events of both runs are told before the first that differs.
pub const CONTEXT: usize = 5;

/// How many events of each run are told from the first that differs on.
pub const SHOWN: usize = 3;

/// Where two runs of the same file and seed part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The number of the first event that differs, from 1: its line in `events.jsonl`.
    pub event: usize,
    /// The events before it, at most [`CONTEXT`], which both runs have.
    pub before: Vec<String>,
    /// The first run's events from there on, at most [`SHOWN`]; where it ended, how.
    pub first: Vec<String>,
    /// The second run's.
    pub second: Vec<String>,
}

/// What the first run sends.
enum Message {
    /// Whole lines.
    Events(Vec<u8>),
    /// How it ended.
    End(String),
}

/// Takes the events of the first run.
#[derive(Debug)]
pub struct Ahead {
    sender: SyncSender<Message>,
    batch: Vec<u8>,
    line: Vec<u8>,
}

impl Ahead {
    /// Takes the next event. Waits where the second run is too far behind.
    pub fn observe(&mut self, record: &Record) {
        encode(record, &mut self.line);
        self.batch.extend_from_slice(&self.line);
        if self.batch.len() >= BATCH {
            self.send();
        }
    }

    fn send(&mut self) {
        // Once there is a difference, nobody listens.
        let _ = self.sender.send(Message::Events(std::mem::take(&mut self.batch)));
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.send();
    }
}

/// Compares the events of the second run with those of the first. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Behind(Rc<RefCell<Comparison>>);

impl Behind {
    /// Compares the next event. Waits where the first run has not come so far.
    pub fn observe(&self, record: &Record) {
        self.0.borrow_mut().observe(record);
    }
}

#[derive(Debug)]
struct Comparison {
    /// `None` once nothing is compared any more.
    ahead: Option<Receiver<Message>>,
    batch: Vec<u8>,
    read: usize,
    /// How the first run ended, once it has.
    end: Option<String>,
    events: usize,
    line: Vec<u8>,
    before: VecDeque<Vec<u8>>,
    difference: Option<Difference>,
}

impl Comparison {
    fn observe(&mut self, record: &Record) {
        if let Some(difference) = &mut self.difference {
            if difference.second.len() < SHOWN {
                encode(record, &mut self.line);
                difference.second.push(text(&self.line));
            }
            return;
        }
        self.events += 1;
        encode(record, &mut self.line);
        let line = std::mem::take(&mut self.line);
        let same = self.peek().is_some_and(|expected| expected == line);
        if same {
            self.read += line.len();
            // The oldest one's memory is used again.
            let mut kept =
                if self.before.len() == CONTEXT { self.before.pop_front() } else { None }.unwrap_or_default();
            kept.clone_from(&line);
            self.before.push_back(kept);
        } else {
            self.part(text(&line));
        }
        self.line = line;
    }

    /// The next line of the first run; `None` where it has ended.
    fn peek(&mut self) -> Option<&[u8]> {
        while self.read == self.batch.len() && self.end.is_none() {
            match self.ahead.as_ref().map(Receiver::recv) {
                Some(Ok(Message::Events(batch))) => (self.batch, self.read) = (batch, 0),
                Some(Ok(Message::End(end))) => self.end = Some(end),
                Some(Err(_)) | None => self.end = Some("the run was given up".to_owned()),
            }
        }
        let rest = &self.batch[self.read..];
        let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |newline| newline + 1);
        (length > 0).then(|| &rest[..length])
    }

    /// From here on the second run's events are others; this is the first of them, or its end.
    fn part(&mut self, second: String) {
        let mut first = Vec::new();
        while first.len() < SHOWN {
            let Some(line) = self.peek() else { break };
            let (length, line) = (line.len(), text(line));
            self.read += length;
            first.push(line);
        }
        if first.len() < SHOWN {
            first.extend(self.end.clone());
        }
        let before = self.before.iter().map(|line| text(line)).collect();
        self.difference = Some(Difference { event: self.events, before, first, second: vec![second] });
        // The first run need not wait for this one any more.
        self.ahead = None;
    }

    fn finish(&mut self, end: String) -> Option<Difference> {
        match &mut self.difference {
            Some(difference) if difference.second.len() < SHOWN => difference.second.push(end),
            Some(_) => {}
            None => {
                let more = self.peek().is_some();
                if more || self.end.as_ref() != Some(&end) {
                    self.events += 1;
                    self.part(end);
                }
            }
        }
        self.ahead = None;
        self.difference.take()
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

/// Runs `first` on another thread and `second` on this one, and compares what they observe. `end` says in words how a
/// run ended, which is compared too. Gives what both came to, and where they part.
///
/// Neither may wait for the other but by observing.
pub fn lockstep<A: Send, B>(
    first: impl FnOnce(Ahead) -> A + Send,
    second: impl FnOnce(Behind) -> B,
    end_of_first: impl Fn(&A) -> String + Send,
    end_of_second: impl Fn(&B) -> String,
) -> (A, B, Option<Difference>) {
    let (sender, receiver) = sync_channel(BATCHES);
    thread::scope(|scope| {
        let ahead = scope.spawn(move || {
            let last = sender.clone();
            let result = first(Ahead { sender, batch: Vec::new(), line: Vec::new() });
            let _ = last.send(Message::End(end_of_first(&result)));
            result
        });
        let behind = Behind(Rc::new(RefCell::new(Comparison {
            ahead: Some(receiver),
            batch: Vec::new(),
            read: 0,
            end: None,
            events: 0,
            line: Vec::new(),
            before: VecDeque::new(),
            difference: None,
        })));
        let second = second(behind.clone());
        let difference = behind.0.borrow_mut().finish(end_of_second(&second));
        match ahead.join() {
            Ok(first) => (first, second, difference),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, LabEvent};

    fn record(at_ns: u64) -> Record {
        Record { at_ns, at: Some("server".into()), event: Event::Lab(LabEvent::NodeStarted) }
    }

    fn compare(first: &[u64], second: &[u64]) -> Option<Difference> {
        let play = |mut ahead: Ahead| first.iter().for_each(|at| ahead.observe(&record(*at)));
        let replay = |behind: Behind| second.iter().for_each(|at| behind.observe(&record(*at)));
        lockstep(play, replay, |()| "ended".to_owned(), |()| "ended".to_owned()).2
    }

    fn times(lines: &[String]) -> Vec<u64> {
        let at = |line: &String| serde_json::from_str::<serde_json::Value>(line).ok()?["at_ns"].as_u64();
        lines.iter().filter_map(at).collect()
    }

    #[test]
    fn equal_runs_have_no_difference() {
        assert_eq!(compare(&[], &[]), None);
        assert_eq!(compare(&[1, 2, 3], &[1, 2, 3]), None);
        let many: Vec<u64> = (0..50_000).collect();
        assert_eq!(compare(&many, &many), None, "more than may wait");
    }

    #[test]
    fn the_first_difference_is_told_with_what_was_before() {
        let mut first: Vec<u64> = (1..=100_000).collect();
        let mut second = first.clone();
        second[54_320] = 7;
        second[70_000] = 8;
        let differ = compare(&first, &second).expect("they differ");
        assert_eq!(differ.event, 54_321);
        assert_eq!(times(&differ.before), [54_316, 54_317, 54_318, 54_319, 54_320]);
        assert_eq!(times(&differ.first), [54_321, 54_322, 54_323]);
        assert_eq!(times(&differ.second), [7, 54_322, 54_323]);
        first[54_320] = 7;
        assert_eq!(compare(&first, &second).expect("they differ").event, 70_001);
    }

    #[test]
    fn a_run_that_ends_early_differs() {
        let shorter = compare(&[1, 2], &[1]).expect("they differ");
        assert_eq!((shorter.event, times(&shorter.first), shorter.second), (2, vec![2], vec!["ended".to_owned()]));
        let longer = compare(&[1], &[1, 2]).expect("they differ");
        assert_eq!((longer.event, longer.first, times(&longer.second)), (2, vec!["ended".to_owned()], vec![2]));
    }

    #[test]
    fn runs_that_end_otherwise_differ() {
        let end = |text: &'static str| move |(): &()| text.to_owned();
        let (.., differ) = lockstep(|_| (), |_| (), end("passed"), end("failed"));
        let differ = differ.expect("they differ");
        assert_eq!(
            (differ.event, differ.first, differ.second),
            (1, vec!["passed".to_owned()], vec!["failed".to_owned()])
        );
    }
}
