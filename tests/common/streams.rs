//! Two hosts in the simulator for streamed calls, and bodies that count what is under way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use grenache::rpc::streaming::{BODY_BUFFER, StreamError};
use grenache::rpc::{ClientConfig, PeerRpcClient};
use grenache::transport::{Endpoint, EndpointConfig};
use grenache::utp::Config;
use grenache_sim::engine::{Sim, World};
use grenache_sim::scenario::model::{Link, Node};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// µTP's windows in these tests, each way: small, so that what is under way is small too.
pub(crate) const WINDOW: usize = 64 << 10;

/// The most bytes of a body that may be under way: in a pipe and a chunk on each side, and in µTP's two windows; and
/// what the sending task and the test itself hold.
pub(crate) const UNDER_WAY: u64 = (2 * BODY_BUFFER + 2 * WINDOW + 3 * (32 << 10) + (16 << 10)) as u64;

pub(crate) const SERVER: &str = "203.0.113.1:5000";

/// Runs `main` with the hosts `server`, `client` and `other`, which links connect that lose packets and let them
/// overtake each other; gives what it returned, and the events as lines of JSON.
pub(crate) fn simulated<T>(seed: u64, loss: f64, main: impl AsyncFnOnce(World) -> T) -> (T, Vec<String>) {
    let link = Link { latency: Duration::from_millis(10), jitter: Duration::from_millis(2), loss, ..Link::default() };
    let links = BTreeMap::from([("path".into(), link)]);
    let node = |address: &str| Node { address: address.parse().unwrap(), link: Some("path".into()), ..Node::default() };
    let nodes = BTreeMap::from([
        ("server".into(), node("203.0.113.1")),
        ("client".into(), node("203.0.113.2")),
        ("other".into(), node("203.0.113.3")),
    ]);
    let events = Rc::new(RefCell::new(Vec::new()));
    let seen = events.clone();
    let sim = Sim::new(seed, &BTreeMap::new(), &links, &nodes)
        .unwrap()
        .observe(move |record| seen.borrow_mut().push(serde_json::to_string(record).unwrap()));
    let result = sim.run(Duration::from_secs(3600), main).expect("it ends by itself");
    (result, events.take())
}

/// An endpoint with small windows on a simulated host.
pub(crate) fn endpoint(world: &World, host: &str) -> Endpoint {
    let utp = Config::default().receive_window(WINDOW).send_buffer(WINDOW);
    let port = if host == "server" { 5000 } else { 0 };
    let local = ([0, 0, 0, 0], port).into();
    Endpoint::bind(&world.network(host), local, EndpointConfig::default().utp(utp)).unwrap()
}

/// A client on a simulated host.
pub(crate) fn client(world: &World, host: &str) -> PeerRpcClient {
    PeerRpcClient::new(&endpoint(world, host), None, ClientConfig::default())
}

/// The byte at a place of every body.
fn byte_at(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// What both ends of a body count.
#[derive(Debug, Default)]
pub(crate) struct Count {
    made: AtomicU64,
    taken: AtomicU64,
    most_under_way: AtomicU64,
}

impl Count {
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn most_under_way(&self) -> u64 {
        self.most_under_way.load(Ordering::Relaxed)
    }
}

/// Makes a body of so many bytes as it is read.
#[derive(Debug)]
pub(crate) struct Made {
    left: u64,
    count: Arc<Count>,
}

impl Made {
    pub(crate) fn new(len: u64, count: &Arc<Count>) -> Self {
        Self { left: len, count: count.clone() }
    }
}

impl AsyncRead for Made {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let len = self.left.min(out.remaining() as u64);
        let at = self.count.made.fetch_add(len, Ordering::Relaxed);
        for offset in 0..len {
            out.put_slice(&[byte_at(at + offset)]);
        }
        self.left -= len;
        let under_way = at + len - self.count.taken();
        self.count.most_under_way.fetch_max(under_way, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

/// Reads a body to its end, compares each byte, and gives their number.
pub(crate) async fn take(body: &mut (impl AsyncRead + Unpin), count: &Count) -> io::Result<u64> {
    let mut chunk = vec![0; 16 << 10];
    loop {
        let len = body.read(&mut chunk).await?;
        if len == 0 {
            return Ok(count.taken());
        }
        let at = count.taken.fetch_add(len as u64, Ordering::Relaxed);
        assert!((at..).zip(&chunk[..len]).all(|(at, byte)| byte_at(at) == *byte), "bytes differ after {at}");
    }
}

/// What is wrong with a body.
pub(crate) fn stream_error<T: std::fmt::Debug>(result: io::Result<T>) -> StreamError {
    let error = result.expect_err("the body fails");
    error.get_ref().and_then(|e| e.downcast_ref::<StreamError>()).unwrap_or_else(|| panic!("{error}")).clone()
}
