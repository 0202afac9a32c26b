//! What an attempt to connect may cost, and what stays of it.

use std::time::Duration;

use grenache::connect::{ConnectConfig, ConnectError, Rung};
use grenache::event::Event as Stack;
use grenache::nat::Behaviour;
use grenache_sim::engine::World;
use grenache_sim::event::{Event, Record};
use grenache_sim::scenario::model::Dependence::{AddressAndPortDependent, EndpointIndependent};
use grenache_sim::scenario::model::PortAssignment::Random;
use tokio::time::{sleep, timeout};

use crate::lab::ms;
use crate::peers::{Kind, SERVICE, broker, config, connector, homes, worker};

const CONE: Kind = (EndpointIndependent, AddressAndPortDependent);
const SYMMETRIC: Kind = (AddressAndPortDependent, AddressAndPortDependent);

/// Punches that a node sent from some moment on: one by one, and at random ports.
fn punches(records: &[Record], node: &str, since: Duration) -> (usize, usize) {
    let since_ns = u64::try_from(since.as_nanos()).unwrap();
    let of_node = records.iter().filter(|record| record.at.as_deref() == Some(node) && record.at_ns >= since_ns);
    of_node.fold((0, 0), |(single, random), record| match &record.event {
        Event::Stack(Stack::PunchSent { .. }) => (single + 1, random),
        Event::Stack(Stack::PortsProbed { ports, .. }) => (single, random + ports),
        _ => (single, random),
    })
}

#[test]
fn where_nothing_works_every_rung_ends_within_its_bounds() {
    for (client, service) in [(CONE, SYMMETRIC), (SYMMETRIC, CONE), (CONE, CONE)] {
        let ((error, took), records) = homes(client, service, [Random; 2], 1).run(async |world: World| {
            let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
            let _worker = worker(&world, "laptop");
            world.partition(&["phone".into()], &["laptop".into()]);
            let began = world.now();
            let error = connector(&world, "phone", config()).connect(SERVICE).await.unwrap_err();
            (error, world.now() - began)
        });
        assert!(took < Duration::from_secs(35), "{error}");
        let tried: Vec<Rung> =
            error.report().failed.iter().filter(|failed| failed.tried).map(|failed| failed.rung).collect();
        assert!(tried.contains(&Rung::Relay) && tried.len() >= 2, "{error}");
        for node in ["phone", "laptop"] {
            let (single, random) = punches(&records, node, Duration::ZERO);
            // Punch, and three predictions: 8 rounds of up to 4 each.
            assert!(single <= 8 + 3 * 8 * 4 && random <= 2048, "{node}: {single} and {random}");
        }
    }
}

#[test]
fn an_attempt_that_is_dropped_punches_no_more() {
    let dropped = Duration::from_millis(5200);
    let (outcome, records) = homes(CONE, SYMMETRIC, [Random; 2], 1).run(async |world: World| {
        let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        world.partition(&["phone".into()], &["laptop".into()]);
        let connector = connector(&world, "phone", config());
        connector.nat().await;
        sleep(ms(4000).saturating_sub(world.now())).await;
        let outcome = timeout(dropped - ms(4000), connector.connect(SERVICE)).await;
        sleep(Duration::from_secs(60)).await;
        outcome.is_err()
    });
    assert!(outcome, "it was still at it");
    let (_, before) = punches(&records, "phone", Duration::ZERO);
    assert!(before > 0, "it had come to the random ports");
    assert_eq!(punches(&records, "phone", dropped + ms(1)), (0, 0));
    // The peer's part is bounded by time.
    assert_eq!(punches(&records, "laptop", dropped + Duration::from_secs(10)), (0, 0));
}

#[test]
fn after_a_nat_forgot_its_mappings_the_worker_is_reached_again() {
    for kind in [CONE, SYMMETRIC] {
        let ((), _) = homes(CONE, kind, [Random; 2], 1).run(async |world: World| {
            let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
            let _worker = worker(&world, "laptop");
            let connector = connector(&world, "phone", config());
            for _ in 0..3 {
                let connection = connector.connect(SERVICE).await.unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(connection.request(&7.into()).await, Ok(7.into()), "{}", connection.report());
                world.rebind("home");
                // The worker's connection to the broker is the first thing to fail and be made anew.
                sleep(Duration::from_secs(30)).await;
            }
        });
    }
}

/// A connector that is given `config`, with three services that it finds but does not get to; the error, and when it came.
fn in_vain(config: ConnectConfig) -> (ConnectError, Duration) {
    let mut lab = homes(CONE, CONE, [Random; 2], 1);
    for (nat, node, at) in [("office", "desk", "198.51.100.30"), ("shop", "till", "198.51.100.40")] {
        lab = lab.nat(nat, at).behind(nat, node, "192.168.1.2").link(&[nat], ms(10), |_| {});
    }
    let main = async |world: World| {
        let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
        let nodes = ["laptop", "desk", "till"];
        let _workers = nodes.map(|node| worker(&world, node));
        world.partition(&["phone".into()], &nodes.map(Into::into));
        sleep(Duration::from_secs(4)).await;
        let began = world.now();
        let error = connector(&world, "phone", config).connect(SERVICE).await.unwrap_err();
        (error, world.now() - began)
    };
    lab.run(main).0
}

#[test]
fn connecting_ends_in_its_time_whatever_is_in_the_way() {
    // Both sides' ports could be anything, so that every rung is tried with each peer.
    let (error, took) = in_vain(config().nat(Behaviour::UNKNOWN).predictions(5));
    assert!((ms(35_000)..=ms(35_005)).contains(&took), "{took:?}: {error}");
    let failed = &error.report().failed;
    assert!(failed.iter().any(|failed| failed.reason == "the time for the whole attempt was over"), "{error}");
    assert_eq!(failed.last().map(|failed| failed.rung), Some(Rung::Relay), "each rung is told of: {error}");
    let (_, took) = in_vain(config().timeout(ms(700)));
    assert!((ms(700)..=ms(705)).contains(&took), "{took:?}");
    // Ten brokers that say nothing are waited for 5 s each, and those that cannot be found have as long.
    let silent = (1..=10).fold(ConnectConfig::default(), |config, port| {
        config.broker(crate::lab::address(&format!("203.0.113.9:{port}")))
    });
    let (error, took) = in_vain(silent);
    assert!((ms(35_000)..=ms(35_005)).contains(&took), "{took:?}: {error}");
    assert!(error.to_string().contains("the time was over before a peer was found"), "{error}");
}

#[test]
fn a_connector_whose_check_failed_does_not_wait_for_another_one_at_once() {
    let ((first, second, later), _) = homes(CONE, CONE, [Random; 2], 1).run(async |world: World| {
        let silent = ConnectConfig::default().broker(crate::lab::address("203.0.113.9:1"));
        let connector = connector(&world, "phone", silent);
        let nat = async || {
            let began = world.now();
            assert_eq!(connector.nat().await, Behaviour::UNKNOWN);
            world.now() - began
        };
        let (first, second) = (nat().await, nat().await);
        sleep(Duration::from_secs(10)).await;
        (first, second, nat().await)
    });
    assert!(first >= ms(1200) && second == Duration::ZERO && later >= ms(1200), "{first:?}, {second:?}, {later:?}");
}

#[test]
fn a_direct_connection_does_not_wait_for_the_nat_check() {
    let open: Kind = (EndpointIndependent, EndpointIndependent);
    let (report, _) = homes(CONE, open, [Random; 2], 1).run(async |world: World| {
        let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        sleep(Duration::from_secs(4)).await;
        connector(&world, "phone", config()).connect(SERVICE).await.unwrap().report().clone()
    });
    // A connection to the broker, its answer, and a connection to the worker: three round trips of 40 ms.
    assert!(report.rung == Some(Rung::Direct) && report.elapsed_ms < 150, "{report}");
    assert_eq!(report.own_nat, Behaviour::UNKNOWN, "it was not needed");
}
