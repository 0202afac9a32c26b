//! Percentiles of each measure, and failures by cause.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lines::{Header, RunLine};
use super::plan::{Plan, Point};
use super::wilson;
use crate::report::seconds;

/// How wide the lines are that can be broken, in columns.
const WIDTH: usize = 80;

/// How many causes are told; those of fewer runs are counted.
const CAUSES: usize = 8;

/// How many seeds of a cause are told.
const SEEDS: usize = 8;

/// How many combinations of values are told in the table.
const POINTS: usize = 60;

/// What many runs came to. Memory grows by some eight bytes for each measure of each run.
#[derive(Debug, Clone)]
pub struct Summary {
    points: Vec<Point>,
    by_point: Vec<PointRuns>,
    runs: u64,
    passed: u64,
    refused: u64,
    measures: BTreeMap<String, Vec<u64>>,
    causes: BTreeMap<String, Failures>,
}

/// The runs of one combination of values.
#[derive(Debug, Clone, Default)]
struct PointRuns {
    runs: u64,
    passed: u64,
    /// Simulated times of those that passed.
    times: Vec<u64>,
}

/// The runs that failed of one cause.
#[derive(Debug, Clone, Default)]
struct Failures {
    count: u64,
    /// The first, each with its point.
    first: Vec<(u64, usize)>,
}

/// Four percentiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    /// The median.
    pub p50: u64,
    /// Nine of ten are at most this.
    pub p90: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// All are at most this.
    pub max: u64,
}

impl Percentiles {
    /// The nearest ranks: each is one of the values. `None` where there are none.
    pub fn of(values: &[u64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied();
        Some(Self { p50: rank(50)?, p90: rank(90)?, p99: rank(99)?, max: rank(100)? })
    }
}

impl Summary {
    /// Of no runs yet, of a sweep with this plan.
    pub fn new(plan: &Plan) -> Self {
        let points = plan.points().to_vec();
        let by_point = vec![PointRuns::default(); points.len()];
        let (measures, causes) = (BTreeMap::new(), BTreeMap::new());
        Self { points, by_point, runs: 0, passed: 0, refused: 0, measures, causes }
    }

    /// Takes a run of the plan's `point`, in order.
    pub fn add(&mut self, point: usize, run: &RunLine) {
        self.runs += 1;
        self.refused += u64::from(run.verdict == "refused");
        let at = &mut self.by_point[point];
        at.runs += 1;
        if run.passed() {
            self.passed += 1;
            at.passed += 1;
            at.times.extend(run.measures.get("simulated_ns"));
        }
        for (name, value) in &run.measures {
            match self.measures.get_mut(name) {
                Some(values) => values.push(*value),
                None => {
                    self.measures.insert(name.clone(), vec![*value]);
                }
            }
        }
        if let Some(cause) = &run.cause {
            let failures = self.causes.entry(cause.clone()).or_default();
            failures.count += 1;
            if failures.first.len() < SEEDS {
                failures.first.push((run.seed, point));
            }
        }
    }

    /// How many runs there were.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// How many passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// The command line's exit code: 0 all passed, 1 some failed, 2 some could not run.
    pub fn exit_code(&self) -> u8 {
        if self.refused > 0 { 2 } else { u8::from(self.passed < self.runs) }
    }

    /// The percentiles of a measure over the runs that have it.
    pub fn percentiles(&self, measure: &str) -> Option<Percentiles> {
        Percentiles::of(self.measures.get(measure)?)
    }

    /// All of it for people, in lines; `replay` gives the command that does a run again.
    pub fn lines(&self, header: &Header, replay: impl Fn(u64, &Point) -> String) -> Vec<String> {
        let mut lines = Vec::new();
        if self.points.len() > 1 {
            self.tell_points(&mut lines);
        }
        self.tell_measures(&mut lines);
        self.tell_causes(&mut lines, replay);
        if let Some(partition) = &header.partition {
            lines.push(format!("these are the runs of {partition}; `grenache merge` joins the results of all parts"));
        }
        lines
    }

    fn tell_points(&self, lines: &mut Vec<String>) {
        lines.push(format!("{:>13} {:>15} {:>9} {:>9} {:>9}  with", "passed", "95% of all", "p50", "p90", "max"));
        for (point, at) in self.points.iter().zip(&self.by_point).take(POINTS) {
            let (low, high) = wilson::interval(at.passed, at.runs);
            let share = format!("{:.1}%–{:.1}%", low * 100.0, high * 100.0);
            let passed = format!("{}/{}", at.passed, at.runs);
            let times = Percentiles::of(&at.times);
            let time = |pick: fn(Percentiles) -> u64| times.map_or_else(|| "-".to_owned(), |all| nanos(pick(all)));
            let with: Vec<String> = point.iter().map(|(key, value)| format!("{key}={value}")).collect();
            lines.push(format!(
                "{passed:>13} {share:>15} {:>9} {:>9} {:>9}  {}",
                time(|all| all.p50),
                time(|all| all.p90),
                time(|all| all.max),
                with.join(" ")
            ));
        }
        if self.points.len() > POINTS {
            lines.push(format!("… and {} more combinations: --jsonl has all", self.points.len() - POINTS));
        }
        lines.push(String::new());
    }

    fn tell_measures(&self, lines: &mut Vec<String>) {
        lines.push(format!("{:>9} {:>9} {:>9} {:>9} {:>8}  measure", "p50", "p90", "p99", "max", "runs"));
        // Times first, then counts, then drops.
        let order = |name: &str| (!is_time(name), name.starts_with("dropped: "));
        let mut names: Vec<&String> = self.measures.keys().collect();
        names.sort_by_key(|name| (order(name), name.starts_with("met_ns")));
        for name in names {
            let values = &self.measures[name];
            let Some(all) = Percentiles::of(values) else { continue };
            let show = |value: u64| if is_time(name) { nanos(value) } else { thousands(value) };
            let numbers = [all.p50, all.p90, all.p99, all.max].map(|value| format!("{:>9} ", show(value)));
            let numbers = format!("{}{:>8}  ", numbers.concat(), thousands(values.len() as u64));
            let indent = " ".repeat(numbers.chars().count());
            for (line, part) in wrapped(&label(name), WIDTH - indent.len()).iter().enumerate() {
                lines.push(format!("{}{part}", if line == 0 { &numbers } else { &indent }));
            }
        }
    }

    fn tell_causes(&self, lines: &mut Vec<String>, replay: impl Fn(u64, &Point) -> String) {
        let mut causes: Vec<(&String, &Failures)> = self.causes.iter().collect();
        causes.sort_by_key(|(_, failures)| std::cmp::Reverse(failures.count));
        for (cause, failures) in causes.iter().take(CAUSES) {
            lines.push(String::new());
            let cause = format!("{} × {cause}", thousands(failures.count));
            for (line, part) in wrapped(&cause, WIDTH - 4).iter().enumerate() {
                lines.push(format!("{}{part}", if line == 0 { "" } else { "    " }));
            }
            let mut seeds: Vec<String> = failures.first.iter().map(|(seed, _)| seed.to_string()).collect();
            seeds.dedup();
            let more = if failures.count > failures.first.len() as u64 { ", …" } else { "" };
            let s = if seeds.len() == 1 { "" } else { "s" };
            lines.push(format!("    seed{s} {}{more}", seeds.join(", ")));
            if let Some((seed, point)) = failures.first.first() {
                lines.push(format!("    run it again:  {}", replay(*seed, &self.points[*point])));
            }
        }
        if causes.len() > CAUSES {
            let rest: u64 = causes[CAUSES..].iter().map(|(_, failures)| failures.count).sum();
            lines.push(String::new());
            lines.push(format!("{} × {} other causes", thousands(rest), causes.len() - CAUSES));
        }
    }
}

fn is_time(name: &str) -> bool {
    name.ends_with("_ns") || name.starts_with("met_ns: ")
}

/// A text in lines of at most `width` columns, where its words allow it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is one from the beginning");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A measure's name for people.
fn label(name: &str) -> String {
    match name {
        "simulated_ns" => "simulated time".to_owned(),
        _ => match name.strip_prefix("met_ns: ") {
            Some(expectation) => format!("until {expectation}"),
            None => name.replace('_', " "),
        },
    }
}

fn nanos(nanos: u64) -> String {
    seconds(Duration::from_nanos(nanos))
}

/// A number with a comma after each three digits.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values: Vec<u64> = (1..=1000).rev().collect();
        assert_eq!(Percentiles::of(&values), Some(Percentiles { p50: 500, p90: 900, p99: 990, max: 1000 }));
        assert_eq!(Percentiles::of(&[7]), Some(Percentiles { p50: 7, p90: 7, p99: 7, max: 7 }));
        assert_eq!(Percentiles::of(&[3, 1]), Some(Percentiles { p50: 1, p90: 3, p99: 3, max: 3 }));
        assert_eq!(Percentiles::of(&[]), None);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn failures_of_one_cause_are_told_once() {
        let plan = Plan::new(&[], &[(0, 100)]).expect("a plan");
        let mut summary = Summary::new(&plan);
        for seed in 0..100 {
            let cause = (seed % 10 == 3).then(|| "not met: x".to_owned());
            let verdict = if cause.is_some() { "failed" } else { "passed" };
            let measures = BTreeMap::from([("simulated_ns".to_owned(), seed * 1_000_000_000)]);
            summary.add(0, &RunLine { seed, set: BTreeMap::new(), verdict: verdict.to_owned(), cause, measures });
        }
        let header = Header {
            grenache_sweep: 1,
            version: String::new(),
            file: String::new(),
            name: String::new(),
            sha256: String::new(),
            seeds: Vec::new(),
            set: Vec::new(),
            partition: None,
        };
        assert_eq!((summary.runs(), summary.passed(), summary.exit_code()), (100, 90, 1));
        insta::assert_snapshot!(summary.lines(&header, |seed, _| format!("again {seed}")).join("\n"), @r"
              p50       p90       p99       max     runs  measure
         49.000 s  89.000 s  98.000 s  99.000 s      100  simulated time

        10 × not met: x
            seeds 3, 13, 23, 33, 43, 53, 63, 73, …
            run it again:  again 3
        ");
    }
}
