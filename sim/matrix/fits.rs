//! Which scenarios the oracle speaks of, and what it says of one.

use std::time::Duration;

use super::oracle::{Kind, Theory, theory};
use crate::scenario::Scenario;
use crate::scenario::model::{Dependence, Each, ExpectationKind, Name, Nat, PortAssignment, ProgramKind, Reach, Times};

/// A NAT that forgets its mappings sooner than this may do so between two punches.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the oracle says of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// Whether every expectation can be met.
    pub passes: bool,
    /// Why, in a sentence.
    pub why: String,
    /// Whether nothing gets lost by chance: then every seed does the same.
    pub certain: bool,
}

/// What the oracle says: it knows one client and one worker behind a NAT each, that a broker on the internet introduces
/// plainly, and expectations of their punches and replies.
///
/// # Errors
/// Why it does not know this one, in words.
pub fn fit(scenario: &Scenario) -> Result<Fit, String> {
    let (mut clients, mut workers) = (Vec::new(), Vec::new());
    for program in &scenario.programs {
        match &program.kind {
            ProgramKind::Client(client) if matches!(client.reach, Reach::Broker { .. }) => clients.push(program),
            ProgramKind::Worker(worker) if worker.broker.is_some() && !worker.connect => workers.push(program),
            ProgramKind::Client(_) | ProgramKind::Worker(_) => {
                return Err("a client or worker is not one that a broker introduces plainly".to_owned());
            }
            ProgramKind::Broker { .. } if scenario.nodes[&program.node].behind.is_some() => {
                return Err("the broker is behind a NAT".to_owned());
            }
            _ => {}
        }
    }
    let ([client], [worker]) = (clients.as_slice(), workers.as_slice()) else {
        return Err(format!("there are {} clients and {} workers, not one of each", clients.len(), workers.len()));
    };
    if client.start != worker.start {
        return Err("client and worker do not start at the same time".to_owned());
    }
    let (client_name, client_nat) = nat_of(scenario, &client.node)?;
    let (worker_name, worker_nat) = nat_of(scenario, &worker.node)?;
    if client_name == worker_name {
        return Err("client and worker are behind the same NAT".to_owned());
    }
    let depends = |nat: &Nat| nat.mapping != Dependence::EndpointIndependent;
    if !scenario.links.is_empty() && depends(client_nat) && depends(worker_nat) {
        return Err("both map by destination, so that it depends on the links which punches are heard first".to_owned());
    }
    let kind = |nat: &Nat| Kind { mapping: nat.mapping, filtering: nat.filtering, ports: nat.ports };
    let (client_kind, worker_kind) = (kind(client_nat), kind(worker_nat));
    let theory = theory(client_kind, worker_kind);
    let passes = scenario
        .expectations
        .iter()
        .map(|expectation| can_be_met(&expectation.kind, theory, &client.node, &worker.node))
        .collect::<Option<Vec<bool>>>()
        .ok_or("an expectation is neither of a punch nor of a reply between the two")?
        .into_iter()
        .all(|met| met);
    let chance = scenario.links.values().any(|link| link.loss > 0.0 || !link.jitter.is_zero() || link.rate.is_some());
    let certain = scenario.faults.is_empty() && !chance;
    let mut why = theory.why(client_kind, worker_kind);
    if !passes && theory.reached_at.is_some() {
        why.push_str(", but one of the two is never punched");
    }
    Ok(Fit { passes, why, certain })
}

/// The NAT that a node is behind.
fn nat_of<'a>(scenario: &'a Scenario, node: &Name) -> Result<(&'a Name, &'a Nat), String> {
    let behind = scenario.nodes.get(node).and_then(|node| node.behind.as_ref());
    let (name, nat) = behind
        .and_then(|name| scenario.nats.get_key_value(name))
        .ok_or_else(|| format!("{node} is not behind a NAT"))?;
    if nat.behind.is_some() {
        return Err(format!("{node} is behind two NATs"));
    }
    if nat.udp_timeout < SHORTEST_TIMEOUT {
        return Err(format!("{name} forgets its mappings after {:?}", nat.udp_timeout));
    }
    if ![PortAssignment::Preserving, PortAssignment::Contiguous, PortAssignment::Random].contains(&nat.ports) {
        return Err(format!("{name} assigns ports in a way that theory does not know"));
    }
    let plain = Nat {
        address: nat.address,
        lan: nat.lan,
        link: nat.link.clone(),
        mapping: nat.mapping,
        filtering: nat.filtering,
        ports: nat.ports,
        udp_timeout: nat.udp_timeout,
        hairpinning: nat.hairpinning,
        ..Nat::default()
    };
    if *nat != plain {
        return Err(format!("{name} does more than map, filter and assign ports"));
    }
    Ok((name, nat))
}

/// Whether an expectation can be met; `None` where the oracle does not know.
fn can_be_met(kind: &ExpectationKind, theory: Theory, client: &Name, worker: &Name) -> Option<bool> {
    let is = |each: &Each, name: &Name| each.names == [name.clone()];
    let only = |names: &[Name], name: &Name| names.iter().all(|other| other == name);
    match kind {
        ExpectationKind::Reply { from, to, path: None, count: Times::ONCE, .. }
            if is(to, client) && only(from, worker) =>
        {
            Some(theory.reached_at.is_some())
        }
        ExpectationKind::Punched { at, by, count: Times::ONCE } if is(at, client) && only(by, worker) => {
            Some(theory.client_punched)
        }
        ExpectationKind::Punched { at, by, count: Times::ONCE } if is(at, worker) && only(by, client) => {
            Some(theory.worker_punched)
        }
        _ => None,
    }
}
