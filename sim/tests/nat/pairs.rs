//! All pairs of NATs: each connects by the lowest rung that theory allows, and none stays unconnected.

use std::collections::BTreeMap;
use std::time::Duration;

use grenache::broker::RelayConfig;
use grenache::connect::Rung;
use grenache_sim::engine::World;
use grenache_sim::scenario::model::{Dependence, PortAssignment};
use serde_json::json;
use tokio::time::sleep;

use crate::lab::ms;
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

/// The same over links that lose packets; `None` where it is not reached.
fn connect_lossy(client: Kind, service: Kind, seed: u64) -> Option<Rung> {
    let main = async |world: World| {
        let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        let connector = connector(&world, "phone", config());
        sleep(START).await;
        let connection = connector.connect(SERVICE).await.ok()?;
        assert_eq!(connection.request(&json!("through")).await, Ok(json!("through")), "{}", connection.report());
        Some(connection.rung())
    };
    let lab = homes(client, service, [PortAssignment::Random; 2], seed);
    let lab = lab.link(&["cafe", "home"], ms(40), |link| (link.jitter, link.loss) = (ms(10), 0.05));
    lab.sim().run(Duration::from_secs(240), main).expect("the run ends in time")
}

fn name((mapping, filtering): Kind) -> String {
    let short = |dependence| match dependence {
        Dependence::EndpointIndependent => "ei",
        Dependence::AddressDependent => "ad",
        Dependence::AddressAndPortDependent => "apd",
    };
    format!("{}/{}", short(mapping), short(filtering))
}

/// What a time is told as: at most so many ms. A few ms more or less are no news, and these lie far from what is usual.
const CLASSES_MS: [u128; 7] = [160, 400, 700, 1000, 2000, 5000, 120_000];

fn class(ms: u128) -> u128 {
    CLASSES_MS.into_iter().find(|class| ms <= *class).expect("no run takes longer")
}

/// A table of all pairs: the rung that each seed took, and how many ms the median and the 95th percentile of the times are
/// at most. The exact ones go to stderr.
///
/// Rows are the client's mapping/filtering, columns the worker's.
fn table(ports: [PortAssignment; 2]) -> String {
    let mut lines = vec![format!("{:8}", "")];
    lines[0].extend(kinds().map(|kind| format!("{:<23}", name(kind))));
    let mut exact = lines.clone();
    for client in kinds() {
        let mut line = format!("{:8}", name(client));
        let mut exact_line = line.clone();
        for service in kinds() {
            let mut rungs: BTreeMap<Rung, u64> = BTreeMap::new();
            let mut times = Vec::new();
            for seed in 0..SEEDS {
                let (rung, took) = connect(client, service, ports, seed);
                *rungs.entry(rung).or_default() += 1;
                times.push(took.as_millis());
            }
            let theory = lowest_rung(client, service, ports);
            let as_theory = rungs.get(&theory).copied().unwrap_or(0);
            assert_eq!(as_theory, SEEDS, "{} to {}, {ports:?}: {rungs:?}, not {theory}", name(client), name(service));
            times.sort_unstable();
            let rank = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
            line += &format!("{:<23}", format!("{theory} {} {}", class(rank(50)), class(rank(95))));
            exact_line += &format!("{:<23}", format!("{theory} {} {}", rank(50), rank(95)));
        }
        lines.push(line);
        exact.push(exact_line);
    }
    eprintln!("{ports:?}, in ms:\n{}", exact.join("\n"));
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn all_pairs_with_preserved_ports() {
    insta::assert_snapshot!(table([PortAssignment::Preserving; 2]));
}

#[test]
fn all_pairs_with_contiguous_ports() {
    insta::assert_snapshot!(table([PortAssignment::Contiguous; 2]));
}

#[test]
fn all_pairs_with_random_ports() {
    insta::assert_snapshot!(table([PortAssignment::Random; 2]));
}

#[test]
fn with_five_percent_loss_no_pair_stays_unconnected() {
    let mut lower = 0;
    let mut all = 0;
    for client in kinds() {
        for service in kinds() {
            for seed in 0..2 {
                let rung = connect_lossy(client, service, seed);
                let rung = rung.unwrap_or_else(|| panic!("{} to {}, seed {seed}", name(client), name(service)));
                all += 1;
                lower += u32::from(rung <= lowest_rung(client, service, [PortAssignment::Random; 2]));
            }
        }
    }
    assert!(lower * 100 >= all * 90, "{lower} of {all} by the lowest rung that theory allows");
}

/// The client's NAT assigns ports in this way, and the worker's in each of the others.
fn unlike(client: PortAssignment) -> String {
    let others = PORTS.into_iter().filter(|service| *service != client);
    others.map(|service| format!("{client:?} to {service:?}\n{}", table([client, service]))).collect()
}

#[test]
fn all_pairs_with_preserved_ports_against_others() {
    insta::assert_snapshot!(unlike(PortAssignment::Preserving));
}

#[test]
fn all_pairs_with_contiguous_ports_against_others() {
    insta::assert_snapshot!(unlike(PortAssignment::Contiguous));
}

#[test]
fn all_pairs_with_random_ports_against_others() {
    insta::assert_snapshot!(unlike(PortAssignment::Random));
}
