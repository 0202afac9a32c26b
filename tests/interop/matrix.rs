//! What worked with what, as a table.

use futures_util::future::FutureExt as _;

use crate::grapes::{Kind, Ours, Theirs};
use crate::table::{Cell, show};
use crate::{links, nat, original, pairs};

/// How many cells are tried at the same time.
const AT_ONCE: usize = 6;

const COLUMNS: [(Kind, Kind); 4] = [(Ours, Ours), (Ours, Theirs), (Theirs, Ours), (Theirs, Theirs)];

struct Row {
    what: &'static str,
    check: fn(Kind, Kind) -> Cell,
}

/// A row whose check says what its cells show.
macro_rules! says {
    ($what:literal, $check:path) => {
        Row { what: $what, check: |one, other| Box::pin($check(one, other).map(str::to_owned)) }
    };
}

/// A row whose check only may fail.
macro_rules! row {
    ($what:literal, $check:path) => {
        Row { what: $what, check: |one, other| Box::pin($check(one, other).map(|()| "ok".to_owned())) }
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
async fn each_works_with_each() {
    original::is_there();
    let name = |kind| if kind == Ours { "ours" } else { "theirs" };
    let columns = COLUMNS.map(|(one, other)| format!("{} → {}", name(one), name(other)));
    let rows = rows().into_iter().map(|row| {
        let cells = COLUMNS.map(|(one, other)| (row.check)(one, other));
        (row.what.to_owned(), cells.into())
    });
    show("A → B", &columns, rows.collect(), AT_ONCE).await;
}
