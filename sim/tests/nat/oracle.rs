//! What theory allows between two NATs: the exchange of punches, worked out with ports that are only numbers.
//!
//! A side's port 0 is the one that the broker sees; 1, 2, … are those that its NAT then gives out, in that order. A side
//! whose ports can be predicted is punched at these by who needs to; one with random ports only where it was heard from.

use std::collections::{BTreeMap, BTreeSet};

use grenache::connect::Rung;
use grenache_sim::scenario::model::Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
use grenache_sim::scenario::model::PortAssignment;

use crate::peers::Kind;

type Port = u32;

/// Rounds of punches: whatever settles does so in four.
const ROUNDS: usize = 8;

/// How many ports after the predicted one are punched too.
const AFTER: u32 = 3;

/// Ports that nobody has.
const MISSES: Port = 1000;

#[derive(Clone)]
struct Side {
    kind: Kind,
    predictable: bool,
    /// External ports by the peer's port that they are for.
    ports: BTreeMap<Option<Port>, Port>,
    /// The peer's ports that were sent to from each.
    sent: BTreeMap<Port, BTreeSet<Port>>,
    /// The peer's ports to punch.
    targets: Vec<Port>,
}

impl Side {
    fn new(kind: Kind, ports: PortAssignment) -> Self {
        let predictable = ports != PortAssignment::Random;
        Self { kind, predictable, ports: BTreeMap::new(), sent: BTreeMap::new(), targets: Vec::new() }
    }

    /// The external port towards one of the peer's.
    fn port_to(&mut self, remote: Port) -> Port {
        let key = match self.kind.0 {
            EndpointIndependent => return 0,
            AddressDependent => None,
            AddressAndPortDependent => Some(remote),
        };
        let next = self.ports.len() as Port + 1;
        *self.ports.entry(key).or_insert(next)
    }

    fn send(&mut self, to: Port) -> Port {
        let from = self.port_to(to);
        self.sent.entry(from).or_default().insert(to);
        from
    }

    fn lets_in(&self, at: Port, from: Port) -> bool {
        let exists = at == 0 || self.ports.values().any(|port| *port == at);
        exists
            && match self.kind.1 {
                EndpointIndependent => true,
                AddressDependent => self.sent.contains_key(&at),
                AddressAndPortDependent => self.sent.get(&at).is_some_and(|sent| sent.contains(&from)),
            }
    }

    /// Where a fresh socket of this side will be towards the peer, as far as can be told.
    fn expected(&self) -> Port {
        Port::from(self.kind.0 != EndpointIndependent && self.predictable)
    }

    /// Where to punch a peer that is expected somewhere.
    fn around(&self, peer: &Self) -> Vec<Port> {
        let at = peer.expected();
        let after = if self.kind.0 != AddressAndPortDependent && at > 0 { AFTER } else { 0 };
        (at..=at + after).collect()
    }
}

/// Whether two sides that punch their targets, and whoever punches them, end up with a path.
fn meet(mut a: Side, mut b: Side) -> bool {
    for _ in 0..ROUNDS {
        for _ in 0..2 {
            for to in a.targets.clone() {
                let from = a.send(to);
                if b.lets_in(to, from) && !b.targets.contains(&from) {
                    b.targets.push(from);
                }
            }
            std::mem::swap(&mut a, &mut b);
        }
        let path = a.targets.clone().into_iter().any(|to| {
            let from = a.port_to(to);
            b.targets.contains(&from) && b.port_to(from) == to
        });
        if path {
            return true;
        }
    }
    false
}

/// The lowest rung that can work.
pub(crate) fn lowest_rung(client: Kind, worker: Kind, ports: [PortAssignment; 2]) -> Rung {
    let sides = || (Side::new(client, ports[0]), Side::new(worker, ports[1]));
    if worker == (EndpointIndependent, EndpointIndependent) {
        return Rung::Direct;
    }
    let (mut a, mut b) = sides();
    (a.targets, b.targets) = (vec![0], vec![0]);
    if meet(a, b) {
        return Rung::Punch;
    }
    let (mut a, mut b) = sides();
    (a.targets, b.targets) = (a.around(&b), b.around(&a));
    if meet(a, b) {
        return Rung::Predict;
    }
    // One of the opener's many sockets is where the prober guesses it.
    let guessed = |mut opener: Side, mut prober: Side| {
        opener.targets = vec![prober.expected()];
        let hole = opener.send(prober.expected());
        // It is found after many misses, each of which takes a port where the prober maps by port.
        for miss in 0..AFTER {
            prober.send(MISSES + miss);
        }
        prober.targets = vec![hole];
        meet(opener, prober)
    };
    let (a, b) = sides();
    if guessed(b.clone(), a.clone()) || guessed(a, b) {
        return Rung::ManyPorts;
    }
    Rung::Relay
}

#[test]
fn theory_knows_the_well_known_pairs() {
    let port_restricted = (EndpointIndependent, AddressAndPortDependent);
    let symmetric = (AddressAndPortDependent, AddressAndPortDependent);
    let random = [PortAssignment::Random; 2];
    let preserving = [PortAssignment::Preserving; 2];
    assert_eq!(lowest_rung(symmetric, (EndpointIndependent, EndpointIndependent), random), Rung::Direct);
    assert_eq!(lowest_rung(port_restricted, port_restricted, random), Rung::Punch);
    assert_eq!(lowest_rung(port_restricted, symmetric, preserving), Rung::Predict);
    assert_eq!(lowest_rung(port_restricted, symmetric, random), Rung::ManyPorts);
    assert_eq!(lowest_rung(symmetric, symmetric, preserving), Rung::Predict);
    assert_eq!(lowest_rung(symmetric, symmetric, random), Rung::Relay);
}
