//! Brokers, workers and clients, each ours or as in the original's examples, in all combinations.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::FutureExt as _;
use grenache::broker::{Broker, BrokerClient, BrokerConfig, REGISTER_RETRY};
use grenache::link::{Link, LinkConfig};
use grenache::net::Task;
use grenache::punch::Puncher;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, ServerConfig};
use grenache::transport::Endpoint;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::common::{PATIENCE, Recorder};
use crate::grapes::{AnyGrape, Kind, Ours, Place, Theirs};
use crate::rpc::our_endpoint;
use crate::script::Script;
use crate::table::{Cell, show};

/// How many cells are tried at the same time.
const AT_ONCE: usize = 7;

const BROKER: &str = "fibo_broker";
const SERVICE: &str = "fibonacci_worker";

/// A peer of ours and what it runs on.
struct Our {
    endpoint: Endpoint,
    net: Arc<Recorder>,
    link: Link,
    puncher: Puncher,
    rpc: PeerRpcClient,
}

impl Our {
    fn new(grape: SocketAddr) -> Self {
        let (net, endpoint) = our_endpoint();
        let link = Link::new(endpoint.net(), LinkConfig::new(grape));
        let puncher = Puncher::new(&endpoint);
        let rpc = PeerRpcClient::new(&endpoint, Some(link.clone()), ClientConfig::default().pipeline(1));
        Self { endpoint, net, link, puncher, rpc }
    }

    /// Registers from now on, and punches those of the other role.
    fn register(&self, server: bool) -> Task {
        let client = BrokerClient::new(&self.rpc, &self.puncher, BROKER, SERVICE, server);
        self.endpoint.net().spawn(Box::pin(async move { client.run().await }))
    }
}

/// Something that runs as long as this lives.
type Running = Box<dyn std::any::Any + Send>;

async fn script(role: &str, grape: SocketAddr) -> Script {
    Script::start("broker.js", &[role, &format!("http://{grape}"), BROKER, SERVICE]).await
}

async fn broker(kind: Kind, grape: SocketAddr) -> Running {
    match kind {
        Ours => {
            let our = Our::new(grape);
            let broker = Broker::start(&our.endpoint, Some(&our.link), BrokerConfig::new(BROKER));
            Box::new((our, broker))
        }
        Theirs => Box::new(script("broker", grape).await),
    }
}

async fn worker(kind: Kind, grape: SocketAddr) -> Running {
    match kind {
        Ours => {
            let our = Our::new(grape);
            let serving = PeerRpcServer::serve(&our.endpoint, ServerConfig::default(), |request| async move {
                Ok(json!({"worker": "ours", "payload": request.payload}))
            });
            let registering = our.register(true);
            Box::new((our, serving, registering))
        }
        Theirs => Box::new(script("worker", grape).await),
    }
}

/// What the first worker answers that punches the client.
async fn ask(kind: Kind, grape: SocketAddr) -> Value {
    match kind {
        Ours => {
            let our = Our::new(grape);
            let mut punched = our.puncher.punched();
            let _registering = our.register(false);
            let worker = timeout(PATIENCE, punched.next()).await;
            let worker = worker.unwrap_or_else(|_| panic!("not punched: {:?}", our.net.events())).unwrap();
            timeout(PATIENCE, our.rpc.request_at(worker, SERVICE, &json!("strategy"))).await.unwrap().unwrap()
        }
        Theirs => {
            let mut script = script("client", grape).await;
            script.tell(json!({"do": "ask"})).await;
            script.hear("reply").await["value"].take()
        }
    }
}

/// Waits until the broker is announced: the original's client looks for it once.
async fn announced(grape: &AnyGrape) {
    let deadline = Instant::now() + PATIENCE;
    while grape.lookup(BROKER).await.is_empty() {
        assert!(Instant::now() < deadline, "the broker is not announced");
        sleep(REGISTER_RETRY / 10).await;
    }
}

async fn introduces(broker_is: Kind, worker_is: Kind, client_is: Kind) {
    let place = Place::loopback();
    let (_first, grape) = place.pair(Ours, Ours).await;
    let _broker = broker(broker_is, grape.api()).await;
    announced(&grape).await;
    let _worker = worker(worker_is, grape.api()).await;
    let whose = if worker_is == Ours { "ours" } else { "theirs" };
    let answer = ask(client_is, grape.api()).await;
    assert_eq!(answer, json!({"worker": whose, "payload": "strategy"}));
}

#[tokio::test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
async fn each_broker_introduces_each() {
    let both = [Ours, Theirs];
    let name = |kind| if kind == Ours { "ours" } else { "theirs" };
    let rows = both.into_iter().flat_map(|worker| both.map(|client| (worker, client))).map(|(worker, client)| {
        let cells =
            both.map(|broker| -> Cell { Box::pin(introduces(broker, worker, client).map(|()| "ok".to_owned())) });
        (format!("worker {}, client {}", name(worker), name(client)), cells.into())
    });
    let columns = ["broker ours", "broker theirs"].map(str::to_owned);
    show("introduced by", &columns, rows.collect(), AT_ONCE).await;
}
