//! µTP streams and datagrams on one socket, over loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grenache::net::{HostNetwork, Net};
use grenache::transport::{Endpoint, EndpointConfig, UtpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn network() -> Net {
    Arc::new(HostNetwork::new().unwrap())
}

fn endpoint(net: &Net) -> Endpoint {
    Endpoint::bind(net, SocketAddr::from(([127, 0, 0, 1], 0)), EndpointConfig::default()).unwrap()
}

async fn pair(a: &Endpoint, b: &Endpoint) -> (UtpStream, UtpStream) {
    let (connected, accepted) = tokio::join!(a.connect(b.local_addr()), b.accept());
    (connected.unwrap(), accepted.unwrap())
}

fn pattern(len: usize, salt: u32) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 13) as u8).collect()
}

#[tokio::test]
async fn ten_megabytes_each_way() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (near, far) = pair(&a, &b).await;
    assert_eq!(near.peer_addr(), b.local_addr());
    assert_eq!(far.peer_addr(), a.local_addr());
    let run = async |stream: UtpStream, send: Vec<u8>, expect: Vec<u8>| {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let write = async {
            writer.write_all(&send).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let read = async {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            received
        };
        let ((), received) = tokio::join!(write, read);
        assert!(received == expect, "received bytes differ from those sent");
    };
    let (up, down) = (pattern(10 << 20, 1), pattern(10 << 20, 2));
    tokio::join!(run(near, up.clone(), down.clone()), run(far, down, up));
}

#[tokio::test]
async fn a_hundred_connections_to_one_address() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let server = async {
        for _ in 0..100 {
            let mut stream = b.accept().await.unwrap();
            net.spawn(Box::pin(async move {
                let mut request = Vec::new();
                stream.read_to_end(&mut request).await.unwrap();
                request.reverse();
                stream.write_all(&request).await.unwrap();
                stream.shutdown().await.unwrap();
            }))
            .detach();
        }
    };
    let clients = futures_util::future::join_all((0..100).map(async |i| {
        let mut stream = a.connect(b.local_addr()).await.unwrap();
        let mut request = pattern(5000, i);
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        request.reverse();
        assert_eq!(reply, request);
    }));
    tokio::join!(server, clients);
}

#[tokio::test]
async fn both_ends_may_connect_to_each_other_and_to_themselves() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut to_b, mut from_a) = pair(&a, &b).await;
    let (mut to_a, mut from_b) = pair(&b, &a).await;
    let (mut loop_out, mut loop_in) = pair(&a, &a).await;
    for (out, into, byte) in
        [(&mut to_b, &mut from_a, 1u8), (&mut to_a, &mut from_b, 2), (&mut loop_out, &mut loop_in, 3)]
    {
        out.write_u8(byte).await.unwrap();
        assert_eq!(into.read_u8().await.unwrap(), byte);
    }
}

#[tokio::test]
async fn the_acceptor_may_speak_first() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut near, mut far) = pair(&a, &b).await;
    far.write_all(b"welcome").await.unwrap();
    let mut greeting = [0; 7];
    near.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"welcome");
}

#[tokio::test]
async fn one_side_may_finish_and_the_other_go_on() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut near, mut far) = pair(&a, &b).await;
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
    let reply = pattern(100_000, 3);
    far.write_all(&reply).await.unwrap();
    far.shutdown().await.unwrap();
    let mut received = Vec::new();
    near.read_to_end(&mut received).await.unwrap();
    assert!(received == reply);
    let error = near.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_reset_fails_the_peer() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (near, mut far) = pair(&a, &b).await;
    near.reset();
    let error = far.read(&mut [0; 10]).await.unwrap_err();
    assert!(error.to_string().contains("UTP_ECONNRESET"), "{error}");
    let error = far.write_all(b"x").await.unwrap_err();
    assert!(error.to_string().contains("UTP_ECONNRESET"), "{error}");
}

#[tokio::test]
async fn connecting_to_a_dead_port_times_out() {
    let net = network();
    let config = EndpointConfig::default().connect_timeout(Duration::from_millis(600));
    let a = Endpoint::bind(&net, SocketAddr::from(([127, 0, 0, 1], 0)), config).unwrap();
    // Bound, but nobody answers.
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = a.connect(dead.local_addr().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("UTP_ETIMEDOUT"), "{error}");
}

#[tokio::test]
async fn datagrams_pass_beside_streams() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut first, mut second) = (b.datagrams(), b.datagrams());
    let (mut near, mut far) = pair(&a, &b).await;
    near.write_all(b"stream").await.unwrap();
    for payload in [&b"\xc3\xbf"[..], b"", b"[\"a message of more than twenty bytes\"]"] {
        a.send_datagram(b.local_addr(), Bytes::from_static(payload));
        for subscriber in [&mut first, &mut second] {
            let datagram = subscriber.recv().await.unwrap();
            assert_eq!((datagram.from, &datagram.payload[..]), (a.local_addr(), payload));
        }
    }
    let mut received = [0; 6];
    far.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"stream");
    assert_eq!(a.dropped_datagrams(), 0);
}

#[tokio::test]
async fn dropping_a_stream_delivers_what_was_written() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut near, mut far) = pair(&a, &b).await;
    let sent = pattern(500_000, 4);
    near.write_all(&sent).await.unwrap();
    drop(near);
    drop(a);
    let mut received = Vec::new();
    far.read_to_end(&mut received).await.unwrap();
    assert!(received == sent);
}

#[tokio::test]
async fn closing_the_endpoint_delivers_and_then_refuses() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut near, mut far) = pair(&a, &b).await;
    let sent = pattern(500_000, 5);
    near.write_all(&sent).await.unwrap();
    let read = async {
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        far.shutdown().await.unwrap();
        received
    };
    let ((), received) = tokio::join!(a.close(), read);
    assert!(received == sent);
    assert!(a.accept().await.is_none());
    assert!(a.connect(b.local_addr()).await.is_err());
    // The port is free again.
    drop(near);
    Endpoint::bind(&net, a.local_addr(), EndpointConfig::default()).unwrap();
}
