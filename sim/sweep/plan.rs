//! The runs of a sweep in their order, and which of them are a partition's.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use thiserror::Error;

use super::set::Setting;

/// The most runs of one sweep.
pub const MAX_RUNS: u64 = 1_000_000;

/// The most combinations of values.
pub const MAX_POINTS: u64 = 10_000;

/// One combination of values, in the order of the settings: keys and values.
pub type Point = Vec<(String, String)>;

/// All runs of a sweep: each seed with each combination of values. Those of one seed follow each other, so that a
/// sweep that is stopped has about as many of each combination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    points: Vec<Point>,
    seeds: Vec<Range<u64>>,
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// The seed.
    pub seed: u64,
    /// Which of the plan's points.
    pub point: usize,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Too many combinations of values.
    #[error("these are {0} combinations of values: at most {MAX_POINTS}; write fewer steps, as in A..B/3")]
    Points(u64),
    /// Too many runs.
    #[error("these are {0} runs: at most {MAX_RUNS}; take fewer seeds or steps")]
    Runs(u64),
    /// A key has two settings.
    #[error("`{0}` is set twice")]
    Twice(String),
}

impl Plan {
    /// The runs of these ranges of seeds, each without its end, with every combination of the settings' values. The first setting varies slowest.
    ///
    /// # Errors
    /// Where these are more runs than one sweep may have, or a key is set twice.
    pub fn new(settings: &[Setting], seeds: &[(u64, u64)]) -> Result<Self, PlanError> {
        for (index, setting) in settings.iter().enumerate() {
            if settings[..index].iter().any(|other| other.key == setting.key) {
                return Err(PlanError::Twice(setting.key.clone()));
            }
        }
        let count = settings.iter().fold(1_u64, |count, setting| count.saturating_mul(setting.values.len() as u64));
        if count > MAX_POINTS {
            return Err(PlanError::Points(count));
        }
        let seeds: Vec<Range<u64>> = seeds.iter().map(|(from, to)| *from..(*to).max(*from)).collect();
        let seed_count = seeds.iter().fold(0_u64, |sum, range| sum.saturating_add(range.end - range.start));
        let runs = count.saturating_mul(seed_count);
        if runs > MAX_RUNS {
            return Err(PlanError::Runs(runs));
        }
        let mut points = vec![Point::new()];
        for setting in settings {
            points = points
                .iter()
                .flat_map(|point| {
                    setting.values.iter().map(|value| {
                        let mut point = point.clone();
                        point.push((setting.key.clone(), value.clone()));
                        point
                    })
                })
                .collect();
        }
        Ok(Self { points, seeds })
    }

    /// The combinations of values; one that is empty where nothing is set.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The seeds.
    pub fn seeds(&self) -> &[Range<u64>] {
        &self.seeds
    }

    /// All runs in order.
    pub fn tasks(&self) -> impl Iterator<Item = Task> {
        let points = self.points.len();
        self.seeds.iter().cloned().flatten().flat_map(move |seed| (0..points).map(move |point| Task { seed, point }))
    }
}

/// A part of a sweep's runs. The parts 1 to N are all of them, and no run is in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// `slice:I/N`: every Nth run, from the Ith on. `index:I/N` is the same for who counts from 0, as Kubernetes does.
    Slice {
        /// From 1.
        part: u64,
        /// Of how many.
        of: u64,
    },
    /// `hash:I/N`: by a hash of the run's values and seed, so that a run stays in its part when others are added.
    Hash {
        /// From 1.
        part: u64,
        /// Of how many.
        of: u64,
    },
}

impl Partition {
    /// Whether a run, the `index`th of all from 0, is in this part.
    pub fn has(self, index: u64, task: Task, point: &Point) -> bool {
        match self {
            Self::Slice { part, of } => index % of == part - 1,
            Self::Hash { part, of } => hash(task.seed, point) % of == part - 1,
        }
    }
}

/// FNV-1a and a last mix: the same on every machine and in every version.
fn hash(seed: u64, point: &Point) -> u64 {
    let texts = point.iter().flat_map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes(), b"\n"]);
    let bytes = texts.flatten().copied().chain(seed.to_le_bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a partition: write slice:I/N or hash:I/N with I from 1 to N, or index:I/N from 0 on"
            )
        };
        let (kind, share) = text.split_once(':').ok_or_else(wrong)?;
        let (part, of) = share.split_once('/').ok_or_else(wrong)?;
        let (Ok(part), Ok(of)) = (part.parse::<u64>(), of.parse::<u64>()) else { return Err(wrong()) };
        match kind {
            "slice" if (1..=of).contains(&part) => Ok(Self::Slice { part, of }),
            "index" if part < of => Ok(Self::Slice { part: part + 1, of }),
            "hash" if (1..=of).contains(&part) => Ok(Self::Hash { part, of }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slice { part, of } => write!(f, "slice:{part}/{of}"),
            Self::Hash { part, of } => write!(f, "hash:{part}/{of}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(settings: &[&str], seeds: Range<u64>) -> Result<Plan, PlanError> {
        let settings: Vec<Setting> = settings.iter().map(|text| text.parse().expect("a setting")).collect();
        Plan::new(&settings, &[(seeds.start, seeds.end)])
    }

    #[test]
    fn every_seed_meets_every_combination() {
        let plan = plan(&["a=1,2", "b=x,y,z"], 5..7).expect("a plan");
        assert_eq!(plan.points().len(), 6);
        assert_eq!(plan.points()[1], [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "y".to_owned())]);
        let tasks: Vec<Task> = plan.tasks().collect();
        assert_eq!(tasks.len(), 12);
        assert_eq!((tasks[0], tasks[6]), (Task { seed: 5, point: 0 }, Task { seed: 6, point: 0 }));
    }

    #[test]
    fn too_much_is_refused() {
        assert_eq!(plan(&[], 0..MAX_RUNS + 1), Err(PlanError::Runs(MAX_RUNS + 1)));
        assert_eq!(plan(&["a=0..1%/101", "b=0..1%/100"], 0..1), Err(PlanError::Points(10_100)));
        assert_eq!(plan(&["a=1", "a=2"], 0..1), Err(PlanError::Twice("a".to_owned())));
    }

    #[test]
    fn each_run_is_in_one_part() {
        let plan = plan(&["a=1,2"], 0..500).expect("a plan");
        for kind in ["slice", "hash"] {
            let parts: Vec<Partition> = (1..=3).map(|part| format!("{kind}:{part}/3").parse().expect(kind)).collect();
            let mut sizes = [0; 3];
            for (index, task) in plan.tasks().enumerate() {
                let point = &plan.points()[task.point];
                let of: Vec<usize> = (0..3).filter(|part| parts[*part].has(index as u64, task, point)).collect();
                assert_eq!(of.len(), 1, "{kind}, run {index}");
                sizes[of[0]] += 1;
            }
            assert!(sizes.iter().all(|size| (280..390).contains(size)), "{kind}: {sizes:?}");
        }
    }

    #[test]
    fn partitions_are_written_as_nextest_has_them() {
        assert_eq!("slice:1/3".parse(), Ok(Partition::Slice { part: 1, of: 3 }));
        assert_eq!("index:0/3".parse(), Ok(Partition::Slice { part: 1, of: 3 }));
        assert_eq!("hash:3/3".parse::<Partition>().map(|part| part.to_string()), Ok("hash:3/3".to_owned()));
        for text in
            ["", "slice", "slice:0/3", "slice:4/3", "slice:1/0", "count:1/3", "slice:1", "slice:a/b", "index:3/3"]
        {
            assert!(text.parse::<Partition>().is_err(), "{text}");
        }
    }
}
