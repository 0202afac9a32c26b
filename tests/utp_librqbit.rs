//! Our µTP and that of `librqbit-utp`, over a relay that loses packets.
//!
//! What that crate cannot do is left out: it has no half-close, so that the end of a stream is not waited for, and it
//! gives up a receiver that is silent for 10 s, and a packet that was lost five times, unless told otherwise.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use grenache::net::Net;
use grenache::transport::{Endpoint, EndpointConfig};
use librqbit_utp::{SocketOpts, UtpSocketUdp, UtpSocketUdpOpts};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use common::bulk::{random, sha256};
use common::relay::{Passed, Relay, Way};
use common::{Recorder, any_port};

mod common;

/// How many bytes each side sends.
const BULK: usize = 10_000_000;

/// How long an exchange may take, where it is only tried once: 4 to 6 s on a quiet machine, and longer where that crate's
/// timers run out because it is not asked in time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Over how many connections at once that crate sends its bytes where a tenth is lost. One carries 0.1 to 0.2 MB/s to
/// ours (0.03 to 0.13 MB/s to its own), and waits nearly all that time: it sends what was lost again only once before
/// its timer runs, at least 200 ms, which doubles each time up to 60 s until a packet is acked that was sent once.
const CONNECTIONS: usize = 40;

/// How long each of them may take until it is ended and its part sent again over another: that crate's timer may have
/// doubled to many seconds by then. Most are through after 1 to 2 s.
const TRY: Duration = Duration::from_secs(3);

/// How many times as long the first may take, which brings all of ours too.
const FIRST: u32 = 3;

/// How long that crate may take to connect there: it sends its SYN only once, and waits without end where it was lost.
const CONNECT: Duration = Duration::from_secs(2);

/// How often a part is tried. Some one of seven tries comes to nothing, and one of three where that crate connects. More do
/// on a loaded machine where ours connects: after three SYNs without an answer, 1.75 s, ours goes on with another id, for
/// which nobody accepts here. That crate's connection is the first id's; our RESETs do not end it, for they carry the id
/// that it sends with, and it knows connections by the other. It ends once its SYN-ACK was sent 30 times, after 6 s, if
/// the try is not over before.
const TRIES: u64 = 20;

async fn librqbit() -> Arc<UtpSocketUdp> {
    let opts = SocketOpts {
        remote_inactivity_timeout: Some(PATIENCE),
        max_retransmissions: NonZeroUsize::new(30),
        ..SocketOpts::default()
    };
    UtpSocketUdp::new_udp_with_opts(any_port(), opts, UtpSocketUdpOpts::default()).await.unwrap()
}

/// Writes `send` while it reads `expect` bytes. Gives them, and what must be kept until the other side is through too.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite,
    send: &[u8],
    expect: usize,
) -> io::Result<(Vec<u8>, impl Sized)> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut received = vec![0; expect];
    tokio::try_join!(reader.read_exact(&mut received), writer.write_all(send))?;
    Ok((received, (reader, writer)))
}

/// A path between two new peers.
#[derive(Clone, Copy)]
struct Path {
    ours_connects: bool,
    loss: f64,
    seed: u64,
}

/// What has come over a path.
struct Through {
    ours_received: Vec<u8>,
    /// By the relay, in and out.
    passed: [Passed; 2],
}

impl Path {
    /// Both send at once, over one connection. An error where that crate does not connect in time, or either's
    /// connection ends; nothing where either waits for more without end.
    async fn both_ways(self, connect_within: Duration, ours_sends: &[u8], theirs_sends: &[u8]) -> io::Result<Through> {
        let (_, net) = Recorder::new();
        let net: Net = net;
        let endpoint = Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap();
        let theirs = librqbit().await;
        let acceptor = if self.ours_connects { theirs.bind_addr() } else { endpoint.local_addr() };
        let relay = Relay::new(&net, acceptor, self.loss, self.seed);
        // A connection is accepted by either when the other has something to say.
        let ours = async {
            let connected = if self.ours_connects {
                endpoint.connect(relay.address).await?
            } else {
                endpoint.accept().await.unwrap()
            };
            exchange(connected, ours_sends, theirs_sends.len()).await
        };
        let theirs = async {
            let connected = if self.ours_connects {
                theirs.accept().await
            } else {
                timeout(connect_within, theirs.connect(relay.address)).await?
            };
            exchange(connected.map_err(io::Error::other)?, theirs_sends, ours_sends.len()).await
        };
        // Whoever is through first must not end the connection under the other.
        let ((ours_received, _ours), (theirs_received, _theirs)) = tokio::try_join!(ours, theirs)?;
        assert_eq!(sha256(&theirs_received), sha256(ours_sends));
        Ok(Through { ours_received, passed: [Way::In, Way::Out].map(|way| relay.passed(way)) })
    }
}

async fn over_one_connection(ours_connects: bool, loss: f64) {
    let (ours, theirs) = (random(BULK, 1), random(BULK, 2));
    let path = Path { ours_connects, loss, seed: 1 };
    let through = timeout(PATIENCE, path.both_ways(PATIENCE, &ours, &theirs)).await.unwrap().unwrap();
    assert_eq!(sha256(&through.ours_received), sha256(&theirs));
    assert!(through.passed.iter().all(|way| loss == 0.0 || way.lost > 100), "{:?}", through.passed);
}

/// The first connection brings all of ours, and like the others its part of theirs.
async fn over_many_connections(ours_connects: bool, loss: f64) {
    let (ours, theirs) = (random(BULK, 1), random(BULK, 2));
    let parts = theirs.chunks(BULK.div_ceil(CONNECTIONS)).zip(0..).map(|(theirs, nth)| {
        let (ours, limit): (&[u8], _) = if nth == 0 { (&ours, FIRST * TRY) } else { (&[], TRY) };
        async move {
            for seed in nth * TRIES..(nth + 1) * TRIES {
                let path = Path { ours_connects, loss, seed };
                if let Ok(Ok(through)) = timeout(limit, path.both_ways(CONNECT, ours, theirs)).await {
                    return through;
                }
            }
            panic!("part {nth} is not through in {TRIES} tries of {limit:?}");
        }
    });
    let through = join_all(parts).await;
    let received: Vec<_> = through.iter().flat_map(|part| part.ours_received.iter().copied()).collect();
    assert_eq!(sha256(&received), sha256(&theirs));
    for way in 0..2 {
        assert!(through.iter().map(|part| part.passed[way].lost).sum::<u64>() > 100);
    }
}

#[tokio::test]
async fn ours_connects() {
    over_one_connection(true, 0.0).await;
}

#[tokio::test]
async fn theirs_connects() {
    over_one_connection(false, 0.0).await;
}

#[tokio::test]
async fn ours_connects_over_a_path_that_loses_2_percent() {
    over_one_connection(true, 0.02).await;
}

#[tokio::test]
async fn theirs_connects_over_a_path_that_loses_2_percent() {
    over_one_connection(false, 0.02).await;
}

#[tokio::test]
async fn ours_connects_over_a_path_that_loses_10_percent() {
    over_many_connections(true, 0.1).await;
}

#[tokio::test]
async fn theirs_connects_over_a_path_that_loses_10_percent() {
    over_many_connections(false, 0.1).await;
}
