//! Faults: what each does, that they compose, and that each ends only its own part.

use std::time::Duration;

use grenache::net::Net;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use grenache_sim::engine::World;
use grenache_sim::event::{Event, LabEvent, Record};
use grenache_sim::scenario::model::{Degradation, FaultKind, Link, Move};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{Lab, address, bind, deliveries, drops, lines, ms, receive, receives, send, udp};

fn lab() -> Lab {
    Lab::new()
        .node("server", "203.0.113.1")
        .node("other", "203.0.113.2")
        .nat("home", "198.51.100.1")
        .behind("home", "laptop", "192.168.1.2")
        .nat_with("cafe", "198.51.100.2", |nat| nat.lan = "10.0.0.0/24".parse().unwrap())
}

/// Whether a datagram gets from one node to the other's address.
async fn reaches(world: &World, from: &str, to: &str, at: &str) -> bool {
    let (sender, receiver) = (udp(world, from, 0), udp(world, to, 9000));
    send(&sender, &*format!("{at}:9000"), b"ping").await;
    receives(&receiver).await
}

fn faults(records: &[Record]) -> Vec<String> {
    let words = |record: &Record| match &record.event {
        Event::Lab(LabEvent::FaultBegan { fault }) => Some(format!("{fault} begins")),
        Event::Lab(LabEvent::FaultEnded { fault }) => Some(format!("{fault} ends")),
        _ => None,
    };
    records.iter().filter_map(words).collect()
}

#[test]
fn a_link_is_up_when_no_fault_holds_it_down() {
    let (_, records) = lab().run(async |world| {
        let down = FaultKind::Down("other".into());
        let (first, second) = (world.begin(&down), world.begin(&down));
        assert!(!reaches(&world, "server", "other", "203.0.113.2").await);
        world.end(first);
        world.end(first);
        assert!(!reaches(&world, "other", "server", "203.0.113.1").await, "the second goes on");
        world.end(second);
        assert!(reaches(&world, "server", "other", "203.0.113.2").await);
        let home = world.begin(&FaultKind::Down("home".into()));
        assert!(!reaches(&world, "laptop", "server", "203.0.113.1").await);
        world.end(home);
        assert!(reaches(&world, "laptop", "server", "203.0.113.1").await);
    });
    assert_eq!(
        drops(&records),
        ["link of other, down: link is down", "link of other, up: link is down", "link of home, up: link is down"]
    );
    assert_eq!(
        faults(&records),
        [
            "link of other down begins",
            "link of other down begins",
            "link of other down ends",
            "link of other down ends",
            "link of home down begins",
            "link of home down ends",
        ]
    );
}

#[test]
fn degradations_add_up_and_each_takes_back_its_own() {
    let (took, records) = lab().run(async |world| {
        let (server, other) = (udp(&world, "server", 0), udp(&world, "other", 9000));
        let mut took = Vec::new();
        let mut measure = async || {
            let began = world.now();
            send(&server, "203.0.113.2:9000", &[0; 972]).await;
            let came = receives(&other).await;
            took.push(if came { world.now() - began } else { Duration::MAX });
        };
        measure().await;
        let degrade = |change: Degradation| world.begin(&FaultKind::Degrade("other".into(), change));
        let slow = degrade(Degradation { latency: ms(50), ..Degradation::default() });
        // 1,000 bytes with their headers at 1 Mbit/s take 8 ms.
        let narrow = degrade(Degradation { rate: Some(1_000_000), ..Degradation::default() });
        measure().await;
        world.end(slow);
        measure().await;
        let dead = degrade(Degradation { loss: 1.0, ..Degradation::default() });
        measure().await;
        world.end(dead);
        world.end(narrow);
        measure().await;
        took
    });
    assert_eq!(took, [ms(2), ms(60), ms(10), Duration::MAX, ms(2)]);
    assert_eq!(drops(&records), ["link of other, down: random loss of 100%"]);
}

#[test]
fn a_degradation_draws_from_its_own_numbers() {
    let fates = |degrade_server: bool| {
        let lab = lab().link(&["other"], ms(1), |link: &mut Link| link.loss = 0.5);
        let (_, records) = lab.run(async |world| {
            if degrade_server {
                let change = Degradation { loss: 0.5, ..Degradation::default() };
                world.begin(&FaultKind::Degrade("laptop".into(), change));
            }
            let (server, _other) = (udp(&world, "server", 0), udp(&world, "other", 9000));
            for _ in 0..100 {
                send(&server, "203.0.113.2:9000", b"x").await;
            }
            tokio::time::sleep(ms(100)).await;
        });
        deliveries(&records).len()
    };
    assert_eq!(fates(false), fates(true));
    assert!((30..70).contains(&fates(true)));
}

#[test]
fn a_paused_node_does_nothing_and_its_packets_wait() {
    let ((before, after), records) = lab().run(async |world| {
        let echo = udp(&world, "server", 9000);
        world.spawn("server", async move {
            loop {
                let (payload, from) = receive(&echo).await;
                send(&echo, from, &payload).await;
            }
        });
        let client = udp(&world, "other", 0);
        send(&client, "203.0.113.1:9000", b"a").await;
        receive(&client).await;
        let before = world.now();
        let (first, second) =
            (world.begin(&FaultKind::Pause("server".into())), world.begin(&FaultKind::Pause("server".into())));
        send(&client, "203.0.113.1:9000", b"b").await;
        send(&client, "203.0.113.1:9000", b"c").await;
        tokio::time::sleep(ms(3_000)).await;
        world.end(second);
        assert!(!receives(&client).await, "the other pause goes on");
        world.end(first);
        assert_eq!(receive(&client).await.0, b"b");
        assert_eq!(receive(&client).await.0, b"c");
        (before, world.now())
    });
    // Three seconds and one, and a way of 2 ms once it is resumed.
    assert_eq!(after - before, ms(4_002));
    assert!(drops(&records).is_empty(), "{:?}", drops(&records));
}

#[test]
fn a_paused_nodes_timers_go_off_late_and_a_crash_ends_it_all_the_same() {
    let ticks = lab().run(async |world| {
        let (ticks, ticked) = tokio::sync::mpsc::unbounded_channel();
        let world2 = world.clone();
        world.spawn("server", async move {
            loop {
                tokio::time::sleep(ms(1_000)).await;
                let _ = ticks.send(world2.now());
            }
        });
        let mut ticked = ticked;
        tokio::time::sleep(ms(1_500)).await;
        let pause = world.begin(&FaultKind::Pause("server".into()));
        tokio::time::sleep(ms(5_000)).await;
        world.end(pause);
        tokio::time::sleep(ms(1_600)).await;
        world.begin(&FaultKind::Pause("server".into()));
        let crash = world.begin(&FaultKind::Crash("server".into()));
        tokio::time::sleep(ms(5_000)).await;
        world.end(crash);
        let mut all = Vec::new();
        while let Some(tick) = ticked.recv().await {
            all.push(tick);
        }
        all
    });
    assert_eq!(ticks.0, [ms(1_000), ms(6_500), ms(7_500)], "the one that was due meanwhile comes when it goes on");
}

#[test]
fn a_nat_that_reboots_forgets_everything_and_lets_nothing_pass() {
    let (_, records) = lab().run(async |world| {
        let (laptop, server) = (udp(&world, "laptop", 5000), udp(&world, "server", 9000));
        send(&laptop, "203.0.113.1:9000", b"out").await;
        let (_, mapped) = receive(&server).await;
        let reboot = world.begin(&FaultKind::Reboot("home".into()));
        send(&server, mapped, b"in").await;
        send(&laptop, "203.0.113.1:9000", b"out").await;
        assert!(!receives(&server).await && !receives(&laptop).await);
        world.end(reboot);
        send(&server, mapped, b"in").await;
        assert!(!receives(&laptop).await, "the mapping is gone");
        send(&laptop, "203.0.113.1:9000", b"out").await;
        let (_, again) = receive(&server).await;
        send(&server, again, b"in").await;
        assert!(receives(&laptop).await);
    });
    assert_eq!(
        drops(&records),
        ["nat home: nat reboots", "nat home: nat reboots", &format!("nat home: no mapping for port {}", 5000)],
        "{:?}",
        lines(&records)
    );
    let removed = records.iter().filter(
        |record| matches!(&record.event, Event::Lab(LabEvent::MappingRemoved { reason, .. }) if reason == "reboot"),
    );
    assert_eq!(removed.count(), 1);
}

fn to(nat: Option<&str>) -> FaultKind {
    FaultKind::Move(Move { node: "laptop".into(), behind: nat.map(Into::into), ..Move::default() })
}

#[test]
fn a_node_that_moves_sends_from_where_it_is_and_is_home_again_at_the_end() {
    let (seen, records) = lab().run(async |world| {
        let (laptop, server) = (udp(&world, "laptop", 5000), udp(&world, "server", 9000));
        let mut seen = Vec::new();
        let mut ask = async || {
            send(&laptop, "203.0.113.1:9000", b"out").await;
            let (_, from) = receive(&server).await;
            send(&server, from, b"back").await;
            assert!(receives(&laptop).await);
            seen.push(from.ip().to_string());
        };
        ask().await;
        let cafe = world.begin(&to(Some("cafe")));
        ask().await;
        let street = world.begin(&to(None));
        ask().await;
        // Each ends its own: it is on the street until that ends, and then home, for the café has ended before.
        world.end(cafe);
        ask().await;
        world.end(street);
        ask().await;
        // It comes back to the address that it had.
        let cafe = world.begin(&to(Some("cafe")));
        ask().await;
        world.end(cafe);
        seen
    });
    assert_eq!(seen, ["198.51.100.1", "198.51.100.2", "203.0.113.3", "203.0.113.3", "198.51.100.1", "198.51.100.2"]);
    assert!(drops(&records).is_empty(), "{:?}", drops(&records));
    let internal = records.iter().filter_map(|record| match &record.event {
        Event::Lab(LabEvent::MappingCreated { internal, .. }) => Some(internal.to_string()),
        _ => None,
    });
    assert_eq!(internal.collect::<Vec<_>>(), ["192.168.1.2:5000", "10.0.0.2:5000"]);
}

#[test]
fn what_is_on_its_way_to_where_a_node_was_is_lost() {
    let lab = lab().link(&["other"], ms(50), |_| {});
    let (_, records) = lab.run(async |world| {
        let (_other, server) = (udp(&world, "other", 9000), udp(&world, "server", 0));
        send(&server, "203.0.113.2:9000", b"x").await;
        tokio::time::sleep(ms(20)).await;
        let kind = FaultKind::Move(Move { node: "other".into(), behind: Some("cafe".into()), ..Move::default() });
        world.begin(&kind);
        tokio::time::sleep(ms(100)).await;
        send(&server, "203.0.113.2:9000", b"x").await;
        tokio::time::sleep(ms(100)).await;
    });
    assert_eq!(drops(&records), ["host other: host is no longer at 203.0.113.2", "internet: no host at 203.0.113.2"]);
}

#[test]
fn a_move_can_bring_another_link_and_another_address() {
    let lab = lab().link(&["cafe"], ms(1), |_| {});
    let (took, _) = lab.run(async |world| {
        let server = udp(&world, "server", 9000);
        let laptop = udp(&world, "laptop", 5000);
        let kind = FaultKind::Move(Move {
            node: "laptop".into(),
            address: Some("203.0.113.77".parse().unwrap()),
            link: Some("kind0".into()),
            ..Move::default()
        });
        let moved = world.begin(&kind);
        send(&laptop, "203.0.113.1:9000", b"x").await;
        assert_eq!(receive(&server).await.1, address("203.0.113.77:5000"));
        world.end(moved);
        let began = world.now();
        send(&laptop, "203.0.113.1:9000", b"x").await;
        assert_eq!(receive(&server).await.1.ip().to_string(), "198.51.100.1");
        world.now() - began
    });
    assert_eq!(took, ms(3), "its own link again, of the usual millisecond");
}

#[test]
fn a_crash_that_begins_while_a_node_is_down_starts_nothing_at_its_end() {
    lab().run(async |world| {
        let crash = FaultKind::Crash("server".into());
        let (first, second) = (world.begin(&crash), world.begin(&crash));
        world.end(second);
        assert!(!world.is_up("server"));
        world.end(first);
        assert!(world.is_up("server"));
    });
}

/// A µTP STATE packet with this timestamp.
fn stamped(timestamp: u32) -> Vec<u8> {
    let mut packet = vec![0x21, 0, 0, 1];
    packet.extend(timestamp.to_be_bytes());
    packet.extend([0; 12]);
    packet
}

#[test]
fn a_wrong_clock_shows_in_the_timestamps_on_the_wire_and_in_no_others() {
    lab().run(async |world| {
        let (server, other) = (udp(&world, "server", 9000), udp(&world, "other", 9000));
        let stamp = |payload: Vec<u8>| u32::from_be_bytes(payload[4..8].try_into().unwrap());
        let kind = FaultKind::Clock { node: "server".into(), skew_us: -500, drift_ppm: 100 };
        let clock = world.begin(&kind);
        for (waits, ahead) in [(0, -500), (10_000, 500)] {
            // What it sends is as its clock says; what comes to it, it reads by its clock.
            tokio::time::sleep(ms(waits)).await;
            send(&server, "203.0.113.2:9000", &stamped(10_000)).await;
            let out = i64::from(stamp(receive(&other).await.0));
            assert_eq!(out - 10_000, ahead, "after {waits} ms");
            send(&other, "203.0.113.1:9000", &stamped(10_000)).await;
            let within = i64::from(stamp(receive(&server).await.0));
            // 2 ms and more have passed, of which each gains 0.1 µs.
            assert_eq!(within - 10_000, -ahead, "after {waits} ms");
        }
        send(&server, "203.0.113.2:9000", &stamped(0)).await;
        assert_eq!(stamp(receive(&other).await.0), 0, "none stays none");
        send(&server, "203.0.113.2:9000", b"not of utp").await;
        assert_eq!(receive(&other).await.0, b"not of utp");
        world.end(clock);
        send(&server, "203.0.113.2:9000", &stamped(10_000)).await;
        assert_eq!(stamp(receive(&other).await.0), 10_000);
    });
}

/// How long two requests of 200 kB each take over a narrow link while this is wrong with the server's clock; it jumps
/// back to the right time between the two, or after them.
fn transfer(clock: Option<(i64, i64)>, jumps: bool) -> Duration {
    let lab = lab().link(&["other"], ms(20), |link| link.rate = Some(1_000_000));
    let (took, _) = lab.run(async |world| {
        let bind = |node: &str, port: u16| {
            Endpoint::bind(&world.network(node), ([0, 0, 0, 0], port).into(), EndpointConfig::default()).unwrap()
        };
        let server = bind("server", 5000);
        let _serving =
            PeerRpcServer::serve(&server, ServerConfig::default(), |request| async move { Ok(request.payload) });
        let client = PeerRpcClient::new(&bind("other", 0), None, ClientConfig::default());
        let clock = clock
            .map(|(skew_us, drift_ppm)| world.begin(&FaultKind::Clock { node: "server".into(), skew_us, drift_ppm }));
        let payload = json!("x".repeat(200_000));
        let began = world.now();
        for _ in 0..2 {
            assert_eq!(client.request_at(address("203.0.113.1:5000"), "echo", &payload).await.unwrap(), payload);
            if let Some(clock) = clock.filter(|_| jumps) {
                world.end(clock);
            }
        }
        world.now() - began
    });
    took
}

#[test]
fn rfc_6817_4_4_clocks_may_differ_but_not_drift_or_jump() {
    let right = transfer(None, false);
    assert_eq!(transfer(Some((3_600_000_000, 0)), false), right, "an offset cancels: only differences mean something");
    // A receiver whose clock gains lets the way look ever longer: the sender yields to a queue that is not there.
    let drifting = transfer(Some((0, 100_000)), false);
    assert!(drifting > right, "{drifting:?} with a clock that gains a tenth, {right:?} with a right one");
    // One that jumps forward, as when it was behind, does so at once. The transfer goes on all the same.
    let jumping = transfer(Some((-3_600_000_000, 0)), true);
    assert!(jumping > right, "{jumping:?} with a clock that jumps, {right:?} with a right one");
}

#[test]
fn a_partition_and_its_like_end_on_their_own() {
    lab().run(async |world| {
        let kind = FaultKind::Partition(vec!["server".into()], vec!["other".into()]);
        let (first, second) = (world.begin(&kind), world.begin(&kind));
        world.end(first);
        assert!(!reaches(&world, "server", "other", "203.0.113.2").await);
        world.end(second);
        assert!(reaches(&world, "server", "other", "203.0.113.2").await);
    });
}

/// Reads all of a connection, and writes it back.
pub(crate) async fn echo_tcp(net: Net) {
    let mut listener = net.listen_tcp(address("0.0.0.0:80")).await.unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).await.is_ok() && stream.write_all(&all).await.is_ok() {
            let _ = stream.shutdown().await;
        }
    }
}

/// Answers datagrams.
pub(crate) async fn echo_udp(net: Net) {
    let socket = bind(&net, "0.0.0.0:7");
    loop {
        let (payload, from) = receive(&socket).await;
        send(&socket, from, &payload).await;
    }
}
