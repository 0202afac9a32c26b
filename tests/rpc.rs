//! Requests and replies over µTP on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use grenache::event::Event;
use grenache::link::{Link, LinkConfig};
use grenache::rpc::{
    ClientConfig, ERR_NO_REPLY, ERR_REQUEST_PARSE, PeerRpcClient, PeerRpcServer, RequestOptions, RpcError, ServerConfig,
};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use common::fake_grape::{Answer, FakeGrape};
use common::{PATIENCE, Recorder, any_port};

mod common;

fn endpoint() -> (Endpoint, Arc<Recorder>) {
    let (recorder, net) = Recorder::new();
    (Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap(), recorder)
}

/// A server that gives each payload back, but for a few that it treats otherwise.
fn echo(endpoint: &Endpoint) -> PeerRpcServer {
    PeerRpcServer::serve(endpoint, ServerConfig::default(), |request| async move {
        match request.payload.as_str() {
            Some("hello") => Ok("world".into()),
            Some("fail") => Err("ERR_BOOM".to_owned()),
            Some("hang") => std::future::pending().await,
            Some("who") => Ok(request.from.to_string().into()),
            Some("panic") => panic!("a handler's own fault"),
            _ => Ok(request.payload),
        }
    })
}

struct Pair {
    to: SocketAddr,
    server: PeerRpcServer,
    server_net: Arc<Recorder>,
    client: PeerRpcClient,
    client_address: SocketAddr,
    client_net: Arc<Recorder>,
}

fn pair(config: ClientConfig) -> Pair {
    let (serving, server_net) = endpoint();
    let (asking, client_net) = endpoint();
    Pair {
        to: serving.local_addr(),
        server: echo(&serving),
        server_net,
        client: PeerRpcClient::new(&asking, None, config),
        client_address: asking.local_addr(),
        client_net,
    }
}

impl Pair {
    async fn ask(&self, payload: Value) -> Result<Value, RpcError> {
        timeout(PATIENCE, self.client.request_at(self.to, "key", &payload)).await.expect("an outcome in time")
    }
}

fn is_sent(event: &Event) -> bool {
    matches!(event, Event::RequestSent { .. })
}

fn is_end(event: &Event) -> bool {
    matches!(event, Event::ReplyReceived { .. } | Event::RequestFailed { .. })
}

#[tokio::test]
async fn hello_world() {
    let pair = pair(ClientConfig::default());
    assert_eq!(pair.ask(json!("hello")).await, Ok(json!("world")));
    assert_eq!(pair.ask(json!("fail")).await.unwrap_err().to_string(), "ERR_BOOM");
    assert_eq!(pair.ask(json!("who")).await, Ok(json!(pair.client_address.to_string())), "from the shared socket");
    assert_eq!(pair.ask(json!("panic")).await, Err(RpcError::Remote(ERR_NO_REPLY.to_owned())));
    assert_eq!(pair.ask(json!("hello")).await, Ok(json!("world")), "the server goes on");
    assert_eq!(pair.client.transports(), 1);
    assert_eq!((pair.client_net.count(is_sent), pair.client_net.count(is_end)), (5, 5));
    let received =
        pair.server_net.count(|e| matches!(e, Event::RequestReceived { from, .. } if *from == pair.client_address));
    let replied = pair.server_net.count(|e| matches!(e, Event::ReplySent { to, .. } if *to == pair.client_address));
    assert_eq!((received, replied), (5, 5));
}

#[tokio::test]
async fn any_number_in_flight() {
    for (count, config) in [
        (2, ClientConfig::default()),
        (256, ClientConfig::default()),
        (256, ClientConfig::default().transports(1)),
        (256, ClientConfig::default().pipeline(1)),
    ] {
        let pair = pair(config);
        let answers = join_all((0..count).map(|n| pair.ask(json!({"n": n})))).await;
        assert_eq!(answers, (0..count).map(|n| Ok(json!({"n": n}))).collect::<Vec<_>>());
        assert!(pair.client.transports() <= 3);
        assert_eq!(pair.client_net.count(is_end), count);
    }
}

#[tokio::test]
async fn payloads_of_any_size_and_any_script() {
    let pair = pair(ClientConfig::default());
    for payload in [
        Value::Null,
        json!({"utf8": "ÿ€🚀 \u{0} \" \\ \u{2028}"}),
        json!([[[[]]], {"": {}}, 1.5, -1, u64::MAX, true]),
        json!("x".repeat(2 << 10)),
        json!("é🚀".repeat(200 << 10)),
    ] {
        assert_eq!(pair.ask(payload.clone()).await, Ok(payload));
    }
    let large = [json!("a".repeat(1 << 20)), json!("b".repeat(1 << 20)), json!("small")];
    let answers = join_all(large.iter().map(|payload| pair.ask(payload.clone()))).await;
    assert_eq!(answers, large.map(Ok));
}

#[tokio::test]
async fn malformed_requests_over_the_wire() {
    let (serving, net) = endpoint();
    let server = echo(&serving);
    let (asking, _) = endpoint();
    let mut stream = asking.connect(serving.local_addr()).await.unwrap();
    stream.write_all(b"[]{}\"x\" 0 null true \0\xff [\"r\",1] [\"good\",\"k\",\"hello\"]").await.unwrap();
    let expected = format!(r#"["r","{ERR_REQUEST_PARSE}",null]["good",null,"world"]"#);
    let mut answer = vec![0; expected.len()];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
    assert_eq!(server.malformed(), 8);
    assert_eq!(net.count(|e| matches!(e, Event::Malformed { layer: "rpc", .. })), 8);
}

#[tokio::test]
async fn the_timeout_is_kept() {
    let pair = pair(ClientConfig::default());
    pair.ask(json!("hello")).await.unwrap();
    let options = RequestOptions::default().timeout(Duration::from_millis(100));
    let begun = Instant::now();
    let hanging = json!("hang");
    let answer = pair.client.request_at_with(pair.to, "key", &hanging, options).await;
    assert_eq!(answer, Err(RpcError::Timeout));
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!(pair.ask(json!("hello")).await, Ok(json!("world")));
    assert_eq!((pair.client_net.count(is_sent), pair.client_net.count(is_end)), (3, 3));
}

#[tokio::test]
async fn a_server_that_goes_away_closes_the_transport() {
    let mut pair = pair(ClientConfig::default());
    let hanging = json!("hang");
    let options = RequestOptions::default().retries(0);
    let asking = pair.client.request_at_with(pair.to, "key", &hanging, options);
    let server_net = pair.server_net.clone();
    let (other, _) = endpoint();
    let dying = async {
        server_net.until(1, |e| matches!(e, Event::RequestReceived { .. })).await;
        // Its connections close; the handler that hangs holds none of them.
        pair.server = echo(&other);
    };
    let (answer, ()) = timeout(PATIENCE, join(asking, dying)).await.expect("an outcome in time");
    let error = answer.unwrap_err();
    assert!(error.is_transport(), "{error}");
    assert!(["ERR_TRANSPORT_CLOSE", "UTP_ECONNRESET"].contains(&error.to_string().as_str()), "{error}");
    assert_eq!(pair.client_net.count(is_end), 1);
}

#[tokio::test]
async fn nobody_there() {
    let (asking, net) = endpoint();
    let client = PeerRpcClient::new(&asking, None, ClientConfig::default());
    let nobody = net_address(&net);
    let options = RequestOptions::default().timeout(Duration::from_millis(300)).retries(0);
    let error = client.request_at_with(nobody, "key", &Value::Null, options).await.unwrap_err().to_string();
    assert!(["ERR_TIMEOUT", "UTP_ETIMEDOUT", "UTP_ECONNRESET"].contains(&error.as_str()), "{error}");
}

/// An address that was free a moment ago.
fn net_address(net: &Arc<Recorder>) -> SocketAddr {
    use grenache::net::Network as _;
    net.bind_udp(any_port()).unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn one_process_serves_and_asks_from_one_socket() {
    let (first, _) = endpoint();
    let (second, _) = endpoint();
    let _servers = (echo(&first), echo(&second));
    let asks = |endpoint: &Endpoint| PeerRpcClient::new(endpoint, None, ClientConfig::default());
    let (one, two) = (asks(&first), asks(&second));
    let who = json!("who");
    let (from_first, from_second) = timeout(
        PATIENCE,
        join(one.request_at(second.local_addr(), "k", &who), two.request_at(first.local_addr(), "k", &who)),
    )
    .await
    .unwrap();
    assert_eq!(from_first, Ok(json!(first.local_addr().to_string())));
    assert_eq!(from_second, Ok(json!(second.local_addr().to_string())));
}

#[tokio::test]
async fn requests_by_key_find_the_service_and_another_where_one_is_gone() {
    let (serving, _) = endpoint();
    let _server = echo(&serving);
    let (asking, net) = endpoint();
    let (alive, dead) = (serving.local_addr(), net_address(&net));
    let grape = FakeGrape::new(move |_, _, name| match name.as_str() {
        Some("service") => Answer::Body(200, json!([alive.to_string()]).to_string()),
        Some("half") => Answer::Body(200, json!([dead.to_string(), alive.to_string()]).to_string()),
        _ => Answer::Body(200, "[]".to_owned()),
    });
    let (grape_address, _listening) = grape.listen(asking.net()).await;
    let link = Link::new(asking.net(), LinkConfig::new(grape_address));
    let endpoint = {
        let config = EndpointConfig::default().connect_timeout(Duration::from_millis(200));
        Endpoint::bind(asking.net(), any_port(), config).unwrap()
    };
    let client = PeerRpcClient::new(&endpoint, Some(link), ClientConfig::default());
    let hello = json!("hello");
    assert_eq!(client.request("service", &hello).await, Ok(json!("world")));
    for _ in 0..8 {
        assert_eq!(client.request("half", &hello).await, Ok(json!("world")), "one retry suffices");
    }
    assert_eq!(client.request("nobody", &hello).await.unwrap_err().to_string(), "ERR_GRAPE_LOOKUP_EMPTY");
    let options = RequestOptions::default().timeout(Duration::from_secs(5)).retries(0);
    let all = client.map("half", &hello, None, options).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all.iter().filter(|(to, answer)| *to == alive && *answer == Ok(json!("world"))).count(), 1);
    assert_eq!(client.map("half", &hello, Some(1), options).await.unwrap().len(), 1);
    assert_eq!(net.count(is_end), 13);
}
