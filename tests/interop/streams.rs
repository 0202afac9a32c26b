//! µTP itself between ours and libutp: FIN, RESET, keep-alive, and many bytes over a path with and without loss.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use grenache::net::Net;
use grenache::transport::{Endpoint, UtpStream};
use grenache::utp::wire::{Kind as Packet, Repr};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, timeout};

use crate::common::PATIENCE;
use crate::common::bulk::{Received, exchange, random, read_all, sha256};
use crate::common::relay::{Relay, Way};
use crate::grapes::{Kind, Ours, Theirs};
use crate::rpc::our_endpoint;
use crate::script::Script;
use crate::table::{Cell, show};

fn received(event: &Value) -> Received {
    let len = event["length"].as_u64().unwrap() as usize;
    Received { len, sha256: event["sha256"].as_str().unwrap().to_owned() }
}

async fn accept(endpoint: &Endpoint) -> UtpStream {
    timeout(PATIENCE, endpoint.accept()).await.expect("a connection in time").expect("the endpoint is open")
}

async fn connect(endpoint: &Endpoint, to: SocketAddr) -> UtpStream {
    timeout(PATIENCE, endpoint.connect(to)).await.expect("an answer in time").unwrap()
}

/// The one that connects finishes; only then the other writes, and finishes.
pub(crate) async fn half_close(first: Kind) {
    let (_net, endpoint) = our_endpoint();
    let mut theirs = Script::start("raw.js", &[]).await;
    let (up, down) = (random(1000, 1), random(100_000, 2));
    match first {
        Ours => {
            theirs.tell(json!({"do": "carry", "send": down.len(), "after": true})).await;
            theirs.hear("ready").await;
            let mut stream = connect(&endpoint, theirs.address()).await;
            stream.write_all(&up).await.unwrap();
            stream.shutdown().await.unwrap();
            let read = timeout(PATIENCE, read_all(&mut stream)).await.expect("it writes after our FIN");
            assert_eq!(received(&theirs.hear("received").await), Received::all_of(&up));
            assert_eq!((read.len, json!(read.sha256)), (down.len(), theirs.hear("sends").await["sha256"].take()));
        }
        Theirs => {
            theirs.tell(json!({"do": "connect", "to": endpoint.local_addr().port(), "send": up.len()})).await;
            let mut stream = accept(&endpoint).await;
            let read = timeout(PATIENCE, read_all(&mut stream)).await.expect("it finishes");
            assert_eq!((read.len, json!(read.sha256)), (up.len(), theirs.hear("sends").await["sha256"].take()));
            stream.write_all(&down).await.unwrap();
            timeout(PATIENCE, stream.shutdown()).await.expect("it acks what comes after its FIN").unwrap();
            assert_eq!(received(&theirs.hear("received").await), Received::all_of(&down));
        }
    }
    theirs.hear("closed").await;
    assert_eq!(theirs.count("failed"), 0);
}

/// A RESET that was seen on its way, and the packet that it answers.
#[derive(Default)]
struct Seen {
    offending: Option<Vec<u8>>,
    reset: Option<Vec<u8>>,
}

/// The last DATA in, and the RESET that came back.
fn resets(net: &Net, peer: SocketAddr) -> (Relay, Arc<Mutex<Seen>>) {
    let seen = Arc::<Mutex<Seen>>::default();
    let seen_too = Arc::clone(&seen);
    let relay = Relay::watched(net, peer, 0.0, 1, move |way, bytes| {
        let Ok(packet) = Repr::parse(bytes) else { return };
        let mut seen = seen_too.lock().unwrap();
        match (way, packet.kind) {
            (Way::In, Packet::Data) => seen.offending = Some(bytes.to_owned()),
            (Way::Out, Packet::Reset) => seen.reset = Some(bytes.to_owned()),
            _ => {}
        }
    });
    (relay, seen)
}

/// The other has started anew and knows nothing of the connection: its RESET ends it. Both kinds word it alike.
pub(crate) async fn forgotten(kind: Kind) {
    let (net, endpoint) = our_endpoint();
    let net: Net = net;
    let mut theirs = Script::start("raw.js", &[]).await;
    theirs.tell(json!({"do": "echo"})).await;
    theirs.hear("ready").await;
    let seen = match kind {
        Ours => {
            let (relay, seen) = resets(&net, theirs.address());
            let mut stream = connect(&endpoint, relay.address).await;
            stream.write_all(b"there?").await.unwrap();
            timeout(PATIENCE, stream.read_exact(&mut [0; 6])).await.unwrap().unwrap();
            let anew = Script::start("raw.js", &[]).await;
            relay.retarget(anew.address());
            stream.write_all(b"there?").await.unwrap();
            let error = timeout(PATIENCE, stream.read(&mut [0; 6])).await.expect("it ends").unwrap_err();
            assert!(error.to_string().contains("UTP_ECONNRESET"), "{error}");
            seen
        }
        Theirs => {
            let (relay, seen) = resets(&net, endpoint.local_addr());
            theirs.tell(json!({"do": "talk", "to": relay.address.port()})).await;
            theirs.hear("ready").await;
            theirs.tell(json!({"do": "write", "text": "there?"})).await;
            let mut stream = accept(&endpoint).await;
            timeout(PATIENCE, stream.read_exact(&mut [0; 6])).await.unwrap().unwrap();
            let (_, anew) = our_endpoint();
            relay.retarget(anew.local_addr());
            theirs.tell(json!({"do": "write", "text": "there?"})).await;
            assert_eq!(theirs.hear("failed").await["error"], "UTP_ECONNRESET");
            theirs.hear("closed").await;
            seen
        }
    };
    let seen = seen.lock().unwrap();
    let (offending, reset) = (seen.offending.as_ref().unwrap(), seen.reset.as_ref().unwrap());
    assert_eq!((reset.len(), &reset[..2], &reset[4..16]), (20, &[0x31, 0][..], &[0; 12][..]));
    assert_eq!(reset[2..4], offending[2..4], "the id of what it answers");
    assert_eq!(reset[18..20], offending[16..18], "acks what it answers");
}

/// One of ours ends a connection: theirs hears of it.
#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn a_reset_of_ours_ends_theirs() {
    let (_net, endpoint) = our_endpoint();
    let mut theirs = Script::start("raw.js", &[]).await;
    theirs.tell(json!({"do": "talk", "to": endpoint.local_addr().port()})).await;
    theirs.hear("ready").await;
    theirs.tell(json!({"do": "write", "text": "x"})).await;
    accept(&endpoint).await.reset();
    assert_eq!(theirs.hear("failed").await["error"], "UTP_ECONNRESET");
}

/// How many bytes each side sends.
const BULK: usize = 10_000_000;

/// Each side sends so many bytes at once; gives how long it took.
async fn bulk(who: Kind, sends: [usize; 2], loss: f64, buffers: usize, seed: u64) -> (Duration, Relay) {
    let (net, endpoint) = our_endpoint();
    let net: Net = net;
    let mut theirs = Script::start("raw.js", &[&buffers.to_string()]).await;
    let ours = random(sends[0], seed);
    let (relay, stream) = match who {
        Ours => {
            theirs.tell(json!({"do": "carry", "send": sends[1]})).await;
            theirs.hear("ready").await;
            let relay = Relay::new(&net, theirs.address(), loss, seed);
            let stream = connect(&endpoint, relay.address).await;
            (relay, stream)
        }
        Theirs => {
            let relay = Relay::new(&net, endpoint.local_addr(), loss, seed);
            theirs.tell(json!({"do": "connect", "to": relay.address.port(), "send": sends[1]})).await;
            (relay, accept(&endpoint).await)
        }
    };
    let began = Instant::now();
    let read = timeout(Duration::from_secs(120), exchange(stream, &ours)).await.expect("it ends");
    assert_eq!((read.len, json!(read.sha256)), (sends[1], theirs.hear("sends").await["sha256"].take()));
    let theirs = theirs.hear_within(Duration::from_secs(120), "received").await;
    assert_eq!(received(&theirs), Received { len: ours.len(), sha256: sha256(&ours) });
    (began.elapsed(), relay)
}

/// So many bytes each way, as a cell.
async fn bulk_cell(who: Kind, sends: [usize; 2], loss: f64) -> String {
    let (took, relay) = bulk(who, sends, loss, 0, 1).await;
    for (way, sent) in [(Way::In, sends[usize::from(who == Theirs)]), (Way::Out, sends[usize::from(who == Ours)])] {
        let passed = relay.passed(way);
        assert!(sent == 0 || loss == 0.0 || passed.lost > 50, "{way:?}: {passed:?}");
    }
    format!("{:.2} s", took.as_secs_f64())
}

/// With the socket buffers that the system gives, as the original has them: what is sent faster than libutp reads is
/// lost at its socket, whatever the path loses. libutp to libutp takes 1.5 s without loss and 9 to 14 s with 2 %.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn ten_megabytes_arrive_whole() {
    let rows = [0.0, 0.02].into_iter().flat_map(|loss| {
        let [one_way, both] = [false, true].map(|both| {
            let cells = [Ours, Theirs].map(|who| -> Cell {
                let sends = match (both, who) {
                    (true, _) => [BULK, BULK],
                    (false, Ours) => [BULK, 0],
                    (false, Theirs) => [0, BULK],
                };
                Box::pin(bulk_cell(who, sends, loss))
            });
            let what = if both { "and back at once" } else { "one way" };
            (format!("10 MB {what}, {:.0} % loss", loss * 100.0), Vec::from(cells))
        });
        [one_way, both]
    });
    show("A → B", &["ours → theirs", "theirs → ours"].map(str::to_owned), rows.collect(), 1).await;
}

/// How often libutp and ours send a keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(29);

/// What was last seen on a way, and whether that was a keep-alive: a STATE after a long silence that acks one packet
/// less than before.
#[derive(Debug, Clone, Copy)]
struct LastSeen {
    at: Instant,
    ack: u16,
    keep_alive: bool,
}

/// Nothing is said for longer than the interval. Both sides send a keep-alive, and both still know the connection.
#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn an_idle_connection_is_kept_alive() {
    let (net, endpoint) = our_endpoint();
    let net: Net = net;
    let mut theirs = Script::start("raw.js", &[]).await;
    theirs.tell(json!({"do": "echo"})).await;
    theirs.hear("ready").await;
    let seen = watch::Sender::new(BTreeMap::<Way, LastSeen>::new());
    let mut watched = seen.subscribe();
    let relay = Relay::watched(&net, theirs.address(), 0.0, 1, move |way, bytes| {
        let packet = Repr::parse(bytes).unwrap();
        let (at, ack) = (Instant::now(), packet.ack.0);
        seen.send_modify(|seen| {
            let keep_alive = packet.kind == Packet::State
                && seen.get(&way).is_some_and(|last| at - last.at > KEEP_ALIVE / 2 && ack == last.ack.wrapping_sub(1));
            seen.insert(way, LastSeen { at, ack, keep_alive });
        });
    });
    let mut stream = connect(&endpoint, relay.address).await;
    let mut echoes = async || {
        stream.write_all(b"there?").await.unwrap();
        timeout(PATIENCE, stream.read_exact(&mut [0; 6])).await.expect("it is there").unwrap();
    };
    echoes().await;
    let both = watched.wait_for(|seen| seen.len() == 2 && seen.values().all(|last| last.keep_alive));
    drop(timeout(KEEP_ALIVE + Duration::from_secs(6), both).await.expect("both send a keep-alive"));
    echoes().await;
    assert_eq!(theirs.count("failed"), 0);
}
