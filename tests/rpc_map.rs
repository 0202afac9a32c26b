//! Asking every service of a name, on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use grenache::link::{Link, LinkConfig, LinkError};
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, RequestOptions, RpcError, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::{Value, json};
use tokio::time::timeout;

use common::fake_grape::{Answer, FakeGrape};
use common::{PATIENCE, Recorder, any_port};
use grenache::event::Event;
use std::sync::Arc;

mod common;

fn endpoint() -> Endpoint {
    Endpoint::bind(&Recorder::new().1, any_port(), EndpointConfig::default()).unwrap()
}

/// A service that gives its own address, or what `answer` makes of it.
fn service<F>(answer: impl Fn(SocketAddr) -> F + Send + Sync + 'static) -> (SocketAddr, PeerRpcServer)
where
    F: Future<Output = Result<Value, String>> + Send + 'static,
{
    let endpoint = endpoint();
    let at = endpoint.local_addr();
    (at, PeerRpcServer::serve(&endpoint, ServerConfig::default(), move |_| answer(at)))
}

/// A client, by whose link `key` is at `addresses`, and nothing else is anywhere.
async fn client(addresses: &[SocketAddr]) -> (PeerRpcClient, Arc<Recorder>, grenache::net::Task) {
    let (recorder, net) = Recorder::new();
    let found = json!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string();
    let grape =
        FakeGrape::new(move |_, _, name| Answer::Body(200, if name == "key" { found.clone() } else { "[]".into() }));
    let (at, listening) = grape.listen(&net).await;
    let endpoint = Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap();
    let link = Link::new(&net, LinkConfig::new(at));
    (PeerRpcClient::new(&endpoint, Some(link), ClientConfig::default()), recorder, listening)
}

fn options() -> RequestOptions {
    RequestOptions::default().timeout(PATIENCE)
}

#[tokio::test]
async fn every_service_is_asked_once_and_answers_are_in_the_order_of_addresses() {
    let services: Vec<_> = (0..5).map(|_| service(|at| async move { Ok(json!(at.to_string())) })).collect();
    let (failing, _server) = service(|_| async { Err("ERR_BOOM".to_owned()) });
    let mut addresses: Vec<_> = services.iter().map(|(at, _)| *at).chain([failing]).collect();
    addresses.reverse();
    let repeated = [&addresses[..], &addresses[..2]].concat();
    let (client, net, _grape) = client(&repeated).await;
    addresses.sort_unstable();
    for _ in 0..3 {
        let answers = client.map("key", &json!(1), None, options()).await.unwrap();
        assert_eq!(answers.iter().map(|(at, _)| *at).collect::<Vec<_>>(), addresses);
        for (at, answer) in answers {
            let expected =
                if at == failing { Err(RpcError::Remote("ERR_BOOM".into())) } else { Ok(json!(at.to_string())) };
            assert_eq!(answer, expected);
        }
    }
    assert_eq!(net.count(|e| matches!(e, Event::RequestSent { .. })), 18);
    let empty = client.map("nobody", &json!(1), None, options()).await.unwrap_err();
    assert_eq!(empty, RpcError::Link(LinkError::LookupEmpty));
}

#[tokio::test]
async fn a_limit_is_a_random_choice_and_each_is_chosen_at_times() {
    let services: Vec<_> = (0..4).map(|_| service(|_| async { Ok(Value::Null) })).collect();
    let addresses: Vec<_> = services.iter().map(|(at, _)| *at).collect();
    let (client, _, _grape) = client(&addresses).await;
    let mut chosen = std::collections::BTreeMap::new();
    for _ in 0..40 {
        let answers = client.map("key", &json!(1), Some(2), options()).await.unwrap();
        assert!(answers.len() == 2 && answers[0].0 < answers[1].0, "{answers:?}");
        for (at, answer) in answers {
            assert_eq!(answer, Ok(Value::Null));
            *chosen.entry(at).or_insert(0) += 1;
        }
    }
    assert!(chosen.len() == 4 && chosen.values().all(|count| (8..=32).contains(count)), "{chosen:?}");
    for (limit, count) in [(0, 0), (4, 4), (100, 4)] {
        assert_eq!(client.map("key", &json!(1), Some(limit), options()).await.unwrap().len(), count);
    }
}

#[tokio::test]
async fn answers_come_one_by_one_and_dropping_them_cancels_the_rest() {
    let (hanging, _hanging) = service(|_| std::future::pending());
    let (quick, _quick) = service(|_| async { Ok(json!("quick")) });
    let (client, net, _grape) = client(&[hanging, quick]).await;
    let mut replies = client.map_each("key", &json!(1), None, options()).await.unwrap();
    assert_eq!(replies.left(), 2);
    let first = timeout(PATIENCE, replies.next()).await.expect("one is quick");
    assert_eq!((first, replies.left()), (Some((quick, Ok(json!("quick")))), 1));
    drop(replies);
    // A client with nothing in flight stops at once; with the hanging request it would take its whole timeout.
    timeout(PATIENCE / 2, client.stop()).await.expect("nothing is in flight");
    assert_eq!(net.count(|e| matches!(e, Event::ReplyReceived { .. })), 1);
}

#[tokio::test]
async fn the_timeout_is_each_requests_and_the_lookups() {
    let (hanging, _hanging) = service(|_| std::future::pending());
    let (quick, _quick) = service(|_| async { Ok(json!("quick")) });
    let (client, _, _grape) = client(&[hanging, quick]).await;
    let options = RequestOptions::default().timeout(Duration::from_millis(300));
    let mut answers = client.map("key", &json!(1), None, options).await.unwrap();
    answers.sort_by_key(|(at, _)| *at == hanging);
    assert_eq!(answers, [(quick, Ok(json!("quick"))), (hanging, Err(RpcError::Timeout))]);
}
