//! The original Grape as a child process.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use grenache::net::{Net, Task};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{sleep, timeout};

use crate::common::PATIENCE;

/// How often it is looked whether what is waited for has happened.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// How many lines of a Grape's log are kept to show where a test fails.
const MAX_LINES: usize = 30;

/// Where free ports are looked for, for the DHT and for the HTTP API: below those that the system gives to whoever asks
/// for any port, and beside those of the original's examples.
const PORTS: (u16, u16) = (15_000, 23_000);

/// How many ports are looked at.
const SPAN: u16 = 5_000;

/// The flags that give the class's own defaults, which the command line drops.
const DEFAULTS: [&str; 12] = [
    "--dc",
    "24",
    "--dht_maxTables",
    "5000",
    "--dht_maxValues",
    "5000",
    "--dpa",
    "120000",
    "--dnl",
    "300000",
    "--check_maxPayloadSize",
    "8192",
];

/// A Grape of `grenache-grape`. It is killed when this is dropped.
pub(crate) struct Original {
    pub(crate) ports: (u16, u16),
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    _reading: Task,
}

impl Original {
    /// Starts it on ports for the DHT and the HTTP API, and waits until it is ready and answers at `ip`.
    pub(crate) async fn start(net: &Net, ip: Ipv4Addr, ports: (u16, u16), bootstrap: &[SocketAddrV4]) -> Self {
        let (dht, api) = ports;
        let bootstrap: Vec<_> = bootstrap.iter().map(ToString::to_string).collect();
        let mut child = node()
            .arg(package("grenache-grape/bin/grape.js"))
            .args(["--dp", &dht.to_string(), "--aph", &api.to_string(), "--bn", &bootstrap.join(",")])
            .args(DEFAULTS)
            .env("DEBUG", "grenache:grape")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("Node.js did not start the Grape: {error}"));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let reading = net.spawn(Box::pin(read(stderr, format!("{dht} ready"), ready, log.clone())));
        let grape = Self { ports, child, log, _reading: reading };
        let up = async {
            is_ready.await.is_ok() && {
                while tokio::net::TcpStream::connect((ip, api)).await.is_err() {
                    sleep(POLL).await;
                }
                true
            }
        };
        assert!(timeout(PATIENCE, up).await == Ok(true), "the original Grape is not ready: {:#?}", grape.log());
        grape
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// The last lines of its log.
    pub(crate) fn log(&self) -> VecDeque<String> {
        self.log.lock().unwrap().clone()
    }
}

async fn read(
    mut stderr: BufReader<ChildStderr>,
    awaited: String,
    ready: tokio::sync::oneshot::Sender<()>,
    log: Arc<Mutex<VecDeque<String>>>,
) {
    let mut ready = Some(ready);
    let mut line = String::new();
    // To its end: a full pipe would stop the Grape.
    while stderr.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        let text = std::mem::take(&mut line).trim_end().to_owned();
        if text.ends_with(&awaited)
            && let Some(ready) = ready.take()
        {
            // Whoever started it may have given up.
            let _ = ready.send(());
        }
        let mut log = log.lock().unwrap();
        log.push_back(text);
        if log.len() > MAX_LINES {
            log.pop_front();
        }
    }
}

/// Node.js, which ends with what it is part of.
pub(crate) fn node() -> Command {
    static THERE: LazyLock<bool> = LazyLock::new(|| {
        let version = std::process::Command::new("node").arg("--version").output();
        version.is_ok_and(|version| version.status.success())
    });
    assert!(
        *THERE,
        "the interop tests need Node.js: install `node` and `npm`, then run `npm ci --prefix tests/interop`"
    );
    let mut node = Command::new("node");
    node.kill_on_drop(true).stdin(Stdio::null());
    node
}

/// Panics with what to install where the original cannot be run.
pub(crate) fn is_there() {
    drop(node());
    package("grenache-grape");
    package("grenache-nodejs-link");
}

/// A file of an npm package.
fn package(file: &str) -> PathBuf {
    let path = folder().join("node_modules").join(file);
    assert!(path.exists(), "the npm packages of the interop tests are missing: run `npm ci --prefix tests/interop`");
    path
}

/// Where the tests' own JavaScript is.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// Ports that are free, for the DHT and the HTTP API, and stay with this process: it holds the DHT's for TCP and the
/// API's for UDP, so that another run at the same time sees that they are taken.
pub(crate) fn free_ports() -> (u16, u16) {
    static HELD: Mutex<Vec<(TcpListener, UdpSocket)>> = Mutex::new(Vec::new());
    let any = |port| (Ipv4Addr::UNSPECIFIED, port);
    let udp = |port| UdpSocket::bind(any(port)).ok();
    let tcp = |port| TcpListener::bind(any(port)).ok();
    let (dht, dht_held) = first_port(PORTS.0, |port| tcp(port).filter(|_| udp(port).is_some()));
    let (api, api_held) = first_port(PORTS.1, |port| udp(port).filter(|_| tcp(port).is_some()));
    HELD.lock().unwrap().push((dht_held, api_held));
    (dht, api)
}

/// The next port that can be held.
fn first_port<T>(first: u16, hold: impl Fn(u16) -> Option<T>) -> (u16, T) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % SPAN;
        if let Some(held) = hold(port) {
            return (port, held);
        }
    }
}
