//! Requests and replies between our peers and those on libutp that take one packet for one message.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, join_all, select};
use grenache::event::Event;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, RequestParts, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::common::{PATIENCE, Recorder, any_port};
use crate::grapes::{Kind, Ours, Theirs};
use crate::script::Script;

/// What a packet of 1,402 bytes holds beside µTP's header, and so the longest message to such a peer.
const PACKET: usize = 1382;

/// How long `[rid, key, payload]` or `[rid, null, payload]` is beside the payload: an id of 36 characters, and `"any"`
/// or `null`.
const REQUEST: usize = r#"["01234567-89ab-4cde-8f01-23456789abcd","any",]"#.len();
const REPLY: usize = r#"["01234567-89ab-4cde-8f01-23456789abcd",null,]"#.len();

/// One of ours, on loopback.
pub(crate) fn our_endpoint() -> (Arc<Recorder>, Endpoint) {
    let (recorder, net) = Recorder::new();
    (recorder, Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap())
}

/// A server and a client of different kinds.
struct Pair {
    theirs: Script,
    endpoint: Endpoint,
    net: Arc<Recorder>,
    client: PeerRpcClient,
    caller: Kind,
    _server: PeerRpcServer,
}

/// What `rpc.js` does with a request.
async fn answer(request: RequestParts) -> Result<Value, String> {
    if let Some(message) = request.payload["fail"].as_str() {
        return Err(message.to_owned());
    }
    match request.payload["bytes"].as_u64() {
        Some(length) => Ok("x".repeat(length as usize).into()),
        None => Ok(request.payload),
    }
}

impl Pair {
    /// `stream`: theirs reads a stream of texts, as the original does not. Ours has one request in flight on a
    /// connection, as peers of the original need it.
    async fn new(caller: Kind, stream: bool) -> Self {
        let theirs = Script::start("rpc.js", if stream { &["stream"] } else { &[] }).await;
        let (net, endpoint) = our_endpoint();
        let client = PeerRpcClient::new(&endpoint, None, ClientConfig::default().pipeline(1));
        let server = PeerRpcServer::serve(&endpoint, ServerConfig::default(), answer);
        Self { theirs, endpoint, net, client, caller, _server: server }
    }

    /// The outcome of a request, as `rpc.js` tells it.
    async fn request(&mut self, payload: Value) -> Value {
        match self.caller {
            Ours => match timeout(PATIENCE, self.client.request_at(self.theirs.address(), "any", &payload)).await {
                Ok(Ok(value)) => json!({ "value": value }),
                Ok(Err(error)) => json!({ "error": error.to_string() }),
                Err(_) => panic!("no answer to {payload}"),
            },
            Theirs => self.theirs.request(self.endpoint.local_addr(), &payload).await,
        }
    }

    async fn echoes(&mut self, payload: Value) {
        assert_eq!(self.request(payload.clone()).await, json!({ "value": payload }));
    }
}

/// All kinds of JSON, in all alphabets.
pub(crate) async fn small(caller: Kind) {
    let mut pair = Pair::new(caller, false).await;
    for payload in [
        json!("hello"),
        json!("café ☕ 𝄞 \u{7f} \"quoted\" \\ [{,"),
        json!({"ключ": ["値", {"nested": [1, -2.5, true, null]}]}),
        json!([]),
        json!(false),
        json!(9_007_199_254_740_991_i64),
    ] {
        pair.echoes(payload).await;
    }
}

pub(crate) async fn error(caller: Kind) {
    let mut pair = Pair::new(caller, false).await;
    for message in ["ERR_BOOM", "ошибка ☠"] {
        assert_eq!(pair.request(json!({ "fail": message })).await, json!({ "error": message }));
    }
    pair.echoes(json!("goes on")).await;
}

/// The largest request and the largest reply that fit one packet; one byte more is lost where it is read by packets.
pub(crate) async fn largest_in_a_packet(caller: Kind) {
    let mut pair = Pair::new(caller, false).await;
    let fits = |envelope: usize| PACKET - envelope - 2;
    let request = json!("x".repeat(fits(REQUEST)));
    let text = format!(r#"["01234567-89ab-4cde-8f01-23456789abcd","any",{request}]"#);
    assert_eq!(text.len(), PACKET);
    assert_eq!(pair.request(request.clone()).await, json!({ "value": request }));
    let length = fits(REPLY);
    assert_eq!(pair.request(json!({ "bytes": length })).await["value"].as_str().unwrap().len(), length);
    let lost = match caller {
        Ours => {
            let over = json!("x".repeat(fits(REQUEST) + 1));
            let asked = pin!(pair.client.request_at(pair.theirs.address(), "any", &over));
            match select(asked, pin!(pair.theirs.lost(2))).await {
                Either::Left((answer, _)) => panic!("answered: {answer:?}"),
                Either::Right((lost, _)) => lost,
            }
        }
        Theirs => {
            let to = pair.endpoint.local_addr().port();
            pair.theirs.tell(json!({"do": "request", "to": to, "payload": {"bytes": length + 1}})).await;
            pair.theirs.lost(2).await
        }
    };
    assert_eq!(lost, [PACKET as u64, 1]);
}

pub(crate) async fn one_after_the_other(caller: Kind) {
    const TIMES: usize = 500;
    let mut pair = Pair::new(caller, false).await;
    match caller {
        Ours => {
            for n in 0..TIMES {
                pair.echoes(json!(n)).await;
            }
        }
        Theirs => {
            let to = pair.endpoint.local_addr().port();
            pair.theirs.tell(json!({"do": "request", "to": to, "payload": "again", "times": TIMES})).await;
            let results = pair.theirs.hear("replies").await["results"].take();
            assert_eq!(results, json!(vec![json!({"value": "again"}); TIMES]));
        }
    }
    assert_eq!(pair.theirs.count("lost"), 0);
}

/// 64 at once: ours keeps one in flight on a connection, so that nothing is lost to a peer that reads packets. Theirs
/// does not: ours answers all, and theirs gets what it can read.
pub(crate) async fn at_once(caller: Kind) -> String {
    const REQUESTS: usize = 64;
    let mut pair = Pair::new(caller, false).await;
    match caller {
        Ours => {
            let (client, to) = (&pair.client, pair.theirs.address());
            let all = join_all((0..REQUESTS).map(async |n| client.request_at(to, "any", &json!(n)).await));
            let replies = timeout(PATIENCE, all).await.expect("all are answered");
            for (n, reply) in replies.into_iter().enumerate() {
                assert_eq!(reply, Ok(json!(n)));
            }
            assert_eq!(client.transports(), 3);
            pair.echoes(json!("goes on")).await;
            assert_eq!((pair.theirs.count("request"), pair.theirs.count("lost")), (0, 0));
            "ok".to_owned()
        }
        Theirs => {
            let to = pair.endpoint.local_addr().port();
            let ask = json!({"do": "request", "to": to, "payload": "x", "atOnce": REQUESTS, "timeout": 2000});
            pair.theirs.tell(ask).await;
            let results = pair.theirs.hear("replies").await["results"].take();
            let replies = results.as_array().unwrap().iter().filter(|result| result["value"] == "x").count();
            // All have arrived, and all are answered: the replies that share a packet are what it cannot read.
            assert_eq!(pair.net.count(|event| matches!(event, Event::RequestReceived { .. })), REQUESTS);
            assert_eq!(pair.net.count(|event| matches!(event, Event::ReplySent { error: None, .. })), REQUESTS);
            format!("{replies} of {REQUESTS} replies read")
        }
    }
}

/// The same where theirs reads a stream: nothing is lost, whoever asks, and however many are in flight.
pub(crate) async fn at_once_to_a_stream(caller: Kind) {
    const REQUESTS: usize = 256;
    let mut pair = Pair::new(caller, true).await;
    match caller {
        Ours => {
            let client = PeerRpcClient::new(&pair.endpoint, None, ClientConfig::default());
            let (client, to) = (&client, pair.theirs.address());
            let all = join_all((0..REQUESTS).map(async |n| client.request_at(to, "any", &json!(n)).await));
            for (n, reply) in timeout(PATIENCE, all).await.expect("all are answered").into_iter().enumerate() {
                assert_eq!(reply, Ok(json!(n)));
            }
        }
        Theirs => {
            let to = pair.endpoint.local_addr().port();
            pair.theirs.tell(json!({"do": "request", "to": to, "payload": "x", "atOnce": REQUESTS})).await;
            let results = pair.theirs.hear("replies").await["results"].take();
            assert_eq!(results, json!(vec![json!({"value": "x"}); REQUESTS]));
        }
    }
}

/// Texts of many packets to a peer that reads a stream.
pub(crate) async fn large(caller: Kind) {
    let mut pair = Pair::new(caller, true).await;
    for length in [200_000, 2_000_000] {
        let reply = pair.request(json!({ "bytes": length })).await;
        assert_eq!(reply["value"].as_str().map(str::len), Some(length), "a reply of {length} bytes");
        let request = json!({ "text": "é[{\"".repeat(length / 5) });
        pair.echoes(request).await;
    }
}
