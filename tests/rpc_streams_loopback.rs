//! Streamed calls over real sockets, by a service's name.

use std::sync::Arc;

use futures_util::future::join;
use grenache::link::{Link, LinkConfig};
use grenache::rpc::streaming::{StreamConfig, StreamError, StreamOptions};
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, RpcError, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use common::fake_grape::{Answer, FakeGrape};
use common::streams::{Count, Made, take};
use common::{PATIENCE, Recorder, any_port};

mod common;

fn endpoint() -> Endpoint {
    Endpoint::bind(&Recorder::new().1, any_port(), EndpointConfig::default()).unwrap()
}

/// A service of which one peer offers streams and one does not; and a client that finds both.
async fn one_of_two(handle: impl AsyncFnOnce(PeerRpcClient, grenache::rpc::streaming::StreamRequests)) {
    let (plain, streaming, asking) = (endpoint(), endpoint(), endpoint());
    let (_plain_server, _) = PeerRpcServer::new(&plain, ServerConfig::default());
    let (server, _requests) = PeerRpcServer::new(&streaming, ServerConfig::default());
    let streams = server.accept_streams(StreamConfig::default());
    let addresses = [plain.local_addr().to_string(), streaming.local_addr().to_string()];
    let grape = FakeGrape::new(move |_, _, _| Answer::Body(200, json!(addresses).to_string()));
    let (grape_address, _listening) = grape.listen(asking.net()).await;
    let link = Link::new(asking.net(), LinkConfig::new(grape_address));
    let client = PeerRpcClient::new(&asking, Some(link), ClientConfig::default());
    timeout(PATIENCE, handle(client, streams)).await.expect("an outcome in time");
}

#[tokio::test]
async fn a_call_by_key_goes_on_to_a_peer_that_offers_streams() {
    one_of_two(async |client, mut streams| {
        let answering = async {
            while let Some(request) = streams.next().await {
                request.replier.reply_without_body(request.key.into());
            }
        };
        let asking = async {
            for _ in 0..8 {
                let call = client.request_stream("service", &Value::Null).await.unwrap();
                assert_eq!(call.without_body().head().await.unwrap().0, "service");
            }
            let once = StreamOptions::default().retries(0);
            let mut unsupported = 0;
            for _ in 0..32 {
                match client.request_stream_with("service", &Value::Null, once).await {
                    Ok(call) => assert_eq!(call.without_body().head().await.unwrap().0, "service"),
                    Err(error) => {
                        assert_eq!(error, RpcError::Stream(StreamError::Unsupported));
                        unsupported += 1;
                    }
                }
            }
            assert!((1..32).contains(&unsupported), "{unsupported} of 32, each peer at random");
        };
        tokio::pin!(answering, asking);
        futures_util::future::select(answering, asking).await;
    })
    .await;
}

#[tokio::test]
async fn many_megabytes_each_way() {
    const LEN: u64 = 32 << 20;
    one_of_two(async |client, mut streams| {
        let (up, down) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let answering = async {
            let mut request = streams.next().await.unwrap();
            let mut reply = request.replier.reply(Value::Null);
            let mut made = Made::new(LEN, &down);
            let sending = async {
                tokio::io::copy(&mut made, &mut reply).await.unwrap();
                reply.shutdown().await.unwrap();
            };
            assert_eq!(join(take(&mut request.body, &up), sending).await.0.unwrap(), LEN);
        };
        let asking = async {
            let call = client.request_stream("service", &Value::Null).await.unwrap();
            let (_, mut body) = call.send(Made::new(LEN, &up)).head().await.unwrap();
            assert_eq!(take(&mut body, &down).await.unwrap(), LEN);
        };
        join(answering, asking).await;
        // µTP's windows of this test are the defaults: a megabyte each, and as much again for a slow reader.
        let most = 4 << 20;
        assert!(up.most_under_way() < most && down.most_under_way() < most, "{up:?} {down:?}");
    })
    .await;
}
