//! What two NATs allow, worked out from RFC 4787 without a simulator: there are no packets, clocks or links in here, only
//! which external port a destination gets, and whom it lets in.
//!
//! The exchange is that of two peers that a broker introduces plainly, as [`BrokerClient`](grenache::broker::BrokerClient)
//! does it. Ports are numbers from the one on that the broker sees, 0.
//!
//! - **Mapping** (RFC 4787, 4.1). Endpoint-independent: towards everybody a socket has the port 0, so the broker's
//!   introduction is right. Address-dependent: towards the peer's NAT it has another one, the same for all of that NAT's
//!   ports. Address-and-port-dependent: towards each port of the peer another one.
//! - **Port assignment** (4.2.1). A NAT that preserves ports, or counts on, gives the next free one: 1, then 2, …; these
//!   the peer punches too, [`PREDICTED_PORTS`] of them. Random ones are nowhere near.
//! - **Filtering** (5). A mapping lets in everybody; or whoever has an address that was sent to through it; or only the
//!   very endpoint that was.
//!
//! A peer's punch that comes from another port than the one that was punched gets through only to filtering that does not
//! look at ports. A connection needs more than a punch that arrives: what one side sends to the port it heard from has
//! to come out of the port from which the other side answers, both let in. The client asks whom it heard first, and
//! with what time it has whom it heard second; those that came later come too late.

use std::collections::{BTreeMap, BTreeSet};

use grenache::broker::PREDICTED_PORTS;

use crate::scenario::model::Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
use crate::scenario::model::{Dependence, PortAssignment};

/// A NAT, as far as punching goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// What the external port depends on.
    pub mapping: Dependence,
    /// Whom it lets in.
    pub filtering: Dependence,
    /// Which external port it takes.
    pub ports: PortAssignment,
}

/// What two NATs allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theory {
    /// Whether the client is punched by the worker.
    pub client_punched: bool,
    /// Whether the worker is punched by the client.
    pub worker_punched: bool,
    /// The worker's port that answers the client's requests; `None` where none does.
    pub reached_at: Option<u32>,
}

impl Theory {
    /// Why, in a sentence.
    pub fn why(&self, client: Kind, worker: Kind) -> String {
        match (self.reached_at, self.client_punched) {
            (Some(0), _) => "the worker is reached at the port that the broker sees".to_owned(),
            (Some(port), _) if port < FIRST_RANDOM => {
                format!("the worker is reached at the port {port} after the one that the broker sees, which it punches from")
            }
            (Some(_), _) => "the worker is reached at the random port that it punches from".to_owned(),
            (None, false) if client.filtering == AddressAndPortDependent => {
                "no punch gets to the client: they come from ports that it has not sent to".to_owned()
            }
            (None, false) => "no punch gets to the client: they go to ports that it does not have".to_owned(),
            (None, true) if worker.mapping != EndpointIndependent && client.mapping != EndpointIndependent => {
                "punches get to the client, but both sides map by destination: answers come from ports that were not asked".to_owned()
            }
            (None, true) => "punches get to the client, but what it sends back is not let in".to_owned(),
        }
    }
}

/// Where random ports begin: nobody guesses them.
const FIRST_RANDOM: u32 = 1_000_000;

/// How often both sides punch, every two seconds, while the client has time.
const ROUNDS: usize = 6;

/// How many of these it takes until the client gives up whom it heard first.
const PATIENCE: usize = 3;

/// A side of the exchange. Its peer's ports are numbers, as its own are.
struct Side {
    kind: Kind,
    /// External ports by what they are for: the broker, the peer, or one of the peer's ports.
    mappings: BTreeMap<Remote, u32>,
    /// The peer's ports that were sent to through an external port.
    sent: BTreeMap<u32, BTreeSet<u32>>,
    next: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Remote {
    /// Where nothing depends on the destination.
    All,
    Broker,
    Peer,
    Port(u32),
}

impl Side {
    fn new(kind: Kind) -> Self {
        let towards_broker = if kind.mapping == EndpointIndependent { Remote::All } else { Remote::Broker };
        let predictable = matches!(kind.ports, PortAssignment::Preserving | PortAssignment::Contiguous);
        let next = if predictable { 1 } else { FIRST_RANDOM };
        Self { kind, mappings: BTreeMap::from([(towards_broker, 0)]), sent: BTreeMap::new(), next }
    }

    /// Sends to one of the peer's ports; gives the external port it comes from.
    fn send(&mut self, to: u32) -> u32 {
        let remote = match self.kind.mapping {
            EndpointIndependent => Remote::All,
            AddressDependent => Remote::Peer,
            AddressAndPortDependent => Remote::Port(to),
        };
        let from = *self.mappings.entry(remote).or_insert_with(|| {
            self.next += 1;
            self.next - 1
        });
        self.sent.entry(from).or_default().insert(to);
        from
    }

    /// Whether what the peer sends from one of its ports gets in.
    fn lets_in(&self, at: u32, from: u32) -> bool {
        self.mappings.values().any(|port| *port == at)
            && match self.kind.filtering {
                EndpointIndependent => true,
                AddressDependent => self.sent.contains_key(&at),
                AddressAndPortDependent => self.sent.get(&at).is_some_and(|sent| sent.contains(&from)),
            }
    }

    /// Punches where the broker says, and the predicted ports after it: each with the port it comes from.
    fn punch(&mut self) -> Vec<(u32, u32)> {
        (0..=u32::from(PREDICTED_PORTS)).map(|to| (to, self.send(to))).collect()
    }
}

/// Whether a request from the client to a port of the worker is answered.
fn answers(client: &mut Side, worker: &mut Side, to: u32) -> bool {
    let from = client.send(to);
    worker.lets_in(to, from) && worker.send(from) == to && client.lets_in(from, to)
}

/// What a client and a worker behind these NATs come to, that start at the same time.
pub fn theory(client: Kind, worker: Kind) -> Theory {
    let (mut client, mut worker) = (Side::new(client), Side::new(worker));
    let mut heard = Vec::new();
    let mut theory = Theory { client_punched: false, worker_punched: false, reached_at: None };
    // The client is the first that the broker knows: only the worker is told of somebody, and punches alone.
    let early = worker.punch();
    heard.extend(early.into_iter().filter(|(to, from)| client.lets_in(*to, *from)).map(|(_, from)| from));
    let mut asked = heard.first().copied();
    for round in 0..=ROUNDS {
        if theory.reached_at.is_none()
            && let Some(to) = asked
            && answers(&mut client, &mut worker, to)
        {
            theory.reached_at = Some(to);
        }
        // Both punch at once, and their punches cross.
        let (to_client, to_worker) = (worker.punch(), client.punch());
        heard.extend(to_client.into_iter().filter(|(to, from)| client.lets_in(*to, *from)).map(|(_, from)| from));
        for (to, from) in to_worker {
            if worker.lets_in(to, from) {
                theory.worker_punched = true;
                // The worker punches back, to where the punch came from.
                let back = worker.send(from);
                if client.lets_in(from, back) {
                    heard.push(back);
                }
            }
        }
        asked = if round < PATIENCE { heard.first() } else { heard.get(1) }.copied();
    }
    theory.client_punched = !heard.is_empty();
    theory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(mapping: Dependence, filtering: Dependence, ports: PortAssignment) -> Kind {
        Kind { mapping, filtering, ports }
    }

    fn reached(client: Kind, worker: Kind) -> bool {
        theory(client, worker).reached_at.is_some()
    }

    #[test]
    fn the_well_known_pairs_are_as_is_well_known() {
        for ports in [PortAssignment::Preserving, PortAssignment::Contiguous, PortAssignment::Random] {
            let full_cone = kind(EndpointIndependent, EndpointIndependent, ports);
            let port_restricted = kind(EndpointIndependent, AddressAndPortDependent, ports);
            let symmetric = kind(AddressAndPortDependent, AddressAndPortDependent, ports);
            assert!(reached(full_cone, full_cone));
            assert!(reached(port_restricted, port_restricted));
            assert!(reached(symmetric, full_cone));
            assert!(!reached(symmetric, symmetric), "{ports:?}");
            // The one port that a port-restricted NAT has to let in can be predicted, or not.
            assert_eq!(reached(port_restricted, symmetric), ports != PortAssignment::Random);
            assert_eq!(reached(symmetric, port_restricted), ports != PortAssignment::Random);
        }
    }

    #[test]
    fn reasons_are_told() {
        let port_restricted = kind(EndpointIndependent, AddressAndPortDependent, PortAssignment::Preserving);
        let symmetric = kind(AddressAndPortDependent, AddressAndPortDependent, PortAssignment::Preserving);
        let why = |client, worker| theory(client, worker).why(client, worker);
        assert!(why(port_restricted, port_restricted).contains("that the broker sees"));
        assert!(why(port_restricted, symmetric).contains("the port 1 after"));
        let random = kind(AddressAndPortDependent, AddressAndPortDependent, PortAssignment::Random);
        assert!(why(port_restricted, random).contains("ports that it has not sent to"));
    }
}
