//! Ending clients and servers in good order, over µTP on loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::{join, join_all};
use grenache::event::Event;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, RequestOptions, RpcError, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use common::{PATIENCE, Recorder, any_port};

mod common;

fn endpoint() -> (Endpoint, Arc<Recorder>) {
    let (recorder, net) = Recorder::new();
    (Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap(), recorder)
}

fn client() -> (PeerRpcClient, Arc<Recorder>) {
    let (endpoint, net) = endpoint();
    (PeerRpcClient::new(&endpoint, None, ClientConfig::default()), net)
}

/// A server that gives each payload back as soon as the semaphore lets it.
fn echo(endpoint: &Endpoint) -> (PeerRpcServer, Arc<Semaphore>) {
    let go = Arc::new(Semaphore::new(0));
    let waits = go.clone();
    let server = PeerRpcServer::serve(endpoint, ServerConfig::default(), move |request| {
        let go = waits.clone();
        async move {
            go.acquire().await.unwrap().forget();
            Ok(request.payload)
        }
    });
    (server, go)
}

fn closed_in_order(event: &Event) -> bool {
    matches!(event, Event::UtpClosed { reason, .. } if reason == "closed")
}

#[tokio::test]
async fn a_stopped_server_answers_what_is_in_flight_and_ends_connections_with_a_fin() {
    let (serving, net) = endpoint();
    let to = serving.local_addr();
    let (server, go) = echo(&serving);
    let (client, client_net) = client();
    let payloads: Vec<Value> = (0..5).map(|n| json!(n)).collect();
    let asking = join_all(payloads.iter().map(|payload| client.request_at(to, "k", payload)));
    let stopping = async {
        net.until(5, |e| matches!(e, Event::RequestReceived { .. })).await;
        let letting_go = async {
            let options = RequestOptions::default().retries(0);
            let late = json!("late");
            let late = client.request_at_with(to, "k", &late, options);
            // Neither the server nor another of its connections reads it.
            let ((), late) = join(async { go.add_permits(5) }, late).await;
            late
        };
        join(server.stop(), letting_go).await.1
    };
    let (answers, late) = timeout(PATIENCE, join(asking, stopping)).await.expect("an end in time");
    assert_eq!(answers, payloads.into_iter().map(Ok).collect::<Vec<_>>());
    assert_eq!(late, Err(RpcError::TransportClose));
    client_net.until(1, closed_in_order).await;
    net.until(1, closed_in_order).await;
    // The same endpoint may serve on.
    let (_again, go) = echo(&serving);
    go.add_permits(1);
    let answer = timeout(PATIENCE, client.request_at(to, "k", &json!("again"))).await.unwrap();
    assert_eq!(answer, Ok(json!("again")));
}

#[tokio::test]
async fn a_stopped_client_waits_for_its_replies_and_ends_connections_with_a_fin() {
    let (serving, net) = endpoint();
    let to = serving.local_addr();
    let (_server, go) = echo(&serving);
    let (client, client_net) = client();
    let payload = json!("hello");
    let asking = client.request_at(to, "k", &payload);
    let stopping = async {
        net.until(1, |e| matches!(e, Event::RequestReceived { .. })).await;
        join(client.stop(), async { go.add_permits(1) }).await;
    };
    let (answer, ()) = timeout(PATIENCE, join(asking, stopping)).await.expect("an end in time");
    assert_eq!(answer, Ok(json!("hello")));
    assert_eq!(client.transports(), 0);
    net.until(1, closed_in_order).await;
    client_net.until(1, closed_in_order).await;
    assert_eq!(client.request_at(to, "k", &json!(1)).await, Err(RpcError::Stopped));
}

#[tokio::test]
async fn dropping_a_server_ends_its_handlers() {
    let (serving, net) = endpoint();
    let at = serving.local_addr();
    let alive = Arc::new(());
    let held = alive.clone();
    let server = PeerRpcServer::serve(&serving, ServerConfig::default(), move |_| {
        let held = held.clone();
        async move {
            let _held = held;
            std::future::pending().await
        }
    });
    let (client, _) = client();
    let asking = async {
        let options = RequestOptions::default().retries(0);
        client.request_at_with(at, "k", &json!(1), options).await
    };
    let dropping = async {
        net.until(1, |e| matches!(e, Event::RequestReceived { .. })).await;
        drop(server);
    };
    let (answer, ()) = timeout(PATIENCE, join(asking, dropping)).await.expect("an end in time");
    assert!(answer.unwrap_err().is_transport());
    let ended = async {
        while Arc::strong_count(&alive) > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the handler is gone");
}

#[tokio::test]
async fn the_fin_is_what_a_raw_peer_sees() {
    let (raw, _) = endpoint();
    let to: SocketAddr = raw.local_addr();
    let (client, _) = client();
    let payload = json!(1);
    let asking = client.request_at(to, "k", &payload);
    let peer = async {
        let mut stream = raw.accept().await.unwrap();
        let mut text = vec![0; 256];
        let len = stream.read(&mut text).await.unwrap();
        let (rid, _, _): (String, String, Value) = serde_json::from_slice(&text[..len]).unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, json!([rid, null, 2]).to_string().as_bytes()).await.unwrap();
        let (end, ()) = join(stream.read(&mut text), client.stop()).await;
        end.expect("a FIN, not a RESET")
    };
    let (answer, end) = timeout(PATIENCE, join(asking, peer)).await.expect("an end in time");
    assert_eq!((answer, end), (Ok(json!(2)), 0));
}
