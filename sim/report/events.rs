//! `events.jsonl`: each event of a run as a line of JSON.

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
pub(super) fn encode(record: &Record, line: &mut Vec<u8>) {
    line.clear();
    serde_json::to_writer(&mut *line, record).expect("records are plain data, which JSON can hold");
    line.push(b'\n');
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
