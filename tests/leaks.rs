//! On the operating system's network: once everything is dropped or stopped, no task and no file descriptor is left.
#![cfg(target_os = "linux")]

use std::time::Duration;

use futures_util::future::join_all;
use grenache::broker::{Broker, BrokerConfig, RelayConfig};
use grenache::connect::{Acceptor, ConnectConfig, Connector, Rung};
use grenache::grape::{Grape, GrapeConfig};
use grenache::link::{Link, LinkConfig};
use grenache::nat::{Behaviour, Filtering, Mapping, Ports};
use grenache::net::{HostNetwork, Net};
use grenache::punch::Puncher;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, RequestOptions, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use grenache::utp::Config;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use common::{PATIENCE, any_port};

mod common;

/// Tasks of the runtime that are alive, and file descriptors of the process.
fn alive() -> (usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    (Handle::current().metrics().num_alive_tasks(), descriptors)
}

/// Waits until what is alive is no more than it was.
async fn comes_down_to(baseline: (usize, usize), what: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (tasks, descriptors) = alive();
        if tasks <= baseline.0 && descriptors <= baseline.1 {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {tasks} tasks, {descriptors} descriptors; before {baseline:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn endpoint(net: &Net) -> Endpoint {
    // A dropped connection waits for its peer's FIN; here the peer is gone too.
    let utp = Config::default().linger(Duration::from_secs(2)).connect_timeout(Duration::from_secs(2));
    Endpoint::bind(net, any_port(), EndpointConfig::default().utp(utp)).unwrap()
}

/// Both sides of some requests, answered, hanging and to nobody; then all of it goes, in one way or another.
async fn round(net: &Net, nth: usize) {
    let (serving, asking) = (endpoint(net), endpoint(net));
    let server = PeerRpcServer::serve(&serving, ServerConfig::default(), |request| async move {
        match request.payload.as_str() {
            // It never ends by itself, but with its server.
            Some("slow") => std::future::pending().await,
            Some("panic") => panic!("a handler's own fault"),
            _ => {}
        }
        Ok(request.payload)
    });
    let puncher = Puncher::new(&asking);
    let client = PeerRpcClient::new(&asking, None, ClientConfig::default());
    let options = RequestOptions::default().timeout(Duration::from_millis(200)).retries(1);
    let (to, nobody) = (serving.local_addr(), "127.0.0.1:9".parse().unwrap());
    let ask = async |to, payload: &str| client.request_at_with(to, "key", &json!(payload), options).await;
    puncher.punch(to);
    let answers = join_all((0..40).map(|n| ask(to, if n % 10 == 0 { "slow" } else { "quick" }))).await;
    assert!(answers.iter().filter(|answer| answer.is_ok()).count() >= 30, "{answers:?}");
    assert!(ask(to, "panic").await.is_err() && ask(nobody, "nobody").await.is_err());
    // One is under way when everything goes, and is dropped.
    let _ = timeout(Duration::from_millis(10), ask(to, "slow")).await;
    match nth % 4 {
        0 => drop((server, client, puncher, serving, asking)),
        1 => {
            drop((client, server));
            asking.close().await;
            serving.close().await;
        }
        2 => {
            serving.close().await;
            asking.close().await;
        }
        _ => {
            drop((asking, serving));
            drop((puncher, client));
            drop(server);
        }
    }
}

/// One test, as another one's descriptors would count too.
#[tokio::test]
async fn nothing_is_left() {
    clients_and_servers_leave_nothing().await;
    grapes_and_links_leave_nothing().await;
    relayed_connections_leave_nothing().await;
}

/// A broker that relays between a worker and a client, which say that nothing else can work; then all of it goes.
async fn relayed_connections_leave_nothing() {
    let symmetric = Behaviour {
        mapping: Mapping::AddressAndPortDependent,
        filtering: Filtering::AddressAndPortDependent,
        ports: Ports::Random,
    };
    let round = async |net: &Net| {
        let (at, worker, client) = (endpoint(net), endpoint(net), endpoint(net));
        let broker = Broker::start(&at, None, BrokerConfig::new("b").relay(RelayConfig::default()));
        let config = || ConnectConfig::default().broker(at.local_addr()).nat(symmetric);
        let rpc = |endpoint: &Endpoint| PeerRpcClient::new(endpoint, None, ClientConfig::default());
        let serving = |request: grenache::rpc::RequestParts| async move { Ok(request.payload) };
        let server = PeerRpcServer::serve(&worker, ServerConfig::default(), serving);
        let (puncher, peer) = (Puncher::new(&worker), rpc(&worker));
        let acceptor = Acceptor::start(&worker, &puncher, &peer, None, "echo", config(), server.also_on());
        let connector = Connector::new(&client, &Puncher::new(&client), &rpc(&client), None, config());
        let connection = timeout(PATIENCE, connector.connect("echo")).await.unwrap().unwrap();
        assert_eq!((connection.rung(), connection.request(&json!(1)).await), (Rung::Relay, Ok(json!(1))));
        // One is under way when everything goes.
        let _ = timeout(Duration::from_millis(5), connector.connect("echo")).await;
        drop((connection, connector, acceptor, server, broker));
    };
    let net: Net = std::sync::Arc::new(HostNetwork::new());
    round(&net).await;
    comes_down_to((0, usize::MAX), "at first").await;
    let baseline = alive();
    for _ in 0..3 {
        round(&net).await;
    }
    comes_down_to(baseline, "relayed connections").await;
}

async fn clients_and_servers_leave_nothing() {
    let net: Net = std::sync::Arc::new(HostNetwork::new());
    // What is made once for the process, as the runtime's own descriptors, is made by now.
    round(&net, 0).await;
    comes_down_to((0, usize::MAX), "at first").await;
    let baseline = alive();
    for nth in 0..8 {
        round(&net, nth).await;
    }
    comes_down_to(baseline, "clients and servers").await;
}

async fn grapes_and_links_leave_nothing() {
    let grapes = async |net: &Net| {
        let config = || GrapeConfig::default().dht_address(any_port()).api_address(any_port());
        let one = Grape::start(net, config()).await.unwrap();
        let std::net::SocketAddr::V4(known) = one.dht_addr() else { unreachable!("it is bound to IPv4") };
        let two = Grape::start(net, config().bootstrap(vec![known])).await.unwrap();
        timeout(PATIENCE, two.ready()).await.unwrap();
        let link = Link::new(net, LinkConfig::new(two.api_addr()).timeout(Duration::from_secs(1)));
        let announcing = link.start_announcing("name", 1337, Duration::from_secs(1));
        let lookups = join_all((0..20).map(|nth| link.lookup(if nth % 2 == 0 { "name" } else { "other" }))).await;
        assert_eq!(lookups.len(), 20);
        // One is under way when everything goes.
        let _ = timeout(Duration::from_micros(100), link.lookup_fresh("third")).await;
        drop(announcing);
        one.close().await;
        drop((two, link));
    };
    let net = || -> Net { std::sync::Arc::new(HostNetwork::new()) };
    grapes(&net()).await;
    comes_down_to((0, usize::MAX), "at first").await;
    let baseline = alive();
    for _ in 0..5 {
        grapes(&net()).await;
    }
    comes_down_to(baseline, "Grapes and links").await;
}
