//! Settings of connectors and acceptors.

use std::time::Duration;

use crate::broker::BrokerAddress;
use crate::nat::{Behaviour, CheckConfig};
use crate::net::LONGEST_WAIT;
use crate::rpc::ClientConfig;

/// Settings of a [`Connector`](super::Connector) and an [`Acceptor`](super::Acceptor).
#[derive(Debug, Clone)]
pub struct ConnectConfig {
    pub(super) brokers: Vec<BrokerAddress>,
    pub(super) nat: Option<Behaviour>,
    pub(super) check: CheckConfig,
    pub(super) client: ClientConfig,
    pub(super) timeout: Duration,
    pub(super) peers: usize,
    pub(super) peer_timeout: Duration,
    pub(super) direct_timeout: Duration,
    pub(super) punch_timeout: Duration,
    pub(super) predictions: u32,
    pub(super) sockets: usize,
    pub(super) probes: usize,
    pub(super) probe_interval: Duration,
    pub(super) relay: bool,
    pub(super) relay_timeout: Duration,
    pub(super) upgrade_interval: Duration,
    pub(super) upgrades: u32,
}

impl Default for ConnectConfig {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            nat: None,
            check: CheckConfig::default(),
            client: ClientConfig::default(),
            timeout: Duration::from_secs(35),
            peers: 4,
            peer_timeout: Duration::from_secs(5),
            direct_timeout: Duration::from_millis(1500),
            punch_timeout: Duration::from_secs(2),
            predictions: 3,
            sockets: 256,
            probes: 2048,
            probe_interval: Duration::from_millis(1),
            relay: true,
            relay_timeout: Duration::from_secs(5),
            upgrade_interval: Duration::from_secs(30),
            upgrades: 20,
        }
    }
}

impl ConnectConfig {
    /// Adds a broker. A service registers with all, a caller with one after the other until it finds the service; that
    /// one relays. About the NAT all are asked, for which two with different addresses are best.
    pub fn broker(mut self, broker: impl Into<BrokerAddress>) -> Self {
        self.brokers.push(broker.into());
        self
    }

    /// What the NAT in front of this host does (default: it is found out when it is needed).
    pub fn nat(self, nat: Behaviour) -> Self {
        Self { nat: Some(nat), ..self }
    }

    /// How it is found out.
    pub fn check(self, check: CheckConfig) -> Self {
        Self { check, ..self }
    }

    /// Settings of the client for requests from a fresh socket: one that was opened to reach the peer.
    pub fn client(self, client: ClientConfig) -> Self {
        Self { client, ..self }
    }

    /// How long connecting may take in all (default 35 s): the brokers' names are looked up, a peer is found, peer after peer
    /// is tried. Then it fails, and the report says how far it came.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(LONGEST_WAIT), ..self }
    }

    /// With how many peers that offer the service a connection is tried at most, one after the other (default 4, at least
    /// 1): a peer that has crashed stays registered for 15 s, and takes up to 5 s to be found out.
    pub fn peers(self, peers: usize) -> Self {
        Self { peers: peers.max(1), ..self }
    }

    /// How long to wait at each broker until somebody is registered for the service (default 5 s).
    pub fn peer_timeout(self, timeout: Duration) -> Self {
        Self { peer_timeout: timeout.min(LONGEST_WAIT), ..self }
    }

    /// How long a direct connection is tried (default 1.5 s).
    pub fn direct_timeout(self, timeout: Duration) -> Self {
        Self { direct_timeout: timeout.min(LONGEST_WAIT), ..self }
    }

    /// How long punches at known or predicted ports may take to meet (default 2 s): 8 rounds of up to 5 punches.
    pub fn punch_timeout(self, timeout: Duration) -> Self {
        Self { punch_timeout: timeout.min(LONGEST_WAIT), ..self }
    }

    /// How often ports are predicted anew (default 3): something else may have taken the port meanwhile.
    pub fn predictions(self, predictions: u32) -> Self {
        Self { predictions, ..self }
    }

    /// How many sockets are opened where many ports are tried (default 256, at most 1024), each for two punches. With 0
    /// many ports are never tried, nor is a caller helped that does.
    pub fn sockets(self, sockets: usize) -> Self {
        Self { sockets: sockets.min(1024), ..self }
    }

    /// How many random ports are punched at most (default 2048, at most 16384). With 256 sockets on the other side one of
    /// them is hit with a probability of 99.97 %.
    pub fn probes(self, probes: usize) -> Self {
        Self { probes: probes.min(16_384), ..self }
    }

    /// The time between two of those (default 1 ms, at least 0.1 ms).
    pub fn probe_interval(self, interval: Duration) -> Self {
        Self { probe_interval: interval.clamp(Duration::from_micros(100), LONGEST_WAIT), ..self }
    }

    /// Whether a relay is used where nothing else works (default yes, where the broker relays).
    pub fn relay(self, relay: bool) -> Self {
        Self { relay, ..self }
    }

    /// How long a relay may take to be there (default 5 s, which is also the most that has an effect).
    pub fn relay_timeout(self, timeout: Duration) -> Self {
        Self { relay_timeout: timeout.min(LONGEST_WAIT), ..self }
    }

    /// While relayed, how often another way is tried (default every 30 s, at least 1 s).
    pub fn upgrade_interval(self, interval: Duration) -> Self {
        Self { upgrade_interval: interval.clamp(Duration::from_secs(1), LONGEST_WAIT), ..self }
    }

    /// How often at most (default 20 times).
    pub fn upgrades(self, upgrades: u32) -> Self {
        Self { upgrades, ..self }
    }

    /// How long many ports may be tried.
    pub(super) fn many_ports_timeout(&self) -> Duration {
        let probing = self.probe_interval.saturating_mul(u32::try_from(self.probes).unwrap_or(u32::MAX));
        probing.min(LONGEST_WAIT) + self.punch_timeout
    }
}
