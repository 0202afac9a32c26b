//! Requests that do not end, replies that are not read, and too many of both.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use grenache::event::Event;
use grenache::limits::Limit;
use grenache::rpc::framing::MAX_DEPTH;
use grenache::rpc::{
    ClientConfig, ERR_REQUEST_SIZE, ERR_REQUEST_TIME, MAX_MALFORMED, PeerRpcClient, PeerRpcServer, ServerConfig,
    TEXT_TIME,
};
use grenache::transport::{Endpoint, EndpointConfig, UtpStream};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::wire::{Wire, address};

/// A server that gives as many bytes as it is asked for, or the payload.
struct Bench {
    wire: Wire,
    serving: Endpoint,
    asking: Endpoint,
    server: PeerRpcServer,
    at_work: Arc<AtomicUsize>,
}

fn bench(config: ServerConfig) -> Bench {
    let wire = Wire::default().latency(Duration::from_millis(1));
    let serving = Endpoint::bind(&wire.net(), address(1), EndpointConfig::default()).unwrap();
    let asking = Endpoint::bind(&wire.net(), address(2), EndpointConfig::default()).unwrap();
    let at_work = Arc::new(AtomicUsize::new(0));
    let counting = at_work.clone();
    let server = PeerRpcServer::serve(&serving, config, move |request| {
        let counting = counting.clone();
        async move {
            counting.fetch_add(1, Ordering::SeqCst);
            match request.payload.as_u64() {
                Some(0) => std::future::pending().await,
                Some(bytes) => Ok("x".repeat(bytes as usize).into()),
                None => Ok(request.payload),
            }
        }
    });
    Bench { wire, serving, asking, server, at_work }
}

impl Bench {
    /// A further host.
    fn host(&self, number: u8) -> Endpoint {
        Endpoint::bind(&self.wire.net(), address(number), EndpointConfig::default()).unwrap()
    }

    async fn connect(&self) -> UtpStream {
        self.asking.connect(address(1)).await.unwrap()
    }

    fn times(&self, limit: Limit) -> u64 {
        self.serving.limits().times(limit)
    }

    /// Others are served meanwhile, soon.
    async fn serves_others(&self) {
        let client = PeerRpcClient::new(&self.asking, None, ClientConfig::default());
        let (asked, payload) = (Instant::now(), json!("hello"));
        let answer = timeout(Duration::from_secs(5), client.request_at(address(1), "key", &payload)).await;
        assert_eq!(answer.expect("others are served"), Ok(payload));
        assert!(asked.elapsed() < Duration::from_millis(100), "after {:?}", asked.elapsed());
    }
}

/// What comes until the connection ends, and when it did.
async fn rest(mut stream: UtpStream) -> (String, Duration) {
    let begun = Instant::now();
    let mut received = Vec::new();
    // A RESET is an end as well.
    let _ = timeout(Duration::from_secs(600), stream.read_to_end(&mut received)).await.expect("the connection ends");
    (String::from_utf8_lossy(&received).into_owned(), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_request_over_the_size_limit_is_refused() {
    let bench = bench(ServerConfig::default().max_message(1000));
    let mut stream = bench.connect().await;
    let request = |len: usize| format!(r#"["rid","key","{}"]"#, "x".repeat(len - 16));
    stream.write_all(request(1000).as_bytes()).await.unwrap();
    stream.write_all(request(1001).as_bytes()).await.unwrap();
    let (answers, _) = rest(stream).await;
    assert!(answers.contains(r#"["rid",null,"x"#), "the largest is answered");
    assert!(answers.contains(&format!(r#"["rid","{ERR_REQUEST_SIZE}",null]"#)), "{answers}");
    assert_eq!(bench.times(Limit::MessageSize), 1);
    bench.serves_others().await;
}

#[tokio::test(start_paused = true)]
async fn deep_nesting_is_refused_and_not_followed() {
    let bench = bench(ServerConfig::default());
    for (depth, refused) in [(MAX_DEPTH - 1, false), (MAX_DEPTH, true), (1_000_000, true)] {
        let mut stream = bench.connect().await;
        let text = format!(r#"["rid","key",{}{}]"#, "[".repeat(depth), "]".repeat(depth));
        // The server may end the connection before all is written.
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
        let (answers, _) = rest(stream).await;
        let error = format!(r#"["rid","{ERR_REQUEST_SIZE}",null]"#);
        assert_eq!(answers.contains(&error), refused, "depth {depth}: {}", &answers[..answers.len().min(80)]);
    }
    assert_eq!(bench.times(Limit::MessageDepth), 2);
    bench.serves_others().await;
}

#[tokio::test(start_paused = true)]
async fn a_text_that_is_never_finished_has_its_time() {
    let bench = bench(ServerConfig::default());
    let stream = bench.connect().await;
    let begun = Instant::now();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let dripping = async {
        writer.write_all(br#"["rid","key",""#).await.unwrap();
        // A byte each ten seconds: never idle, never done.
        while writer.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(10)).await;
        }
    };
    let reading = async {
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        (String::from_utf8(answer).unwrap(), begun.elapsed())
    };
    let Either::Left(((answer, took), _)) = select(pin!(reading), pin!(dripping)).await else {
        panic!("it goes on dripping until it is told")
    };
    assert_eq!(answer, format!(r#"["rid","{ERR_REQUEST_TIME}",null]"#));
    assert!((TEXT_TIME..TEXT_TIME + Duration::from_secs(3)).contains(&took), "took {took:?}");
    assert_eq!(bench.times(Limit::MessageTime), 1);
    bench.serves_others().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_text_over_a_slow_path_has_more_time() {
    let bench = bench(ServerConfig::default());
    let mut stream = bench.connect().await;
    // 2 MB at 20 kB a second take longer than a small text, or an idle connection, may.
    stream.write_all(br#"["rid","key",""#).await.unwrap();
    for _ in 0..200 {
        stream.write_all(&[b'x'; 10_000]).await.unwrap();
        sleep(Duration::from_millis(1000)).await;
    }
    stream.write_all(br#""]"#).await.unwrap();
    stream.shutdown().await.unwrap();
    let (answer, _) = rest(stream).await;
    assert!(answer.starts_with(r#"["rid",null,"xxx"#) && answer.len() > 2_000_000, "{} bytes", answer.len());
}

#[tokio::test(start_paused = true)]
async fn unfinished_requests_of_all_connections_have_a_common_bound() {
    let bench = bench(ServerConfig::default().max_unfinished(1026 << 10));
    let mut streams = Vec::new();
    let hosts = [3, 4].map(|number| bench.host(number));
    // A quarter of the bound each, beside what is free, and half of it from one source.
    for (host, refused) in [(0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (1, 2)] {
        let mut stream = hosts[host].connect(address(1)).await.unwrap();
        stream.write_all(br#"["rid","key",""#).await.unwrap();
        let _ = stream.write_all(&vec![b'x'; 272 << 10]).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(bench.times(Limit::Unfinished), refused, "the third of each finds no room");
        streams.push(stream);
    }
    let (answer, _) = rest(streams.pop().unwrap()).await;
    assert_eq!(answer, format!(r#"["rid","{ERR_REQUEST_SIZE}",null]"#));
    bench.serves_others().await;
    // The others have lost nothing, and their ends make room.
    let mut first = streams.remove(0);
    first.write_all(br#""]"#).await.unwrap();
    first.shutdown().await.unwrap();
    assert!(rest(first).await.0.len() > 272 << 10);
    let mut next = hosts[0].connect(address(1)).await.unwrap();
    next.write_all(format!(r#"["rid","key","{}"]"#, "x".repeat(272 << 10)).as_bytes()).await.unwrap();
    next.shutdown().await.unwrap();
    assert!(rest(next).await.0.len() > 272 << 10);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_its_replies_is_not_read_either_and_then_closed() {
    let config = ServerConfig::default().max_unsent(4 << 20).write_timeout(Duration::from_secs(20));
    let bench = bench(config);
    let stream = bench.connect().await;
    let (_reader, mut writer) = tokio::io::split(stream);
    // A thousand requests for a megabyte each, one after the other.
    let asking = bench.asking.net().spawn(Box::pin(async move {
        for nth in 0..1000 {
            if writer.write_all(format!(r#"["{nth}","key",1000000]"#).as_bytes()).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        std::future::pending::<()>().await;
    }));
    sleep(Duration::from_secs(11)).await;
    // One megabyte waits in µTP's buffer, one at the peer, four here, and one may be on its way to each.
    let at_work = bench.at_work.load(Ordering::SeqCst);
    assert!((5..=9).contains(&at_work), "{at_work} requests were answered");
    assert_eq!(bench.times(Limit::Unsent), 1);
    bench.serves_others().await;
    // A megabyte has 20 s and 122 s for its size; a probe of the closed window now and then is no progress.
    sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.times(Limit::WriteTimeout), 0);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.times(Limit::WriteTimeout), 1);
    sleep(Duration::from_secs(65)).await;
    assert_eq!(bench.serving.connections(), 0, "µTP's linger is over too");
    drop(asking);
}

#[tokio::test(start_paused = true)]
async fn replies_that_nobody_reads_have_a_common_bound() {
    let bench = bench(ServerConfig::default().max_unsent_total(8 << 20));
    // Connections of one source after the other, each of which asks for a megabyte again and again and reads nothing.
    let mut streams = Vec::new();
    let mut asking = async |host: &Endpoint| {
        for _ in 0..6 {
            let (reader, mut writer) = tokio::io::split(host.connect(address(1)).await.unwrap());
            for nth in 0..6 {
                writer.write_all(format!(r#"["{nth}","key",1048576]"#).as_bytes()).await.unwrap();
                sleep(Duration::from_millis(100)).await;
            }
            streams.push((reader, writer));
        }
        bench.at_work.load(Ordering::SeqCst)
    };
    let [one, two, three] = [3, 4, 5].map(|number| bench.host(number));
    // Beside what is under way with µTP, a megabyte or two on each connection that was read.
    let first = asking(&one).await;
    assert!((4..=10).contains(&first), "{first} requests were answered");
    assert!(bench.times(Limit::UnsentTotal) > 0);
    assert_eq!(bench.times(Limit::Unsent), 0);
    bench.serves_others().await;
    let both = asking(&two).await;
    assert!((first + 4..=first + 10).contains(&both), "{both} requests were answered");
    // All is taken: nobody is read any more, until those have gone that do not read.
    assert_eq!(asking(&three).await, both);
    drop(streams);
    sleep(Duration::from_secs(5)).await;
    bench.serves_others().await;
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_bounded_on_a_connection_and_in_all() {
    let bench = bench(ServerConfig::default().max_in_flight(3).max_in_flight_total(9));
    let mut streams = Vec::new();
    // Five of the nine from a source, which is half.
    let hosts = [3, 4].map(|number| bench.host(number));
    for (nth, (host, expected)) in [(0, 3), (0, 5), (0, 5), (1, 8), (1, 9), (1, 9)].into_iter().enumerate() {
        let mut stream = hosts[host].connect(address(1)).await.unwrap();
        for request in 0..10 {
            stream.write_all(format!(r#"["{nth}-{request}","key",0]"#).as_bytes()).await.unwrap();
        }
        streams.push(stream);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(bench.at_work.load(Ordering::SeqCst), expected, "after connection {nth}");
    }
    assert_eq!((bench.times(Limit::InFlight), bench.times(Limit::InFlightTotal)), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_read_while_requests_wait_for_the_application() {
    let wire = Wire::default();
    let serving = Endpoint::bind(&wire.net(), address(1), EndpointConfig::default()).unwrap();
    let asking = Endpoint::bind(&wire.net(), address(2), EndpointConfig::default()).unwrap();
    let (_server, mut requests) = PeerRpcServer::new(&serving, ServerConfig::default().max_queue(3));
    let mut stream = asking.connect(address(1)).await.unwrap();
    for request in 0..10 {
        stream.write_all(format!(r#"["{request}","key",0]"#).as_bytes()).await.unwrap();
    }
    let received = || wire.events().iter().filter(|e| matches!(e, Event::RequestReceived { .. })).count();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(received(), 4, "three in the queue, and one that waits for room");
    for nth in 0..10 {
        let request = requests.next().await.unwrap();
        assert_eq!(request.rid, nth.to_string(), "none is lost");
        request.reply(Ok(json!(null)));
    }
    assert_eq!(received(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_may_be_of_any_length_works() {
    let wire = Wire::default();
    let serving = Endpoint::bind(&wire.net(), address(1), EndpointConfig::default()).unwrap();
    let asking = Endpoint::bind(&wire.net(), address(2), EndpointConfig::default()).unwrap();
    let (_server, mut requests) = PeerRpcServer::new(&serving, ServerConfig::default().max_queue(usize::MAX));
    let mut stream = asking.connect(address(1)).await.unwrap();
    stream.write_all(br#"["a","key",0]"#).await.unwrap();
    assert_eq!(requests.next().await.unwrap().rid, "a");
}

#[tokio::test(start_paused = true)]
async fn a_server_has_so_many_connections() {
    let bench = bench(ServerConfig::default().max_connections(2));
    let mut held = vec![bench.connect().await, bench.connect().await];
    sleep(Duration::from_millis(100)).await;
    let (answer, took) = rest(bench.connect().await).await;
    assert_eq!(answer, "");
    assert!(took < Duration::from_millis(100), "reset after {took:?}");
    assert_eq!(bench.times(Limit::ServerConnections), 1);
    drop(held.pop());
    sleep(Duration::from_secs(20)).await;
    bench.serves_others().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_has_no_more_of_them_on_several_endpoints() {
    let bench = bench(ServerConfig::default().max_connections(2));
    let further = Endpoint::bind(&bench.wire.net(), address(3), EndpointConfig::default()).unwrap();
    let also = bench.server.also_on()(&further);
    let first = bench.connect().await;
    let second = bench.asking.connect(address(3)).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    for to in [address(1), address(3)] {
        let (_, took) = rest(bench.asking.connect(to).await.unwrap()).await;
        assert!(took < Duration::from_millis(100), "reset after {took:?}");
    }
    assert_eq!(bench.times(Limit::ServerConnections), 2);
    // Those of an endpoint that is served no more make room.
    drop((also, second));
    sleep(Duration::from_secs(1)).await;
    bench.serves_others().await;
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn malformed_texts_end_the_connection() {
    let bench = bench(ServerConfig::default());
    let mut stream = bench.connect().await;
    let texts: String = (0..2 * MAX_MALFORMED).map(|_| "[]").collect();
    stream.write_all(texts.as_bytes()).await.unwrap();
    assert_eq!(rest(stream).await.0, "");
    assert_eq!(bench.times(Limit::Malformed), 1);
    let malformed = |e: &&Event| matches!(e, Event::Malformed { layer: "rpc", .. });
    assert_eq!(bench.wire.events().iter().filter(malformed).count(), MAX_MALFORMED);
}
