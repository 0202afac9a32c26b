//! What worked with what, as a table.

use std::panic::AssertUnwindSafe;

use futures_util::future::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use grenache::net::BoxFuture;

use crate::grapes::{Kind, Ours, Theirs};
use crate::{links, nat, original, pairs};

/// How many cells are tried at the same time.
const AT_ONCE: usize = 6;

const COLUMNS: [(Kind, Kind); 4] = [(Ours, Ours), (Ours, Theirs), (Theirs, Ours), (Theirs, Theirs)];

/// What a cell shows.
type Cell = BoxFuture<'static, &'static str>;

struct Row {
    what: &'static str,
    check: fn(Kind, Kind) -> Cell,
}

/// A row whose check says what its cells show.
macro_rules! says {
    ($what:literal, $check:path) => {
        Row { what: $what, check: |one, other| Box::pin($check(one, other)) }
    };
}

/// A row whose check only may fail.
macro_rules! row {
    ($what:literal, $check:path) => {
        Row { what: $what, check: |one, other| Box::pin($check(one, other).map(|()| "ok")) }
    };
}

fn rows() -> Vec<Row> {
    vec![
        row!("A starts from B", pairs::starts_from),
        row!("A starts from itself, alone", pairs::starts_from_itself),
        row!("A and B start from each other", pairs::start_from_each_other),
        row!("A starts before B, from it", pairs::starts_before_its_bootstrap_node),
        row!("announce at A, lookup at B", pairs::announce_and_lookup),
        row!("put at A, get at B: texts", pairs::put_and_get),
        row!("put at A, get at B: objects", pairs::put_and_get_structures),
        says!("put at A, get at B: mutable", pairs::put_and_get_mutable),
        row!("get at A what B alone has", pairs::get_of_what_the_other_has),
        says!("B restarts", pairs::other_restarts),
        says!("A's bootstrap B restarts", pairs::bootstrap_node_restarts),
        says!("A announces anew after it", pairs::announces_again_after_a_restart),
        says!("B restarts with its old id", pairs::other_comes_back_as_itself),
        row!("B is gone, A still answers", pairs::other_is_gone),
        says!("A behind a NAT, B outside", nat::in_the_matrix),
        row!("link of A, Grape of B", links::calls),
    ]
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
#[expect(clippy::print_stdout, reason = "the table is for release notes")]
async fn each_works_with_each() {
    original::is_there();
    let rows = rows();
    let cells = rows.iter().flat_map(|row| COLUMNS.map(|(one, other)| (row.check)(one, other)));
    // A cell that fails has said so, and the others are still of interest.
    let cells = cells.map(|cell| AssertUnwindSafe(cell).catch_unwind().map(|shown| shown.unwrap_or("FAILED")));
    let shown: Vec<_> = stream::iter(cells).buffered(AT_ONCE).collect().await;
    let name = |kind| if kind == Ours { "ours" } else { "theirs" };
    let mut lines = vec![vec!["A → B".to_owned()]];
    lines[0].extend(COLUMNS.map(|(one, other)| format!("{} → {}", name(one), name(other))));
    for (row, cells) in rows.iter().zip(shown.chunks(COLUMNS.len())) {
        lines.push([row.what].iter().chain(cells).map(ToString::to_string).collect());
    }
    println!("\n{}", markdown(&lines));
    assert!(!shown.contains(&"FAILED"), "not all of it works: see above");
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
