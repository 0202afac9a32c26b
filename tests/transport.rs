//! µTP streams over real sockets on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grenache::net::{HostNetwork, Net};
use grenache::transport::{Datagram, Endpoint, EndpointConfig};
use grenache::utp::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Long enough for any of these on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn endpoint() -> Endpoint {
    endpoint_with(EndpointConfig::default())
}

fn endpoint_with(config: EndpointConfig) -> Endpoint {
    let net: Net = Arc::new(HostNetwork::new().expect("the host's network"));
    Endpoint::bind(&net, ANY, config).expect("a free port")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// Runs a test that must end in time.
async fn in_time<T>(test: impl Future<Output = T>) -> T {
    timeout(PATIENCE, test).await.expect("it ends")
}

#[tokio::test]
async fn ten_megabytes_each_way_at_once() {
    in_time(async {
        let (near, far) = (endpoint(), endpoint());
        let data = pattern(10 << 20);
        let (a, b) = tokio::join!(near.connect(far.local_addr()), async {
            // The acceptor gets the connection once the initiator has shown itself.
            far.accept().await.expect("a connection")
        });
        let exchange = async |stream: grenache::transport::UtpStream| {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut got = Vec::new();
            let (wrote, read) = tokio::join!(
                async {
                    writer.write_all(&data).await?;
                    writer.shutdown().await
                },
                reader.read_to_end(&mut got)
            );
            wrote.expect("written");
            read.expect("read");
            got
        };
        let (got_a, got_b) = tokio::join!(exchange(a.expect("connected")), exchange(b));
        assert!(got_a == data && got_b == data);
    })
    .await;
}

#[tokio::test]
async fn a_hundred_connections_to_one_address() {
    in_time(async {
        let (near, far) = (endpoint(), endpoint());
        let serve = async {
            let mut all = Vec::new();
            for _ in 0..100 {
                let mut stream = far.accept().await.expect("a connection");
                all.push(async move {
                    let mut text = String::new();
                    stream.read_to_string(&mut text).await.expect("read");
                    stream.write_all(text.to_uppercase().as_bytes()).await.expect("written");
                    stream.shutdown().await.expect("closed");
                });
            }
            futures_util::future::join_all(all).await
        };
        let ask = futures_util::future::join_all((0..100).map(|i| {
            let near = &near;
            let to = far.local_addr();
            async move {
                let mut stream = near.connect(to).await.expect("connected");
                stream.write_all(format!("request {i}").as_bytes()).await.expect("written");
                stream.shutdown().await.expect("closed");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("read");
                assert_eq!(answer, format!("REQUEST {i}"));
            }
        }));
        tokio::join!(serve, ask);
    })
    .await;
}

#[tokio::test]
async fn a_reset_reaches_the_other_side() {
    in_time(async {
        let (near, far) = (endpoint(), endpoint());
        let stream = near.connect(far.local_addr()).await.expect("connected");
        let mut other = far.accept().await.expect("a connection");
        stream.reset();
        let error = other.read(&mut [0]).await.expect_err("reset");
        assert!(error.to_string().contains("UTP_ECONNRESET"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn connecting_to_nobody_times_out() {
    in_time(async {
        let near = endpoint_with(EndpointConfig::default().connect_timeout(Duration::from_millis(300)));
        // Bound, so that nobody else answers, and never read.
        let silent = std::net::UdpSocket::bind(ANY).expect("a free port");
        let error = near.connect(silent.local_addr().expect("its port")).await.expect_err("nobody answers");
        assert!(error.to_string().contains("UTP_ETIMEDOUT"), "{error}");
        assert_eq!(near.stats().connections, 0, "nothing is left of the attempt");
    })
    .await;
}

#[tokio::test]
async fn dropped_streams_deliver_what_they_wrote() {
    in_time(async {
        let (near, far) = (endpoint(), endpoint());
        let data = pattern(300_000);
        {
            let mut stream = near.connect(far.local_addr()).await.expect("connected");
            stream.write_all(&data).await.expect("written");
        }
        drop(near);
        let mut got = Vec::new();
        far.accept().await.expect("a connection").read_to_end(&mut got).await.expect("read");
        assert!(got == data);
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back() {
    in_time(async {
        let small = || EndpointConfig::default().utp(Config::default().receive_window(20_000).send_buffer(20_000));
        let (near, far) = (endpoint_with(small()), endpoint_with(small()));
        let data = pattern(400_000);
        let mut stream = near.connect(far.local_addr()).await.expect("connected");
        let mut other = far.accept().await.expect("a connection");
        let mut written = 0;
        // The writer stops: 20 kB are with the reader, 20 kB are unacked.
        while let Ok(result) = timeout(Duration::from_millis(100), stream.write(&data[written..])).await {
            written += result.expect("a write");
        }
        assert!((20_000..=40_000).contains(&written), "{written} bytes were taken");
        let mut got = Vec::new();
        let (rest, read) = tokio::join!(
            async {
                stream.write_all(&data[written..]).await?;
                stream.shutdown().await
            },
            other.read_to_end(&mut got)
        );
        rest.expect("written");
        read.expect("read");
        assert!(got == data);
    })
    .await;
}

#[tokio::test]
async fn other_datagrams_reach_every_subscriber_beside_streams() {
    in_time(async {
        let (near, far) = (endpoint(), endpoint());
        let (mut one, mut two) = (far.datagrams(), far.datagrams());
        let _stream = near.connect(far.local_addr()).await.expect("connected");
        for payload in [&b"\xc3\xbf"[..], b"\xff", b"\xc3\xbf\x0a", b"[\"json\"]"] {
            near.send_datagram(far.local_addr(), Bytes::from_static(payload));
            let expected = Datagram { from: near.local_addr(), payload: Bytes::from_static(payload) };
            assert_eq!(one.recv().await.as_ref(), Ok(&expected));
            assert_eq!(two.recv().await.as_ref(), Ok(&expected));
        }
    })
    .await;
}

#[tokio::test]
async fn closing_ends_both_sides_in_order() {
    in_time(async {
        let (near, far) = (endpoint(), endpoint());
        let mut stream = near.connect(far.local_addr()).await.expect("connected");
        stream.write_all(b"last words").await.expect("written");
        let mut other = far.accept().await.expect("a connection");
        let (read, ()) = tokio::join!(
            async move {
                let mut text = String::new();
                other.read_to_string(&mut text).await.map(|_| text)
            },
            near.close()
        );
        assert_eq!(read.expect("read"), "last words");
        assert!(near.connect(far.local_addr()).await.is_err());
        assert!(near.accept().await.is_none());
    })
    .await;
}
