//! The tables that our Grape's HTTP API is held to, against the original's.

use serde_json::json;

use crate::common::http_table::{self, FROM_ELSEWHERE};
use crate::common::refusing_node::RefusingNode;
use crate::grapes::{Ours, Place, Theirs};

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn a_lone_original_answers_as_the_table_says() {
    let grape = Place::loopback().start(Theirs, &[]).await;
    http_table::check(Theirs, grape.api(), &http_table::alone()).await;
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn an_original_with_another_answers_as_the_table_says() {
    let place = Place::loopback();
    for kind in [Ours, Theirs] {
        let other = place.start(kind, &[]).await;
        assert_eq!(other.call("/put", json!({"v": FROM_ELSEWHERE})).await, "No nodes to query");
        let grape = place.start(Theirs, &[other.dht()]).await;
        http_table::check(Theirs, grape.api(), &http_table::with_another(grape.dht().port())).await;
    }
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn an_original_whose_only_other_refuses_answers_as_the_table_says() {
    let grape = Place::loopback().start(Theirs, &[]).await;
    let refuses = RefusingNode::known_to(grape.dht().into()).await.refuse();
    let rows = http_table::with_one_that_refuses();
    let calls = http_table::check(Theirs, grape.api(), &rows);
    futures_util::future::select(Box::pin(refuses), Box::pin(calls)).await;
}
