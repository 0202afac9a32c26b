//! Two brokers on the internet, a worker behind one NAT and a client behind another.

use std::time::Duration;

use grenache::broker::{Broker, BrokerConfig, RelayConfig};
use grenache::connect::{Acceptor, ConnectConfig, Connector};
use grenache::net::Net;
use grenache::punch::Puncher;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use grenache_sim::engine::World;
use grenache_sim::scenario::model::{Dependence, PortAssignment};

use crate::lab::{Lab, address, ms};

pub(crate) const ONE: &str = "203.0.113.1:8000";
pub(crate) const TWO: &str = "203.0.113.2:8000";
pub(crate) const SERVICE: &str = "echo";

pub(crate) const ALL: [Dependence; 3] =
    [Dependence::EndpointIndependent, Dependence::AddressDependent, Dependence::AddressAndPortDependent];
pub(crate) const PORTS: [PortAssignment; 3] =
    [PortAssignment::Preserving, PortAssignment::Contiguous, PortAssignment::Random];

/// A NAT by its mapping and filtering.
pub(crate) type Kind = (Dependence, Dependence);

pub(crate) fn kinds() -> impl Iterator<Item = Kind> + Clone {
    ALL.into_iter().flat_map(|mapping| ALL.into_iter().map(move |filtering| (mapping, filtering)))
}

/// The internet: two brokers' hosts, 20 ms from everybody.
pub(crate) fn internet() -> Lab {
    Lab::new().node("one", "203.0.113.1").node("two", "203.0.113.2").link(&["one", "two"], ms(10), |_| {})
}

/// The client behind one NAT and the worker behind another.
pub(crate) fn homes(client: Kind, worker: Kind, ports: [PortAssignment; 2], seed: u64) -> Lab {
    let mut lab = internet();
    lab.seed = seed;
    let homes = [("cafe", "198.51.100.20", "phone", client), ("home", "198.51.100.10", "laptop", worker)];
    for ((nat, at, node, kind), ports) in homes.into_iter().zip(ports) {
        lab = lab
            .nat_with(nat, at, |nat| {
                (nat.mapping, nat.filtering, nat.ports) = (kind.0, kind.1, ports);
                nat.udp_timeout = Duration::from_secs(120);
            })
            .behind(nat, node, "192.168.1.2")
            .link(&[nat], ms(10), |link| link.jitter = ms(2));
    }
    lab
}

pub(crate) fn endpoint(net: &Net, at: &str) -> Endpoint {
    let config = EndpointConfig::default().connect_timeout(Duration::from_secs(3));
    Endpoint::bind(net, address(at), config).unwrap()
}

/// A broker on a node, with its other port.
pub(crate) fn broker(world: &World, node: &str, relay: Option<RelayConfig>) -> Broker {
    let net = world.network(node);
    let alternate = endpoint(&net, "0.0.0.0:8001");
    let mut config = BrokerConfig::new("fibo_broker").alternate(&alternate);
    if let Some(relay) = relay {
        config = config.relay(relay);
    }
    Broker::start(&endpoint(&net, "0.0.0.0:8000"), None, config)
}

pub(crate) fn config() -> ConnectConfig {
    ConnectConfig::default().broker(address(ONE)).broker(address(TWO))
}

/// What a worker consists of: it answers with what it was asked.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) server: PeerRpcServer,
    pub(crate) acceptor: Acceptor,
    pub(crate) puncher: Puncher,
}

pub(crate) fn worker(world: &World, node: &str) -> Worker {
    let endpoint = endpoint(&world.network(node), "0.0.0.0:5000");
    let server = PeerRpcServer::serve(&endpoint, ServerConfig::default(), |request| async move { Ok(request.payload) });
    let rpc = PeerRpcClient::new(&endpoint, None, ClientConfig::default());
    let puncher = Puncher::new(&endpoint);
    let acceptor = Acceptor::start(&endpoint, &puncher, &rpc, None, SERVICE, config(), server.also_on());
    Worker { server, acceptor, puncher }
}

pub(crate) fn connector(world: &World, node: &str, config: ConnectConfig) -> Connector {
    let endpoint = endpoint(&world.network(node), "0.0.0.0:6000");
    let rpc = PeerRpcClient::new(&endpoint, None, ClientConfig::default());
    Connector::new(&endpoint, &Puncher::new(&endpoint), &rpc, None, config)
}
