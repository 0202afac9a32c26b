//! The figures of one run beside each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::Duration;

/// A measure's rows, each with its samples.
type Measure = BTreeMap<String, Vec<f64>>;

/// Samples by measure and row, in the order in which the measures came.
#[derive(Debug, Default)]
pub(crate) struct Table(RefCell<Vec<(String, Unit, Measure)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    PerSecond,
    Milliseconds,
    Mebibytes,
}

impl Table {
    /// So many in this time; gives the time.
    pub(crate) fn rate(&self, measure: &str, row: &str, count: u64, time: Duration) -> Duration {
        self.add(measure, Unit::PerSecond, row, count as f64 / time.as_secs_f64());
        time
    }

    /// A time; gives it.
    pub(crate) fn time(&self, measure: &str, row: &str, time: Duration) -> Duration {
        self.add(measure, Unit::Milliseconds, row, time.as_secs_f64() * 1e3);
        time
    }

    pub(crate) fn bytes(&self, measure: &str, row: &str, bytes: u64) {
        self.add(measure, Unit::Mebibytes, row, bytes as f64 / f64::from(1 << 20));
    }

    fn add(&self, measure: &str, unit: Unit, row: &str, sample: f64) {
        let mut measures = self.0.borrow_mut();
        let index = measures.iter().position(|(name, ..)| name == measure).unwrap_or_else(|| {
            measures.push((measure.to_owned(), unit, Measure::new()));
            measures.len() - 1
        });
        measures[index].2.entry(row.to_owned()).or_default().push(sample);
    }
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib * 1024)
}

fn median(samples: &[f64]) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable_by(f64::total_cmp);
    samples[samples.len() / 2]
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<30} {:>14} {:>14} {:>8} {:>14}", "medians", "ours", "original", "ratio", "answers only")?;
        for (name, unit, rows) in self.0.borrow().iter() {
            let [ours, original, ceiling] =
                ["ours", "original", "answers only"].map(|row| rows.get(row).map(|samples| median(samples)));
            let shown = |value: Option<f64>| match (value, unit) {
                (None, _) => "-".to_owned(),
                (Some(value), Unit::PerSecond) => format!("{value:.0}/s"),
                (Some(value), Unit::Milliseconds) => format!("{value:.2} ms"),
                (Some(value), Unit::Mebibytes) => format!("{value:.1} MiB"),
            };
            let ratio = ours.zip(original).map_or("-".to_owned(), |(ours, original)| format!("{:.2}", ours / original));
            let [ours, original, ceiling] = [ours, original, ceiling].map(shown);
            writeln!(f, "{name:<30} {ours:>14} {original:>14} {ratio:>8} {ceiling:>14}")?;
        }
        Ok(())
    }
}
