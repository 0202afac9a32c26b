//! What worked with what, as a table.

use std::panic::AssertUnwindSafe;

use futures_util::future::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use grenache::net::BoxFuture;

use crate::grapes::{Kind, Ours, Theirs};
use crate::{links, nat, pairs};

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
        row!("put at A, get at B: structures", pairs::put_and_get_structures),
        row!("get at A what B alone has", pairs::get_of_what_the_other_has),
        says!("B restarts", pairs::other_restarts),
        says!("B restarts, A started from it", pairs::bootstrap_node_restarts),
        says!("A announces again after that", pairs::announces_again_after_a_restart),
        says!("B restarts with its old id", pairs::other_comes_back_as_itself),
        row!("B is gone: A answers in 6 s", pairs::other_is_gone),
        says!("A behind a NAT, B outside", nat::in_the_matrix),
        row!("link of A, Grape of B", links::calls),
    ]
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
#[expect(clippy::print_stdout, reason = "the table is for release notes")]
async fn each_works_with_each() {
    let rows = rows();
    let cells = rows.iter().flat_map(|row| COLUMNS.map(|(one, other)| (row.check)(one, other)));
    // A cell that fails has said so, and the others are still of interest.
    let cells = cells.map(|cell| AssertUnwindSafe(cell).catch_unwind().map(|shown| shown.unwrap_or("FAILED")));
    let shown: Vec<_> = stream::iter(cells).buffered(AT_ONCE).collect().await;
    let name = |kind| if kind == Ours { "ours" } else { "theirs" };
    print!("\n| {:30} |", "A → B");
    COLUMNS.iter().for_each(|&(one, other)| print!(" {:15} |", format!("{} → {}", name(one), name(other))));
    print!("\n|{:-<32}|{}", "", format!("{:-<17}|", "").repeat(COLUMNS.len()));
    for (row, cells) in rows.iter().zip(shown.chunks(COLUMNS.len())) {
        print!("\n| {:30} |", row.what);
        cells.iter().for_each(|cell| print!(" {cell:15} |"));
    }
    println!("\n");
    assert!(!shown.contains(&"FAILED"), "not all of it works: see above");
}
