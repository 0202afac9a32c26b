//! A cell's runs, and whether theory agrees.

use super::axis::Axis;
use super::fits::Fit;
use crate::sweep::wilson;

/// What the runs of a row and a column came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// How many runs there were.
    pub runs: u64,
    /// How many of them passed.
    pub passed: u64,
    /// What theory says; `None` where it does not know.
    pub theory: Option<Fit>,
    /// The command that does the first run again that is not as theory has it, or the first that failed.
    pub replay: Option<String>,
}

/// Whether a cell is as theory has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// It is.
    Agrees,
    /// It is not.
    Disagrees,
    /// There is none.
    Unknown,
}

impl Cell {
    /// The share of runs that passed, 0 where there were none.
    pub fn share(&self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.passed as f64 / self.runs as f64 }
    }

    /// Where the share of all seeds lies, with 95 % confidence.
    pub fn interval(&self) -> (f64, f64) {
        wilson::interval(self.passed, self.runs)
    }

    /// Whether theory agrees: where it says that nothing passes, nothing may; where it says that all pass, all must, or
    /// with links that lose packets and with faults more than half of them may.
    pub fn agreement(&self) -> Agreement {
        let Some(theory) = &self.theory else { return Agreement::Unknown };
        let agrees = match (theory.passes, theory.certain) {
            (false, _) => self.passed == 0,
            (true, true) => self.passed == self.runs,
            (true, false) => self.interval().1 > 0.5,
        };
        if agrees { Agreement::Agrees } else { Agreement::Disagrees }
    }
}

/// All cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// The scenario's name.
    pub name: String,
    /// The rows.
    pub rows: Axis,
    /// The columns.
    pub columns: Axis,
    /// A row's cells, in the columns' order.
    pub cells: Vec<Vec<Cell>>,
    /// Seeds a cell, as the command line has them.
    pub seeds: String,
    /// Why there is no theory, where there is none at all.
    pub no_theory: Option<String>,
}

impl Matrix {
    /// How many cells theory agrees with, and of how many it knows.
    pub fn agreement(&self) -> (usize, usize) {
        let count = |agreement| self.cells.iter().flatten().filter(|cell| cell.agreement() == agreement).count();
        let agrees = count(Agreement::Agrees);
        (agrees, agrees + count(Agreement::Disagrees))
    }

    /// The cells that are not as theory has them: row and column by number.
    pub fn disagreements(&self) -> Vec<(usize, usize)> {
        let cells = self.cells.iter().enumerate();
        let of_row = |(row, cells): (usize, &Vec<Cell>)| {
            let disagree = |column: &usize| cells[*column].agreement() == Agreement::Disagrees;
            (0..cells.len()).filter(disagree).map(|column| (row, column)).collect::<Vec<_>>()
        };
        cells.flat_map(of_row).collect()
    }

    /// What a cell is called.
    pub fn label(&self, row: usize, column: usize) -> String {
        let (rows, columns) = (&self.rows, &self.columns);
        format!("{}={} {}={}", rows.key, rows.values[row].label, columns.key, columns.values[column].label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(passed: u64, passes: bool, certain: bool) -> Agreement {
        let theory = Some(Fit { passes, why: String::new(), certain });
        Cell { runs: 10, passed, theory, replay: None }.agreement()
    }

    #[test]
    fn theory_is_held_to_its_word() {
        assert_eq!(cell(10, true, true), Agreement::Agrees);
        assert_eq!(cell(9, true, true), Agreement::Disagrees);
        assert_eq!(cell(0, false, true), Agreement::Agrees);
        assert_eq!(cell(1, false, true), Agreement::Disagrees);
        assert_eq!(cell(4, true, false), Agreement::Agrees, "losses");
        assert_eq!(cell(1, true, false), Agreement::Disagrees, "not as many");
        assert_eq!(Cell { runs: 1, passed: 0, theory: None, replay: None }.agreement(), Agreement::Unknown);
    }
}
