//! Results as JSON Lines: a header, a line for each run in the plan's order, and a line that says it is the end.
//!
//! | header | |
//! |---|---|
//! | `grenache_sweep` | 1: this format |
//! | `version` | of grenache |
//! | `file`, `name` | the scenario |
//! | `sha256` | of the file's text |
//! | `seeds` | `[[FROM, TO], …]`, without TO |
//! | `set` | `[{"key": …, "values": […]}, …]` |
//! | `partition` | `"slice:1/3"`, or `null` |
//!
//! | a run | |
//! |---|---|
//! | `seed`, `set` | what ran: `set` has the values by key |
//! | `verdict` | `passed`, `failed`, `panicked`, `refused` |
//! | `cause` | why it failed ([`cause`](super::cause)); `null` where it passed |
//! | `measures` | numbers by name ([`measure`](super::measure)) |
//!
//! | the end | |
//! |---|---|
//! | `end` | how many runs there are |
//! | `stopped` | what ended the sweep early; `null` where nothing did |

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::measure::Measures;
use super::plan::{Plan, PlanError, Point, Task};
use super::set::Setting;

/// The number of this format.
pub const FORMAT: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT`].
    pub grenache_sweep: u32,
    /// Of grenache.
    pub version: String,
    /// The scenario file, as the command line had it.
    pub file: String,
    /// The scenario's name.
    pub name: String,
    /// Of the file's text, in hex.
    pub sha256: String,
    /// Ranges of seeds, without their ends.
    pub seeds: Vec<(u64, u64)>,
    /// The keys that are set, with their values.
    pub set: Vec<KeyValues>,
    /// Which part of the sweep this is.
    pub partition: Option<String>,
}

/// A key that is set, with its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyValues {
    /// The key.
    pub key: String,
    /// Its values.
    pub values: Vec<String>,
}

impl Header {
    /// The runs of the whole sweep.
    ///
    /// # Errors
    /// Where the header is not one that [`Plan::new`] takes.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let set = |set: &KeyValues| Setting { key: set.key.clone(), values: set.values.clone() };
        let settings: Vec<Setting> = self.set.iter().map(set).collect();
        Plan::new(&settings, &self.seeds)
    }
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunLine {
    /// The seed.
    pub seed: u64,
    /// What was set.
    pub set: BTreeMap<String, String>,
    /// In a word.
    pub verdict: String,
    /// Why it failed.
    pub cause: Option<String>,
    /// What was counted and timed.
    pub measures: Measures,
}

impl RunLine {
    /// Whether it passed.
    pub fn passed(&self) -> bool {
        self.verdict == "passed"
    }

    /// Which run of a plan with these points it is.
    pub fn task(&self, points: &[Point]) -> Option<Task> {
        let same = |point: &Point| {
            point.len() == self.set.len() && point.iter().all(|(key, value)| self.set.get(key) == Some(value))
        };
        points.iter().position(same).map(|point| Task { seed: self.seed, point })
    }
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// How many runs there are.
    pub end: u64,
    /// What ended the sweep early.
    pub stopped: Option<String>,
}

/// Writes one line.
///
/// # Errors
/// Where the destination takes no more.
pub fn write(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)
}

/// Results that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    /// The first line.
    pub header: Header,
    /// The runs, in the file's order.
    pub runs: Vec<RunLine>,
    /// The last line.
    pub end: End,
}

/// Why results cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The source failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not begin as results do.
    #[error("these are no results of `grenache sweep`: {0}")]
    Header(String),
    /// A line is not of this format.
    #[error("line {line} is no result of a run: {message}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The last line is missing.
    #[error("it ends after {0} runs without its last line: the sweep was cut off; run it again")]
    CutOff(usize),
}

/// Reads results.
///
/// # Errors
/// Where they are not of this format, or not whole.
pub fn read(source: impl BufRead) -> Result<Results, ReadError> {
    let mut lines = source.lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let header: Header = serde_json::from_str(&first).map_err(|error| ReadError::Header(error.to_string()))?;
    if header.grenache_sweep != FORMAT {
        let other = format!("they have the format {}, and this grenache reads {FORMAT}", header.grenache_sweep);
        return Err(ReadError::Header(other));
    }
    let mut runs = Vec::new();
    let mut end = None;
    for (index, line) in lines.enumerate() {
        let (line, number) = (line?, index + 2);
        let wrong = |message: String| ReadError::Line { line: number, message };
        if end.is_some() {
            return Err(wrong("the end was before".to_owned()));
        }
        if line.starts_with("{\"end\"") {
            let last: End = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
            if last.end != runs.len() as u64 {
                return Err(wrong(format!("{} runs are said to be here, and there are {}", last.end, runs.len())));
            }
            end = Some(last);
        } else {
            runs.push(serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?);
        }
    }
    let end = end.ok_or(ReadError::CutOff(runs.len()))?;
    Ok(Results { header, runs, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(runs: u64) -> Vec<u8> {
        let header = Header {
            grenache_sweep: FORMAT,
            version: "0.1.0".to_owned(),
            file: "a.toml".to_owned(),
            name: "a".to_owned(),
            sha256: "00".to_owned(),
            seeds: vec![(0, runs)],
            set: Vec::new(),
            partition: None,
        };
        let mut out = Vec::new();
        write(&mut out, &header).expect("a Vec takes all");
        for seed in 0..runs {
            let line = RunLine {
                seed,
                set: BTreeMap::new(),
                verdict: "passed".to_owned(),
                cause: None,
                measures: Measures::from([("packets_sent".to_owned(), seed)]),
            };
            write(&mut out, &line).expect("a Vec takes all");
        }
        write(&mut out, &End { end: runs, stopped: None }).expect("a Vec takes all");
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let read = read(&results(3)[..]).expect("they are whole");
        assert_eq!((read.runs.len(), read.runs[2].measures["packets_sent"], read.end.end), (3, 2, 3));
        assert_eq!(read.header.plan().expect("a plan").tasks().count(), 3);
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let text = String::from_utf8(results(3)).expect("JSON is UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        let error = |lines: &[&str]| read(lines.join("\n").as_bytes()).expect_err("not whole").to_string();
        assert!(error(&[]).contains("no results of `grenache sweep`"));
        assert!(error(&lines[1..]).contains("no results of `grenache sweep`"));
        assert!(error(&lines[..4]).contains("after 3 runs"));
        assert!(error(&[&lines[..2], &lines[3..]].concat()).contains("3 runs are said to be here, and there are 2"));
        assert!(error(&[&lines[..], &lines[1..2]].concat()).contains("the end was before"));
        assert!(error(&[lines[0], "{}"]).contains("line 2"));
        let newer = lines[0].replace("\"grenache_sweep\":1", "\"grenache_sweep\":2");
        assert!(error(&[&newer]).contains("the format 2"));
    }
}
