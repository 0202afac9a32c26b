//! What loopback and the client allow at most: a server that reads calls and answers `1` to each.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1";

/// Listens on a free port, on a thread of its own, until this process ends.
pub(crate) fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket option");
    let address = listener.local_addr().expect("the port");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                runtime.spawn(serve(stream));
            }
        });
    });
    address
}

async fn serve(mut stream: TcpStream) {
    let mut received = Vec::with_capacity(64 << 10);
    while let Ok(1..) = stream.read_buf(&mut received).await {
        let (mut end, mut answers) = (0, Vec::new());
        while let Some(length) = call(&received[end..]) {
            end += length;
            answers.extend_from_slice(ANSWER);
        }
        received.drain(..end);
        if stream.write_all(&answers).await.is_err() {
            return;
        }
    }
}

/// The length of the first call, once it is there.
fn call(received: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(start) = request.parse(received).expect("an HTTP request") else { return None };
    let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    let end = start + std::str::from_utf8(length.value).ok()?.parse::<usize>().ok()?;
    (received.len() >= end).then_some(end)
}
