//! The builder: a simulation with programs and a timeline of faults, as people write one for their own services.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use grenache::grape::{Grape, GrapeConfig};
use grenache_sim::engine::{Builder, Sim, SimError};
use grenache_sim::event::{Event, LabEvent, Record};
use grenache_sim::scenario::model::{Degradation, Fault, FaultKind, Link, Move, Nat, Node};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::faults::{echo_tcp, echo_udp};
use crate::lab::{address, lines, ms, receives, send, udp};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A laptop at home, a phone in a café, and a server.
fn town() -> Builder {
    Sim::builder()
        .seed(7)
        .link("dsl", Link { latency: ms(15), ..Link::default() })
        .link("mobile", Link { latency: ms(40), jitter: ms(10), ..Link::default() })
        .nat("cafe", Nat { lan: "10.0.0.0/24".parse().unwrap(), ..Nat::default() })
        .nat("home", Nat { link: Some("dsl".into()), ..Nat::default() })
        .node("laptop", Node { behind: Some("home".into()), ..Node::default() })
        .node("phone", Node { behind: Some("cafe".into()), link: Some("mobile".into()), ..Node::default() })
        .node("server", Node::default())
        .program("server", "echo", echo_udp)
        .program("server", "web", echo_tcp)
}

/// Whether the server answers a datagram from this node within a second.
async fn pings(world: &grenache_sim::engine::World, node: &str) -> bool {
    let socket = udp(world, node, 0);
    send(&socket, "203.0.113.2:7", b"ping").await;
    receives(&socket).await
}

fn run<T>(sim: Sim, main: impl AsyncFnOnce(grenache_sim::engine::World) -> T) -> (T, Vec<Record>) {
    let records = Rc::new(RefCell::new(Vec::new()));
    let seen = records.clone();
    let sim = sim.observe(move |record| seen.borrow_mut().push(record.clone()));
    let result = sim.run(s(600), main).expect("it ends in time");
    (result, records.take())
}

#[test]
fn a_service_survives_a_bad_day() {
    let sim = town()
        .fault(Fault::new(s(10), FaultKind::Crash("server".into())).lasting(s(5)))
        .fault(Fault::new(s(20), FaultKind::Down("home".into())).lasting(s(2)).every(s(4), 3))
        .build()
        .unwrap();
    let (answered, records) = run(sim, async |world| {
        let mut answered = Vec::new();
        for second in 0..35 {
            tokio::time::sleep(s(second).saturating_sub(world.now())).await;
            if pings(&world, "laptop").await {
                answered.push(second);
            }
            tokio::time::sleep((s(second) + ms(999)).saturating_sub(world.now())).await;
        }
        let web = world.network("laptop").connect_tcp(address("203.0.113.2:80")).await;
        let mut web = web.expect("the web server is there again");
        web.write_all(b"hello").await.unwrap();
        web.shutdown().await.unwrap();
        let mut answer = Vec::new();
        web.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"hello");
        answered
    });
    let out = |second: u64| (10..15).contains(&second) || (20..32).contains(&second) && (second - 20) % 4 < 2;
    assert_eq!(answered, (0..35).filter(|second| !out(*second)).collect::<Vec<_>>());
    let began = records.iter().filter_map(|record| match &record.event {
        Event::Lab(LabEvent::FaultBegan { fault }) => Some((record.at_ns / 1_000_000_000, fault.clone())),
        _ => None,
    });
    let began: Vec<_> = began.collect();
    assert_eq!(began[0], (10, "crash of server".to_owned()));
    assert_eq!(began[1..].iter().map(|(at, _)| *at).collect::<Vec<_>>(), [20, 24, 28]);
}

#[test]
fn a_grape_is_out_and_comes_back() {
    let sim = town()
        .program("server", "grape", async |net| {
            let config =
                GrapeConfig::default().dht_address(address("0.0.0.0:20001")).api_address(address("0.0.0.0:30001"));
            let _grape = Grape::start(&net, config).await.unwrap();
            std::future::pending().await
        })
        .fault(Fault::new(s(10), FaultKind::GrapeOutage("server".into())).lasting(s(10)))
        .fault(Fault::new(s(15), FaultKind::Crash("server".into())).lasting(s(1)))
        .build()
        .unwrap();
    let (answers, _) = run(sim, async |world| {
        let mut answers = Vec::new();
        for at in [5, 12, 17, 25] {
            tokio::time::sleep(s(at).saturating_sub(world.now())).await;
            answers.push((
                world.network("laptop").connect_tcp(address("203.0.113.2:30001")).await.is_ok(),
                pings(&world, "laptop").await,
            ));
        }
        answers
    });
    // Its node goes on meanwhile; that it crashes and starts does not end the outage.
    assert_eq!(answers, [(true, true), (false, true), (false, true), (true, true)]);
}

#[test]
fn a_builder_refuses_what_does_not_hold_together() {
    let refused = |builder: Builder| builder.build().unwrap_err().to_string();
    assert_eq!(
        refused(town().fault(Fault::new(s(1), FaultKind::Crash("sever".into())))),
        "the fault \"crash of sever\" names the node sever, which is not defined: define it, or correct the name"
    );
    let kind = FaultKind::Move(Move { node: "phone".into(), behind: Some("office".into()), ..Move::default() });
    assert_eq!(
        refused(town().fault(Fault::new(s(1), kind))),
        "the fault \"move of phone to the LAN of office\" names the nat office, which is not defined: define it, or \
         correct the name"
    );
    assert_eq!(
        refused(town().program("sever", "echo", echo_udp)),
        "the program echo names the node sever, which is not defined: define it, or correct the name"
    );
    let small = Nat { lan: "10.1.0.0/30".parse().unwrap(), ..Nat::default() };
    let inside = || Node { behind: Some("small".into()), ..Node::default() };
    assert_eq!(
        town().nat("small", small).node("a", inside()).node("b", inside()).build().unwrap_err(),
        SimError::NoFreeAddress { user: "node b".into(), network: "10.1.0.0/30".parse().unwrap() }
    );
}

fn kinds() -> impl Strategy<Value = FaultKind> {
    let node = || prop_oneof![Just("laptop"), Just("phone"), Just("server")];
    let nat = || prop_oneof![Just("home"), Just("cafe")];
    let place = || prop_oneof![Just("laptop"), Just("phone"), Just("server"), Just("home"), Just("cafe")];
    prop_oneof![
        Just(FaultKind::Partition(vec!["laptop".into(), "phone".into()], vec!["server".into()])),
        nat().prop_map(|nat| FaultKind::Rebind(nat.into())),
        nat().prop_map(|nat| FaultKind::Reboot(nat.into())),
        node().prop_map(|node| FaultKind::Crash(node.into())),
        node().prop_map(|node| FaultKind::Restart(node.into())),
        node().prop_map(|node| FaultKind::Pause(node.into())),
        node().prop_map(|node| FaultKind::GrapeOutage(node.into())),
        place().prop_map(|name| FaultKind::Down(name.into())),
        (place(), 0_u64..200, 0.0..1.0, proptest::option::of(1_000_u64..1_000_000)).prop_map(
            |(name, latency, loss, rate)| {
                FaultKind::Degrade(
                    name.into(),
                    Degradation { latency: ms(latency), loss, rate, ..Degradation::default() },
                )
            }
        ),
        (node(), any::<i32>(), -1_000_000_i64..1_000_000).prop_map(|(node, skew_us, drift_ppm)| {
            FaultKind::Clock { node: node.into(), skew_us: skew_us.into(), drift_ppm }
        }),
        (prop_oneof![Just("laptop"), Just("phone")], proptest::option::of(nat()), any::<bool>()).prop_map(
            |(node, nat, dsl)| FaultKind::Move(Move {
                node: node.into(),
                behind: nat.map(Into::into),
                link: dsl.then(|| "dsl".into()),
                ..Move::default()
            })
        ),
    ]
}

fn faults() -> impl Strategy<Value = Fault> {
    (kinds(), 0_u64..20_000, 1_u64..5_000, 1_u32..4).prop_map(|(kind, at, lasts, times)| {
        let fault = Fault::new(ms(at), kind);
        // Everything is over after 20 + 3 × 5.001 + 5 seconds.
        let fault = if fault.kind.is_of_a_moment() { fault } else { fault.lasting(ms(lasts)) };
        fault.every(ms(lasts + 1), times)
    })
}

fn eventful(timeline: &[Fault]) -> (bool, Vec<String>) {
    let mut builder = town();
    for fault in timeline {
        builder = builder.fault(fault.clone());
    }
    let (works, records) = run(builder.build().unwrap(), async |world| {
        while world.now() < s(41) {
            for node in ["laptop", "phone"] {
                // A node that is down cannot bind.
                if world.is_up(node) {
                    let socket = udp(&world, node, 0);
                    let _ = tokio::time::timeout(ms(100), async {
                        let send = std::future::poll_fn(|cx| {
                            let ping = grenache::net::Transmit {
                                destination: address("203.0.113.2:7"),
                                contents: b"ping",
                                segment_size: None,
                            };
                            socket.socket.poll_send(cx, &ping)
                        });
                        let _ = send.await;
                    })
                    .await;
                }
            }
            tokio::time::sleep(ms(250)).await;
        }
        pings(&world, "laptop").await && pings(&world, "phone").await
    });
    (works, lines(&records))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_timeline_is_the_same_twice_and_leaves_a_network_that_works(timeline in proptest::collection::vec(faults(), 0..12)) {
        let (works, first) = eventful(&timeline);
        prop_assert!(works, "no ping gets through after the last fault");
        let (_, second) = eventful(&timeline);
        prop_assert!(first == second, "two runs differ");
    }
}
