//! Streamed calls that hardly move: they have their places while there is room, and give them up where others need them.

use std::time::Duration;

use futures_util::future::join;
use grenache::rpc::streaming::{
    FAREWELL, PROGRESS_TIME, StreamCall, StreamConfig, StreamError, StreamOptions, StreamRequest, StreamRequests,
};
use grenache::rpc::{PeerRpcServer, RpcError, ServerConfig};
use grenache::transport::UtpStream;
use grenache_sim::engine::World;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use common::streams::{SERVER, client, endpoint, simulated, stream_error};

mod common;

const BUSY: RpcError = RpcError::Stream(StreamError::Busy);

/// What clients are told whose calls are displaced.
const TOLD: &str = "too slow, and another call needed its place; try again later";

fn server(world: &World, config: StreamConfig) -> (PeerRpcServer, StreamRequests) {
    let (server, _) = PeerRpcServer::new(&endpoint(world, "server"), ServerConfig::default());
    let streams = server.accept_streams(config);
    (server, streams)
}

async fn begin(world: &World, host: &str) -> Result<StreamCall, RpcError> {
    client(world, host).request_stream_at(SERVER.parse().unwrap(), "k", &Value::Null).await
}

/// Sends a byte each twenty seconds until that fails; gives why.
async fn trickle(call: &mut StreamCall) -> StreamError {
    loop {
        sleep(Duration::from_secs(20)).await;
        if let Err(error) = call.body.write_all(b"x").await {
            return stream_error::<()>(Err(error));
        }
    }
}

/// Sends so many bytes a second until that fails, or for a time.
async fn flow(call: &mut StreamCall, bytes: usize, time: Duration) -> Result<(), StreamError> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        sleep(Duration::from_secs(1)).await;
        if let Err(error) = call.body.write_all(&vec![1; bytes]).await {
            return Err(stream_error::<()>(Err(error)));
        }
    }
    Ok(())
}

/// Reads a request's body for as long as it comes.
async fn read_all(mut request: StreamRequest) -> (StreamRequest, std::io::Result<usize>) {
    let read = request.body.read_to_end(&mut Vec::new()).await;
    (request, read)
}

#[test]
fn a_trickling_upload_gives_up_its_place_where_another_call_needs_it() {
    let ((), events) = simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default().max_streams(1));
        let mut slow = begin(&world, "client").await.unwrap();
        let reading = read_all(streams.next().await.unwrap());
        let another = async {
            // As long as nobody else comes it goes on.
            sleep(Duration::from_secs(300)).await;
            let begun = world.now();
            let new = begin(&world, "other").await.expect("the slow one's place");
            (begun, new)
        };
        let ((stopped, (_request, read)), (begun, new)) = join(join(trickle(&mut slow), reading), another).await;
        assert_eq!(stream_error(read), StreamError::Displaced, "the server's application is told");
        assert_eq!(stopped, StreamError::Stopped, "and the client's");
        let error = slow.reply.head().await.unwrap_err();
        assert_eq!(error, RpcError::Stream(StreamError::Aborted(TOLD.to_owned())), "by a reason");
        assert!(world.now() - begun < Duration::from_secs(25), "when it next sent something");
        // The new one is a call like any other.
        streams.next().await.unwrap().replier.reply_without_body(json!("done"));
        assert_eq!(new.without_body().head().await.unwrap().0, "done");
    });
    let ended = events.iter().filter(|event| event.contains("ERR_STREAM_DISPLACED: ")).count();
    assert_eq!(ended, 1, "its end is told by what ended it");
    assert!(!events.iter().any(|event| event.contains("as many streams as there may be")), "nobody is refused");
}

#[test]
fn all_trickling_uploads_of_a_flood_are_displaced_one_by_one() {
    simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default().max_streams(4));
        let mut calls = Vec::new();
        for _ in 0..4 {
            calls.push(begin(&world, "client").await.unwrap());
        }
        let mut requests = Vec::new();
        for _ in 0..4 {
            requests.push(streams.next().await.unwrap());
        }
        for _ in 0..4 {
            sleep(Duration::from_secs(20)).await;
            for call in &mut calls {
                call.body.write_all(b"x").await.unwrap();
            }
        }
        let mut honest = Vec::new();
        for nth in 0..4 {
            honest.push(begin(&world, "other").await.unwrap_or_else(|error| panic!("{nth}: {error}")));
        }
        assert_eq!(begin(&world, "other").await.unwrap_err(), BUSY, "those are fresh");
        for mut call in calls {
            assert_eq!(trickle(&mut call).await, StreamError::Stopped);
        }
        drop(requests);
    });
}

#[test]
fn a_steady_upload_keeps_its_place_and_the_new_call_is_refused() {
    simulated(1, 0.0, async |world| {
        let config = StreamConfig::default().max_streams(1).least_progress(64 << 10);
        let (_server, mut streams) = server(&world, config);
        let mut steady = begin(&world, "client").await.unwrap();
        let reading = read_all(streams.next().await.unwrap());
        let sending = async {
            // A little more than the least.
            flow(&mut steady, 1200, Duration::from_secs(300)).await.expect("it is fast enough");
            steady.body.shutdown().await.unwrap();
        };
        let asking = async {
            for _ in 0..28 {
                sleep(Duration::from_secs(10)).await;
                assert_eq!(begin(&world, "other").await.unwrap_err(), BUSY);
            }
        };
        let (((), (_request, read)), ()) = join(join(sending, reading), asking).await;
        assert_eq!(read.unwrap(), 300 * 1200);
    });
}

#[test]
fn a_call_that_has_not_had_its_minute_keeps_its_place() {
    simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default().max_streams(1));
        let _fresh = begin(&world, "client").await.unwrap();
        let _request = streams.next().await.unwrap();
        let begun = world.now();
        while world.now() < begun + PROGRESS_TIME - Duration::from_secs(2) {
            assert_eq!(begin(&world, "other").await.unwrap_err(), BUSY);
            sleep(Duration::from_secs(1)).await;
        }
    });
}

#[test]
fn the_servers_own_slowness_costs_no_client_its_place() {
    simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default().max_streams(1));
        let (client, to) = (client(&world, "client"), SERVER.parse().unwrap());
        let patient = StreamOptions::default().idle_timeout(20 * PROGRESS_TIME).reply_timeout(20 * PROGRESS_TIME);
        let call = client.request_stream_at_with(to, "k", &Value::Null, patient).await.unwrap().without_body();
        // The request is complete: the server thinks about it.
        let request = streams.next().await.unwrap();
        sleep(10 * PROGRESS_TIME).await;
        assert_eq!(begin(&world, "other").await.unwrap_err(), BUSY);
        request.replier.reply_without_body(json!("thought"));
        assert_eq!(call.head().await.unwrap().0, "thought");
        // An upload that the server's application does not read.
        sleep(Duration::from_secs(1)).await;
        let mut call = client.request_stream_at_with(to, "k", &Value::Null, patient).await.unwrap();
        let request = streams.next().await.unwrap();
        let sending = async {
            call.body.write_all(&[1; 1 << 20]).await.unwrap();
            call.body.shutdown().await.unwrap();
        };
        let waiting = async {
            sleep(10 * PROGRESS_TIME).await;
            assert_eq!(begin(&world, "other").await.unwrap_err(), BUSY);
            read_all(request).await.1.unwrap()
        };
        assert_eq!(join(sending, waiting).await.1, 1 << 20);
    });
}

/// A streamed call by hand, whose request has no body.
async fn by_hand(world: &World, host: &str) -> UtpStream {
    let mut stream = endpoint(world, host).connect(SERVER.parse().unwrap()).await.unwrap();
    stream.write_all(b"GRENACHE-STREAM/1 ASK\n").await.unwrap();
    stream.read_exact(&mut [0; 22]).await.unwrap();
    stream.write_all(b"H\0\0\0\x09[\"r\",\"k\"]E\0\0\0\0").await.unwrap();
    stream
}

#[test]
fn a_slow_reader_of_a_reply_gives_up_its_place_and_a_steady_one_does_not() {
    // So many bytes a second are read; whether that is enough to keep the place.
    for (rate, keeps) in [(600, false), (4000, true)] {
        simulated(1, 0.0, async |world| {
            let config = StreamConfig::default().max_streams(1).idle_timeout(Duration::from_secs(600));
            let (_server, mut streams) = server(&world, config);
            let mut reader = by_hand(&world, "client").await;
            let mut body = streams.next().await.unwrap().replier.reply(Value::Null);
            let writing = async move { stream_error(body.write_all(&vec![1; 4 << 20]).await) };
            let reading = async {
                // What is in its windows already it can still read.
                let until = Instant::now() + Duration::from_secs(600);
                while Instant::now() < until {
                    sleep(Duration::from_secs(1)).await;
                    reader.read_exact(&mut vec![0; rate]).await?;
                }
                reader.reset();
                Ok(())
            };
            let asking = async {
                sleep(Duration::from_secs(250)).await;
                let asked = Instant::now();
                (asked, begin(&world, "other").await)
            };
            let writing = async { (writing.await, Instant::now()) };
            let ((read, (error, failed)), (asked, new)): ((std::io::Result<()>, _), _) =
                join(join(reading, writing), asking).await;
            if keeps {
                assert_eq!(new.unwrap_err(), BUSY);
                read.expect("it reads on");
                assert_ne!(error, StreamError::Displaced);
            } else {
                let _new = new.expect("the slow one's place");
                assert_eq!(error, StreamError::Displaced);
                assert!(failed - asked < Duration::from_secs(1), "the application need not wait for the peer");
                assert!(read.is_err(), "the connection is reset, for nothing gets through");
            }
        });
    }
}

#[test]
fn a_source_that_has_all_of_its_places_displaces_its_own_call_and_no_other() {
    simulated(1, 0.0, async |world| {
        let (_server, mut streams) = server(&world, StreamConfig::default().max_streams_per_source(1));
        let mut own = begin(&world, "client").await.unwrap();
        let mut others = begin(&world, "other").await.unwrap();
        let (_one, _two) = (streams.next().await.unwrap(), streams.next().await.unwrap());
        let asking = async {
            sleep(Duration::from_secs(90)).await;
            begin(&world, "client").await.expect("its own slow one's place")
        };
        let keeping = async {
            for _ in 0..10 {
                sleep(Duration::from_secs(20)).await;
                others.body.write_all(b"x").await.unwrap();
            }
        };
        let ((stopped, ()), _new) = join(join(trickle(&mut own), keeping), asking).await;
        assert_eq!(stopped, StreamError::Stopped);
    });
}

#[test]
fn a_displaced_calls_handler_is_ended() {
    simulated(1, 0.0, async |world| {
        let (server, _) = PeerRpcServer::new(&endpoint(&world, "server"), ServerConfig::default());
        let (working, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        server.serve_streams(StreamConfig::default().max_streams(1), move |request| {
            let working = working.clone();
            async move {
                // It holds on to everything, whatever becomes of the call.
                let _held = (request, working);
                std::future::pending().await
            }
        });
        let mut slow = begin(&world, "client").await.unwrap();
        let asking = async {
            sleep(Duration::from_secs(90)).await;
            let new = begin(&world, "other").await.expect("the slow one's place");
            (Instant::now(), new)
        };
        let (stopped, (displaced, new)) = join(trickle(&mut slow), asking).await;
        assert_eq!(stopped, StreamError::Stopped);
        sleep(2 * FAREWELL).await;
        let alive = {
            drop(new);
            server.stop().await;
            ended.recv().await
        };
        assert_eq!(alive, None);
        assert!(Instant::now() > displaced);
    });
}
