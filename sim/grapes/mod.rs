//! Grapes outside of this process: ours or the original's, as processes of this machine or in containers.
//!
//! | module | what it does |
//! |---|---|
//! | [`process`] | a Grape as a child process |
//! | [`node`] | finds Node.js and the npm package grenache-grape |
//! | [`docker`] | a Grape in a container |
//! | `container` | a Grape as an image for testcontainers, with the feature `containers` |
//! | [`mesh`] | whether Grapes know each other |
//! | [`ports`] | free ports |
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use grenache_sim::grapes::process::{GrapeProcess, Programs};
//! use grenache_sim::grapes::{GrapeKind, GrapeSpec, ports};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let [dht, api] = ports::free()?;
//! let spec = GrapeSpec::new("theirs", GrapeKind::Node, dht, api).bootstrap(vec!["127.0.0.1:20001".parse()?]);
//! let mut grape = GrapeProcess::start(spec, &Programs::default(), "theirs.log".as_ref())?;
//! grape.ready(Duration::from_secs(10)).await?;
//! println!("its HTTP API is at http://{}", grape.spec().api());
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use grenache::net::{HostNetwork, Network};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::timeout;

#[cfg(feature = "containers")]
pub mod container;
pub mod docker;
pub mod mesh;
pub mod node;
pub mod ports;
pub mod process;

/// The original's defaults that its command line drops: peers would never expire, and nothing limits a request.
const NODE_DEFAULTS: [(&str, &str); 5] = [
    ("--dht_maxTables", "5000"),
    ("--dht_maxValues", "5000"),
    ("--dpa", "120000"),
    ("--dnl", "300000"),
    ("--check_maxPayloadSize", "8192"),
];

/// Those of [`NODE_DEFAULTS`] that are not `given`, as arguments: a flag given twice is a list to it.
fn node_defaults(given: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
    let missing = NODE_DEFAULTS.into_iter().filter(move |(flag, _)| !given(flag));
    missing.flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()])
}

/// Whose Grape it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrapeKind {
    /// Ours: `grenache grape`.
    Rust,
    /// The original's: the npm package grenache-grape, on Node.js.
    Node,
}

impl fmt::Display for GrapeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rust => "rust",
            Self::Node => "node",
        })
    }
}

/// What a Grape is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct GrapeSpec {
    /// What it is called: where it is told of, and in the names of containers.
    pub name: String,
    /// Whose it is.
    pub kind: GrapeKind,
    /// The DHT node's UDP port.
    pub dht_port: u16,
    /// The HTTP API's TCP port.
    pub api_port: u16,
    /// The only address that it listens on; `None` is every address.
    pub bind: Option<Ipv4Addr>,
    /// The Grapes that it starts from.
    pub bootstrap: Vec<SocketAddrV4>,
    /// Further flags and their values, as its command line takes them.
    pub options: Vec<(String, String)>,
    /// Whether it tells what it does, with `DEBUG=grenache:grape`. Where not, the environment decides.
    pub debug: bool,
}

impl GrapeSpec {
    /// A Grape on every address, without others to start from, that tells what it does.
    pub fn new(name: &str, kind: GrapeKind, dht_port: u16, api_port: u16) -> Self {
        let (bootstrap, options) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), kind, dht_port, api_port, bind: None, bootstrap, options, debug: true }
    }

    /// Listens on this address only.
    pub fn bind(self, address: Ipv4Addr) -> Self {
        Self { bind: Some(address), ..self }
    }

    /// Starts from these Grapes.
    pub fn bootstrap(self, nodes: Vec<SocketAddrV4>) -> Self {
        Self { bootstrap: nodes, ..self }
    }

    /// With one more flag, such as `--dht_maxTables`.
    pub fn option(mut self, flag: &str, value: &str) -> Self {
        self.options.push((flag.to_owned(), value.to_owned()));
        self
    }

    /// Says no more than the environment asks it to.
    pub fn quiet(self) -> Self {
        Self { debug: false, ..self }
    }

    /// Its HTTP API, as this machine reaches it.
    pub fn api(&self) -> SocketAddr {
        SocketAddr::from((self.bind.unwrap_or(Ipv4Addr::LOCALHOST), self.api_port))
    }

    /// Its DHT node, as this machine reaches it.
    pub fn dht(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.bind.unwrap_or(Ipv4Addr::LOCALHOST), self.dht_port)
    }

    /// Its arguments, which both kinds take alike.
    pub fn arguments(&self) -> Vec<String> {
        let nodes: Vec<String> = self.bootstrap.iter().map(ToString::to_string).collect();
        let mut arguments = vec![
            "--dp".to_owned(),
            self.dht_port.to_string(),
            "--aph".to_owned(),
            self.api_port.to_string(),
            "--bn".to_owned(),
            nodes.join(","),
        ];
        if let Some(address) = self.bind {
            arguments.extend(["-b".to_owned(), address.to_string()]);
        }
        if self.kind == GrapeKind::Node {
            arguments.extend(node_defaults(|flag| self.options.iter().any(|(given, _)| given == flag)));
        }
        arguments.extend(self.options.iter().flat_map(|(flag, value)| [flag.clone(), value.clone()]));
        arguments
    }
}

/// Why a Grape cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GrapesError {
    /// The original's Grape is not installed.
    #[error(transparent)]
    NoNode(#[from] node::NoNodeGrape),
    /// There is no container engine that can be used.
    #[error("{0}")]
    NoDocker(String),
    /// The container engine cannot do what it was asked for.
    #[error("cannot use the container of {name}: {problem}")]
    Docker {
        /// The Grape.
        name: String,
        /// What the engine says.
        problem: String,
    },
    /// Its program cannot be started.
    #[error("cannot start {name} with {}", program.display())]
    Start {
        /// The Grape.
        name: String,
        /// What was to be run.
        program: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Its log file cannot be used.
    #[error("cannot use the log file {}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It ended, though nobody asked it to.
    #[error("{name} ended by itself ({status}){}", Tail(tail))]
    Ended {
        /// The Grape.
        name: String,
        /// How.
        status: String,
        /// The last lines of its log.
        tail: Vec<String>,
    },
    /// It was not ready in time.
    #[error("{name} is not ready after {waited:?}{}", Tail(tail))]
    Late {
        /// The Grape.
        name: String,
        /// How long it was waited for.
        waited: Duration,
        /// The last lines of its log.
        tail: Vec<String>,
    },
    /// It is ready, but it does not know all the others.
    #[error("{name} does not find {missing} after {waited:?}: is UDP between them cut off?")]
    Strangers {
        /// The Grape.
        name: String,
        /// One that it does not find.
        missing: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// How long an HTTP API may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Whether a Grape's HTTP API answers, within a second.
pub async fn answers(api: SocketAddr) -> bool {
    let net = HostNetwork::new();
    // Any answer will do, and this one costs the Grape nothing.
    let asked = net.http().post(api, "/", Bytes::from_static(b"{}"));
    matches!(timeout(ANSWER, asked).await, Ok(Ok(_)))
}

/// The last lines of a log, below a message.
struct Tail<'a>(&'a [String]);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("; its log is empty");
        }
        f.write_str("; its log ends with")?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_given_the_same_behaviour() {
        let spec = GrapeSpec::new("a", GrapeKind::Rust, 20001, 30001).bind(Ipv4Addr::LOCALHOST);
        assert_eq!(spec.arguments().join(" "), "--dp 20001 --aph 30001 --bn  -b 127.0.0.1");
        let bootstrap = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2)];
        let spec = GrapeSpec::new("a", GrapeKind::Node, 20001, 30001).bootstrap(bootstrap);
        assert_eq!(
            spec.arguments().join(" "),
            "--dp 20001 --aph 30001 --bn 127.0.0.1:1,127.0.0.1:2 \
             --dht_maxTables 5000 --dht_maxValues 5000 --dpa 120000 --dnl 300000 --check_maxPayloadSize 8192"
        );
    }
}
