//! Ending a client and a server in good order, on the paused clock.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{join, join3};
use serde_json::json;
use tokio::io::ReadBuf;
use tokio::time::{Instant, sleep};

use super::*;
use crate::rpc::connection::Connection;
use crate::rpc::server::Shared;
use crate::rpc::{CLOSE_TIMEOUT, RequestOptions, RpcError, ServerConfig};

#[tokio::test(start_paused = true)]
async fn a_stopped_client_takes_no_requests_lets_those_in_flight_end_and_closes() {
    let (client, mut peers, net) = client(ClientConfig::default());
    let clone = client.clone();
    let (answered, late) = (json!("answered"), json!("late"));
    let options = RequestOptions::default().timeout(Duration::from_secs(7));
    let begun = Instant::now();
    let asking = join(
        client.request_at_with(peer_address(), "k", &answered, options),
        client.request_at_with(peer_address(), "k", &late, options),
    );
    let stopping = async {
        let mut peer = peers.recv().await.unwrap();
        let (rid, _) = peer.request().await;
        peer.request().await;
        let asked = &clone;
        let answering = async move {
            sleep(Duration::from_secs(1)).await;
            let refused = asked.request_at(peer_address(), "k", &json!("new")).await;
            peer.write(&json!([rid, null, 1]).to_string()).await;
            assert_eq!(peer.text().await, None, "the end of the stream");
            // The peer ends with this.
            (refused, begun.elapsed())
        };
        join(clone.stop(), answering).await.1
    };
    let ((answer, timed_out), (refused, closed_after)) = join(asking, stopping).await;
    assert_eq!((answer, timed_out, refused), (Ok(json!(1)), Err(RpcError::Timeout), Err(RpcError::Stopped)));
    assert_eq!(closed_after, Duration::from_secs(7), "as soon as the last request had ended");
    assert_eq!((begun.elapsed(), client.transports()), (closed_after, 0));
    let failed = |error: &str| {
        net.events()
            .iter()
            .filter(|e| matches!(e, Event::RequestFailed { error: e, .. } if e.starts_with(error)))
            .count()
    };
    assert_eq!((failed("ERR_STOPPED"), failed("ERR_TIMEOUT")), (1, 1), "each request has its one end");
    client.stop().await;
}

/// A connection whose end the peer never acknowledges.
#[derive(Debug)]
struct NeverEnds(DuplexStream);

impl tokio::io::AsyncRead for NeverEnds {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, out)
    }
}

impl tokio::io::AsyncWrite for NeverEnds {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// Connects to an echo whose connections never end.
#[derive(Debug)]
struct DialNeverEnds(Net);

impl Dial for DialNeverEnds {
    fn dial(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<BoxStream>> {
        let (ours, theirs) = duplex(64 << 10);
        let mut peer = Peer { stream: theirs, splitter: Splitter::new(MAX_TEXT) };
        let echo = Box::pin(async move {
            let (rid, payload) = peer.request().await;
            peer.write(&json!([rid, null, payload]).to_string()).await;
            std::future::pending().await
        });
        self.0.spawn(echo).detach();
        Box::pin(async move { Ok(Box::new(NeverEnds(ours)) as BoxStream) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_acknowledge_the_end_holds_a_stop_up_for_five_seconds() {
    let (_, net) = TestNet::new();
    let client = PeerRpcClient::over(&net, Arc::new(DialNeverEnds(net.clone())), None, ClientConfig::default());
    assert_eq!(client.request_at(peer_address(), "k", &json!(1)).await, Ok(json!(1)));
    let begun = Instant::now();
    client.stop().await;
    assert_eq!(begun.elapsed(), CLOSE_TIMEOUT);
    assert_eq!(CLOSE_TIMEOUT, Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stop_leaves_the_client_stopped() {
    let (client, mut peers, _) = client(ClientConfig::default());
    let payload = json!(1);
    let asking = client.request_at(peer_address(), "k", &payload);
    let driving = async {
        let mut peer = peers.recv().await.unwrap();
        let (rid, _) = peer.request().await;
        assert!(tokio::time::timeout(Duration::from_secs(1), client.stop()).await.is_err(), "one is in flight");
        assert_eq!(client.request_at(peer_address(), "k", &json!(2)).await, Err(RpcError::Stopped));
        peer.write(&json!([rid, null, 1]).to_string()).await;
    };
    assert_eq!(join(asking, driving).await.0, Ok(json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_connection_reads_no_more_answers_what_is_in_flight_and_ends() {
    let (_, net) = TestNet::new();
    let (shared, mut requests) = Shared::new(&net, ServerConfig::default());
    let (ours, mut theirs) = {
        let (ours, theirs) = duplex(64 << 10);
        (ours, Peer { stream: theirs, splitter: Splitter::new(MAX_TEXT) })
    };
    let connection = Connection::run(shared.clone(), ours, peer_address());
    let peer = async {
        theirs.write(r#"["a","k",1]["b","k",2]"#).await;
        let (first, second) = (requests.next().await.unwrap(), requests.next().await.unwrap());
        shared.gate().close();
        theirs.write(r#"["c","k",3]"#).await;
        sleep(Duration::from_secs(30)).await;
        second.reply(Ok(json!(2)));
        sleep(Duration::from_secs(1)).await;
        first.reply(Ok(json!(1)));
        assert_eq!(theirs.text().await.unwrap(), r#"["b",null,2]"#);
        assert_eq!(theirs.text().await.unwrap(), r#"["a",null,1]"#);
        assert_eq!(theirs.text().await, None, "the third is not answered");
    };
    let begun = Instant::now();
    let ((), (), ()) = join3(connection, peer, shared.stopped()).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn a_server_waits_no_longer_than_told() {
    let (_, net) = TestNet::new();
    let (shared, mut requests) = Shared::new(&net, ServerConfig::default().stop_timeout(Duration::from_secs(3)));
    let (ours, theirs) = duplex(64 << 10);
    let mut peer = Peer { stream: theirs, splitter: Splitter::new(MAX_TEXT) };
    let _connection = net.spawn(Box::pin(Connection::run(shared.clone(), ours, peer_address())));
    peer.write(r#"["a","k",1]"#).await;
    let _never_answered = requests.next().await.unwrap();
    let begun = Instant::now();
    shared.gate().close();
    shared.stopped().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
}
