//! Our peers and those on libutp, each way, as a table.

use futures_util::future::FutureExt as _;

use crate::grapes::{Kind, Ours, Theirs};
use crate::table::{Cell, show};
use crate::{punching, rpc, streams};

/// How many cells are tried at the same time.
const AT_ONCE: usize = 6;

/// A row whose check says what its cells show.
macro_rules! says {
    ($what:literal, $check:path) => {
        row($what, |kind| Box::pin($check(kind)))
    };
}

/// A row whose check only may fail.
macro_rules! row {
    ($what:literal, $check:path) => {
        row($what, |kind| Box::pin($check(kind).map(|()| "ok".to_owned())))
    };
}

/// What the one of this kind does with the other.
fn row(what: &str, check: fn(Kind) -> Cell) -> (String, Vec<Cell>) {
    (what.to_owned(), [Ours, Theirs].map(check).into())
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn our_peers_and_those_on_libutp() {
    let rows = vec![
        row!("request and reply, small, UTF-8", rpc::small),
        row!("error reply", rpc::error),
        row!("the largest of one packet; one byte more", rpc::largest_in_a_packet),
        row!("500 one after the other", rpc::one_after_the_other),
        says!("64 at once, packets read as messages", rpc::at_once),
        row!("256 at once, stream read", rpc::at_once_to_a_stream),
        row!("200 kB and 2 MB, stream read", rpc::large),
        row!("punch and punch back", punching::punch_and_back),
        row!("messages", punching::messages),
        row!("handshake", punching::handshake),
        row!("FIN, and data after it", streams::half_close),
        row!("RESET for what is not known (any more)", streams::forgotten),
        row!("request over a punched socket", punching::request_after_a_punch),
    ];
    show("A → B", &["ours → theirs", "theirs → ours"].map(str::to_owned), rows, AT_ONCE).await;
}
