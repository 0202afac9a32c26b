//! DHTs of both kinds in every role.

use std::net::SocketAddrV4;

use serde_json::json;

use crate::grapes::{AnyGrape, Kind, Ours, Place, Theirs};

/// Starts Grapes one after the other, the n-th from those before it that `from` names.
async fn dht(kinds: &[Kind], from: impl Fn(usize) -> Vec<usize>) -> Vec<AnyGrape> {
    let place = Place::loopback();
    let mut grapes: Vec<AnyGrape> = Vec::new();
    for (n, kind) in kinds.iter().enumerate() {
        let bootstrap: Vec<SocketAddrV4> = from(n).into_iter().map(|earlier| grapes[earlier].dht()).collect();
        grapes.push(place.start(*kind, &bootstrap).await);
    }
    grapes
}

/// What is announced at each is taken by all others and found at each; what is put at each is had at each.
async fn is_whole(grapes: &[AnyGrape]) {
    let others = grapes.len() - 1;
    let mut put = Vec::new();
    for (n, grape) in grapes.iter().enumerate() {
        assert_eq!(grape.announce(&format!("service {n}"), 1000 + n as u16).await, others, "{grape:?}");
        put.push(grape.put(json!(format!("value {n}"))).await);
    }
    for at in grapes {
        for (n, hash) in put.iter().enumerate() {
            assert_eq!(at.lookup(&format!("service {n}")).await, [format!("127.0.0.1:{}", 1000 + n)], "{at:?}");
            assert_eq!(at.get(hash).await, format!("value {n}"), "{at:?}");
        }
        assert_eq!(at.lookup("nobody").await, [""; 0]);
    }
}

/// The n-th of a chain starts from the one before it.
fn chain(n: usize) -> Vec<usize> {
    n.checked_sub(1).into_iter().collect()
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn three_in_a_chain() {
    for kinds in [[Ours, Theirs, Ours], [Theirs, Ours, Theirs], [Ours, Ours, Theirs], [Theirs, Theirs, Ours]] {
        is_whole(&dht(&kinds, chain).await).await;
    }
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn three_of_which_two_start_from_the_first() {
    for kinds in [[Ours, Theirs, Theirs], [Theirs, Ours, Ours], [Ours, Theirs, Ours], [Theirs, Ours, Theirs]] {
        is_whole(&dht(&kinds, |n| if n == 0 { vec![] } else { vec![0] }).await).await;
    }
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn ten_in_a_chain() {
    let kinds: Vec<Kind> = (0..10).map(|n| if n % 2 == 0 { Theirs } else { Ours }).collect();
    is_whole(&dht(&kinds, chain).await).await;
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn ten_of_which_each_starts_from_two_of_the_first_three() {
    let kinds = [Ours, Theirs, Ours, Theirs, Theirs, Ours, Ours, Theirs, Ours, Theirs];
    let grapes = dht(&kinds, |n| (0..3.min(n)).filter(|first| first % 3 != n % 3).collect()).await;
    is_whole(&grapes).await;

    // Without the first two the others go on.
    let mut grapes = grapes;
    for gone in grapes.drain(..2) {
        gone.kill().await;
    }
    for (n, grape) in grapes.iter().enumerate() {
        let name = format!("later {n}");
        assert_eq!(grape.announce(&name, 7).await, grapes.len() - 1, "{grape:?}");
        for at in &grapes {
            assert_eq!(at.lookup(&name).await, ["127.0.0.1:7"], "{at:?}");
        }
    }
}
