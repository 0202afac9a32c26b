//! Payloads and results as types, on loopback.

use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, RequestOptions, RequestParts, RpcError, ServerConfig};
use grenache::transport::Endpoint;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

use common::{PATIENCE, Recorder};

mod common;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Shape {
    Circle { radius: f64 },
    Square { side: f64 },
}

/// A service of areas; a negative length is an error. The endpoint is on any port of every address.
fn shapes() -> (PeerRpcServer, SocketAddr) {
    let endpoint = Endpoint::listen(&Recorder::new().1, 0).unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], endpoint.local_addr().port()));
    let handler = |request: RequestParts<Shape>| async move {
        let (length, factor) = match request.payload {
            Shape::Circle { radius } => (radius, std::f64::consts::PI),
            Shape::Square { side } => (side, 1.0),
        };
        if length < 0.0 { Err("ERR_NEGATIVE".to_owned()) } else { Ok((length * length * factor, request.key)) }
    };
    (PeerRpcServer::serve_as(&endpoint, ServerConfig::default(), handler), at)
}

fn client() -> PeerRpcClient {
    let endpoint = Endpoint::listen(&Recorder::new().1, 0).unwrap();
    PeerRpcClient::new(&endpoint, None, ClientConfig::default()).with(RequestOptions::default().timeout(PATIENCE))
}

#[tokio::test]
async fn types_go_there_and_come_back() {
    let ((_server, at), client) = (shapes(), client());
    let area: (f64, String) = client.request_at_as(at, "area", &Shape::Square { side: 3.0 }).await.unwrap();
    assert_eq!(area, (9.0, "area".to_owned()));
    let failed = client.request_at_as::<_, (f64, String)>(at, "area", &Shape::Circle { radius: -1.0 }).await;
    assert_eq!(failed, Err(RpcError::Remote("ERR_NEGATIVE".to_owned())));
    // Beside raw JSON, which is the same on the wire.
    let raw = json!({"kind": "square", "side": 2.0});
    assert_eq!(client.request_at(at, "area", &raw).await, Ok(json!([4.0, "area"])));
}

#[tokio::test]
async fn what_does_not_fit_its_type_is_told_to_whoever_can_change_it() {
    let ((_server, at), client) = (shapes(), client());
    let asked = client.request_at(at, "area", &json!({"kind": "line"})).await.unwrap_err().to_string();
    assert!(asked.starts_with("ERR_REQUEST_TYPE: unknown variant `line`"), "{asked}");
    let got = client.request_at_as::<_, String>(at, "area", &Shape::Square { side: 3.0 }).await.unwrap_err();
    assert!(matches!(&got, RpcError::ReplyType(why) if why.contains("expected a string")), "{got}");
    assert!(got.to_string().starts_with("ERR_REPLY_TYPE: "), "{got}");
    // JSON has no key but strings: nothing is sent.
    let pairs = std::collections::BTreeMap::from([((1, 2), 3)]);
    let unsent = client.request_at_as::<_, String>(at, "area", &pairs).await;
    assert!(matches!(unsent, Err(RpcError::RequestType(_))), "{unsent:?}");
}

#[tokio::test]
async fn a_handle_with_options_of_its_own() {
    let endpoint = Endpoint::listen(&Recorder::new().1, 0).unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], endpoint.local_addr().port()));
    let _server = PeerRpcServer::serve(&endpoint, ServerConfig::default(), |_| std::future::pending());
    let impatient = client().with(RequestOptions::default().timeout(Duration::from_millis(50)));
    assert_eq!(impatient.request_at_as::<_, ()>(at, "k", &()).await, Err(RpcError::Timeout));
}
