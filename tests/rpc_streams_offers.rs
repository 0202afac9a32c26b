//! Streamed calls are made only where both sides offer them: what goes over the wire, to whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join;
use grenache::rpc::streaming::{StreamConfig, StreamError, StreamRequest};
use grenache::rpc::{PeerRpcServer, RpcError, ServerConfig};
use grenache::transport::{Endpoint, UtpStream};
use grenache_sim::engine::World;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use common::streams::{SERVER, client, endpoint, simulated};

mod common;

const ASK: &[u8] = b"GRENACHE-STREAM/1 ASK\n";
const YES: &[u8] = b"GRENACHE-STREAM/1 YES\n";

/// Asks a peer that `server` plays on one connection. Gives the error, the time until it came, and what `server` gave.
fn ask<T>(server: impl AsyncFnOnce(UtpStream) -> T) -> (RpcError, Duration, T) {
    let (result, _) = simulated(1, 0.0, async |world| {
        let serving = endpoint(&world, "server");
        let asking = async {
            let error = begin(&world).await.expect_err("there are no streams");
            (error, world.now())
        };
        let (seen, (error, at)) = join(async { server(serving.accept().await.unwrap()).await }, asking).await;
        (error, at, seen)
    });
    result
}

async fn begin(world: &World) -> Result<(), RpcError> {
    let call = client(world, "client").request_stream_at(SERVER.parse().unwrap(), "key", &json!("payload")).await?;
    call.without_body().head().await?;
    Ok(())
}

/// All that comes on a connection until it ends.
async fn all_of(stream: &mut UtpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut packet = [0; 2048];
    while let Ok(len @ 1..) = stream.read(&mut packet).await {
        seen.extend_from_slice(&packet[..len]);
    }
    seen
}

#[test]
fn a_peer_like_the_original_gets_the_question_and_no_other_byte() {
    let handled = AtomicUsize::new(0);
    let (error, took, seen) = ask(async |mut stream: UtpStream| {
        // It takes each packet for a JSON text, calls its handler for those that are one, and ignores the others.
        let mut seen = Vec::new();
        let mut packet = [0; 2048];
        while let Ok(len @ 1..) = stream.read(&mut packet).await {
            seen.extend_from_slice(&packet[..len]);
            if serde_json::from_slice::<Value>(&packet[..len]).is_ok_and(|text| !text.is_null()) {
                handled.fetch_add(1, Ordering::Relaxed);
                stream.write_all(br#"["rid",null,"handled"]"#).await.unwrap();
            }
        }
        seen
    });
    assert_eq!(error, RpcError::Stream(StreamError::Unsupported));
    assert!(error.to_string().starts_with("ERR_STREAM_UNSUPPORTED"));
    assert_eq!((seen.as_slice(), handled.into_inner()), (ASK, 0));
    let offer_timeout = Duration::from_secs(5);
    assert!(took >= offer_timeout && took < offer_timeout + Duration::from_millis(100), "{took:?}");
}

#[test]
fn a_call_that_is_dropped_before_the_offer_ends_there() {
    let (seen, events) = simulated(1, 0.0, async |world| {
        let serving = endpoint(&world, "server");
        let asking = timeout(Duration::from_secs(1), begin(&world));
        let (seen, asked) = join(async { all_of(&mut serving.accept().await.unwrap()).await }, asking).await;
        assert!(asked.is_err() && world.now() < Duration::from_secs(2), "{asked:?} after {:?}", world.now());
        seen
    });
    assert_eq!(seen, ASK);
    let count = |kind: &str| events.iter().filter(|event| event.contains(kind)).count();
    assert_eq!((count("stream-started"), count("stream-ended")), (1, 1));
}

#[test]
fn a_peer_that_answers_otherwise_gets_no_other_byte() {
    for answer in [&b"["[..], ASK, b"GRENACHE-STREAM/1 YEP", b"GRENACHE-STREAM/2 YES\n", br#"["",null,1]"#] {
        let (error, took, seen) = ask(async |mut stream: UtpStream| {
            let mut question = [0; ASK.len()];
            stream.read_exact(&mut question).await.unwrap();
            stream.write_all(answer).await.unwrap();
            [question.to_vec(), all_of(&mut stream).await].concat()
        });
        assert_eq!(error, RpcError::Stream(StreamError::Unsupported));
        assert_eq!(seen, ASK, "after {}", String::from_utf8_lossy(answer));
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[test]
fn a_peer_that_closes_offers_nothing() {
    let (error, took, ()) = ask(async |stream: UtpStream| drop(stream));
    assert_eq!(error, RpcError::Stream(StreamError::Unsupported));
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (error, _, ()) = ask(async |stream: UtpStream| stream.reset());
    assert_eq!(error, RpcError::UtpReset, "a failure of the connection tells nothing of offers");
}

#[test]
fn a_server_of_ours_that_offers_nothing_closes_at_once_and_goes_on() {
    for withdrawn in [false, true] {
        let ((), events) = simulated(1, 0.0, async |world| {
            let handled = Arc::new(AtomicUsize::new(0));
            let count = handled.clone();
            let server = PeerRpcServer::serve(&endpoint(&world, "server"), ServerConfig::default(), move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                async { Ok(json!("plain")) }
            });
            if withdrawn {
                drop(server.accept_streams(StreamConfig::default()));
            }
            assert_eq!(begin(&world).await, Err(RpcError::Stream(StreamError::Unsupported)));
            assert!(world.now() < Duration::from_secs(1), "{:?}", world.now());
            assert_eq!((handled.load(Ordering::Relaxed), server.malformed()), (0, 0));
            let client = client(&world, "client");
            assert_eq!(client.request_at(SERVER.parse().unwrap(), "k", &Value::Null).await, Ok(json!("plain")));
        });
        assert_eq!(events.iter().filter(|event| event.contains(r#""reason":"not offered""#)).count(), 1);
    }
}

#[test]
fn an_offer_changes_nothing_for_plain_connections() {
    // Beginnings that are none of a streamed call, however close to one.
    for sent in [
        &br#"["r","k",1]["s","k",2]"#[..],
        br#"G["r","k",1]"#,
        br#"GRENACHE-STREAM/1 ASX["r","k",1]"#,
        br#" GRENACHE-STREAM/1 ASK"#,
        b"GRENACHE-STREAM/1",
        b"",
    ] {
        for piece in [1, 1000] {
            let answer = |offered: bool| {
                let (answer, _) = simulated(1, 0.0, async |world| {
                    let server =
                        PeerRpcServer::serve(&endpoint(&world, "server"), ServerConfig::default(), async |request| {
                            Ok(request.payload)
                        });
                    let _streams = offered.then(|| server.accept_streams(StreamConfig::default()));
                    let mut stream = endpoint(&world, "client").connect(SERVER.parse().unwrap()).await.unwrap();
                    for piece in sent.chunks(piece) {
                        stream.write_all(piece).await.unwrap();
                    }
                    stream.shutdown().await.unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).await.unwrap();
                    (answer, server.malformed())
                });
                answer
            };
            if sent.starts_with(b"[") {
                assert_eq!(answer(true), (br#"["r",null,1]["s",null,2]"#.to_vec(), 0));
            }
            assert_eq!(answer(true), answer(false), "{} in pieces of {piece}", String::from_utf8_lossy(sent));
        }
    }
}

/// Connects to a server that answers each streamed call with its payload and its body.
fn to_echo<T>(asking: impl AsyncFnOnce(UtpStream) -> T) -> T {
    simulated(1, 0.0, async |world| {
        let (server, _requests) = PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default());
        server.serve_streams(StreamConfig::default(), async |request| {
            let StreamRequest { payload, mut body, replier, .. } = request;
            let mut reply = replier.reply(payload);
            tokio::io::copy(&mut body, &mut reply).await.unwrap();
            reply.shutdown().await.unwrap();
        });
        let asking_from: Endpoint = endpoint(&world, "client");
        asking(asking_from.connect(SERVER.parse().unwrap()).await.unwrap()).await
    })
    .0
}

#[test]
fn the_bytes_of_a_call() {
    let (request, reply) = (br#"["r","k",{"a":1}]"#, br#"["r",null,{"a":1}]"#);
    let answer = to_echo(async |mut stream| {
        stream.write_all(ASK).await.unwrap();
        let mut offer = [0; YES.len()];
        stream.read_exact(&mut offer).await.unwrap();
        assert_eq!(offer, *YES);
        stream.write_all(&[b"H\0\0\0\x11", &request[..], b"D\0\0\0\x05hello", b"E\0\0\0\0"].concat()).await.unwrap();
        all_of(&mut stream).await
    });
    assert_eq!(answer, [b"H\0\0\0\x12", &reply[..], b"D\0\0\0\x05hello", b"E\0\0\0\0"].concat());
}

#[test]
fn the_bytes_of_a_call_from_a_client() {
    simulated(1, 0.0, async |world| {
        let serving = endpoint(&world, "server");
        let client = client(&world, "client");
        let asking = async {
            let call = client.request_stream_at(SERVER.parse().unwrap(), "k", &json!({"a": 1})).await.unwrap();
            let rid = call.rid.clone();
            let (value, mut body) = call.send(&b"hello"[..]).head().await.unwrap();
            let mut text = String::new();
            body.read_to_string(&mut text).await.unwrap();
            (rid, value, text)
        };
        let answering = async {
            let mut stream = serving.accept().await.unwrap();
            stream.read_exact(&mut [0; ASK.len()]).await.unwrap();
            stream.write_all(YES).await.unwrap();
            stream.write_all(b"H\0\0\0\x0a[\"\",null,7D\0\0\0\x03abc").await.unwrap();
            // Its head is cut off above: the client refuses it.
            all_of(&mut stream).await;
            let mut stream = serving.accept().await.unwrap();
            stream.read_exact(&mut [0; ASK.len()]).await.unwrap();
            stream.write_all(YES).await.unwrap();
            stream.write_all(b"H\0\0\0\x0b[\"\",null,7]D\0\0\0\x03abcD\0\0\0\x01dE\0\0\0\0").await.unwrap();
            all_of(&mut stream).await
        };
        let refused = async {
            let call = client.request_stream_at(SERVER.parse().unwrap(), "k", &json!({"a": 1})).await.unwrap();
            let error = call.without_body().head().await.unwrap_err();
            assert!(error.to_string().starts_with("ERR_STREAM_PROTOCOL: the reply's head"), "{error}");
            asking.await
        };
        let (seen, (rid, value, text)) = join(answering, refused).await;
        assert_eq!((value, text.as_str()), (json!(7), "abcd"));
        let head = format!(r#"["{rid}","k",{{"a":1}}]"#);
        let expected =
            format!("H\0\0\0{}{head}D\0\0\0\x05helloE\0\0\0\0", char::from(u8::try_from(head.len()).unwrap()));
        assert_eq!(String::from_utf8(seen).unwrap(), expected);
    });
}
