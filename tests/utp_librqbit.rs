//! Our µTP and that of `librqbit-utp`, over a relay that loses packets.
//!
//! What that crate cannot do is left out: it has no half-close, so that the end of a stream is not waited for, and it
//! gives up a receiver that is silent for 10 s, and a packet that was lost five times, unless told otherwise.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use grenache::net::Net;
use grenache::transport::{Endpoint, EndpointConfig};
use librqbit_utp::{SocketOpts, UtpSocketUdp, UtpSocketUdpOpts};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use common::bulk::{random, sha256};
use common::relay::{Relay, Way};
use common::{Recorder, any_port};

mod common;

/// How many bytes each side sends.
const BULK: usize = 10_000_000;

/// How many bytes that crate sends where a tenth is lost. Its retransmission timer doubles up to 60 s, and 10 MB to
/// one of ours were not through after three minutes; to one of its own, one megabyte took 46 s.
const BULK_AT_10_PERCENT: usize = 20_000;

/// How long a try may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many tries there are over a path that loses a tenth: in some one of twenty that crate falls silent for minutes,
/// where it loses the same packet several times over, or the connection's first.
const TRIES: u64 = 5;

async fn librqbit() -> Arc<UtpSocketUdp> {
    let opts = SocketOpts {
        remote_inactivity_timeout: Some(PATIENCE),
        max_retransmissions: NonZeroUsize::new(30),
        ..SocketOpts::default()
    };
    UtpSocketUdp::new_udp_with_opts(any_port(), opts, UtpSocketUdpOpts::default()).await.unwrap()
}

/// Writes `send` while it reads as many bytes as `expect` are, which must be the same; then waits for nothing more.
async fn exchange(stream: impl AsyncRead + AsyncWrite, send: &[u8], expect: &[u8]) -> impl Sized {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut received = vec![0; expect.len()];
    let (read, written) = tokio::join!(reader.read_exact(&mut received), writer.write_all(send));
    written.unwrap();
    read.unwrap();
    assert_eq!(sha256(&received), sha256(expect));
    // Whoever is through first must not end the connection under the other.
    (reader, writer)
}

/// Both send at once: in the first try that is through in time.
async fn both_ways(ours_connects: bool, loss: f64, theirs_sends: usize) {
    let tries = if theirs_sends < BULK { TRIES } else { 1 };
    for seed in 1..=tries {
        if timeout(PATIENCE, try_both_ways(ours_connects, loss, theirs_sends, seed)).await.is_ok() {
            return;
        }
    }
    panic!("not through in {tries} tries of {PATIENCE:?}");
}

async fn try_both_ways(ours_connects: bool, loss: f64, theirs_sends: usize, seed: u64) {
    let (_, net) = Recorder::new();
    let net: Net = net;
    let endpoint = Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap();
    let theirs = librqbit().await;
    let (ours_sends, theirs_sends) = (random(BULK, 1), random(theirs_sends, 2));
    let relay = Relay::new(&net, if ours_connects { theirs.bind_addr() } else { endpoint.local_addr() }, loss, seed);
    // A connection is accepted by either when the other has something to say.
    let ours = async {
        let connected = if ours_connects {
            endpoint.connect(relay.address).await.unwrap()
        } else {
            endpoint.accept().await.unwrap()
        };
        exchange(connected, &ours_sends, &theirs_sends).await
    };
    let theirs = async {
        let connected = if ours_connects { theirs.accept().await } else { theirs.connect(relay.address).await };
        exchange(connected.unwrap(), &theirs_sends, &ours_sends).await
    };
    let _connected = tokio::join!(ours, theirs);
    for way in [Way::In, Way::Out] {
        let passed = relay.passed(way);
        assert!(loss == 0.0 || passed.lost > 100, "{way:?}: {passed:?}");
    }
}

#[tokio::test]
async fn ours_connects() {
    both_ways(true, 0.0, BULK).await;
}

#[tokio::test]
async fn theirs_connects() {
    both_ways(false, 0.0, BULK).await;
}

#[tokio::test]
async fn ours_connects_over_a_path_that_loses_2_percent() {
    both_ways(true, 0.02, BULK).await;
}

#[tokio::test]
async fn theirs_connects_over_a_path_that_loses_2_percent() {
    both_ways(false, 0.02, BULK).await;
}

#[tokio::test]
async fn ours_connects_over_a_path_that_loses_10_percent() {
    both_ways(true, 0.1, BULK_AT_10_PERCENT).await;
}

#[tokio::test]
async fn theirs_connects_over_a_path_that_loses_10_percent() {
    both_ways(false, 0.1, BULK_AT_10_PERCENT).await;
}
