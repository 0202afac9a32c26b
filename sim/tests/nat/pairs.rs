//! All pairs of NATs: each connects by the lowest rung that theory allows, and none stays unconnected.

use std::collections::BTreeMap;
use std::time::Duration;

use grenache::broker::RelayConfig;
use grenache::connect::Rung;
use grenache_sim::engine::World;
use grenache_sim::scenario::model::{Dependence, PortAssignment};
use serde_json::json;
use tokio::time::sleep;

use crate::oracle::lowest_rung;
use crate::peers::{Kind, PORTS, SERVICE, broker, config, connector, homes, kinds, worker};

const SEEDS: u64 = 20;

/// How long everybody has to start; then the client connects.
const START: Duration = Duration::from_secs(4);

/// How the client reaches the worker, and how long that takes; it knows its own NAT.
fn connect(client: Kind, service: Kind, ports: [PortAssignment; 2], seed: u64) -> (Rung, Duration) {
    let main = async |world: World| {
        let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        let connector = connector(&world, "phone", config());
        connector.nat().await;
        sleep(START.saturating_sub(world.now())).await;
        let connection = connector.connect(SERVICE).await.unwrap_or_else(|e| panic!("{e}"));
        let took = world.now() - START;
        assert_eq!(connection.request(&json!("through")).await, Ok(json!("through")), "{}", connection.report());
        (connection.rung(), took)
    };
    homes(client, service, ports, seed).sim().run(Duration::from_secs(120), main).expect("the run ends in time")
}

fn name((mapping, filtering): Kind) -> String {
    let short = |dependence| match dependence {
        Dependence::EndpointIndependent => "ei",
        Dependence::AddressDependent => "ad",
        Dependence::AddressAndPortDependent => "apd",
    };
    format!("{}/{}", short(mapping), short(filtering))
}

/// A table of all pairs: the rung that each seed took, and the median and 95th percentile of the times in ms.
///
/// Rows are the client's mapping/filtering, columns the worker's.
fn table(ports: [PortAssignment; 2], seeds: u64) -> String {
    let mut lines = vec![format!("{:8}", "")];
    lines[0].extend(kinds().map(|kind| format!("{:<23}", name(kind))));
    for client in kinds() {
        let mut line = format!("{:8}", name(client));
        for service in kinds() {
            let mut rungs: BTreeMap<Rung, u64> = BTreeMap::new();
            let mut times = Vec::new();
            for seed in 0..seeds {
                let (rung, took) = connect(client, service, ports, seed);
                *rungs.entry(rung).or_default() += 1;
                times.push(took.as_millis());
            }
            let theory = lowest_rung(client, service, ports);
            let as_theory = rungs.get(&theory).copied().unwrap_or(0);
            assert_eq!(as_theory, seeds, "{} to {}, {ports:?}: {rungs:?}, not {theory}", name(client), name(service));
            times.sort_unstable();
            let rank = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
            line += &format!("{:<23}", format!("{theory} {} {}", rank(50), rank(95)));
        }
        lines.push(line);
    }
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn all_pairs_with_preserved_ports() {
    insta::assert_snapshot!(table([PortAssignment::Preserving; 2], SEEDS));
}

#[test]
fn all_pairs_with_contiguous_ports() {
    insta::assert_snapshot!(table([PortAssignment::Contiguous; 2], SEEDS));
}

#[test]
fn all_pairs_with_random_ports() {
    insta::assert_snapshot!(table([PortAssignment::Random; 2], SEEDS));
}

/// The six pairs of port assignments that are not alike.
fn unlike(client: PortAssignment) {
    for service in PORTS.into_iter().filter(|service| *service != client) {
        table([client, service], 3);
    }
}

#[test]
fn all_pairs_with_preserved_ports_against_others() {
    unlike(PortAssignment::Preserving);
}

#[test]
fn all_pairs_with_contiguous_ports_against_others() {
    unlike(PortAssignment::Contiguous);
}

#[test]
fn all_pairs_with_random_ports_against_others() {
    unlike(PortAssignment::Random);
}
