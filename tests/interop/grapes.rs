//! Grapes of both kinds behind one interface.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use grenache::grape::{Grape, GrapeConfig, GrapeError, GrapeState};
use grenache::net::{HostNetwork, Net};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::common::PATIENCE;
use crate::original::{Original, POLL, free_ports};

pub(crate) use crate::common::http_table::Whose as Kind;
pub(crate) use Kind::{Ours, Theirs};

/// A running Grape of either kind.
pub(crate) struct AnyGrape {
    net: Net,
    ip: Ipv4Addr,
    running: Running,
}

enum Running {
    Ours(Grape),
    Theirs(Original),
}

impl fmt::Debug for AnyGrape {
    /// What helps where a test fails.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.running {
            Running::Ours(grape) => write!(f, "ours at {}: {:?}", self.dht(), grape.stats()),
            Running::Theirs(grape) => write!(f, "theirs at {}: {:#?}", self.dht(), grape.log()),
        }
    }
}

/// A host, and an address of it where Grapes can be.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) net: Net,
    pub(crate) ip: Ipv4Addr,
}

impl Place {
    pub(crate) fn loopback() -> Self {
        Self::at(Ipv4Addr::LOCALHOST)
    }

    pub(crate) fn at(ip: Ipv4Addr) -> Self {
        Self { net: Arc::new(HostNetwork::new()), ip }
    }

    /// Starts a Grape on free ports, and waits until it is ready.
    pub(crate) async fn start(&self, kind: Kind, bootstrap: &[SocketAddrV4]) -> AnyGrape {
        self.start_on(kind, free_ports(), bootstrap).await
    }

    /// Starts a Grape on ports for the DHT and the HTTP API, and waits until it is ready.
    pub(crate) async fn start_on(&self, kind: Kind, ports: (u16, u16), bootstrap: &[SocketAddrV4]) -> AnyGrape {
        self.start_again(&Killed { kind, ports, state: None }, bootstrap).await
    }

    /// Starts a Grape on the ports of one that was killed, as the one that had that state if there is one.
    pub(crate) async fn start_again(&self, killed: &Killed, bootstrap: &[SocketAddrV4]) -> AnyGrape {
        let ports = killed.ports;
        let running = match killed.kind {
            Ours => {
                let mut config = GrapeConfig::default()
                    .dht_address(SocketAddr::from((self.ip, ports.0)))
                    .api_address(SocketAddr::from((self.ip, ports.1)))
                    .bootstrap(bootstrap.to_vec());
                if let Some(state) = &killed.state {
                    config = config.state(state.clone());
                }
                let grape = self.bind(config).await;
                timeout(PATIENCE, grape.ready()).await.expect("our Grape is not ready");
                Running::Ours(grape)
            }
            Theirs => Running::Theirs(Original::start(ports, bootstrap).await),
        };
        AnyGrape { net: self.net.clone(), ip: self.ip, running }
    }

    /// Starts one of ours. A child process that another test is starting holds copies of all sockets for a moment, so
    /// that the ports of one that was killed may not be free at once.
    async fn bind(&self, config: GrapeConfig) -> Grape {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Grape::start(&self.net, config.clone()).await {
                Ok(grape) => return grape,
                Err(GrapeError::Dht { source, .. } | GrapeError::Api { source, .. })
                    if source.kind() == ErrorKind::AddrInUse && Instant::now() < deadline =>
                {
                    sleep(POLL).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Starts two Grapes, the second of which starts from the first.
    pub(crate) async fn pair(&self, first: Kind, second: Kind) -> (AnyGrape, AnyGrape) {
        let first = self.start(first, &[]).await;
        let second = self.start(second, &[first.dht()]).await;
        (first, second)
    }
}

/// What is left of a Grape that was killed.
#[derive(Debug)]
pub(crate) struct Killed {
    kind: Kind,
    ports: (u16, u16),
    /// What ours can keep.
    state: Option<GrapeState>,
}

impl Killed {
    /// Without what it could keep.
    pub(crate) fn forgetful(self) -> Self {
        Self { state: None, ..self }
    }
}

impl AnyGrape {
    /// Whose it is.
    pub(crate) fn kind(&self) -> Kind {
        match self.running {
            Running::Ours(_) => Ours,
            Running::Theirs(_) => Theirs,
        }
    }

    /// Where its DHT node is.
    pub(crate) fn dht(&self) -> SocketAddrV4 {
        let port = match &self.running {
            Running::Ours(grape) => grape.dht_addr().port(),
            Running::Theirs(grape) => grape.ports.0,
        };
        SocketAddrV4::new(self.ip, port)
    }

    /// Where its HTTP API is.
    pub(crate) fn api(&self) -> SocketAddr {
        let port = match &self.running {
            Running::Ours(grape) => grape.api_addr().port(),
            Running::Theirs(grape) => grape.ports.1,
        };
        SocketAddr::from((self.ip, port))
    }

    /// Ends it without a farewell, and waits until it is gone.
    pub(crate) async fn kill(self) -> Killed {
        let (kind, ports) = (self.kind(), (self.dht().port(), self.api().port()));
        let state = match self.running {
            Running::Ours(grape) => {
                let state = grape.state().borrow().clone();
                grape.close().await;
                Some(state)
            }
            Running::Theirs(grape) => {
                drop(grape);
                None
            }
        };
        Killed { kind, ports, state }
    }

    /// Calls its API; gives the status and the answer, where `null` stands for an empty one.
    pub(crate) async fn call_for_status(&self, path: &str, data: Value) -> (u16, Value) {
        let body = json!({"rid": "r", "data": data}).to_string();
        let answer = timeout(PATIENCE, self.net.http().post(self.api(), path, body.into())).await;
        let (status, body) = answer.unwrap_or_else(|_| panic!("no answer to {path} {data}: {self:?}")).unwrap();
        (status, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
    }

    /// Calls its API, which must answer with status 200.
    pub(crate) async fn call(&self, path: &str, data: Value) -> Value {
        let (status, answer) = self.call_for_status(path, data.clone()).await;
        assert_eq!(status, 200, "{path} {data}: {answer}");
        answer
    }

    /// How many nodes took an announce, or the error as text.
    pub(crate) async fn announce(&self, name: &str, port: u16) -> Value {
        self.call("/announce", json!([name, port])).await
    }

    /// The addresses of a name, sorted.
    pub(crate) async fn lookup(&self, name: &str) -> Vec<String> {
        let found = self.call("/lookup", json!(name)).await;
        let mut found: Vec<String> = serde_json::from_value(found).unwrap();
        found.sort();
        found
    }

    /// The hash of what was put.
    pub(crate) async fn put(&self, v: Value) -> String {
        let hash = self.call("/put", json!({ "v": v })).await;
        let hash = hash.as_str().unwrap().to_owned();
        assert!(hash.len() == 40 && hex::decode(&hash).is_ok(), "{v}: {hash}");
        hash
    }

    /// The `v` of a hash; `null` where it is not found.
    pub(crate) async fn get(&self, hash: &str) -> Value {
        let mut value = self.call("/get", json!(hash)).await;
        if value.is_null() { value } else { value["v"].take() }
    }
}
