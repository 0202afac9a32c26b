//! A peer of a broker: registers, and punches those it is told of.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::registry::{Entry, Registration, entries};
use crate::nat::Behaviour;
use crate::punch::Puncher;
use crate::rpc::{PeerRpcClient, RequestOptions, RpcError};

/// How often a peer registers.
pub const REGISTER_INTERVAL: Duration = Duration::from_secs(2);

/// How soon a peer tries again that could not register: its broker may only just be starting.
pub const REGISTER_RETRY: Duration = Duration::from_millis(500);

/// How long one registration may take: a connection that a NAT has cut off is given up soon.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(4);

/// How many peers are punched after one registration. Those after them in the broker's order have to wait until
/// others have gone.
pub const MAX_PUNCHED: usize = 100;

/// How many ports after the one that the broker sees are punched too.
///
/// A NAT that preserves ports but makes a mapping for each destination took the first port towards the broker, and
/// takes one of the next towards this peer. Where this peer's NAT lets in only the very port that it has sent to,
/// the guess is what lets the other in. NATs that assign ports at random cannot be guessed.
pub const PREDICTED_PORTS: u16 = 4;

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerAddress {
    /// The name that it is announced as.
    Name(String),
    /// Its UDP address.
    At(SocketAddr),
}

impl From<&str> for BrokerAddress {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<SocketAddr> for BrokerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::At(address)
    }
}

/// Registers a peer with a broker and punches the peers of the other role.
///
/// Both sides punch, at the port that the broker sees and at the few after it ([`PREDICTED_PORTS`]): a NAT whose
/// filtering depends on the address lets in only whom its own host has sent to. What registers and punches must be on
/// the same [`Endpoint`](crate::transport::Endpoint) as what then serves or requests, for the broker tells the address
/// of the mapping that it sees.
///
/// ```no_run
/// use grenache::broker::BrokerClient;
/// use grenache::punch::Puncher;
/// use grenache::rpc::PeerRpcClient;
/// # async fn example(rpc: PeerRpcClient, puncher: Puncher) -> Result<(), grenache::rpc::RpcError> {
/// let mut punched = puncher.punched();
/// let broker = BrokerClient::new(&rpc, &puncher, "fibo_broker", "fibonacci_worker", false);
/// // In the simplest case at once; in a program `run` is a task of its own.
/// broker.introduce().await?;
/// if let Some(worker) = punched.next().await {
///     rpc.request_at(worker, "fibonacci_worker", &10.into()).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct BrokerClient {
    rpc: PeerRpcClient,
    puncher: Puncher,
    broker: BrokerAddress,
    registration: Registration,
}

impl BrokerClient {
    /// A peer that offers `service`, or wants to use it. `broker` is a name or an address.
    pub fn new(
        rpc: &PeerRpcClient,
        puncher: &Puncher,
        broker: impl Into<BrokerAddress>,
        service: &str,
        server: bool,
    ) -> Self {
        let registration = Registration { service: service.to_owned(), server, nat: None };
        Self { rpc: rpc.clone(), puncher: puncher.clone(), broker: broker.into(), registration }
    }

    /// Tells brokers and peers of ours what the NAT in front of this host does ([`nat::check`](crate::nat::check)), with
    /// each registration; those of the original ignore it. Default: nothing is told.
    #[must_use]
    pub fn nat(mut self, nat: Behaviour) -> Self {
        self.registration.nat = Some(nat);
        self
    }

    /// Registers at once and every 2 s from then on, and punches the peers of the other role each time. Never
    /// returns; what fails is reported as events and tried again after half a second.
    pub async fn run(&self) {
        loop {
            let began = Instant::now();
            let wait = if self.introduce().await.is_ok() { REGISTER_INTERVAL } else { REGISTER_RETRY };
            sleep_until(began + wait).await;
        }
    }

    /// Registers once and punches the peers of the other role, which it gives.
    ///
    /// # Errors
    /// As those of a request; the broker refuses a service's name that is empty or longer than 256 bytes.
    pub async fn introduce(&self) -> Result<Vec<Entry>, RpcError> {
        let entries = self.register().await?;
        let others: Vec<Entry> =
            entries.into_iter().filter(|entry| entry.server != self.registration.server).take(MAX_PUNCHED).collect();
        for entry in &others {
            let observed = entry.socket_addr();
            for port in (observed.port()..=u16::MAX).take(1 + usize::from(PREDICTED_PORTS)) {
                self.puncher.punch(SocketAddr::new(observed.ip(), port));
            }
        }
        Ok(others)
    }

    /// Registers once; gives everybody who is registered for the service.
    ///
    /// # Errors
    /// As those of [`introduce`](Self::introduce).
    pub async fn register(&self) -> Result<Vec<Entry>, RpcError> {
        let Registration { service, server, nat } = &self.registration;
        let mut payload = serde_json::json!({ "service": service, "server": server });
        if let Some(nat) = nat {
            payload["nat"] = serde_json::json!(nat);
        }
        let options = RequestOptions::default().timeout(REGISTER_TIMEOUT);
        let answer = match &self.broker {
            BrokerAddress::Name(name) => self.rpc.request_with(name, &payload, options).await?,
            BrokerAddress::At(address) => self.rpc.request_at_with(*address, service, &payload, options).await?,
        };
        Ok(entries(&answer, service))
    }
}
