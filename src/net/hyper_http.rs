//! HTTP posts over any stream: for networks that reqwest cannot be given.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;

use super::{BoxFuture, HttpClient, MAX_HTTP_ANSWER, TcpStream};

/// What opens a stream to a server.
type Connect = dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> + Send + Sync;

/// An [`HttpClient`] over whatever a closure connects: one connection a post, closed after its answer.
///
/// It starts no task: connection and request are driven by the returned future, so that dropping it closes both.
///
/// ```no_run
/// use std::sync::Arc;
/// use grenache::net::{HttpClient, HyperHttp, Net};
///
/// # fn example(net: Net) -> impl HttpClient {
/// HyperHttp::new(move |server| net.connect_tcp(server))
/// # }
/// ```
#[derive(Clone)]
pub struct HyperHttp {
    connect: Arc<Connect>,
}

impl HyperHttp {
    /// A client whose streams come from `connect`.
    pub fn new<F>(connect: F) -> Self
    where
        F: Fn(SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> + Send + Sync + 'static,
    {
        Self { connect: Arc::new(connect) }
    }
}

impl fmt::Debug for HyperHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HyperHttp").finish_non_exhaustive()
    }
}

impl HttpClient for HyperHttp {
    fn post(&self, server: SocketAddr, path: &str, body: Bytes) -> BoxFuture<'static, io::Result<(u16, Bytes)>> {
        let request = Request::post(path)
            .header(HOST, server.to_string())
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .body(Full::new(body));
        let connecting = (self.connect)(server);
        Box::pin(async move {
            let request = request.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
            let stream = connecting.await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            let exchange = async move {
                let answer = sender.send_request(request).await.map_err(io::Error::other)?;
                let status = answer.status().as_u16();
                Ok((status, read_limited(answer.into_body()).await?))
            };
            drive(connection, exchange).await
        })
    }
}

/// Polls `background` along with `work` until `work` is done; the end of `background` alone decides nothing, as
/// what was received before it may still be read.
async fn drive<T>(background: impl Future, work: impl Future<Output = T>) -> T {
    let mut background = pin!(background);
    let mut work = pin!(work);
    let mut ended = false;
    poll_fn(|cx| {
        if !ended {
            ended = background.as_mut().poll(cx).is_ready();
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// Reads a body of at most [`MAX_HTTP_ANSWER`] bytes.
async fn read_limited<B>(mut body: B) -> io::Result<Bytes>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        if read.len() + data.len() > MAX_HTTP_ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is larger than 1 MiB"));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 30001);

    /// A client whose first connection is given back from its other end.
    fn client() -> (HyperHttp, DuplexStream) {
        let (ours, theirs) = duplex(1 << 16);
        let ours = std::sync::Mutex::new(Some(ours));
        let http = HyperHttp::new(move |_| {
            let stream = ours.lock().unwrap().take().expect("one connection a test");
            Box::pin(async move { Ok(Box::new(stream) as Box<dyn TcpStream>) })
        });
        (http, theirs)
    }

    /// Reads one request to the end of its body (`{}`), writes `answer` and closes.
    async fn answer_once(mut peer: DuplexStream, answer: Vec<u8>) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(b"{}") {
            let mut chunk = [0; 1024];
            let n = peer.read(&mut chunk).await.unwrap();
            assert!(n > 0, "the request ended early");
            seen.extend_from_slice(&chunk[..n]);
        }
        // The client may stop reading before all is written: the answer may be over its limit.
        let _ = peer.write_all(&answer).await;
        String::from_utf8(seen).unwrap()
    }

    async fn exchange(answer: &[u8]) -> (io::Result<(u16, Bytes)>, String) {
        let (http, peer) = client();
        let post = http.post(SERVER, "/lookup", Bytes::from_static(b"{}"));
        futures_util::future::join(post, answer_once(peer, answer.to_vec())).await
    }

    #[tokio::test]
    async fn posts_json_and_reads_the_answer_without_a_content_type() {
        let (answer, request) = exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").await;
        assert_eq!(answer.unwrap(), (200, Bytes::from_static(b"[]")));
        let request = request.to_lowercase();
        assert!(request.starts_with("post /lookup http/1.1\r\n"), "{request}");
        for line in ["host: 127.0.0.1:30001", "content-type: application/json", "content-length: 2"] {
            assert!(request.contains(line), "{line} missing in {request}");
        }
        assert!(!request.contains("date:"), "{request}");
    }

    #[tokio::test]
    async fn an_answer_without_length_ends_with_the_connection() {
        let (answer, _) = exchange(b"HTTP/1.1 500 Oops\r\n\r\nERR_GRAPE_PAYLOAD_INVALID").await;
        assert_eq!(answer.unwrap(), (500, Bytes::from_static(b"ERR_GRAPE_PAYLOAD_INVALID")));
    }

    #[tokio::test]
    async fn a_peer_that_closes_early_is_an_error() {
        for cut in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[]"] {
            let (answer, _) = exchange(cut.as_bytes()).await;
            assert!(answer.is_err(), "{cut:?} gave {answer:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_may_have_the_limit_and_no_byte_more() {
        let of_size = |n: usize| {
            let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n").into_bytes();
            answer.resize(answer.len() + n, b'x');
            answer
        };
        let (answer, _) = exchange(&of_size(MAX_HTTP_ANSWER)).await;
        assert_eq!(answer.unwrap().1.len(), MAX_HTTP_ANSWER);
        let (answer, _) = exchange(&of_size(MAX_HTTP_ANSWER + 1)).await;
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
