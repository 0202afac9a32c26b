//! The results of several machines as those of one.

use std::collections::BTreeMap;

use thiserror::Error;

use super::lines::{End, Header, Results, RunLine};
use super::plan::{Partition, PlanError, Task};

/// Why results cannot be joined. Files are named as they were given.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// They are not of the same sweep.
    #[error("{file} is of another sweep than {first}: its {what} is {got}, not {expected}")]
    Other {
        /// The file.
        file: String,
        /// The first file.
        first: String,
        /// What differs.
        what: &'static str,
        /// In the first file.
        expected: String,
        /// In this one.
        got: String,
    },
    /// The header names more runs than a sweep may have.
    #[error("{file}: {error}")]
    Plan {
        /// The file.
        file: String,
        /// What is too much.
        error: PlanError,
    },
    /// A run is none of the sweep's.
    #[error("{file} has a run that is not of its sweep: seed {seed}")]
    Stray {
        /// The file.
        file: String,
        /// The seed.
        seed: u64,
    },
    /// A run is there twice, not the same.
    #[error("seed {seed} is in {first} and in {second}, and came out differently: the runs are not deterministic")]
    Differ {
        /// The seed.
        seed: u64,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// Runs are missing, and nothing says that their sweep was stopped.
    #[error("{missing} of {all} runs are missing, the first is seed {seed}: is there a file of each partition?")]
    Missing {
        /// How many.
        missing: usize,
        /// Of how many.
        all: usize,
        /// The first one's.
        seed: u64,
    },
}

/// Joins results. The runs are in the plan's order, and what is in several files is there once.
///
/// # Errors
/// Where the files are not of one sweep, or not all of it.
pub fn merge(parts: &[(String, Results)]) -> Result<Option<Results>, MergeError> {
    let Some((first, base)) = parts.first() else { return Ok(None) };
    let mut header = Header { partition: None, ..base.header.clone() };
    for (file, part) in parts {
        same(first, &base.header, file, &part.header)?;
        header.seeds.extend(&part.header.seeds);
    }
    header.seeds = joined(std::mem::take(&mut header.seeds));
    let plan = header.plan().map_err(|error| MergeError::Plan { file: first.clone(), error })?;

    let mut runs: BTreeMap<Task, (&str, &RunLine)> = BTreeMap::new();
    for (file, part) in parts {
        for run in &part.runs {
            let within = part.header.seeds.iter().any(|(from, to)| (*from..*to).contains(&run.seed));
            let task = run.task(plan.points()).filter(|_| within);
            let task = task.ok_or_else(|| MergeError::Stray { file: file.clone(), seed: run.seed })?;
            if let Some((other, same)) = runs.insert(task, (file, run))
                && same != run
            {
                return Err(MergeError::Differ { seed: run.seed, first: other.to_owned(), second: file.clone() });
            }
        }
    }
    // A sweep that was stopped lacks runs, and says so.
    let mut stopped = None;
    let mut excused = Vec::new();
    for (_, part) in parts.iter().filter(|(_, part)| part.end.stopped.is_some()) {
        stopped.clone_from(&part.end.stopped);
        excused.push(&part.header);
    }
    let excuses = |task: &Task| {
        excused.iter().any(|header| {
            let Some(start) = header.plan().ok().map(|plan| index(&plan, *task)) else { return false };
            let partition = header.partition.as_deref().and_then(|text| text.parse::<Partition>().ok());
            start.is_some_and(|index| partition.is_none_or(|part| part.has(index, *task, &plan.points()[task.point])))
        })
    };
    let missing: Vec<Task> = plan.tasks().filter(|task| !runs.contains_key(task) && !excuses(task)).collect();
    if let Some(task) = missing.first() {
        let all = plan.tasks().count();
        return Err(MergeError::Missing { missing: missing.len(), all, seed: task.seed });
    }
    let runs: Vec<RunLine> = runs.into_values().map(|(_, run)| run.clone()).collect();
    let end = End { end: runs.len() as u64, stopped };
    Ok(Some(Results { header, runs, end }))
}

/// Which run of its own plan a task is, from 0.
fn index(plan: &super::plan::Plan, task: Task) -> Option<u64> {
    let mut before = 0;
    for seeds in plan.seeds() {
        if seeds.contains(&task.seed) {
            return Some((before + task.seed - seeds.start) * plan.points().len() as u64 + task.point as u64);
        }
        before += seeds.end - seeds.start;
    }
    None
}

fn same(first: &str, expected: &Header, file: &str, got: &Header) -> Result<(), MergeError> {
    let settings = |header: &Header| {
        let set: Vec<String> = header.set.iter().map(|set| format!("{}={}", set.key, set.values.join(","))).collect();
        if set.is_empty() { "nothing".to_owned() } else { set.join(" ") }
    };
    let pairs: [(&str, String, String); 4] = [
        ("version of grenache", expected.version.clone(), got.version.clone()),
        ("scenario", expected.name.clone(), got.name.clone()),
        ("scenario file's SHA-256", expected.sha256.clone(), got.sha256.clone()),
        ("--set", settings(expected), settings(got)),
    ];
    for (what, expected, got) in pairs {
        if expected != got {
            let (file, first) = (file.to_owned(), first.to_owned());
            return Err(MergeError::Other { file, first, what, expected, got });
        }
    }
    Ok(())
}

/// Ranges in order, those that touch as one.
fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (from, to) in ranges {
        match all.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => all.push((from, to)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::lines::{FORMAT, KeyValues};
    use super::super::measure::Measures;
    use super::*;

    fn part(seeds: (u64, u64), partition: Option<&str>, has: &[u64]) -> Results {
        let header = Header {
            grenache_sweep: FORMAT,
            version: "1".to_owned(),
            file: "x.toml".to_owned(),
            name: "x".to_owned(),
            sha256: "ab".to_owned(),
            seeds: vec![seeds],
            set: Vec::new(),
            partition: partition.map(str::to_owned),
        };
        let run = |seed: &u64| RunLine {
            seed: *seed,
            set: BTreeMap::new(),
            verdict: "passed".to_owned(),
            cause: None,
            measures: Measures::new(),
        };
        let runs: Vec<RunLine> = has.iter().map(run).collect();
        Results { header, end: End { end: runs.len() as u64, stopped: None }, runs }
    }

    fn merged(parts: &[Results]) -> Result<Vec<u64>, MergeError> {
        let named: Vec<_> = parts.iter().enumerate().map(|(i, part)| (i.to_string(), part.clone())).collect();
        let whole = merge(&named)?.expect("there are parts");
        Ok(whole.runs.iter().map(|run| run.seed).collect())
    }

    #[test]
    fn parts_and_ranges_are_joined_in_order() {
        let slices = [part((0, 5), Some("slice:2/2"), &[1, 3]), part((0, 5), Some("slice:1/2"), &[0, 2, 4])];
        assert_eq!(merged(&slices), Ok(vec![0, 1, 2, 3, 4]));
        let ranges = [part((3, 5), None, &[3, 4]), part((0, 3), None, &[0, 1, 2])];
        assert_eq!(merged(&ranges), Ok(vec![0, 1, 2, 3, 4]));
        let twice = [part((0, 2), None, &[0, 1]), part((0, 2), None, &[0, 1])];
        assert_eq!(merged(&twice), Ok(vec![0, 1]));
    }

    #[test]
    fn what_is_missing_needs_an_excuse() {
        let slices = [part((0, 5), Some("slice:1/3"), &[0, 3]), part((0, 5), Some("slice:2/3"), &[1, 4])];
        assert_eq!(merged(&slices), Err(MergeError::Missing { missing: 1, all: 5, seed: 2 }));
        let mut stopped = part((0, 5), Some("slice:2/2"), &[1]);
        stopped.end.stopped = Some("--for 1s".to_owned());
        assert_eq!(merged(&[part((0, 5), Some("slice:1/2"), &[0, 2, 4]), stopped.clone()]), Ok(vec![0, 1, 2, 4]));
        let other = part((0, 5), Some("slice:1/2"), &[0, 2]);
        assert_eq!(merged(&[other, stopped]), Err(MergeError::Missing { missing: 1, all: 5, seed: 4 }));
    }

    #[test]
    fn what_is_of_another_sweep_is_refused() {
        let one = part((0, 1), None, &[0]);
        let with = |change: fn(&mut Header)| {
            let mut other = one.clone();
            change(&mut other.header);
            merged(&[one.clone(), other]).expect_err("another sweep").to_string()
        };
        assert!(with(|header| header.sha256 = "cd".to_owned()).contains("its scenario file's SHA-256 is cd, not ab"));
        assert!(with(|header| header.version = "2".to_owned()).contains("its version of grenache is 2, not 1"));
        let set =
            |header: &mut Header| header.set = vec![KeyValues { key: "a".to_owned(), values: vec!["1".to_owned()] }];
        assert!(with(set).contains("its --set is a=1, not nothing"));
    }

    #[test]
    fn a_run_that_came_out_differently_is_told() {
        let mut other = part((0, 1), None, &[0]);
        other.runs[0].verdict = "failed".to_owned();
        assert!(matches!(merged(&[part((0, 1), None, &[0]), other]), Err(MergeError::Differ { seed: 0, .. })));
        assert!(matches!(merged(&[part((0, 1), None, &[7])]), Err(MergeError::Stray { seed: 7, .. })));
    }
}
