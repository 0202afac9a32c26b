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

/// How the client reaches the worker, and how long that takes: knowing its own NAT, or from a cold start, in which it
/// finds that out too.
fn connect(client: Kind, service: Kind, ports: [PortAssignment; 2], seed: u64, cold: bool) -> (Rung, Duration) {
    let main = async |world: World| {
        let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        let connector = connector(&world, "phone", config());
        if !cold {
            connector.nat().await;
        }
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

/// The median and the 95th percentile, in whole ms.
fn percentiles(mut times: Vec<Duration>) -> [u128; 2] {
    times.sort_unstable();
    [50, 95].map(|percent| times[(times.len() * percent).div_ceil(100) - 1].as_millis())
}

/// A table of all pairs: the rung that each seed took, and the median and the 95th percentile of the times in ms; first
/// where the client knew its own NAT, then from a cold start.
///
/// Rows are the client's mapping/filtering, columns the worker's.
fn table(ports: [PortAssignment; 2]) -> String {
    let mut lines = vec![format!("{:8}", "")];
    lines[0].extend(kinds().map(|kind| format!("{:<30}", name(kind))));
    for client in kinds() {
        let mut line = format!("{:8}", name(client));
        for service in kinds() {
            let theory = lowest_rung(client, service, ports);
            let [warm, cold] = [false, true].map(|cold| {
                let mut rungs: BTreeMap<Rung, u64> = BTreeMap::new();
                let mut times = Vec::new();
                for seed in 0..SEEDS {
                    let (rung, took) = connect(client, service, ports, seed, cold);
                    *rungs.entry(rung).or_default() += 1;
                    times.push(took);
                }
                let pair = format!("{} to {}, {ports:?}, cold: {cold}", name(client), name(service));
                assert_eq!(rungs, BTreeMap::from([(theory, SEEDS)]), "{pair}: not {theory}");
                percentiles(times)
            });
            let times = format!("{theory} {} {}, {} {}", warm[0], warm[1], cold[0], cold[1]);
            line += &format!("{times:<30}");
        }
        lines.push(line);
    }
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
