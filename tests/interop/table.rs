//! What worked with what, as a table for release notes.

use std::panic::AssertUnwindSafe;

use futures_util::future::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use grenache::net::BoxFuture;

/// What a cell shows; it fails by panicking.
pub(crate) type Cell = BoxFuture<'static, String>;

/// Fills a table's cells, so many at the same time, prints it, and panics where one has failed.
#[expect(clippy::print_stdout, reason = "the table is for release notes")]
pub(crate) async fn show(corner: &str, columns: &[String], rows: Vec<(String, Vec<Cell>)>, at_once: usize) {
    let (names, cells): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    // A cell that fails has said so, and the others are still of interest.
    let cells = cells
        .into_iter()
        .flatten()
        .map(|cell| AssertUnwindSafe(cell).catch_unwind().map(|shown| shown.unwrap_or_else(|_| "FAILED".to_owned())));
    let shown: Vec<_> = stream::iter(cells).buffered(at_once).collect().await;
    let mut lines = vec![[corner.to_owned()].iter().chain(columns).cloned().collect()];
    for (name, cells) in names.iter().zip(shown.chunks(columns.len())) {
        lines.push([name].into_iter().chain(cells).cloned().collect());
    }
    println!("\n{}", markdown(&lines));
    assert!(!shown.iter().any(|cell| cell == "FAILED"), "not all of it works: see above");
}

/// A table whose first line is its head.
fn markdown(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for (n, line) in lines.iter().enumerate() {
        line.iter().zip(&widths).for_each(|(cell, width)| text += &format!("| {cell:width$} "));
        text += "|\n";
        if n == 0 {
            widths.iter().for_each(|width| text += &format!("|{:-<1$}", "", width + 2));
            text += "|\n";
        }
    }
    text
}
