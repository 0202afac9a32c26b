//! The rungs, and what theory says of each: no I/O.
//!
//! A path through two NATs is a pair of external ports, X of the caller's and Y of the peer's, such that what the caller
//! sends to Y leaves through X and what the peer sends to X leaves through Y. Once both have sent, every filtering lets
//! the pair pass. So the question is how each side learns the other's port, which NATs that map by destination make anew
//! for each other.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::nat::{Behaviour, Filtering, Mapping};

/// How a service is reached; each one costs more than those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Straight to its address.
    Direct,
    /// Both sides punch, at the addresses that the broker sees.
    Punch,
    /// Both sides use a fresh socket, and punch at the port that the other's NAT will give it.
    Predict,
    /// One side punches from many sockets, the other one at many random ports of its address, until two meet.
    ManyPorts,
    /// Through the broker.
    Relay,
}

impl Rung {
    /// All rungs, the cheapest first.
    pub const ALL: [Self; 5] = [Self::Direct, Self::Punch, Self::Predict, Self::ManyPorts, Self::Relay];
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Punch => "punch",
            Self::Predict => "predict",
            Self::ManyPorts => "many-ports",
            Self::Relay => "relay",
        })
    }
}

/// Who opens many sockets; the other one tries many ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Opener {
    Caller,
    Peer,
}

/// Why a rung cannot work between these two.
pub(crate) type Impossible = &'static str;

/// Whether a peer may be reached at the address that is known of it by whoever sends there.
pub(crate) fn direct(peer: Behaviour) -> Result<(), Impossible> {
    if peer.possibilities().any(is_direct) {
        Ok(())
    } else if peer.filtering != Filtering::EndpointIndependent {
        Err("the peer's NAT lets in only whom its host has sent to")
    } else {
        Err("the peer's NAT answers from another port than the one that it is reached at")
    }
}

/// Whether punches from the sockets that the broker sees can meet.
pub(crate) fn punch(caller: Behaviour, peer: Behaviour) -> Result<(), Impossible> {
    any_pair(caller, peer, |caller, peer| punches(caller, peer) || punches(peer, caller))
        .then_some(())
        .ok_or("neither side can know the port that the other one's punches come from")
}

/// Whether punches meet this peer whatever the caller's NAT does, so that the caller need not know.
pub(crate) fn punch_from_anywhere(peer: Behaviour) -> bool {
    let from_anywhere = |peer| Behaviour::UNKNOWN.possibilities().all(|caller| punch(caller, peer).is_ok());
    peer.possibilities().all(from_anywhere)
}

/// Whether fresh sockets can meet of which the next ports are predicted.
pub(crate) fn predict(caller: Behaviour, peer: Behaviour) -> Result<(), Impossible> {
    any_pair(caller, peer, |caller, peer| meets_predicted(caller, peer) || meets_predicted(peer, caller))
        .then_some(())
        .ok_or("a NAT's next port that would have to be known cannot be predicted")
}

/// Whether many sockets and many ports can meet, and whose sockets these should be.
pub(crate) fn many_ports(caller: Behaviour, peer: Behaviour) -> Result<Opener, Impossible> {
    if any_pair(caller, peer, |caller, peer| opens(peer, caller)) {
        Ok(Opener::Peer)
    } else if any_pair(caller, peer, opens) {
        Ok(Opener::Caller)
    } else {
        Err("both NATs map each destination anew and filter so that two random ports would have to be hit at once")
    }
}

fn any_pair(caller: Behaviour, peer: Behaviour, works: impl Fn(Behaviour, Behaviour) -> bool) -> bool {
    caller.possibilities().any(|caller| peer.possibilities().any(|peer| works(caller, peer)))
}

fn is_direct(peer: Behaviour) -> bool {
    one_port_for_all(peer) && peer.filtering == Filtering::EndpointIndependent
}

fn one_port_for_all(side: Behaviour) -> bool {
    matches!(side.mapping, Mapping::NoNat | Mapping::EndpointIndependent)
}

/// Whether it has one port towards the other side that is known beforehand: the same for all, or predicted.
fn one_port_known(side: Behaviour) -> bool {
    one_port_for_all(side) || (side.mapping == Mapping::AddressDependent && side.ports.step().is_some())
}

fn by_port(side: Behaviour) -> bool {
    side.mapping == Mapping::AddressAndPortDependent
}

fn filters_ports(side: Behaviour) -> bool {
    side.filtering == Filtering::AddressAndPortDependent
}

/// Whether `from`'s punch, at the mapping that `to` has towards the broker, begins a conversation.
fn punches(from: Behaviour, to: Behaviour) -> bool {
    let arrives = match to.filtering {
        Filtering::EndpointIndependent => true,
        // `to` has punched too; only the mapping that is for all shows it.
        Filtering::AddressDependent => one_port_for_all(to),
        _ => one_port_for_all(to) && one_port_for_all(from),
    };
    // `to` answers from another port, `from` turns to that one, from another port again where it maps by port.
    let settles = one_port_for_all(to)
        || (!filters_ports(from)
            && (!by_port(from) || (!filters_ports(to) && to.mapping == Mapping::AddressDependent)));
    arrives && settles
}

/// Whether fresh sockets meet, of which `a` is the one whose port is easier to know.
fn meets_predicted(a: Behaviour, b: Behaviour) -> bool {
    let (a_next, b_next) = (a.ports.step().is_some(), b.ports.step().is_some());
    if one_port_known(a) {
        // `b` reaches `a` and is seen, or is expected at its port.
        return one_port_known(b) || b_next || !filters_ports(a);
    }
    // Both map by port: each expects the other's very next one. Or only `a` does and its next two are expected by `b`,
    // which has one port for both.
    by_port(a) && a_next && ((by_port(b) && b_next) || (b.mapping == Mapping::AddressDependent && !filters_ports(a)))
}

/// Whether `opener`'s many sockets are hit by `prober`, and what follows settles.
fn opens(opener: Behaviour, prober: Behaviour) -> bool {
    if one_port_for_all(opener) {
        return false;
    }
    let hit = one_port_known(prober) || !filters_ports(opener);
    let settles = one_port_known(prober)
        || opener.mapping == Mapping::AddressDependent
        || (prober.mapping == Mapping::AddressDependent && !filters_ports(prober));
    hit && settles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::Ports;

    fn nat(mapping: Mapping, filtering: Filtering, ports: Ports) -> Behaviour {
        Behaviour { mapping, filtering, ports }
    }

    const SYMMETRIC: Behaviour = Behaviour {
        mapping: Mapping::AddressAndPortDependent,
        filtering: Filtering::AddressAndPortDependent,
        ports: Ports::Random,
    };
    const PORT_RESTRICTED: Behaviour = Behaviour {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
        ports: Ports::Random,
    };

    #[test]
    fn well_known_pairs() {
        assert!(direct(Behaviour::OPEN).is_ok() && direct(PORT_RESTRICTED).is_err());
        assert!(punch(PORT_RESTRICTED, PORT_RESTRICTED).is_ok());
        assert!(punch(PORT_RESTRICTED, SYMMETRIC).is_err() && predict(PORT_RESTRICTED, SYMMETRIC).is_err());
        assert_eq!(many_ports(PORT_RESTRICTED, SYMMETRIC), Ok(Opener::Peer));
        assert_eq!(many_ports(SYMMETRIC, PORT_RESTRICTED), Ok(Opener::Caller));
        assert!(many_ports(SYMMETRIC, SYMMETRIC).is_err() && predict(SYMMETRIC, SYMMETRIC).is_err());
        assert!([PORT_RESTRICTED, SYMMETRIC, Behaviour::UNKNOWN].into_iter().all(|peer| !punch_from_anywhere(peer)));
        let contiguous = Behaviour { ports: Ports::Contiguous(1), ..SYMMETRIC };
        assert!(predict(contiguous, contiguous).is_ok() && predict(contiguous, SYMMETRIC).is_err());
    }

    #[test]
    fn what_is_unknown_is_tried_and_every_rung_says_the_same_from_both_sides() {
        let all = || Behaviour::UNKNOWN.possibilities();
        assert!(direct(Behaviour::UNKNOWN).is_ok() && punch(Behaviour::UNKNOWN, SYMMETRIC).is_ok());
        for a in all() {
            for b in all() {
                assert_eq!(punch(a, b).is_ok(), punch(b, a).is_ok(), "{a}; {b}");
                assert_eq!(predict(a, b).is_ok(), predict(b, a).is_ok(), "{a}; {b}");
                assert_eq!(many_ports(a, b).is_ok(), many_ports(b, a).is_ok(), "{a}; {b}");
            }
        }
    }

    #[test]
    fn where_one_side_has_a_port_for_all_and_lets_its_peer_in_a_punch_is_enough() {
        for filtering in [Filtering::EndpointIndependent, Filtering::AddressDependent] {
            let cone = nat(Mapping::EndpointIndependent, filtering, Ports::Random);
            for peer in Behaviour::UNKNOWN.possibilities() {
                assert!(punch(cone, peer).is_ok(), "{peer}");
            }
            assert!(punch_from_anywhere(cone));
        }
    }
}
