//! The original Grape as a child process.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use grenache_sim::grapes::process::{GrapeProcess, Programs};
use grenache_sim::grapes::{GrapeKind, GrapeSpec};
use tempfile::TempDir;
use tokio::process::Command;

use crate::common::PATIENCE;

/// How often it is looked whether what is waited for has happened.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Where free ports are looked for, for the DHT and for the HTTP API: below those that the system gives to whoever asks
/// for any port, and beside those of the original's examples.
const PORTS: (u16, u16) = (15_000, 23_000);

/// How many ports are looked at.
const SPAN: u16 = 5_000;

/// A Grape of `grenache-grape`. It is killed when this is dropped.
pub(crate) struct Original {
    pub(crate) ports: (u16, u16),
    process: GrapeProcess,
    _log: TempDir,
}

impl Original {
    /// Starts it on ports for the DHT and the HTTP API, and waits until it is ready.
    pub(crate) async fn start(ports: (u16, u16), bootstrap: &[SocketAddrV4]) -> Self {
        is_there();
        let spec = GrapeSpec::new("the original", GrapeKind::Node, ports.0, ports.1)
            .bootstrap(bootstrap.to_vec())
            // Its class's default, as the others that are given to it.
            .option("--dc", "24");
        let log = tempfile::tempdir().unwrap();
        let process = GrapeProcess::start(spec, &Programs::default(), &log.path().join("log"));
        let mut process = process.unwrap_or_else(|error| panic!("{error}"));
        process.ready(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
        Self { ports, process, _log: log }
    }

    /// The last lines of its log.
    pub(crate) fn log(&self) -> Vec<String> {
        self.process.tail()
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
    package("grenache-nodejs-link");
    let script = package("grenache-grape/bin/grape.js");
    let found = grenache_sim::grapes::node::find().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.script, script, "the Grape under test is that of tests/interop/package.json");
}

/// A file of an npm package.
pub(crate) fn package(file: &str) -> PathBuf {
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
