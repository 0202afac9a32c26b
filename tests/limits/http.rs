//! Connections to a Grape's API: how many, and for how long.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use grenache::grape::{Grape, GrapeConfig, HTTP_TIMEOUT, MAX_HTTP_CONNECTIONS};
use grenache::net::HostNetwork;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// A request that costs the Grape nothing, and how its answer ends.
const REQUEST: &[u8] = b"POST /nothing HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
const ANSWER: &[u8] = b"\"ERR_REQ_NOTFOUND\"";

async fn grape() -> Grape {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let config = GrapeConfig::default().dht_address(any).api_address(any);
    Grape::start(&(Arc::new(HostNetwork::new()) as _), config).await.unwrap()
}

async fn is_answered(connection: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(ANSWER) {
        let read = timeout(PATIENCE, connection.read_buf(&mut answer)).await.expect("an answer in time").unwrap();
        assert!(read > 0, "{:?}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn a_grape_has_so_many_connections_and_further_ones_wait() {
    let grape = grape().await;
    let mut held = Vec::new();
    for _ in 0..MAX_HTTP_CONNECTIONS {
        held.push(TcpStream::connect(grape.api_addr()).await.unwrap());
    }
    for connection in &mut held {
        connection.write_all(REQUEST).await.unwrap();
        is_answered(connection).await;
    }
    let mut waiting = TcpStream::connect(grape.api_addr()).await.unwrap();
    waiting.write_all(REQUEST).await.unwrap();
    // Those that have a place are answered all the while, and it is not.
    for connection in &mut held[..100] {
        connection.write_all(REQUEST).await.unwrap();
        is_answered(connection).await;
    }
    assert_eq!(waiting.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    held.pop();
    is_answered(&mut waiting).await;
}

#[tokio::test(start_paused = true)]
async fn a_head_or_a_body_that_does_not_come_ends_its_connection() {
    let grape = grape().await;
    for (sent, answer) in [(&REQUEST[..30], ""), (&REQUEST[..REQUEST.len() - 1], "HTTP/1.1 408 ")] {
        let begun = Instant::now();
        let mut connection = TcpStream::connect(grape.api_addr()).await.unwrap();
        connection.write_all(sent).await.unwrap();
        let mut told = Vec::new();
        // A connection that is closed with bytes unread is reset.
        let _ = connection.read_to_end(&mut told).await;
        assert!(told.starts_with(answer.as_bytes()), "{:?}", String::from_utf8_lossy(&told));
        assert!(begun.elapsed() >= HTTP_TIMEOUT, "after {:?}", begun.elapsed());
    }
}
