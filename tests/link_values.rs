//! Immutable and mutable values (BEP 44) through a link: with embedded Grapes, and with one that lies.

use grenache::link::{KeyPair, Link, LinkConfig, LinkError, ValueError, immutable_hash, mutable_hash};
use grenache::net::Net;
use serde_json::{Value, json};

use common::fake_grape::{Answer, FakeGrape};
use common::grapes::two_grapes;
use common::{Recorder, any_port};

mod common;

#[tokio::test]
async fn an_immutable_value_put_at_one_grape_is_found_at_the_other() {
    let (_, net) = Recorder::new();
    let (first, second) = two_grapes(&net).await;
    let [at_first, at_second] = [&first, &second].map(|grape| Link::new(&net, LinkConfig::new(grape.api_addr())));
    for value in [json!("hello"), json!("café ☕"), json!(1337), json!("1337"), json!({"a": ["b", 3]})] {
        let hash = at_first.put(value.clone()).await.unwrap();
        assert_eq!(hash, immutable_hash(&value).unwrap());
        for link in [&at_first, &at_second] {
            assert_eq!(link.get(&hash).await, Ok(Some(value.clone())));
        }
        assert_eq!(at_first.get_mutable(&hash, None).await, Err(LinkError::Forged), "it is immutable");
    }
    assert_eq!(at_first.get(&"0".repeat(40)).await, Ok(None));
    assert_eq!(at_first.get("no hash").await, Ok(None));
    assert_eq!(at_first.put(json!(null)).await, Err(LinkError::Value(ValueError::Malformed)));
    assert_eq!(at_first.put(0.5).await, Err(LinkError::Value(ValueError::Number)));
    let refused = at_first.put("v".repeat(1000)).await.unwrap_err().to_string();
    assert_eq!(refused, "v must be less than 1000 bytes in put()");
}

#[tokio::test]
async fn a_mutable_value_is_changed_by_its_key_only_and_by_newer_ones_only() {
    let (_, net) = Recorder::new();
    let (first, second) = two_grapes(&net).await;
    let [here, there] = [&first, &second].map(|grape| Link::new(&net, LinkConfig::new(grape.api_addr())));
    let keys = KeyPair::random(&mut net.rng("keys"));
    for salt in [None, Some("prices")] {
        let one = keys.sign(salt, 1, "one").unwrap();
        let hash = here.put_mutable(&one, None).await.unwrap();
        assert_eq!(hash, mutable_hash(&keys.public_key(), salt));
        assert_eq!(there.get_mutable(&hash, salt).await, Ok(Some(one.clone())));

        let two = keys.sign(salt, 2, json!({"price": 42})).unwrap();
        // Each of two Grapes stores what is put at the other: the same one decides about conflicts.
        assert_eq!(here.put_mutable(&two, Some(7)).await, Err(LinkError::CasMismatch));
        assert_eq!(here.put_mutable(&two, Some(1)).await.as_ref(), Ok(&hash));
        assert_eq!(here.put_mutable(&one, None).await, Err(LinkError::Stale));
        assert_eq!(there.get_mutable(&hash, salt).await, Ok(Some(two.clone())));

        // With another's signature it gets nowhere.
        let stolen = KeyPair::from_seed([1; 32]).sign(salt, 3, "stolen").unwrap();
        let forged = grenache::link::SignedValue { key: keys.public_key(), ..stolen };
        assert!(!forged.is_genuine());
        assert!(matches!(here.put_mutable(&forged, None).await, Err(LinkError::Refused(_))));
    }
    // Without a salt a plain get does as well.
    assert_eq!(here.get(&keys.hash(None)).await, Ok(Some(json!({"price": 42}))));
    assert_eq!(here.get_mutable(&keys.hash(Some("none such")), Some("none such")).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn what_a_grape_makes_up_is_not_believed() {
    let hash = immutable_hash(&json!("hello")).unwrap();
    let signed = KeyPair::from_seed([7; 32]).sign(None, 5, "hello").unwrap();
    let grape = FakeGrape::new(|_, path, _| match path {
        "/put" => Answer::Body(200, format!("\"{}\"", "1".repeat(40))),
        _ => Answer::Body(200, json!({"id": "00", "token": null, "v": "hallo"}).to_string()),
    });
    let (_, net): (_, Net) = Recorder::with_http(std::sync::Arc::new(grape.in_memory()));
    let link = Link::new(&net, LinkConfig::new(any_port()));
    assert_eq!(link.put("hello").await, Err(LinkError::Forged));
    assert_eq!(link.put_mutable(&signed, None).await, Err(LinkError::Forged));
    assert_eq!(link.get(&hash).await, Err(LinkError::Forged));
    assert_eq!(link.get_mutable(&signed.hash(), None).await, Err(LinkError::Forged));
    let bodies: Vec<Value> = grape.calls().into_iter().map(|(_, body)| body["data"].clone()).collect();
    let put = json!({
        "v": "hello", "seq": 5,
        "k": hex::encode(signed.key), "sig": hex::encode(signed.signature),
    });
    assert_eq!(bodies, [json!({"v": "hello"}), put, json!(hash), json!(signed.hash())]);
}

#[tokio::test(start_paused = true)]
async fn salt_and_cas_are_posted_as_other_links_do() {
    let grape = FakeGrape::new(|_, _, _| Answer::Body(200, String::new()));
    let (_, net): (_, Net) = Recorder::with_http(std::sync::Arc::new(grape.in_memory()));
    let link = Link::new(&net, LinkConfig::new(any_port()));
    let signed = KeyPair::from_seed([7; 32]).sign(Some("pepper"), 5, "hello").unwrap();
    assert!(matches!(link.put_mutable(&signed, Some(4)).await, Err(LinkError::Malformed { status: 200, .. })));
    assert_eq!(link.get_mutable("abcd", Some("pepper")).await, Ok(None));
    assert_eq!(link.get_mutable("abcd", Some("")).await, Ok(None));
    let calls = grape.calls();
    assert_eq!((&calls[0].1["data"]["salt"], &calls[0].1["data"]["cas"]), (&json!("pepper"), &json!(4)));
    assert_eq!(calls[1].1["data"], json!({"hash": "abcd", "salt": "pepper"}));
    assert_eq!(calls[2].1["data"], json!("abcd"));
}
