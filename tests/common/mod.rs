//! What the tests of one topic each have in common.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grenache::event::Event;
use grenache::net::{BoxFuture, HostNetwork, HttpClient, Net, Network, Rng, Task, TcpListener, TcpStream, UdpSocket};
use rand::SeedableRng;
use tokio::sync::watch;

pub(crate) mod bulk;
pub(crate) mod fake_grape;
pub(crate) mod grapes;
pub(crate) mod http_table;
pub(crate) mod refusing_node;
pub(crate) mod relay;
pub(crate) mod signed;
pub(crate) mod streams;
pub(crate) mod swarm;

/// How long a test over real sockets waits for what must happen: it only matters where the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The operating system's network, with its events kept.
#[derive(Debug)]
pub(crate) struct Recorder {
    host: HostNetwork,
    http: Arc<dyn HttpClient>,
    rngs: AtomicU64,
    events: Mutex<Vec<Event>>,
    count: watch::Sender<usize>,
}

impl Recorder {
    /// On loopback, posting with reqwest.
    pub(crate) fn new() -> (Arc<Self>, Net) {
        let host = HostNetwork::new();
        let http = host.http();
        Self::with_http(http)
    }

    /// On loopback, posting with this client.
    pub(crate) fn with_http(http: Arc<dyn HttpClient>) -> (Arc<Self>, Net) {
        let host = HostNetwork::new();
        let recorder = Arc::new(Self {
            host,
            http,
            rngs: AtomicU64::new(0),
            events: Mutex::default(),
            count: watch::Sender::new(0),
        });
        (recorder.clone(), recorder)
    }

    /// What has happened so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// How many events so far are such.
    pub(crate) fn count(&self, such: impl Fn(&Event) -> bool) -> usize {
        self.events().iter().filter(|event| such(event)).count()
    }

    /// Waits until `count` events are such.
    pub(crate) async fn until(&self, count: usize, such: impl Fn(&Event) -> bool) {
        let mut happened = self.count.subscribe();
        let waiting = async {
            while self.count(&such) < count {
                happened.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("not {count} such events among {:#?}", self.events());
        }
    }
}

impl Network for Recorder {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        self.host.bind_udp(local)
    }

    fn connect_tcp(&self, remote: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        self.host.connect_tcp(remote)
    }

    fn listen_tcp(&self, local: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpListener>>> {
        self.host.listen_tcp(local)
    }

    fn http(&self) -> Arc<dyn HttpClient> {
        self.http.clone()
    }

    fn rng(&self, _: &str) -> Rng {
        // Another stream for each that asks, the same ones in each run.
        Rng::seed_from_u64(self.rngs.fetch_add(1, Ordering::Relaxed))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Task {
        self.host.spawn(task)
    }

    fn emit(&self, event: Event) {
        self.events.lock().unwrap().push(event);
        self.count.send_modify(|count| *count += 1);
    }
}

/// Any free port on loopback.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
