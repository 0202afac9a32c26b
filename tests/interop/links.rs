//! Our link and `grenache-nodejs-link`, each with Grapes of either kind.

use std::process::Stdio;

use grenache::link::{KeyPair, Link, LinkConfig, LinkError};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::common::PATIENCE;
use crate::common::http_table::hash;
use crate::grapes::{AnyGrape, Kind, Ours, Place, Theirs};
use crate::original::{folder, node};

/// All calls of a link of one kind to a Grape of another, which knows one of the link's kind.
pub(crate) async fn calls(link: Kind, grape: Kind) {
    let place = Place::loopback();
    // The original's Grape takes mutable values, but cannot verify them to give them out.
    let mutable = matches!(grape, Ours);
    let (_first, grape) = place.pair(link, grape).await;
    match link {
        Ours => ours(&place, grape, mutable).await,
        Theirs => theirs(&grape).await,
    }
}

async fn ours(place: &Place, grape: AnyGrape, mutable: bool) {
    let link = Link::new(&place.net, LinkConfig::new(grape.api()));
    assert_eq!(link.announce("linked", 1337).await, Ok(1));
    let found = ["127.0.0.1:1337".parse().unwrap()];
    assert_eq!(link.lookup("linked").await.unwrap(), found);
    assert_eq!(link.lookup("nobody").await, Err(LinkError::LookupEmpty));
    for text in ["hello", "café ☕", &"v".repeat(999)] {
        let put = link.put(text).await.unwrap();
        assert_eq!(put, hash(text));
        assert_eq!(link.get(&put).await, Ok(Some(json!(text))));
    }
    assert_eq!(link.get(&hash("never put")).await, Ok(None));
    for salt in [None, Some("pepper")].into_iter().filter(|_| mutable) {
        let keys = KeyPair::from_seed([salt.map_or(1, |_| 2); 32]);
        let first = keys.sign(salt, 1, "café ☕").unwrap();
        let put = link.put_mutable(&first, None).await.unwrap();
        assert_eq!(link.get_mutable(&put, salt).await, Ok(Some(first.clone())));
        let second = keys.sign(salt, 2, "tea").unwrap();
        assert_eq!(link.put_mutable(&second, Some(7)).await, Err(LinkError::CasMismatch));
        assert_eq!(link.put_mutable(&second, Some(1)).await.as_ref(), Ok(&put));
        assert_eq!(link.put_mutable(&first, None).await, Err(LinkError::Stale));
    }
    let refused = link.put("v".repeat(1000)).await.unwrap_err();
    assert!(refused.to_string().contains("v must be less than 1000 bytes in put()"), "{refused}");
    grape.kill().await;
    assert_eq!(link.lookup("linked").await.unwrap(), found, "from the cache");
    assert!(matches!(link.lookup_fresh("linked").await, Err(LinkError::Unreachable(_))));
}

async fn theirs(grape: &AnyGrape) {
    let mut script = node();
    script.arg(folder().join("link.js")).arg(format!("http://{}", grape.api())).stderr(Stdio::inherit());
    let output = timeout(PATIENCE, script.output()).await.expect("the script does not end").unwrap();
    assert!(output.status.success(), "the script failed: see above");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "announce": {"answer": 1, "calls": 1},
        "lookup": {"answer": ["127.0.0.1:1337"], "calls": 1},
        "cached": {"answer": ["127.0.0.1:1337"], "calls": 0},
        "shared": {"answer": [1, 1, 1], "calls": 1},
        "empty": {"answer": "ERR_GRAPE_LOOKUP_EMPTY", "calls": 1},
        "put": {"answer": hash("hello"), "calls": 1},
        "get": {"answer": "hello", "calls": 1},
        "missing": {"answer": "", "calls": 1},
        "refused": {"answer": "ERR_GRAPE_SERVICE_PORT", "calls": 1},
        "announcing": {"errors": [null], "again": false, "afterwards": 0, "found": ["127.0.0.1:1339"]},
    });
    for (what, came) in expected.as_object().unwrap() {
        assert_eq!(&report[what], came, "{what}");
    }
}
