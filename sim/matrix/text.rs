//! The matrix in a terminal, as Markdown and as CSV.

use super::cells::{Agreement, Cell, Matrix};

/// How wide a terminal is, in columns.
const WIDTH: usize = 80;

/// A table of shares for a terminal, in blocks of as many columns as fit. `paint` colours a cell's text; it must not
/// change how wide it is.
pub fn terminal(matrix: &Matrix, paint: impl Fn(&Cell, String) -> String) -> Vec<String> {
    let longest = |labels: &mut dyn Iterator<Item = usize>| labels.max().unwrap_or(0);
    let first = longest(&mut matrix.rows.values.iter().map(|row| row.label.chars().count()));
    let width = longest(&mut matrix.columns.values.iter().map(|column| column.label.chars().count())).max(5) + 1;
    let at_once = (WIDTH.saturating_sub(first) / width).max(1);
    let mut lines = vec![format!("rows {}, columns {}", matrix.rows.key, matrix.columns.key)];
    let columns: Vec<usize> = (0..matrix.columns.values.len()).collect();
    for block in columns.chunks(at_once) {
        lines.push(String::new());
        let heads = block.iter().map(|column| format!("{:>width$}", matrix.columns.values[*column].label));
        lines.push(format!("{:first$}{}", "", heads.collect::<String>()));
        for (row, cells) in matrix.rows.values.iter().zip(&matrix.cells) {
            let texts =
                block.iter().map(|column| paint(&cells[*column], format!("{:>width$}", share(&cells[*column]))));
            lines.push(format!("{:first$}{}", row.label, texts.collect::<String>()));
        }
    }
    lines
}

/// A cell in a few characters: `!` marks what is not as theory has it.
fn share(cell: &Cell) -> String {
    let mark = if cell.agreement() == Agreement::Disagrees { "!" } else { "" };
    format!("{mark}{:.0}%", cell.share() * 100.0)
}

/// A cell with its numbers: `10/10 (72%–100%)`.
pub(super) fn numbers(cell: &Cell) -> String {
    let (low, high) = cell.interval();
    format!("{}/{} ({:.0}%–{:.0}%)", cell.passed, cell.runs, low * 100.0, high * 100.0)
}

/// A table for GitHub and the like. What is not as theory has it is bold.
pub fn markdown(matrix: &Matrix) -> String {
    let heads: Vec<String> = matrix.columns.values.iter().map(|column| cell_text(&column.label)).collect();
    let corner = cell_text(&format!("{} \\ {}", matrix.rows.key, matrix.columns.key));
    let mut text = format!("| {corner} | {} |\n|---|{}\n", heads.join(" | "), "---:|".repeat(heads.len()));
    for (row, cells) in matrix.rows.values.iter().zip(&matrix.cells) {
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| match cell.agreement() {
                Agreement::Disagrees => format!("**{} ≠ theory**", numbers(cell)),
                _ => numbers(cell),
            })
            .collect();
        text.push_str(&format!("| {} | {} |\n", cell_text(&row.label), cells.join(" | ")));
    }
    text
}

/// What a table's cell can hold.
fn cell_text(text: &str) -> String {
    text.replace('|', "\\|")
}

/// A line a cell: row, column, runs, passed, share, low, high, theory (`passes`, `fails` or nothing), agrees, why.
pub fn csv(matrix: &Matrix) -> String {
    let mut text = format!(
        "{},{},runs,passed,share,low95,high95,theory,agrees,why\n",
        field(&matrix.rows.key),
        field(&matrix.columns.key)
    );
    for (row, cells) in matrix.rows.values.iter().zip(&matrix.cells) {
        for (column, cell) in matrix.columns.values.iter().zip(cells) {
            let (low, high) = cell.interval();
            let theory = cell.theory.as_ref().map_or("", |theory| if theory.passes { "passes" } else { "fails" });
            let agrees = match cell.agreement() {
                Agreement::Agrees => "true",
                Agreement::Disagrees => "false",
                Agreement::Unknown => "",
            };
            text.push_str(&format!(
                "{},{},{},{},{:.4},{low:.4},{high:.4},{theory},{agrees},{}\n",
                field(&row.label),
                field(&column.label),
                cell.runs,
                cell.passed,
                cell.share(),
                field(cell.theory.as_ref().map_or("", |theory| &theory.why))
            ));
        }
    }
    text
}

/// RFC 4180: in quotes where it has to be.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, Fit};
    use super::*;

    fn matrix() -> Matrix {
        let axis = |text: &str| text.parse::<Axis>().expect("an axis");
        let cell = |passed, passes| Cell {
            runs: 10,
            passed,
            theory: Some(Fit { passes, why: "so, it is".to_owned(), certain: true }),
            replay: None,
        };
        Matrix {
            name: "x".to_owned(),
            rows: axis("nat.a=ei/ei,apd/apd"),
            columns: axis("l=1%,2%"),
            cells: vec![vec![cell(10, true), cell(10, true)], vec![cell(3, true), cell(0, false)]],
            seeds: "0..10".to_owned(),
            no_theory: None,
        }
    }

    #[test]
    fn a_matrix_is_told_in_three_ways() {
        insta::assert_snapshot!(terminal(&matrix(), |_, text| text).join("\n"), @r"
        rows nat.a, columns l

                   1%    2%
        ei/ei    100%  100%
        apd/apd  !30%    0%
        ");
        insta::assert_snapshot!(markdown(&matrix()), @r"
        | nat.a \ l | 1% | 2% |
        |---|---:|---:|
        | ei/ei | 10/10 (72%–100%) | 10/10 (72%–100%) |
        | apd/apd | **3/10 (11%–60%) ≠ theory** | 0/10 (0%–28%) |
        ");
        let csv = csv(&matrix());
        assert_eq!(csv.lines().count(), 5);
        assert_eq!(csv.lines().nth(3), Some("apd/apd,1%,10,3,0.3000,0.1078,0.6032,passes,false,\"so, it is\""));
    }

    #[test]
    fn wide_matrices_come_in_blocks() {
        let mut wide = matrix();
        wide.columns = "l=1..40/40".parse().expect("an axis");
        wide.cells = vec![vec![wide.cells[0][0].clone(); 40]; 2];
        let lines = terminal(&wide, |_, text| text);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
        assert_eq!(lines.iter().filter(|line| line.starts_with("apd/apd")).count(), 4);
    }
}
