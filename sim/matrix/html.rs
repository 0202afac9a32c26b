//! The heat map: one file that needs nothing else, in light and dark.

use super::axis::is_nat;
use super::cells::{Agreement, Cell, Matrix};
use super::text::numbers;

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #6a737d; --none: #f3d3cf; --all: #2e8b57;
  --all-ink: #ffffff; --wrong: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #14171a; --faint: #9aa4ad; --none: #4a2320;
  --all: #2f9e63; --all-ink: #ffffff; --wrong: #ff6b5e; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem; }
h1 { font-size: 1.3rem; } p { color: var(--faint); max-width: 60rem; }
.wide { overflow-x: auto; } table { border-collapse: separate; border-spacing: 2px; }
th { font-weight: 600; padding: .35rem .6rem; text-align: right; white-space: nowrap; } th[scope=col] { text-align: center; }
td { min-width: 4.2rem; padding: .35rem .5rem; text-align: center; border-radius: 4px; border: 2px solid transparent;
  background: color-mix(in oklab, var(--all) calc(var(--share) * 1%), var(--none)); }
td.most { color: var(--all-ink); } td small { display: block; opacity: .8; font-size: .72rem; white-space: nowrap; }
td.wrong { border-color: var(--wrong); font-weight: 700; } .wrong b { color: var(--wrong); }
li code { font-size: .85em; }
";

/// What the short names of NATs mean.
const NATS: &str = " A NAT is MAPPING/FILTERING (RFC 4787), each ei: endpoint-independent, ad: address-dependent, apd: \
    address-and-port-dependent.";

/// The heat map's text.
pub fn html(matrix: &Matrix) -> String {
    let title = format!("{}: {} × {}", matrix.name, matrix.rows.key, matrix.columns.key);
    let (title, seeds) = (escape(&title), escape(&matrix.seeds));
    let (rows, columns) = (escape(&matrix.rows.key), escape(&matrix.columns.key));
    let pairs = [&matrix.rows, &matrix.columns].into_iter().any(|axis| is_nat(&axis.key));
    let kinds = if pairs { NATS } else { "" };
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         <p>Rows are {rows}, columns {columns}.{kinds} A cell has the share of runs that pass, of the seeds {seeds}, and \
         below it where that of all seeds lies with 95 % confidence (Wilson). {}</p>\n",
        escape(&theory(matrix))
    );
    text.push_str("<div class=\"wide\"><table>\n<tr><th></th>");
    for column in &matrix.columns.values {
        text.push_str(&format!("<th scope=\"col\">{}</th>", escape(&column.label)));
    }
    text.push_str("</tr>\n");
    for (row, cells) in matrix.rows.values.iter().zip(&matrix.cells) {
        text.push_str(&format!("<tr><th scope=\"row\">{}</th>", escape(&row.label)));
        cells.iter().for_each(|cell| text.push_str(&data(cell)));
        text.push_str("</tr>\n");
    }
    text.push_str("</table></div>\n");
    let wrong = matrix.disagreements();
    if !wrong.is_empty() {
        text.push_str("<h2 class=\"wrong\"><b>Not as theory has it</b></h2>\n<ul>\n");
        for (row, column) in wrong {
            let replay = matrix.cells[row][column].replay.as_deref().unwrap_or_default();
            let label = matrix.label(row, column);
            text.push_str(&format!("<li>{}: <code>{}</code></li>\n", escape(&label), escape(replay)));
        }
        text.push_str("</ul>\n");
    }
    text.push_str("</body>\n</html>\n");
    text
}

/// What is said of theory.
fn theory(matrix: &Matrix) -> String {
    let (agrees, known) = matrix.agreement();
    match &matrix.no_theory {
        Some(why) => format!("There is no theory of this scenario: {why}."),
        None => format!("Theory agrees with {agrees} of {known} cells; it says why where the mouse rests on a cell."),
    }
}

fn data(cell: &Cell) -> String {
    let wrong = cell.agreement() == Agreement::Disagrees;
    let share = (cell.share() * 100.0).round();
    let (low, high) = cell.interval();
    let classes = [(share >= 60.0, "most"), (wrong, "wrong")];
    let classes: Vec<&str> = classes.into_iter().filter(|(has, _)| *has).map(|(_, class)| class).collect();
    let title = match &cell.theory {
        Some(theory) => {
            let says = if theory.passes { "passes" } else { "fails" };
            format!("{}; in theory it {says}: {}", numbers(cell), theory.why)
        }
        None => numbers(cell),
    };
    let mark = if wrong { " ≠" } else { "" };
    format!(
        "<td class=\"{}\" style=\"--share:{share}\" title=\"{}\">{share}%{mark}<small>{:.0}–{:.0}%</small></td>",
        classes.join(" "),
        escape(&title),
        low * 100.0,
        high * 100.0
    )
}

fn escape(text: &str) -> String {
    maud::html! { (text) }.into_string()
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, Fit};
    use super::*;

    #[test]
    fn a_heat_map_needs_nothing_else_and_marks_what_is_wrong() {
        let axis = |text: &str| text.parse::<Axis>().expect("an axis");
        let theory = Some(Fit { passes: true, why: "a < b".to_owned(), certain: true });
        let cell = Cell { runs: 10, passed: 3, theory, replay: Some("grenache run \"x\"".to_owned()) };
        let matrix = Matrix {
            name: "<script>".to_owned(),
            rows: axis("a=1"),
            columns: axis("b=2"),
            cells: vec![vec![cell]],
            seeds: "0..10".to_owned(),
            no_theory: None,
        };
        let html = html(&matrix);
        assert!(!html.contains("http") && !html.contains("<script"), "{html}");
        assert!(html.contains("prefers-color-scheme: dark"));
        assert!(html.contains("class=\"wrong\" style=\"--share:30\""), "{html}");
        assert!(html.contains("a &lt; b") && html.contains("grenache run &quot;x&quot;"), "{html}");
        assert!(html.contains("Theory agrees with 0 of 1 cells"), "{html}");
    }
}
