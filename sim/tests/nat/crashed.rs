//! Several services of one name, some of which have crashed: they stay registered for a while.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use grenache::broker::RelayConfig;
use grenache::connect::{ConnectReport, Rung};
use grenache_sim::engine::World;
use grenache_sim::scenario::model::Dependence::{AddressAndPortDependent, EndpointIndependent};
use grenache_sim::scenario::model::PortAssignment::{Contiguous, Random};
use grenache_sim::scenario::model::{Dependence, PortAssignment};
use serde_json::json;
use tokio::time::sleep;

use crate::lab::{Lab, ms};
use crate::peers::{Kind, SERVICE, broker, config, connector, homes, worker};

const OPEN: Kind = (EndpointIndependent, EndpointIndependent);
const CONE: Kind = (EndpointIndependent, AddressAndPortDependent);
const SYMMETRIC: Kind = (AddressAndPortDependent, AddressAndPortDependent);

/// The client's NAT, the services', their ports, by which rung they are reached, and how long a crashed one may delay that.
const CASES: [(Kind, Kind, PortAssignment, Rung, Duration); 5] = [
    // A direct connection is tried for 1.5 s, an answer is waited for another 3 s.
    (CONE, OPEN, Random, Rung::Direct, ms(4800)),
    (CONE, CONE, Random, Rung::Punch, ms(3300)),
    (CONE, SYMMETRIC, Contiguous, Rung::Predict, ms(3300)),
    (CONE, SYMMETRIC, Random, Rung::ManyPorts, ms(3300)),
    // A relay is waited for 5 s.
    (SYMMETRIC, SYMMETRIC, Random, Rung::Relay, ms(5300)),
];

/// How long it takes with who is there: the NAT check, and what the rung takes.
const ALIVE: Duration = ms(2600);

const WORKERS: [(&str, &str, &str); 3] =
    [("home", "laptop", "198.51.100.10"), ("office", "desk", "198.51.100.30"), ("shop", "till", "198.51.100.40")];

/// The client and three places for services, behind NATs of this kind.
fn places(client: Kind, service: Kind, ports: PortAssignment, seed: u64) -> Lab {
    let mut lab = homes(client, service, [Random, ports], seed);
    for (nat, node, at) in &WORKERS[1..] {
        let configured = |nat: &mut grenache_sim::scenario::model::Nat| {
            let (mapping, filtering): (Dependence, Dependence) = service;
            (nat.mapping, nat.filtering, nat.ports) = (mapping, filtering, ports);
            nat.udp_timeout = Duration::from_secs(120);
        };
        lab = lab.nat_with(nat, at, configured).behind(nat, node, "192.168.1.2");
        lab = lab.link(&[*nat], ms(10), |link| link.jitter = ms(2));
    }
    lab
}

fn found_gone(report: &ConnectReport) -> BTreeSet<String> {
    let gone = report.failed.iter().filter(|failed| failed.tried && failed.reason.contains("the peer is gone"));
    gone.map(|failed| failed.peer.expect("it is known who").ip().to_string()).collect()
}

#[test]
fn the_living_one_of_two_is_reached_every_time_and_in_time() {
    for (client, service, ports, rung, delay) in CASES {
        let mut first_tried = [0, 0];
        for seed in 0..24 {
            let [living, crashed] = if seed % 2 == 0 { [0, 1] } else { [1, 0] }.map(|nth: usize| WORKERS[nth]);
            let (report, took) = places(client, service, ports, seed)
                .run(async |world: World| {
                    let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
                    let _workers = [worker(&world, living.1), worker(&world, crashed.1)];
                    sleep(Duration::from_secs(4)).await;
                    world.crash(crashed.1);
                    let began = world.now();
                    let connection = connector(&world, "phone", config()).connect(SERVICE).await;
                    let connection = connection.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                    let took = world.now() - began;
                    assert_eq!(connection.request(&json!(1)).await, Ok(json!(1)), "{}", connection.report());
                    (connection.report().clone(), took)
                })
                .0;
            assert_eq!(report.rung, Some(rung), "seed {seed}: {report}");
            let tried_in_vain: BTreeSet<String> = report
                .failed
                .iter()
                .filter(|failed| failed.tried)
                .map(|failed| failed.peer.unwrap().ip().to_string())
                .collect();
            let delayed = tried_in_vain.contains(crashed.2);
            assert_eq!(tried_in_vain.len(), usize::from(delayed), "the living one took the first call: {report}");
            assert!(took < if delayed { delay + ALIVE } else { ALIVE }, "seed {seed}, {took:?}: {report}");
            assert_eq!(report.elapsed_ms, u64::try_from(took.as_millis()).unwrap());
            first_tried[usize::from(delayed)] += 1;
        }
        assert!(first_tried.iter().all(|times| *times >= 5), "each is tried first at times: {first_tried:?}");
    }
}

#[test]
fn where_all_have_crashed_the_error_names_each_and_comes_in_time() {
    for (client, service, ports, rung, delay) in CASES {
        let ((error, took), _) = places(client, service, ports, 1).run(async |world: World| {
            let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
            let _workers = WORKERS.map(|(_, node, _)| worker(&world, node));
            let connector = connector(&world, "phone", config());
            sleep(Duration::from_secs(4)).await;
            WORKERS.iter().for_each(|(_, node, _)| world.crash(node));
            let began = world.now();
            let error = connector.connect(SERVICE).await.unwrap_err();
            (error, world.now() - began)
        });
        let report = error.report();
        let tried: BTreeSet<String> =
            report.failed.iter().filter_map(|failed| Some(failed.peer?.ip().to_string())).collect();
        assert_eq!(tried, WORKERS.iter().map(|(_, _, at)| (*at).to_owned()).collect(), "{error}");
        // A relay cannot tell a peer that is gone from one that does not get through to it.
        assert_eq!(found_gone(report).len(), if rung == Rung::Relay { 0 } else { 3 }, "{error}");
        for (_, _, at) in WORKERS {
            assert!(error.to_string().contains(at), "{error}");
        }
        assert!(took < 3 * delay + ALIVE, "{took:?}: {error}");
    }
}

#[test]
fn no_more_peers_are_tried_than_may_be() {
    let (error, _) = places(CONE, CONE, Random, 1).run(async |world: World| {
        let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
        let _workers = WORKERS.map(|(_, node, _)| worker(&world, node));
        sleep(Duration::from_secs(4)).await;
        WORKERS.iter().for_each(|(_, node, _)| world.crash(node));
        connector(&world, "phone", config().peers(2)).connect(SERVICE).await.unwrap_err()
    });
    assert_eq!(found_gone(error.report()).len(), 2, "{error}");
}

#[test]
fn who_comes_while_the_others_are_found_to_be_gone_is_reached() {
    let (report, _) = places(CONE, CONE, Random, 1).run(async |world: World| {
        let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
        let _old = worker(&world, "laptop");
        sleep(Duration::from_secs(4)).await;
        world.crash("laptop");
        let connector = connector(&world, "phone", config().peer_timeout(Duration::from_secs(10)));
        let coming = async {
            sleep(ms(4000)).await;
            worker(&world, "desk")
        };
        let (connection, _new) = futures_util::future::join(connector.connect(SERVICE), coming).await;
        connection.unwrap_or_else(|e| panic!("{e}")).report().clone()
    });
    assert_eq!(report.to.map(|to| to.ip().to_string()).as_deref(), Some("198.51.100.30"), "{report}");
    assert_eq!(found_gone(&report), BTreeSet::from(["198.51.100.10".to_owned()]));
}

#[test]
fn several_connect_at_once() {
    for (client, service, ports, rung, delay) in CASES {
        // As many as a service helps at once that come from one address.
        const AT_ONCE: usize = grenache::connect::MAX_ATTEMPTS_PER_SOURCE;
        // It opens many sockets for one caller only.
        let at_once = if rung == Rung::ManyPorts { 1 } else { AT_ONCE };
        for seed in 0..4 {
            let ((), _) = places(client, service, ports, seed).run(async |world: World| {
                let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
                let _workers = WORKERS.map(|(_, node, _)| worker(&world, node));
                let connector = connector(&world, "phone", config());
                sleep(Duration::from_secs(4)).await;
                world.crash("till");
                let began = world.now();
                let connections = join_all((0..at_once).map(|_| connector.connect(SERVICE))).await;
                assert!(world.now() - began < delay + ALIVE);
                for connection in connections {
                    let connection = connection.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                    assert!(connection.rung() <= rung, "{}", connection.report());
                    assert_eq!(connection.request(&json!(1)).await, Ok(json!(1)), "{}", connection.report());
                }
            });
        }
    }
}
