//! The original Grape as a child process.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
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

/// Free ports below those that the system gives to whoever asks for any port.
const PORTS: std::ops::Range<u16> = 15_000..30_000;

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
    let version = std::process::Command::new("node").arg("--version").output();
    assert!(
        version.is_ok_and(|version| version.status.success()),
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

/// A port that is free for UDP and TCP and is given to nobody else in this process.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two runs at the same time start at different ones.
    let first = std::process::id() as u16;
    loop {
        let n = first.wrapping_mul(31).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + n % (PORTS.end - PORTS.start);
        let any = (Ipv4Addr::UNSPECIFIED, port);
        if UdpSocket::bind(any).is_ok() && TcpListener::bind(any).is_ok() {
            return port;
        }
    }
}
