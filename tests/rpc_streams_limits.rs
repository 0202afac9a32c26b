//! What streamed calls may take, and what becomes of peers that take more or do not keep to the protocol.

use std::time::Duration;

use futures_util::future::join;
use grenache::rpc::streaming::{
    BODY_BUFFER, MAX_CHUNK, MAX_REASON, StreamConfig, StreamError, StreamOptions, StreamRequest,
};
use grenache::rpc::{PeerRpcServer, RpcError, ServerConfig};
use grenache::transport::UtpStream;
use grenache_sim::engine::World;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use common::streams::{SERVER, client, endpoint, simulated, stream_error};

mod common;

const YES: &[u8; 22] = b"GRENACHE-STREAM/1 YES\n";
const BUSY: RpcError = RpcError::Stream(StreamError::Busy);

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
}

/// Asks for a streamed call by hand, up to the server's offer.
async fn offered(world: &World, host: &str) -> UtpStream {
    let mut stream = endpoint(world, host).connect(SERVER.parse().unwrap()).await.unwrap();
    stream.write_all(b"GRENACHE-STREAM/1 ASK\n").await.unwrap();
    let mut offer = [0; 22];
    stream.read_exact(&mut offer).await.unwrap();
    assert_eq!(offer, *YES);
    stream
}

/// A server that takes streamed calls.
fn server(world: &World, config: StreamConfig) -> (PeerRpcServer, grenache::rpc::streaming::StreamRequests) {
    let (server, _) = PeerRpcServer::new(&endpoint(world, "server"), ServerConfig::default());
    let streams = server.accept_streams(config);
    (server, streams)
}

async fn begin(world: &World, host: &str) -> Result<grenache::rpc::streaming::StreamCall, RpcError> {
    client(world, host).request_stream_at(SERVER.parse().unwrap(), "k", &Value::Null).await
}

#[test]
fn as_many_streams_as_there_may_be_and_no_more() {
    let ((), events) = simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default().max_streams(2));
        let first = begin(&world, "client").await.unwrap();
        let _second = begin(&world, "other").await.unwrap();
        assert_eq!(begin(&world, "other").await.unwrap_err(), BUSY);
        assert!(BUSY.to_string().starts_with("ERR_STREAM_BUSY"));
        // The end of one makes room.
        streams.next().await.unwrap().replier.reply_without_body(json!("done"));
        assert_eq!(first.without_body().head().await.unwrap().0, "done");
        sleep(Duration::from_secs(1)).await;
        let _third = begin(&world, "other").await.unwrap();
    });
    assert_eq!(events.iter().filter(|event| event.contains("as many streams as there may be")).count(), 1);
}

#[test]
fn as_many_streams_from_one_source_as_there_may_be_and_no_more() {
    simulated(1, 0.0, async |world| {
        let (_server, _streams) = server(&world, StreamConfig::default().max_streams_per_source(1));
        let call = begin(&world, "client").await.unwrap();
        assert_eq!(begin(&world, "client").await.unwrap_err(), BUSY, "from another port too");
        let _other = begin(&world, "other").await.unwrap();
        drop(call);
        sleep(Duration::from_secs(1)).await;
        let _again = begin(&world, "client").await.unwrap();
    });
}

#[test]
fn a_request_head_may_have_the_limit_and_no_byte_more() {
    let ((), events) = simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default().max_head(100));
        let head = |len: usize| frame(b'H', format!(r#"["r","k","{}"]"#, "x".repeat(len - 12)).as_bytes());
        let mut stream = offered(&world, "client").await;
        stream.write_all(&head(100)).await.unwrap();
        assert_eq!(streams.next().await.unwrap().rid, "r");
        for bad in [head(101), frame(b'H', b"[]"), frame(b'D', b"x"), frame(b'x', b"")] {
            let mut stream = offered(&world, "client").await;
            stream.write_all(&bad).await.unwrap();
            assert!(stream.read(&mut [0; 100]).await.is_err(), "it is reset");
        }
        // The client's own limit: nothing is sent.
        let options = StreamOptions::default().max_head(100);
        let payload = json!("x".repeat(100));
        let client = client(&world, "client");
        let to = "203.0.113.99:1".parse().unwrap();
        let error = client.request_stream_at_with(to, "k", &payload, options).await.unwrap_err();
        assert!(matches!(error, RpcError::TooLarge { limit: 100, .. }), "{error}");
    });
    assert_eq!(events.iter().filter(|event| event.contains(r#""event":"malformed""#)).count(), 4);
    assert!(!events.iter().any(|event| event.contains("203.0.113.99")));
}

#[test]
fn a_reply_head_over_the_limit_ends_the_call() {
    simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default());
        let client = client(&world, "client");
        let options = StreamOptions::default().max_head(100);
        let call = client.request_stream_at_with(SERVER.parse().unwrap(), "k", &Value::Null, options).await.unwrap();
        streams.next().await.unwrap().replier.reply_without_body(json!("x".repeat(100)));
        let error = call.without_body().head().await.unwrap_err();
        assert!(matches!(error, RpcError::Stream(StreamError::Protocol(_))), "{error}");
    });
}

#[test]
fn a_client_that_sends_no_head_is_left_in_time() {
    let (took, events) = simulated(1, 0.0, async |world| {
        let (_server, _streams) = server(&world, StreamConfig::default().max_streams(1));
        let mut stream = offered(&world, "client").await;
        let begun = world.now();
        stream.write_all(&frame(b'H', &[b'['; 50])[..40]).await.unwrap();
        assert!(stream.read(&mut [0; 100]).await.is_err(), "it is reset");
        let took = world.now() - begun;
        let _call = begin(&world, "other").await.expect("its place is free again");
        took
    });
    let (least, most) = (Duration::from_millis(9_900), Duration::from_millis(10_100));
    assert!(took >= least && took < most, "{took:?}");
    assert_eq!(events.iter().filter(|event| event.contains("no head in time")).count(), 1);
}

#[test]
fn a_client_that_never_finishes_its_question_is_left_as_one_that_asks_nothing() {
    simulated(1, 0.0, async |world| {
        let idle = Duration::from_secs(30);
        let (_server, _requests) =
            PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default().idle_timeout(idle));
        let mut stream = endpoint(&world, "client").connect(SERVER.parse().unwrap()).await.unwrap();
        stream.write_all(b"GRENACHE-").await.unwrap();
        assert_eq!(stream.read(&mut [0; 100]).await.unwrap_or(0), 0);
        assert!(world.now() >= idle && world.now() < idle + Duration::from_secs(1), "{:?}", world.now());
    });
}

/// What a server's application says of a body that is sent by hand, after what was sent before it is read.
fn body(sent: &[u8], then: impl AsyncFnOnce(UtpStream)) -> (Vec<u8>, StreamError) {
    simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default());
        let mut stream = offered(&world, "client").await;
        stream.write_all(&frame(b'H', br#"["r","k"]"#)).await.unwrap();
        let sending = async {
            stream.write_all(sent).await.unwrap();
            then(stream).await;
        };
        let reading = async {
            let mut request = streams.next().await.unwrap();
            let mut read = Vec::new();
            let result = request.body.read_to_end(&mut read).await;
            (read, stream_error(result))
        };
        join(sending, reading).await.1
    })
    .0
}

#[test]
fn a_body_that_is_cut_off_is_an_error_and_no_end() {
    let whole = frame(b'D', b"hello");
    for cut in [0, 1, 5, 7, whole.len()] {
        let (read, error) = body(&whole[..cut], async |mut stream| _ = stream.shutdown().await);
        assert_eq!((read.as_slice(), error), (&b"hello"[..cut.saturating_sub(5)], StreamError::Truncated), "at {cut}");
    }
    let (read, error) = body(&frame(b'A', b"no more"), async |_| sleep(Duration::from_secs(1)).await);
    assert_eq!((read.as_slice(), error), (&b""[..], StreamError::Aborted("no more".to_owned())));
}

#[test]
fn a_reply_that_is_cut_off_is_an_error_and_no_end() {
    simulated(1, 0.0, async |world| {
        let serving = endpoint(&world, "server");
        let answering = async {
            let mut stream = serving.accept().await.unwrap();
            stream.read_exact(&mut [0; 22]).await.unwrap();
            stream.write_all(YES).await.unwrap();
            stream.write_all(&frame(b'H', br#"["r",null,1]"#)).await.unwrap();
            stream.write_all(&frame(b'D', b"hello")[..8]).await.unwrap();
            stream.shutdown().await
        };
        let asking = async {
            let (_, mut body) = begin(&world, "client").await.unwrap().without_body().head().await.unwrap();
            let mut read = Vec::new();
            let result = body.read_to_end(&mut read).await;
            (read, stream_error(result))
        };
        let (_, (read, error)) = join(answering, asking).await;
        assert_eq!((read.as_slice(), error), (&b"hel"[..], StreamError::Truncated));
    });
}

#[test]
fn frames_over_their_limits_or_out_of_their_places_end_the_call() {
    let (read, _) = body(&[frame(b'D', &[7; MAX_CHUNK]), frame(b'A', &[b'x'; MAX_REASON])].concat(), async |_| {
        sleep(Duration::from_secs(1)).await;
    });
    assert_eq!(read, [7; MAX_CHUNK], "the limits themselves are taken");
    for bad in [
        frame(b'D', &[7; MAX_CHUNK + 1]),
        frame(b'A', &[b'x'; MAX_REASON + 1]),
        frame(b'D', b""),
        frame(b'E', b"x"),
        frame(b'S', b"x"),
        frame(b'H', br#"["r","k"]"#),
        b"[\"r\",\"k\",1]".to_vec(),
    ] {
        // No more than the header is needed.
        let (_, error) = body(&bad[..5], async |_| sleep(Duration::from_secs(1)).await);
        assert!(matches!(&error, StreamError::Protocol(_)), "{error} for {:?}", &bad[..5]);
    }
    let (_, error) = body(&frame(b'S', b"").repeat(2), async |_| sleep(Duration::from_secs(1)).await);
    assert_eq!(error.to_string(), "ERR_STREAM_PROTOCOL: a Stop frame out of its place", "one is enough");
    let once = [frame(b'S', b""), frame(b'A', b"no more")].concat();
    let (_, error) = body(&once, async |_| sleep(Duration::from_secs(1)).await);
    assert_eq!(error, StreamError::Aborted("no more".to_owned()));
}

#[test]
fn any_bytes_after_the_offer_are_survived() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default());
        for _ in 0..200 {
            let mut bytes = frame(b'H', br#"["r","k"]"#);
            let head = rng.random_range(0..=bytes.len());
            bytes.truncate(head);
            for _ in 0..rng.random_range(1..8) {
                let kind = b"HDEASx"[rng.random_range(0..6)];
                let len = rng.random_range(0..20);
                let mut next = frame(kind, &vec![b'['; len]);
                next.truncate(rng.random_range(1..=next.len()));
                bytes.extend(next);
            }
            let mut stream = offered(&world, "client").await;
            let _ = stream.write_all(&bytes).await;
            drop(stream);
        }
        sleep(Duration::from_secs(1)).await;
        // Whatever became of them: the server goes on, and all of their places are free.
        let answering = async {
            loop {
                let StreamRequest { payload, replier, .. } = streams.next().await.unwrap();
                if payload == "last" {
                    return replier.reply_without_body(json!("still here"));
                }
            }
        };
        let client = client(&world, "client");
        let asking = async {
            let call = client.request_stream_at(SERVER.parse().unwrap(), "k", &json!("last")).await.unwrap();
            call.without_body().head().await.unwrap().0
        };
        assert_eq!(join(answering, asking).await.1, "still here");
    });
}

#[test]
fn a_body_that_does_not_move_is_given_up_after_the_idle_timeout() {
    simulated(1, 0.0, async |world| {
        let idle = Duration::from_secs(20);
        let (_server, mut streams) = server(&world, StreamConfig::default().idle_timeout(idle));
        let mut call = begin(&world, "client").await.unwrap();
        let mut request = streams.next().await.unwrap();
        for _ in 0..3 {
            sleep(Duration::from_secs(19)).await;
            call.body.write_all(b"x").await.unwrap();
            assert_eq!(request.body.read_u8().await.unwrap(), b'x', "what moves goes on");
        }
        let begun = world.now();
        assert_eq!(stream_error(request.body.read_u8().await), StreamError::Idle(idle));
        let took = world.now() - begun;
        assert!(took >= idle - Duration::from_millis(20) && took < idle + Duration::from_millis(20), "{took:?}");
        assert!(call.reply.head().await.unwrap_err().is_transport());
    });
}

#[test]
fn an_application_may_read_slower_than_the_idle_timeout() {
    simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default().idle_timeout(Duration::from_secs(20)));
        let mut call = begin(&world, "client").await.unwrap();
        let mut request = streams.next().await.unwrap();
        // A little more than is kept for the application: the server waits for it to take that, and then for the client.
        call.body.write_all(&[1; BODY_BUFFER + 100]).await.unwrap();
        sleep(Duration::from_secs(100)).await;
        let (read, ended) = join(request.body.read_to_end(&mut Vec::new()), async {
            sleep(Duration::from_secs(15)).await;
            call.body.write_all(&[1; 50_000]).await?;
            call.body.shutdown().await
        })
        .await;
        ended.unwrap();
        assert_eq!(read.unwrap(), BODY_BUFFER + 100 + 50_000);
    });
}

#[test]
fn a_reply_has_its_time_from_the_end_of_the_body_on() {
    simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default());
        let client = client(&world, "client");
        let options = StreamOptions::default().reply_timeout(Duration::from_secs(10));
        let mut call =
            client.request_stream_at_with(SERVER.parse().unwrap(), "k", &Value::Null, options).await.unwrap();
        let _request = streams.next().await.unwrap();
        for _ in 0..5 {
            sleep(Duration::from_secs(10)).await;
            call.body.write_all(b"x").await.unwrap();
        }
        call.body.shutdown().await.unwrap();
        let begun = world.now();
        assert_eq!(call.reply.head().await.unwrap_err(), RpcError::Timeout);
        let took = world.now() - begun;
        assert!(took >= Duration::from_secs(10) && took < Duration::from_millis(10_010), "{took:?}");
    });
}
