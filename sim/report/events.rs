//! `events.jsonl`: each event of a run as a line of JSON, and the comparison of two such logs.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::event::Record;

/// Writes events, one a line. The same records give the same bytes.
///
/// The first error stops the writing; [`finish`](Self::finish) tells it.
#[derive(Debug)]
pub struct EventLog<W: Write> {
    out: BufWriter<W>,
    line: Vec<u8>,
    error: Option<io::Error>,
}

impl EventLog<File> {
    /// Creates `folder/NAME-SEED/events.jsonl`, in place of one that is there.
    ///
    /// # Errors
    /// Where the folders or the file cannot be made.
    pub fn create(folder: &Path, name: &str, seed: u64) -> io::Result<Self> {
        let path = Self::path(folder, name, seed);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(Self::new(File::create(path)?))
    }

    /// Where [`create`](Self::create) puts the log of a run.
    pub fn path(folder: &Path, name: &str, seed: u64) -> PathBuf {
        folder.join(format!("{name}-{seed}")).join("events.jsonl")
    }
}

impl<W: Write> EventLog<W> {
    /// A log that goes to `out`.
    pub fn new(out: W) -> Self {
        Self { out: BufWriter::new(out), line: Vec::new(), error: None }
    }

    /// Writes an event; samples are left out.
    pub fn write(&mut self, record: &Record) {
        if self.error.is_some() || record.is_sample() {
            return;
        }
        encode(record, &mut self.line);
        self.error = self.out.write_all(&self.line).err();
    }

    /// Writes out what is buffered and gives the destination back.
    ///
    /// # Errors
    /// The first error of any write.
    pub fn finish(mut self) -> io::Result<W> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.out.into_inner().map_err(io::IntoInnerError::into_error),
        }
    }
}

/// A record as a line of JSON, with its newline.
fn encode(record: &Record, line: &mut Vec<u8>) {
    line.clear();
    serde_json::to_writer(&mut *line, record).expect("records are plain data, which JSON can hold");
    line.push(b'\n');
}

/// Compares the events of a run with the log of an earlier run, as they happen.
#[derive(Debug)]
pub struct Comparison {
    earlier: Vec<u8>,
    read: usize,
    events: usize,
    line: Vec<u8>,
    difference: Option<Difference>,
}

/// Where two runs of the same file and seed part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The number of the first event that differs, from 1: its line in `events.jsonl`.
    pub event: usize,
    /// The first run's line; `None` where it has ended.
    pub first: Option<String>,
    /// The second run's line; `None` where it has ended.
    pub second: Option<String>,
}

impl Comparison {
    /// Compares with `earlier`, the bytes of an event log.
    pub fn new(earlier: Vec<u8>) -> Self {
        Self { earlier, read: 0, events: 0, line: Vec::new(), difference: None }
    }

    /// Compares the next event.
    pub fn observe(&mut self, record: &Record) {
        if self.difference.is_some() || record.is_sample() {
            return;
        }
        self.events += 1;
        encode(record, &mut self.line);
        let expected = self.next_line();
        if expected != self.line {
            self.difference = Some(Difference { event: self.events, first: text(expected), second: text(&self.line) });
        }
        self.read += expected_len(&self.earlier[self.read..]);
    }

    /// Where the runs part; `None` where they are the same to the end.
    pub fn finish(self) -> Option<Difference> {
        let rest = text(self.next_line());
        self.difference
            .or_else(|| rest.map(|line| Difference { event: self.events + 1, first: Some(line), second: None }))
    }

    fn next_line(&self) -> &[u8] {
        let rest = &self.earlier[self.read..];
        &rest[..expected_len(rest)]
    }
}

/// The length of the first line, with its newline.
fn expected_len(rest: &[u8]) -> usize {
    rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |newline| newline + 1)
}

fn text(line: &[u8]) -> Option<String> {
    if line.is_empty() { None } else { Some(String::from_utf8_lossy(line).trim_end().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, LabEvent};

    fn record(at_ns: u64) -> Record {
        Record { at_ns, at: Some("server".into()), event: Event::Lab(LabEvent::NodeStarted) }
    }

    fn log(times: &[u64]) -> Vec<u8> {
        let mut log = EventLog::new(Vec::new());
        for at in times {
            log.write(&record(*at));
        }
        log.finish().expect("a Vec takes all")
    }

    fn compare(first: &[u64], second: &[u64]) -> Option<Difference> {
        let mut comparison = Comparison::new(log(first));
        for at in second {
            comparison.observe(&record(*at));
        }
        comparison.finish()
    }

    #[test]
    fn an_event_is_a_line_of_json() {
        let text = String::from_utf8(log(&[0, 1_500_000_000])).expect("JSON is UTF-8");
        assert_eq!(
            text,
            "{\"at_ns\":0,\"at\":\"server\",\"event\":\"node-started\"}\n\
             {\"at_ns\":1500000000,\"at\":\"server\",\"event\":\"node-started\"}\n"
        );
    }

    #[test]
    fn equal_runs_have_no_difference() {
        assert_eq!(compare(&[], &[]), None);
        assert_eq!(compare(&[1, 2, 3], &[1, 2, 3]), None);
    }

    #[test]
    fn the_first_difference_is_told() {
        let differ = compare(&[1, 2, 3], &[1, 7, 8]).expect("they differ");
        assert_eq!(differ.event, 2);
        assert!(differ.first.is_some_and(|line| line.contains("\"at_ns\":2,")));
        assert!(differ.second.is_some_and(|line| line.contains("\"at_ns\":7,")));
    }

    #[test]
    fn a_run_that_ends_early_differs() {
        let shorter = compare(&[1, 2], &[1]).expect("they differ");
        assert_eq!((shorter.event, shorter.second), (2, None));
        let longer = compare(&[1], &[1, 2]).expect("they differ");
        assert_eq!((longer.event, longer.first), (2, None));
    }

    #[test]
    fn a_failing_destination_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut log = EventLog::new(Full);
        log.write(&record(1));
        assert_eq!(log.finish().err().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }
}
