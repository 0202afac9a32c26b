//! Client and server over streams in memory, on the paused clock.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rand::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use super::carrier::{BoxStream, Dial};
use super::framing::{MAX_TEXT, Splitter};
use super::{ClientConfig, PeerRpcClient};
use crate::event::Event;
use crate::net::{BoxFuture, HttpClient, Net, Network, Rng, Task, TcpListener, TcpStream, UdpSocket};

mod client;
mod outcome;
mod server;
mod stop;

/// A network of tasks, random numbers and events, without sockets.
#[derive(Debug, Default)]
struct TestNet {
    events: Mutex<Vec<Event>>,
}

impl TestNet {
    fn new() -> (Arc<Self>, Net) {
        let net = Arc::new(Self::default());
        (net.clone(), net)
    }

    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

impl Network for TestNet {
    fn bind_udp(&self, _: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connect_tcp(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen_tcp(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpListener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn http(&self) -> Arc<dyn HttpClient> {
        unreachable!("no link in these tests")
    }

    fn rng(&self, _: &str) -> Rng {
        Rng::seed_from_u64(1)
    }

    #[expect(clippy::disallowed_methods, reason = "this network is a test's own")]
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Task {
        Task::new(tokio::spawn(task).abort_handle())
    }

    fn emit(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

/// Hands the far end of each connection to the test. Fails once the test has dropped its receiver.
#[derive(Debug)]
struct TestDial(mpsc::UnboundedSender<Peer>);

impl Dial for TestDial {
    fn dial(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<BoxStream>> {
        let (ours, theirs) = duplex(64 << 10);
        let sent = self.0.send(Peer { stream: theirs, splitter: Splitter::new(MAX_TEXT) });
        Box::pin(async move {
            sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            Ok(Box::new(ours) as BoxStream)
        })
    }
}

/// The far end of a connection, in the test's hands.
#[derive(Debug)]
struct Peer {
    stream: DuplexStream,
    splitter: Splitter,
}

impl Peer {
    /// The next text; `None` at the end of the stream.
    async fn text(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.splitter.next_text() {
                return Some(String::from_utf8(text.unwrap().to_vec()).unwrap());
            }
            let mut received = [0; 4096];
            match self.stream.read(&mut received).await.unwrap() {
                0 => return None,
                len => self.splitter.push(&received[..len]),
            }
        }
    }

    /// The next request's id and payload.
    async fn request(&mut self) -> (String, serde_json::Value) {
        let text = self.text().await.expect("a request");
        let (rid, _key, payload): (String, String, _) = serde_json::from_str(&text).unwrap();
        (rid, payload)
    }

    async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }
}

fn peer_address() -> SocketAddr {
    "203.0.113.5:1337".parse().unwrap()
}

/// A client whose connections come out of the receiver.
fn client(config: ClientConfig) -> (PeerRpcClient, mpsc::UnboundedReceiver<Peer>, Arc<TestNet>) {
    let (recorder, net) = TestNet::new();
    let (dialled, peers) = mpsc::unbounded_channel();
    (PeerRpcClient::over(&net, Arc::new(TestDial(dialled)), None, config), peers, recorder)
}
