//! Streamed calls in the simulator, over links that lose packets and let them overtake each other.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join3};
use grenache::rpc::streaming::{FAREWELL, StreamConfig, StreamError, StreamOptions, StreamRequest};
use grenache::rpc::{ERR_NO_REPLY, PeerRpcServer, RpcError, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use common::streams::{Count, Made, SERVER, UNDER_WAY, client, endpoint, simulated, stream_error, take};

mod common;

const MB: u64 = 1_000_000;

/// So many megabytes each way, both at once. Gives how far the request's body was when the reply began to come.
fn both_ways(seed: u64, len: u64) -> (u64, Vec<String>) {
    simulated(seed, 0.02, async |world| {
        let (server, _requests) = PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default());
        let mut streams = server.accept_streams(StreamConfig::default());
        let (up, down) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let serving = async {
            let StreamRequest { key, payload, mut body, replier, .. } = streams.next().await.unwrap();
            assert_eq!((key.as_str(), &payload), ("echo", &json!({"len": len})));
            let mut reply = replier.reply(json!("here it comes"));
            let mut made = Made::new(len, &down);
            let (received, sent) = join(take(&mut body, &up), async {
                tokio::io::copy(&mut made, &mut reply).await.unwrap();
                reply.shutdown().await
            })
            .await;
            sent.unwrap();
            assert_eq!(received.unwrap(), len);
        };
        let asking = async {
            let client = client(&world, "client");
            let call = client.request_stream_at(SERVER.parse().unwrap(), "echo", &json!({"len": len})).await.unwrap();
            let (head, mut body) = call.send(Made::new(len, &up)).head().await.unwrap();
            assert_eq!(head, "here it comes");
            let so_far = up.taken();
            assert_eq!(take(&mut body, &down).await.unwrap(), len);
            so_far
        };
        let ((), so_far) = join(serving, asking).await;
        for count in [&up, &down] {
            assert!(count.most_under_way() <= UNDER_WAY, "{} bytes under way", count.most_under_way());
        }
        so_far
    })
}

#[test]
fn bodies_larger_than_every_buffer_flow_both_ways_at_once() {
    for seed in 0..3 {
        let (so_far, events) = both_ways(seed, 3 * MB);
        assert!(so_far < MB, "the reply began after {so_far} bytes of the request");
        let ended = events.iter().filter(|event| event.contains("stream-ended")).count();
        let good = format!(r#""sent":{0},"received":{0},"error":null"#, 3 * MB);
        assert_eq!((ended, events.iter().filter(|event| event.contains(&good)).count()), (2, 2));
    }
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let run = || both_ways(7, MB / 4).1;
    assert_eq!(run(), run());
}

/// What came of a call: what the server said of the request's body and of its own, and what the client said of its.
struct Ends {
    request_read: Result<u64, StreamError>,
    reply_written: Result<(), StreamError>,
    asked: Result<(), RpcError>,
    events: Vec<String>,
}

/// Has a server read all and write for ever, both at once, after the head of its reply; `asking` is the client.
fn with_eager_server(asking: impl AsyncFnOnce(grenache::rpc::streaming::StreamCall) -> Result<(), RpcError>) -> Ends {
    let ((request_read, reply_written, asked), events) = simulated(1, 0.0, async |world| {
        let (server, _requests) = PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default());
        let mut streams = server.accept_streams(StreamConfig::default());
        let serving = async {
            let StreamRequest { mut body, replier, .. } = streams.next().await.unwrap();
            let mut reply = replier.reply(Value::Null);
            let (up, down) = (Count::default(), Arc::new(Count::default()));
            join(take(&mut body, &up), async {
                let copied = tokio::io::copy(&mut Made::new(u64::MAX, &down), &mut reply).await;
                copied.map(|_| ())
            })
            .await
        };
        let client = client(&world, "client");
        let call = client.request_stream_at(SERVER.parse().unwrap(), "k", &Value::Null).await.unwrap();
        let (asked, (read, written)) = join(asking(call), serving).await;
        sleep(FAREWELL).await;
        let known = |error: std::io::Error| stream_error::<()>(Err(error));
        (read.map_err(known), written.map_err(known), asked)
    });
    Ends { request_read, reply_written, asked, events }
}

#[test]
fn a_client_that_drops_its_call_cancels_both_bodies() {
    let ends = with_eager_server(async |call| {
        let mut call = call;
        call.body.write_all(b"\0").await.unwrap();
        sleep(Duration::from_secs(1)).await;
        drop(call);
        Ok(())
    });
    assert_eq!(ends.asked, Ok(()));
    assert!(matches!(&ends.request_read, Err(StreamError::Aborted(_))), "{:?}", ends.request_read);
    assert_eq!(ends.reply_written, Err(StreamError::Stopped));
    assert_eq!(ends.events.iter().filter(|event| event.contains("stream-ended")).count(), 2);
}

#[test]
fn a_client_that_gives_its_body_up_says_why() {
    let ends = with_eager_server(async |call| {
        let count = Arc::new(Count::default());
        let mut body = call.body;
        tokio::io::copy(&mut Made::new(MB, &count), &mut body).await.unwrap();
        body.abort("the disk is gone");
        // The reply is not affected by that.
        let (_, mut reply) = call.reply.head().await?;
        sleep(Duration::from_secs(5)).await;
        reply.read_exact(&mut vec![0; 500_000]).await.unwrap();
        Ok(())
    });
    assert_eq!(ends.asked, Ok(()));
    assert_eq!(ends.request_read, Err(StreamError::Aborted("the disk is gone".to_owned())));
    assert_eq!(ends.reply_written, Err(StreamError::Stopped), "once its reader was dropped");
    assert!(ends.events.iter().any(|event| event.contains("ERR_STREAM_ABORTED: the disk is gone")));
}

#[test]
fn a_reader_that_fails_aborts_the_body_with_its_error() {
    let ends = with_eager_server(async |call| {
        let chunks = [Ok(bytes::Bytes::from_static(b"\0")), Err(std::io::Error::other("no more of it"))];
        let (_, _body) = call.send_chunks(futures_util::stream::iter(chunks)).head().await?;
        sleep(Duration::from_secs(1)).await;
        Ok(())
    });
    assert_eq!(ends.request_read, Err(StreamError::Aborted("no more of it".to_owned())));
}

#[test]
fn a_client_that_stops_reading_lets_its_own_body_go_on() {
    let ends = with_eager_server(async |call| {
        let count = Arc::new(Count::default());
        let mut body = call.body;
        let (_, reply) = call.reply.head().await?;
        drop(reply);
        tokio::io::copy(&mut Made::new(MB, &count), &mut body).await.unwrap();
        body.shutdown().await.unwrap();
        Ok(())
    });
    assert_eq!((ends.request_read, ends.reply_written), (Ok(MB), Err(StreamError::Stopped)));
}

/// What a client gets from such a server, that it sends an endless body to: the reply, and what became of the body.
fn with_server(
    handler: impl AsyncFnOnce(StreamRequest),
) -> (Result<(Value, std::io::Result<u64>), RpcError>, StreamError) {
    let (result, events) = simulated(1, 0.02, async |world| {
        let (server, _requests) = PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default());
        let mut streams = server.accept_streams(StreamConfig::default());
        let client = client(&world, "client");
        let serving = async { handler(streams.next().await.unwrap()).await };
        let asking = async {
            let call = client.request_stream_at(SERVER.parse().unwrap(), "k", &Value::Null).await.unwrap();
            let (up, down) = (Arc::new(Count::default()), Count::default());
            let mut body = call.body;
            let mut endless = Made::new(u64::MAX, &up);
            let sending = tokio::io::copy(&mut endless, &mut body);
            let reading = async {
                let (value, mut body) = call.reply.head().await?;
                Ok((value, take(&mut body, &down).await))
            };
            join(reading, sending).await
        };
        let ((), (reply, sent)) = timeout(Duration::from_secs(120), join(serving, asking)).await.expect("it ends");
        sleep(FAREWELL).await;
        (reply, stream_error(sent))
    });
    assert_eq!(events.iter().filter(|event| event.contains("stream-ended")).count(), 2);
    result
}

#[test]
fn a_server_may_refuse_without_reading_the_body() {
    let (reply, sent) = with_server(async |request| request.replier.error("ERR_NOT_TODAY"));
    assert_eq!(reply.unwrap_err(), RpcError::Remote("ERR_NOT_TODAY".to_owned()));
    assert_eq!(sent, StreamError::Stopped);
}

#[test]
fn a_request_that_is_dropped_is_answered_with_an_error() {
    let (reply, sent) = with_server(async |request| drop(request));
    assert_eq!(reply.unwrap_err(), RpcError::Remote(ERR_NO_REPLY.to_owned()));
    assert_eq!(sent, StreamError::Stopped);
}

#[test]
fn a_server_may_answer_a_part_of_the_body_with_all_of_its_own() {
    let (reply, sent) = with_server(async |mut request| {
        request.body.read_exact(&mut [0; 1000]).await.unwrap();
        drop(request.body);
        let (count, mut reply) = (Arc::new(Count::default()), request.replier.reply(json!(1000)));
        tokio::io::copy(&mut Made::new(MB, &count), &mut reply).await.unwrap();
        reply.shutdown().await.unwrap();
    });
    let (value, body) = reply.unwrap();
    assert_eq!((value, body.unwrap()), (json!(1000), MB));
    assert_eq!(sent, StreamError::Stopped);
}

#[test]
fn a_server_that_gives_its_reply_up_says_why() {
    let (reply, _) = with_server(async |request| {
        let mut reply = request.replier.reply(Value::Null);
        tokio::io::copy(&mut Made::new(MB, &Arc::new(Count::default())), &mut reply).await.unwrap();
        reply.abort("out of order");
    });
    assert_eq!(stream_error(reply.unwrap().1), StreamError::Aborted("out of order".to_owned()));
}

#[test]
fn a_slow_reader_stops_the_writer_and_loses_nothing() {
    simulated(3, 0.02, async |world| {
        let (server, _requests) = PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default());
        let mut streams = server.accept_streams(StreamConfig::default());
        let count = Arc::new(Count::default());
        let client = client(&world, "client");
        let call = client.request_stream_at(SERVER.parse().unwrap(), "k", &Value::Null).await.unwrap();
        let asking = call.send(Made::new(2 * MB, &count)).head();
        let serving = async {
            let mut request = streams.next().await.unwrap();
            for _ in 0..3 {
                sleep(Duration::from_secs(20)).await;
                let stuck = count.made();
                assert!(stuck - count.taken() <= UNDER_WAY, "{stuck} bytes were made");
                sleep(Duration::from_secs(20)).await;
                assert_eq!(count.made(), stuck, "nothing moves");
                let mut some = (&mut request.body).take(300_000);
                take(&mut some, &count).await.unwrap();
            }
            assert_eq!(take(&mut request.body, &count).await.unwrap(), 2 * MB);
            request.replier.reply_without_body(json!("done"));
        };
        let ((), reply) = join(serving, asking).await;
        assert_eq!(reply.unwrap().0, "done");
    });
}

#[test]
fn a_reader_that_never_reads_is_given_up_after_the_idle_timeout() {
    simulated(4, 0.0, async |world| {
        let (server, _requests) = PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default());
        let mut streams = server.accept_streams(StreamConfig::default());
        let client = client(&world, "client");
        let idle = Duration::from_secs(30);
        let options = StreamOptions::default().idle_timeout(idle);
        let call = client.request_stream_at_with(SERVER.parse().unwrap(), "k", &Value::Null, options).await.unwrap();
        let mut request = streams.next().await.unwrap();
        let count = Arc::new(Count::default());
        let mut body = call.body;
        let begun = world.now();
        let sent = tokio::io::copy(&mut Made::new(u64::MAX, &count), &mut body).await;
        assert_eq!(stream_error(sent), StreamError::Idle(idle));
        let took = world.now() - begun;
        assert!(took >= idle && took < idle + Duration::from_secs(2), "{took:?}");
        // The server is told: what came is there to be read, and then the failure.
        let taken = Count::default();
        assert!(matches!(stream_error(take(&mut request.body, &taken).await), StreamError::Connection { .. }));
        assert!(taken.taken() > 0);
    });
}

#[test]
fn a_call_that_is_dropped_while_the_connection_is_blocked_is_reset_in_time() {
    let (took, _) = simulated(5, 0.0, async |world| {
        let (server, _requests) = PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default());
        let mut streams = server.accept_streams(StreamConfig::default());
        let client = client(&world, "client");
        let call = client.request_stream_at(SERVER.parse().unwrap(), "k", &Value::Null).await.unwrap();
        let mut request = streams.next().await.unwrap();
        let reply = call.send(Made::new(u64::MAX, &Arc::new(Count::default())));
        sleep(Duration::from_secs(10)).await;
        drop(reply);
        let begun = world.now();
        let mut writer = request.replier.reply(Value::Null);
        let failed = tokio::io::copy(&mut Made::new(u64::MAX, &Arc::new(Count::default())), &mut writer).await;
        let took = world.now() - begun;
        let error = stream_error(failed);
        assert!(matches!(error, StreamError::Stopped | StreamError::Connection { .. }), "{error:?}");
        let _ = request.body.read(&mut [0]).await;
        took
    });
    assert!(took <= FAREWELL + Duration::from_secs(1), "{took:?}");
}

/// A megabyte for a server while both hosts are cut off from each other for so long, from the middle of it on. Gives
/// what the server read, what the client was answered, and the events.
fn cut_off(outage: Duration) -> (std::io::Result<u64>, Result<Value, RpcError>, Vec<String>) {
    let ((read, answered), events) = simulated(8, 0.02, async |world| {
        let (server, _requests) = PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default());
        let mut streams = server.accept_streams(StreamConfig::default());
        let client = client(&world, "client");
        let count = Arc::new(Count::default());
        let call = client.request_stream_at(SERVER.parse().unwrap(), "k", &Value::Null).await.unwrap();
        let reply = call.send(Made::new(MB, &count));
        let mut request = streams.next().await.unwrap();
        take(&mut (&mut request.body).take(MB / 2), &count).await.unwrap();
        let cut = world.partition(&["server".into()], &["client".into()]);
        let healing = async {
            sleep(outage).await;
            world.heal(cut);
        };
        let serving = async {
            let read = take(&mut request.body, &count).await;
            if read.is_ok() {
                request.replier.reply_without_body(json!("done"));
            }
            read
        };
        let ((), read, answered) = join3(healing, serving, reply.head()).await;
        sleep(Duration::from_secs(120)).await;
        (read, answered.map(|(value, _)| value))
    });
    (read, answered, events)
}

#[test]
fn a_call_survives_a_short_outage_and_ends_on_both_sides_after_a_long_one() {
    let (read, answered, events) = cut_off(Duration::from_secs(5));
    assert_eq!((read.unwrap(), answered.unwrap()), (MB, json!("done")));
    let count = |events: &[String], kind: &str| events.iter().filter(|event| event.contains(kind)).count();
    assert_eq!((count(&events, "stream-ended"), count(&events, "utp-closed")), (2, 2));
    let (read, answered, events) = cut_off(Duration::from_secs(300));
    assert!(answered.unwrap_err().is_transport());
    stream_error(read);
    assert_eq!((count(&events, "stream-ended"), count(&events, "utp-closed")), (2, 2), "nothing is left");
}

#[test]
fn a_crash_of_either_side_ends_the_call_on_the_other() {
    for dying in ["server", "client"] {
        let ((), events) = simulated(6, 0.0, async |world| {
            let (server, _requests) = PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default());
            let mut streams = server.accept_streams(StreamConfig::default());
            let client = client(&world, "client");
            let call = client.request_stream_at(SERVER.parse().unwrap(), "k", &Value::Null).await.unwrap();
            let mut request = streams.next().await.unwrap();
            let mut reply = request.replier.reply(Value::Null);
            let (_, mut reply_body) = call.reply.head().await.unwrap();
            world.crash(dying);
            if dying == "server" {
                let mut body = call.body;
                let copying =
                    async { tokio::io::copy(&mut Made::new(u64::MAX, &Arc::new(Count::default())), &mut body).await };
                stream_error(copying.await);
                stream_error(reply_body.read(&mut [0]).await);
            } else {
                let mut endless = tokio::io::repeat(0);
                let writing = tokio::io::copy(&mut endless, &mut reply);
                let (written, read) = join(writing, request.body.read_u8()).await;
                stream_error(written);
                stream_error(read);
            }
        });
        let ended = events.iter().filter(|event| event.contains("stream-ended")).count();
        assert_eq!(ended, 1, "the one that lives tells");
    }
}
