//! Relays, and the way out of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use grenache::broker::RelayConfig;
use grenache::connect::{Connection, Rung};
use grenache::event::Event as Stack;
use grenache::rpc::{RequestOptions, RpcError};
use grenache_sim::engine::World;
use grenache_sim::event::{Event, Record};
use grenache_sim::scenario::model::Dependence::{AddressAndPortDependent, EndpointIndependent};
use grenache_sim::scenario::model::Pooling;
use grenache_sim::scenario::model::PortAssignment::{Preserving, Random};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::lab::{Lab, ms};
use crate::peers::{Kind, SERVICE, Worker, broker, config, connector, homes, worker};

const CONE: Kind = (EndpointIndependent, AddressAndPortDependent);
const SYMMETRIC: Kind = (AddressAndPortDependent, AddressAndPortDependent);

fn symmetric() -> Lab {
    homes(SYMMETRIC, SYMMETRIC, [Random; 2], 1)
}

async fn asks(connection: &Connection, payload: Value) {
    assert_eq!(connection.request(&payload).await, Ok(payload), "{}", connection.report());
}

fn closed(records: &[Record]) -> Vec<(u64, String)> {
    let ends = records.iter().filter_map(|record| match &record.event {
        Event::Stack(Stack::RelayClosed { bytes, reason, .. }) => Some((*bytes, reason.clone())),
        _ => None,
    });
    ends.collect()
}

#[test]
fn a_large_reply_comes_through_a_relay_as_it_is_and_an_idle_one_ends() {
    let (rung, records) = symmetric().run(async |world: World| {
        let relay = RelayConfig::default().idle_timeout(Duration::from_secs(200));
        let _brokers = [broker(&world, "one", Some(relay)), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        let connection = connector(&world, "phone", config()).connect(SERVICE).await.unwrap();
        asks(&connection, json!("x".repeat(300_000))).await;
        let rung = connection.rung();
        drop(connection);
        sleep(Duration::from_secs(600)).await;
        rung
    });
    assert_eq!(rung, Rung::Relay);
    let closed = closed(&records);
    assert_eq!(closed.len(), 1);
    assert!(closed[0].0 > 600_000 && closed[0].1 == "idle", "{closed:?}");
}

#[test]
fn what_a_relay_may_forward_in_a_second_bounds_the_goodput() {
    let took = |bytes_per_second| {
        let (took, _) = symmetric().run(async |world: World| {
            let relay = RelayConfig::default().bytes_per_second(bytes_per_second);
            let _brokers = [broker(&world, "one", Some(relay)), broker(&world, "two", None)];
            let _worker = worker(&world, "laptop");
            let connection = connector(&world, "phone", config()).connect(SERVICE).await.unwrap();
            let began = world.now();
            asks(&connection, json!("x".repeat(500_000))).await;
            world.now() - began
        });
        took
    };
    // A megabyte in both directions, the first second's worth of which may come at once.
    let slow = took(100_000);
    assert!(slow > Duration::from_secs(8), "{slow:?}");
    assert!(took(10_000_000) < slow / 2);
}

#[test]
fn after_its_total_a_relay_is_gone() {
    let (outcome, records) = symmetric().run(async |world: World| {
        let relay = RelayConfig::default().total_bytes(100_000);
        let _brokers = [broker(&world, "one", Some(relay)), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        let connection = connector(&world, "phone", config()).connect(SERVICE).await.unwrap();
        asks(&connection, json!("small")).await;
        connection.request(&json!("x".repeat(200_000))).await
    });
    assert!(outcome.is_err());
    let closed = closed(&records);
    assert!(closed[0].0 <= 100_000 && closed[0].1 == "total bytes", "{closed:?}");
}

#[test]
fn a_full_broker_and_one_that_does_not_relay_say_so() {
    for (relay, reason) in [
        (None, "ERR_BROKER_NO_RELAY"),
        (Some(RelayConfig::default().sessions(0)), "ERR_BROKER_RELAY_FULL"),
        (Some(RelayConfig::default().sessions_per_source(0)), "ERR_BROKER_RELAY_SOURCE"),
    ] {
        let (error, _) = symmetric().run(async |world: World| {
            let _brokers = [broker(&world, "one", relay), broker(&world, "two", None)];
            let _worker = worker(&world, "laptop");
            connector(&world, "phone", config()).connect(SERVICE).await.unwrap_err()
        });
        let last = error.report().failed.last().unwrap();
        assert_eq!((last.rung, last.tried), (Rung::Relay, true));
        assert!(last.reason.starts_with(reason), "{error}");
    }
}

#[test]
fn a_relay_follows_a_side_whose_nat_forgot_its_mappings() {
    let ((), records) = symmetric().run(async |world: World| {
        let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        let connection = connector(&world, "phone", config().upgrades(0)).connect(SERVICE).await.unwrap();
        for nat in ["home", "cafe"] {
            asks(&connection, json!(nat)).await;
            world.rebind(nat);
            // Claims are repeated every 10 s.
            sleep(Duration::from_secs(12)).await;
            asks(&connection, json!("again")).await;
        }
    });
    let opened = |record: &&Record| matches!(record.event, Event::Stack(Stack::RelayOpened { .. }));
    assert_eq!(records.iter().filter(opened).count(), 1, "it is the same relay all the time");
}

#[test]
fn a_broker_takes_its_relays_along() {
    let (outcome, records) = symmetric().run(async |world: World| {
        let one = broker(&world, "one", Some(RelayConfig::default()));
        let _two = broker(&world, "two", None);
        let _worker = worker(&world, "laptop");
        let connection = connector(&world, "phone", config().upgrades(0)).connect(SERVICE).await.unwrap();
        asks(&connection, json!(1)).await;
        drop(one);
        connection.request(&json!(2)).await
    });
    assert!(outcome.is_err());
    // It had no time to say so: nothing was told of its end, and nothing runs that could.
    assert_eq!(closed(&records), []);
}

#[test]
fn a_caller_whose_sockets_have_different_public_addresses_still_gets_through() {
    // RFC 4787, 4.1: a NAT with arbitrary pooling. The worker's side refuses to open many sockets towards an address that
    // the caller is not registered with; the caller must not take it for gone.
    let rungs = (1..=12).map(|seed| {
        let mut lab = homes(CONE, SYMMETRIC, [Preserving, Random], seed);
        let cafe = lab.nats.get_mut("cafe").unwrap();
        cafe.pooling = Pooling::Arbitrary;
        cafe.more_addresses = (21..24).map(|last| Ipv4Addr::new(198, 51, 100, last)).collect();
        let (rung, _) = lab.run(async |world: World| {
            let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
            let _worker = worker(&world, "laptop");
            let connection = connector(&world, "phone", config()).connect(SERVICE).await.unwrap();
            asks(&connection, json!(1)).await;
            connection.rung()
        });
        rung
    });
    let rungs: Vec<Rung> = rungs.collect();
    assert!(rungs.iter().all(|rung| [Rung::ManyPorts, Rung::Relay].contains(rung)), "{rungs:?}");
    assert!(rungs.contains(&Rung::Relay), "{rungs:?}");
}

#[test]
fn strangers_get_nothing_out_of_a_relay() {
    let lab = symmetric().node("stranger", "203.0.113.66");
    let (heard, _) = lab.run(async |world: World| {
        let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        let connection = connector(&world, "phone", config()).connect(SERVICE).await.unwrap();
        assert_eq!(connection.rung(), Rung::Relay);
        let stranger = crate::lab::udp(&world, "stranger", 9);
        // As long as a claim that is answered.
        let claim = format!(r#"{{"grenache":"claim","token":"{}","pad":"{}"}}"#, "0".repeat(32), "0".repeat(100));
        for payload in [&b"hello"[..], claim.as_bytes()] {
            crate::lab::send(&stranger, connection.address(), payload).await;
        }
        crate::lab::receives(&stranger).await
    });
    assert!(!heard);
}

/// What the connection's path is before and after something happens to the network.
fn upgraded(lab: &Lab, before: impl Fn(&World), after: impl Fn(&World), rung: Rung) {
    let ((), records) = lab.run(async |world: World| {
        let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        before(&world);
        let connection = connector(&world, "phone", config()).connect(SERVICE).await.unwrap();
        asks(&connection, json!(1)).await;
        assert_eq!((connection.rung(), connection.report().rung), (Rung::Relay, Some(Rung::Relay)));
        let relay = connection.address();
        sleep(Duration::from_secs(70)).await;
        asks(&connection, json!(2)).await;
        assert_eq!(connection.rung(), Rung::Relay, "there is no better way yet");
        after(&world);
        sleep(Duration::from_secs(70)).await;
        assert_eq!(connection.rung(), rung);
        assert_ne!(connection.address(), relay);
        asks(&connection, json!(3)).await;
    });
    let to = |n: u64| -> SocketAddr {
        let answered = records.iter().find_map(|record| match &record.event {
            Event::Stack(Stack::ReplyReceived { from, value, .. }) if *value == json!(n) => Some(*from),
            _ => None,
        });
        answered.expect("each request was answered")
    };
    assert_eq!((to(1), to(1).ip().to_string()), (to(2), "203.0.113.1".to_owned()));
    assert_eq!(to(3).ip().to_string(), "198.51.100.10", "the last one went straight to the worker's NAT");
    let ended = records.iter().find_map(|record| match &record.event {
        Event::Stack(Stack::RelayClosed { reason, .. }) => Some((record.at_ns, reason.as_str())),
        _ => None,
    });
    let connected =
        |record: &&Record| matches!(record.event, Event::Stack(Stack::Connected { rung, .. }) if rung != Rung::Relay);
    let (upgraded, (ended, reason)) = (records.iter().find(connected).unwrap().at_ns, ended.unwrap());
    assert_eq!(reason, "left");
    // Its connections have ended in good order by then: µTP's wait after the last FIN is 3 s.
    assert!(ended - upgraded < 5_000_000_000, "nobody was on it any more");
}

#[test]
fn when_a_partition_heals_the_relay_is_left() {
    let healing = std::cell::Cell::new(None);
    upgraded(
        &homes(CONE, CONE, [Preserving; 2], 1),
        |world| healing.set(Some(world.partition(&["phone".into()], &["laptop".into()]))),
        |world| world.heal(healing.get().unwrap()),
        Rung::Punch,
    );
}

#[test]
fn a_client_without_an_upgrade_stays_relayed() {
    let ((), _) = homes(CONE, CONE, [Preserving; 2], 1).run(async |world: World| {
        let _brokers = [broker(&world, "one", Some(RelayConfig::default())), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        let partition = world.partition(&["phone".into()], &["laptop".into()]);
        let config = config().upgrades(0).upgrade_interval(ms(1));
        let connection = connector(&world, "phone", config).connect(SERVICE).await.unwrap();
        world.heal(partition);
        asks(&connection, json!("now")).await;
        sleep(Duration::from_secs(90)).await;
        assert_eq!(connection.rung(), Rung::Relay);
        asks(&connection, json!("still there")).await;
        assert_eq!(connection.rung(), Rung::Relay);
    });
}

#[test]
fn after_a_relay_has_ended_the_next_request_connects_anew() {
    let ((), records) = symmetric().run(async |world: World| {
        let relay = RelayConfig::default().idle_timeout(Duration::from_secs(5));
        let _brokers = [broker(&world, "one", Some(relay)), broker(&world, "two", None)];
        let _worker = worker(&world, "laptop");
        let connection = connector(&world, "phone", config().upgrades(0)).connect(SERVICE).await.unwrap();
        asks(&connection, json!(1)).await;
        let first = connection.address();
        sleep(Duration::from_secs(10)).await;
        asks(&connection, json!(2)).await;
        assert_eq!(connection.rung(), Rung::Relay);
        assert_ne!(connection.address(), first);
    });
    assert_eq!(closed(&records).len(), 1, "it was the first one that ended");
}

#[test]
fn where_a_relay_has_ended_and_nobody_is_there_a_request_fails_in_time() {
    let (error, _) = symmetric().run(async |world: World| {
        let relay = RelayConfig::default().idle_timeout(Duration::from_secs(5));
        let _brokers = [broker(&world, "one", Some(relay)), broker(&world, "two", None)];
        let worker = worker(&world, "laptop");
        let connection = connector(&world, "phone", config().upgrades(0)).connect(SERVICE).await.unwrap();
        asks(&connection, json!(1)).await;
        drop(worker);
        // Until the relay and the worker's registration have ended.
        sleep(Duration::from_secs(40)).await;
        let began = world.now();
        let short = RequestOptions::default().timeout(Duration::from_secs(1));
        assert_eq!(connection.request_with(&json!(2), short).await, Err(RpcError::Timeout));
        assert!(world.now() - began <= Duration::from_millis(1005), "a search ends with its request");
        connection.request(&json!(3)).await.unwrap_err()
    });
    assert!(error.is_transport() && error.to_string().contains("nobody is registered"), "{error}");
}

#[test]
fn a_broker_and_a_service_that_stop_leave_nothing_of_a_relay() {
    let ((), _) = symmetric().run(async |world: World| {
        let one = broker(&world, "one", Some(RelayConfig::default()));
        let _two = broker(&world, "two", None);
        let worker = worker(&world, "laptop");
        let connection = connector(&world, "phone", config().upgrades(0)).connect(SERVICE).await.unwrap();
        asks(&connection, json!(1)).await;
        let Worker { server, acceptor, puncher } = worker;
        let held = world.live("laptop").tasks;
        let fresh = acceptor.stop();
        sleep(ms(1)).await;
        let stopped = world.live("laptop").tasks;
        drop(fresh);
        sleep(ms(1)).await;
        assert!(held > stopped && stopped == world.live("laptop").tasks + 1, "what holds the relay ends with it");
        let relaying = world.live("one");
        one.stop().await;
        sleep(ms(1)).await;
        let after = world.live("one");
        assert!(after.udp_sockets < relaying.udp_sockets, "{relaying:?}, {after:?}");
        server.stop().await;
        drop(puncher);
        // A connection that was cut off is given up in time.
        sleep(Duration::from_secs(60)).await;
        assert!(world.live("one").is_nothing(), "{:?}", world.live("one"));
        assert!(world.live("laptop").is_nothing(), "{:?}", world.live("laptop"));
    });
}
