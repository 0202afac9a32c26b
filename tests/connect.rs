//! Connecting by every way on loopback: what the simulator cannot show is that real sockets do the same.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join;
use grenache::broker::{Broker, BrokerClient, BrokerConfig, RelayConfig};
use grenache::connect::{Acceptor, ConnectConfig, ConnectReport, Connection, Connector, MAX_BROKERS, Rung};
use grenache::event::Event;
use grenache::nat::{self, Behaviour, CheckConfig, CheckError, Filtering, Mapping, Ports, check};
use grenache::net::{HostNetwork, Net};
use grenache::punch::Puncher;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use common::{PATIENCE, Recorder, any_port};

mod common;

const SERVICE: &str = "echo";

/// What two hosts would say that can reach each other only through a relay.
const SYMMETRIC: Behaviour = Behaviour {
    mapping: Mapping::AddressAndPortDependent,
    filtering: Filtering::AddressAndPortDependent,
    ports: Ports::Random,
};

fn endpoint() -> (Endpoint, Arc<Recorder>) {
    let (recorder, net) = Recorder::new();
    (Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap(), recorder)
}

/// A broker with its other port; gives its address.
fn broker(relay: Option<RelayConfig>) -> (Broker, SocketAddr, Arc<Recorder>) {
    let ((main, net), (alternate, _)) = (endpoint(), endpoint());
    let mut config = BrokerConfig::new("fibo_broker").alternate(&alternate);
    if let Some(relay) = relay {
        config = config.relay(relay);
    }
    (Broker::start(&main, None, config), main.local_addr(), net)
}

/// A peer on its one socket.
struct Peer {
    endpoint: Endpoint,
    rpc: PeerRpcClient,
    puncher: Puncher,
    net: Arc<Recorder>,
}

fn peer() -> Peer {
    let (endpoint, net) = endpoint();
    let rpc = PeerRpcClient::new(&endpoint, None, ClientConfig::default());
    Peer { rpc, puncher: Puncher::new(&endpoint), endpoint, net }
}

fn serve(peer: &Peer) -> PeerRpcServer {
    PeerRpcServer::serve(&peer.endpoint, ServerConfig::default(), |request| async move { Ok(request.payload) })
}

fn accept(peer: &Peer, server: &PeerRpcServer, config: ConnectConfig) -> Acceptor {
    Acceptor::start(&peer.endpoint, &peer.puncher, &peer.rpc, None, SERVICE, config, server.also_on())
}

async fn connect(peer: &Peer, config: ConnectConfig) -> Connection {
    let connector = Connector::new(&peer.endpoint, &peer.puncher, &peer.rpc, None, config);
    timeout(PATIENCE, connector.connect(SERVICE)).await.unwrap().unwrap_or_else(|e| panic!("{e}"))
}

async fn asks(connection: &Connection) {
    let payload = json!("x".repeat(100_000));
    let answer = timeout(PATIENCE, connection.request(&payload)).await.unwrap();
    assert!(answer.is_ok_and(|answer| answer == payload));
}

#[tokio::test]
async fn hosts_without_nats_connect_directly() {
    let (_broker, at, _) = broker(None);
    let (worker, client) = (peer(), peer());
    let server = serve(&worker);
    let config = ConnectConfig::default().broker(at).nat(Behaviour::OPEN);
    let _acceptor = accept(&worker, &server, config.clone());
    let connection = connect(&client, config).await;
    assert_eq!((connection.rung(), connection.address()), (Rung::Direct, worker.endpoint.local_addr()));
    assert_eq!(connection.report().peer_nat, Some(Behaviour::OPEN));
    asks(&connection).await;
    let told = Event::Connected { service: SERVICE.to_owned(), to: connection.address(), rung: Rung::Direct };
    assert_eq!(client.net.count(|e| *e == told), 1);
}

#[tokio::test]
async fn a_relay_carries_what_cannot_go_any_other_way() {
    let (_broker, at, broker_net) = broker(Some(RelayConfig::default()));
    let (worker, client) = (peer(), peer());
    let server = serve(&worker);
    let config = ConnectConfig::default().broker(at).nat(SYMMETRIC);
    let _acceptor = accept(&worker, &server, config.clone());
    let connection = connect(&client, config).await;
    asks(&connection).await;
    assert_eq!(connection.rung(), Rung::Relay);
    assert_eq!(connection.address().ip(), at.ip());
    assert_ne!(connection.address().port(), at.port());
    assert_eq!(broker_net.count(|e| matches!(e, Event::RelayOpened { .. })), 1);
    let report = connection.report();
    assert_eq!(report.failed.len(), 4);
    assert!(report.failed.iter().all(|failed| !failed.tried && !failed.reason.is_empty()), "{report}");
    let json = serde_json::to_string(report).unwrap();
    assert_eq!(&serde_json::from_str::<ConnectReport>(&json).unwrap(), report);
}

#[tokio::test]
async fn predicted_ports_work_with_real_sockets_and_the_fresh_socket_serves() {
    let (_broker, at, _) = broker(None);
    let (worker, client) = (peer(), peer());
    let server = serve(&worker);
    // Where there is no NAT a fresh socket is where the broker sees it; that the other side filters has it used.
    let filtering = Filtering::AddressAndPortDependent;
    let mapping = Mapping::EndpointIndependent;
    let worker_nat = Behaviour { mapping, filtering, ports: Ports::Random };
    let client_nat = Behaviour { mapping: Mapping::AddressDependent, ..worker_nat };
    let _acceptor = accept(&worker, &server, ConnectConfig::default().broker(at).nat(worker_nat));
    let config = ConnectConfig::default().broker(at).nat(Behaviour { ports: Ports::Unknown, ..client_nat });
    let connection = connect(&client, config.predictions(1)).await;
    // The client's prediction is wrong by one, for there is no NAT; the worker is heard all the same.
    assert_eq!(connection.rung(), Rung::Predict, "{}", connection.report());
    assert_ne!(connection.address(), worker.endpoint.local_addr());
    asks(&connection).await;
}

#[tokio::test]
async fn a_stopped_acceptor_keeps_its_fresh_sockets_until_the_server_has_stopped() {
    let (_broker, at, _) = broker(None);
    let (worker, client) = (peer(), peer());
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (asked.clone(), answer.clone());
    let server = PeerRpcServer::serve(&worker.endpoint, ServerConfig::default(), move |request| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            tell.notify_one();
            wait.notified().await;
            Ok(request.payload)
        }
    });
    let filtering = Filtering::AddressAndPortDependent;
    let nat = Behaviour { mapping: Mapping::EndpointIndependent, filtering, ports: Ports::Random };
    let acceptor = accept(&worker, &server, ConnectConfig::default().broker(at).nat(nat));
    let caller = Behaviour { mapping: Mapping::AddressDependent, ports: Ports::Unknown, ..nat };
    let connection = connect(&client, ConnectConfig::default().broker(at).nat(caller).predictions(1)).await;
    assert_eq!(connection.rung(), Rung::Predict, "{}", connection.report());
    let stopping = async {
        asked.notified().await;
        let fresh = acceptor.stop();
        let answering = async {
            // Enough turns for what is dropped to have ended.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            answer.notify_one();
        };
        join(server.stop(), answering).await;
        drop(fresh);
    };
    let payload = json!("late");
    let (answered, ()) = timeout(PATIENCE, join(connection.request(&payload), stopping)).await.unwrap();
    assert_eq!(answered, Ok(payload));
}

#[tokio::test]
async fn a_worker_of_the_originals_is_reached() {
    let (_broker, at, _) = broker(None);
    let (worker, client) = (peer(), peer());
    let _server = serve(&worker);
    let registering = BrokerClient::new(&worker.rpc, &worker.puncher, at, SERVICE, true);
    let _registering = worker.endpoint.net().spawn(Box::pin(async move { registering.run().await }));
    let connection = connect(&client, ConnectConfig::default().broker(at).nat(SYMMETRIC)).await;
    assert_eq!(connection.report().peer_nat, None, "it says nothing of its NAT");
    asks(&connection).await;
}

#[tokio::test]
async fn a_client_of_the_originals_is_punched_by_an_acceptor_and_punches_back() {
    let (_broker, at, _) = broker(None);
    let (worker, client) = (peer(), peer());
    let server = serve(&worker);
    let _acceptor = accept(&worker, &server, ConnectConfig::default().broker(at).nat(SYMMETRIC));
    let mut punched = client.puncher.punched();
    let registering = BrokerClient::new(&client.rpc, &client.puncher, at, SERVICE, false);
    let _registering = client.endpoint.net().spawn(Box::pin(async move { registering.run().await }));
    let from = timeout(PATIENCE, punched.next()).await.unwrap().unwrap();
    assert_eq!(from, worker.endpoint.local_addr());
    worker.net.until(1, |e| *e == Event::Punched { from: client.endpoint.local_addr() }).await;
}

#[tokio::test]
async fn a_caller_that_finds_nobody_says_why_on_every_rung() {
    let (_broker, at, _) = broker(None);
    let client = peer();
    let config = ConnectConfig::default().broker(at).nat(SYMMETRIC).peer_timeout(std::time::Duration::from_millis(50));
    let connector = Connector::new(&client.endpoint, &client.puncher, &client.rpc, None, config);
    let error = timeout(PATIENCE, connector.connect(SERVICE)).await.unwrap().unwrap_err();
    assert_eq!(error.report().failed.iter().map(|failed| failed.rung).collect::<Vec<_>>(), Rung::ALL);
    assert!(error.to_string().contains("punch: not tried: nobody is registered for echo"), "{error}");
    let alone = Connector::new(&client.endpoint, &client.puncher, &client.rpc, None, ConnectConfig::default());
    let error = alone.connect(SERVICE).await.unwrap_err();
    assert!(error.to_string().contains("there is no broker"), "{error}");
    assert_eq!(client.net.count(|e| matches!(e, Event::ConnectFailed { .. })), 2);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn loopback_has_no_nat() {
    let net: Net = Arc::new(HostNetwork::new());
    let on = |ip: [u8; 4]| Endpoint::bind(&net, SocketAddr::from((ip, 0)), EndpointConfig::default()).unwrap();
    let brokers = [[127, 0, 0, 1], [127, 0, 0, 2]].map(|ip| {
        let (main, alternate) = (on(ip), on(ip));
        (Broker::start(&main, None, BrokerConfig::new("b").alternate(&alternate)), main.local_addr())
    });
    let addresses = brokers.each_ref().map(|(_, at)| *at);
    let report = timeout(PATIENCE, check(&net, &addresses, CheckConfig::default())).await.unwrap().unwrap();
    assert_eq!(report.behaviour, Behaviour::OPEN, "{report}");
    assert_eq!(
        report.to_string(),
        "public address: 127.0.0.1\nmapping: no NAT\nfiltering: endpoint-independent\nports: preserved"
    );
}

#[tokio::test]
async fn a_service_registers_with_so_many_brokers_and_no_more() {
    let brokers: Vec<_> = (0..MAX_BROKERS + 2).map(|_| broker(None)).collect();
    let worker = peer();
    let server = serve(&worker);
    let config = ConnectConfig::default().nat(Behaviour::OPEN);
    let config = brokers.iter().fold(config, |config, (_, at, _)| config.broker(*at));
    let _acceptor = accept(&worker, &server, config);
    let registered = |event: &Event| matches!(event, Event::Registered { .. });
    // Twice: by then it has come to all that it comes to.
    for (_, _, net) in &brokers[..MAX_BROKERS] {
        net.until(2, registered).await;
    }
    let beyond = brokers[MAX_BROKERS..].iter().map(|(_, _, net)| net.count(registered));
    assert_eq!(beyond.sum::<usize>(), 0);
}

#[tokio::test]
async fn so_many_brokers_are_asked_about_a_nat_and_no_more() {
    let net: Net = Arc::new(HostNetwork::new());
    let mute: Vec<_> =
        (0..nat::MAX_BROKERS).map(|_| Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap()).collect();
    let (_broker, at, _) = broker(None);
    let mut addresses: Vec<SocketAddr> = mute.iter().map(Endpoint::local_addr).collect();
    addresses.push(at);
    let config = CheckConfig::default().timeout(std::time::Duration::from_millis(50));
    let checked = timeout(PATIENCE, check(&net, &addresses, config)).await.unwrap();
    assert!(matches!(checked, Err(CheckError::NoAnswer(nat::MAX_BROKERS))), "{checked:?}");
    assert!(timeout(PATIENCE, check(&net, &addresses[1..], config)).await.unwrap().is_ok(), "the last of so many is");
}
