//! A client that costs as little as it can, so that what is measured is the server.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A keep-alive connection.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// A call as it goes over the wire.
pub(crate) fn call(path: &str, data: &serde_json::Value) -> Vec<u8> {
    let body = serde_json::json!({"rid": "bench", "data": data}).to_string();
    format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> Self {
        Self::on(TcpStream::connect(server).await.expect("the server listens"))
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP option");
        Self { stream, received: Vec::with_capacity(64 << 10) }
    }

    /// Sends calls back to back and waits for the answer to each; gives `look` their bodies.
    pub(crate) async fn send(&mut self, calls: &[u8], count: usize, mut look: impl FnMut(&[u8])) {
        self.stream.write_all(calls).await.expect("the server takes calls");
        for _ in 0..count {
            let (start, end) = loop {
                if let Some(range) = answer(&self.received) {
                    break range;
                }
                let read = self.stream.read_buf(&mut self.received).await.expect("the server answers");
                assert_ne!(read, 0, "the server closed the connection");
            };
            look(&self.received[start..end]);
            self.received.drain(..end);
        }
    }
}

/// Where the body of the first answer starts and ends, once it is there.
fn answer(received: &[u8]) -> Option<(usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(received).expect("an HTTP answer") else { return None };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = std::str::from_utf8(length.value).ok()?.parse().ok()?;
    (received.len() >= start + length).then_some((start, start + length))
}
