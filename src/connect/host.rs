//! What a caller and a peer do alike: find brokers, know their NAT, open fresh sockets.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::config::ConnectConfig;
use super::presence::Presence;
use crate::broker::{BrokerAddress, Rendezvous};
use crate::link::Link;
use crate::nat::{self, Behaviour, Mapping};
use crate::net::{Net, Rng, UdpSocket};
use crate::punch::Puncher;
use crate::rpc::PeerRpcClient;
use crate::transport::Endpoint;

/// To how many ports after the expected one a punch goes as well, where that costs no mapping.
const PORTS_AFTER: i32 = 3;

/// How many addresses a broker's name may have.
const MAX_ADDRESSES: usize = 8;

/// This host's part of a meeting.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) endpoint: Endpoint,
    pub(super) puncher: Puncher,
    pub(super) rpc: PeerRpcClient,
    pub(super) link: Option<Link>,
    pub(super) config: ConnectConfig,
    rng: Mutex<Rng>,
    /// What was found out of the NAT, and when; `None` where that failed.
    known: Mutex<Option<(Instant, Option<Behaviour>)>>,
    /// Who this host looks for at which broker.
    presences: Mutex<BTreeMap<(SocketAddr, String), Weak<Presence>>>,
    /// Held by who finds it out: two at once would take the ports that each other's sockets are to be told by.
    checking: tokio::sync::Mutex<()>,
}

/// A fresh socket, and where the other side will find it.
pub(super) struct Expected {
    pub(super) socket: Arc<dyn UdpSocket>,
    pub(super) at: SocketAddr,
}

/// For how long what was found out of a NAT is believed.
pub(super) const BELIEVED: Duration = Duration::from_secs(300);

/// For how long nobody is asked again after nobody has answered.
const NOT_ASKED_AGAIN: Duration = Duration::from_secs(10);

impl Host {
    pub(super) fn new(
        endpoint: &Endpoint,
        puncher: &Puncher,
        rpc: &PeerRpcClient,
        link: Option<Link>,
        config: ConnectConfig,
    ) -> Self {
        let rng = Mutex::new(endpoint.net().rng("connect"));
        let (endpoint, puncher, rpc) = (endpoint.clone(), puncher.clone(), rpc.clone());
        Self {
            endpoint,
            puncher,
            rpc,
            link,
            config,
            rng,
            known: Mutex::default(),
            presences: Mutex::default(),
            checking: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn net(&self) -> &Net {
        self.endpoint.net()
    }

    pub(super) fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().expect("no panic while locked")
    }

    /// The brokers' addresses, in the order given; names that nobody has are skipped.
    pub(super) async fn brokers(&self) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for broker in &self.config.brokers {
            match (broker, &self.link) {
                (BrokerAddress::At(address), _) => addresses.push(*address),
                (BrokerAddress::Name(name), Some(link)) => {
                    addresses.extend(link.lookup(name).await.unwrap_or_default().into_iter().take(MAX_ADDRESSES));
                }
                (BrokerAddress::Name(_), None) => {}
            }
        }
        addresses
    }

    /// What the NAT does: as was set, or as was found out within `max_age`, or found out now.
    pub(super) async fn behaviour(&self, brokers: &[SocketAddr], max_age: Duration) -> Behaviour {
        if let Some(nat) = self.config.nat {
            return nat;
        }
        let _checking = self.checking.lock().await;
        let known = *self.known.lock().expect("no panic while locked");
        if let Some((since, nat)) = known {
            let fresh = if nat.is_some() { max_age } else { max_age.min(NOT_ASKED_AGAIN) };
            if since.elapsed() < fresh {
                return nat.unwrap_or(Behaviour::UNKNOWN);
            }
        }
        let nat = nat::check(self.net(), brokers, self.config.check).await.ok().map(|report| report.behaviour);
        *self.known.lock().expect("no panic while locked") = Some((Instant::now(), nat));
        nat.unwrap_or(Behaviour::UNKNOWN)
    }

    /// This host as somebody who looks for `service` at a broker. All who do share it: for the broker they are one peer,
    /// and what it has for that peer it gives once.
    pub(super) fn presence(&self, broker: SocketAddr, service: &str) -> Arc<Presence> {
        let mut presences = self.presences.lock().expect("no panic while locked");
        presences.retain(|_, presence| presence.strong_count() > 0);
        let key = (broker, service.to_owned());
        if let Some(presence) = presences.get(&key).and_then(Weak::upgrade) {
            return presence;
        }
        let rendezvous = Rendezvous::new(&self.rpc, broker, service, false, Behaviour::UNKNOWN);
        let presence = Arc::new(Presence::start(self.net(), rendezvous));
        presences.insert(key, Arc::downgrade(&presence));
        presence
    }

    /// A fresh socket, whose port towards a peer is foretold from the one that the broker sees.
    pub(super) async fn expect(&self, own: Behaviour, broker: SocketAddr) -> io::Result<Expected> {
        // The generator is another one each time: it must not be locked while waiting.
        let mut rng = self.net().rng("connect socket");
        let sampled = nat::sample(self.net(), &mut rng, broker, self.config.check).await?;
        let (socket, seen) = sampled.ok_or(io::ErrorKind::TimedOut)?;
        let same = matches!(own.mapping, Mapping::NoNat | Mapping::EndpointIndependent);
        let at = match own.ports.step().filter(|_| !same) {
            Some(step) => SocketAddr::new(seen.ip(), nat::port_after(seen.port(), step, 1)),
            None => seen,
        };
        Ok(Expected { socket: socket.socket, at })
    }

    /// An endpoint over a socket that has a hole, and its puncher.
    pub(super) fn over(&self, socket: Arc<dyn UdpSocket>) -> io::Result<(Endpoint, Puncher)> {
        let endpoint = Endpoint::over(self.net(), socket, self.endpoint.config().clone())?;
        let puncher = Puncher::new(&endpoint);
        Ok((endpoint, puncher))
    }
}

/// Where to punch a peer that is expected at `at`: there, and at its next ports, unless each of them would get a mapping
/// of its own from this side's NAT.
pub(super) fn around(own: Behaviour, peer: Behaviour, at: SocketAddr) -> Vec<SocketAddr> {
    let one_mapping = !matches!(own.mapping, Mapping::AddressAndPortDependent | Mapping::Unknown);
    let step = peer.ports.step().filter(|_| one_mapping);
    let after =
        step.into_iter().flat_map(|step| (1..=PORTS_AFTER).map(move |nth| nat::port_after(at.port(), step, nth)));
    std::iter::once(at).chain(after.map(|port| SocketAddr::new(at.ip(), port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{Filtering, Ports};

    #[test]
    fn the_ports_after_are_punched_where_they_cost_no_mapping() {
        let nat = |mapping, ports| Behaviour { mapping, filtering: Filtering::Unknown, ports };
        let at = "198.51.100.1:65534".parse().unwrap();
        let ports = |own, peer| around(own, peer, at).iter().map(|at| at.port()).collect::<Vec<_>>();
        let contiguous = nat(Mapping::AddressAndPortDependent, Ports::Contiguous(1));
        assert_eq!(ports(nat(Mapping::EndpointIndependent, Ports::Random), contiguous), [65534, 65535, 1024, 1025]);
        assert_eq!(ports(contiguous, contiguous), [65534]);
        assert_eq!(ports(nat(Mapping::AddressDependent, Ports::Random), nat(Mapping::NoNat, Ports::Random)), [65534]);
    }
}
