//! The programs that scenarios run: the roles of the original's examples, on any network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use grenache::broker::{Broker, BrokerClient, BrokerConfig, RelayConfig};
use grenache::connect::{Acceptor, ConnectConfig, Connector};
use grenache::grape::{Grape, GrapeConfig};
use grenache::link::{ANNOUNCE_INTERVAL, Link, LinkConfig};
use grenache::net::{Net, Task};
use grenache::punch::Puncher;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, RequestOptions, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::sleep;

use super::probing;
use crate::event::LabEvent;
use crate::scenario::model::{Answer, Client, ProgramKind, Reach, Worker};

/// How often a service that is to be punched is looked up and punched.
const PUNCH_EVERY: Duration = Duration::from_secs(1);

/// How long a connection attempt over a punched hole may take: the next punch is a better start than more patience.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a client waits after a failure before it tries anew.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// All addresses of IPv4, and of both kinds.
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The largest Fibonacci request that is answered: the 93rd number is the last that fits 64 bits.
const MAX_FIBONACCI: u64 = 93;

/// Why a program ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum ProgramError {
    /// Its socket could not be bound.
    #[error("cannot open the UDP socket on port {port}: {source}")]
    Bind {
        /// The port asked for.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// Its Grape could not start.
    #[error("cannot start the Grape: {0}")]
    Grape(#[from] grenache::grape::GrapeError),
    /// Its Grape, which runs outside of this process, could not start, or has ended.
    #[error(transparent)]
    Outside(#[from] crate::grapes::GrapesError),
    /// Nothing was found out about the NAT.
    #[error(transparent)]
    Probe(#[from] crate::probe::prober::ProbeError),
    /// The NAT is another one than expected.
    #[error("the NAT's {what} is {found}, and not {expected}")]
    OtherNat {
        /// `mapping`, `filtering` or `ports`.
        what: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The NAT forwards nothing.
    #[error(transparent)]
    Forward(#[from] crate::probe::forward::ForwardError),
}

/// What a kind of program is called in scenario files.
pub(super) fn name(kind: &ProgramKind) -> &'static str {
    match kind {
        ProgramKind::Grape { .. } => "grape",
        ProgramKind::Announce { .. } => "announce",
        ProgramKind::Lookup { .. } => "lookup",
        ProgramKind::Broker { .. } => "broker",
        ProgramKind::Worker(_) => "worker",
        ProgramKind::Client(_) => "client",
        ProgramKind::StunServer { .. } => "stun-server",
        ProgramKind::NatProbe(_) => "nat-probe",
        ProgramKind::Forward(_) => "forward",
    }
}

/// Runs a program: to its end where it has one, else until it is dropped. Gives what is to be told of its end.
pub(super) async fn run(net: &Net, kind: ProgramKind) -> Result<Option<LabEvent>, ProgramError> {
    if let ProgramKind::NatProbe(probe) = kind {
        return probing::probe(net, &probe).await.map(Some);
    }
    run_silently(net, kind).await.map(|()| None)
}

async fn run_silently(net: &Net, kind: ProgramKind) -> Result<(), ProgramError> {
    match kind {
        // Of another kind it is no program of this process: the director sees to it.
        ProgramKind::Grape { dht_port, api_port, bootstrap, kind: _ } => {
            let config =
                GrapeConfig::default().dht_address(any(dht_port)).api_address(any(api_port)).bootstrap(bootstrap);
            let _grape = Grape::start(net, config).await?;
            std::future::pending().await
        }
        ProgramKind::Announce { grape, service, port } => {
            let link = link(net, grape.into());
            let _announcing = link.start_announcing(&service, port, ANNOUNCE_INTERVAL);
            std::future::pending().await
        }
        ProgramKind::Lookup { grape, service, every } => {
            let link = link(net, grape.into());
            while link.lookup_fresh(&service).await.is_err() {
                sleep(every).await;
            }
            Ok(())
        }
        ProgramKind::Broker { grape, service, port, alternate_port, relay } => {
            let endpoint = bind(net, port)?;
            let link = link(net, grape.into());
            let mut config = BrokerConfig::new(&service);
            if let Some(port) = alternate_port {
                config = config.alternate(&bind(net, port)?);
            }
            if relay {
                config = config.relay(RelayConfig::default());
            }
            let _broker = Broker::start(&endpoint, Some(&link), config);
            std::future::pending().await
        }
        ProgramKind::Worker(worker) => work(net, worker).await,
        ProgramKind::Client(client) => consume(net, client).await,
        ProgramKind::StunServer { port, alternate_port, partner } => {
            probing::serve(net, port, alternate_port, partner).await
        }
        ProgramKind::Forward(forward) => probing::forward(net, &forward).await,
        // It has an end to tell of.
        ProgramKind::NatProbe(_) => Ok(()),
    }
}

async fn work(net: &Net, worker: Worker) -> Result<(), ProgramError> {
    let endpoint = bind_to(net, if worker.ipv6 { ANY6 } else { ANY }, worker.port)?;
    let link = worker.grape.map(|grape| link(net, grape.into()));
    let puncher = Puncher::new(&endpoint);
    let mut punched = puncher.punched();

    let answer = worker.answer;
    let server = PeerRpcServer::serve(&endpoint, ServerConfig::default(), move |request| {
        let answer = reply(&answer, request.payload);
        async move { answer }
    });
    let announcing = link.as_ref().filter(|_| worker.announce);
    let _announcing =
        announcing.map(|link| link.start_announcing(&worker.service, endpoint.local_addr().port(), ANNOUNCE_INTERVAL));
    let _punching = link.as_ref().zip(worker.punches).map(|(link, target)| punch_service(net, link, &puncher, target));
    let client = PeerRpcClient::new(&endpoint, link.clone(), ClientConfig::default());
    if let (true, Some(broker)) = (worker.connect, &worker.broker) {
        let config = ConnectConfig::default().broker(broker.as_str());
        let also_on = server.also_on();
        let _acceptor = Acceptor::start(&endpoint, &puncher, &client, link, &worker.service, config, also_on);
        return std::future::pending().await;
    }
    let _registering = worker.broker.map(|broker| {
        let broker = BrokerClient::new(&client, &puncher, broker.as_str(), &worker.service, true);
        net.spawn(Box::pin(async move { broker.run().await }))
    });

    // Whoever punches is punched back: that opens this side's NAT for the one who asked.
    while let Some(from) = punched.next().await {
        puncher.punch_back(from);
    }
    Ok(())
}

async fn consume(net: &Net, client: Client) -> Result<(), ProgramError> {
    let any = if matches!(client.reach, Reach::Address(SocketAddr::V6(_))) { ANY6 } else { ANY };
    let endpoint = bind_to(net, any, client.port)?;
    let link = client.grape.map(|grape| link(net, grape.into()));
    let puncher = Puncher::new(&endpoint);
    let mut punched = puncher.punched();
    let config = ClientConfig::default().request(RequestOptions::default().timeout(client.timeout));
    let rpc = PeerRpcClient::new(&endpoint, link.clone(), config);

    if let Reach::Connect { broker } = &client.reach {
        let config = ConnectConfig::default().broker(broker.as_str());
        let connector = Connector::new(&endpoint, &puncher, &rpc, link, config);
        return connect(&connector, &client).await;
    }

    // The tasks that bring the punches about, for as long as the client runs.
    let (_announcing, _punching) = match &client.reach {
        Reach::Lookup | Reach::Address(_) | Reach::Connect { .. } => (None, None),
        Reach::Punch => (None, link.as_ref().map(|link| punch_service(net, link, &puncher, client.service.clone()))),
        Reach::AwaitPunch { announce } => {
            let port = endpoint.local_addr().port();
            (link.as_ref().map(|link| link.start_announcing(announce, port, ANNOUNCE_INTERVAL)), None)
        }
        Reach::Broker { broker } => {
            let broker = BrokerClient::new(&rpc, &puncher, broker.as_str(), &client.service, false);
            (None, Some(net.spawn(Box::pin(async move { broker.run().await }))))
        }
    };

    let mut left = client.requests;
    for attempt in 0..=client.retries {
        if attempt > 0 {
            sleep(RETRY_AFTER).await;
        }
        let to = match &client.reach {
            Reach::Lookup => None,
            Reach::Address(address) => Some(*address),
            _ => match punched.next().await {
                Some(from) => Some(from),
                None => break,
            },
        };
        if let (Reach::AwaitPunch { .. }, Some(from)) = (&client.reach, to) {
            puncher.punch(from);
        }
        let requests = (0..left).map(|_| async {
            match to {
                Some(to) => rpc.request_at(to, &client.service, &client.payload).await,
                None => rpc.request(&client.service, &client.payload).await,
            }
        });
        let answers = futures_util::future::join_all(requests).await;
        left = answers.iter().filter(|answer| answer.is_err()).count() as u32;
        if left == 0 {
            break;
        }
    }
    // It stays, as peers do: registered, announced, and ready to punch.
    std::future::pending().await
}

/// Connects and asks, and connects anew where requests failed.
async fn connect(connector: &Connector, client: &Client) -> Result<(), ProgramError> {
    let options = RequestOptions::default().timeout(client.timeout);
    let mut left = client.requests;
    for attempt in 0..=client.retries {
        if attempt > 0 {
            sleep(RETRY_AFTER).await;
        }
        // A failure is in the event stream already.
        let Ok(connection) = connector.connect(&client.service).await else { continue };
        let requests = (0..left).map(|_| connection.request_with(&client.payload, options));
        let answers = futures_util::future::join_all(requests).await;
        left = answers.iter().filter(|answer| answer.is_err()).count() as u32;
        if left == 0 {
            // It stays connected, as peers do.
            let _connection = connection;
            return std::future::pending().await;
        }
    }
    std::future::pending().await
}

/// Looks a service up and punches all who offer it, again and again.
fn punch_service(net: &Net, link: &Link, puncher: &Puncher, service: String) -> Task {
    let (link, puncher) = (link.clone(), puncher.clone());
    net.spawn(Box::pin(async move {
        loop {
            // A failed lookup is in the event stream already, and the next one is a second away.
            for address in link.lookup_fresh(&service).await.unwrap_or_default() {
                puncher.punch(address);
            }
            sleep(PUNCH_EVERY).await;
        }
    }))
}

/// A worker's reply to a payload.
fn reply(answer: &Answer, payload: Value) -> Result<Value, String> {
    match answer {
        Answer::Value(value) => Ok(value.clone()),
        Answer::Echo => Ok(payload),
        Answer::Error(message) => Err(message.clone()),
        Answer::Fibonacci => match payload.as_u64() {
            Some(n) if n <= MAX_FIBONACCI => Ok(fibonacci(n)),
            _ => Err(format!("ERR_PAYLOAD: a number from 0 to {MAX_FIBONACCI} is needed")),
        },
    }
}

/// The first `n` Fibonacci numbers.
fn fibonacci(n: u64) -> Value {
    let mut numbers = Vec::new();
    let (mut a, mut b) = (1_u64, 1_u64);
    for _ in 0..n {
        numbers.push(a);
        (a, b) = (b, a.wrapping_add(b));
    }
    json!(numbers)
}

fn bind(net: &Net, port: u16) -> Result<Endpoint, ProgramError> {
    bind_to(net, ANY, port)
}

fn bind_to(net: &Net, ip: IpAddr, port: u16) -> Result<Endpoint, ProgramError> {
    let config = EndpointConfig::default().connect_timeout(CONNECT_TIMEOUT);
    Endpoint::bind(net, SocketAddr::new(ip, port), config).map_err(|source| ProgramError::Bind { port, source })
}

fn link(net: &Net, grape: SocketAddr) -> Link {
    Link::new(net, LinkConfig::new(grape))
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((ANY, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fibonacci_of_ten_is_the_originals() {
        assert_eq!(reply(&Answer::Fibonacci, json!(10)), Ok(json!([1, 1, 2, 3, 5, 8, 13, 21, 34, 55])));
    }

    #[test]
    fn fibonacci_stops_where_numbers_no_longer_fit() {
        let Ok(Value::Array(numbers)) = reply(&Answer::Fibonacci, json!(93)) else { panic!("93 is answered") };
        assert_eq!(numbers.last(), Some(&json!(12_200_160_415_121_876_738_u64)));
        assert!(reply(&Answer::Fibonacci, json!(94)).is_err());
        assert!(reply(&Answer::Fibonacci, json!(-1)).is_err());
    }
}
