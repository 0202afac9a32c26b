//! The whole way to a service, whatever NATs are in between.
//!
//! [`Connector::connect`] climbs a ladder of ever costlier ways until one works: straight to the service's address; both
//! sides punching; fresh sockets whose ports are predicted; many sockets against many random ports; a relay. What theory
//! says cannot work between the two NATs is not tried. The service's side is an [`Acceptor`], which does its part of what
//! a caller asks for. Both meet at a broker, and what they say there is an extension of ours: a service of the original's
//! is reached by the first two rungs.
//!
//! | rung | what both sides do | packets, at most | time, at most |
//! |---|---|---|---|
//! | direct | the caller connects | 4 connection attempts | 1.5 s |
//! | punch | punch from their registered sockets | 8 rounds of up to 5, and 8 connection attempts | 2 s; 3 s where the peer is gone, 5 s for one of the original's |
//! | predict | open a fresh socket each, 3 times | as above, each time | 6.2 s each time: 1.2 s for the broker to tell the port, 3 s for the peer's, 2 s to meet |
//! | many ports | one opens 256 sockets, the other punches 2048 random ports | 512 and 2048 | 9.1 s: 3 s for the peer to be ready, 4.05 s to hit, 2 s to meet |
//! | relay | send to a port of the broker's | 100 claims in 5 s until both are there, 6 a minute then | 5 s |
//!
//! That is for each peer that is tried, up to [`ConnectConfig::peers`]; a broker that does not answer adds up to 4 s a rung.
//! Whatever comes together, [`ConnectConfig::timeout`] (35 s) ends it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::event::Event;
use crate::link::Link;
use crate::nat::Behaviour;
use crate::punch::Puncher;
use crate::rpc::PeerRpcClient;
use crate::transport::Endpoint;

mod acceptor;
mod climb;
mod config;
mod connection;
mod echo;
mod host;
mod ladder;
mod meet;
mod meeting;
mod places;
mod presence;
mod relayed;
mod report;
mod shots;

pub use acceptor::{Acceptor, FreshSockets, MAX_BROKERS};
pub use config::ConnectConfig;
pub use connection::Connection;
pub use ladder::Rung;
pub use places::{
    MANY_PORTS_BURST, MANY_PORTS_EVERY, MANY_PORTS_TOTAL_BURST, MANY_PORTS_TOTAL_EVERY, MAX_ATTEMPTS,
    MAX_ATTEMPTS_PER_SOURCE, MAX_KEPT, MAX_REFUSALS, MAX_VOLLEYS,
};
pub use report::{ConnectReport, FailedRung};

use host::Host;

/// Why a service was not reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Every rung failed, each for its reason.
    #[error("ERR_CONNECT: {0}")]
    NoWay(Box<ConnectReport>),
}

impl ConnectError {
    /// What was tried.
    pub fn report(&self) -> &ConnectReport {
        match self {
            Self::NoWay(report) => report,
        }
    }
}

/// Connects to services by name. Cheap to clone.
///
/// ```no_run
/// use grenache::connect::{ConnectConfig, ConnectError, Connector};
/// use grenache::punch::Puncher;
/// use grenache::rpc::{ClientConfig, PeerRpcClient};
/// # async fn example(
/// #     endpoint: grenache::transport::Endpoint,
/// #     link: grenache::link::Link,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let rpc = PeerRpcClient::new(&endpoint, Some(link.clone()), ClientConfig::default());
/// let config = ConnectConfig::default().broker("fibo_broker");
/// let connector = Connector::new(&endpoint, &Puncher::new(&endpoint), &rpc, Some(link), config);
/// let worker = connector.connect("fibonacci_worker").await?;
/// println!("{}", worker.report());
/// let answer = worker.request(&10.into()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Connector(Arc<Host>);

impl Connector {
    /// A connector on an endpoint with its one puncher and a client on it. The link looks up services and brokers that are
    /// given by name.
    pub fn new(
        endpoint: &Endpoint,
        puncher: &Puncher,
        rpc: &PeerRpcClient,
        link: Option<Link>,
        config: ConnectConfig,
    ) -> Self {
        Self(Arc::new(Host::new(endpoint, puncher, rpc, link, config)))
    }

    /// What the NAT in front of this host does: finds it out now where it is not known, so that the next
    /// [`connect`](Self::connect) need not. [`Behaviour::UNKNOWN`] where no broker tells.
    pub async fn nat(&self) -> Behaviour {
        let brokers = self.0.brokers().await;
        self.0.behaviour(&brokers, host::BELIEVED).await
    }

    /// Reaches somebody who offers `service`: by the first rung that works. Dropping the future ends the attempt.
    ///
    /// Of several that are registered one is tried after the other, in random order, until one is reached: up to
    /// [`ConnectConfig::peers`], and within [`ConnectConfig::timeout`] in all (35 s). A punch takes less than a second. What
    /// the own NAT does is found out beside the first rung, which does not need it; where no broker tells, nobody is asked
    /// again for 10 s. A connection through a relay goes on to look for a better way by itself.
    ///
    /// # Errors
    /// Where no rung works; the error says why for each.
    pub async fn connect(&self, service: &str) -> Result<Connection, ConnectError> {
        match climb::climb(&self.0, service, climb::Aim::AnyWay).await {
            Ok((path, report)) => Ok(Connection::new(self.0.clone(), path, report)),
            Err(report) => {
                let error = ConnectError::NoWay(report);
                self.0.net().emit(Event::ConnectFailed { service: service.to_owned(), error: error.to_string() });
                Err(error)
            }
        }
    }
}

/// A way to a peer.
#[derive(Debug)]
struct Path {
    rpc: PeerRpcClient,
    to: SocketAddr,
    rung: Rung,
    /// What keeps a relay, until it has ended, and this side's token.
    kept: Option<(crate::net::Task, String)>,
}

impl Path {
    /// Whether it is known to lead nowhere any more.
    fn is_gone(&self) -> bool {
        self.kept.as_ref().is_some_and(|(kept, _)| kept.is_finished())
    }
}
