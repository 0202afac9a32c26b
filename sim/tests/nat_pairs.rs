//! Two peers behind NATs, introduced by a broker: every pair of NATs connects of which at most one maps by destination.
//!
//! The NATs preserve ports. Of two that map by destination neither side can know where the other will come from; where
//! one of them does and the other filters by port, the next port has to be guessed, which random ports prevent.

use std::path::Path;
use std::time::Duration;

use grenache_sim::backend::{self, On, RunOptions};
use grenache_sim::report::Verdict;
use grenache_sim::scenario::model::{Dependence, ExpectationKind, PortAssignment, Scenario};
use grenache_sim::scenario::{self};

const KINDS: [Dependence; 3] =
    [Dependence::EndpointIndependent, Dependence::AddressDependent, Dependence::AddressAndPortDependent];

/// A NAT by its (mapping, filtering).
type Nat = (Dependence, Dependence);

fn nats() -> impl Iterator<Item = Nat> + Clone {
    KINDS.into_iter().flat_map(|mapping| KINDS.into_iter().map(move |filtering| (mapping, filtering)))
}

fn shipped() -> Scenario {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/broker-both-nat.toml");
    let mut scenario = scenario::load(&file).expect("the shipped scenario is right");
    scenario.expectations.retain(|expectation| matches!(expectation.kind, ExpectationKind::Reply { .. }));
    assert_eq!(scenario.expectations.len(), 1);
    scenario
}

/// Whether the client gets its reply, with these NATs, and when.
fn connects(client: Nat, worker: Nat, ports: PortAssignment, seed: u64) -> Option<Duration> {
    let mut scenario = shipped();
    for (node, (mapping, filtering)) in [("phone", client), ("laptop", worker)] {
        let name = scenario.nodes[node].behind.clone().expect("both are behind NATs");
        let nat = scenario.nats.get_mut(&name).expect("a NAT that is defined");
        (nat.mapping, nat.filtering, nat.ports) = (mapping, filtering, ports);
    }
    let outcome = backend::run(&scenario, &RunOptions { seed, on: On::Sim }, |_| {}).expect("it runs");
    (outcome.verdict == Verdict::Passed).then_some(outcome.simulated)
}

/// Whether a pair, one of which maps for all destinations, connects when no port can be guessed: one punches the other.
fn needs_no_guess(a: Nat, b: Nat) -> bool {
    let punches = |from: Nat, to: Nat| {
        let (from_known, to_known) = (from.0 == KINDS[0], to.0 == KINDS[0]);
        // The punch comes from a port that `to` may not know, to the mapping that `to` made for the broker.
        let arrives = match to.1 {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => to_known,
            Dependence::AddressAndPortDependent => to_known && from_known,
        };
        // The answer comes from a port that `from` may not have sent to.
        arrives && (to_known || from.1 != Dependence::AddressAndPortDependent)
    };
    punches(a, b) || punches(b, a)
}

#[test]
fn every_pair_connects_unless_both_map_by_destination() {
    let mut failed = Vec::new();
    for client in nats() {
        for worker in nats() {
            let possible = [client.0, worker.0].contains(&Dependence::EndpointIndependent);
            for seed in if possible { 0..5 } else { 0..0 } {
                if connects(client, worker, PortAssignment::Preserving, seed).is_none() {
                    failed.push(format!("client {client:?}, worker {worker:?}, seed {seed}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} did not connect:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn with_random_ports_those_pairs_connect_that_need_no_guess() {
    let mut wrong = Vec::new();
    for client in nats() {
        for worker in nats().filter(|worker| [client.0, worker.0].contains(&Dependence::EndpointIndependent)) {
            let connected = connects(client, worker, PortAssignment::Random, 1).is_some();
            if connected != needs_no_guess(client, worker) {
                wrong.push(format!("client {client:?}, worker {worker:?}: connected is {connected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are not as theory has it:\n{}", wrong.len(), wrong.join("\n"));
}
