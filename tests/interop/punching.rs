//! Punches, messages and handshakes between our peers and those on libutp.

use std::net::SocketAddr;

use bytes::Bytes;
use grenache::punch::{HandshakeConfig, Puncher, Subscription};
use grenache::transport::Endpoint;
use serde_json::json;
use tokio::time::timeout;

use crate::common::PATIENCE;
use crate::grapes::{Kind, Ours, Theirs};
use crate::rpc::our_endpoint;
use crate::script::Script;

async fn pair() -> (Script, Endpoint, Puncher) {
    let (_, endpoint) = our_endpoint();
    let puncher = Puncher::new(&endpoint);
    (Script::start("rpc.js", &[]).await, endpoint, puncher)
}

async fn next(punched: &mut Subscription<SocketAddr>) -> SocketAddr {
    timeout(PATIENCE, punched.next()).await.expect("a punch in time").expect("the endpoint is open")
}

/// One punches, the other punches back at the address that it sees.
pub(crate) async fn punch_and_back(first: Kind) {
    let (mut theirs, endpoint, puncher) = pair().await;
    let mut punched = puncher.punched();
    let port = endpoint.local_addr().port();
    for who in [first, if first == Ours { Theirs } else { Ours }] {
        match who {
            Ours => {
                puncher.punch(theirs.address());
                assert_eq!(theirs.hear("punched").await["from"], port);
            }
            Theirs => {
                theirs.tell(json!({"do": "punch", "to": port})).await;
                assert_eq!(next(&mut punched).await, theirs.address());
            }
        }
    }
    assert_eq!(theirs.count("message"), 0);
}

/// Datagrams that are neither µTP nor a punch: some look a little like either.
pub(crate) async fn messages(sender: Kind) {
    let (mut theirs, endpoint, puncher) = pair().await;
    let mut messages = puncher.messages();
    for bytes in
        [&b"["[..], b"\xff", b"\xc3\xbf\x0a", b"\xc3\xbf\xc3\xbf", b"[\"a text of more than 20 bytes\"]", &[7; 1402]]
    {
        match sender {
            Ours => {
                endpoint.send_datagram(theirs.address(), Bytes::from_static(bytes));
                let message = theirs.hear("message").await;
                assert_eq!(message["hex"], hex::encode(bytes));
                assert_eq!(message["from"], endpoint.local_addr().port());
            }
            Theirs => {
                let to = endpoint.local_addr().port();
                theirs.tell(json!({"do": "send", "to": to, "hex": hex::encode(bytes)})).await;
                let message = timeout(PATIENCE, messages.next()).await.expect("a message in time").unwrap();
                assert_eq!((&message.payload[..], message.from), (bytes, theirs.address()));
            }
        }
    }
    assert_eq!(theirs.count("punched"), 0);
}

/// Both shake hands, one of them first: each hears of it.
pub(crate) async fn handshake(first: Kind) {
    let (mut theirs, endpoint, puncher) = pair().await;
    let port = endpoint.local_addr().port();
    let ours = puncher.handshake(theirs.address(), HandshakeConfig::default());
    let begin = json!({"do": "handshake", "to": port});
    if first == Theirs {
        theirs.tell(begin).await;
        let mut punched = puncher.punched();
        next(&mut punched).await;
        let (ours, theirs) = tokio::join!(ours, theirs.hear("handshake"));
        assert_eq!((ours, &theirs["with"]), (Ok(()), &json!(port)));
    } else {
        let theirs = async {
            theirs.hear("punched").await;
            theirs.tell(begin).await;
            theirs.hear("handshake").await
        };
        let (ours, theirs) = tokio::join!(ours, theirs);
        assert_eq!((ours, &theirs["with"]), (Ok(()), &json!(port)));
    }
}

/// A request over the same socket that was punched.
pub(crate) async fn request_after_a_punch(first: Kind) {
    let (mut theirs, endpoint, puncher) = pair().await;
    let mut punched = puncher.punched();
    let config = grenache::rpc::ClientConfig::default().pipeline(1);
    let client = grenache::rpc::PeerRpcClient::new(&endpoint, None, config);
    let server = |request: grenache::rpc::RequestParts| async move { Ok(request.payload) };
    let _server = grenache::rpc::PeerRpcServer::serve(&endpoint, Default::default(), server);
    match first {
        Ours => {
            puncher.punch(theirs.address());
            let port = theirs.hear("punched").await["from"].as_u64().unwrap();
            let from = SocketAddr::from(([127, 0, 0, 1], port as u16));
            assert_eq!(theirs.request(from, &json!("hello")).await, json!({"value": "hello"}));
        }
        Theirs => {
            theirs.tell(json!({"do": "punch", "to": endpoint.local_addr().port()})).await;
            let from = next(&mut punched).await;
            let reply = timeout(PATIENCE, client.request_at(from, "any", &json!("hello"))).await.unwrap();
            assert_eq!(reply, Ok(json!("hello")));
        }
    }
}
